//! The object layer of one host: [`ObjectApi`] over stores and index.

use std::sync::{Arc, Mutex};

use base::{Clock, Entropy, PartitionId};
use index::model::{
    Checksum, ChecksumAlgorithm, ChecksumKind, Command, Condition, Layout, ObjectMeta, ObjectRow, Outcome,
};
use index::{ListRequest, ObjectHead, Partition, PartitionConfig, PartitionStatus, Policy};
use shards::StoreHandle;

use crate::api::{
    Body, BucketInfo, ListPage, ListQuery, ObjectApi, ObjectError, ObjectInfo, ObjectResult, PartInfo, UploadInfo,
};
use crate::config::Redundancy;
use crate::ids::StripeIds;
use crate::inner::{Inner, Intake, ObjectStats, OpenError, ReadGuard, Readers, index_error, refused, unexpected};
use crate::memory::Memory;
use crate::read::ObjectReader;
use crate::{multipart, put};

/// The partition of a host that has one.
const PARTITION: PartitionId = PartitionId(0);

/// Fewer free bytes than this on a device and new objects are refused before they are taken in: what is
/// under way must still fit.
const ROOM_MIN_BYTES: u64 = 32 << 20;

/// What the object layer runs on.
pub struct OpenConfig {
    /// The cluster's devices in their fixed order; `None` for one that is missing.
    pub stores: Vec<Option<StoreHandle>>,
    /// How objects are kept.
    pub redundancy: Redundancy,
    /// Memory for bodies under way, in bytes, for the whole node.
    pub memory_bytes: usize,
    /// Memory for the index's pages, in bytes, for each of its views.
    pub view_cache_bytes: usize,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

/// The object layer; clones share it.
#[derive(Clone)]
pub struct ObjectStore {
    pub(crate) inner: Arc<Inner>,
}

impl ObjectStore {
    /// Opens the index over the stores that are there. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(config: OpenConfig) -> Result<Self, OpenError> {
        let (code, groups) = config.redundancy.prepare(config.stores.len())?;
        let present: Vec<StoreHandle> = config.stores.iter().flatten().cloned().collect();
        let missing = config.stores.len() - present.len();
        let policy = Policy::for_tolerance(config.stores.len(), config.redundancy.parity_shards);
        let partition = PartitionConfig { partition: PARTITION, policy, view_cache_bytes: config.view_cache_bytes };
        let partition = Partition::open(partition, index::mirrors(&present), missing).await?;
        let first_stripe = partition.read(|rows| rows.counters())?.stripes_below;
        let inner = Inner {
            stores: config.stores,
            redundancy: config.redundancy,
            code,
            groups,
            partition,
            ids: StripeIds::new(first_stripe),
            memory: Memory::new(config.memory_bytes),
            clock: config.clock,
            entropy: config.entropy,
            stats: ObjectStats::default(),
            intake: (Intake::Open as u8).into(),
            readers: Readers::default(),
            ripening: Mutex::default(),
            abandoned: Mutex::default(),
            first_stripe,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> &ObjectStats {
        &self.inner.stats
    }

    /// The index's state.
    #[must_use]
    pub fn index_status(&self) -> PartitionStatus {
        self.inner.partition.status()
    }

    /// Objects and their bytes, as the index counts them.
    ///
    /// # Errors
    /// When no index view can be read.
    pub fn counters(&self) -> ObjectResult<index::Counters> {
        self.inner.partition.read(|rows| rows.counters()).map_err(|error| index_error(&error))
    }

    /// Shards that are owed, up to `limit`.
    ///
    /// # Errors
    /// When no index view can be read.
    pub fn missing_shards(&self, limit: usize) -> ObjectResult<usize> {
        let rows = self.inner.partition.read(|rows| rows.missing_shards(None, limit));
        rows.map(|rows| rows.len()).map_err(|error| index_error(&error))
    }

    /// Looks at the devices; the daemon calls it a few times a second. Gives whether new objects are taken.
    pub async fn look_at_devices(&self) -> Intake {
        let (mut working, mut with_room) = (0, 0);
        for store in self.inner.stores.iter().flatten() {
            if let Ok(stats) = store.stats().await
                && !stats.poisoned
            {
                working += 1;
                with_room += usize::from(stats.available_bytes >= ROOM_MIN_BYTES);
            }
        }
        let needed = self.inner.redundancy.shards_min();
        let intake = match () {
            () if with_room >= needed => Intake::Open,
            () if working >= needed => Intake::Full,
            () => Intake::TooFewDevices,
        };
        self.inner.set_intake(intake);
        intake
    }

    /// Makes the index durable and trims its journal; the daemon calls it every few seconds.
    ///
    /// # Errors
    /// What the index says; the journal is then kept.
    pub async fn checkpoint(&self) -> ObjectResult<()> {
        self.inner.partition.checkpoint().await.map(drop).map_err(|error| index_error(&error))
    }

    /// Finishes what was submitted; the stores may be closed afterwards.
    ///
    /// # Errors
    /// What the index says; it is closed all the same.
    pub async fn close(&self) -> ObjectResult<()> {
        self.inner.partition.close().await.map_err(|error| index_error(&error))
    }

    fn rows<T>(&self, f: impl FnMut(&index::Snapshot) -> Result<T, index::IndexError>) -> ObjectResult<T> {
        self.inner.partition.read(f).map_err(|error| index_error(&error))
    }
}

pub(crate) fn info_of(key: String, row: ObjectRow) -> ObjectInfo {
    let parts = match row.layout {
        Layout::Parts(parts) => parts.into_iter().map(|part| (part.number, part.size, part.checksum)).collect(),
        _ => Vec::new(),
    };
    ObjectInfo {
        key,
        size: row.size,
        etag: row.etag,
        modified_ms: row.modified_ms,
        meta: row.meta,
        checksum: row.checksum,
        parts,
    }
}

fn info_of_head(head: ObjectHead) -> ObjectInfo {
    ObjectInfo {
        key: head.key,
        size: head.size,
        etag: head.etag,
        modified_ms: head.modified_ms,
        meta: head.meta,
        checksum: head.checksum,
        parts: Vec::new(),
    }
}

impl ObjectApi for ObjectStore {
    type Reader = ObjectReader;

    async fn create_bucket(&self, name: &str, owner: &str, region: &str) -> ObjectResult<()> {
        let row = index::model::BucketRow {
            owner: owner.to_owned(),
            created_ms: self.inner.clock.unix_ms(),
            region: region.to_owned(),
        };
        multipart::simple(&self.inner, Command::CreateBucket { name: name.to_owned(), row }).await
    }

    async fn head_bucket(&self, name: &str) -> ObjectResult<BucketInfo> {
        let row = self.rows(|rows| rows.bucket(name))?.ok_or(ObjectError::NoSuchBucket)?;
        Ok(BucketInfo { name: name.to_owned(), owner: row.owner, created_ms: row.created_ms, region: row.region })
    }

    async fn delete_bucket(&self, name: &str) -> ObjectResult<()> {
        multipart::simple(&self.inner, Command::DeleteBucket { name: name.to_owned() }).await
    }

    async fn list_buckets(&self) -> ObjectResult<Vec<BucketInfo>> {
        let rows = self.rows(|rows| rows.buckets())?.into_iter();
        let info = |(name, row): (String, index::model::BucketRow)| BucketInfo {
            name,
            owner: row.owner,
            created_ms: row.created_ms,
            region: row.region,
        };
        Ok(rows.map(info).collect())
    }

    async fn put<B: Body>(
        &self,
        bucket: &str,
        key: &str,
        meta: ObjectMeta,
        condition: Condition,
        body: &mut B,
    ) -> ObjectResult<ObjectInfo> {
        put::put(&self.inner, bucket, key, meta, condition, body).await
    }

    async fn open(&self, bucket: &str, key: &str) -> ObjectResult<(ObjectInfo, ObjectReader)> {
        let guard = ReadGuard::new(&self.inner);
        let row = self.rows(|rows| match rows.object(bucket, key)? {
            Some(row) => Ok(Ok(row)),
            None if rows.bucket(bucket)?.is_some() => Ok(Err(ObjectError::NoSuchKey)),
            None => Ok(Err(ObjectError::NoSuchBucket)),
        })??;
        let reader = ObjectReader {
            inner: Arc::clone(&self.inner),
            guard,
            layout: row.layout.clone(),
            size: row.size,
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            modified_ms: row.modified_ms,
        };
        Ok((info_of(key.to_owned(), row), reader))
    }

    async fn delete(&self, bucket: &str, key: &str, condition: Condition) -> ObjectResult<bool> {
        let command = Command::DeleteObject { bucket: bucket.to_owned(), key: key.to_owned(), condition };
        let done = self.inner.partition.submit(command, Vec::new()).await;
        match done.map_err(|error| index_error(&error))? {
            Outcome::Deleted { existed } => Ok(existed),
            Outcome::Refused(refusal) => Err(refused(refusal)),
            other => Err(unexpected(&other)),
        }
    }

    async fn list(&self, bucket: &str, query: &ListQuery) -> ObjectResult<ListPage> {
        let request = ListRequest {
            prefix: &query.prefix,
            delimiter: query.delimiter.as_deref(),
            after: query.after.as_deref(),
            limit: query.limit,
        };
        let page = self.rows(|rows| {
            if rows.bucket(bucket)?.is_none() {
                return Ok(None);
            }
            rows.list(bucket, &request).map(Some)
        })?;
        let page = page.ok_or(ObjectError::NoSuchBucket)?;
        let objects = page.objects.into_iter().map(info_of_head).collect();
        Ok(ListPage { objects, prefixes: page.prefixes, next: page.next })
    }

    async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        owner: &str,
        meta: ObjectMeta,
        checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    ) -> ObjectResult<u128> {
        multipart::create(&self.inner, bucket, key, owner, meta, checksum).await
    }

    async fn head_upload(&self, bucket: &str, key: &str, upload: u128) -> ObjectResult<UploadInfo> {
        multipart::head(&self.inner, bucket, key, upload)
    }

    async fn put_part<B: Body>(
        &self,
        bucket: &str,
        key: &str,
        upload: u128,
        number: u32,
        body: &mut B,
    ) -> ObjectResult<PartInfo> {
        multipart::put_part(&self.inner, bucket, key, upload, number, body).await
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
        multipart::complete(&self.inner, bucket, key, upload, parts, checksum, condition).await
    }

    async fn abort_upload(&self, bucket: &str, key: &str, upload: u128) -> ObjectResult<()> {
        let command = Command::AbortUpload { bucket: bucket.to_owned(), key: key.to_owned(), upload };
        multipart::simple(&self.inner, command).await
    }

    async fn list_parts(
        &self,
        bucket: &str,
        key: &str,
        upload: u128,
        after: u32,
        limit: usize,
    ) -> ObjectResult<(Vec<PartInfo>, bool)> {
        multipart::head(&self.inner, bucket, key, upload)?;
        let (rows, more) = self.rows(|rows| rows.parts(upload, after, limit))?;
        Ok((rows.into_iter().map(|(number, row)| multipart::part_info(number, row)).collect(), more))
    }

    async fn list_uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<(String, u128)>,
        limit: usize,
    ) -> ObjectResult<(Vec<UploadInfo>, bool)> {
        self.head_bucket(bucket).await?;
        let after = after.as_ref().map(|(key, upload)| (key.as_str(), *upload));
        let (rows, more) = self.rows(|rows| rows.uploads(bucket, prefix, after, limit))?;
        Ok((rows.into_iter().map(|(upload, row)| multipart::upload_info(upload, row)).collect(), more))
    }
}
