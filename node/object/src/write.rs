//! Writing stripes: k+m shards side by side, and what to do when some cannot be written.

use std::sync::Arc;

use base::StripeId;
use format::{Descriptor, ShardKey};
use futures::future::join_all;
use index::model::{MissingShard, StripeRun};
use shards::{Payload, StoreError};
use tokio::task::{JoinError, JoinSet};

use crate::api::{ObjectError, ObjectResult};
use crate::inner::{Inner, Intake, count, index_error, store_error};
use crate::stripe::{EncodedStripe, StripeBuf, memory_bytes};

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
    pub(crate) missing: Vec<MissingShard>,
}

impl Pending {
    fn new(inner: &Arc<Inner>) -> Self {
        Self { inner: Arc::clone(inner), runs: Vec::new(), missing: Vec::new() }
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
    pub(crate) pending: Pending,
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
        let (id, group) = self.next_id(len).await?;
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
        self.in_flight.spawn(async move {
            let missing = write_stripe(&inner, group, encoded, descriptor).await;
            drop(permit);
            missing
        });
        Ok(())
    }

    /// The id and group of the next stripe; extends the current run or begins one.
    async fn next_id(&mut self, len: usize) -> ObjectResult<(StripeId, u32)> {
        if self.ids_left == 0 {
            let full = self.inner.redundancy.stripe_bytes() as u64;
            let left = self.expected.map(|expected| expected.saturating_sub(self.stripe_offset).div_ceil(full));
            let count = left.unwrap_or(RUN_STRIPES_UNKNOWN).clamp(1, RUN_STRIPES_MAX);
            let first = self.inner.ids.take(&self.inner.partition, count).await.map_err(|e| index_error(&e))?;
            let group = self.inner.groups.spread(first.0);
            self.ids_left = count;
            self.pending.runs.push(StripeRun { first, count: 0, group, stripe_bytes: full as u32, bytes: 0 });
        }
        self.ids_left -= 1;
        let run = self.pending.runs.last_mut().expect("a run was begun");
        let id = StripeId(run.first.0 + u64::from(run.count));
        run.count += 1;
        run.bytes += len as u64;
        Ok((id, run.group))
    }
}

/// A task's answer; one that panicked wrote nothing that counts.
fn written(done: Result<ObjectResult<Vec<MissingShard>>, JoinError>) -> ObjectResult<Vec<MissingShard>> {
    done.unwrap_or_else(|error| Err(ObjectError::Internal(format!("writing a stripe ended early: {error}"))))
}

/// Writes a stripe's shards; returns when enough are durable that the tolerance holds, with what is missing.
async fn write_stripe(
    inner: &Arc<Inner>,
    group: u32,
    stripe: EncodedStripe,
    descriptor: Descriptor,
) -> ObjectResult<Vec<MissingShard>> {
    let writes = (0..inner.code.total()).map(|slot| {
        let store = inner.store(group, slot);
        let payload = Payload::Aligned { bytes: stripe.shard(slot), len: stripe.shard_len };
        let about = Descriptor { slot: slot as u8, ..descriptor.clone() }.encode().into();
        let key = ShardKey::stripe(descriptor.stripe, slot as u8);
        async move {
            match store {
                Some(store) => store.put(key, about, payload).await,
                None => Err(StoreError::Closed),
            }
        }
    });
    let done = join_all(writes).await;
    let stripe_bytes = stripe.data_len as u32;
    if let Some(buf) = stripe.into_buf() {
        inner.memory.give_back(buf);
    }
    count(&inner.stats.stripes_written);
    let failed: Vec<(usize, StoreError)> =
        done.into_iter().enumerate().filter_map(|(slot, done)| Some((slot, done.err()?))).collect();
    if failed.is_empty() {
        return Ok(Vec::new());
    }
    if inner.code.total() - failed.len() < inner.redundancy.shards_min() {
        let full = failed.iter().any(|(_, error)| *error == StoreError::Full);
        let (slot, error) = &failed[0];
        tracing::warn!(stripe = %descriptor.stripe, failed = failed.len(), slot, %error, "a stripe was refused");
        return Err(if full {
            inner.set_intake(Intake::Full);
            ObjectError::InsufficientStorage
        } else if matches!(error, StoreError::Closed) {
            ObjectError::Unavailable(format!("{} of {} devices", failed.len(), inner.code.total()))
        } else {
            store_error(error)
        });
    }
    count(&inner.stats.stripes_degraded);
    Ok(failed
        .iter()
        .map(|(slot, _)| MissingShard { stripe: descriptor.stripe, slot: *slot as u8, group, stripe_bytes })
        .collect())
}
