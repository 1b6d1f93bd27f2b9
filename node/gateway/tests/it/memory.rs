//! An object layer in memory, for the gateway's tests: the contract of `ObjectApi` in the plainest form,
//! and faults on demand. Parts may be small (5 MiB parts would make the tests slow) unless `strict_parts`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object::api::{
    Body, BucketInfo, Checksum, ChecksumAlgorithm, ChecksumKind, Condition, ETag, ListPage, ListQuery, ObjectApi,
    ObjectError, ObjectInfo, ObjectMeta, ObjectResult, PartInfo, Reader, UploadInfo,
};

const PIECE: usize = 64 * 1024;

#[derive(Clone)]
struct Stored {
    info: ObjectInfo,
    data: Bytes,
}

struct Upload {
    info: UploadInfo,
    meta: ObjectMeta,
    parts: BTreeMap<u32, (PartInfo, Bytes)>,
}

struct Bucket {
    info: BucketInfo,
    objects: BTreeMap<String, Stored>,
    uploads: BTreeMap<(String, u128), Upload>,
    completed: BTreeMap<u128, String>,
}

/// The object layer.
#[derive(Default)]
pub(crate) struct Memory {
    buckets: Mutex<BTreeMap<String, Bucket>>,
    next_upload: AtomicU64,
    fault: Mutex<Option<ObjectError>>,
    /// Reads fail after so many bytes (u64::MAX: never).
    read_limit: AtomicU64,
    pub(crate) strict_parts: AtomicBool,
}

pub(crate) struct MemoryReader {
    data: Bytes,
    limit: u64,
}

impl Reader for MemoryReader {
    fn read(self, range: Range<u64>) -> BoxStream<'static, ObjectResult<Bytes>> {
        let data = self.data.slice(range.start as usize..range.end as usize);
        let mut sent = 0u64;
        let pieces: Vec<Bytes> =
            (0..data.len()).step_by(PIECE).map(|at| data.slice(at..data.len().min(at + PIECE))).collect();
        let limit = self.limit;
        futures::stream::iter(pieces)
            .map(move |piece| {
                sent += piece.len() as u64;
                if sent > limit { Err(ObjectError::Internal("injected".into())) } else { Ok(piece) }
            })
            .boxed()
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn check(existing: Option<&Stored>, condition: &Condition) -> ObjectResult<()> {
    let asks = condition.must_match.is_some()
        || condition.must_have_size.is_some()
        || condition.must_be_modified_at_s.is_some();
    let Some(existing) = existing else {
        return if asks { Err(ObjectError::NoSuchKey) } else { Ok(()) };
    };
    let info = &existing.info;
    let tag = info.etag.to_string();
    let holds = !condition.must_not_exist
        && condition.must_match.as_ref().is_none_or(|tags| tags.iter().any(|t| t == "*" || *t == tag))
        && condition.must_have_size.is_none_or(|size| size == info.size)
        && condition.must_be_modified_at_s.is_none_or(|at| at == info.modified_ms / 1000);
    if holds { Ok(()) } else { Err(ObjectError::PreconditionFailed) }
}

async fn collect<B: Body>(body: &mut B) -> ObjectResult<(Bytes, [u8; 16], Option<Checksum>)> {
    let mut data = Vec::new();
    while let Some(piece) = body.next().await {
        data.extend_from_slice(&piece?);
    }
    let digest = body.finish()?;
    Ok((data.into(), digest.md5, digest.checksum))
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self { read_limit: AtomicU64::new(u64::MAX), ..Self::default() }
    }

    /// The next call fails so.
    pub(crate) fn fail_next(&self, error: ObjectError) {
        *self.fault.lock().unwrap() = Some(error);
    }

    pub(crate) fn limit_reads(&self, bytes: u64) {
        self.read_limit.store(bytes, Ordering::Relaxed);
    }

    fn state(&self) -> ObjectResult<MutexGuard<'_, BTreeMap<String, Bucket>>> {
        match self.fault.lock().unwrap().take() {
            Some(error) => Err(error),
            None => Ok(self.buckets.lock().unwrap()),
        }
    }

    fn with<T>(&self, bucket: &str, f: impl FnOnce(&mut Bucket) -> ObjectResult<T>) -> ObjectResult<T> {
        f(self.state()?.get_mut(bucket).ok_or(ObjectError::NoSuchBucket)?)
    }

    fn upload<T>(&self, bucket: &str, key: &str, id: u128, f: impl FnOnce(&mut Upload) -> T) -> ObjectResult<T> {
        self.with(bucket, |bucket| {
            bucket.uploads.get_mut(&(key.to_owned(), id)).map(f).ok_or(ObjectError::NoSuchUpload)
        })
    }
}

fn assemble(
    key: &str,
    upload: &Upload,
    parts: &[(u32, [u8; 16])],
    checksum: Option<Checksum>,
    strict: bool,
) -> ObjectResult<Stored> {
    let mut data = Vec::new();
    let mut layout = Vec::new();
    let mut md5s = Vec::new();
    for (at, (number, md5)) in parts.iter().enumerate() {
        let (info, bytes) = upload
            .parts
            .get(number)
            .filter(|(i, _)| i.md5 == *md5)
            .ok_or(ObjectError::InvalidPart { number: *number })?;
        if strict && at + 1 < parts.len() && info.size < 5 << 20 {
            return Err(ObjectError::PartTooSmall { number: *number, size: info.size });
        }
        data.extend_from_slice(bytes);
        md5s.extend_from_slice(md5);
        layout.push((*number, info.size, info.checksum.clone()));
    }
    let md5 = <md5::Md5 as md5::Digest>::digest(&md5s).into();
    let info = ObjectInfo {
        key: key.to_owned(),
        size: data.len() as u64,
        etag: ETag::Parts(md5, parts.len() as u32),
        modified_ms: now_ms(),
        meta: upload.meta.clone(),
        checksum,
        parts: layout,
    };
    Ok(Stored { info, data: data.into() })
}

impl ObjectApi for Memory {
    type Reader = MemoryReader;

    async fn create_bucket(&self, name: &str, owner: &str, region: &str) -> ObjectResult<()> {
        let mut buckets = self.state()?;
        if let Some(bucket) = buckets.get(name) {
            return Err(ObjectError::BucketExists { owner: bucket.info.owner.clone() });
        }
        let info = BucketInfo { name: name.into(), owner: owner.into(), created_ms: now_ms(), region: region.into() };
        let bucket = Bucket { info, objects: BTreeMap::new(), uploads: BTreeMap::new(), completed: BTreeMap::new() };
        buckets.insert(name.into(), bucket);
        Ok(())
    }

    async fn head_bucket(&self, name: &str) -> ObjectResult<BucketInfo> {
        self.with(name, |bucket| Ok(bucket.info.clone()))
    }

    async fn delete_bucket(&self, name: &str) -> ObjectResult<()> {
        self.with(name, |bucket| {
            let empty = bucket.objects.is_empty() && bucket.uploads.is_empty();
            if empty { Ok(()) } else { Err(ObjectError::BucketNotEmpty) }
        })?;
        self.state()?.remove(name);
        Ok(())
    }

    async fn list_buckets(&self) -> ObjectResult<Vec<BucketInfo>> {
        Ok(self.state()?.values().map(|bucket| bucket.info.clone()).collect())
    }

    async fn put<B: Body>(
        &self,
        bucket: &str,
        key: &str,
        meta: ObjectMeta,
        condition: Condition,
        body: &mut B,
    ) -> ObjectResult<ObjectInfo> {
        self.with(bucket, |bucket| check(bucket.objects.get(key), &condition))?;
        let (data, md5, checksum) = collect(body).await?;
        self.with(bucket, |bucket| {
            check(bucket.objects.get(key), &condition)?;
            let info = ObjectInfo {
                key: key.into(),
                size: data.len() as u64,
                etag: ETag::Whole(md5),
                modified_ms: now_ms(),
                meta,
                checksum,
                parts: Vec::new(),
            };
            bucket.objects.insert(key.into(), Stored { info: info.clone(), data });
            Ok(info)
        })
    }

    async fn open(&self, bucket: &str, key: &str) -> ObjectResult<(ObjectInfo, MemoryReader)> {
        let limit = self.read_limit.load(Ordering::Relaxed);
        self.with(bucket, |bucket| {
            let stored = bucket.objects.get(key).ok_or(ObjectError::NoSuchKey)?;
            Ok((stored.info.clone(), MemoryReader { data: stored.data.clone(), limit }))
        })
    }

    async fn delete(&self, bucket: &str, key: &str, condition: Condition) -> ObjectResult<bool> {
        self.with(bucket, |bucket| {
            check(bucket.objects.get(key), &condition)?;
            Ok(bucket.objects.remove(key).is_some())
        })
    }

    async fn list(&self, bucket: &str, query: &ListQuery) -> ObjectResult<ListPage> {
        self.with(bucket, |bucket| {
            let mut page = ListPage::default();
            let after = query.after.as_deref();
            for (key, stored) in bucket.objects.iter().filter(|(key, _)| key.starts_with(&query.prefix)) {
                let rolled = query.delimiter.as_deref().and_then(|d| {
                    Some(key[..query.prefix.len() + key[query.prefix.len()..].find(d)? + d.len()].to_owned())
                });
                let name = rolled.as_deref().unwrap_or(key);
                if after.is_some_and(|after| name <= after) || page.prefixes.last().map(String::as_str) == Some(name) {
                    continue;
                }
                if page.objects.len() + page.prefixes.len() == query.limit {
                    let last = [page.objects.last().map(|o| o.key.clone()), page.prefixes.last().cloned()];
                    page.next = last.into_iter().flatten().max();
                    return Ok(page);
                }
                match rolled {
                    Some(prefix) => page.prefixes.push(prefix),
                    None => page.objects.push(stored.info.clone()),
                }
            }
            Ok(page)
        })
    }

    async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        owner: &str,
        meta: ObjectMeta,
        checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    ) -> ObjectResult<u128> {
        let upload = u128::from(self.next_upload.fetch_add(1, Ordering::Relaxed)) + 1;
        self.with(bucket, |bucket| {
            let info = UploadInfo { key: key.into(), upload, started_ms: now_ms(), checksum, owner: owner.into() };
            bucket.uploads.insert((key.into(), upload), Upload { info, meta, parts: BTreeMap::new() });
            Ok(upload)
        })
    }

    async fn head_upload(&self, bucket: &str, key: &str, upload: u128) -> ObjectResult<UploadInfo> {
        self.upload(bucket, key, upload, |upload| upload.info.clone())
    }

    async fn put_part<B: Body>(
        &self,
        bucket: &str,
        key: &str,
        upload: u128,
        number: u32,
        body: &mut B,
    ) -> ObjectResult<PartInfo> {
        let (data, md5, checksum) = collect(body).await?;
        self.upload(bucket, key, upload, |upload| {
            let info = PartInfo { number, size: data.len() as u64, md5, modified_ms: now_ms(), checksum };
            upload.parts.insert(number, (info.clone(), data));
            info
        })
    }

    async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        upload: u128,
        parts: Vec<(u32, [u8; 16])>,
        checksum: Option<Checksum>,
        condition: Condition,
    ) -> ObjectResult<ObjectInfo> {
        let strict = self.strict_parts.load(Ordering::Relaxed);
        self.with(bucket, |bucket| {
            let id = (key.to_owned(), upload);
            if let Some(done) = bucket.completed.get(&upload).filter(|k| *k == key) {
                return bucket.objects.get(done).map(|s| s.info.clone()).ok_or(ObjectError::NoSuchUpload);
            }
            let found = bucket.uploads.get(&id).ok_or(ObjectError::NoSuchUpload)?;
            check(bucket.objects.get(key), &condition)?;
            let stored = assemble(key, found, &parts, checksum, strict)?;
            bucket.uploads.remove(&id);
            bucket.completed.insert(upload, key.into());
            bucket.objects.insert(key.into(), stored.clone());
            Ok(stored.info)
        })
    }

    async fn abort_upload(&self, bucket: &str, key: &str, upload: u128) -> ObjectResult<()> {
        self.with(bucket, |bucket| {
            bucket.uploads.remove(&(key.to_owned(), upload)).map(|_| ()).ok_or(ObjectError::NoSuchUpload)
        })
    }

    async fn list_parts(
        &self,
        bucket: &str,
        key: &str,
        upload: u128,
        after: u32,
        limit: usize,
    ) -> ObjectResult<(Vec<PartInfo>, bool)> {
        self.upload(bucket, key, upload, |upload| {
            let mut rest = upload.parts.range(after + 1..).map(|(_, (info, _))| info.clone());
            let page = rest.by_ref().take(limit).collect();
            (page, rest.next().is_some())
        })
    }

    async fn list_uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<(String, u128)>,
        limit: usize,
    ) -> ObjectResult<(Vec<UploadInfo>, bool)> {
        self.with(bucket, |bucket| {
            let mut rest = bucket
                .uploads
                .iter()
                .filter(|(id, _)| id.0.starts_with(prefix) && after.as_ref().is_none_or(|after| *id > after))
                .map(|(_, upload)| upload.info.clone());
            let page = rest.by_ref().take(limit).collect();
            Ok((page, rest.next().is_some()))
        })
    }
}
