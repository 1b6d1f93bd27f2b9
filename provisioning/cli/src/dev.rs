//! `holdfast dev`: a whole node in one process.
//!
//! Order of a first start, so that a crash between any two steps is continued by the next start: the lock,
//! the catalog, the root key, the cluster's id and policy, then the devices, last their list. The root key
//! is made once: an operator who deleted it does not find it back.

mod events;
mod plan;
mod ready;

use std::sync::Arc;

use base::{OsClock, OsEntropy};
use catalog::{AccessKey, Catalog, RedbCatalog};
use daemon::{DevConfig, DeviceSpec, Doors};

use crate::args::{DevArgs, Output};
use crate::catalog_keys::CatalogKeys;
use crate::data_dir::DataDir;
use crate::error::CliError;
use crate::settings::NodeSettings;
use crate::{logging, settings, signals};

use self::events::Events;

/// The name of the key made at the first start.
const ROOT_KEY: &str = "root";

/// Runs the node until a signal ends it.
pub(crate) fn run(args: DevArgs, format: Output) -> Result<(), CliError> {
    let (wish, node) = settings::resolve(args)?;
    logging::start(node.log_json)?;
    let data = DataDir::at(&node.data);
    let _lock = data.lock()?;
    let catalog: Arc<dyn Catalog> = Arc::new(RedbCatalog::open_or_create(&data.catalog())?);
    let doors = Doors { clock: Arc::new(OsClock::new()), entropy: Arc::new(OsEntropy) };
    let keys = CatalogKeys::open(Arc::clone(&catalog), Arc::clone(&doors.entropy), Arc::clone(&doors.clock))?;
    let stored = catalog.cluster()?;
    let new_cluster = stored.is_none();
    let mut plan = plan::plan(stored, &wish, data.path(), &*doors.entropy)?;
    let root = root_key(&*catalog, &keys, new_cluster)?;
    if new_cluster {
        plan.facts.revision = catalog.put_cluster(&plan.facts)?;
        tracing::info!(cluster_id = %plan.facts.cluster_id, "new cluster");
    }
    data.make_devices(plan.devices.iter().any(|device| device.create_bytes.is_some()))?;
    let config = config(&node, &data, &plan);
    let events = Events::new(catalog, plan.facts, data, node.region, root, format);
    serve(config, doors, Arc::new(keys), &events)
}

fn config(node: &NodeSettings, data: &DataDir, plan: &plan::Plan) -> DevConfig {
    let spec =
        |device: &plan::PlannedDevice| DeviceSpec { path: device.path.clone(), create_bytes: device.create_bytes };
    DevConfig {
        cluster: plan.facts.cluster_id,
        known: plan.facts.devices.iter().map(|entry| entry.device_id).collect(),
        devices: plan.devices.iter().map(spec).collect(),
        claim: node.claim,
        data_shards: plan.facts.data_shards,
        parity_shards: plan.facts.parity_shards,
        s3_addr: node.s3_addr,
        admin_addr: node.admin_addr,
        admin_socket: data.socket(),
    }
}

/// The one place that calls the node.
fn serve(config: DevConfig, doors: Doors, keys: Arc<CatalogKeys>, events: &Events) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| CliError::Node(format!("the process's threads cannot be started: {e}")))?;
    runtime.block_on(async {
        let stop = signals::stop_on_signal().map_err(|e| CliError::Node(format!("signals cannot be caught: {e}")))?;
        let ended = daemon::run(config, doors, Arc::<CatalogKeys>::clone(&keys), keys, events, stop).await;
        ended.map_err(|e| CliError::Node(e.to_string()))
    })
}

/// The key that `credentials.env` carries: made when there is none at all in a new cluster.
fn root_key(catalog: &dyn Catalog, keys: &CatalogKeys, new_cluster: bool) -> Result<Option<AccessKey>, CliError> {
    let all = catalog.keys()?;
    if all.is_empty() && new_cluster {
        return Ok(Some(keys.draw(ROOT_KEY)?));
    }
    let oldest = all.iter().filter(|key| key.name == ROOT_KEY).min_by_key(|key| key.created_ms);
    match oldest {
        Some(info) => Ok(catalog.key(&info.access_key_id)?),
        None => Ok(None),
    }
}
