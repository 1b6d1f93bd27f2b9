//! `holdfast node run`: this host's daemon in a rack.

use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{Clock, OsClock, OsEntropy};
use daemon::admin::{KeyAdmin, KeyAdminError, KeyRow, NewKey};
use daemon::agent::Controllers;
use daemon::{DeviceSpec, Doors, RackDoors, RackNodeConfig};
use wire::controller::{NodeFacts, RackLink};
use wire::dial::{Dialer, Settings};
use wire::identity::PeerKind;
use wire::identity_key::{Identity, Key};
use wire::tls::Credentials;

use super::join::{NodeDir, identity};
use crate::data_dir::DataDir;
use crate::error::CliError;
use crate::rack_args::NodeRun;
use crate::{logging, signals};

/// Between looks whether the certificate is due for renewal.
const RENEW_LOOK: Duration = Duration::from_secs(60);
/// How long the controller may take for a renewal.
const RENEW_MAX: Duration = Duration::from_secs(30);
/// What a new device is big, unless it is said otherwise.
const DEVICE_BYTES: u64 = 4 << 30;

/// Runs the node until a signal ends it.
pub(crate) fn run(args: &NodeRun) -> Result<(), CliError> {
    logging::start(args.log_json)?;
    let mut make = std::fs::DirBuilder::new();
    make.recursive(true).mode(0o700).create(&args.data).map_err(CliError::file(&args.data))?;
    let data = DataDir::at(&args.data);
    let _lock = data.lock()?;
    let dir = NodeDir(args.data.clone());
    let devices = devices(args, &data)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| CliError::Node(format!("the process's threads cannot be started: {e}")))?;
    runtime.block_on(async {
        let stop = signals::stop_on_signal().map_err(|e| CliError::Node(format!("signals cannot be caught: {e}")))?;
        let facts = facts(args);
        let identity = identity(&dir, args, facts.clone()).await?;
        let clock: Arc<dyn Clock> = Arc::new(OsClock::new());
        let bad = |error: &dyn std::fmt::Display| CliError::Node(format!("this node's certificate: {error}"));
        let credentials = Credentials::new(&identity, Arc::clone(&clock)).map_err(|e| bad(&e))?;
        let me = credentials.me();
        let PeerKind::Node(node) = me.kind else { return Err(bad(&"it is not a node's")) };
        let controllers = Arc::new(Links::new(&credentials, &dir.controllers()?)?);
        let config = RackNodeConfig {
            cluster: me.cluster,
            node,
            facts,
            devices,
            claim: args.claim,
            peer_addr: args.peer_addr,
            s3_addr: args.s3_addr,
            admin_addr: args.admin_addr,
            admin_socket: data.socket(),
        };
        let rack = RackDoors {
            doors: Doors { clock: Arc::clone(&clock), entropy: Arc::new(OsEntropy) },
            credentials: Arc::clone(&credentials),
            controllers: Arc::<Links>::clone(&controllers),
            keep: Arc::new(dir.clone()),
            key_admin: Arc::new(AskTheController),
        };
        let renewal = tokio::spawn(renew(identity, credentials, controllers, dir, clock));
        let ended = daemon::run_rack_node(config, rack, stop).await;
        renewal.abort();
        ended.map_err(|error| CliError::Node(error.to_string()))
    })
}

fn facts(args: &NodeRun) -> NodeFacts {
    let name = args.name.clone().or_else(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
        Some(name.trim().to_owned()).filter(|name| !name.is_empty())
    });
    NodeFacts {
        name: name.unwrap_or_else(|| "node".to_owned()),
        site: args.site.clone(),
        rack: args.rack.clone(),
        peer_addr: args.peer_addr.to_string(),
        s3_addr: args.s3_addr.to_string(),
        ..NodeFacts::default()
    }
}

/// The devices: those given, or files in the node's directory, made at the first start.
fn devices(args: &NodeRun, data: &DataDir) -> Result<Vec<DeviceSpec>, CliError> {
    if !args.raw_devices.is_empty() {
        let raw = |path: &std::path::PathBuf| DeviceSpec { path: path.clone(), create_bytes: None };
        return Ok(args.raw_devices.iter().map(raw).collect());
    }
    let dir = data.path().join("devices");
    let mut there: Vec<_> = match std::fs::read_dir(&dir) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(CliError::file(&dir)(error)),
    };
    there.sort();
    if there.is_empty() {
        let Some(count) = args.devices.filter(|count| *count > 0) else {
            return Err(CliError::Usage("this node has no device: give --raw-device PATH or --devices COUNT".into()));
        };
        data.make_devices(true)?;
        let bytes = args.device_size.map_or(DEVICE_BYTES, |size| size.0);
        let make = |n: u16| DeviceSpec { path: dir.join(format!("device-{n:02}")), create_bytes: Some(bytes) };
        return Ok((0..count).map(make).collect());
    }
    Ok(there.into_iter().map(|path| DeviceSpec { path, create_bytes: None }).collect())
}

/// One link to each controller; another one is tried when the last did not answer.
struct Links {
    links: Vec<RackLink>,
    shift: AtomicU64,
}

impl Links {
    fn new(credentials: &Arc<Credentials>, addresses: &[String]) -> Result<Self, CliError> {
        if addresses.is_empty() {
            return Err(CliError::Usage("no controller's address is known: give --controller ADDR:PORT".into()));
        }
        let dialer = Dialer::new(Arc::clone(credentials), Settings::default());
        let dialer = dialer.map_err(|error| CliError::Node(error.to_string()))?;
        let link = |address: &String| RackLink::new(dialer.controller(std::slice::from_ref(address)));
        Ok(Self { links: addresses.iter().map(link).collect(), shift: AtomicU64::new(0) })
    }
}

impl Controllers for Links {
    fn link(&self, attempt: u64) -> RackLink {
        let at = attempt.wrapping_add(self.shift.load(Ordering::Relaxed)) % self.links.len() as u64;
        self.links[at as usize].clone()
    }
}

/// Renews the certificate when two thirds of its life are over.
async fn renew(
    mut identity: Identity,
    credentials: Arc<Credentials>,
    controllers: Arc<Links>,
    dir: NodeDir,
    clock: Arc<dyn Clock>,
) {
    let mut attempt = 0;
    loop {
        tokio::time::sleep(RENEW_LOOK).await;
        if clock.unix_ms() < credentials.me().renew_at_ms() {
            continue;
        }
        attempt += 1;
        match renewed(&identity, &controllers.link(attempt)).await {
            Ok(fresh) => {
                let kept = dir.keep_identity(&fresh).map_err(|error| error.to_string());
                match kept.and_then(|()| credentials.replace(&fresh).map_err(|error| error.to_string())) {
                    Ok(()) => tracing::info!("this node's certificate is renewed"),
                    Err(error) => tracing::error!(error, "the renewed certificate cannot be used"),
                }
                identity = fresh;
            }
            Err(error) => tracing::warn!(error, "this node's certificate could not be renewed yet"),
        }
    }
}

async fn renewed(identity: &Identity, link: &RackLink) -> Result<Identity, String> {
    let key = Key::from_pkcs8(identity.key.expose_pkcs8()).map_err(|error| error.to_string())?;
    let csr = key.csr().map_err(|error| error.to_string())?;
    let reply = link.renew(csr, RENEW_MAX).await.map_err(|fault| fault.to_string())?;
    let der = |list: Vec<bytes::Bytes>| list.into_iter().map(|one| one.to_vec()).collect();
    Identity::from_der(der(reply.chain), key, der(reply.roots)).map_err(|error| error.to_string())
}

/// Access keys are the controller's.
struct AskTheController;

impl KeyAdmin for AskTheController {
    fn create(&self, _name: &str) -> Result<NewKey, KeyAdminError> {
        Err(KeyAdminError::Invalid("in a rack keys are made with the operator's certificate (--as)".into()))
    }

    fn list(&self) -> Result<Vec<KeyRow>, KeyAdminError> {
        Err(KeyAdminError::Invalid("in a rack keys are listed with the operator's certificate (--as)".into()))
    }

    fn delete(&self, _access_key_id: &str) -> Result<bool, KeyAdminError> {
        Err(KeyAdminError::Invalid("in a rack keys are deleted with the operator's certificate (--as)".into()))
    }
}
