//! A partition as the object layer sees it: on this host, or on the one at the head of its chain.
//!
//! A client carries every request out at most once: it never sends a command again by itself, because a command that
//! took effect once must not do so twice. What it cannot tell it says ([`IndexError::is_outcome_unknown`]).

use std::fmt::Debug;
use std::ops::Range;

use base::{Lsn, StripeId};
use bytes::Bytes;
use futures::future::BoxFuture;

use crate::error::IndexError;
use crate::list::ListPage;
use crate::model::{BucketRow, Command, GarbageRow, MissingShard, ObjectRow, Outcome, PartRow, UploadRow};
use crate::packing::PackWish;
use crate::partition::Partition;
use crate::question::{Answer, Question, answer};
use crate::snapshot::{Counters, ObjectHead, SmallObject};
use crate::sweep::{RunsFrom, RunsPage};

/// One partition, from anywhere.
pub trait PartitionClient: Debug + Send + Sync + 'static {
    /// Carries a command out; returns when it is durable and every later question sees it. `data` is what
    /// [`crate::WITH_COMMAND`] in the command stands for.
    fn submit(&self, command: Command, data: Vec<Bytes>) -> BoxFuture<'_, Result<Outcome, IndexError>>;

    /// Answers a question from the rows of a moment between the call and the answer.
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Answer, IndexError>>;

    /// Bytes of data that lives in the journal: `range` counts from the start of the record's payload.
    fn read_data(&self, lsn: Lsn, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, IndexError>>;

    /// The partition itself, where it is on this host: only there is it checkpointed and closed, and only there run
    /// the services that clean up behind it.
    fn local(&self) -> Option<&Partition> {
        None
    }
}

impl PartitionClient for Partition {
    fn submit(&self, command: Command, data: Vec<Bytes>) -> BoxFuture<'_, Result<Outcome, IndexError>> {
        Box::pin(Self::submit(self, command, data))
    }

    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Answer, IndexError>> {
        Box::pin(async move { self.read(|snapshot| answer(snapshot, &question)) })
    }

    fn read_data(&self, lsn: Lsn, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, IndexError>> {
        Box::pin(Self::read_data(self, lsn, range))
    }

    fn local(&self) -> Option<&Partition> {
        Some(self)
    }
}

const OTHER: IndexError = IndexError::Malformed("an answer to another question");

/// The questions with their answers' types.
impl dyn PartitionClient {
    /// A bucket.
    ///
    /// # Errors
    /// [`IndexError`], as all questions.
    pub async fn bucket(&self, name: &str) -> Result<Option<BucketRow>, IndexError> {
        match self.ask(Question::Bucket { name: name.to_owned() }).await? {
            Answer::Bucket(row) => Ok(row),
            _ => Err(OTHER),
        }
    }

    /// Buckets after a name, and whether there are more.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn buckets(
        &self,
        after: Option<String>,
        limit: u32,
    ) -> Result<(Vec<(String, BucketRow)>, bool), IndexError> {
        match self.ask(Question::Buckets { after, limit }).await? {
            Answer::Buckets(page, more) => Ok((page, more)),
            _ => Err(OTHER),
        }
    }

    /// Whether the bucket is there, and an object's head.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn head(&self, bucket: &str, key: &str) -> Result<(bool, Option<ObjectHead>), IndexError> {
        match self.ask(Question::Head { bucket: bucket.to_owned(), key: key.to_owned() }).await? {
            Answer::Head { bucket, head } => Ok((bucket, head)),
            _ => Err(OTHER),
        }
    }

    /// Whether the bucket is there, and an object with its layout.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn object(&self, bucket: &str, key: &str) -> Result<(bool, Option<ObjectRow>), IndexError> {
        match self.ask(Question::Object { bucket: bucket.to_owned(), key: key.to_owned() }).await? {
            Answer::Object { bucket, row } => Ok((bucket, row.map(|row| *row))),
            _ => Err(OTHER),
        }
    }

    /// One page of a listing ([`Question::List`]); `None` when there is no such bucket.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn list(
        &self,
        bucket: &str,
        request: &crate::list::ListRequest<'_>,
    ) -> Result<Option<ListPage>, IndexError> {
        let question = Question::List {
            bucket: bucket.to_owned(),
            prefix: request.prefix.to_owned(),
            delimiter: request.delimiter.map(str::to_owned),
            after: request.after.map(str::to_owned),
            limit: request.limit.try_into().unwrap_or(u32::MAX),
        };
        match self.ask(question).await? {
            Answer::List(page) => Ok(page),
            _ => Err(OTHER),
        }
    }

    /// An upload under way, with its bucket.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn upload(&self, upload: u128) -> Result<Option<(String, UploadRow)>, IndexError> {
        match self.ask(Question::Upload { upload }).await? {
            Answer::Upload(row) => Ok(row),
            _ => Err(OTHER),
        }
    }

    /// Uploads under way in a bucket after (key, upload), and whether there are more; `None` when there is no such
    /// bucket.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<(String, u128)>,
        limit: u32,
    ) -> Result<Option<(Vec<(u128, UploadRow)>, bool)>, IndexError> {
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        match self.ask(Question::Uploads { bucket, prefix, after, limit }).await? {
            Answer::Uploads { bucket, uploads, more } => Ok(bucket.then_some((uploads, more))),
            _ => Err(OTHER),
        }
    }

    /// Parts with numbers above `after`, and whether there are more.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn parts(&self, upload: u128, after: u32, limit: u32) -> Result<(Vec<(u32, PartRow)>, bool), IndexError> {
        match self.ask(Question::Parts { upload, after, limit }).await? {
            Answer::Parts(page, more) => Ok((page, more)),
            _ => Err(OTHER),
        }
    }

    /// The partition's numbers.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn counters(&self) -> Result<Counters, IndexError> {
        match self.ask(Question::Counters).await? {
            Answer::Counters(counters) => Ok(counters),
            _ => Err(OTHER),
        }
    }

    /// Shards that repair owes, after (stripe, slot).
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn missing_shards(
        &self,
        after: Option<(StripeId, u8)>,
        limit: u32,
    ) -> Result<Vec<MissingShard>, IndexError> {
        match self.ask(Question::MissingShards { after, limit }).await? {
            Answer::MissingShards(shards) => Ok(shards),
            _ => Err(OTHER),
        }
    }

    /// Garbage rows with ids from `from` on, oldest first.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn garbage(&self, from: u64, limit: u32) -> Result<Vec<GarbageRow>, IndexError> {
        match self.ask(Question::Garbage { from, limit }).await? {
            Answer::Garbage(rows) => Ok(rows),
            _ => Err(OTHER),
        }
    }

    /// What the packer should gather, with the times of the objects.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn to_pack(&self, wish: PackWish) -> Result<Vec<(SmallObject, u64)>, IndexError> {
        match self.ask(Question::ToPack(wish)).await? {
            Answer::ToPack(members) => Ok(members),
            _ => Err(OTHER),
        }
    }

    /// Runs of stripes that rows refer to.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn stripe_runs(&self, from: RunsFrom, limit: u32) -> Result<RunsPage, IndexError> {
        match self.ask(Question::StripeRuns { from, limit }).await? {
            Answer::StripeRuns(page) => Ok(page),
            _ => Err(OTHER),
        }
    }
}
