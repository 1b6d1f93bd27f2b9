//! Who speaks: the names in a certificate, and what they are read as.
//!
//! A certificate of a cluster says in one SAN URI whom it names:
//!
//! ```text
//! holdfast://<cluster>/node/<node>                     and the DNS name <node>.node.holdfast
//! holdfast://<cluster>/controller/<name>               and the DNS name controller.holdfast
//! holdfast://<cluster>/operator/<name>?role=<role>     no DNS name: an operator serves nothing
//! holdfast://<cluster>/authority                       the authority's own certificate
//! ```
//!
//! Invariants: every name has one spelling only (ids are lower-case hex, nothing is percent-encoded), so that two
//! certificates name the same peer exactly when their [`PeerKind`]s are equal. A certificate with any further name, with
//! names that do not belong together, or that may sign others is no peer's.
//!
//! Left out: signatures and chains. [`PeerIdentity::from_der`] reads what a certificate says; whether it may be
//! believed is for [`crate::tls`].

use std::fmt;
use std::str::FromStr;

use base::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

/// The DNS name by which every controller is verified.
pub const CONTROLLER_SERVER_NAME: &str = "controller.holdfast";
/// Bytes of a certificate at most. Ours have about 700; the bound keeps the cost of a hostile one small.
pub const CERTIFICATE_BYTES_MAX: usize = 4096;
/// Bytes of a controller's or an operator's name at most: a DNS label's length.
pub const NAME_BYTES_MAX: usize = 63;

const SCHEME: &str = "holdfast://";
const NODE_DOMAIN: &str = ".node.holdfast";

/// The DNS name by which a node is verified.
#[must_use]
pub fn node_server_name(node: NodeId) -> String {
    format!("{node}{NODE_DOMAIN}")
}

/// The URI in an authority's own certificate.
#[must_use]
pub fn authority_uri(cluster: ClusterId) -> String {
    format!("{SCHEME}{cluster}/authority")
}

/// A certificate's serial number: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Serial(pub [u8; 16]);

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

/// SHA-256 of a certificate's DER: by it a joiner knows the authority before it has spoken to anyone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// What an operator may do; each role may do all that the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Viewer,
    /// Work on nodes, devices and buckets.
    Operator,
    /// Make tokens, keys and operators as well.
    Admin,
}

impl Role {
    /// Its one spelling.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        [Self::Viewer, Self::Operator, Self::Admin]
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or(IdentityError::Names("the role is viewer, operator or admin"))
    }
}

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PeerKind {
    /// A host's daemon.
    Node(NodeId),
    /// A controller.
    Controller(String),
    /// A person with the command, or their program.
    Operator {
        /// Who.
        name: String,
        /// What they may do.
        role: Role,
    },
}

impl PeerKind {
    /// The SAN URI that says so.
    #[must_use]
    pub fn uri(&self, cluster: ClusterId) -> String {
        format!("{SCHEME}{cluster}/{self}")
    }

    /// The name by which TLS clients verify it; `None` for who serves nothing.
    #[must_use]
    pub fn server_name(&self) -> Option<String> {
        match self {
            Self::Node(node) => Some(node_server_name(*node)),
            Self::Controller(_) => Some(CONTROLLER_SERVER_NAME.to_owned()),
            Self::Operator { .. } => None,
        }
    }

    /// Reads a SAN URI.
    ///
    /// # Errors
    /// [`IdentityError::Names`] for anything but the one spelling of a peer.
    pub fn from_uri(uri: &str) -> Result<(ClusterId, Self), IdentityError> {
        let rest = uri.strip_prefix(SCHEME).ok_or(IdentityError::Names("the URI is not holdfast's"))?;
        let (cluster, path) = rest.split_once('/').ok_or(IdentityError::Names("the URI has no path"))?;
        let cluster: ClusterId = cluster.parse().map_err(|_| IdentityError::Names("the cluster is no id"))?;
        let kind = match path.split_once('/') {
            Some(("node", id)) => Self::Node(id.parse().map_err(|_| IdentityError::Names("the node is no id"))?),
            Some(("controller", name)) => Self::Controller(name.to_owned()),
            Some(("operator", rest)) => {
                let (name, role) = rest.split_once("?role=").ok_or(IdentityError::Names("the operator has no role"))?;
                Self::Operator { name: name.to_owned(), role: role.parse()? }
            }
            _ => return Err(IdentityError::Names("the URI names no node, controller or operator")),
        };
        kind.check()?;
        // Ids are also accepted in capitals: one spelling only, so that names can be compared.
        if kind.uri(cluster) != uri {
            return Err(IdentityError::Names("the URI is not spelled in the one way"));
        }
        Ok((cluster, kind))
    }

    /// Whether its name may stand in a URI as it is.
    ///
    /// # Errors
    /// [`IdentityError::Names`].
    pub fn check(&self) -> Result<(), IdentityError> {
        let name = match self {
            Self::Node(_) => return Ok(()),
            Self::Controller(name) | Self::Operator { name, .. } => name.as_bytes(),
        };
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.iter().all(plain) {
            return Err(IdentityError::Names("a name is 1 to 63 letters, digits, or any of - _ . @"));
        }
        Ok(())
    }
}

/// As in the URI's path: `node/<hex>`.
impl fmt::Display for PeerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node/{node}"),
            Self::Controller(name) => write!(f, "controller/{name}"),
            Self::Operator { name, role } => write!(f, "operator/{name}?role={}", role.name()),
        }
    }
}

/// Why a certificate is no peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// More than [`CERTIFICATE_BYTES_MAX`].
    #[error("the certificate is longer than {CERTIFICATE_BYTES_MAX} bytes")]
    TooLong,
    /// Not one X.509 version 3 certificate in DER, and nothing else.
    #[error("this is no X.509 version 3 certificate")]
    NotX509,
    /// It may sign certificates, or, where an authority is wanted, may not.
    #[error("{0}")]
    Authority(&'static str),
    /// Its names are not a peer's.
    #[error("{0}")]
    Names(&'static str),
    /// Its serial number is not a positive number of at most 128 bits.
    #[error("the serial number is not a positive number of at most 128 bits")]
    Serial,
    /// It ends before it begins, or begins before 1970.
    #[error("the times of validity make no sense")]
    Validity,
}

/// What a peer's certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Who it is.
    pub kind: PeerKind,
    /// The certificate's own number.
    pub serial: Serial,
    /// First moment of validity, milliseconds since 1970-01-01T00:00:00Z.
    pub not_before_ms: u64,
    /// First moment at which it is not valid any more.
    pub not_after_ms: u64,
}

impl PeerIdentity {
    /// Reads a certificate. Nothing is verified but its form.
    ///
    /// # Errors
    /// [`IdentityError`]: whatever is not exactly a peer's certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, IdentityError> {
        let certificate = parse(der)?;
        match certificate.basic_constraints() {
            Ok(None) => {}
            Ok(Some(constraints)) if !constraints.value.ca => {}
            _ => return Err(IdentityError::Authority("the certificate is an authority's, not a peer's")),
        }
        let names = names(&certificate)?;
        let (cluster, kind) = PeerKind::from_uri(names.uri)?;
        if names.dns.map(str::to_owned) != kind.server_name() {
            return Err(IdentityError::Names("the DNS name does not belong to the URI"));
        }
        let (not_before_ms, not_after_ms) = validity(&certificate)?;
        Ok(Self { cluster, kind, serial: serial(&certificate)?, not_before_ms, not_after_ms })
    }

    /// The node, when it is one.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        match self.kind {
            PeerKind::Node(node) => Some(node),
            _ => None,
        }
    }

    /// When the certificate should be renewed: after two thirds of its life, which leaves ten days of a month for a
    /// controller that is away.
    #[must_use]
    pub fn renew_at_ms(&self) -> u64 {
        self.not_before_ms + (self.not_after_ms - self.not_before_ms) / 3 * 2
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of cluster {}, certificate {}", self.kind, self.cluster, self.serial)
    }
}

/// The cluster that an authority's certificate is for.
///
/// # Errors
/// [`IdentityError`]: whatever is not exactly an authority's certificate.
pub fn authority_cluster(der: &[u8]) -> Result<ClusterId, IdentityError> {
    let certificate = parse(der)?;
    if !certificate.is_ca() {
        return Err(IdentityError::Authority("the certificate is not an authority's"));
    }
    let names = names(&certificate)?;
    let cluster = names.uri.strip_prefix(SCHEME).and_then(|rest| rest.strip_suffix("/authority"));
    let cluster = cluster.and_then(|cluster| cluster.parse::<ClusterId>().ok());
    match cluster {
        Some(cluster) if names.dns.is_none() && authority_uri(cluster) == names.uri => Ok(cluster),
        _ => Err(IdentityError::Names("the URI is not an authority's")),
    }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, IdentityError> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(IdentityError::TooLong);
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) if certificate.version() == X509Version::V3 => Ok(certificate),
        _ => Err(IdentityError::NotX509),
    }
}

struct Names<'a> {
    uri: &'a str,
    dns: Option<&'a str>,
}

/// Exactly one URI and at most one DNS name; anything else is refused.
fn names<'a>(certificate: &'a X509Certificate<'_>) -> Result<Names<'a>, IdentityError> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Err(IdentityError::Names("the certificate has no names"));
    };
    let (mut uri, mut dns) = (None, None);
    for name in &extension.value.general_names {
        let before = match name {
            GeneralName::URI(text) => uri.replace(*text),
            GeneralName::DNSName(text) => dns.replace(*text),
            _ => return Err(IdentityError::Names("the certificate has a name that is neither URI nor DNS")),
        };
        if before.is_some() {
            return Err(IdentityError::Names("the certificate has two names of one kind"));
        }
    }
    let uri = uri.ok_or(IdentityError::Names("the certificate has no URI"))?;
    Ok(Names { uri, dns })
}

fn serial(certificate: &X509Certificate<'_>) -> Result<Serial, IdentityError> {
    let raw = certificate.raw_serial();
    let digits = match raw {
        [0, rest @ ..] if !rest.is_empty() => rest,
        [first, ..] if first & 0x80 == 0 => raw,
        _ => return Err(IdentityError::Serial),
    };
    let mut serial = [0; 16];
    let start = serial.len().checked_sub(digits.len()).ok_or(IdentityError::Serial)?;
    serial[start..].copy_from_slice(digits);
    Ok(Serial(serial))
}

fn validity(certificate: &X509Certificate<'_>) -> Result<(u64, u64), IdentityError> {
    let ms = |seconds: i64| u64::try_from(seconds).ok()?.checked_mul(1000);
    let validity = certificate.validity();
    // The last second of validity is valid as a whole.
    let last = validity.not_after.timestamp().checked_add(1).and_then(ms);
    match (ms(validity.not_before.timestamp()), last) {
        (Some(from), Some(to)) if from < to => Ok((from, to)),
        _ => Err(IdentityError::Validity),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId([0xc1; 16]);

    #[test]
    fn a_peer_survives_its_uri() {
        let kinds = [
            PeerKind::Node(NodeId([0xab; 16])),
            PeerKind::Controller("c-1.lab".into()),
            PeerKind::Operator { name: "ada@lab".into(), role: Role::Viewer },
            PeerKind::Operator { name: "b_b".into(), role: Role::Operator },
            PeerKind::Operator { name: "c".repeat(63), role: Role::Admin },
        ];
        for kind in kinds {
            assert_eq!(PeerKind::from_uri(&kind.uri(CLUSTER)), Ok((CLUSTER, kind)));
        }
    }

    #[test]
    fn any_other_uri_is_refused() {
        let c = CLUSTER.to_string();
        let n = NodeId([0xab; 16]).to_string();
        let long = "a".repeat(64);
        let bad = [
            String::new(),
            format!("https://{c}/node/{n}"),
            format!("holdfast://{c}"),
            format!("holdfast://{c}/"),
            format!("holdfast://{c}/node"),
            format!("holdfast://{c}/node/"),
            format!("holdfast://{c}/node/{n}/"),
            format!("holdfast://{c}/node/{}", n.to_uppercase()),
            format!("holdfast://{}/node/{n}", c.to_uppercase()),
            format!("holdfast://{c}/node/{n}?role=admin"),
            format!("holdfast://{c}//node/{n}"),
            format!("holdfast://{c}/nodes/{n}"),
            format!("holdfast://{c}/authority"),
            format!("holdfast://{c}/controller/"),
            format!("holdfast://{c}/controller/a/b"),
            format!("holdfast://{c}/controller/a%20b"),
            format!("holdfast://{c}/controller/{long}"),
            format!("holdfast://{c}/operator/ada"),
            format!("holdfast://{c}/operator/ada?role=root"),
            format!("holdfast://{c}/operator/ada?role=Admin"),
            format!("holdfast://{c}/operator/ada?role=viewer?role=admin"),
            format!("holdfast://{c}/operator/?role=admin"),
            format!("holdfast://{c}/operator/ada\u{e9}?role=admin"),
        ];
        for uri in bad {
            assert!(PeerKind::from_uri(&uri).is_err(), "{uri} is taken");
        }
    }

    #[test]
    fn roles_grow() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
    }
}
