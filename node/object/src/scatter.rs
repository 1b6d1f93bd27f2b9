//! One stripe's shards go out side by side, and nobody waits for the slowest.
//!
//! A stripe is answered for when every shard is durable; or when `shards_min` are and either only devices known to be
//! slow still write, or a short grace is over. The grace follows from how long the others took, this time and lately.
//! The shards not heard of by then are missing as far as the row says; they go on in the background (`late.rs`), a
//! few on each device: a device that owes as many is not sent more.
//!
//! Bound: a put waits for `shards_min` devices (up to [`WRITE_MAX`]; then it is refused), and at most [`GRACE_RATIO`]
//! times as long again (within [`GRACE_MIN`]..[`GRACE_MAX`]) for the others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base::StripeId;
use bytes::Bytes;
use format::{Descriptor, ShardKey};
use futures::StreamExt;
use futures::future::{BoxFuture, Either, select};
use futures::stream::FuturesUnordered;
use index::model::MissingShard;
use shards::{Payload, StoreError};
use tokio::sync::OwnedSemaphorePermit;

use crate::api::{ObjectError, ObjectResult};
use crate::inner::{Inner, Intake, count, shard_error};
use crate::late::{self, Late};
use crate::pace::Kind;
use crate::stores::{ShardError, ShardResult, ShardStore};
use crate::stripe::EncodedStripe;
use crate::topology::Topology;

/// Late shards that one device may owe; each holds its stripe's memory (6 MiB at 4+2). Two devices that hang hold a
/// quarter of the daemon's budget.
pub(crate) const LATE_MAX: u32 = 4;
/// How long the last shards are waited for, in the time that the others took.
pub(crate) const GRACE_RATIO: u32 = 3;
/// Hiccups shorter than this cost less than a shard that repair owes.
pub(crate) const GRACE_MIN: Duration = Duration::from_millis(20);
/// Nobody waits longer than this once the stripe is safe; also where nothing was measured yet.
pub(crate) const GRACE_MAX: Duration = Duration::from_secs(2);
/// A stripe that has too few durable shards by then is refused: the client tries again, perhaps with other devices.
pub(crate) const WRITE_MAX: Duration = Duration::from_secs(30);
/// How long a newer map is waited for when a host refuses the one we go by.
pub(crate) const NEWER_VIEW_WAIT: Duration = Duration::from_secs(1);

/// A shard on its way.
pub(crate) type Shipment = BoxFuture<'static, Landed>;

/// What became of it, and where it is.
pub(crate) struct Landed {
    pub(crate) slot: usize,
    pub(crate) done: ShardResult<Arc<dyn ShardStore>>,
}

/// One shard and where it goes.
struct Parcel {
    inner: Arc<Inner>,
    view: Arc<Topology>,
    group: u32,
    slot: usize,
    key: ShardKey,
    about: Bytes,
    payload: Payload,
}

impl Parcel {
    fn ship(self) -> Shipment {
        Box::pin(async move {
            let mut done = self.put(&self.view).await;
            if matches!(done, Err(ShardError::StaleMap { .. }))
                && let Some(newer) = self.inner.newer_view(self.view.epoch(), NEWER_VIEW_WAIT).await
            {
                count(&self.inner.stats.views_renewed);
                done = self.put(&newer).await;
            }
            Landed { slot: self.slot, done }
        })
    }

    async fn put(&self, view: &Topology) -> ShardResult<Arc<dyn ShardStore>> {
        let device = view.slot(self.group, self.slot).ok_or(StoreError::Closed)?;
        let store = device.store.as_ref().ok_or(StoreError::Closed)?;
        let under_way = device.pace.begin(Kind::Put, self.inner.clock.monotonic());
        let done = store.put(self.key, self.about.clone(), self.payload.clone()).await;
        if matches!(done, Ok(()) | Err(ShardError::Timeout)) {
            under_way.answered(self.inner.clock.monotonic());
        }
        done.map(|()| Arc::clone(store))
    }
}

/// A stripe being written.
struct Scatter<'a> {
    inner: &'a Arc<Inner>,
    view: &'a Topology,
    group: u32,
    writes: FuturesUnordered<Shipment>,
    /// Slots not heard of.
    open: BTreeSet<usize>,
    durable: Vec<usize>,
    failed: Vec<(usize, ShardError)>,
    begun: Duration,
}

/// Writes a stripe's shards; returns when enough are durable that the tolerance holds, with what is missing.
pub(crate) async fn write_stripe(
    inner: &Arc<Inner>,
    view: Arc<Topology>,
    group: u32,
    stripe: EncodedStripe,
    descriptor: Descriptor,
    permit: OwnedSemaphorePermit,
) -> ObjectResult<Vec<MissingShard>> {
    let mut scatter = Scatter {
        inner,
        view: &view,
        group,
        writes: FuturesUnordered::new(),
        open: BTreeSet::new(),
        durable: Vec::new(),
        failed: Vec::new(),
        begun: inner.clock.monotonic(),
    };
    scatter.send(&view, &stripe, &descriptor);
    let enough = scatter.wait().await;
    let Scatter { writes, open, mut failed, .. } = scatter;
    let (id, stripe_bytes) = (descriptor.stripe, stripe.data_len as u32);
    count(&inner.stats.stripes_written);
    if writes.is_empty() {
        if let Some(buf) = stripe.into_buf() {
            inner.memory.give_back(buf);
        }
        drop(permit);
    } else {
        let owed = open.iter().filter_map(|slot| Some((*slot, view.slot(group, *slot)?.pace.begin_late()))).collect();
        late::leave(inner, Late { stripe: id, group, stripe_bytes, writes, owed, permit });
    }
    if !enough {
        return Err(refusal(inner, id, &failed));
    }
    failed.extend(open.into_iter().map(|slot| (slot, ShardError::Timeout)));
    if failed.is_empty() {
        return Ok(Vec::new());
    }
    count(&inner.stats.stripes_degraded);
    Ok(failed.iter().map(|(slot, _)| MissingShard { stripe: id, slot: *slot as u8, group, stripe_bytes }).collect())
}

impl Scatter<'_> {
    /// Sends every shard whose device answers; those whose device owes too many only when they are needed.
    fn send(&mut self, view: &Arc<Topology>, stripe: &EncodedStripe, descriptor: &Descriptor) {
        let mut held_back = Vec::new();
        for slot in 0..self.inner.code.total() {
            let parcel = Parcel {
                inner: Arc::clone(self.inner),
                view: Arc::clone(view),
                group: self.group,
                slot,
                key: ShardKey::stripe(descriptor.stripe, slot as u8),
                about: Descriptor { slot: slot as u8, ..descriptor.clone() }.encode().into(),
                payload: Payload::Aligned { bytes: stripe.shard(slot), len: stripe.shard_len },
            };
            match view.slot(self.group, slot).filter(|device| device.store.is_some()) {
                None => self.failed.push((slot, StoreError::Closed.into())),
                Some(device) if device.pace.late() >= LATE_MAX => held_back.push(parcel),
                Some(_) => self.ship(parcel),
            }
        }
        let enough = self.open.len() >= self.inner.redundancy.shards_min();
        for parcel in held_back {
            if enough {
                count(&self.inner.stats.shards_not_sent);
                self.failed.push((parcel.slot, ShardError::Timeout));
            } else {
                self.ship(parcel);
            }
        }
    }

    fn ship(&mut self, parcel: Parcel) {
        self.open.insert(parcel.slot);
        self.writes.push(parcel.ship());
    }

    /// Waits until the stripe can be answered for; false when it cannot.
    async fn wait(&mut self) -> bool {
        let needed = self.inner.redundancy.shards_min();
        let mut timer = self.inner.timers.sleep(WRITE_MAX);
        let mut in_grace = false;
        loop {
            if self.durable.len() + self.open.len() < needed {
                return false;
            }
            if self.open.is_empty() {
                return true;
            }
            if self.durable.len() >= needed {
                if self.open.iter().all(|slot| self.is_slow(*slot)) {
                    return true;
                }
                if !in_grace {
                    in_grace = true;
                    timer = self.inner.timers.sleep(self.grace());
                }
            }
            let landed = match select(self.writes.next(), timer).await {
                Either::Left((landed, rest)) => {
                    timer = rest;
                    landed
                }
                Either::Right(((), _)) => {
                    self.give_up();
                    return in_grace;
                }
            };
            let Some(Landed { slot, done }) = landed else { return self.durable.len() >= needed };
            self.open.remove(&slot);
            match done {
                Ok(_) => {
                    if let Some(device) = self.view.slot(self.group, slot) {
                        device.pace.in_time(Kind::Put);
                    }
                    self.durable.push(slot);
                }
                Err(error) => self.failed.push((slot, error)),
            }
        }
    }

    /// Nobody waits for the rest any longer.
    fn give_up(&self) {
        count(&self.inner.stats.grace_expired);
        let usual = self.lately().unwrap_or(GRACE_MAX);
        let now = self.inner.clock.monotonic();
        for device in self.open.iter().filter_map(|slot| self.view.slot(self.group, *slot)) {
            device.pace.strike(Kind::Put, usual, now);
        }
    }

    fn is_slow(&self, slot: usize) -> bool {
        self.view.slot(self.group, slot).is_some_and(|device| device.pace.is_slow(Kind::Put))
    }

    /// How long the devices that have answered usually take; none while too little is known of one of them, as at
    /// the first writes after a start.
    fn lately(&self) -> Option<Duration> {
        let lately = |slot: &usize| self.view.slot(self.group, *slot)?.pace.percentile(Kind::Put, 95);
        let lately: Option<Vec<Duration>> = self.durable.iter().map(lately).collect();
        lately?.into_iter().max()
    }

    /// How long the last shards are waited for.
    fn grace(&self) -> Duration {
        let Some(lately) = self.lately() else { return GRACE_MAX };
        let took = self.inner.clock.monotonic().saturating_sub(self.begun);
        (lately.max(took) * GRACE_RATIO).clamp(GRACE_MIN, GRACE_MAX)
    }
}

/// Why a stripe was not written.
fn refusal(inner: &Inner, stripe: StripeId, failed: &[(usize, ShardError)]) -> ObjectError {
    let full = failed.iter().any(|(_, error)| *error == ShardError::Store(StoreError::Full));
    let Some((slot, error)) = failed.first() else { return ObjectError::Unavailable("no device answers".into()) };
    tracing::warn!(%stripe, failed = failed.len(), slot, %error, "a stripe was refused");
    if full {
        inner.set_intake(Intake::Full);
        ObjectError::InsufficientStorage
    } else if matches!(error, ShardError::Store(StoreError::Closed)) {
        ObjectError::Unavailable(format!("{} of {} devices", failed.len(), inner.code.total()))
    } else {
        shard_error(error)
    }
}
