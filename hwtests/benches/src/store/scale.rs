//! Many shards: bytes of memory for each, and puts and gets beside a store that holds few. On devices of memory, so
//! that only the store's own work shows.
//!
//! For a program that counts its memory (the `storebench-memory` binary), which would slow down every other figure.

use crate::store::bed::Plan;
use crate::store::load::{Order, Outcome, Payloads, Records, Span, gets, puts};
use crate::store::ram::{Hosted, RamDevice};
use crate::store::rows::{Beside, Row, Target, rounds, series};
use crate::store::served::format_options;

/// Group of the bytes for each shard.
pub const MEMORY: &str = "memory";
/// Group of few shards beside many.
pub const SHARDS: &str = "shards";
/// Bytes of a shard, and of its record: head and payload take a unit each.
const SHARD_BYTES: usize = 100;
const RECORD_BYTES: u64 = 1024;
/// Shards that are few.
const FEW: u64 = 10_000;
/// Shards that are there before memory is counted.
const FIRST: u64 = 1000;
const IN_FLIGHT: usize = 64;
/// Puts at once while a device is filled.
const FILL_IN_FLIGHT: usize = 256;

/// How much memory the program takes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Bytes that were asked of the allocator and not given back.
    pub allocated_bytes: u64,
    /// Bytes that the kernel has given.
    pub resident_bytes: u64,
}

/// What is to be measured.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Bytes for each shard.
    pub memory: bool,
    /// Puts and gets beside few.
    pub shards: bool,
}

/// Fills a device with `many` shards, a tenth at a time.
///
/// # Errors
/// The store's.
pub fn measure(many: u64, plan: Plan, wanted: Wanted, memory: impl Fn() -> Memory) -> Result<Vec<Row>, String> {
    let (device, mut store) = empty(many)?;
    let all = Records { slot: 0, count: many, payloads: Payloads::new(SHARD_BYTES, 1024) };
    // What a store takes once, for its first requests, is no cost of a shard.
    fill(&mut store, &all, 0, FIRST)?;
    let before = settled(&mut store, &device, &memory)?;
    let mut each = Vec::new();
    let mut there = FIRST;
    for upto in (1..=10).map(|tenth| many / 10 * tenth) {
        eprintln!("filling a device of memory up to {upto} shards");
        fill(&mut store, &all, there, upto)?;
        there = upto;
        let now = settled(&mut store, &device, &memory)?;
        let bytes = |now: u64, before: u64| now.saturating_sub(before) as f64 / (upto - FIRST) as f64;
        let allocated = bytes(now.allocated_bytes, before.allocated_bytes);
        each.push((upto, allocated, bytes(now.resident_bytes, before.resident_bytes)));
    }
    let mut rows = if wanted.memory { memory_rows(&each) } else { Vec::new() };
    if wanted.shards {
        rows.extend(beside_few(&mut store, &Records { count: there, ..all }, plan)?);
    }
    Ok(rows)
}

/// The first and the last filling, and the dearest of all: tables grow in steps.
fn memory_rows(each: &[(u64, f64, f64)]) -> Vec<Row> {
    const TARGET: Target = Target::AtMost(32.0);
    let mut rows = Vec::new();
    for (shards, allocated, resident) in [each.first(), each.last()].into_iter().flatten() {
        let name = format!("memory for each of {shards} shards, allocated");
        rows.push(Row::plain(MEMORY, name, "bytes", &[Some(*allocated)], TARGET));
        let name = "  growth of the resident set";
        rows.push(Row::plain(MEMORY, name, "bytes", &[Some(*resident)], Target::None));
    }
    if let Some((shards, allocated, _)) = each.iter().max_by(|a, b| a.1.total_cmp(&b.1)) {
        let name = format!("  most at any tenth of them, allocated ({shards} shards)");
        rows.push(Row::plain(MEMORY, name, "bytes", &[Some(*allocated)], TARGET));
    }
    rows
}

fn empty(many: u64) -> Result<(RamDevice, Hosted), String> {
    // Half as much again: checkpoints, records that are put again, and the reserve.
    let device = RamDevice::new((many * RECORD_BYTES * 3 / 2).next_multiple_of(1 << 30).max(2 << 30));
    Hosted::format(&device, &format_options())?;
    let store = Hosted::open(&device)?;
    Ok((device, store))
}

fn fill(store: &mut Hosted, records: &Records, from: u64, upto: u64) -> Result<(), String> {
    let span = Span::ops(FILL_IN_FLIGHT, upto - from);
    store.run(|store| async move { puts(&store, records, Order::From(from), span).await }).map(drop)
}

/// The store's memory when nothing is under way, without that of the device.
fn settled(store: &mut Hosted, device: &RamDevice, memory: &impl Fn() -> Memory) -> Result<Memory, String> {
    store.run(|store| async move { store.checkpoint().await })?;
    let now = memory();
    let device = device.resident_bytes();
    Ok(Memory {
        allocated_bytes: now.allocated_bytes - device,
        resident_bytes: now.resident_bytes.saturating_sub(device),
    })
}

/// Puts and gets of any record, by turns of the two stores.
fn beside_few(store: &mut Hosted, many: &Records, plan: Plan) -> Result<Vec<Row>, String> {
    let few = Records { count: FEW.min(many.count), ..many.clone() };
    let (_device, mut small) = empty(many.count)?;
    fill(&mut small, &few, 0, few.count)?;
    let span = Span::seconds(IN_FLIGHT, plan.seconds).timed();
    let put = |store: &mut Hosted, records: &Records, seed| {
        store.run(|store| async move { puts(&store, records, Order::Random(seed), span).await })
    };
    let get = |store: &mut Hosted, records: &Records, seed| {
        store.run(|store| async move { gets(&store, records, Order::Random(seed), span).await })
    };
    let all = rounds(plan.rounds, |round| {
        eprintln!("{} shards beside {}, round {round}", many.count, few.count);
        let seed = u64::from(round) + 1;
        let puts = [put(store, many, seed)?, put(&mut small, &few, seed)?];
        let gets = [get(store, many, seed)?, get(&mut small, &few, seed)?];
        Ok([puts, gets])
    })?;
    let rows = |what: &str, load: usize| {
        let of = |store: usize, figure: fn(&Outcome) -> f64| {
            series(&all, |round: &[[Outcome; 2]; 2]| Some(figure(&round[load][store])))
        };
        let beside = |figure| Beside { name: format!("the same with {} shards", few.count), values: of(1, figure) };
        let name = format!("{what} with {} shards, in memory", many.count);
        let longest_ms: fn(&Outcome) -> f64 = |outcome| outcome.percentile_s(1.0) * 1e3;
        [
            Row::ratio(SHARDS, name, "per s", &of(0, Outcome::per_s), beside(Outcome::per_s), Target::AtLeast(0.9)),
            Row::ratio(SHARDS, "  the longest", "ms", &of(0, longest_ms), beside(longest_ms), Target::None),
        ]
    };
    Ok([rows("puts", 0), rows("gets", 1)].concat())
}
