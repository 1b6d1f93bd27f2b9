//! Write amplification under uniform random overwrite at 80 % full, in memory, by the store's own counter, once the
//! device has been overwritten three times.
//!
//! The device has 512 extents, so that reserve and reclaim have the proportions of a large one.

use base::StripeId;
use bytes::Bytes;
use format::ShardKey;
use shards::StoreStats;

use crate::store::load::{Order, Payloads, Span, closed_loop};
use crate::store::ram::{Hosted, RamDevice};
use crate::store::rows::{Row, Target};
use crate::store::served::format_options;

const GROUP: &str = "amplification";
const EXTENT_BYTES: u32 = 2 << 20;
const EXTENTS: u64 = 512;
const DEVICE_BYTES: u64 = EXTENTS * EXTENT_BYTES as u64 + (2 << 20);
/// Share of the device that live records take.
const FULL: f64 = 0.8;
/// How often the device's bytes are accepted again before the measurement, and in each of its windows.
const SETTLING: f64 = 3.0;
const WINDOW: f64 = 0.4;
const WINDOWS: usize = 5;
const IN_FLIGHT: usize = 64;

/// Records of two lengths in one set: which it is follows from the number.
#[derive(Debug)]
pub struct Mix {
    /// For people.
    pub name: &'static str,
    /// Even numbers, and odd ones.
    lens: [usize; 2],
}

/// What is measured.
pub const MIXES: [Mix; 3] = [
    Mix { name: "4 KiB", lens: [4 << 10, 4 << 10] },
    Mix { name: "64 KiB", lens: [64 << 10, 64 << 10] },
    Mix { name: "4 KiB and 64 KiB, as many of each", lens: [4 << 10, 64 << 10] },
];

/// Write amplification of one mix.
///
/// # Errors
/// The store's.
pub fn measure(mix: &Mix) -> Result<Vec<Row>, String> {
    eprintln!("write amplification: {}", mix.name);
    let device = RamDevice::new(DEVICE_BYTES);
    let mut format = format_options();
    format.extent_bytes = Some(EXTENT_BYTES);
    Hosted::format(&device, &format)?;
    let mut store = Hosted::open(&device)?;
    let payloads = mix.lens.map(|len| Payloads::new(len, 64));
    let mean_bytes = mix.lens.iter().sum::<usize>() as f64 / 2.0;

    // The store says what records take; the rest of the fill follows from that.
    let few = 1000;
    put(&mut store, &payloads, Order::From(0), few, few)?;
    let stats = stats(&mut store)?;
    let wanted = FULL * stats.capacity_bytes as f64;
    let count = (wanted / (stats.live_bytes as f64 / stats.records as f64)) as u64;
    put(&mut store, &payloads, Order::From(few), count, count - few)?;

    let ops = |share: f64| (share * DEVICE_BYTES as f64 / mean_bytes) as u64;
    put(&mut store, &payloads, Order::Random(1), count, ops(SETTLING))?;
    let (mut values, mut moved) = (Vec::new(), Vec::new());
    let mut before = self::stats(&mut store)?;
    let full = before.live_bytes as f64 / before.capacity_bytes as f64;
    for seed in 0..WINDOWS as u64 {
        put(&mut store, &payloads, Order::Random(2 + seed), count, ops(WINDOW))?;
        let after = self::stats(&mut store)?;
        let window = between(&before, &after);
        values.push(Some(window.write_amplification()));
        moved.push(Some(window.moved_bytes as f64 / window.accepted_bytes as f64));
        before = after;
    }
    let name = format!("write amplification, {:.0} % full, {}", full * 100.0, mix.name);
    Ok(vec![
        Row::plain(GROUP, name, "times", &values, Target::AtMost(2.5)),
        Row::plain(GROUP, "  of it payload moved by reclaim", "times", &moved, Target::None),
    ])
}

/// The counters of a stretch of time, so that the store's own division is of that stretch.
fn between(before: &StoreStats, after: &StoreStats) -> StoreStats {
    StoreStats {
        accepted_bytes: after.accepted_bytes - before.accepted_bytes,
        written_bytes: after.written_bytes - before.written_bytes,
        moved_bytes: after.moved_bytes - before.moved_bytes,
        ..*after
    }
}

fn stats(store: &mut Hosted) -> Result<StoreStats, String> {
    store.run(|store| async move { store.stats().await })
}

fn put(store: &mut Hosted, payloads: &[Payloads; 2], order: Order, count: u64, ops: u64) -> Result<(), String> {
    let span = Span::ops(IN_FLIGHT, ops);
    let done = store.run(|store| async move {
        closed_loop(span, count, order, |number| {
            let payload = payloads[(number % 2) as usize].payload(number);
            store.put(ShardKey::stripe(StripeId(number), 0), Bytes::new(), payload)
        })
        .await
    });
    done.map(drop)
}
