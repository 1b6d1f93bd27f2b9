//! A node of a rack: its devices for everybody, everybody's devices for its S3 endpoint.
//!
//! Order: addresses, devices, then the listener for other nodes and the controller's agent; S3 is served once there is
//! a map that says where shards and rows are. A map kept from before is enough: no controller is needed to start.
//!
//! The partition is opened here when the map puts this node at the head of its chain, and then only: its journal is on
//! this node's devices.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base::{ClusterId, DeviceId, NodeId, PartitionId};
use futures::future::{BoxFuture, join_all};
use gateway::{Gateway, Keys, Limits};
use index::{Partition, PartitionClient, PartitionConfig, Policy};
use object::{ObjectStore, OverConfig, Redundancy, ShardStore, Topology};
use peers::{LocalIndex, LocalShards, Pool, RemotePartition, RemoteStore, Route, Routes};
use placement::map::{ClusterMap, MapDevice, NodeState};
use shards::StoreHandle;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::Server;
use wire::controller::NodeFacts;
use wire::dial::Dialer;
use wire::listen::Listener;
use wire::tls::{Admit, Credentials, Refused, TlsError};

use crate::admin::{AdminServer, KeyAdmin, Readiness};
use crate::agent::{Agent, Controllers, Keep, MapSeen};
use crate::background::{self, TokioTimers};
use crate::device::{self, DeviceSpec, OpenContext, OpenDevice};
use crate::node::{BODY_MEMORY_BYTES, Doors, NodeError, VIEW_CACHE_BYTES, close_devices};
use crate::observe::{Health, Shown, ShownDevice};
use crate::report::{NodeReporter, Pace, Paces, Reported};

/// The one partition there is.
const PARTITION: PartitionId = PartitionId(0);
/// How long a request waits for a newer map before it goes by the one that there is.
const MAP_WAIT: Duration = Duration::from_secs(2);
/// How long data that was overwritten or deleted is kept for downloads through other nodes.
const FOREIGN_READERS: Duration = Duration::from_secs(600);
/// Name under which the node keeps the list of its devices.
const KEPT_DEVICES: &str = "devices";
/// Requests of one connection between nodes at once: two full groups of shards for each of many uploads.
const STREAMS_MAX: u32 = 1024;
/// Bytes of one stream and of one connection that may be on their way.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

/// What to run.
pub struct RackNodeConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// Who this is.
    pub node: NodeId,
    /// What it says of itself.
    pub facts: NodeFacts,
    /// Its devices.
    pub devices: Vec<DeviceSpec>,
    /// Whether what is on a device may be destroyed, and blank ones taken in later.
    pub claim: bool,
    /// Where other nodes reach it.
    pub peer_addr: SocketAddr,
    /// Where S3 is served.
    pub s3_addr: SocketAddr,
    /// Where health and metrics are served.
    pub admin_addr: SocketAddr,
    /// The unix socket that keys would be on; the controller has them here.
    pub admin_socket: PathBuf,
}

/// What a node of a rack needs besides its configuration.
pub struct RackDoors {
    /// Clock and randomness.
    pub doors: Doors,
    /// Its certificate.
    pub credentials: Arc<Credentials>,
    /// The way to the controllers.
    pub controllers: Arc<dyn Controllers>,
    /// Where it keeps small things.
    pub keep: Arc<dyn Keep>,
    /// Keys are the controller's; this says so.
    pub key_admin: Arc<dyn KeyAdmin>,
}

/// Why a node of a rack did not start, or ended.
#[derive(Debug, Error)]
pub enum RackNodeError {
    /// As on a single host.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The listener for other nodes.
    #[error(transparent)]
    Listen(#[from] wire::listen::ListenError),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// None of its devices can be used.
    #[error("none of this node's devices can be used: {0}")]
    NoDevice(String),
    /// The partition cannot be opened.
    #[error("the partition cannot be opened: {0}")]
    Partition(#[from] index::IndexError),
    /// The object layer.
    #[error(transparent)]
    Objects(#[from] object::OpenError),
    /// What it kept cannot be read or written.
    #[error("{0}")]
    Kept(String),
}

/// Runs a node until `stop` turns true. Must be called on a multi-thread tokio runtime.
///
/// # Errors
/// [`RackNodeError`].
pub async fn run_rack_node(
    config: RackNodeConfig,
    rack: RackDoors,
    mut stop: watch::Receiver<bool>,
) -> Result<(), RackNodeError> {
    let s3 = TcpListener::bind(config.s3_addr).await;
    let s3 = s3.map_err(|reason| NodeError::Address { addr: config.s3_addr, reason })?;
    let admin = AdminServer::bind(config.admin_addr, &config.admin_socket).await.map_err(NodeError::from)?;
    let credentials = Arc::clone(&rack.credentials);
    let listener =
        Listener::bind(config.peer_addr, credentials, Admit::RACK, wire::listen::Settings::default()).await?;
    let devices = open_devices(&config, &rack).await?;
    let dialer = Dialer::new(Arc::clone(&rack.credentials), wire::dial::Settings::default())?;
    let pool = Pool::new(Arc::new(move |node, addr| Some(dialer.node(node, addr))));
    let (shards, index) = (LocalShards::default(), LocalIndex::default());
    let own: BTreeMap<DeviceId, StoreHandle> =
        devices.iter().map(|device| (device.label.device, device.store.clone())).collect();
    shards.serve(own.clone());
    let agent = Agent::new(Arc::clone(&rack.controllers), Arc::clone(&rack.keep));
    let objects_seen: Arc<RwLock<Option<ObjectStore>>> = Arc::default();
    let mut tasks = JoinSet::new();
    let (end, ended) = watch::channel(false);
    let mut listener_ended = ended.clone();
    let server = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .add_service(wire::shards::service(Arc::new(shards.clone()), wire::shards::nodes_only()))
        .add_service(wire::index::service(Arc::new(index.clone()), wire::shards::nodes_only()))
        .serve_with_incoming_shutdown(listener, async move { _ = listener_ended.wait_for(|ended| *ended).await });
    let peers_task = tokio::spawn(server);
    agent.start(Arc::new(reporter(&config, &rack, &devices, Arc::clone(&objects_seen))), &mut tasks);
    let mut map = agent.map();
    let served = {
        let mut stopped = stop.clone();
        tokio::select! {
            formed = formed(&mut map) => {
                let node = Serving { config: &config, rack: &rack, own, pool, shards, index, objects_seen, devices: &devices };
                node.serve(formed, map, s3, admin, agent.keys(), &mut stop).await
            }
            _ = stopped.wait_for(|stop| *stop) => Ok(()),
        }
    };
    end.send_replace(true);
    tasks.shutdown().await;
    // Peers that hold connections open must not hold up the end.
    if timeout(Duration::from_secs(5), peers_task).await.is_err() {
        tracing::debug!("connections of other nodes were cut off");
    }
    close_devices(devices).await;
    served
}

/// The first map that says where shards and rows are.
async fn formed(map: &mut MapSeen) -> Arc<ClusterMap> {
    let whole = |map: &Option<Arc<ClusterMap>>| {
        map.as_ref().is_some_and(|map| !map.groups.is_empty() && !map.partitions.is_empty())
    };
    match map.wait_for(whole).await {
        Ok(map) => map.clone().expect("a formed map is there"),
        // The agent lives as long as this node.
        Err(_) => std::future::pending().await,
    }
}

/// What serving needs.
struct Serving<'a> {
    config: &'a RackNodeConfig,
    rack: &'a RackDoors,
    own: BTreeMap<DeviceId, StoreHandle>,
    pool: Pool,
    shards: LocalShards,
    index: LocalIndex,
    objects_seen: Arc<RwLock<Option<ObjectStore>>>,
    devices: &'a [OpenDevice],
}

impl Serving<'_> {
    async fn serve(
        self,
        map: Arc<ClusterMap>,
        seen: MapSeen,
        s3: TcpListener,
        admin: AdminServer,
        keys: Arc<dyn Keys>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), RackNodeError> {
        let (k, m) = (map.policy.data_shards, map.policy.parity_shards);
        let here = heads(&map, self.config.node);
        let partition: Arc<dyn PartitionClient> = if here {
            let partition = self.open_partition(&map).await?;
            self.index.serve(Some((PARTITION, Arc::new(partition.clone()))));
            tracing::info!("the partition is here");
            Arc::new(partition)
        } else {
            let routes = Arc::new(MapRoutes { map: seen.clone() });
            Arc::new(RemotePartition::new(PARTITION, self.pool.clone(), routes))
        };
        let topology =
            self.topology(&map).ok_or_else(|| RackNodeError::Kept("the map's groups are not whole".into()))?;
        let doors = &self.rack.doors;
        let objects = ObjectStore::over(OverConfig {
            topology,
            partition,
            redundancy: Redundancy::new(k.into(), m.into()),
            memory_bytes: BODY_MEMORY_BYTES,
            clock: Arc::clone(&doors.clock),
            timers: Arc::new(TokioTimers),
            entropy: Arc::clone(&doors.entropy),
            foreign_readers: FOREIGN_READERS,
        })
        .await?;
        *self.objects_seen.write().unwrap_or_else(PoisonError::into_inner) = Some(objects.clone());
        let health = Health::starting();
        let gateway =
            Gateway::new(Arc::new(objects.clone()), keys, Arc::clone(&doors.clock), Arc::clone(&doors.entropy));
        let shown_device = |device: &OpenDevice| ShownDevice {
            id: device.label.device,
            path: device.path.display().to_string(),
            store: Some(device.store.clone()),
        };
        let shown = Arc::new(Shown {
            health: Arc::clone(&health),
            objects: objects.clone(),
            gateway: gateway.stats(),
            devices: self.devices.iter().map(shown_device).collect(),
        });
        let (end, ended) = watch::channel(false);
        let mut tasks = background::start(&objects, &health, &ended);
        let mut admin_ended = ended.clone();
        tasks.spawn(admin.serve(shown, Arc::clone(&self.rack.key_admin), async move {
            _ = admin_ended.wait_for(|ended| *ended).await;
        }));
        let stopped = {
            let mut stop = stop.clone();
            async move { _ = stop.wait_for(|stop| *stop).await }
        };
        let served = {
            let following = self.follow(map, seen, &objects, here);
            tokio::select! {
                served = gateway::serve(s3, gateway, Limits::default(), stopped) => {
                    served.map_err(|error| RackNodeError::from(NodeError::from(error)))
                }
                () = following => Ok(()),
            }
        };
        health.set(Readiness::NotReady("stopping".into()));
        end.send_replace(true);
        tasks.join_all().await;
        self.index.serve(None);
        if let Err(error) = objects.close().await {
            tracing::error!(%error, "the index was not closed in order; the next start replays its journal");
        }
        served
    }

    /// Goes by every newer map; ends never.
    async fn follow(&self, first: Arc<ClusterMap>, mut seen: MapSeen, objects: &ObjectStore, here: bool) {
        let mut last = first;
        self.take(&last, None, objects, here);
        loop {
            let newer = seen.wait_for(|map| map.as_ref().is_some_and(|map| map.epoch > last.epoch)).await;
            let Some(map) = newer.ok().and_then(|map| map.clone()) else { return std::future::pending().await };
            self.take(&map, Some(&last), objects, here);
            last = map;
        }
    }

    fn take(&self, map: &ClusterMap, last: Option<&ClusterMap>, objects: &ObjectStore, here: bool) {
        match self.topology(map).map(|topology| objects.replace_topology(topology)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return tracing::error!(%error, epoch = map.epoch, "a map cannot be used"),
            None => return tracing::error!(epoch = map.epoch, "a map's groups are not whole"),
        }
        self.pool.keep_members(map);
        let removed = map.nodes.iter().filter(|node| node.state == NodeState::Removed).map(|node| node.id);
        self.rack.credentials.refuse(Refused { nodes: removed.collect(), ..Refused::default() });
        // Senders are held to a map only where it says where things are; states of nodes and devices are advice.
        if last.is_some_and(|last| last.groups != map.groups || last.partitions != map.partitions) {
            self.shards.fence(map.epoch);
            self.index.fence(map.epoch);
        }
        if heads(map, self.config.node) != here {
            tracing::error!("the partition's chain has changed; this node goes on as it began until it is restarted");
        }
    }

    fn topology(&self, map: &ClusterMap) -> Option<Topology> {
        Topology::of_map(map, |device: &MapDevice| {
            if let Some(store) = self.own.get(&device.id) {
                return Some(Arc::new(store.clone()) as Arc<dyn ShardStore>);
            }
            let node = map.nodes.get(device.node as usize)?;
            if node.id == self.config.node {
                return None;
            }
            let channel = self.pool.channel(node.id, &node.peer_addr)?;
            Some(Arc::new(RemoteStore::new(channel, device.id, map.epoch)) as Arc<dyn ShardStore>)
        })
    }

    /// Opens the partition on this node's own devices, in their order on the map.
    async fn open_partition(&self, map: &ClusterMap) -> Result<Partition, RackNodeError> {
        let place = map.node(self.config.node).map(|(place, _)| place);
        let mine: Vec<DeviceId> =
            map.devices.iter().filter(|device| Some(device.node) == place).map(|device| device.id).collect();
        let present: Vec<StoreHandle> = mine.iter().filter_map(|id| self.own.get(id).cloned()).collect();
        let missing = mine.len() - present.len();
        let policy = Policy::for_tolerance(mine.len(), map.policy.parity_shards.into());
        let config = PartitionConfig { partition: PARTITION, policy, view_cache_bytes: VIEW_CACHE_BYTES };
        Ok(Partition::open(config, index::mirrors(&present), missing).await?)
    }
}

/// Whether the node heads the partition's chain.
fn heads(map: &ClusterMap, node: NodeId) -> bool {
    let place = map.node(node).map(|(place, _)| place);
    let partition = map.partitions.iter().find(|partition| partition.id == PARTITION);
    place.is_some() && partition.and_then(|partition| partition.chain.first().copied()) == place
}

/// Finds partitions by the newest map.
struct MapRoutes {
    map: MapSeen,
}

impl Routes for MapRoutes {
    fn route(&self, partition: PartitionId) -> Option<Route> {
        let map = self.map.borrow().clone()?;
        let found = map.partitions.iter().find(|one| one.id == partition)?;
        let node = map.nodes.get(*found.chain.first()? as usize)?;
        Some(Route { node: node.id, peer_addr: node.peer_addr.clone(), map_epoch: map.epoch })
    }

    fn at_least(&self, epoch: u64) -> BoxFuture<'_, ()> {
        let mut map = self.map.clone();
        Box::pin(async move {
            let newer = map.wait_for(|map| map.as_ref().is_some_and(|map| map.epoch >= epoch));
            _ = timeout(MAP_WAIT, newer).await;
        })
    }
}

fn reporter(
    config: &RackNodeConfig,
    rack: &RackDoors,
    devices: &[OpenDevice],
    objects: Arc<RwLock<Option<ObjectStore>>>,
) -> NodeReporter {
    let reported = |device: &OpenDevice| Reported {
        id: device.label.device,
        cluster: device.label.cluster,
        path: device.path.display().to_string(),
        facts: device.facts.clone(),
        store: device.store.clone(),
    };
    let paces: Paces = Arc::new(move |id| {
        let objects = objects.read().unwrap_or_else(PoisonError::into_inner).clone();
        let paces = objects.map(|objects| objects.paces()).unwrap_or_default();
        let ms = |time: Option<Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
        let pace = |pace: &object::DevicePace| Pace {
            put_p50_ms: ms(pace.put_p50),
            get_p50_ms: ms(pace.get_p50),
            slow: pace.slow_puts || pace.slow_gets,
        };
        paces.iter().find(|pace| pace.device == id).map(pace).unwrap_or_default()
    });
    let clock = Arc::clone(&rack.doors.clock);
    NodeReporter::new(config.facts.clone(), devices.iter().map(reported).collect(), paces, clock)
}

/// Opens what can be opened; a device that cannot is named and left alone, and the node serves the others.
async fn open_devices(config: &RackNodeConfig, rack: &RackDoors) -> Result<Vec<OpenDevice>, RackNodeError> {
    let kept = rack.keep.load(KEPT_DEVICES).map_err(RackNodeError::Kept)?;
    let context = OpenContext {
        cluster: config.cluster,
        may_format: kept.is_none() || config.claim,
        claim: config.claim,
        clock: Arc::clone(&rack.doors.clock),
        entropy: Arc::clone(&rack.doors.entropy),
    };
    let opening = config.devices.iter().map(|spec| device::open(spec.clone(), context.clone()));
    let (mut devices, mut reasons): (Vec<OpenDevice>, Vec<String>) = (Vec::new(), Vec::new());
    for opened in join_all(opening).await {
        match opened {
            Ok(device) => devices.push(device),
            Err(error) => {
                tracing::error!(%error, "a device cannot be used");
                reasons.push(error.to_string());
            }
        }
    }
    let mut ids: Vec<DeviceId> = devices.iter().map(|device| device.label.device).collect();
    ids.sort_unstable();
    if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        let twice = twice[0];
        close_devices(devices).await;
        return Err(NodeError::Twice(twice).into());
    }
    if devices.is_empty() {
        return Err(RackNodeError::NoDevice(reasons.join("; ")));
    }
    let list: Vec<String> = ids.iter().map(ToString::to_string).collect();
    if let Err(error) = rack.keep.save(KEPT_DEVICES, list.join("\n").as_bytes()) {
        close_devices(devices).await;
        return Err(RackNodeError::Kept(error));
    }
    Ok(devices)
}
