//! Taking bodies in: small ones for the journal, larger ones cut into stripes.

use std::sync::Arc;

use bytes::Bytes;
use index::WITH_COMMAND;
use index::model::{Command, Condition, ETag, Layout, MissingShard, ObjectMeta, ObjectRow, Outcome, Refusal};

use crate::api::{Body, BodyDigest, BodyError, ObjectError, ObjectInfo, ObjectResult};
use crate::config::{INLINE_MAX_BYTES, PUT_MAX_BYTES};
use crate::inner::{Inner, count, index_error, refused, unexpected};
use crate::store::info_of;
use crate::write::{BodyInfo, Pending, StripeWriter};

/// A body that has been taken in and is durable, or is small enough to become so with its row.
pub(crate) struct Taken {
    pub(crate) size: u64,
    pub(crate) digest: BodyDigest,
    pub(crate) layout: Layout,
    pub(crate) data: Vec<Bytes>,
    pub(crate) pending: Option<Pending>,
}

impl Taken {
    pub(crate) fn missing(&self) -> Vec<MissingShard> {
        self.pending.as_ref().map_or_else(Vec::new, Pending::owed)
    }

    /// The index knows the stripes now, or may: they are no longer ours to free.
    pub(crate) fn handed_over(self) {
        if let Some(pending) = self.pending {
            pending.commit();
        }
    }
}

/// Takes a whole body in. On any error nothing of it stays.
pub(crate) async fn take_body<B: Body>(inner: &Arc<Inner>, info: BodyInfo, body: &mut B) -> ObjectResult<Taken> {
    let expected = body.size_hint();
    if expected.is_some_and(|expected| expected > PUT_MAX_BYTES) {
        return Err(ObjectError::TooLarge);
    }
    let (mut size, mut small): (u64, Vec<Bytes>) = (0, Vec::new());
    let mut writer: Option<StripeWriter> = None;
    while let Some(bytes) = body.next().await {
        let bytes = bytes?;
        size += bytes.len() as u64;
        if size > PUT_MAX_BYTES {
            return Err(BodyError::TooLarge.into());
        }
        if size <= INLINE_MAX_BYTES as u64 {
            small.push(bytes);
            continue;
        }
        let writer = writer.get_or_insert_with(|| StripeWriter::new(inner, info.clone(), expected));
        for bytes in small.drain(..).chain([bytes]) {
            writer.push(&bytes).await?;
        }
    }
    let Some(writer) = writer else {
        let digest = body.finish()?;
        let layout = if size == 0 { Layout::Stripes(Vec::new()) } else { WITH_COMMAND };
        // A body may come in thousands of slivers; the journal wants few pieces.
        let data = if small.len() > 8 { vec![small.concat().into()] } else { small };
        count(&inner.stats.inline_puts);
        return Ok(Taken { size, digest, layout, data, pending: None });
    };
    // Both wait for something: the devices, and whoever hashes. The digest is judged last.
    let pending = writer.finish().await?;
    let digest = body.finish()?;
    let layout = Layout::Stripes(pending.runs.clone());
    Ok(Taken { size, digest, layout, data: Vec::new(), pending: Some(pending) })
}

/// Stores an object.
pub(crate) async fn put<B: Body>(
    inner: &Arc<Inner>,
    bucket: &str,
    key: &str,
    meta: ObjectMeta,
    condition: Condition,
    body: &mut B,
) -> ObjectResult<ObjectInfo> {
    check_early(inner, bucket, key, &condition).await?;
    inner.require_room()?;
    let modified_ms = inner.clock.unix_ms();
    let info = BodyInfo {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        upload: inner.unique(),
        part: 0,
        modified_ms,
        pack: false,
    };
    let mut taken = take_body(inner, info, body).await?;
    let row = ObjectRow {
        size: taken.size,
        etag: ETag::Whole(taken.digest.md5),
        // Last-Modified is when the object became visible, not when the first byte came.
        modified_ms: inner.clock.unix_ms(),
        meta,
        checksum: taken.digest.checksum.clone(),
        layout: taken.layout.clone(),
    };
    let command =
        Command::PutObject { bucket: bucket.to_owned(), key: key.to_owned(), row, condition, missing: taken.missing() };
    let data = std::mem::take(&mut taken.data);
    match submit(inner, command, data, taken).await? {
        Outcome::Put(row) => Ok(info_of(key.to_owned(), *row)),
        other => Err(unexpected(&other)),
    }
}

/// Submits a command that hands stripes over; frees them when it certainly had no effect.
pub(crate) async fn submit(
    inner: &Arc<Inner>,
    command: Command,
    data: Vec<Bytes>,
    taken: Taken,
) -> ObjectResult<Outcome> {
    // From here on the caller may go away at any moment while the command takes effect: the stripes are
    // the index's now, and only a certain failure gives them back.
    let runs = taken.pending.as_ref().map_or_else(Vec::new, |pending| pending.runs.clone());
    taken.handed_over();
    match inner.partition.submit(command, data).await {
        Ok(Outcome::Refused(refusal)) => {
            if refusal == Refusal::StaleStripes {
                inner.ids.forget();
            }
            Err(refused(refusal))
        }
        Ok(outcome) => Ok(outcome),
        Err(error) => {
            if !error.is_outcome_unknown() {
                inner.abandon(runs);
            }
            Err(index_error(&error))
        }
    }
}

/// Refuses what the rows of now already refuse, before the body is taken in. Decided again by the index.
async fn check_early(inner: &Inner, bucket: &str, key: &str, condition: &Condition) -> ObjectResult<()> {
    let (has_bucket, head) = if condition.must_not_exist || condition.must_match.is_some() {
        inner.partition.head(bucket, key).await.map_err(|error| index_error(&error))?
    } else {
        let row = inner.partition.bucket(bucket).await.map_err(|error| index_error(&error))?;
        (row.is_some(), None)
    };
    if !has_bucket {
        return Err(ObjectError::NoSuchBucket);
    }
    if condition.must_not_exist && head.is_some() {
        return Err(ObjectError::PreconditionFailed);
    }
    let Some(tags) = &condition.must_match else { return Ok(()) };
    match head {
        None => Err(ObjectError::NoSuchKey),
        Some(head) if tags.iter().any(|tag| tag == "*" || *tag == head.etag.to_string()) => Ok(()),
        Some(_) => Err(ObjectError::PreconditionFailed),
    }
}
