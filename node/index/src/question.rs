//! Everything that the object layer asks of a partition, as data, so that it can be asked from another host: small
//! questions, and answers with a bound. What has no bound of its own is given in pages.

use base::StripeId;
use serde::{Deserialize, Serialize};

use crate::error::IndexError;
use crate::list::{ListPage, ListRequest};
use crate::model::{BucketRow, GarbageRow, MissingShard, ObjectRow, PartRow, UploadRow};
use crate::packing::PackWish;
use crate::snapshot::{Counters, ObjectHead, SmallObject, Snapshot};
use crate::sweep::{RunsFrom, RunsPage};

/// Rows in one page at most, whatever was asked for. S3's own pages have 1,000; a row takes a few KiB at most, so
/// that a page stays well under [`crate::ANSWER_BYTES_MAX`].
pub const PAGE_ROWS_MAX: usize = 1000;
/// Rows in one page of those that are a few numbers each.
pub const PAGE_NUMBERS_MAX: usize = 16_384;
/// Runs in one answer, beyond which no further row is added; about 30 bytes each.
pub const PAGE_RUNS_MAX: usize = 65_536;

/// What may be asked. Each question is answered from one moment's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// A bucket.
    Bucket { name: String },
    /// Buckets after a name.
    Buckets { after: Option<String>, limit: u32 },
    /// An object without its layout, and whether its bucket is there.
    Head { bucket: String, key: String },
    /// An object with its layout, and whether its bucket is there.
    Object { bucket: String, key: String },
    /// One page of a bucket's objects; see [`ListRequest`].
    List { bucket: String, prefix: String, delimiter: Option<String>, after: Option<String>, limit: u32 },
    /// An upload under way, with its bucket.
    Upload { upload: u128 },
    /// Uploads under way in a bucket, after (key, upload).
    Uploads { bucket: String, prefix: String, after: Option<(String, u128)>, limit: u32 },
    /// Parts with numbers above `after`.
    Parts { upload: u128, after: u32, limit: u32 },
    /// The partition's numbers.
    Counters,
    /// Shards that repair owes, after (stripe, slot).
    MissingShards { after: Option<(StripeId, u8)>, limit: u32 },
    /// Garbage rows with ids from `from` on.
    Garbage { from: u64, limit: u32 },
    /// What the packer should gather.
    ToPack(PackWish),
    /// Runs of stripes that rows refer to.
    StripeRuns { from: RunsFrom, limit: u32 },
}

/// The answers, each to the question of its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The bucket, where it is there.
    Bucket(Option<BucketRow>),
    /// Some buckets by name, and whether there are more.
    Buckets(Vec<(String, BucketRow)>, bool),
    /// Whether the bucket is there, and the object's head.
    Head { bucket: bool, head: Option<ObjectHead> },
    /// Whether the bucket is there, and the object.
    Object { bucket: bool, row: Option<Box<ObjectRow>> },
    /// The page; `None` when there is no such bucket.
    List(Option<ListPage>),
    /// The upload with its bucket.
    Upload(Option<(String, UploadRow)>),
    /// Whether the bucket is there, uploads by key and upload, and whether there are more.
    Uploads { bucket: bool, uploads: Vec<(u128, UploadRow)>, more: bool },
    /// Parts by number, and whether there are more.
    Parts(Vec<(u32, PartRow)>, bool),
    /// The numbers.
    Counters(Counters),
    /// Shards by stripe and slot.
    MissingShards(Vec<MissingShard>),
    /// Rows by id.
    Garbage(Vec<GarbageRow>),
    /// Small objects with the times of their objects.
    ToPack(Vec<(SmallObject, u64)>),
    /// A page of runs.
    StripeRuns(RunsPage),
}

fn rows(limit: u32) -> usize {
    (limit as usize).min(PAGE_ROWS_MAX)
}

/// Answers from one moment's rows.
///
/// # Errors
/// [`IndexError::View`], as all reads of a snapshot.
pub fn answer(snapshot: &Snapshot, question: &Question) -> Result<Answer, IndexError> {
    let has_bucket = |name: &str| snapshot.bucket(name).map(|row| row.is_some());
    Ok(match question {
        Question::Bucket { name } => Answer::Bucket(snapshot.bucket(name)?),
        Question::Buckets { after, limit } => {
            let (page, more) = snapshot.buckets_page(after.as_deref(), rows(*limit))?;
            Answer::Buckets(page, more)
        }
        Question::Head { bucket, key } => {
            Answer::Head { bucket: has_bucket(bucket)?, head: snapshot.head(bucket, key)? }
        }
        Question::Object { bucket, key } => {
            let row = snapshot.object(bucket, key)?.map(Box::new);
            Answer::Object { bucket: row.is_some() || has_bucket(bucket)?, row }
        }
        Question::List { bucket, prefix, delimiter, after, limit } => {
            if !has_bucket(bucket)? {
                return Ok(Answer::List(None));
            }
            let (delimiter, after) = (delimiter.as_deref(), after.as_deref());
            let request = ListRequest { prefix, delimiter, after, limit: rows(*limit) };
            Answer::List(Some(snapshot.list(bucket, &request)?))
        }
        Question::Upload { upload } => Answer::Upload(snapshot.upload(*upload)?),
        Question::Uploads { bucket, prefix, after, limit } => {
            let after = after.as_ref().map(|(key, upload)| (key.as_str(), *upload));
            let (uploads, more) = snapshot.uploads(bucket, prefix, after, rows(*limit))?;
            Answer::Uploads { bucket: has_bucket(bucket)?, uploads, more }
        }
        Question::Parts { upload, after, limit } => {
            let (parts, more) = snapshot.parts(*upload, *after, rows(*limit))?;
            Answer::Parts(parts, more)
        }
        Question::Counters => Answer::Counters(snapshot.counters()?),
        Question::MissingShards { after, limit } => {
            Answer::MissingShards(snapshot.missing_shards(*after, (*limit as usize).min(PAGE_NUMBERS_MAX))?)
        }
        Question::Garbage { from, limit } => Answer::Garbage(garbage(snapshot, *from, rows(*limit))?),
        Question::ToPack(wish) => Answer::ToPack(snapshot.to_pack(wish)?),
        Question::StripeRuns { from, limit } => {
            Answer::StripeRuns(snapshot.stripe_runs_page(from, (*limit as usize).min(PAGE_RUNS_MAX))?)
        }
    })
}

/// Garbage rows, as many as their runs allow; one at least.
fn garbage(snapshot: &Snapshot, from: u64, limit: usize) -> Result<Vec<GarbageRow>, IndexError> {
    let mut page = snapshot.garbage(from, limit)?;
    let mut runs = 0;
    let fitting = page.iter().take_while(|row| {
        runs += row.runs.len();
        runs <= PAGE_RUNS_MAX
    });
    let fitting = fitting.count().max(1);
    page.truncate(fitting);
    Ok(page)
}
