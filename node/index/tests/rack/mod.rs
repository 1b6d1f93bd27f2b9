//! Simulated disks, each on a thread of its own with the store that owns it.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, Sender, channel};

use base::{ClusterId, DeviceId, PartitionId};
use futures::executor::block_on;
use futures::future::{Either, select};
use index::{IndexError, Partition, PartitionConfig, Policy, mirrors};
use shards::{FormatOptions, Store, StoreHandle};
use simdisk::SimDisk;
use tokio::sync::oneshot;

const EXTENT_BYTES: u32 = 1 << 20;
const DISK_BYTES: u64 = 96 << 20;

enum Order {
    /// Open the store; the power goes after some writes and flushes, or when `kill` says so.
    Open { cut: Option<u64>, kill: oneshot::Receiver<()>, ready: oneshot::Sender<StoreHandle> },
    /// Answer once the store of before is gone.
    Settle(Sender<()>),
}

pub(crate) struct Rack {
    devices: Vec<Sender<Order>>,
    kills: std::sync::Mutex<Vec<oneshot::Sender<()>>>,
}

impl Rack {
    pub(crate) fn new(count: u8, seed: u64) -> Self {
        let devices = (0..count).map(|n| {
            let (tx, orders) = channel();
            std::thread::spawn(move || run(n, seed, &orders));
            tx
        });
        Self { devices: devices.collect(), kills: std::sync::Mutex::default() }
    }

    /// Opens the stores that are not away. One whose power goes meanwhile is left out.
    pub(crate) async fn open(&self, away: &BTreeSet<usize>, cut: impl Fn(usize) -> Option<u64>) -> Vec<StoreHandle> {
        let mut stores = Vec::new();
        for (n, device) in self.devices.iter().enumerate().filter(|(n, _)| !away.contains(n)) {
            let (stop, kill) = oneshot::channel();
            let (ready, store) = oneshot::channel();
            self.kills.lock().unwrap().push(stop);
            device.send(Order::Open { cut: cut(n), kill, ready }).unwrap();
            stores.extend(store.await.ok());
        }
        stores
    }

    pub(crate) async fn partition(&self, stores: &[StoreHandle]) -> Result<Partition, IndexError> {
        let count = self.devices.len();
        let config = PartitionConfig {
            partition: PartitionId(1),
            policy: Policy::for_tolerance(count, 2),
            view_cache_bytes: 256 << 10,
        };
        Partition::open(config, mirrors(stores), count - stores.len()).await
    }

    /// All processes die and the power goes, now.
    pub(crate) fn kill(&self) {
        for kill in self.kills.lock().unwrap().drain(..) {
            let _ = kill.send(());
        }
    }

    /// Waits until every store has let its disk go.
    pub(crate) fn settle(&self) {
        for device in &self.devices {
            let (tx, rx) = channel();
            device.send(Order::Settle(tx)).unwrap();
            rx.recv().unwrap();
        }
        self.kills.lock().unwrap().clear();
    }
}

fn run(n: u8, seed: u64, orders: &Receiver<Order>) {
    let mut disk = SimDisk::new(DISK_BYTES, seed * 100 + u64::from(n));
    let options = FormatOptions {
        cluster: ClusterId([9; 16]),
        device: DeviceId([n + 1; 16]),
        salt: 5,
        now_ms: 1,
        extent_bytes: Some(EXTENT_BYTES),
    };
    block_on(Store::format(&disk, &options)).expect("the disk takes a store");
    while let Ok(order) = orders.recv() {
        match order {
            Order::Settle(done) => done.send(()).unwrap(),
            Order::Open { cut, kill, ready } => {
                disk = disk.reopen();
                if let Some(writes) = cut {
                    disk.power_cut_after(writes);
                }
                block_on(serve(disk.clone(), kill, ready));
                disk.crash();
            }
        }
    }
}

async fn serve(disk: SimDisk, kill: oneshot::Receiver<()>, ready: oneshot::Sender<StoreHandle>) {
    let Ok(store) = Store::open(disk, false).await else { return };
    let serve = Box::pin(store.serve(|handle| drop(ready.send(handle))));
    let kill = Box::pin(async {
        if kill.await.is_err() {
            std::future::pending::<()>().await;
        }
    });
    match select(serve, kill).await {
        Either::Left(_) | Either::Right(_) => {}
    }
}
