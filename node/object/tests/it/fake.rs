//! Devices that are as slow as they are told to be, or dead, on tokio's paused time; and a partition whose work takes
//! no time of it.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use base::{Clock, DeviceId, Lsn, PartitionId, SeededEntropy};
use bytes::Bytes;
use format::ShardKey;
use futures::future::BoxFuture;
use index::model::{Command, Outcome};
use index::{Answer, IndexError, Mirror, Partition, PartitionClient, PartitionConfig, Policy, Question};
use object::api::{Condition, ObjectApi, ObjectError, ObjectInfo, ObjectMeta};
use object::{Device, ObjectStore, OverConfig, Redundancy, ShardError, ShardResult, ShardStore, Timers, Topology};
use replica::testing::MemoryStore;
use shards::{Payload, ShardInfo, StoreError, StoreStats};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::rack::{Given, collect};
use crate::wire::Messages;

pub(crate) const MS: Duration = Duration::from_millis(1);

/// How a device behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// Its host cannot be reached.
    Dead,
    /// It takes requests and never answers.
    Hung,
    /// Its host goes by a map of this epoch or later.
    Ahead(u64),
}

/// A device in memory.
#[derive(Debug)]
pub(crate) struct FakeStore {
    device: DeviceId,
    pub(crate) records: Mutex<BTreeMap<ShardKey, (Bytes, Bytes)>>,
    put_us: AtomicU64,
    get_us: AtomicU64,
    mood: Mutex<Mood>,
    /// The epoch that callers go by, as their connection says.
    pub(crate) callers_epoch: AtomicU64,
    pub(crate) gets: AtomicU64,
}

impl FakeStore {
    pub(crate) fn new(number: u8) -> Arc<Self> {
        Arc::new(Self {
            device: DeviceId([number + 1; 16]),
            records: Mutex::default(),
            put_us: 5000.into(),
            get_us: 5000.into(),
            mood: Mutex::new(Mood::Well),
            callers_epoch: 0.into(),
            gets: 0.into(),
        })
    }

    pub(crate) fn takes(&self, put: Duration, get: Duration) {
        self.put_us.store(put.as_micros() as u64, Ordering::Relaxed);
        self.get_us.store(get.as_micros() as u64, Ordering::Relaxed);
    }

    pub(crate) fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub(crate) fn keys(&self) -> Vec<ShardKey> {
        self.records.lock().unwrap().keys().copied().collect()
    }

    /// What a request meets before anything else.
    async fn meet(&self, us: &AtomicU64) -> ShardResult<()> {
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Dead => return Err(ShardError::Unreachable { reason: "no route".into() }),
            Mood::Hung => std::future::pending().await,
            Mood::Ahead(fence) if self.callers_epoch.load(Ordering::Relaxed) < fence => {
                return Err(ShardError::StaleMap { fence });
            }
            Mood::Well | Mood::Ahead(_) => {}
        }
        tokio::time::sleep(Duration::from_micros(us.load(Ordering::Relaxed))).await;
        Ok(())
    }
}

impl ShardStore for FakeStore {
    fn device(&self) -> DeviceId {
        self.device
    }

    fn is_local(&self) -> bool {
        false
    }

    fn put(&self, key: ShardKey, descriptor: Bytes, payload: Payload) -> BoxFuture<'_, ShardResult<()>> {
        Box::pin(async move {
            self.meet(&self.put_us).await?;
            let bytes = match payload {
                Payload::Aligned { bytes, len } => Bytes::copy_from_slice(&bytes[..len]),
                Payload::Parts(parts) => parts.concat().into(),
            };
            self.records.lock().unwrap().insert(key, (descriptor, bytes));
            Ok(())
        })
    }

    fn get(&self, key: ShardKey, range: Range<u32>) -> BoxFuture<'_, ShardResult<Bytes>> {
        Box::pin(async move {
            self.gets.fetch_add(1, Ordering::Relaxed);
            self.meet(&self.get_us).await?;
            let records = self.records.lock().unwrap();
            let (_, bytes) = records.get(&key).ok_or(StoreError::NotFound)?;
            let end = (range.end as usize).min(bytes.len());
            Ok(bytes.slice((range.start as usize).min(end)..end))
        })
    }

    fn describe(&self, key: ShardKey) -> BoxFuture<'_, ShardResult<(u32, Bytes)>> {
        Box::pin(async move {
            let records = self.records.lock().unwrap();
            let (descriptor, bytes) = records.get(&key).ok_or(StoreError::NotFound)?;
            Ok((bytes.len() as u32, descriptor.clone()))
        })
    }

    fn delete(&self, keys: Vec<ShardKey>) -> BoxFuture<'_, ShardResult<()>> {
        Box::pin(async move {
            self.meet(&AtomicU64::new(1000)).await?;
            let mut records = self.records.lock().unwrap();
            keys.iter().for_each(|key| drop(records.remove(key)));
            Ok(())
        })
    }

    fn list(&self, after: Option<ShardKey>, limit: usize) -> BoxFuture<'_, ShardResult<Vec<ShardInfo>>> {
        Box::pin(async move {
            self.meet(&AtomicU64::new(1000)).await?;
            let records = self.records.lock().unwrap();
            let start = after.map_or(Bound::Unbounded, Bound::Excluded);
            let info =
                |(key, (_, bytes)): (&ShardKey, &(Bytes, Bytes))| ShardInfo { key: *key, len: bytes.len() as u32 };
            Ok(records.range((start, Bound::Unbounded)).take(limit).map(info).collect())
        })
    }

    fn stats(&self) -> BoxFuture<'_, ShardResult<StoreStats>> {
        Box::pin(async { Ok(StoreStats::default()) })
    }
}

/// tokio's paused time as clock and timers.
#[derive(Debug, Clone)]
pub(crate) struct PausedTime(Instant);

impl Clock for PausedTime {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn unix_ms(&self) -> u64 {
        1_700_000_000_000 + self.0.elapsed().as_millis() as u64
    }
}

impl Timers for PausedTime {
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}

/// Where partitions live: paused time moves on while a test waits for anything of another thread, so the test's own
/// thread must not see itself wait.
fn elsewhere() -> &'static Runtime {
    static ELSEWHERE: OnceLock<Runtime> = OnceLock::new();
    ELSEWHERE.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap())
}

fn there<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let (tx, rx) = std::sync::mpsc::channel();
    elsewhere().spawn(async move { tx.send(work.await) });
    rx.recv().expect("it answers")
}

/// How the way to the partition behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    /// Nothing arrives.
    Closed,
    /// Everything arrives, no answer comes back.
    Deaf,
}

/// A partition whose answers take no time.
#[derive(Debug, Clone)]
pub(crate) struct Prompt {
    messages: Arc<Messages>,
    pub(crate) way: Arc<Mutex<Way>>,
}

impl Prompt {
    fn way<T>(&self, done: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
        let way = *self.way.lock().unwrap();
        match way {
            Way::Open => done(),
            Way::Closed => Err(IndexError::Unreachable { reason: "no route".into() }),
            Way::Deaf => {
                let _ = done();
                Err(IndexError::Unanswered { reason: "cut".into() })
            }
        }
    }
}

impl PartitionClient for Prompt {
    fn submit(&self, command: Command, data: Vec<Bytes>) -> BoxFuture<'_, Result<Outcome, IndexError>> {
        let messages = Arc::clone(&self.messages);
        Box::pin(async move { self.way(|| there(async move { messages.submit(command, data).await })) })
    }

    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Answer, IndexError>> {
        let messages = Arc::clone(&self.messages);
        Box::pin(async move { self.way(|| there(async move { messages.ask(question).await })) })
    }

    fn read_data(&self, lsn: Lsn, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, IndexError>> {
        let messages = Arc::clone(&self.messages);
        Box::pin(async move { self.way(|| there(async move { messages.read_data(lsn, range).await })) })
    }

    fn local(&self) -> Option<&Partition> {
        self.messages.local()
    }
}

/// Fake devices, one partition, and as many nodes over them as a test wants.
pub(crate) struct Rig {
    pub(crate) stores: Vec<Arc<FakeStore>>,
    partition: Partition,
    time: PausedTime,
    entropy: SeededEntropy,
    /// The node beside the partition.
    pub(crate) objects: ObjectStore,
}

/// A view of some fake devices: groups of six by rotation.
pub(crate) fn view(epoch: u64, stores: &[Arc<FakeStore>]) -> Topology {
    let devices = stores.iter().map(|store| Device::new(store.device, Some(Arc::clone(store) as _), false)).collect();
    let count = stores.len() as u32;
    let slots = (0..count).flat_map(|group| (0..6).map(move |slot| (group + slot) % count)).collect();
    Topology::new(epoch, 6, devices, slots).expect("whole groups")
}

impl Rig {
    pub(crate) async fn new(devices: u8) -> Self {
        let stores: Vec<_> = (0..devices).map(FakeStore::new).collect();
        let mirrors: Vec<Mirror> = (1..=3).map(|n| MemoryStore::new(n) as Mirror).collect();
        let policy = Policy::for_tolerance(3, 1);
        let config = PartitionConfig { partition: PartitionId(0), policy, view_cache_bytes: 1 << 20 };
        let open = move || elsewhere().block_on(Partition::open(config, mirrors, 0)).expect("opens");
        let partition = std::thread::spawn(open).join().expect("ends");
        let (time, entropy) = (PausedTime(Instant::now()), SeededEntropy::new(3));
        let messages = Arc::new(Messages::to(partition.clone()));
        let prompt = Prompt { messages, way: Arc::new(Mutex::new(Way::Open)) };
        let objects = node(&stores, prompt, &time, &entropy, Duration::ZERO).await;
        objects.create_bucket("bucket", "me", "here").await.expect("a bucket");
        Self { stores, partition, time, entropy, objects }
    }

    /// Another node, on a host without the partition.
    pub(crate) async fn another(&self) -> (ObjectStore, Prompt) {
        let messages = Arc::new(Messages::from_afar(self.partition.clone()));
        let prompt = Prompt { messages, way: Arc::new(Mutex::new(Way::Open)) };
        (node(&self.stores, prompt.clone(), &self.time, &self.entropy, Duration::ZERO).await, prompt)
    }

    /// The node beside the partition once more, as after a restart of its process.
    pub(crate) async fn restarted(&self, foreign_readers: Duration) -> ObjectStore {
        let messages = Arc::new(Messages::to(self.partition.clone()));
        let prompt = Prompt { messages, way: Arc::new(Mutex::new(Way::Open)) };
        node(&self.stores, prompt, &self.time, &self.entropy, foreign_readers).await
    }

    pub(crate) fn shards(&self) -> usize {
        self.stores.iter().map(|store| store.keys().len()).sum()
    }

    /// All devices take the usual time.
    pub(crate) fn calm(&self) {
        self.stores.iter().for_each(|store| store.takes(5 * MS, 5 * MS));
    }
}

async fn node(
    stores: &[Arc<FakeStore>],
    partition: Prompt,
    time: &PausedTime,
    entropy: &SeededEntropy,
    foreign_readers: Duration,
) -> ObjectStore {
    let over = OverConfig {
        topology: view(1, stores),
        partition: Arc::new(partition),
        redundancy: Redundancy::new(4, 2),
        memory_bytes: 64 << 20,
        clock: Arc::new(time.clone()),
        timers: Arc::new(time.clone()),
        entropy: Arc::new(entropy.clone()),
        foreign_readers,
    };
    ObjectStore::over(over).await.expect("opens")
}

pub(crate) async fn put(objects: &ObjectStore, key: &str, bytes: &[u8]) -> Result<ObjectInfo, ObjectError> {
    let (meta, condition) = (ObjectMeta::default(), Condition::default());
    objects.put("bucket", key, meta, condition, &mut Given::new(bytes)).await
}

pub(crate) async fn get(objects: &ObjectStore, key: &str) -> Result<Vec<u8>, ObjectError> {
    let (info, reader) = objects.open("bucket", key).await?;
    collect(reader, 0..info.size).await
}

pub(crate) async fn get_range(objects: &ObjectStore, key: &str, range: Range<u64>) -> Result<Vec<u8>, ObjectError> {
    let (_, reader) = objects.open("bucket", key).await?;
    collect(reader, range).await
}

/// What it gives, and how long it took.
pub(crate) async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    let done = work.await;
    (done, begun.elapsed())
}

/// Frees what there is to free.
pub(crate) async fn collect_all_garbage(objects: &ObjectStore) {
    for _ in 0..20 {
        objects.collect_garbage().await.expect("garbage");
    }
}
