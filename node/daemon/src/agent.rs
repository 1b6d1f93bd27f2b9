//! The node's side of the controller: reports go there, the map and the access keys come from there.
//!
//! Invariants: the map never goes back to an older epoch; what was learned is kept on the node before it is used, so
//! that a node starts and serves while no controller can be reached; a controller that is away costs nothing but
//! change.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use gateway::{Keys, Secret};
use placement::map::ClusterMap;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use wire::Fault;
use wire::controller::{AccessKey, KeysUpdate, MapUpdate, NodeReport, RackLink};

/// How long the controller may take to answer a report.
const REPORT_DEADLINE: Duration = Duration::from_secs(5);
/// Between reports when the controller does not say.
const REPORT_EVERY: Duration = Duration::from_secs(1);
const REPORT_EVERY_MAX: Duration = Duration::from_secs(60);
/// Between tries to reach a controller: from the first to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Names under which the node keeps what it has learned.
const KEPT_MAP: &str = "map";
const KEPT_KEYS: &str = "keys";
/// Access keys taken from a controller at most.
const KEYS_MAX: usize = 100_000;

/// Where the node keeps small things across restarts; readable by its own user alone.
pub trait Keep: Send + Sync + 'static {
    /// Replaces what is kept under a name, durably.
    ///
    /// # Errors
    /// In words.
    fn save(&self, name: &str, bytes: &[u8]) -> Result<(), String>;
    /// What is kept under a name.
    ///
    /// # Errors
    /// In words.
    fn load(&self, name: &str) -> Result<Option<Vec<u8>>, String>;
}

/// What the node says of itself.
pub trait Reporter: Send + Sync + 'static {
    /// Its facts, its devices and its load, as they are now.
    fn report(&self, map_epoch: u64) -> BoxFuture<'_, NodeReport>;
}

/// Makes the connection to a controller; another one when there are several and the last did not answer.
pub trait Controllers: Send + Sync + 'static {
    /// The link to try now.
    fn link(&self, attempt: u64) -> RackLink;
}

/// The secrets of access keys as last learned.
#[derive(Default)]
pub struct LearnedKeys {
    secrets: RwLock<BTreeMap<String, Secret>>,
}

impl LearnedKeys {
    fn learn(&self, keys: &[AccessKey]) {
        let secrets = keys.iter().map(|key| (key.id.clone(), Secret::new(key.secret.clone()))).collect();
        *self.secrets.write().unwrap_or_else(PoisonError::into_inner) = secrets;
    }
}

impl Keys for LearnedKeys {
    fn secret(&self, access_key: &str) -> Option<Secret> {
        self.secrets.read().unwrap_or_else(PoisonError::into_inner).get(access_key).cloned()
    }
}

/// The newest map; nothing before the first.
pub type MapSeen = watch::Receiver<Option<Arc<ClusterMap>>>;

/// See the file's header.
pub struct Agent {
    controllers: Arc<dyn Controllers>,
    keep: Arc<dyn Keep>,
    map: watch::Sender<Option<Arc<ClusterMap>>>,
    keys: Arc<LearnedKeys>,
}

impl Agent {
    /// Starts from what was kept. What does not parse is left aside with a warning: the controller has it.
    #[must_use]
    pub fn new(controllers: Arc<dyn Controllers>, keep: Arc<dyn Keep>) -> Arc<Self> {
        let map = match keep.load(KEPT_MAP).map(|kept| kept.map(|bytes| ClusterMap::decode(&bytes))) {
            Ok(Some(Ok(map))) => Some(Arc::new(map)),
            Ok(None) => None,
            Ok(Some(Err(error))) => {
                tracing::warn!(%error, "the kept map cannot be used");
                None
            }
            Err(error) => {
                tracing::warn!(error, "the kept map cannot be read");
                None
            }
        };
        let keys = Arc::new(LearnedKeys::default());
        match keep.load(KEPT_KEYS).map(|kept| kept.map(|bytes| decode_keys(&bytes))) {
            Ok(Some(Some(kept))) => keys.learn(&kept),
            Ok(None) => {}
            Ok(Some(None)) | Err(_) => tracing::warn!("the kept access keys cannot be used"),
        }
        Arc::new(Self { controllers, keep, map: watch::Sender::new(map), keys })
    }

    /// The map from now on.
    #[must_use]
    pub fn map(&self) -> MapSeen {
        self.map.subscribe()
    }

    /// The access keys.
    #[must_use]
    pub fn keys(&self) -> Arc<LearnedKeys> {
        Arc::clone(&self.keys)
    }

    fn epoch(&self) -> u64 {
        self.map.borrow().as_ref().map_or(0, |map| map.epoch)
    }

    /// Starts reporting and watching.
    pub fn start(self: &Arc<Self>, reporter: Arc<dyn Reporter>, tasks: &mut JoinSet<()>) {
        let agent = Arc::clone(self);
        tasks.spawn(async move { agent.report(&*reporter).await });
        let agent = Arc::clone(self);
        tasks.spawn(async move { agent.watch_map().await });
        let agent = Arc::clone(self);
        tasks.spawn(async move { agent.watch_keys().await });
    }

    async fn report(&self, reporter: &dyn Reporter) {
        let (mut attempt, mut silent) = (0u64, false);
        loop {
            let report = reporter.report(self.epoch()).await;
            match self.controllers.link(attempt).report(report, REPORT_DEADLINE).await {
                Ok(reply) => {
                    if std::mem::take(&mut silent) {
                        tracing::info!("the controller answers again");
                    }
                    let every = Duration::from_millis(reply.next_report_ms);
                    let every = if every.is_zero() { REPORT_EVERY } else { every.min(REPORT_EVERY_MAX) };
                    sleep(every).await;
                }
                Err(fault) => {
                    attempt += 1;
                    match fault {
                        Fault::Invalid(_) | Fault::NotAllowed(_) => {
                            tracing::error!(%fault, "the controller refuses this node's report");
                        }
                        _ if !silent => tracing::warn!(%fault, "the controller cannot be told how this node is"),
                        _ => {}
                    }
                    silent = true;
                    sleep(REPORT_EVERY).await;
                }
            }
        }
    }

    async fn watch_map(&self) {
        let (mut attempt, mut wait) = (0u64, RETRY_FIRST);
        loop {
            if let Ok(mut updates) = self.controllers.link(attempt).watch_map(self.epoch()).await {
                while let Some(Ok(update)) = updates.next().await {
                    wait = RETRY_FIRST;
                    self.take_map(update);
                }
            }
            attempt += 1;
            sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    fn take_map(&self, update: MapUpdate) {
        let map = match ClusterMap::decode(&update.map) {
            Ok(map) if map.epoch == update.epoch => map,
            Ok(_) => return tracing::error!("a map came under another epoch than its own"),
            Err(error) => return tracing::error!(%error, "a map that came cannot be used"),
        };
        if map.epoch <= self.epoch() {
            return;
        }
        if let Err(error) = self.keep.save(KEPT_MAP, &update.map) {
            tracing::error!(error, "the map cannot be kept; a restart needs a controller");
        }
        tracing::info!(epoch = map.epoch, nodes = map.nodes.len(), groups = map.groups.len(), "a new map");
        self.map.send_replace(Some(Arc::new(map)));
    }

    async fn watch_keys(&self) {
        let (mut attempt, mut wait) = (0u64, RETRY_FIRST);
        loop {
            if let Ok(mut updates) = self.controllers.link(attempt).watch_keys().await {
                while let Some(Ok(update)) = updates.next().await {
                    wait = RETRY_FIRST;
                    self.take_keys(update);
                }
            }
            attempt += 1;
            sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    fn take_keys(&self, update: KeysUpdate) {
        if update.keys.len() > KEYS_MAX {
            return tracing::error!(keys = update.keys.len(), "more access keys came than can be");
        }
        if let Err(error) = self.keep.save(KEPT_KEYS, &encode_keys(&update.keys)) {
            tracing::error!(error, "the access keys cannot be kept; a restart needs a controller");
        }
        self.keys.learn(&update.keys);
    }
}

fn encode_keys(keys: &[AccessKey]) -> Vec<u8> {
    let rows: Vec<_> = keys.iter().map(|key| (&key.id, &key.secret, &key.name, key.created_ms)).collect();
    serde_json::to_vec(&rows).expect("plain text encodes")
}

fn decode_keys(bytes: &[u8]) -> Option<Vec<AccessKey>> {
    let rows: Vec<(String, String, String, u64)> = serde_json::from_slice(bytes).ok()?;
    let key = |(id, secret, name, created_ms)| AccessKey { id, secret, name, created_ms };
    Some(rows.into_iter().map(key).collect())
}
