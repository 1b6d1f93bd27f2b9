//! Six simulated disks, each on a thread of its own with the store that owns it, and the object layer over them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use base::{ClusterId, DeviceId, OsClock, PartitionId, SeededEntropy};
use bytes::Bytes;
use futures::StreamExt;
use futures::executor::block_on;
use futures::future::select;
use index::{Partition, PartitionConfig, Policy};
use object::api::{Body, BodyDigest, BodyError, Condition, ObjectApi, ObjectError, ObjectInfo, ObjectMeta, Reader};
use object::{Device, NoTimers, ObjectStore, OpenConfig, OpenError, OverConfig, Redundancy, Topology};
use placement::Groups;
use shards::{FormatOptions, Store, StoreHandle};
use simdisk::SimDisk;
use tokio::sync::{mpsc, oneshot};

use crate::wire::Messages;

const EXTENT_BYTES: u32 = 4 << 20;
pub(crate) const DEVICES: usize = 6;

/// How the object layer reaches its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// As on a cluster of one host.
    Direct,
    /// Every request and answer as bytes.
    Messages,
}

type Deed = Box<dyn FnOnce(&SimDisk) + Send>;

/// A store being served: ends when `deeds` is dropped, without closing anything, as a killed process does.
struct Life {
    deeds: mpsc::UnboundedReceiver<(Deed, oneshot::Sender<()>)>,
    ready: oneshot::Sender<StoreHandle>,
}

pub(crate) struct Rack {
    threads: Vec<Sender<Life>>,
    deeds: BTreeMap<usize, mpsc::UnboundedSender<(Deed, oneshot::Sender<()>)>>,
    pub(crate) objects: Option<ObjectStore>,
    entropy: SeededEntropy,
    access: Access,
}

impl Rack {
    pub(crate) async fn new(disk_bytes: u64, access: Access) -> Self {
        let threads = (0..DEVICES).map(|n| {
            let (tx, lives) = channel();
            std::thread::spawn(move || run(n, disk_bytes, &lives));
            tx
        });
        let mut rack = Self {
            threads: threads.collect(),
            deeds: BTreeMap::new(),
            objects: None,
            entropy: SeededEntropy::new(7),
            access,
        };
        rack.start(&[]).await.expect("a new rack starts");
        rack
    }

    /// Opens the stores of all disks but those that are away, and the object layer over them.
    pub(crate) async fn start(&mut self, away: &[usize]) -> Result<(), OpenError> {
        let mut stores = Vec::new();
        for n in 0..DEVICES {
            if away.contains(&n) {
                stores.push(None);
                continue;
            }
            let (tx, deeds) = mpsc::unbounded_channel();
            let (ready, store) = oneshot::channel();
            self.threads[n].send(Life { deeds, ready }).expect("the disk's thread lives");
            self.deeds.insert(n, tx);
            stores.push(Some(store.await.expect("a store opens")));
        }
        let config = OpenConfig {
            stores,
            redundancy: Redundancy::new(4, 2),
            memory_bytes: 64 << 20,
            view_cache_bytes: 1 << 20,
            clock: Arc::new(OsClock::new()),
            entropy: Arc::new(self.entropy.clone()),
        };
        self.objects = Some(match self.access {
            Access::Direct => ObjectStore::open(config).await?,
            Access::Messages => over_messages(config).await?,
        });
        Ok(())
    }

    /// Everything dies; unflushed writes are torn.
    pub(crate) fn kill(&mut self) {
        self.objects = None;
        self.deeds.clear();
    }

    pub(crate) async fn restart(&mut self, away: &[usize]) -> Result<(), OpenError> {
        self.kill();
        self.start(away).await
    }

    /// Does something to a disk while its store is being served.
    pub(crate) async fn with_disk(&self, n: usize, deed: impl FnOnce(&SimDisk) + Send + 'static) {
        let (done, wait) = oneshot::channel();
        assert!(self.deeds[&n].send((Box::new(deed), done)).is_ok(), "the store is served");
        wait.await.expect("the deed is done");
    }

    pub(crate) fn objects(&self) -> &ObjectStore {
        self.objects.as_ref().expect("started")
    }

    pub(crate) async fn put(&self, key: &str, bytes: &[u8]) -> Result<ObjectInfo, ObjectError> {
        let mut body = Given::new(bytes);
        self.objects().put("bucket", key, ObjectMeta::default(), Condition::default(), &mut body).await
    }

    pub(crate) async fn get(&self, key: &str) -> Result<Vec<u8>, ObjectError> {
        let (info, reader) = self.objects().open("bucket", key).await?;
        collect(reader, 0..info.size).await
    }
}

/// What [`ObjectStore::open`] does, with the partition behind messages.
async fn over_messages(config: OpenConfig) -> Result<ObjectStore, OpenError> {
    let present: Vec<StoreHandle> = config.stores.iter().flatten().cloned().collect();
    let groups = Groups::new(DEVICES, 6).expect("enough devices");
    let policy = Policy::for_tolerance(DEVICES, 2);
    let partition = PartitionConfig { partition: PartitionId(0), policy, view_cache_bytes: config.view_cache_bytes };
    let partition = Partition::open(partition, index::mirrors(&present), DEVICES - present.len()).await?;
    let device = |(n, store): (usize, Option<StoreHandle>)| {
        Device::new(DeviceId([n as u8 + 1; 16]), store.map(|store| Arc::new(store) as _), false)
    };
    let devices = config.stores.into_iter().enumerate().map(device).collect();
    let over = OverConfig {
        topology: Topology::of_groups(&groups, devices).expect("whole groups"),
        partition: Arc::new(Messages::to(partition)),
        redundancy: config.redundancy,
        memory_bytes: config.memory_bytes,
        clock: config.clock,
        timers: Arc::new(NoTimers),
        entropy: config.entropy,
        foreign_readers: std::time::Duration::ZERO,
    };
    ObjectStore::over(over).await
}

pub(crate) async fn collect(reader: impl Reader, range: std::ops::Range<u64>) -> Result<Vec<u8>, ObjectError> {
    let mut out = Vec::new();
    let mut stream = reader.read(range);
    while let Some(bytes) = stream.next().await {
        out.extend_from_slice(&bytes?);
    }
    Ok(out)
}

fn run(n: usize, disk_bytes: u64, lives: &Receiver<Life>) {
    let mut disk = SimDisk::new(disk_bytes, n as u64);
    let options = FormatOptions {
        cluster: ClusterId([9; 16]),
        device: DeviceId([n as u8 + 1; 16]),
        salt: 5,
        now_ms: 1,
        extent_bytes: Some(EXTENT_BYTES),
    };
    block_on(Store::format(&disk, &options)).expect("the disk takes a store");
    while let Ok(Life { mut deeds, ready }) = lives.recv() {
        disk = disk.reopen();
        block_on(async {
            let store = Store::open(disk.clone(), false).await.expect("opens");
            let serve = Box::pin(store.serve(|handle| drop(ready.send(handle))));
            let control = Box::pin(async {
                while let Some((deed, done)) = deeds.recv().await {
                    deed(&disk);
                    let _ = done.send(());
                }
            });
            select(serve, control).await;
        });
        disk.crash();
    }
}

/// A body that was given, in pieces of odd length; it may break off.
pub(crate) struct Given {
    bytes: Bytes,
    at: usize,
    breaks_at: Option<usize>,
}

impl Given {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self { bytes: Bytes::copy_from_slice(bytes), at: 0, breaks_at: None }
    }

    pub(crate) fn broken(bytes: &[u8], at: usize) -> Self {
        Self { breaks_at: Some(at), ..Self::new(bytes) }
    }
}

impl Body for Given {
    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        if self.breaks_at.is_some_and(|at| self.at >= at) {
            return Some(Err(BodyError::Incomplete));
        }
        let end = self.bytes.len().min(self.at + 65_521);
        let piece = self.bytes.slice(self.at..end);
        self.at = end;
        (!piece.is_empty()).then_some(Ok(piece))
    }

    fn size_hint(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }

    fn finish(&mut self) -> Result<BodyDigest, BodyError> {
        Ok(BodyDigest { md5: [self.bytes.len() as u8; 16], checksum: None })
    }
}

/// Bytes that depend on the seed.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(len);
    out
}
