//! Runs a store over the simulated disk, on one thread, to the end of a client's work.

use std::future::Future;

use base::{ClusterId, DeviceId};
use bytes::Bytes;
use futures::executor::block_on;
use shards::{FormatOptions, Payload, RecoveryReport, Store, StoreHandle, StoreResult};
use simdisk::SimDisk;

/// 256 KiB: reclaim and checkpoints happen after a few writes.
pub(crate) const EXTENT_BYTES: u32 = 256 << 10;

pub(crate) fn options() -> FormatOptions {
    FormatOptions {
        cluster: ClusterId([1; 16]),
        device: DeviceId([2; 16]),
        salt: 77,
        now_ms: 0,
        extent_bytes: Some(EXTENT_BYTES),
    }
}

pub(crate) fn format(disk: &SimDisk) {
    block_on(Store::format(disk, &options())).expect("a fresh disk can be formatted");
}

/// Opens the store on `disk`, runs `client` against it and closes it in order.
pub(crate) fn run<T, F: Future<Output = T>>(
    disk: &SimDisk,
    client: impl FnOnce(StoreHandle, RecoveryReport) -> F,
) -> StoreResult<T> {
    block_on(async {
        let store = Store::open(disk.clone(), false).await?;
        let report = store.report().clone();
        let (tell, handle) = futures::channel::oneshot::channel();
        let serve = store.serve(|handle| drop(tell.send(handle)));
        let work = async { client(handle.await.expect("the store passes its handle"), report).await };
        let ((), result) = futures::join!(serve, work);
        Ok(result)
    })
}

pub(crate) fn parts(bytes: &[u8]) -> Payload {
    Payload::Parts(vec![Bytes::copy_from_slice(bytes)])
}

/// Bytes that depend on everything that names them.
pub(crate) fn pattern(id: u64, version: u64, len: usize) -> Vec<u8> {
    let mut x = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ version.wrapping_mul(0xc2b2_ae3d_27d4_eb4f) | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        })
        .collect()
}
