//! What the node tells the controller: itself, its load, its devices.

use std::sync::{Arc, Mutex, PoisonError};

use base::{Clock, ClusterId, DeviceId};
use disk::DeviceFacts as DiskFacts;
use futures::future::{BoxFuture, join_all};
use shards::StoreHandle;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};
use wire::controller::{DeviceFacts, NodeFacts, NodeReport, PROTOCOL};

use crate::agent::Reporter;

/// How a device does beside its twins, as the object layer has seen it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Pace {
    /// Median time of a put, in milliseconds; 0 when none was seen.
    pub(crate) put_p50_ms: f64,
    /// Median time of a get.
    pub(crate) get_p50_ms: f64,
    /// Judged slow.
    pub(crate) slow: bool,
}

/// Where paces come from.
pub(crate) type Paces = Arc<dyn Fn(DeviceId) -> Pace + Send + Sync>;

/// A device of this node.
pub(crate) struct Reported {
    pub(crate) id: DeviceId,
    pub(crate) cluster: ClusterId,
    pub(crate) path: String,
    pub(crate) facts: DiskFacts,
    pub(crate) store: StoreHandle,
}

/// See the file's header.
pub(crate) struct NodeReporter {
    facts: NodeFacts,
    devices: Vec<Reported>,
    paces: Paces,
    clock: Arc<dyn Clock>,
    /// None where the system does not tell.
    system: Mutex<Option<System>>,
}

impl NodeReporter {
    pub(crate) fn new(mut facts: NodeFacts, devices: Vec<Reported>, paces: Paces, clock: Arc<dyn Clock>) -> Self {
        let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(memory).ok();
        facts.version = env!("CARGO_PKG_VERSION").to_owned();
        facts.cpus = std::thread::available_parallelism().map_or(0, |cpus| cpus.get() as u32);
        facts.memory_bytes = system.as_ref().map_or(0, System::total_memory);
        facts.kernel = System::kernel_version().ok().unwrap_or_default();
        Self { facts, devices, paces, clock, system: Mutex::new(system) }
    }

    async fn device(&self, device: &Reported) -> DeviceFacts {
        let stats = device.store.stats().await;
        let pace = (self.paces)(device.id);
        let mut told = DeviceFacts {
            device: device.id.0.to_vec().into(),
            cluster: device.cluster.0.to_vec().into(),
            path: device.path.clone(),
            model: device.facts.model.clone().unwrap_or_default(),
            serial: device.facts.serial.clone().unwrap_or_default(),
            size_bytes: device.facts.size_bytes,
            rotational: device.facts.rotational,
            failed: true,
            slow: pace.slow,
            put_p50_ms: pace.put_p50_ms,
            get_p50_ms: pace.get_p50_ms,
            ..DeviceFacts::default()
        };
        // A store that does not answer has ended: the device takes nothing until it has been opened again.
        if let Ok(stats) = stats {
            told.capacity_bytes = stats.capacity_bytes;
            told.live_bytes = stats.live_bytes;
            told.available_bytes = stats.available_bytes;
            told.corrupt_found = stats.corrupt_found;
            told.device_errors = stats.device_errors;
            told.failed = stats.poisoned;
        }
        told
    }
}

impl Reporter for NodeReporter {
    fn report(&self, map_epoch: u64) -> BoxFuture<'_, NodeReport> {
        Box::pin(async move {
            let devices = join_all(self.devices.iter().map(|device| self.device(device))).await;
            let memory_used_bytes = {
                let mut system = self.system.lock().unwrap_or_else(PoisonError::into_inner);
                system.as_mut().map_or(0, |system| {
                    system.refresh_memory();
                    system.used_memory()
                })
            };
            NodeReport {
                facts: Some(self.facts.clone()),
                devices,
                clock_ms: self.clock.unix_ms(),
                map_epoch,
                load: System::load_average().map_or(0.0, |load| load.one),
                memory_used_bytes,
                uptime_s: System::uptime().unwrap_or(0),
                protocol: PROTOCOL,
            }
        })
    }
}
