//! `holdfast dev`: a whole node in one process.
//!
//! Order of a first start, so that a crash between any two steps is continued by the next start: the lock,
//! the catalog, the root key, the cluster's id and policy, then the devices, last their list. The root key
//! is made once: an operator who deleted it does not find it back.

mod plan;
mod ready;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use base::{DeviceId, OsClock, OsEntropy};
use catalog::{AccessKey, Catalog, RedbCatalog};
use daemon::{DevConfig, DevEvents, DeviceSpec, Doors};

use crate::args::{DevArgs, Output};
use crate::catalog_keys::CatalogKeys;
use crate::data_dir::{DataDir, endpoint_url};
use crate::error::CliError;
use crate::{logging, settings, signals};

/// The name of the key made at the first start.
const ROOT_KEY: &str = "root";

/// Runs the node until a signal ends it.
pub(crate) fn run(args: DevArgs, format: Output) -> Result<(), CliError> {
    let (wish, node) = settings::resolve(args)?;
    logging::start(node.log_json)?;
    let data = DataDir::at(&node.data);
    let _lock = data.lock()?;
    let catalog: Arc<dyn Catalog> = Arc::new(RedbCatalog::open_or_create(&data.catalog())?);
    let keys = CatalogKeys::open(Arc::clone(&catalog), Arc::new(OsEntropy), Arc::new(OsClock::new()))?;
    let stored = catalog.cluster()?;
    let first_start = stored.is_none();
    let mut plan = plan::plan(stored, &wish, data.path(), &OsEntropy)?;
    let root = root_key(&*catalog, &keys, first_start)?;
    if first_start {
        plan.facts.revision = catalog.put_cluster(&plan.facts)?;
        tracing::info!(cluster_id = %plan.facts.cluster_id, "new cluster");
    }
    start_node(&node, &data, &plan, &catalog, keys, root.as_ref(), format)
}

/// The key that `credentials.env` carries: made when there is none at all at the first start.
fn root_key(catalog: &dyn Catalog, keys: &CatalogKeys, first_start: bool) -> Result<Option<AccessKey>, CliError> {
    let all = catalog.keys()?;
    if all.is_empty() && first_start {
        return Ok(Some(keys.draw(ROOT_KEY)?));
    }
    let oldest = all.iter().filter(|key| key.name == ROOT_KEY).min_by_key(|key| key.created_ms);
    match oldest {
        Some(info) => Ok(catalog.key(&info.access_key_id)?),
        None => Ok(None),
    }
}

/// The one place that calls the node.
fn start_node(
    node: &settings::NodeSettings,
    data: &DataDir,
    plan: &plan::Plan,
    catalog: &Arc<dyn Catalog>,
    keys: CatalogKeys,
    root: Option<&AccessKey>,
    format: Output,
) -> Result<(), CliError> {
    let config = DevConfig {
        cluster: plan.facts.cluster_id,
        known: plan.facts.devices.iter().map(|entry| entry.device_id).collect(),
        devices: plan
            .devices
            .iter()
            .map(|device| DeviceSpec { path: device.path.clone(), create_bytes: device.create_bytes })
            .collect(),
        claim: node.claim,
        data_shards: plan.facts.data_shards,
        parity_shards: plan.facts.parity_shards,
        s3_addr: node.s3_addr,
        admin_addr: node.admin_addr,
        admin_socket: data.socket(),
    };
    std::fs::create_dir_all(data.path().join("devices")).map_err(CliError::file(data.path().join("devices")))?;
    let events =
        Events { node, data, plan, catalog, root, format, bar: ready::DeviceBar::new(plan.facts.devices.is_empty()) };
    let doors = Doors { clock: Arc::new(OsClock::new()), entropy: Arc::new(OsEntropy) };
    let keys = Arc::new(keys);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Node(format!("the executor cannot be started: {error}")))?;
    runtime.block_on(async {
        let stop = signals::stop_on_signal()
            .map_err(|error| CliError::Node(format!("signals cannot be caught: {error}")))?;
        let signing: Arc<dyn gateway::Keys> = Arc::new(SigningKeys(Arc::clone(&keys)));
        let done = daemon::run(config, doors, signing, keys, &events, stop).await;
        done.map_err(|error| CliError::Node(error.to_string()))
    })
}

/// The catalog's keys as the S3 face asks for them.
struct SigningKeys(Arc<CatalogKeys>);

impl gateway::Keys for SigningKeys {
    fn secret(&self, access_key: &str) -> Option<gateway::Secret> {
        self.0.secret(access_key).map(|secret| gateway::Secret::new(secret.expose().to_owned()))
    }
}

/// What the node says while it starts, shown and kept.
struct Events<'a> {
    node: &'a settings::NodeSettings,
    data: &'a DataDir,
    plan: &'a plan::Plan,
    catalog: &'a Arc<dyn Catalog>,
    root: Option<&'a AccessKey>,
    format: Output,
    bar: ready::DeviceBar,
}

impl DevEvents for Events<'_> {
    fn devices_ready(&self, ready: usize, total: usize) {
        self.bar.show(ready, total);
    }

    fn found(&self, devices: &[(DeviceId, PathBuf, u64)]) -> Result<(), String> {
        let facts = plan::with_devices(&self.plan.facts, self.data.path(), devices);
        if facts.devices == self.plan.facts.devices {
            return Ok(());
        }
        let kept = self.catalog.put_cluster(&facts);
        kept.map(drop).map_err(|error| format!("the list of devices cannot be kept: {error}"))
    }

    fn serving(&self, s3_addr: SocketAddr, admin_addr: SocketAddr) -> Result<(), String> {
        let region = &self.node.region;
        if let Some(root) = self.root {
            let written = self.data.write_credentials(root, &endpoint_url(s3_addr), region);
            written.map_err(|error| error.to_string())?;
        }
        let policy = (self.plan.facts.data_shards, self.plan.facts.parity_shards);
        let devices = self.plan.devices.len();
        let ready = ready::Ready::new((s3_addr, admin_addr), region, policy, devices, self.data);
        ready.print(self.format).map_err(|error| error.to_string())
    }
}
