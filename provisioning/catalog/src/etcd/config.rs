//! What one needs to know to reach etcd, and the rules it has to obey.

use std::fmt;
use std::time::Duration;

use crate::facts::{FactsError, FactsResult, check_prefix};

/// Bytes of a deployment's prefix at most: it stands before every key of a request.
const PREFIX_BYTES_MAX: usize = 128;
/// Servers at most: etcd's own advice is seven.
const ENDPOINTS_MAX: usize = 16;

/// How etcd is reached. A read takes at most (`connect_timeout` + `call_timeout`) for each endpoint, a commit one
/// `call_timeout` and a `connect_timeout` for each endpoint.
#[derive(Debug, Clone)]
pub struct EtcdConfig {
    /// `http://host:port` or, with [`EtcdConfig::tls`], `https://host:port`.
    pub endpoints: Vec<String>,
    /// What all keys begin with, such as `/holdfast/<cluster>/`: ends with `/`.
    pub prefix: String,
    /// Our side of TLS.
    pub tls: Option<EtcdTls>,
    /// For a connection to one server.
    pub connect_timeout: Duration,
    /// For one request to one server. Longer than a few elections of etcd, or each of them gives unknown outcomes.
    pub call_timeout: Duration,
    /// How long a leader that is not heard of stays leader. In whole seconds; etcd has a minimum of its own, which follows
    /// from its election timeout.
    pub lease_ttl: Duration,
    /// How often the leader lets etcd forget the past, which it keeps for ever otherwise; that which is younger than this
    /// stays. `None`: etcd is told to do so itself (`--auto-compaction-retention`), or is shared with others who need it.
    pub compact_every: Option<Duration>,
}

/// Certificates for etcd, in PEM.
#[derive(Clone)]
pub struct EtcdTls {
    /// Whom we believe.
    pub ca_pem: Vec<u8>,
    /// Our chain.
    pub cert_pem: Vec<u8>,
    /// Its key.
    pub key_pem: Vec<u8>,
    /// The name in the servers' certificates, where that is not the endpoint's host.
    pub server_name: Option<String>,
}

impl fmt::Debug for EtcdTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EtcdTls({:?}, ..)", self.server_name)
    }
}

impl EtcdConfig {
    pub(super) fn check(&self) -> FactsResult<()> {
        let refuse = |field, rule| Err(FactsError::Invalid { field, rule });
        if self.endpoints.is_empty() || self.endpoints.len() > ENDPOINTS_MAX {
            return refuse("etcd's endpoints", "are 1 to 16");
        }
        check_prefix(&self.prefix)?;
        if !self.prefix.ends_with('/') || self.prefix.len() > PREFIX_BYTES_MAX {
            return refuse("etcd's prefix", "ends with / and has at most 128 bytes");
        }
        if self.lease_ttl < Duration::from_secs(1) {
            return refuse("the lease", "lasts at least a second");
        }
        if self.connect_timeout.is_zero() || self.call_timeout.is_zero() {
            return refuse("a timeout", "is not zero");
        }
        if self.compact_every.is_some_and(|every| every.is_zero()) {
            return refuse("the time between compactions", "is not zero");
        }
        Ok(())
    }
}
