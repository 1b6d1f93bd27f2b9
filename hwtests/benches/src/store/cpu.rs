//! CPU seconds: of this process's threads and of this thread; and what a pass over memory costs.

use std::fs;
use std::hint::black_box;

use nix::time::{ClockId, clock_gettime};

use crate::store::load::Payloads;

/// The kernel's own threads for blocking operations of a ring. fio counts its thread alone and so leaves out its own.
const KERNEL_WORKERS: &str = "iou-";

/// CPU seconds of this process's living threads so far, without the kernel's workers: counted as fio counts.
#[must_use]
pub fn threads_s() -> f64 {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let ns = tasks.filter_map(|task| {
        let comm = fs::read_to_string(task.path().join("comm")).ok()?;
        let ours = !comm.starts_with(KERNEL_WORKERS);
        let schedstat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let ns: u64 = schedstat.split_ascii_whitespace().next()?.parse().ok()?;
        ours.then_some(ns)
    });
    ns.sum::<u64>() as f64 / 1e9
}

/// CPU seconds of the calling thread so far.
#[must_use]
pub fn thread_s() -> f64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_or(0.0, |time| time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
}

/// CPU seconds that one GiB of 1 MiB pieces costs to checksum, and to copy.
#[must_use]
pub fn passes_s_per_gib() -> (f64, f64) {
    let pool = Payloads::new(1 << 20, 32);
    // Copied, so that its memory is there before the clock runs.
    let mut target: Vec<Vec<u8>> = (0..32).map(|number| pool.bytes(number).to_vec()).collect();
    let start = thread_s();
    for number in 0..1024 {
        black_box(crc32fast::hash(pool.bytes(number)));
    }
    let summed = thread_s();
    for number in 0..1024u64 {
        target[(number % 32) as usize].copy_from_slice(pool.bytes(number));
        black_box(&mut target);
    }
    (summed - start, thread_s() - summed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_in_both_counts() {
        let (threads, thread) = (threads_s(), thread_s());
        let (crc, copy) = passes_s_per_gib();
        assert!(crc > 0.0 && copy > 0.0);
        assert!(thread_s() - thread >= crc + copy);
        // The kernel brings the sum of a running thread up to date at its ticks.
        assert!(threads_s() - threads > (crc + copy) * 0.5);
    }
}
