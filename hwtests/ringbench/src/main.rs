//! Our ring against tokio-uring on one file: the figures of docs/decisions/0001-ring.md.
//!
//! Each workload runs once to warm up and then five times on each engine in turn, so that a noisy neighbour hits both.
//! Medians and their ratio are printed. fio runs the same workloads beside them where it is installed, as a yardstick
//! of the device rather than as a competitor: its loop carries no futures.
//!
//! Usage: `ringbench [DIRECTORY [PART OF A WORKLOAD'S NAME]]`, on a file system with direct I/O and 1 GiB to spare.
//! `ringbench DIRECTORY buffers` measures what buffers cost instead: docs/decisions/0008-device-specifics.md.

#![forbid(unsafe_code)]

mod buffers;
mod fio;
mod ours;
mod theirs;

use std::path::{Path, PathBuf};

use base::{Clock, GIB, KIB, MIB, OsClock};
use disk::{AlignedBuf, BlockDevice};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// Measured runs per workload and engine, after one to warm up.
const RUNS: usize = 5;
/// Bytes of the file under test.
const FILE_BYTES: u64 = GIB;

/// One access pattern.
#[derive(Debug, Clone, Copy)]
struct Workload {
    name: &'static str,
    write: bool,
    random: bool,
    block_bytes: u64,
    depth: u64,
    ops: u64,
    /// Operations between two flushes, each waiting for the last batch; 0 for none.
    flush_every: u64,
}

const WORKLOADS: [Workload; 3] = [
    Workload {
        name: "4 KiB random writes, qd 64, fdatasync per 64",
        write: true,
        random: true,
        block_bytes: 4 * KIB,
        depth: 64,
        ops: 64 * 4000,
        flush_every: 64,
    },
    Workload {
        name: "4 KiB random reads, qd 64",
        write: false,
        random: true,
        block_bytes: 4 * KIB,
        depth: 64,
        ops: 400_000,
        flush_every: 0,
    },
    Workload {
        name: "1 MiB sequential writes, qd 16",
        write: true,
        random: false,
        block_bytes: MIB,
        depth: 16,
        ops: 4096,
        flush_every: 0,
    },
];

impl Workload {
    /// Where operation `i` goes, in bytes.
    fn offset(&self, i: u64) -> u64 {
        let blocks = FILE_BYTES / self.block_bytes;
        // An odd multiplier visits every block of a power of two once before any twice.
        let block = if self.random { i.wrapping_mul(0x9e37_79b1) % blocks } else { i % blocks };
        block * self.block_bytes
    }
}

/// What one run gave.
#[derive(Debug, Clone, Copy)]
struct Figure {
    ops_per_s: f64,
    /// CPU time of the process, kernel workers included, in microseconds.
    cpu_us_per_op: f64,
}

fn cpu_us() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process may ask for its own usage");
    usage.user_time().num_microseconds() + usage.system_time().num_microseconds()
}

/// Begins a measurement.
fn start() -> (OsClock, i64) {
    (OsClock::new(), cpu_us())
}

/// Ends it, after `ops` operations.
fn stop(clock: &OsClock, cpu_began_us: i64, ops: u64) -> Figure {
    let cpu_us = cpu_us() - cpu_began_us;
    let elapsed = clock.monotonic();
    Figure { ops_per_s: ops as f64 / elapsed.as_secs_f64(), cpu_us_per_op: cpu_us as f64 / ops as f64 }
}

fn median(figures: &[Figure], of: impl Fn(&Figure) -> f64) -> f64 {
    let mut values: Vec<f64> = figures.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn spread(figures: &[Figure]) -> String {
    let values = figures.iter().map(|f| f.ops_per_s);
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
    format!("{low:.0}-{high:.0}")
}

/// Writes the whole file once, so that no run pays for allocation.
fn prepare(path: &Path) {
    uring::create_file(path, FILE_BYTES).expect("the file is created");
    uring::run(&uring::OpenOptions::new(path), |device| async move {
        assert_eq!(device.facts().engine, "io_uring", "the comparison needs direct I/O through a ring");
        let block = AlignedBuf::from_bytes(&vec![0x5a; MIB as usize]).freeze();
        for offset in (0..FILE_BYTES).step_by(MIB as usize) {
            device.write(offset, vec![block.clone()]).await.expect("the file is filled");
        }
        device.flush().await.expect("the file is flushed");
    })
    .expect("the file opens as a device");
}

fn main() {
    let base = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(base).expect("the directory takes files");
    let path = dir.path().join("device");
    prepare(&path);
    let wanted = std::env::args().nth(2).unwrap_or_default();
    if wanted == "buffers" {
        return buffers::run(&path);
    }
    let header = ["workload", "engine", "ops/s", "(range)", "CPU us/op"];
    println!("{:<46} {:<12} {:>9} {:>15} {:>10}", header[0], header[1], header[2], header[3], header[4]);
    for workload in WORKLOADS.into_iter().filter(|w| w.name.contains(&wanted)) {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..=RUNS {
            // Who goes first changes, in case the first run's leavings slow the second.
            let pair = if round % 2 == 0 {
                let first = ours::run(&path, workload);
                (first, theirs::run(&path, workload))
            } else {
                let first = theirs::run(&path, workload);
                (ours::run(&path, workload), first)
            };
            if round > 0 {
                ours.push(pair.0);
                theirs.push(pair.1);
            }
        }
        let medians = |figures: &[Figure]| (median(figures, |f| f.ops_per_s), median(figures, |f| f.cpu_us_per_op));
        let ((our_ops, our_cpu), (their_ops, their_cpu)) = (medians(&ours), medians(&theirs));
        let row = |engine: &str, ops: f64, range: &str, cpu: f64| {
            println!("{:<46} {engine:<12} {ops:>9.0} {range:>15} {cpu:>10.2}", workload.name);
        };
        row("ours", our_ops, &spread(&ours), our_cpu);
        row("tokio-uring", their_ops, &spread(&theirs), their_cpu);
        if let Some(figure) = fio::run(&path, workload) {
            row("fio", figure.ops_per_s, "", figure.cpu_us_per_op);
        }
        println!(
            "{:<46} {:<12} {:>8.2}x {:>15} {:>9.2}x",
            "",
            "ours/theirs",
            our_ops / their_ops,
            "",
            our_cpu / their_cpu
        );
    }
}
