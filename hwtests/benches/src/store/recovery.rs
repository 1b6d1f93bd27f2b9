//! What opening a device costs: CPU seconds with a million shards on it, after a close in good order and after crashes.
//!
//! In memory: what a device adds is its time, not the processor's.

use shards::{Limits, RecoveryReport, Store};

use crate::store::bed::Plan;
use crate::store::cpu;
use crate::store::load::{Order, Payloads, Records, Span, puts};
use crate::store::ram::{Hosted, RamDevice, drive};
use crate::store::rows::{Row, Target, rounds};
use crate::store::served::format_options;

const GROUP: &str = "recovery";
/// What docs/benchmarks.md promises, CPU seconds.
const TARGET: Target = Target::AtMost(2.0);
/// Bytes of the device: a million small shards, and what is put on top.
const DEVICE_BYTES: u64 = 6 << 30;
/// Shards put before a crash come as 4 KiB ones: 4,608 bytes a record.
const LARGER_RECORD_BYTES: u64 = 4608;

/// Recovery of a device with `count` shards.
///
/// # Errors
/// The store's.
pub fn measure(count: u64, plan: Plan) -> Result<Vec<Row>, String> {
    let interval = Limits::default().checkpoint_interval_bytes;
    let device = RamDevice::new(DEVICE_BYTES);
    let mut format = format_options();
    // As on a device of 16 GiB and more.
    format.extent_bytes = Some(64 << 20);
    let small = Records { slot: 0, count, payloads: Payloads::new(100, 1024) };
    let larger = Records { slot: 0, count, payloads: Payloads::new(4096, 1024) };
    eprintln!("recovery: {count} shards");
    Hosted::format(&device, &format)?;
    let mut store = Hosted::open(&device)?;
    put(&mut store, &small, count)?;
    store.close()?;
    let closed = open_s(&device, plan)?;

    let mut store = Hosted::open(&device)?;
    put(&mut store, &larger, interval / 2 / LARGER_RECORD_BYTES)?;
    drop(store);
    let usual = open_s(&device, plan)?;

    let mut store = Hosted::open(&device)?;
    store.run(|store| async move { store.checkpoint().await })?;
    // Short of the interval, so that no checkpoint comes in between; records of 1 KiB.
    put(&mut store, &small, (interval / 1024 * 15 / 16).min(count))?;
    drop(store);
    let worst = open_s(&device, plan)?;

    let row = |name: &str, (report, seconds): &(RecoveryReport, Vec<Option<f64>>)| {
        let (from, rolled) = (report.from_checkpoint, report.rolled_forward);
        let name = format!("{name} ({from} from the checkpoint, {rolled} rolled forward)");
        Row::plain(GROUP, name, "CPU s", seconds, TARGET)
    };
    Ok(vec![
        row("recovery after a close", &closed),
        row("recovery after a crash, half an interval of 4 KiB shards", &usual),
        row("recovery after a crash, a whole interval of 100 B shards", &worst),
    ])
}

fn put(store: &mut Hosted, records: &Records, ops: u64) -> Result<(), String> {
    store.run(|store| async move { puts(&store, records, Order::From(0), Span::ops(256, ops)).await }).map(drop)
}

/// CPU seconds of opening, several times; opened for reading, so that every opening meets the same device.
fn open_s(device: &RamDevice, plan: Plan) -> Result<(RecoveryReport, Vec<Option<f64>>), String> {
    let mut report = RecoveryReport::default();
    let seconds = rounds(plan.rounds, |_| {
        let before = cpu::thread_s();
        let store = drive(Store::open(device.clone(), true))?.map_err(|error| error.to_string())?;
        let seconds = cpu::thread_s() - before;
        report = store.report().clone();
        Ok(Some(seconds))
    })?;
    if let Some((offset, what)) = report.damage.first() {
        return Err(format!("damage at byte {offset} of a device that has none: {what}"));
    }
    Ok((report, seconds))
}
