//! What a buffer costs: fresh ones for each operation against one that is kept, in time and page faults.
//!
//! Each way is measured in turn, [`ROUNDS`] times, and its median printed with the range. Filling a buffer stands for
//! the device or the copy that follows, and is the floor that the way "kept" shows.

use std::path::Path;
use std::sync::mpsc::sync_channel;

use base::{Clock, KIB, MIB, OsClock};
use disk::{AlignedBuf, BlockDevice};
use futures::stream::{FuturesUnordered, StreamExt};
use nix::sys::resource::{UsageWho, getrusage};
use uring::{Engine, OpenOptions};

/// Measured rounds of each way.
const ROUNDS: usize = 15;
/// Bytes that one round of one way fills, whatever the size of its buffers.
const ROUND_BYTES: u64 = 256 * MIB;
/// Buffers that are alive at once, as of operations in flight.
const ALIVE: u64 = 16;

const SIZES: [u64; 5] = [4 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB];

/// How buffers are come by: takes the size and how often, and a full buffer to copy from.
type Way = fn(usize, u64, &[u8]);

const WAYS: [(&str, Way); 5] = [
    ("kept, filled", |size, times, _| {
        let mut kept: Vec<_> = (0..ALIVE).map(|_| AlignedBuf::zeroed(size)).collect();
        (0..times).for_each(|i| kept[(i % ALIVE) as usize].fill(i as u8));
    }),
    ("zeroed, filled", |size, times, _| fresh(times, |i| filled(AlignedBuf::zeroed(size), i))),
    ("for_read, filled", |size, times, _| fresh(times, |i| filled(AlignedBuf::for_read(size), i))),
    ("from_bytes", |_, times, bytes| fresh(times, |_| AlignedBuf::from_bytes(bytes))),
    ("for_read, filled, dropped elsewhere", |size, times, _| {
        let (sender, receiver) = sync_channel(ALIVE as usize);
        std::thread::scope(|scope| {
            scope.spawn(move || receiver.into_iter().for_each(drop::<AlignedBuf>));
            (0..times).for_each(|i| sender.send(filled(AlignedBuf::for_read(size), i)).expect("the other side lives"));
            drop(sender);
        });
    }),
];

fn filled(mut buf: AlignedBuf, i: u64) -> AlignedBuf {
    buf.fill(i as u8);
    buf
}

/// Makes a buffer `times` times, keeping the last [`ALIVE`] of them.
fn fresh(times: u64, make: impl Fn(u64) -> AlignedBuf) {
    let mut alive: Vec<Option<AlignedBuf>> = (0..ALIVE).map(|_| None).collect();
    for i in 0..times {
        let slot = &mut alive[(i % ALIVE) as usize];
        drop(slot.take());
        *slot = Some(make(i));
    }
}

/// Measures every size and way, then reads of a file through the ring.
pub(crate) fn run(path: &Path) {
    println!("{:<10} {:<38} {:>10} {:>20} {:>12}", "size", "buffers", "us/op", "(range)", "faults/op");
    for size in SIZES {
        let bytes = vec![0x5a; size as usize];
        let times = ROUND_BYTES / size;
        let mut figures = vec![Vec::new(); WAYS.len()];
        for round in 0..=ROUNDS {
            for ((_, way), figures) in WAYS.iter().zip(&mut figures) {
                let measured = measure(times, || way(size as usize, times, &bytes));
                figures.extend((round > 0).then_some(measured));
            }
        }
        for ((name, _), figures) in WAYS.iter().zip(&mut figures) {
            row(&format!("{} KiB", size / KIB), name, figures);
        }
    }
    reads(path);
}

/// Reads of 1 MiB at depth 16, each into a fresh buffer or into one that is kept.
fn reads(path: &Path) {
    const OPS: u64 = 512;
    let mut figures = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        for (way, figures) in figures.iter_mut().enumerate() {
            let options = OpenOptions { engine: Engine::Ring, ..OpenOptions::new(path) };
            let measured = uring::run(&options, |device| async move {
                let begun = begin();
                let workers: FuturesUnordered<_> = (0..ALIVE)
                    .map(|worker| {
                        let device = &device;
                        async move {
                            let mut kept = AlignedBuf::zeroed(MIB as usize);
                            for i in (worker..OPS).step_by(ALIVE as usize) {
                                let buf = match way {
                                    0 => std::mem::replace(&mut kept, AlignedBuf::zeroed(1)),
                                    1 => AlignedBuf::zeroed(MIB as usize),
                                    _ => AlignedBuf::for_read(MIB as usize),
                                };
                                let buf = device.read(i * MIB, buf).await.expect("a read succeeds");
                                kept = if way == 0 { buf } else { kept };
                            }
                        }
                    })
                    .collect();
                workers.for_each(|()| async {}).await;
                end(begun, OPS)
            });
            figures.extend((round > 0).then_some(measured.expect("the ring runs")));
        }
    }
    for (name, figures) in ["kept", "zeroed", "for_read"].iter().zip(&mut figures) {
        row("1024 KiB", &format!("read at depth {ALIVE}, {name}"), figures);
    }
}

/// Microseconds and page faults, each per operation.
type Measured = (f64, f64);

fn faults() -> i64 {
    getrusage(UsageWho::RUSAGE_SELF).expect("a process may ask for its own usage").minor_page_faults()
}

fn begin() -> (OsClock, i64) {
    (OsClock::new(), faults())
}

fn end((clock, faults_before): (OsClock, i64), times: u64) -> Measured {
    let per_op = |value: f64| value / times as f64;
    (per_op(clock.monotonic().as_secs_f64() * 1e6), per_op((faults() - faults_before) as f64))
}

fn measure(times: u64, work: impl FnOnce()) -> Measured {
    let begun = begin();
    work();
    end(begun, times)
}

fn row(size: &str, name: &str, figures: &mut [Measured]) {
    figures.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (median, range) = (figures[figures.len() / 2], (figures[0].0, figures[figures.len() - 1].0));
    let range = format!("{:.2}-{:.2}", range.0, range.1);
    println!("{size:<10} {name:<38} {:>10.2} {range:>20} {:>12.2}", median.0, median.1);
}
