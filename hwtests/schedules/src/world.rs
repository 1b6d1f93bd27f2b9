//! One disk and the lives of the store on it: opening, clients, ending, and the check of all that was seen.

use std::future::Future;

use base::{ClusterId, DeviceId, KIB, MIB};
use format::Geometry;
use shards::{FormatOptions, Limits, Store, StoreHandle};
use shuttle::future::{JoinHandle, block_on, spawn_local};
use shuttle::thread;
use simdisk::SimDisk;

use crate::client::{Client, Gone, Tolerates};
use crate::gate::{Gate, GatedDisk};
use crate::history::{History, Key, Op};
use crate::payload::Size;
use crate::{chance, linear, probe};

/// The smallest: two large records fill one.
const EXTENT_BYTES: u64 = 256 * KIB;
/// The fewest extents.
const DISK_BYTES: u64 = MIB + Geometry::MIN_EXTENTS as u64 * EXTENT_BYTES + 4 * KIB;

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// In order.
    Close,
    /// All handles are dropped.
    Abandon,
    /// The power goes.
    PowerLoss,
}

impl Ending {
    /// Any of them.
    #[must_use]
    pub fn any() -> Self {
        chance::pick(&[Self::Close, Self::Abandon, Self::PowerLoss])
    }
}

/// See the file's header.
pub struct World {
    disk: SimDisk,
    gate: Gate,
    device: JoinHandle<()>,
    history: History,
    keys: Vec<Key>,
}

impl World {
    /// A formatted disk, for a store with these keys.
    pub async fn new(keys: impl IntoIterator<Item = Key>) -> Self {
        let disk = SimDisk::new(DISK_BYTES, chance::seed());
        let gate = Gate::default();
        let options = FormatOptions {
            cluster: ClusterId([1; 16]),
            device: DeviceId([2; 16]),
            salt: chance::seed() as u32,
            now_ms: 0,
            extent_bytes: Some(EXTENT_BYTES as u32),
        };
        Store::format(&GatedDisk::new(disk.clone(), gate.clone()), &options)
            .await
            .expect("a good disk can be formatted");
        let device = spawn_local(gate.clone().run());
        Self { disk, gate, device, history: History::default(), keys: keys.into_iter().collect() }
    }

    /// Opens the store, with the gate open.
    pub async fn open(&self, limits: Limits) -> Life<'_> {
        let disk = GatedDisk::new(self.disk.clone(), self.gate.clone());
        let store = Store::open_with(disk, false, limits).await.expect("a good disk can be opened");
        let (tell, handle) = futures::channel::oneshot::channel();
        let serve = spawn_local(store.serve(|handle| drop(tell.send(handle))));
        let handle = handle.await.expect("the store passes its handle");
        Life { world: self, handle, serve, clients: Vec::new() }
    }

    /// Cuts the power once the store has written and flushed `ops` times more.
    pub fn cut_power_after(&self, ops: u64) {
        self.disk.power_cut_after(ops);
    }

    /// What was done so far.
    #[must_use]
    pub fn ops(&self) -> Vec<Op> {
        self.history.ops()
    }

    /// A fresh handle on the disk, for the next life. The gate stands open again.
    pub fn reopen(&mut self) {
        self.gate.stand_open();
        self.disk = self.disk.reopen();
    }

    /// Reads everything back in a life of its own, or in several that also write, and checks all that was seen.
    ///
    /// # Panics
    /// When something was lost, damaged, or cannot be explained.
    pub async fn conclude(mut self) {
        for more in (0..=chance::below(3)).rev() {
            self.reopen();
            let life = self.open(chance::limits()).await;
            let reader = life.client("reopened", Tolerates::Nothing);
            let listed = reader.list(chance::pick(&[1, 3, 100])).await.expect("an open store answers");
            for key in &self.keys {
                let _ = reader.get(*key).await.expect("an open store answers");
            }
            let report = reader.ask(|store| async move { store.verify(None, u64::MAX).await }).await;
            let report = report.expect("an open store answers");
            assert_eq!((report.bad, report.next), (Vec::new(), None), "records that do not verify");
            assert_eq!(report.records, listed.len() as u64, "verified are the records that are listed");
            if more > 0 {
                // What recovery set up must carry new records through the next one.
                let size = chance::pick(&[Size::Small, Size::Large]);
                reader.put(chance::pick(&self.keys), size).await.expect("an open store answers");
                reader.delete(&[chance::pick(&self.keys)]).await.expect("an open store answers");
                reader.put(chance::pick(&self.keys), Size::Small).await.expect("an open store answers");
            }
            drop(reader);
            life.end(Ending::any()).await;
        }
        self.gate.end();
        self.device.await.expect("the device's task is not cancelled");
        if let Err(told) = linear::check_keys(&self.history.ops()) {
            panic!("{told}");
        }
    }
}

/// A store under way, and its clients.
pub struct Life<'a> {
    world: &'a World,
    handle: StoreHandle,
    serve: JoinHandle<()>,
    clients: Vec<thread::JoinHandle<()>>,
}

impl Life<'_> {
    /// A client of this life.
    #[must_use]
    pub fn client(&self, name: &'static str, tolerates: Tolerates) -> Client {
        Client::new(name, self.handle.clone(), self.world.history.clone(), self.world.keys.clone(), tolerates)
    }

    /// Writes to each of `keys` in turn, before anything races.
    pub async fn fill(&self, keys: impl IntoIterator<Item = Key>, size: Size) {
        let client = self.client("fill", Tolerates::Nothing);
        for key in keys {
            client.put(key, size).await.expect("an open store answers");
        }
    }

    /// From now on the scheduler decides when device operations finish.
    pub fn race(&self) {
        self.world.gate.guard();
    }

    /// Runs a client on a thread of its own.
    pub fn spawn<F>(&mut self, name: &'static str, tolerates: Tolerates, run: impl FnOnce(Client) -> F + Send + 'static)
    where
        F: Future<Output = Result<(), Gone>>,
    {
        let client = self.client(name, tolerates);
        self.clients.push(thread::spawn(move || {
            // That the store is gone ends the client: what it must have kept is checked afterwards.
            let _: Result<(), Gone> = block_on(run(client));
        }));
    }

    /// Waits for the clients.
    pub fn join(&mut self) {
        for client in self.clients.drain(..) {
            client.join().expect("a client that fails ends the run");
        }
    }

    /// Waits for the clients and ends the life; the store must come to its end.
    pub async fn end(mut self, ending: Ending) {
        self.join();
        match self.handle.stats().await {
            Ok(stats) => {
                probe::hit("records moved", u64::from(stats.moved_bytes > 0));
                probe::hit("extents reclaimed", stats.extents_reclaimed);
                probe::hit("checkpoints", stats.checkpoints);
                assert_eq!(stats.corrupt_found, 0, "records that do not verify");
            }
            Err(error) => assert_eq!(error, shards::StoreError::Closed),
        }
        match ending {
            Ending::Close => match self.handle.close().await {
                Ok(()) | Err(shards::StoreError::Closed) => {}
                Err(error) => assert!(self.world.disk.is_gone(), "the store cannot be closed: {error}"),
            },
            Ending::Abandon => {}
            Ending::PowerLoss => {
                probe::hit("power cuts", 1);
                self.world.disk.crash();
            }
        }
        drop(self.handle);
        self.serve.await.expect("the store's task is not cancelled");
    }
}
