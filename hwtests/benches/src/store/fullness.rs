//! Puts and gets at 10 %, 50 % and 90 % full: three devices on the disk under test, measured by turns.
//!
//! What fills a device is cold: 64 KiB records that are never touched again. The load goes to a hot twentieth of it,
//! 4 KiB records, overwritten from the oldest to the newest, or any of them. What uniform overwrite of a whole device
//! costs at 80 % full is `amplification`'s.

use std::cell::Cell;
use std::path::Path;

use crate::store::bed::Plan;
use crate::store::load::{Order, Outcome, Payloads, Records, Span, gets, puts};
use crate::store::rows::{Beside, Row, Target, rounds, series};
use crate::store::served::{Served, Side, create_written};

const GROUP: &str = "fullness";
/// Live bytes of each device, in percent of what its extents hold.
const LEVELS: [u64; 3] = [10, 50, 90];
const DEVICE_BYTES: u64 = 4 << 30;
/// Hot records: with their heads, a twentieth of the device.
const HOT_RECORDS: u64 = DEVICE_BYTES / 20 / 4608;
const HOT_IN_FLIGHT: usize = 64;
const COLD_IN_FLIGHT: usize = 16;
/// Cold records between two looks at how full the device is.
const COLD_STEP: u64 = 256;

/// A device at one level.
struct Level {
    percent: u64,
    store: Served,
    hot: Records,
    next: Cell<u64>,
}

/// What one level reached in one round: puts from the oldest on, puts of any, gets of any.
type Reached = [Outcome; 3];

/// Figures of every level beside those of the first.
///
/// # Errors
/// The store's.
pub fn measure(dir: &Path, plan: Plan) -> Result<Vec<Row>, String> {
    let levels: Vec<Level> = LEVELS.iter().map(|percent| Level::new(dir, *percent)).collect::<Result<_, _>>()?;
    let all: Vec<Vec<Reached>> = rounds(plan.rounds, |round| {
        eprintln!("fullness, round {round}");
        levels.iter().map(|level| level.round(plan.seconds / 2.0, u64::from(round))).collect()
    })?;
    for level in levels {
        level.store.close()?;
    }
    let loads = [
        ("durable 4 KiB puts, the oldest replaced,", Target::AtLeast(0.9)),
        ("durable 4 KiB puts, any replaced,", Target::None),
        ("verified 4 KiB gets", Target::AtLeast(0.9)),
    ];
    let mut rows = Vec::new();
    for (load, (name, target)) in loads.into_iter().enumerate() {
        let at = |level: usize| series(&all, |round| Some(round[level][load].per_s()));
        for (level, percent) in LEVELS.iter().enumerate() {
            let name = format!("{name} at {percent} % full");
            let beside = Beside { name: format!("the same at {} % full", LEVELS[0]), values: at(0) };
            rows.push(match level {
                0 => Row::plain(GROUP, name, "per s", &at(0), Target::None),
                _ => Row::ratio(GROUP, name, "per s", &at(level), beside, target),
            });
        }
    }
    Ok(rows)
}

impl Level {
    fn new(dir: &Path, percent: u64) -> Result<Self, String> {
        eprintln!("a device, {percent} % full");
        let path = dir.join(format!("full-{percent}"));
        create_written(&path, DEVICE_BYTES)?;
        let store = Served::start(&path)?;
        let hot = Records { slot: 1, count: HOT_RECORDS, payloads: Payloads::new(4096, 1024) };
        let cold = Records { slot: 0, count: u64::MAX, payloads: Payloads::new(64 << 10, 64) };
        let level = Self { percent, store, hot, next: Cell::new(0) };
        level.puts(level.hot.clone(), Order::From(0), Span::ops(HOT_IN_FLIGHT, HOT_RECORDS))?;
        let mut number = 0;
        loop {
            let stats = level.store.run(Side::Caller, |store| async move { store.stats().await })?;
            if stats.live_bytes * 100 >= stats.capacity_bytes * percent {
                return Ok(level);
            }
            level.puts(cold.clone(), Order::From(number), Span::ops(COLD_IN_FLIGHT, COLD_STEP))?;
            number += COLD_STEP;
        }
    }

    fn puts(&self, records: Records, order: Order, span: Span) -> Result<Outcome, String> {
        let done = self.store.run(Side::Caller, move |store| async move { puts(&store, &records, order, span).await });
        done.map_err(|error| format!("puts on a device of {} % full: {error}", self.percent))
    }

    fn round(&self, seconds: f64, seed: u64) -> Result<Reached, String> {
        let span = Span::seconds(HOT_IN_FLIGHT, seconds);
        let oldest = self.puts(self.hot.clone(), Order::From(self.next.get()), span)?;
        self.next.set(self.next.get() + oldest.ops);
        let any = self.puts(self.hot.clone(), Order::Random(2 * seed), span)?;
        let (hot, order) = (self.hot.clone(), Order::Random(2 * seed + 1));
        let got = self.store.run(Side::Caller, move |store| async move { gets(&store, &hot, order, span).await })?;
        Ok([oldest, any, got])
    }
}
