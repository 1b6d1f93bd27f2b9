//! The workloads over tokio-uring, with the queue depth and the set-up flags that its runtime can carry.

use std::cell::Cell;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use disk::IO_ALIGN;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio_uring::buf::{BoundedBuf, Slice};
use tokio_uring::fs::File;

use crate::ours::take;
use crate::{Figure, Workload};

/// One run; opening and closing are not measured.
pub(crate) fn run(path: &Path, workload: Workload) -> Figure {
    let mut ring = tokio_uring::uring_builder();
    // Its runtime waits in epoll, which never lets a ring with deferred task work make progress.
    ring.setup_single_issuer().setup_coop_taskrun();
    tokio_uring::builder().entries(256).uring_builder(&ring).start(async {
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).custom_flags(libc::O_DIRECT).open(path).expect("the file opens");
        let file = File::from_std(file);
        let (clock, cpu_began) = crate::start();
        drive(&file, workload).await;
        let figure = crate::stop(&clock, cpu_began, workload.ops);
        file.close().await.expect("the file closes");
        figure
    })
}

async fn drive(file: &File, workload: Workload) {
    let batch = if workload.flush_every > 0 { workload.flush_every } else { workload.ops };
    let mut bufs: Vec<_> = (0..workload.depth).map(|_| aligned(workload.block_bytes as usize)).collect();
    for first in (0..workload.ops).step_by(batch as usize) {
        let next = Cell::new(first);
        let end = workload.ops.min(first + batch);
        let workers: FuturesUnordered<_> = bufs.drain(..).map(|b| worker(file, workload, b, &next, end)).collect();
        bufs = workers.collect().await;
        if workload.flush_every > 0 {
            file.sync_data().await.expect("a flush succeeds");
        }
    }
}

/// Carries operations out one after the other until none is left; gives its buffer back.
async fn worker(
    file: &File,
    workload: Workload,
    mut buf: Slice<Vec<u8>>,
    next: &Cell<u64>,
    end: u64,
) -> Slice<Vec<u8>> {
    while let Some(i) = take(next, end) {
        let (result, back) = if workload.write {
            file.write_at(buf, workload.offset(i)).submit().await
        } else {
            file.read_at(buf, workload.offset(i)).await
        };
        assert_eq!(result.expect("an operation succeeds") as u64, workload.block_bytes);
        buf = back;
    }
    buf
}

/// A piece of a vector that starts at a page.
fn aligned(len: usize) -> Slice<Vec<u8>> {
    // Not zero: fresh zeroed memory would be one shared page of the kernel, and cheaper to send than real data.
    let whole = vec![0x5a; len + IO_ALIGN];
    let start = whole.as_ptr().align_offset(IO_ALIGN);
    whole.slice(start..start + len)
}
