//! A whole node in one process: devices, object layer, S3 face, admin server, in the order they depend on
//! each other; and back.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use base::{Clock, ClusterId, DeviceId, Entropy};
use futures::future::join_all;
use gateway::{Gateway, Keys, Limits};
use object::{ObjectStore, OpenConfig, OpenError, Redundancy};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::admin::{AdminError, AdminServer, KeyAdmin, Readiness};
use crate::background;
use crate::device::{self, DeviceError, DeviceSpec, OpenContext, OpenDevice};
use crate::observe::{Health, Shown, ShownDevice};

/// Memory for bodies under way. Sixteen uploads with three full 4+2 stripes each would take 288 MiB;
/// beyond this they wait for each other.
pub(crate) const BODY_MEMORY_BYTES: usize = 192 << 20;
/// Memory for the pages of one index view.
pub(crate) const VIEW_CACHE_BYTES: usize = 32 << 20;

/// What to run.
#[derive(Debug, Clone)]
pub struct DevConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its devices in their fixed order; empty at the first start.
    pub known: Vec<DeviceId>,
    /// Devices to open, in the order that becomes fixed at the first start.
    pub devices: Vec<DeviceSpec>,
    /// Whether what is on a device may be destroyed.
    pub claim: bool,
    /// k.
    pub data_shards: u8,
    /// m.
    pub parity_shards: u8,
    /// Where S3 is served.
    pub s3_addr: SocketAddr,
    /// Where health and metrics are served.
    pub admin_addr: SocketAddr,
    /// The unix socket for keys.
    pub admin_socket: PathBuf,
}

/// What the caller hears while the node starts.
pub trait DevEvents: Send + Sync {
    /// So many of so many devices are ready.
    fn devices_ready(&self, ready: usize, total: usize);
    /// The devices, in their fixed order with path and size. Must keep them before it returns: they are
    /// what the next start recognises.
    ///
    /// # Errors
    /// In words; the node then does not start.
    fn found(&self, devices: &[(DeviceId, PathBuf, u64)]) -> Result<(), String>;
    /// Requests are taken at these addresses.
    ///
    /// # Errors
    /// In words; the node then ends in order.
    fn serving(&self, s3_addr: SocketAddr, admin_addr: SocketAddr) -> Result<(), String>;
}

/// Why a node did not start.
#[derive(Debug, Error)]
pub enum NodeError {
    /// A device that must be there cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Too few of the cluster's devices are there.
    #[error("only {present} of the cluster's {known} devices can be used and {needed} are needed to serve: {}", reasons.join("; "))]
    TooFewDevices {
        /// Devices found.
        present: usize,
        /// Devices of the cluster.
        known: usize,
        /// Devices needed.
        needed: usize,
        /// Why the others cannot be used.
        reasons: Vec<String>,
    },
    /// Two paths lead to one device.
    #[error("device {0} was given twice")]
    Twice(DeviceId),
    /// An address cannot be had.
    #[error("the S3 address {addr} cannot be had: {reason}")]
    Address {
        /// Which.
        addr: SocketAddr,
        /// The system's reason.
        reason: std::io::Error,
    },
    /// The admin server cannot be had.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The object layer cannot be opened.
    #[error(transparent)]
    Objects(#[from] OpenError),
    /// The caller could not keep or show what it was told.
    #[error("{0}")]
    Caller(String),
    /// The server failed.
    #[error(transparent)]
    Serve(#[from] gateway::ServeError),
}

/// The doors a node needs.
#[derive(Clone)]
pub struct Doors {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

/// Runs a node until `stop` turns true; then lets requests end, makes everything durable and returns.
/// Must be called on a multi-thread tokio runtime.
///
/// # Errors
/// [`NodeError`] when it does not start.
pub async fn run(
    config: DevConfig,
    doors: Doors,
    keys: Arc<dyn Keys>,
    key_admin: Arc<dyn KeyAdmin>,
    events: &dyn DevEvents,
    mut stop: watch::Receiver<bool>,
) -> Result<(), NodeError> {
    // Addresses first: a node that cannot be reached should not touch its devices.
    let s3 = TcpListener::bind(config.s3_addr).await;
    let s3 = s3.map_err(|reason| NodeError::Address { addr: config.s3_addr, reason })?;
    let admin = AdminServer::bind(config.admin_addr, &config.admin_socket).await?;
    let s3_addr = s3.local_addr().unwrap_or(config.s3_addr);
    let admin_addr = admin.local_addr().unwrap_or(config.admin_addr);
    let (devices, order) = open_devices(&config, &doors, events).await?;
    let stores: Vec<_> = order
        .iter()
        .map(|id| devices.iter().find(|device| device.label.device == *id).map(|device| device.store.clone()))
        .collect();
    let opened = ObjectStore::open_with(
        OpenConfig {
            stores: stores.clone(),
            redundancy: Redundancy::new(config.data_shards.into(), config.parity_shards.into()),
            memory_bytes: BODY_MEMORY_BYTES,
            view_cache_bytes: VIEW_CACHE_BYTES,
            clock: Arc::clone(&doors.clock),
            entropy: Arc::clone(&doors.entropy),
        },
        Arc::new(background::TokioTimers),
    )
    .await;
    let objects = match opened {
        Ok(objects) => objects,
        Err(error) => {
            close_devices(devices).await;
            return Err(error.into());
        }
    };
    let health = Health::starting();
    let gateway = Gateway::new(Arc::new(objects.clone()), keys, doors.clock, doors.entropy);
    let shown = Arc::new(Shown {
        health: Arc::clone(&health),
        objects: objects.clone(),
        gateway: gateway.stats(),
        devices: shown_devices(&order, &devices, &stores),
    });
    // The caller has what it needs to talk to the node (credentials) before the node says that it is ready.
    let told = events.serving(s3_addr, admin_addr);
    let (end, ended) = watch::channel(false);
    let tasks = background::start(&objects, &health, &ended);
    let mut admin_ended = ended.clone();
    let admin_task = tokio::spawn(admin.serve(shown, key_admin, async move {
        let _ = admin_ended.wait_for(|ended| *ended).await;
    }));
    let served = match told {
        Ok(()) => {
            let stopped = async move { _ = stop.wait_for(|stop| *stop).await };
            gateway::serve(s3, gateway, Limits::default(), stopped).await.map_err(NodeError::from)
        }
        Err(reason) => Err(NodeError::Caller(reason)),
    };
    health.set(Readiness::NotReady("stopping".into()));
    end.send_replace(true);
    tasks.join_all().await;
    if let Err(error) = objects.close().await {
        tracing::error!(%error, "the index was not closed in order; the next start replays its journal");
    }
    close_devices(devices).await;
    let _ = admin_task.await;
    served
}

/// Opens what is there; gives it with the cluster's order of devices.
async fn open_devices(
    config: &DevConfig,
    doors: &Doors,
    events: &dyn DevEvents,
) -> Result<(Vec<OpenDevice>, Vec<DeviceId>), NodeError> {
    let first_start = config.known.is_empty();
    let context = OpenContext {
        cluster: config.cluster,
        may_format: first_start,
        claim: config.claim,
        clock: Arc::clone(&doors.clock),
        entropy: Arc::clone(&doors.entropy),
    };
    if first_start {
        for checked in join_all(config.devices.iter().map(|spec| device::check(spec.clone(), context.clone()))).await {
            checked?;
        }
    }
    let total = config.devices.len();
    let ready = std::sync::atomic::AtomicUsize::new(0);
    events.devices_ready(0, total);
    let opening = config.devices.iter().map(|spec| {
        let (context, ready) = (context.clone(), &ready);
        async move {
            let opened = device::open(spec.clone(), context).await;
            events.devices_ready(1 + ready.fetch_add(1, std::sync::atomic::Ordering::Relaxed), total);
            opened
        }
    });
    let (mut devices, mut reasons): (Vec<OpenDevice>, Vec<DeviceError>) = (Vec::new(), Vec::new());
    for opened in join_all(opening).await {
        match opened {
            Ok(device) => devices.push(device),
            Err(error) => reasons.push(error),
        }
    }
    let checked = check_devices(config, &devices, reasons);
    let order = match checked {
        Ok(order) => order,
        Err(error) => {
            close_devices(devices).await;
            return Err(error);
        }
    };
    let found: Vec<_> = order
        .iter()
        .filter_map(|id| devices.iter().find(|device| device.label.device == *id))
        .map(|device| (device.label.device, device.path.clone(), device.facts.size_bytes))
        .collect();
    if let Err(reason) = events.found(&found) {
        close_devices(devices).await;
        return Err(NodeError::Caller(reason));
    }
    for device in &devices {
        let report = &device.report;
        tracing::info!(
            device = %device.label.device,
            path = %device.path.display(),
            engine = device.facts.engine,
            rolled_forward = report.rolled_forward,
            damage = report.damage.len(),
            "device open"
        );
    }
    Ok((devices, order))
}

/// The cluster's order of devices, when enough of them are there.
fn check_devices(
    config: &DevConfig,
    devices: &[OpenDevice],
    mut reasons: Vec<DeviceError>,
) -> Result<Vec<DeviceId>, NodeError> {
    let mut seen: Vec<DeviceId> = Vec::new();
    for device in devices {
        if seen.contains(&device.label.device) {
            return Err(NodeError::Twice(device.label.device));
        }
        seen.push(device.label.device);
    }
    if config.known.is_empty() {
        // A new cluster begins with every device it was given, or not at all.
        return if reasons.is_empty() { Ok(seen) } else { Err(reasons.swap_remove(0).into()) };
    }
    for reason in &reasons {
        tracing::error!(%reason, "a device cannot be used");
    }
    let present = config.known.iter().filter(|id| seen.contains(id)).count();
    let needed = config.known.len() - usize::from(config.parity_shards).min(config.known.len());
    if present < needed {
        return Err(NodeError::TooFewDevices {
            present,
            known: config.known.len(),
            needed,
            reasons: reasons.iter().map(ToString::to_string).collect(),
        });
    }
    if present < config.known.len() {
        let missing = config.known.len() - present;
        tracing::warn!(missing, "devices are missing: reads are computed from the others, writes owe their shards");
    }
    Ok(config.known.clone())
}

fn shown_devices(
    order: &[DeviceId],
    devices: &[OpenDevice],
    stores: &[Option<shards::StoreHandle>],
) -> Vec<ShownDevice> {
    let path = |id: &DeviceId| {
        let device = devices.iter().find(|device| device.label.device == *id);
        device.map_or_else(|| "missing".to_owned(), |device| device.path.display().to_string())
    };
    order.iter().zip(stores).map(|(id, store)| ShownDevice { id: *id, path: path(id), store: store.clone() }).collect()
}

pub(crate) async fn close_devices(devices: Vec<OpenDevice>) {
    let closing = devices.into_iter().map(|device| async move {
        if let Err(error) = device.store.close().await {
            tracing::warn!(path = %device.path.display(), %error, "a device was not closed in order");
        }
        drop(device.store);
        device.thread
    });
    for thread in join_all(closing).await {
        // The threads end as soon as their stores have closed.
        if tokio::task::spawn_blocking(move || thread.join()).await.is_err() {
            tracing::error!("a device's thread did not end in order");
        }
    }
}
