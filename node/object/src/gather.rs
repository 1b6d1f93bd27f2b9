//! The bytes of one stripe: from the shards that hold them, or computed from any k others; and nobody waits for the
//! slowest.
//!
//! - Slots whose device is absent or known to be slow are not waited for: their bytes are computed at once. A slow
//!   device is asked now and then all the same, to see whether it has recovered.
//! - What takes longer than its twins usually do is hedged: the same bytes are asked from other slots as well, and
//!   whatever is enough first is given out. A budget bounds what that adds ([`HedgeBudget`]).
//! - A read that fails under a view that has been replaced is tried again under the newer one.
//!
//! Bound: a read of a stripe of which k shards answer in time takes longer than they do by the time after which it is
//! hedged ([`HEDGE_MIN`]..[`HEDGE_MAX`]: what the others usually take), once for each round of shards that fail or hang;
//! by [`HEDGE_MAX`] where the budget is used up.
//!
//! [`HedgeBudget`]: crate::hedge::HedgeBudget

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use base::StripeId;
use bytes::Bytes;
use format::ShardKey;
use futures::StreamExt;
use futures::future::{BoxFuture, Either, select};
use futures::stream::FuturesUnordered;
use shards::StoreError;

use crate::api::{ObjectError, ObjectResult};
use crate::inner::{Inner, count};
use crate::pace::{Kind, Measure};
use crate::scatter::NEWER_VIEW_WAIT;
use crate::stores::{ShardError, ShardResult};
use crate::topology::{Device, Topology};

/// Hedging earlier than this saves nothing that anybody feels.
pub(crate) const HEDGE_MIN: Duration = Duration::from_millis(2);
/// Nobody waits longer than this without asking others.
pub(crate) const HEDGE_MAX: Duration = Duration::from_secs(1);
/// Nobody waits longer than this for too few shards: the client tries again.
pub(crate) const READ_MAX: Duration = Duration::from_secs(30);
/// While nothing was measured.
pub(crate) const HEDGE_UNKNOWN: Duration = Duration::from_millis(100);

/// Bytes of one stripe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) stripe: StripeId,
    pub(crate) group: u32,
    /// Data bytes in the stripe.
    pub(crate) stripe_bytes: usize,
    /// Which of them.
    pub(crate) range: Range<usize>,
}

/// The bytes of a piece, in order.
pub(crate) async fn read_piece(inner: &Arc<Inner>, piece: &Piece) -> ObjectResult<Vec<Bytes>> {
    let mut view = inner.view();
    loop {
        let mut read = PieceRead::new(inner, &view, piece);
        let done = read.run().await;
        let stale = read.stale;
        let Err(error) = done else { return done };
        // A host that goes by a newer map says so before we have it.
        let wait = if stale { NEWER_VIEW_WAIT } else { Duration::ZERO };
        match inner.newer_view(view.epoch(), wait).await {
            Some(newer) => {
                count(&inner.stats.views_renewed);
                view = newer;
            }
            None => {
                tracing::error!(stripe = %piece.stripe, %error, "a stripe cannot be read");
                return Err(error);
            }
        }
    }
}

/// Bytes of one slot that somebody wants.
struct Wanted {
    slot: usize,
    /// Of the shard.
    range: Range<usize>,
    bytes: Option<Bytes>,
}

struct Got {
    slot: usize,
    range: Range<usize>,
    bytes: ShardResult<Bytes>,
}

struct PieceRead<'a> {
    inner: &'a Arc<Inner>,
    view: &'a Topology,
    piece: &'a Piece,
    wanted: Vec<Wanted>,
    /// Slots that cannot be read.
    lost: BTreeSet<usize>,
    running: FuturesUnordered<BoxFuture<'static, Got>>,
    /// Slots asked for what is wanted of them and not heard of.
    direct: BTreeSet<usize>,
    /// What is computed, of every shard; `None` as long as nothing must be.
    span: Option<Range<usize>>,
    /// The span's bytes of some slots.
    columns: Vec<(usize, Bytes)>,
    /// Slots asked for bytes that cover the span.
    asked: BTreeSet<usize>,
    /// Those of them that are counted on.
    coming: BTreeSet<usize>,
    hedged: bool,
    denied: bool,
    /// Slots that were late once: one read counts once against a device.
    struck: BTreeSet<usize>,
    /// More devices are slow than can be gone around: then none is slow beside its twins.
    all_slow: bool,
    stale: bool,
    last_error: Option<ShardError>,
    begun: Duration,
}

fn covers(outer: &Range<usize>, range: &Range<usize>) -> bool {
    outer.start <= range.start && range.end <= outer.end
}

fn cut(bytes: &Bytes, from: &Range<usize>, range: &Range<usize>) -> Bytes {
    bytes.slice(range.start - from.start..range.end - from.start)
}

impl<'a> PieceRead<'a> {
    fn new(inner: &'a Arc<Inner>, view: &'a Topology, piece: &'a Piece) -> Self {
        let shard_len = inner.code.shard_len(piece.stripe_bytes);
        let slots = piece.range.start / shard_len..piece.range.end.div_ceil(shard_len);
        let wanted = slots.map(|slot| {
            let base = slot * shard_len;
            let range = piece.range.start.max(base) - base..piece.range.end.min(base + shard_len) - base;
            Wanted { slot, range, bytes: None }
        });
        let slow = view.slots(piece.group).filter(|device| device.pace.is_slow(Kind::Get)).count();
        Self {
            inner,
            view,
            piece,
            wanted: wanted.collect(),
            lost: BTreeSet::new(),
            running: FuturesUnordered::new(),
            direct: BTreeSet::new(),
            span: None,
            columns: Vec::new(),
            asked: BTreeSet::new(),
            coming: BTreeSet::new(),
            hedged: false,
            denied: false,
            struck: BTreeSet::new(),
            all_slow: slow > inner.code.m(),
            stale: false,
            last_error: None,
            begun: inner.clock.monotonic(),
        }
    }

    async fn run(&mut self) -> ObjectResult<Vec<Bytes>> {
        self.inner.hedges.earn(self.wanted.len());
        self.ask_directly();
        if self.direct.len() < self.wanted.len() {
            self.begin_rebuild(&BTreeSet::new());
        }
        let mut wait = self.hedge_after();
        let mut timer = self.inner.timers.sleep(wait);
        loop {
            if self.wanted.iter().all(|wanted| wanted.bytes.is_some()) {
                return Ok(self.give());
            }
            if self.columns.len() >= self.inner.code.k() {
                self.rebuild()?;
                self.drop_losers();
                return Ok(self.give());
            }
            if self.running.is_empty() {
                return Err(self.too_few());
            }
            match select(self.running.next(), timer).await {
                Either::Left((got, rest)) => {
                    timer = rest;
                    if let Some(got) = got {
                        self.take(got);
                    }
                }
                Either::Right(((), _)) => {
                    if self.waited() >= READ_MAX {
                        return Err(self.too_few());
                    }
                    self.hedge(wait);
                    // Who asks again and again gets less often a turn.
                    wait = if self.denied { (2 * wait).min(HEDGE_MAX) } else { wait };
                    timer = self.inner.timers.sleep(wait);
                }
            }
        }
    }

    fn device(&self, slot: usize) -> Option<&'a Device> {
        self.view.slot(self.piece.group, slot).filter(|device| device.store.is_some())
    }

    fn is_slow(&self, slot: usize) -> bool {
        !self.all_slow && self.device(slot).is_some_and(|device| device.pace.is_slow(Kind::Get))
    }

    /// Asks the slots that hold the bytes, but for absent and slow ones.
    fn ask_directly(&mut self) {
        for at in 0..self.wanted.len() {
            let (slot, range) = (self.wanted[at].slot, self.wanted[at].range.clone());
            let Some(device) = self.device(slot) else {
                self.lost.insert(slot);
                count(&self.inner.stats.shards_unreadable);
                continue;
            };
            if !self.is_slow(slot) {
                self.direct.insert(slot);
                self.ask(slot, range);
            } else if device.pace.probe_due()
                && let Some(measure) = device.pace.measure()
            {
                let read = self.read(device, slot, range);
                tokio::spawn(async move {
                    let _ = read.await;
                    drop(measure);
                });
            }
        }
    }

    fn read(&self, device: &Device, slot: usize, range: Range<usize>) -> BoxFuture<'static, Got> {
        let (inner, store) = (Arc::clone(self.inner), device.store.clone());
        let (key, pace) = (ShardKey::stripe(self.piece.stripe, slot as u8), Arc::clone(&device.pace));
        Box::pin(async move {
            let Some(store) = store else { return Got { slot, range, bytes: Err(StoreError::Closed.into()) } };
            let under_way = pace.begin(Kind::Get, inner.clock.monotonic());
            let read = store.get(key, range.start as u32..range.end as u32).await;
            if matches!(read, Ok(_) | Err(ShardError::Timeout)) {
                under_way.answered(inner.clock.monotonic());
            }
            // The shard's length follows from the stripe's: a shorter one is not this shard.
            let whole = |bytes: &Bytes| bytes.len() == range.len();
            let short = StoreError::Corrupt { offset: 0, what: "a shard is shorter than its stripe says" };
            let bytes = read.and_then(|bytes| if whole(&bytes) { Ok(bytes) } else { Err(short.into()) });
            Got { slot, range, bytes }
        })
    }

    fn ask(&mut self, slot: usize, range: Range<usize>) {
        match self.device(slot) {
            Some(device) => self.running.push(self.read(device, slot, range)),
            None => drop(self.lost.insert(slot)),
        }
    }

    fn take(&mut self, Got { slot, range, bytes }: Got) {
        let is_direct = self.direct.contains(&slot) && self.wanted.iter().any(|w| w.slot == slot && w.range == range);
        if is_direct {
            self.direct.remove(&slot);
        }
        let of_span = self.span.as_ref().is_some_and(|span| covers(&range, span));
        if of_span {
            self.coming.remove(&slot);
        }
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                if self.lost.insert(slot) {
                    count(&self.inner.stats.shards_unreadable);
                }
                tracing::debug!(stripe = %self.piece.stripe, slot, %error, "a shard cannot be read");
                self.stale |= matches!(error, ShardError::StaleMap { .. });
                self.last_error = Some(error);
                self.coming.remove(&slot);
                if self.span.is_none() {
                    self.begin_rebuild(&BTreeSet::new());
                } else {
                    self.ask_more();
                }
                return;
            }
        };
        if let Some(device) = self.device(slot) {
            device.pace.in_time(Kind::Get);
        }
        if let Some(wanted) = self.wanted.iter_mut().find(|w| w.slot == slot && covers(&range, &w.range)) {
            wanted.bytes = Some(cut(&bytes, &range, &wanted.range));
        }
        self.add_column(slot, &bytes, &range);
    }

    fn add_column(&mut self, slot: usize, bytes: &Bytes, range: &Range<usize>) {
        let Some(span) = self.span.clone().filter(|span| covers(range, span)) else { return };
        if self.columns.iter().all(|(have, _)| *have != slot) {
            self.columns.push((slot, cut(bytes, range, &span)));
        }
    }

    /// From here on what is not there yet is computed as well; slots in `doubted` are not counted on.
    fn begin_rebuild(&mut self, doubted: &BTreeSet<usize>) {
        let open = self.wanted.iter().filter(|wanted| wanted.bytes.is_none()).map(|wanted| wanted.range.clone());
        let Some(span) = open.reduce(|all, range| all.start.min(range.start)..all.end.max(range.end)) else { return };
        self.span = Some(span.clone());
        let there: Vec<_> =
            self.wanted.iter().filter_map(|w| Some((w.slot, w.bytes.clone()?, w.range.clone()))).collect();
        for (slot, bytes, range) in there {
            self.add_column(slot, &bytes, &range);
        }
        for wanted in self.wanted.iter().filter(|wanted| covers(&wanted.range, &span)) {
            if self.direct.contains(&wanted.slot) {
                self.asked.insert(wanted.slot);
                if !doubted.contains(&wanted.slot) {
                    self.coming.insert(wanted.slot);
                }
            }
        }
        self.ask_more();
    }

    /// Slots that may still be asked for the span, the best first.
    fn candidates(&self) -> Vec<usize> {
        let has_column = |slot: &usize| self.columns.iter().any(|(have, _)| have == slot);
        let free = |slot: &usize| !self.lost.contains(slot) && !self.asked.contains(slot) && !has_column(slot);
        let mut slots: Vec<usize> = (0..self.inner.code.total()).filter(free).collect();
        slots.sort_by_key(|slot| (self.is_slow(*slot), self.direct.contains(slot)));
        slots
    }

    /// Asks as many more slots for the span as are needed with those that are counted on.
    fn ask_more(&mut self) {
        let Some(span) = self.span.clone() else { return };
        let mut candidates = self.candidates().into_iter();
        while self.columns.len() + self.coming.len() < self.inner.code.k() {
            let Some(slot) = candidates.next() else { return };
            if self.device(slot).is_some() {
                self.asked.insert(slot);
                self.coming.insert(slot);
            }
            self.ask(slot, span.clone());
        }
    }

    /// Whoever has not answered by now is doubted.
    fn hedge(&mut self, usual: Duration) {
        let now = self.inner.clock.monotonic();
        for slot in self.direct.iter().chain(&self.coming).filter(|slot| !self.struck.contains(slot)) {
            if let Some(device) = self.device(*slot) {
                device.pace.strike(Kind::Get, usual, now);
            }
        }
        self.struck.extend(self.direct.iter().chain(&self.coming));
        let k = self.inner.code.k();
        let cost = if self.span.is_some() {
            // One more each time, for those that were counted on and hang as well.
            usize::from(!self.candidates().is_empty())
        } else {
            k.saturating_sub(self.wanted.iter().filter(|wanted| wanted.bytes.is_some()).count())
        };
        if cost == 0 {
            return;
        }
        // The budget is for what is a little late: who has waited long, or waits for a device known to be slow by now,
        // waits no more.
        let hopeless =
            self.waited() >= HEDGE_MAX || self.direct.iter().chain(&self.coming).any(|slot| self.is_slow(*slot));
        if !hopeless && !self.inner.hedges.spend(cost) {
            if !self.denied {
                count(&self.inner.stats.hedges_denied);
                self.denied = true;
            }
            return;
        }
        if !self.hedged {
            count(&self.inner.stats.hedges_begun);
            self.hedged = true;
        }
        if self.span.is_none() {
            self.begin_rebuild(&self.direct.clone());
        } else if let Some(slot) = self.coming.pop_first() {
            tracing::debug!(stripe = %self.piece.stripe, slot, "another shard is asked in this one's place");
            self.ask_more();
        }
    }

    fn waited(&self) -> Duration {
        self.inner.clock.monotonic().saturating_sub(self.begun)
    }

    /// When the others usually have answered.
    fn hedge_after(&self) -> Duration {
        let lately = |device: &Device| device.pace.percentile(Kind::Get, 95);
        let mut lately: Vec<Duration> = self.view.slots(self.piece.group).filter_map(lately).collect();
        lately.sort_unstable();
        match lately.get(lately.len().saturating_sub(1) / 2) {
            Some(median) => (*median).clamp(HEDGE_MIN, HEDGE_MAX),
            None => HEDGE_UNKNOWN,
        }
    }

    /// Computes what is not there from k columns.
    fn rebuild(&mut self) -> ObjectResult<()> {
        let Some(span) = self.span.clone() else { return Ok(()) };
        count(&self.inner.stats.reads_degraded);
        if self.hedged {
            count(&self.inner.stats.hedges_won);
        }
        let lost: Vec<usize> = self.wanted.iter().filter(|w| w.bytes.is_none()).map(|w| w.slot).collect();
        let mut built: Vec<Vec<u8>> = lost.iter().map(|_| vec![0; span.len()]).collect();
        let k = self.inner.code.k();
        let present: Vec<(usize, &[u8])> =
            self.columns.iter().take(k).map(|(slot, bytes)| (*slot, &bytes[..])).collect();
        let mut want: Vec<(usize, &mut [u8])> =
            lost.iter().copied().zip(built.iter_mut().map(Vec::as_mut_slice)).collect();
        let done = self.inner.code.reconstruct(&present, &mut want);
        done.map_err(|error| ObjectError::Internal(error.to_string()))?;
        for (slot, built) in lost.into_iter().zip(built) {
            let built = Bytes::from(built);
            if let Some(wanted) = self.wanted.iter_mut().find(|wanted| wanted.slot == slot) {
                wanted.bytes = Some(cut(&built, &span, &wanted.range));
            }
        }
        Ok(())
    }

    /// Nobody waits for what is still running. One read of a device that was beaten runs on, to know how slow it is.
    fn drop_losers(&mut self) {
        let running = std::mem::take(&mut self.running);
        let beaten = self.direct.iter().chain(&self.coming);
        let measures: Vec<Measure> = beaten.filter_map(|slot| self.device(*slot)?.pace.measure()).collect();
        if !measures.is_empty() {
            tokio::spawn(async move {
                running.for_each(|_| std::future::ready(())).await;
                drop(measures);
            });
        }
    }

    fn give(&mut self) -> Vec<Bytes> {
        self.wanted.iter_mut().filter_map(|wanted| wanted.bytes.take()).collect()
    }

    fn too_few(&self) -> ObjectError {
        let error = self.last_error.as_ref().map_or_else(String::new, |error| format!("; the last: {error}"));
        ObjectError::Unavailable(format!(
            "{} of the {} shards needed of stripe {} can be read{error}",
            self.columns.len(),
            self.inner.code.k(),
            self.piece.stripe
        ))
    }
}
