//! What each command does to the rows. Deterministic: rows and outcomes depend on the rows before and on
//! the command alone, never on a clock, on chance or on which view it is.
//!
//! Every stripe that a command names is referred to by exactly one row afterwards: an object, a part, a
//! pack, or a garbage row.

mod object;
mod pack;
mod store;
mod upload;

use base::Lsn;
use redb::WriteTransaction;

use crate::batch::{Batch, Entry, WITH_COMMAND};
use crate::error::ViewResult;
use crate::model::{Command, Condition, ETag, Layout, Outcome, Refusal, StripeRun};

pub(crate) use store::{Rows, create_tables};

/// Applies a batch inside a transaction; the caller commits.
pub(crate) fn apply(txn: &WriteTransaction, lsn: Lsn, batch: &Batch) -> ViewResult<Vec<Outcome>> {
    let mut rows = Rows::open(txn)?;
    let outcomes = batch.entries.iter().map(|entry| rows.apply(lsn, entry)).collect::<ViewResult<Vec<_>>>()?;
    rows.finish(lsn)?;
    Ok(outcomes)
}

impl Rows<'_> {
    fn apply(&mut self, lsn: Lsn, entry: &Entry) -> ViewResult<Outcome> {
        match &entry.command {
            Command::CreateBucket { name, row } => self.create_bucket(name, row),
            Command::DeleteBucket { name } => self.delete_bucket(name),
            Command::PutObject { bucket, key, row, condition, missing } => {
                let mut row = row.clone();
                row.layout = settle(row.layout, row.size, lsn, entry);
                self.put_object(bucket, key, row, condition, missing)
            }
            Command::DeleteObject { bucket, key, condition } => self.delete_object(bucket, key, condition),
            Command::CreateUpload { bucket, upload, row } => self.create_upload(bucket, *upload, row),
            Command::PutPart { bucket, upload, number, row, missing } => {
                let mut row = row.clone();
                row.layout = settle(row.layout, row.size, lsn, entry);
                self.put_part(bucket, *upload, *number, row, missing)
            }
            Command::CompleteUpload { bucket, key, upload, parts, modified_ms, checksum, condition } => {
                let completion = upload::Completion { parts, modified_ms: *modified_ms, checksum, condition };
                self.complete_upload(bucket, key, *upload, &completion)
            }
            Command::AbortUpload { bucket, key, upload } => self.abort_upload(bucket, key, *upload),
            Command::ReserveStripes { below } => {
                self.counters.stripes_below = self.counters.stripes_below.max(*below);
                Ok(Outcome::Done)
            }
            Command::Pack { stripe, group, pack_bytes, moves, missing } => {
                self.pack(*stripe, *group, *pack_bytes, moves, missing)
            }
            Command::GarbageFreed { ids } => self.garbage_freed(ids),
            Command::ShardsRepaired { shards } => self.shards_repaired(shards),
            Command::TakeStripes { count } => Ok(self.take_stripes(*count)),
            Command::FenceStripes { below } => Ok(self.fence_stripes(*below)),
        }
    }
}

/// The true place of data given with a command; nothing has no place.
fn settle(layout: Layout, size: u64, lsn: Lsn, entry: &Entry) -> Layout {
    if layout != WITH_COMMAND {
        return layout;
    }
    if size == 0 { Layout::Stripes(Vec::new()) } else { Layout::Journal { lsn, offset: entry.offset } }
}

/// What is there, for a condition to be judged by.
struct Present {
    etag: ETag,
    size: u64,
    modified_ms: u64,
}

/// Why a put under `condition` is refused.
fn judge_put(condition: &Condition, present: Option<&Present>) -> Option<Refusal> {
    match present {
        Some(present) => holds(condition, present),
        None if condition.must_match.is_some() => Some(Refusal::NoSuchKey),
        None => None,
    }
}

/// Why the conditions on an object that is there do not hold.
fn holds(condition: &Condition, present: &Present) -> Option<Refusal> {
    let tag = present.etag.to_string();
    let tag_fits = condition.must_match.as_ref().is_none_or(|tags| tags.iter().any(|t| t == "*" || *t == tag));
    let size_fits = condition.must_have_size.is_none_or(|size| size == present.size);
    let time_fits = condition.must_be_modified_at_s.is_none_or(|at| at == present.modified_ms / 1000);
    if !condition.must_not_exist && tag_fits && size_fits && time_fits {
        None
    } else {
        Some(Refusal::PreconditionFailed)
    }
}

/// A pack's stripe as a run.
pub(crate) fn pack_run(stripe: base::StripeId, group: u32, pack_bytes: u32) -> StripeRun {
    StripeRun { first: stripe, count: 1, group, stripe_bytes: pack_bytes, bytes: u64::from(pack_bytes) }
}
