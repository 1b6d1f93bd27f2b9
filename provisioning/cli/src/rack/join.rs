//! A node's directory, and how it joins a cluster: a token becomes a certificate, once.
//!
//! A join that was cut off is tried again with the same key: the controller gives the same node the same answer. The
//! token itself is not kept.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, OsClock};
use daemon::agent::Keep;
use wire::controller::{JoinRequest, NodeFacts, PROTOCOL};
use wire::dial::{Settings, bootstrap};
use wire::identity_key::{Identity, Key};
use wire::identity_token::JoinToken;

use super::connect::read_identity;
use crate::data_dir::{lines, replace};
use crate::error::CliError;
use crate::rack_args::NodeRun;

/// How long the controller may take to admit a node.
const JOIN_MAX: Duration = Duration::from_secs(30);

const IDENTITY: &str = "identity.pem";
const JOINING_KEY: &str = "joining.key";
const CONTROLLERS: &str = "controllers";

/// A node's directory.
#[derive(Debug, Clone)]
pub(crate) struct NodeDir(pub(crate) PathBuf);

impl NodeDir {
    pub(crate) fn controllers(&self) -> Result<Vec<String>, CliError> {
        lines(&self.0.join(CONTROLLERS))
    }

    pub(crate) fn identity_path(&self) -> PathBuf {
        self.0.join(IDENTITY)
    }

    /// Keeps a new certificate.
    pub(crate) fn keep_identity(&self, identity: &Identity) -> Result<(), CliError> {
        replace(&self.identity_path(), identity.to_pem().as_bytes())
    }
}

impl Keep for NodeDir {
    fn save(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        replace(&self.0.join(format!("{name}.kept")), bytes).map_err(|error| error.to_string())
    }

    fn load(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        match std::fs::read(self.0.join(format!("{name}.kept"))) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The node's certificate: the one it has, or the one that its token gets it.
pub(crate) async fn identity(dir: &NodeDir, args: &NodeRun, facts: NodeFacts) -> Result<Identity, CliError> {
    if dir.identity_path().exists() {
        if args.join.is_some() {
            tracing::info!("this node has joined before; the token is not used");
        }
        if !args.controllers.is_empty() {
            keep_controllers(dir, args)?;
        }
        return read_identity(&dir.identity_path());
    }
    let Some(token) = &args.join else {
        return Err(CliError::Usage(format!(
            "{} has joined no cluster: give --join TOKEN (`holdfast token create` makes one) and --controller",
            dir.0.display()
        )));
    };
    let text = match token.as_str() {
        "-" => read_line()?,
        token => token.to_owned(),
    };
    let token = JoinToken::parse(text.trim()).map_err(|error| CliError::Usage(error.to_string()))?;
    keep_controllers(dir, args)?;
    let key = joining_key(&dir.0.join(JOINING_KEY))?;
    let clock: Arc<dyn Clock> = Arc::new(OsClock::new());
    let request = JoinRequest {
        token: token.expose().to_string(),
        csr: key.csr().map_err(|error| CliError::Node(error.to_string()))?.into(),
        protocol: PROTOCOL,
        clock_ms: clock.unix_ms(),
        facts: Some(facts),
    };
    let addresses: Vec<String> = args.controllers.iter().map(ToString::to_string).collect();
    let channel = bootstrap(token.authority(), &addresses, clock, &Settings::default());
    let channel = channel.map_err(|error| CliError::Node(error.to_string()))?;
    let reply = wire::controller::join(channel, request, JOIN_MAX).await;
    let reply = reply.map_err(|fault| CliError::Refused(format!("the cluster does not admit this node: {fault}")))?;
    let der = |list: Vec<_>| list.into_iter().map(|one: bytes::Bytes| one.to_vec()).collect();
    let identity = Identity::from_der(der(reply.chain), key, der(reply.roots));
    let identity = identity.map_err(|error| CliError::Node(format!("the controller's answer: {error}")))?;
    dir.keep_identity(&identity)?;
    // Left behind it would only be a second copy of the key.
    let _ = std::fs::remove_file(dir.0.join(JOINING_KEY));
    Ok(identity)
}

fn keep_controllers(dir: &NodeDir, args: &NodeRun) -> Result<(), CliError> {
    let text: String = args.controllers.iter().map(|addr| format!("{addr}\n")).collect();
    replace(&dir.0.join(CONTROLLERS), text.as_bytes())
}

/// The key of a join under way, kept until the certificate is there.
fn joining_key(path: &Path) -> Result<Key, CliError> {
    let bad = |error: wire::identity_key::KeyError| CliError::Node(error.to_string());
    if path.exists() {
        return Key::from_pkcs8(&std::fs::read(path).map_err(CliError::file(path))?).map_err(bad);
    }
    let key = Key::generate().map_err(bad)?;
    replace(path, key.expose_pkcs8())?;
    Ok(key)
}

fn read_line() -> Result<String, CliError> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(CliError::file("standard input"))?;
    Ok(line)
}
