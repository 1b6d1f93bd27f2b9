//! How fast each device answers, and which ones are slow beside their twins.
//!
//! A device keeps a histogram of its latest answers for puts and one for gets, and knows what is under way. It is
//! slow when its 95th percentile, or the age of the oldest request under way, is several times the median of the
//! other devices'; it is slow no longer when fresh answers come close to theirs again (two thresholds, so that it
//! does not flicker). Only what was measured since the last judgement clears it.
//!
//! Left out: classes of devices. A rack of flash and disks needs twins of one kind to compare.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::DeviceId;

use crate::topology::Device;

/// The first bucket ends here; faster answers are all alike.
const FLOOR_BITS: u32 = 6;
/// Buckets of an octave, as bits: four, so that a percentile is at most a quarter off.
const SUB_BITS: u32 = 2;
/// From 64 us to 67 s.
const BUCKETS: usize = 80;
/// Answers after which the older ones count half: few enough that a device is seen to change within a hundred.
const HALVE_AT: u32 = 64;
/// Fewer answers than this say nothing.
const ANSWERS_MIN: u32 = 8;
/// A device becomes slow at this many times the median of the others' percentile...
const SLOW_RATIO: u32 = 4;
/// ...and is slow no longer at this many.
const RECOVERED_RATIO: u32 = 2;
/// And by at least this much: between 0.1 and 0.5 ms nobody feels a difference.
const SLOW_BY: Duration = Duration::from_millis(2);
/// A request under way for this many times the others' percentile (and a second at least) is stuck.
const STUCK_RATIO: u32 = 10;
const STUCK_MIN: Duration = Duration::from_secs(1);
/// So many requests in a row that were given up on, with none answered in time between them, and an old one still under
/// way: the device is slow without a further look. A budget of hedges must last until then.
const STRIKES_MAX: u32 = 4;
/// Of the reads that go around a slow device, one in so many asks it all the same: how it would answer.
const PROBE_EVERY: u32 = 16;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Put,
    Get,
}

/// The latest latencies; older ones fade.
#[derive(Debug, Default)]
struct Histogram {
    /// Empty until the first: most devices of a large rack are never asked by one node.
    counts: Vec<u16>,
    total: u32,
}

fn bucket(latency: Duration) -> usize {
    let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1 << FLOOR_BITS);
    let octave = us.ilog2() - FLOOR_BITS;
    let sub = (us >> (octave + FLOOR_BITS - SUB_BITS)) & ((1 << SUB_BITS) - 1);
    (((octave as usize) << SUB_BITS) + sub as usize).min(BUCKETS - 1)
}

/// The upper bound of a bucket.
fn bound(bucket: usize) -> Duration {
    let (octave, sub) = (bucket as u32 >> SUB_BITS, (bucket as u64) & ((1 << SUB_BITS) - 1));
    Duration::from_micros(((1 << SUB_BITS) + sub + 1) << (octave + FLOOR_BITS - SUB_BITS))
}

impl Histogram {
    fn note(&mut self, latency: Duration) {
        self.counts.resize(BUCKETS, 0);
        if self.total >= HALVE_AT {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().map(|count| u32::from(*count)).sum();
        }
        self.counts[bucket(latency)] += 1;
        self.total += 1;
    }

    fn percentile(&self, percent: u32) -> Option<Duration> {
        if self.total < ANSWERS_MIN {
            return None;
        }
        let rank = (self.total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let at = self.counts.iter().position(|count| {
            seen += u32::from(*count);
            seen >= rank
        });
        at.map(bound)
    }
}

#[derive(Debug, Default)]
struct Track {
    state: Mutex<TrackState>,
    slow: AtomicBool,
    under_way: AtomicU32,
}

#[derive(Debug, Default)]
struct TrackState {
    histogram: Histogram,
    /// While it is slow: the answers since it was judged last.
    trial: Histogram,
    /// Requests in a row that nobody waited for to the end.
    strikes: u32,
    /// Begin and number of requests under way.
    waiting: BTreeSet<(Duration, u64)>,
    next: u64,
}

impl Track {
    fn lock(&self) -> MutexGuard<'_, TrackState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is judged by.
    fn standing(&self, now: Duration) -> Standing {
        let state = self.lock();
        let oldest = state.waiting.first().map(|(begun, _)| now.saturating_sub(*begun));
        let answers = if self.slow.load(Ordering::Relaxed) { &state.trial } else { &state.histogram };
        Standing { p95: answers.percentile(95), oldest: oldest.unwrap_or_default() }
    }

    /// The verdict; whether it is another than before.
    fn set_slow(&self, slow: bool) -> bool {
        let was = self.slow.swap(slow, Ordering::Relaxed);
        let mut state = self.lock();
        if was && !slow {
            state.histogram = std::mem::take(&mut state.trial);
        }
        if was != slow || state.trial.total >= ANSWERS_MIN {
            state.trial = Histogram::default();
        }
        was != slow
    }

    fn note(&self, latency: Duration) {
        let slow = self.slow.load(Ordering::Relaxed);
        let mut state = self.lock();
        state.histogram.note(latency);
        if slow {
            state.trial.note(latency);
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Standing {
    p95: Option<Duration>,
    oldest: Duration,
}

/// One device's pace; it outlives the maps that name the device.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    put: Track,
    get: Track,
    /// Writes that go on although their stripe was answered for.
    late: AtomicU32,
    measured: AtomicBool,
    avoided: AtomicU32,
}

impl Pace {
    fn track(&self, kind: Kind) -> &Track {
        match kind {
            Kind::Put => &self.put,
            Kind::Get => &self.get,
        }
    }

    /// A request begins; its answer is told to what this gives.
    pub(crate) fn begin(self: &Arc<Self>, kind: Kind, now: Duration) -> UnderWay {
        let track = self.track(kind);
        track.under_way.fetch_add(1, Ordering::Relaxed);
        let mut state = track.lock();
        let number = state.next;
        state.next += 1;
        state.waiting.insert((now, number));
        drop(state);
        UnderWay { pace: Arc::clone(self), kind, begun: now, number }
    }

    /// Nobody waits for a request to this device any longer, which its twins would have answered within `usual`.
    pub(crate) fn strike(&self, kind: Kind, usual: Duration, now: Duration) {
        let track = self.track(kind);
        let mut state = track.lock();
        state.strikes += 1;
        let oldest = state.waiting.first().map_or(Duration::ZERO, |(begun, _)| now.saturating_sub(*begun));
        let slow = state.strikes >= STRIKES_MAX && oldest > slow_from(usual);
        drop(state);
        if slow && track.set_slow(true) {
            tracing::warn!(?kind, ?oldest, ?usual, "a device does not answer as its twins do");
        }
    }

    /// A request was answered while somebody waited for it.
    pub(crate) fn in_time(&self, kind: Kind) {
        self.track(kind).lock().strikes = 0;
    }

    pub(crate) fn is_slow(&self, kind: Kind) -> bool {
        self.track(kind).slow.load(Ordering::Relaxed)
    }

    pub(crate) fn percentile(&self, kind: Kind, percent: u32) -> Option<Duration> {
        self.track(kind).lock().histogram.percentile(percent)
    }

    /// Requests under way.
    pub(crate) fn busy(&self) -> u32 {
        self.put.under_way.load(Ordering::Relaxed) + self.get.under_way.load(Ordering::Relaxed)
    }

    pub(crate) fn late(&self) -> u32 {
        self.late.load(Ordering::Relaxed)
    }

    /// A write goes on behind an answered stripe.
    pub(crate) fn begin_late(self: &Arc<Self>) -> LateWrite {
        self.late.fetch_add(1, Ordering::Relaxed);
        LateWrite(Arc::clone(self))
    }

    /// The right to let a read run on that nobody waits for; one at a time, so that a slow device is measured and not
    /// loaded.
    pub(crate) fn measure(self: &Arc<Self>) -> Option<Measure> {
        let free = !self.measured.swap(true, Ordering::Relaxed);
        free.then(|| Measure(Arc::clone(self)))
    }

    /// A read goes around this slow device; whether it should be asked all the same.
    pub(crate) fn probe_due(&self) -> bool {
        self.avoided.fetch_add(1, Ordering::Relaxed).is_multiple_of(PROBE_EVERY)
    }
}

/// A request under way; dropped, it was given up.
#[derive(Debug)]
pub(crate) struct UnderWay {
    pace: Arc<Pace>,
    kind: Kind,
    begun: Duration,
    number: u64,
}

impl UnderWay {
    /// It was answered.
    pub(crate) fn answered(self, now: Duration) {
        let latency = now.saturating_sub(self.begun);
        self.pace.track(self.kind).note(latency);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let track = self.pace.track(self.kind);
        track.under_way.fetch_sub(1, Ordering::Relaxed);
        track.lock().waiting.remove(&(self.begun, self.number));
    }
}

/// A late write under way.
#[derive(Debug)]
pub(crate) struct LateWrite(Arc<Pace>);

impl Drop for LateWrite {
    fn drop(&mut self) {
        self.0.late.fetch_sub(1, Ordering::Relaxed);
    }
}

/// See [`Pace::measure`].
#[derive(Debug)]
pub(crate) struct Measure(Arc<Pace>);

impl Drop for Measure {
    fn drop(&mut self) {
        self.0.measured.store(false, Ordering::Relaxed);
    }
}

/// One device's pace, for metrics and for the report to the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DevicePace {
    /// Which.
    pub device: DeviceId,
    /// Median of the latest puts; `None` while too few were measured, here and below.
    pub put_p50: Option<Duration>,
    /// 95th percentile of the latest puts.
    pub put_p95: Option<Duration>,
    /// Median of the latest gets.
    pub get_p50: Option<Duration>,
    /// 95th percentile of the latest gets.
    pub get_p95: Option<Duration>,
    /// Puts are slow beside the other devices'.
    pub slow_puts: bool,
    /// Gets are slow beside the other devices'.
    pub slow_gets: bool,
    /// Requests under way.
    pub busy: u32,
    /// Writes that go on although their stripe was answered for.
    pub late: u32,
}

impl DevicePace {
    pub(crate) fn of(device: &Device) -> Self {
        let pace = &device.pace;
        Self {
            device: device.id,
            put_p50: pace.percentile(Kind::Put, 50),
            put_p95: pace.percentile(Kind::Put, 95),
            get_p50: pace.percentile(Kind::Get, 50),
            get_p95: pace.percentile(Kind::Get, 95),
            slow_puts: pace.is_slow(Kind::Put),
            slow_gets: pace.is_slow(Kind::Get),
            busy: pace.busy(),
            late: pace.late(),
        }
    }
}

/// Decides which devices are slow beside the others.
pub(crate) fn judge(devices: &[Device], now: Duration) {
    for kind in [Kind::Put, Kind::Get] {
        let present = devices.iter().filter(|device| device.store.is_some());
        let standings: Vec<(&Device, Standing)> =
            present.map(|device| (device, device.pace.track(kind).standing(now))).collect();
        let mut known: Vec<Duration> = standings.iter().filter_map(|(_, standing)| standing.p95).collect();
        known.sort_unstable();
        for (device, standing) in standings {
            let Some(median) = median_of_others(&known, standing.p95) else { continue };
            let track = device.pace.track(kind);
            let was = track.slow.load(Ordering::Relaxed);
            let is = verdict(standing, median, was);
            if track.set_slow(is) {
                let (p95, oldest) = (standing.p95, standing.oldest);
                tracing::warn!(device = %device.id, ?kind, slow = is, ?p95, ?oldest, ?median, "a device's pace changed");
            }
        }
    }
}

/// The median of the sorted percentiles, one of which may be its own; none with fewer than two others.
fn median_of_others(sorted: &[Duration], own: Option<Duration>) -> Option<Duration> {
    let own_at = own.map(|own| sorted.partition_point(|value| *value < own));
    let others = sorted.len() - usize::from(own_at.is_some());
    if others < 2 {
        return None;
    }
    let middle = (others - 1) / 2;
    Some(sorted[middle + usize::from(own_at.is_some_and(|at| at <= middle))])
}

fn verdict(standing: Standing, median: Duration, was: bool) -> bool {
    if standing.oldest > (median * STUCK_RATIO).max(STUCK_MIN) {
        return true;
    }
    match standing.p95 {
        // Nothing new is known.
        None => was,
        Some(p95) if was => p95 > (median * RECOVERED_RATIO).max(median + SLOW_BY / 2),
        Some(p95) => p95 > slow_from(median),
    }
}

/// What is slow where the others take `usual`.
fn slow_from(usual: Duration) -> Duration {
    (usual * SLOW_RATIO).max(usual + SLOW_BY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn devices(n: u8) -> Vec<Device> {
        (0..n).map(|n| Device::for_tests(DeviceId([n; 16]))).collect()
    }

    fn feed(device: &Device, latency: Duration, times: usize) {
        for _ in 0..times {
            device.pace.begin(Kind::Get, Duration::ZERO).answered(latency);
        }
    }

    #[test]
    fn percentiles_are_at_most_a_quarter_high_and_never_low() {
        for us in (64..2_000_000).step_by(997) {
            let latency = Duration::from_micros(us);
            let bound = bound(bucket(latency));
            assert!(bound >= latency && bound <= latency * 5 / 4, "{latency:?} in a bucket up to {bound:?}");
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
        let mut histogram = Histogram::default();
        (0..7).for_each(|_| histogram.note(MS));
        assert_eq!(histogram.percentile(95), None, "too few");
        (0..93).for_each(|_| histogram.note(MS));
        (0..10).for_each(|_| histogram.note(100 * MS));
        assert!(histogram.percentile(50).unwrap() < 2 * MS && histogram.percentile(95).unwrap() >= 100 * MS);
        // The old ones fade.
        (0..1000).for_each(|_| histogram.note(MS));
        assert!(histogram.percentile(95).unwrap() < 2 * MS);
    }

    #[test]
    fn one_is_slow_beside_its_twins_and_recovers_only_when_it_is_close_again() {
        let devices = devices(6);
        devices.iter().for_each(|device| feed(device, 5 * MS, 20));
        let slow = || devices.iter().map(|device| device.pace.is_slow(Kind::Get)).collect::<Vec<_>>();
        judge(&devices, Duration::ZERO);
        assert_eq!(slow(), [false; 6]);
        feed(&devices[3], 500 * MS, 20);
        judge(&devices, Duration::ZERO);
        assert_eq!(slow(), [false, false, false, true, false, false]);
        judge(&devices, Duration::ZERO);
        assert!(slow()[3], "nothing new was measured");
        feed(&devices[3], 16 * MS, 20);
        judge(&devices, Duration::ZERO);
        assert!(slow()[3], "three times as slow is not recovered");
        feed(&devices[3], 6 * MS, 2000);
        judge(&devices, Duration::ZERO);
        assert_eq!(slow(), [false; 6]);
        feed(&devices[3], 16 * MS, 2000);
        judge(&devices, Duration::ZERO);
        assert_eq!(slow(), [false; 6], "three times as slow is not slow enough to be called so");
    }

    #[test]
    fn a_few_strikes_in_a_row_and_an_old_request_are_enough() {
        let device = Device::for_tests(DeviceId([1; 16]));
        let pace = &device.pace;
        let _old = pace.begin(Kind::Get, Duration::ZERO);
        (0..3).for_each(|_| pace.strike(Kind::Get, 5 * MS, 100 * MS));
        pace.in_time(Kind::Get);
        (0..3).for_each(|_| pace.strike(Kind::Get, 5 * MS, 100 * MS));
        assert!(!pace.is_slow(Kind::Get), "not in a row");
        pace.strike(Kind::Get, 30 * MS, 100 * MS);
        assert!(!pace.is_slow(Kind::Get), "three times as slow is not slow enough");
        pace.strike(Kind::Get, 5 * MS, 100 * MS);
        assert!(pace.is_slow(Kind::Get) && !pace.is_slow(Kind::Put));
    }

    #[test]
    fn all_of_them_slow_is_a_busy_rack_and_no_slow_device() {
        let devices = devices(6);
        devices.iter().for_each(|device| feed(device, 5 * MS, 20));
        devices.iter().for_each(|device| feed(device, 900 * MS, 300));
        judge(&devices, Duration::ZERO);
        assert!(devices.iter().all(|device| !device.pace.is_slow(Kind::Get)));
    }

    #[test]
    fn a_device_that_never_answers_is_slow_by_the_age_of_what_it_owes() {
        let devices = devices(4);
        devices[1..].iter().for_each(|device| feed(device, 5 * MS, 20));
        let under_way = devices[0].pace.begin(Kind::Get, Duration::ZERO);
        judge(&devices, STUCK_MIN);
        assert!(!devices[0].pace.is_slow(Kind::Get));
        judge(&devices, STUCK_MIN + MS);
        assert!(devices[0].pace.is_slow(Kind::Get));
        assert_eq!(devices[0].pace.busy(), 1);
        drop(under_way);
        assert_eq!(devices[0].pace.busy(), 0);
    }

    #[test]
    fn the_median_of_the_others_leaves_one_out() {
        let of = |values: &[u64], own: Option<u64>| {
            let sorted: Vec<_> = values.iter().map(|ms| Duration::from_millis(*ms)).collect();
            median_of_others(&sorted, own.map(Duration::from_millis)).map(|median| median.as_millis())
        };
        assert_eq!(of(&[1, 2, 3], Some(3)), Some(1));
        assert_eq!(of(&[1, 2, 3], Some(1)), Some(2));
        assert_eq!(of(&[1, 2, 3, 9], Some(9)), Some(2));
        assert_eq!(of(&[1, 2, 3], None), Some(2));
        assert_eq!(of(&[1, 2], Some(2)), None);
        assert_eq!(of(&[], None), None);
    }
}
