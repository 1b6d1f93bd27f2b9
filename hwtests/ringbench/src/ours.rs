//! The workloads over our own ring, through the door that the store uses.

use std::cell::Cell;
use std::path::Path;

use disk::{AlignedBuf, BlockDevice};
use futures::stream::{FuturesUnordered, StreamExt};
use uring::{Engine, OpenOptions, UringDevice};

use crate::{Figure, Workload};

/// One run; opening and closing are not measured.
pub(crate) fn run(path: &Path, workload: Workload) -> Figure {
    let options = OpenOptions { engine: Engine::Ring, ..OpenOptions::new(path) };
    let mut figure = None;
    let finished = uring::run(&options, |device| {
        let figure = &mut figure;
        async move {
            let (clock, cpu_began) = crate::start();
            drive(&device, workload).await;
            *figure = Some(crate::stop(&clock, cpu_began, workload.ops));
        }
    });
    finished.expect("the ring runs");
    figure.expect("the run was measured")
}

async fn drive(device: &UringDevice, workload: Workload) {
    let batch = if workload.flush_every > 0 { workload.flush_every } else { workload.ops };
    let mut bufs: Vec<_> =
        (0..workload.depth).map(|_| AlignedBuf::from_bytes(&vec![0x5a; workload.block_bytes as usize])).collect();
    for first in (0..workload.ops).step_by(batch as usize) {
        let next = Cell::new(first);
        let end = workload.ops.min(first + batch);
        let workers: FuturesUnordered<_> = bufs.drain(..).map(|b| worker(device, workload, b, &next, end)).collect();
        bufs = workers.collect().await;
        if workload.flush_every > 0 {
            device.flush().await.expect("a flush succeeds");
        }
    }
}

/// Carries operations out one after the other until none is left; gives its buffer back.
async fn worker(
    device: &UringDevice,
    workload: Workload,
    mut buf: AlignedBuf,
    next: &Cell<u64>,
    end: u64,
) -> AlignedBuf {
    while let Some(i) = take(next, end) {
        if workload.write {
            // The store, too, freezes a fresh buffer for each record.
            let block = buf.freeze();
            device.write(workload.offset(i), vec![block.clone()]).await.expect("a write succeeds");
            buf = block.try_into_mut().expect("the device has let go of it");
        } else {
            buf = device.read(workload.offset(i), buf).await.expect("a read succeeds");
        }
    }
    buf
}

/// The next operation's number below `end`.
pub(crate) fn take(next: &Cell<u64>, end: u64) -> Option<u64> {
    let i = next.get();
    next.set(i + 1);
    (i < end).then_some(i)
}
