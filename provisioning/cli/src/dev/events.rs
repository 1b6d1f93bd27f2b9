//! What the node tells while it starts: kept in the catalog, shown to the operator.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use base::DeviceId;
use catalog::{AccessKey, Catalog, ClusterFacts};
use daemon::DevEvents;

use super::plan::with_devices;
use super::ready::{DeviceBar, Ready};
use crate::args::Output;
use crate::data_dir::{DataDir, endpoint_url};

/// The node's listener for the length of its start.
pub(crate) struct Events {
    catalog: Arc<dyn Catalog>,
    facts: Mutex<ClusterFacts>,
    data: DataDir,
    region: String,
    root: Option<AccessKey>,
    format: Output,
    bar: DeviceBar,
}

impl Events {
    pub(crate) fn new(
        catalog: Arc<dyn Catalog>,
        facts: ClusterFacts,
        data: DataDir,
        region: String,
        root: Option<AccessKey>,
        format: Output,
    ) -> Self {
        let bar = DeviceBar::new(facts.devices.is_empty());
        Self { catalog, facts: Mutex::new(facts), data, region, root, format, bar }
    }
}

impl DevEvents for Events {
    fn devices_ready(&self, ready: usize, total: usize) {
        self.bar.show(ready, total);
    }

    fn found(&self, devices: &[(DeviceId, PathBuf, u64)]) -> Result<(), String> {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = with_devices(&facts, self.data.path(), devices);
        if now != *facts {
            now.revision = self.catalog.put_cluster(&now).map_err(|e| e.to_string())?;
            *facts = now;
        }
        Ok(())
    }

    fn serving(&self, s3_addr: SocketAddr, admin_addr: SocketAddr) -> Result<(), String> {
        if let Some(root) = &self.root {
            let written = self.data.write_credentials(root, &endpoint_url(s3_addr), &self.region);
            written.map_err(|e| e.to_string())?;
        }
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let policy = (facts.data_shards, facts.parity_shards);
        let ready = Ready::new((s3_addr, admin_addr), &self.region, policy, facts.devices.len(), &self.data);
        ready.print(self.format).map_err(|e| e.to_string())
    }
}
