//! Writing bodies: cut into stripes, encoded, sent out (`scatter.rs`) while the next one is being filled.

use std::sync::Arc;

use base::StripeId;
use format::Descriptor;
use index::model::{MissingShard, StripeRun};
use tokio::task::{JoinError, JoinSet};

use crate::api::{ObjectError, ObjectResult};
use crate::inner::{Inner, count};
use crate::scatter::write_stripe;
use crate::stripe::{StripeBuf, memory_bytes};
use crate::topology::Topology;

/// Stripes of one body that may be on their way to the devices while the next is being filled.
const STRIPES_IN_FLIGHT: usize = 2;
/// Stripe ids taken at once for a body of unknown length.
const RUN_STRIPES_UNKNOWN: u64 = 16;
/// Stripes in one run at most: what is read or rebuilt together stays on one group no longer than this.
const RUN_STRIPES_MAX: u64 = 64;

/// What all stripes of one body have in common.
#[derive(Debug, Clone)]
pub(crate) struct BodyInfo {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) upload: u128,
    pub(crate) part: u32,
    pub(crate) modified_ms: u64,
    pub(crate) pack: bool,
}

/// Stripes written for a body that is not visible yet. Dropped without [`Self::commit`], they are freed.
pub(crate) struct Pending {
    inner: Arc<Inner>,
    pub(crate) runs: Vec<StripeRun>,
    /// The view that each run was written under.
    views: Vec<Arc<Topology>>,
    missing: Vec<MissingShard>,
}

impl Pending {
    fn new(inner: &Arc<Inner>) -> Self {
        Self { inner: Arc::clone(inner), runs: Vec::new(), views: Vec::new(), missing: Vec::new() }
    }

    /// The shards that are not where the newest map wants them: not written, or written under a map whose group has
    /// another device by now.
    pub(crate) fn owed(&self) -> Vec<MissingShard> {
        let now = self.inner.view();
        let mut owed = self.missing.clone();
        for (run, view) in self.runs.iter().zip(&self.views).filter(|(_, view)| view.epoch() != now.epoch()) {
            let pairs = view.slots(run.group).zip(now.slots(run.group)).enumerate();
            for (slot, _) in pairs.filter(|(_, (then, now))| then.id != now.id) {
                owed.extend((0..u64::from(run.count)).map(|number| {
                    let before = number * u64::from(run.stripe_bytes);
                    let stripe_bytes = u64::from(run.stripe_bytes).min(run.bytes - before) as u32;
                    let stripe = StripeId(run.first.0 + number);
                    MissingShard { stripe, slot: slot as u8, group: run.group, stripe_bytes }
                }));
            }
        }
        owed.sort_unstable();
        owed.dedup();
        owed
    }

    /// The stripes belong to a row now (or to its garbage): not ours to free.
    pub(crate) fn commit(mut self) {
        self.runs.clear();
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.runs.is_empty() {
            self.inner.abandon(std::mem::take(&mut self.runs));
        }
    }
}

/// Cuts a body into stripes and writes them.
pub(crate) struct StripeWriter {
    inner: Arc<Inner>,
    info: BodyInfo,
    pending: Pending,
    /// Bytes to come, where the client said so; shapes the last stripe.
    expected: Option<u64>,
    taken: u64,
    current: Option<(StripeBuf, tokio::sync::OwnedSemaphorePermit)>,
    /// Tasks of their own: they go on, and give their memory back, while this body waits for memory or
    /// for its client.
    in_flight: JoinSet<ObjectResult<Vec<MissingShard>>>,
    stripes: u32,
    /// Ids left in the current run.
    ids_left: u64,
    /// Data bytes in stripes before the one being filled.
    stripe_offset: u64,
}

impl StripeWriter {
    pub(crate) fn new(inner: &Arc<Inner>, info: BodyInfo, expected: Option<u64>) -> Self {
        Self {
            inner: Arc::clone(inner),
            info,
            pending: Pending::new(inner),
            expected,
            taken: 0,
            current: None,
            in_flight: JoinSet::new(),
            stripes: 0,
            ids_left: 0,
            stripe_offset: 0,
        }
    }

    /// Takes the next bytes of the body.
    pub(crate) async fn push(&mut self, mut bytes: &[u8]) -> ObjectResult<()> {
        while !bytes.is_empty() {
            if self.current.as_ref().is_some_and(|(stripe, _)| stripe.room() == 0) {
                self.dispatch(false).await?;
            }
            if self.current.is_none() {
                self.begin_stripe().await;
            }
            let (stripe, _) = self.current.as_mut().expect("just begun");
            let take = bytes.len().min(stripe.room());
            stripe.push(&bytes[..take]);
            self.taken += take as u64;
            bytes = &bytes[take..];
        }
        Ok(())
    }

    /// Writes what is left; returns when every stripe is durable.
    pub(crate) async fn finish(mut self) -> ObjectResult<Pending> {
        if self.current.is_some() {
            self.dispatch(true).await?;
        }
        while let Some(done) = self.in_flight.join_next().await {
            self.pending.missing.extend(written(done)?);
        }
        Ok(self.pending)
    }

    async fn begin_stripe(&mut self) {
        let inner = &self.inner;
        let full = inner.redundancy.stripe_bytes();
        let left = self.expected.map_or(u64::MAX, |expected| expected.saturating_sub(self.taken));
        // A body longer than it said goes on in full stripes until the face refuses it.
        let capacity = if left == 0 { full } else { full.min(usize::try_from(left).unwrap_or(full)) };
        let bytes = memory_bytes(&inner.code, capacity);
        let permit = inner.memory.take(bytes).await;
        let stripe = StripeBuf::new(&inner.code, capacity, inner.memory.spare(bytes));
        self.current = Some((stripe, permit));
    }

    async fn dispatch(&mut self, last: bool) -> ObjectResult<()> {
        while self.in_flight.len() >= STRIPES_IN_FLIGHT {
            let done = self.in_flight.join_next().await.expect("one is in flight");
            self.pending.missing.extend(written(done)?);
        }
        let Some((stripe, permit)) = self.current.take() else { return Ok(()) };
        let len = stripe.len();
        let (id, group, view) = self.next_id(len).await?;
        let inner = Arc::clone(&self.inner);
        let choice = id.0;
        let encoded = stripe.encode(&inner.code, choice).map_err(|_| {
            count(&inner.stats.encode_mismatches);
            tracing::error!(stripe = %id, "an encoded stripe does not give its data back; this host's memory is not sound");
            ObjectError::Internal("an encoded stripe did not give its data back".into())
        })?;
        let descriptor = Descriptor {
            stripe: id,
            data_shards: inner.code.k() as u8,
            parity_shards: inner.code.m() as u8,
            slot: 0,
            stripe_bytes: len as u32,
            stripe_number: self.stripes,
            stripe_offset: self.stripe_offset,
            last,
            pack: self.info.pack,
            upload: self.info.upload,
            part: self.info.part,
            modified_ms: self.info.modified_ms,
            bucket: self.info.bucket.clone(),
            key: self.info.key.clone(),
        };
        self.stripes += 1;
        self.stripe_offset += len as u64;
        self.in_flight.spawn(async move { write_stripe(&inner, view, group, encoded, descriptor, permit).await });
        Ok(())
    }

    /// The id and group of the next stripe; extends the current run or begins one.
    async fn next_id(&mut self, len: usize) -> ObjectResult<(StripeId, u32, Arc<Topology>)> {
        if self.ids_left == 0 {
            let full = self.inner.redundancy.stripe_bytes() as u64;
            let left = self.expected.map(|expected| expected.saturating_sub(self.stripe_offset).div_ceil(full));
            let count = left.unwrap_or(RUN_STRIPES_UNKNOWN).clamp(1, RUN_STRIPES_MAX);
            let first = self.inner.take_ids(count).await?;
            let (view, group) = self.inner.choose()?;
            self.ids_left = count;
            self.pending.views.push(view);
            self.pending.runs.push(StripeRun { first, count: 0, group, stripe_bytes: full as u32, bytes: 0 });
        }
        self.ids_left -= 1;
        let run = self.pending.runs.last_mut().expect("a run was begun");
        let id = StripeId(run.first.0 + u64::from(run.count));
        run.count += 1;
        run.bytes += len as u64;
        let view = self.pending.views.last().expect("a run has a view");
        Ok((id, run.group, Arc::clone(view)))
    }
}

/// A task's answer; one that panicked wrote nothing that counts.
fn written(done: Result<ObjectResult<Vec<MissingShard>>, JoinError>) -> ObjectResult<Vec<MissingShard>> {
    done.unwrap_or_else(|error| Err(ObjectError::Internal(format!("writing a stripe ended early: {error}"))))
}
