//! The plain model: what AWS's rules say, over ordinary maps, with no stripes to account for.

use std::collections::BTreeMap;

use index::model::{
    BucketRow, Command, Condition, ETag, Layout, ObjectRow, Outcome, PartRow, Refusal, StripeRun, UploadRow,
};
use md5::{Digest, Md5};

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Bytes(Vec<u8>),
    Runs(Vec<StripeRun>),
    Parts(Vec<(u32, Content)>),
}

impl Content {
    fn of(layout: &Layout, data: &[u8]) -> Self {
        match layout {
            Layout::Stripes(runs) => Self::Runs(runs.clone()),
            _ if data.is_empty() => Self::Runs(Vec::new()),
            _ => Self::Bytes(data.to_vec()),
        }
    }

    pub(crate) fn small_pieces(&self) -> usize {
        match self {
            Self::Bytes(_) => 1,
            Self::Runs(_) => 0,
            Self::Parts(parts) => parts.iter().map(|(_, content)| content.small_pieces()).sum(),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) size: u64,
    pub(crate) etag: ETag,
    pub(crate) modified_ms: u64,
    pub(crate) content: Content,
}

#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) size: u64,
    pub md5: [u8; 16],
    pub(crate) content: Content,
}

#[derive(Debug)]
pub(crate) enum Expected {
    Done,
    Put { size: u64, etag: ETag, modified_ms: u64 },
    Deleted(bool),
    Packed,
    Stripes(u64),
    Refused(Refusal),
}

impl Expected {
    pub(crate) fn compare(&self, got: &Outcome, context: &str) {
        let same = match (self, got) {
            (Self::Done, Outcome::Done) | (Self::Packed, Outcome::Packed { .. }) => true,
            (Self::Put { size, etag, modified_ms }, Outcome::Put(row)) => {
                (row.size, row.etag, row.modified_ms) == (*size, *etag, *modified_ms)
            }
            (Self::Deleted(a), Outcome::Deleted { existed }) => a == existed,
            (Self::Stripes(a), Outcome::Stripes { first }) => *a == first.0,
            (Self::Refused(a), Outcome::Refused(b)) => a == b,
            _ => false,
        };
        assert!(same, "{context}: expected {self:?}, got {got:?}");
    }
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) buckets: BTreeMap<String, BucketRow>,
    pub(crate) objects: BTreeMap<(String, String), Object>,
    pub(crate) uploads: BTreeMap<u128, (String, UploadRow)>,
    pub(crate) parts: BTreeMap<(u128, u32), Part>,
    pub(crate) completed: BTreeMap<u128, (String, String, Object)>,
    pub(crate) stripes_below: u64,
    pub(crate) stripes_fence: u64,
}

impl Model {
    fn is_stale(&self, layout: &Layout) -> bool {
        matches!(layout, Layout::Stripes(runs) if runs.iter().any(|run| run.first.0 < self.stripes_fence))
    }

    pub(crate) fn apply(&mut self, command: &Command, data: &[u8]) -> Expected {
        match command {
            Command::PutObject { row: ObjectRow { layout, .. }, .. }
            | Command::PutPart { row: PartRow { layout, .. }, .. }
                if self.is_stale(layout) =>
            {
                Expected::Refused(Refusal::StaleStripes)
            }
            Command::CreateBucket { name, row } => match self.buckets.get(name) {
                Some(there) => Expected::Refused(Refusal::BucketExists { owner: there.owner.clone() }),
                None => {
                    self.buckets.insert(name.clone(), row.clone());
                    Expected::Done
                }
            },
            Command::DeleteBucket { name } => self.delete_bucket(name),
            Command::PutObject { bucket, key, row, condition, .. } => {
                let content = Content::of(&row.layout, data);
                let object = Object { size: row.size, etag: row.etag, modified_ms: row.modified_ms, content };
                self.put(bucket, key, object, condition).unwrap_or_else(Expected::Refused)
            }
            Command::DeleteObject { bucket, key, condition } => self.delete(bucket, key, condition),
            Command::CreateUpload { bucket, upload, row } => {
                if !self.buckets.contains_key(bucket) {
                    return Expected::Refused(Refusal::NoSuchBucket);
                }
                self.uploads.insert(*upload, (bucket.clone(), row.clone()));
                Expected::Done
            }
            Command::PutPart { bucket, upload, number, row, .. } => match self.uploads.get(upload) {
                Some((b, _)) if b == bucket => {
                    let content = Content::of(&row.layout, data);
                    self.parts.insert((*upload, *number), Part { size: row.size, md5: row.md5, content });
                    Expected::Done
                }
                _ => Expected::Refused(Refusal::NoSuchUpload),
            },
            Command::AbortUpload { bucket, key, upload } => match self.uploads.get(upload) {
                Some((b, row)) if b == bucket && row.key == *key => {
                    self.forget_upload(*upload);
                    Expected::Done
                }
                _ => Expected::Refused(Refusal::NoSuchUpload),
            },
            Command::CompleteUpload { bucket, key, upload, parts, modified_ms, condition, .. } => {
                self.complete(bucket, key, *upload, parts, *modified_ms, condition).unwrap_or_else(Expected::Refused)
            }
            Command::Pack { .. } => Expected::Packed,
            Command::ReserveStripes { below } => {
                self.stripes_below = self.stripes_below.max(*below);
                Expected::Done
            }
            Command::TakeStripes { count } => {
                self.stripes_below += count;
                Expected::Stripes(self.stripes_below - count)
            }
            Command::FenceStripes { below } => {
                self.stripes_fence = self.stripes_fence.max(self.stripes_below.min(*below));
                Expected::Done
            }
            Command::GarbageFreed { .. } | Command::ShardsRepaired { .. } => Expected::Done,
        }
    }

    fn forget_upload(&mut self, upload: u128) {
        self.uploads.remove(&upload);
        self.parts.retain(|(u, _), _| *u != upload);
    }

    fn delete_bucket(&mut self, name: &str) -> Expected {
        if !self.buckets.contains_key(name) {
            return Expected::Refused(Refusal::NoSuchBucket);
        }
        if self.objects.keys().any(|(bucket, _)| bucket == name) {
            return Expected::Refused(Refusal::BucketNotEmpty);
        }
        let doomed: Vec<u128> = self.uploads.iter().filter(|(_, (b, _))| b == name).map(|(u, _)| *u).collect();
        doomed.into_iter().for_each(|upload| self.forget_upload(upload));
        self.buckets.remove(name);
        Expected::Done
    }

    fn judge(&self, bucket: &str, key: &str, condition: &Condition) -> Result<(), Refusal> {
        let there = self.objects.get(&(bucket.to_owned(), key.to_owned()));
        match (there, &condition.must_match) {
            (Some(_), _) if condition.must_not_exist => Err(Refusal::PreconditionFailed),
            (Some(o), Some(tags)) if !tags.iter().any(|t| *t == "*" || *t == o.etag.to_string()) => {
                Err(Refusal::PreconditionFailed)
            }
            (None, Some(_)) => Err(Refusal::NoSuchKey),
            _ => Ok(()),
        }
    }

    fn put(&mut self, bucket: &str, key: &str, object: Object, condition: &Condition) -> Result<Expected, Refusal> {
        if !self.buckets.contains_key(bucket) {
            return Err(Refusal::NoSuchBucket);
        }
        self.judge(bucket, key, condition)?;
        let Object { size, etag, modified_ms, .. } = object;
        self.objects.insert((bucket.to_owned(), key.to_owned()), object);
        Ok(Expected::Put { size, etag, modified_ms })
    }

    fn delete(&mut self, bucket: &str, key: &str, condition: &Condition) -> Expected {
        if !self.buckets.contains_key(bucket) {
            return Expected::Refused(Refusal::NoSuchBucket);
        }
        match self.judge(bucket, key, condition) {
            Err(Refusal::NoSuchKey) if condition.must_match.iter().flatten().any(|tag| tag == "*") => {
                Expected::Refused(Refusal::PreconditionFailed)
            }
            Err(Refusal::NoSuchKey) => Expected::Deleted(false),
            Err(refusal) => Expected::Refused(refusal),
            Ok(()) => Expected::Deleted(self.objects.remove(&(bucket.to_owned(), key.to_owned())).is_some()),
        }
    }

    fn complete(
        &mut self,
        bucket: &str,
        key: &str,
        upload: u128,
        named: &[(u32, [u8; 16])],
        modified_ms: u64,
        condition: &Condition,
    ) -> Result<Expected, Refusal> {
        if let Some((b, k, object)) = self.completed.get(&upload)
            && b == bucket
            && k == key
        {
            return Ok(Expected::Put { size: object.size, etag: object.etag, modified_ms: object.modified_ms });
        }
        if !self.buckets.contains_key(bucket) {
            return Err(Refusal::NoSuchBucket);
        }
        match self.uploads.get(&upload) {
            Some((b, row)) if b == bucket && row.key == key => {}
            _ => return Err(Refusal::NoSuchUpload),
        }
        self.judge(bucket, key, condition)?;
        if named.is_empty() {
            return Err(Refusal::InvalidPart { number: 0 });
        }
        if named.windows(2).any(|w| w[0].0 >= w[1].0) {
            return Err(Refusal::InvalidPartOrder);
        }
        let (mut size, mut tags, mut contents) = (0, Vec::new(), Vec::new());
        for (i, (number, md5)) in named.iter().enumerate() {
            let part = self.parts.get(&(upload, *number)).filter(|p| p.md5 == *md5);
            let part = part.ok_or(Refusal::InvalidPart { number: *number })?;
            if i + 1 < named.len() && part.size < 5 << 20 {
                return Err(Refusal::PartTooSmall { number: *number, size: part.size });
            }
            size += part.size;
            tags.extend(md5);
            contents.push((*number, part.content.clone()));
        }
        let etag = ETag::Parts(Md5::digest(&tags).into(), named.len() as u32);
        let object = Object { size, etag, modified_ms, content: Content::Parts(contents) };
        self.objects.insert((bucket.to_owned(), key.to_owned()), object.clone());
        self.completed.insert(upload, (bucket.to_owned(), key.to_owned(), object));
        self.forget_upload(upload);
        Ok(Expected::Put { size, etag, modified_ms })
    }
}
