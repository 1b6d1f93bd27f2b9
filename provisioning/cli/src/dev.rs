//! `holdfast dev`: a whole node in one process.
//!
//! Order of a first start, so that a crash between any two steps is continued by the next start: the lock,
//! the catalog, the root key, the cluster's id and policy, then the devices, last their list. The root key
//! is made once: an operator who deleted it does not find it back.

mod plan;
mod ready;

use std::sync::Arc;

use base::{OsClock, OsEntropy};
use catalog::{AccessKey, Catalog, RedbCatalog};

use crate::args::{DevArgs, Output};
use crate::catalog_keys::CatalogKeys;
use crate::data_dir::DataDir;
use crate::error::CliError;
use crate::{logging, settings};

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
    _node: &settings::NodeSettings,
    _data: &DataDir,
    _plan: &plan::Plan,
    _catalog: &Arc<dyn Catalog>,
    _keys: CatalogKeys,
    _root: Option<&AccessKey>,
    _format: Output,
) -> Result<(), CliError> {
    Err(CliError::Node("this build carries no node".to_owned()))
}
