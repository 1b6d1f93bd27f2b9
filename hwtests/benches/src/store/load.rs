//! The load: a closed loop of so many operations at once, and the puts and gets that it makes.
//!
//! Payloads come from a pool that is made beforehand: a put does not pay for making its payload, as fio does not.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use base::StripeId;
use bytes::Bytes;
use disk::{AlignedBuf, AlignedBytes};
use format::ShardKey;
use futures::stream::{FuturesUnordered, StreamExt};
use shards::{Payload, StoreHandle, StoreResult};

use crate::store::cpu;

/// Ready payloads of one length. Clones share them.
#[derive(Debug, Clone)]
pub struct Payloads {
    pool: Vec<AlignedBytes>,
    len: usize,
}

impl Payloads {
    /// `count` payloads of `len` bytes; each starts with its number, and no two are alike.
    #[must_use]
    pub fn new(len: usize, count: u64) -> Self {
        let make = |number: u64| {
            let mut buf = AlignedBuf::zeroed(len);
            let mut word = number;
            for bytes in buf[..len / 8 * 8].as_chunks_mut::<8>().0 {
                *bytes = word.to_le_bytes();
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(2 * number + 1);
            }
            buf.freeze()
        };
        Self { pool: (0..count).map(make).collect(), len }
    }

    /// Bytes of each.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len
    }

    fn turn(&self, number: u64) -> u64 {
        number % self.pool.len() as u64
    }

    /// The bytes of record `number`.
    #[must_use]
    pub fn bytes(&self, number: u64) -> &AlignedBytes {
        &self.pool[self.turn(number) as usize]
    }

    /// Record `number`, ready to be put.
    #[must_use]
    pub fn payload(&self, number: u64) -> Payload {
        Payload::Aligned { bytes: self.bytes(number).clone(), len: self.len }
    }

    /// Whether these are the bytes of record `number`, as far as length and first bytes show.
    fn fits(&self, number: u64, bytes: &[u8]) -> bool {
        let stamp = self.turn(number).to_le_bytes();
        bytes.len() == self.len && bytes.starts_with(&stamp[..self.len.min(8)])
    }
}

/// Records of one length under keys `0..count` of one slot.
#[derive(Debug, Clone)]
pub struct Records {
    /// Slot of their keys: keeps sets of records apart.
    pub slot: u8,
    /// How many there are.
    pub count: u64,
    /// What they hold.
    pub payloads: Payloads,
}

impl Records {
    fn key(&self, number: u64) -> ShardKey {
        ShardKey::stripe(StripeId(number), self.slot)
    }

    /// Bytes of them all.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.count * self.payloads.len_bytes() as u64
    }
}

/// In which order records are taken.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// One after the other from this one on, and again from the first.
    From(u64),
    /// Any, from this seed.
    Random(u64),
}

/// How long a load goes on.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Operations at once.
    pub in_flight: usize,
    /// None is begun after so long.
    pub duration: Duration,
    /// Nor more than so many.
    pub ops_max: u64,
    /// Whether the time of each is kept.
    pub timed: bool,
}

impl Span {
    /// Until the time is up.
    #[must_use]
    pub fn seconds(in_flight: usize, seconds: f64) -> Self {
        Self { in_flight, duration: Duration::from_secs_f64(seconds), ops_max: u64::MAX, timed: false }
    }

    /// The same, and the time of each operation is kept.
    #[must_use]
    pub fn timed(self) -> Self {
        Self { timed: true, ..self }
    }

    /// So many operations.
    #[must_use]
    pub fn ops(in_flight: usize, ops_max: u64) -> Self {
        Self { in_flight, duration: Duration::MAX, ops_max, timed: false }
    }
}

/// What came of a load.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Operations done.
    pub ops: u64,
    /// From the first to the last.
    pub seconds: f64,
    /// CPU seconds of this process's threads.
    pub cpu_s: f64,
    /// Flushes that the device was sent.
    pub flushes: u64,
    /// Seconds of each operation, ascending, where they were to be kept.
    pub latencies_s: Vec<f32>,
}

impl Outcome {
    /// Operations a second.
    #[must_use]
    pub fn per_s(&self) -> f64 {
        self.ops as f64 / self.seconds
    }

    /// Operations for each flush.
    #[must_use]
    pub fn ops_per_flush(&self) -> f64 {
        self.ops as f64 / self.flushes.max(1) as f64
    }

    /// The latency that a share of the operations kept within, seconds.
    #[must_use]
    pub fn percentile_s(&self, share: f64) -> f64 {
        let rank = (self.latencies_s.len() as f64 * share).ceil() as usize;
        self.latencies_s.get(rank.saturating_sub(1)).map_or(0.0, |s| f64::from(*s))
    }
}

/// Durable puts.
///
/// # Errors
/// The first failure.
pub async fn puts(store: &StoreHandle, records: &Records, order: Order, span: Span) -> StoreResult<Outcome> {
    let before = store.stats().await?.flushes;
    let mut outcome = closed_loop(span, records.count, order, |number| {
        store.put(records.key(number), Bytes::new(), records.payloads.payload(number))
    })
    .await?;
    outcome.flushes = store.stats().await?.flushes - before;
    Ok(outcome)
}

/// Verified gets of whole records. All records must be there.
///
/// # Errors
/// The first failure.
///
/// # Panics
/// When a record is not the one that was put.
pub async fn gets(store: &StoreHandle, records: &Records, order: Order, span: Span) -> StoreResult<Outcome> {
    let len = records.payloads.len_bytes() as u32;
    closed_loop(span, records.count, order, |number| async move {
        let bytes = store.get(records.key(number), 0..len).await?;
        assert!(records.payloads.fits(number, &bytes), "record {number} is not what was put");
        Ok(())
    })
    .await
}

/// Keeps `span.in_flight` operations on numbers below `count` under way until the span ends.
///
/// # Errors
/// The first failure.
pub async fn closed_loop<F>(span: Span, count: u64, order: Order, op: impl Fn(u64) -> F) -> StoreResult<Outcome>
where
    F: Future<Output = StoreResult<()>>,
{
    let begun = Cell::new(0u64);
    let random = Cell::new(if let Order::Random(seed) = order { seed.wrapping_mul(2).wrapping_add(1) } else { 1 });
    let latencies_s = RefCell::new(Vec::new());
    let (cpu_before, start) = (cpu::threads_s(), Instant::now());
    let worker = || async {
        let mut now = start.elapsed();
        while begun.get() < span.ops_max && now < span.duration {
            let turn = begun.replace(begun.get() + 1);
            let number = match order {
                Order::From(first) => (first + turn) % count,
                Order::Random(_) => next_random(&random) % count,
            };
            op(number).await?;
            let before = std::mem::replace(&mut now, start.elapsed());
            if span.timed {
                latencies_s.borrow_mut().push((now - before).as_secs_f32());
            }
        }
        StoreResult::Ok(())
    };
    let mut workers: FuturesUnordered<_> = (0..span.in_flight).map(|_| worker()).collect();
    while let Some(ended) = workers.next().await {
        ended?;
    }
    drop(workers);
    let (seconds, cpu_s) = (start.elapsed().as_secs_f64(), cpu::threads_s() - cpu_before);
    let mut latencies_s = latencies_s.into_inner();
    latencies_s.sort_by(f32::total_cmp);
    Ok(Outcome { ops: begun.get(), seconds, cpu_s, flushes: 0, latencies_s })
}

/// Xorshift: cheap beside any operation.
fn next_random(state: &Cell<u64>) -> u64 {
    let mut word = state.get();
    word ^= word << 13;
    word ^= word >> 7;
    word ^= word << 17;
    state.set(word);
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_does_what_the_span_says() {
        let seen = RefCell::new(Vec::new());
        let span = Span::ops(3, 10).timed();
        let outcome = futures::executor::block_on(closed_loop(span, 4, Order::From(2), |number| {
            seen.borrow_mut().push(number);
            async { Ok(()) }
        }));
        let outcome = outcome.expect("nothing fails");
        assert_eq!((outcome.ops, outcome.latencies_s.len()), (10, 10));
        assert_eq!(*seen.borrow(), [2, 3, 0, 1, 2, 3, 0, 1, 2, 3]);
    }

    #[test]
    fn a_failure_ends_the_loop() {
        let failing = |_| async { Err(shards::StoreError::Full) };
        let ended = futures::executor::block_on(closed_loop(Span::ops(2, 100), 9, Order::Random(1), failing));
        assert_eq!(ended.err(), Some(shards::StoreError::Full));
    }

    #[test]
    fn payloads_know_their_record() {
        let payloads = Payloads::new(100, 4);
        assert!(payloads.fits(6, &payloads.bytes(2)[..100]));
        assert!(!payloads.fits(7, &payloads.bytes(2)[..100]));
        assert!(!payloads.fits(6, &payloads.bytes(2)[..96]));
    }
}
