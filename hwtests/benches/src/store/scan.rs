//! The auditor's full scan beside fio's sequential read, and what it does to the gets beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use shards::{ScanPosition, StoreHandle, StoreResult};

use crate::fio::Job;
use crate::store::bed::Bed;
use crate::store::load::{Order, Outcome, Span, gets};
use crate::store::rows::{Beside, Row, Target, rounds, series};
use crate::store::served::Side;

const GROUP: &str = "scan";
const JOB: Job = Job { name: "fio 1 MiB read qd8", pattern: "read", block_bytes: 1 << 20, depth: 8, sync_every: 0 };
/// Bytes of one request to verify: what `holdfast fsck` asks for.
const STEP_BYTES: u64 = 8 << 20;
/// The same where the scan keeps to a share: short, so that what waits behind one step waits shortly.
const SHARED_STEP_BYTES: u64 = 1 << 20;
/// Gets at once when a device is busy.
const BUSY: usize = 64;

/// How much of the time a scan is under way.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// More than 0, at most 1.
    pub share: f64,
}

impl Pace {
    const FULL: Self = Self { share: 1.0 };

    fn is_full(self) -> bool {
        self.share >= 1.0
    }
}

/// What a scan came to.
struct Scanned {
    bytes: u64,
    seconds: f64,
}

impl Scanned {
    fn mib_per_s(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 20) / self.seconds
    }
}

/// Goes on from `cursor`, and again from the start, for as long as it is told.
async fn scan(
    store: &StoreHandle,
    cursor: &mut Option<ScanPosition>,
    pace: Pace,
    go_on: impl Fn(Duration) -> bool,
) -> StoreResult<Scanned> {
    let (start, mut bytes) = (Instant::now(), 0);
    while go_on(start.elapsed()) {
        let (begun, step_bytes) = (Instant::now(), if pace.is_full() { STEP_BYTES } else { SHARED_STEP_BYTES });
        let report = store.verify(*cursor, step_bytes).await?;
        if let Some((_, error)) = report.bad.into_iter().next() {
            return Err(error);
        }
        bytes += report.verified_bytes;
        *cursor = report.next;
        if !pace.is_full() {
            // A thread of its own: nobody else waits for it.
            std::thread::sleep(begun.elapsed().mul_f64(1.0 / pace.share - 1.0));
        }
    }
    Ok(Scanned { bytes, seconds: start.elapsed().as_secs_f64() })
}

/// The scan alone, then beside gets.
///
/// # Errors
/// The store's.
pub fn measure(bed: &Bed) -> Result<Vec<Row>, String> {
    bed.fill(&bed.large, 16)?;
    bed.fill(&bed.small, 64)?;
    let mut rows = alone(bed)?;
    rows.extend(beside_gets(bed)?);
    Ok(rows)
}

fn alone(bed: &Bed) -> Result<Vec<Row>, String> {
    let store = bed.store.handle();
    let limit = Duration::from_secs_f64(bed.plan.seconds);
    let mut cursor = None;
    let all = rounds(bed.plan.rounds, |round| {
        eprintln!("full scan, round {round}");
        let scanned =
            block_on(scan(store, &mut cursor, Pace::FULL, |elapsed| elapsed < limit)).map_err(|e| e.to_string())?;
        Ok((scanned, bed.fio(JOB)))
    })?;
    let values = series(&all, |(scanned, _)| Some(scanned.mib_per_s()));
    let beside = Beside { name: JOB.name.to_owned(), values: series(&all, |(_, fio)| Some(fio.as_ref()?.mib_per_s)) };
    Ok(vec![Row::ratio(GROUP, "full scan, every byte verified", "MiB/s", &values, beside, Target::AtLeast(0.9))])
}

fn beside_gets(bed: &Bed) -> Result<Vec<Row>, String> {
    let run = |in_flight, seed: u64| -> Result<Outcome, String> {
        let (records, span) = (bed.small.clone(), Span::seconds(in_flight, bed.plan.seconds).timed());
        let order = Order::Random(seed);
        bed.store.run(Side::Caller, move |store| async move { gets(&store, &records, order, span).await })
    };
    let in_flight = half_load(&run)?;
    let shared = bed.scan;
    let all = rounds(bed.plan.rounds, |round| {
        eprintln!("gets beside a scan, round {round}");
        let seed = 10 * u64::from(round);
        let quiet = run(in_flight, seed)?;
        let with = |pace, seed| while_scanning(bed.store.handle(), pace, || run(in_flight, seed));
        Ok((quiet, [with(shared, seed + 1)?, with(Pace::FULL, seed + 2)?]))
    })?;
    let beside = |of: fn(&Outcome) -> f64| Beside {
        name: "without the scan".to_owned(),
        values: series(&all, |(quiet, _)| Some(of(quiet))),
    };
    let p99_us: fn(&Outcome) -> f64 = |outcome| outcome.percentile_s(0.99) * 1e6;
    let mut rows = Vec::new();
    for (which, (name, target)) in [
        (format!("a scan {:.0} % of the time", shared.share * 100.0), Target::AtMost(1.2)),
        ("a scan without pause".to_owned(), Target::None),
    ]
    .into_iter()
    .enumerate()
    {
        let of = |of: fn(&Outcome) -> f64| series(&all, |(_, with)| Some(of(&with[which].0)));
        let scans = series(&all, |(_, with)| Some(with[which].1.mib_per_s()));
        let name = format!("p99 of 4 KiB gets, {in_flight} in flight, beside {name}");
        rows.push(Row::ratio(GROUP, name, "us", &of(p99_us), beside(p99_us), target));
        let gets = Row::ratio(GROUP, "  the gets", "per s", &of(Outcome::per_s), beside(Outcome::per_s), Target::None);
        rows.push(gets);
        rows.push(Row::plain(GROUP, "  the scan", "MiB/s", &scans, Target::None));
    }
    Ok(rows)
}

/// How many gets at once reach half of what a busy device does.
fn half_load(run: &impl Fn(usize, u64) -> Result<Outcome, String>) -> Result<usize, String> {
    let busy = run(BUSY, 1)?.per_s();
    for in_flight in 1..BUSY {
        if run(in_flight, 2)?.per_s() >= busy / 2.0 {
            return Ok(in_flight);
        }
    }
    Ok(BUSY)
}

fn while_scanning<T>(
    store: &StoreHandle,
    pace: Pace,
    load: impl FnOnce() -> Result<T, String>,
) -> Result<(T, Scanned), String> {
    let (store, stop) = (store.clone(), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let scanning = std::thread::spawn(move || {
        block_on(scan(&store, &mut None, pace, |_| !stopped.load(Ordering::Relaxed))).map_err(|error| error.to_string())
    });
    let done = load();
    stop.store(true, Ordering::Relaxed);
    let scanned = scanning.join().map_err(|_| "the scanning thread panicked".to_owned())?;
    Ok((done?, scanned?))
}
