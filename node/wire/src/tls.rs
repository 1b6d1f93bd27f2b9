//! How peers prove themselves to each other: TLS 1.3 with certificates of the cluster's authority on both sides.
//!
//! [`Credentials`] is what one process speaks with and whom it believes. The configurations made from it ask it again
//! at every handshake, so a renewed certificate ([`Credentials::replace`]) and a new list of refused peers
//! ([`Credentials::refuse`]) need no restart.
//!
//! Invariants:
//! - A peer passes only with a certificate of the cluster's authority that is valid now, names this cluster, is not
//!   refused, and is of an admitted kind. All of it is judged within the handshake.
//! - A server is believed only under the name that was dialled, and only if it is what that name says.
//! - No session is resumed: a resumed session would skip all of this.
//!
//! Left out: what a peer may ask once it is in; services judge that by [`crate::tls_conn::Peer`].

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base::{Clock, NodeId};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;

use crate::identity::{Fingerprint, IdentityError, PeerIdentity, PeerKind, Serial, authority_cluster};
use crate::identity_key::Identity;
use crate::tls_verify::{Bootstrap, Clients, PeerRefused, Servers};

/// The one protocol spoken inside: HTTP/2.
pub(crate) const ALPN: &[u8] = b"h2";

/// Which peers a listener lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admit {
    /// Hosts' daemons.
    pub nodes: bool,
    /// Controllers.
    pub controllers: bool,
    /// People with the command.
    pub operators: bool,
    /// Whoever has no certificate yet: for joining.
    pub anonymous: bool,
}

impl Admit {
    /// What a node listens to.
    pub const RACK: Self = Self { nodes: true, controllers: true, operators: false, anonymous: false };
    /// What a controller listens to: each service asks for more.
    pub const CONTROLLER: Self = Self { nodes: true, controllers: true, operators: true, anonymous: true };

    pub(crate) fn admits(self, kind: &PeerKind) -> bool {
        match kind {
            PeerKind::Node(_) => self.nodes,
            PeerKind::Controller(_) => self.controllers,
            PeerKind::Operator { .. } => self.operators,
        }
    }
}

/// Peers whose certificates are genuine and are refused all the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    /// Single certificates.
    pub serials: BTreeSet<Serial>,
    /// Nodes that are members no more, whatever certificate they hold.
    pub nodes: BTreeSet<NodeId>,
}

impl Refused {
    fn holds(&self, peer: &PeerIdentity) -> bool {
        self.serials.contains(&peer.serial) || peer.node().is_some_and(|node| self.nodes.contains(&node))
    }
}

/// Why an identity cannot be spoken with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Its own certificate, or one of its roots, is not what it must be.
    #[error("the certificate or a root cannot be used: {0}")]
    Identity(#[from] IdentityError),
    /// Key, certificate and roots do not belong together.
    #[error("key, certificate and roots do not belong together: {0}")]
    Rustls(#[from] rustls::Error),
    /// A root cannot be verified against.
    #[error("the roots cannot be used: {0}")]
    Roots(String),
    /// The new identity is another peer's.
    #[error("the new certificate names {new}, this process is {old}")]
    OtherPeer {
        /// Who this process is.
        old: String,
        /// Whom the new certificate names.
        new: String,
    },
}

/// What a process speaks with and whom it believes. Shared; replaceable while it is in use.
pub struct Credentials {
    current: RwLock<Arc<Current>>,
    refused: watch::Sender<Arc<Refused>>,
    clock: Arc<dyn Clock>,
    provider: Arc<CryptoProvider>,
}

/// What follows from one identity.
#[derive(Debug)]
pub(crate) struct Current {
    me: PeerIdentity,
    certified: Arc<CertifiedKey>,
    /// The same with the roots in its chain: a joiner looks there for the one that it was told of.
    certified_with_roots: Arc<CertifiedKey>,
    pub(crate) clients: Arc<dyn ClientCertVerifier>,
    pub(crate) servers: Arc<WebPkiServerVerifier>,
}

impl Credentials {
    /// Takes an identity into use. An expired one is taken, too: peers refuse it, and its holder may say why.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(identity: &Identity, clock: Arc<dyn Clock>) -> Result<Arc<Self>, TlsError> {
        let provider = provider();
        let current = RwLock::new(Arc::new(Current::new(identity, &provider)?));
        let refused = watch::Sender::new(Arc::default());
        Ok(Arc::new(Self { current, refused, clock, provider }))
    }

    /// Takes a renewed identity of the same peer into use, from the next handshake on. Connections live on.
    ///
    /// # Errors
    /// [`TlsError`]; the old identity stays in use then.
    pub fn replace(&self, identity: &Identity) -> Result<(), TlsError> {
        let new = Current::new(identity, &self.provider)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if (new.me.cluster, &new.me.kind) != (current.me.cluster, &current.me.kind) {
            return Err(TlsError::OtherPeer { old: current.me.to_string(), new: new.me.to_string() });
        }
        *current = Arc::new(new);
        Ok(())
    }

    /// Refuses these peers, and no others, from now on: their handshakes, and the connections that they have.
    pub fn refuse(&self, refused: Refused) {
        self.refused.send_replace(Arc::new(refused));
    }

    /// Whom this process's certificate names.
    #[must_use]
    pub fn me(&self) -> PeerIdentity {
        self.current().me.clone()
    }

    /// Whether the peer of a genuine certificate may speak now.
    ///
    /// # Errors
    /// [`PeerRefused`].
    pub fn judge(&self, peer: &PeerIdentity) -> Result<(), PeerRefused> {
        if peer.cluster != self.current().me.cluster {
            return Err(PeerRefused::OtherCluster(peer.cluster));
        }
        if self.refused.borrow().holds(peer) {
            return Err(PeerRefused::Revoked(peer.serial));
        }
        if self.now_ms() >= peer.not_after_ms {
            return Err(PeerRefused::Expired);
        }
        Ok(())
    }

    /// How a server with these credentials listens. Peers without a certificate pass only where `admit` says so.
    ///
    /// # Errors
    /// [`TlsError::Rustls`] when the library cannot do TLS 1.3.
    pub fn server_config(self: &Arc<Self>, admit: Admit) -> Result<Arc<ServerConfig>, TlsError> {
        let resolver = Arc::new(Resolver { credentials: Arc::clone(self), with_roots: admit.anonymous });
        let mut config = ServerConfig::builder_with_details(Arc::clone(&self.provider), self.time())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(Clients::new(Arc::clone(self), admit)))
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// How a client with these credentials dials.
    ///
    /// # Errors
    /// [`TlsError::Rustls`] when the library cannot do TLS 1.3.
    pub fn client_config(self: &Arc<Self>) -> Result<Arc<ClientConfig>, TlsError> {
        let resolver = Arc::new(Resolver { credentials: Arc::clone(self), with_roots: false });
        let mut config = ClientConfig::builder_with_details(Arc::clone(&self.provider), self.time())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Servers::new(Arc::clone(self))))
            .with_client_cert_resolver(resolver);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    pub(crate) fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn watch_refused(&self) -> watch::Receiver<Arc<Refused>> {
        self.refused.subscribe()
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.unix_ms()
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    fn time(&self) -> Arc<Time> {
        Arc::new(Time(Arc::clone(&self.clock)))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.current().me)
    }
}

impl Current {
    fn new(identity: &Identity, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let me = identity.peer()?;
        let mut roots = RootCertStore::empty();
        for root in &identity.roots {
            let cluster = authority_cluster(root)?;
            if cluster != me.cluster {
                return Err(TlsError::Roots(format!("one is of cluster {cluster}, not of {}", me.cluster)));
            }
            roots.add(root.clone())?;
        }
        let roots = Arc::new(roots);
        let certified = CertifiedKey::from_der(identity.chain.clone(), identity.key.to_rustls(), provider)?;
        let with_roots = identity.chain.iter().chain(&identity.roots).cloned().collect();
        let certified_with_roots = CertifiedKey::new(with_roots, Arc::clone(&certified.key));
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider)).build();
        let servers = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
        let bad_roots = |error: &dyn fmt::Display| TlsError::Roots(error.to_string());
        Ok(Self {
            me,
            certified: Arc::new(certified),
            certified_with_roots: Arc::new(certified_with_roots),
            clients: clients.map_err(|error| bad_roots(&error))?,
            servers: servers.map_err(|error| bad_roots(&error))?,
        })
    }
}

/// How a host without a certificate dials a controller: it believes the one authority with this fingerprint, and no
/// certificate but a controller's.
///
/// # Errors
/// [`TlsError::Rustls`] when the library cannot do TLS 1.3.
pub fn bootstrap_config(authority: Fingerprint, clock: Arc<dyn Clock>) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let mut config = ClientConfig::builder_with_details(Arc::clone(&provider), Arc::new(Time(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Bootstrap::new(authority, provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The clock door, as rustls asks for it.
struct Time(Arc<dyn Clock>);

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.unix_ms())))
    }
}

/// Gives out the certificate that is in use at this moment.
#[derive(Debug)]
struct Resolver {
    credentials: Arc<Credentials>,
    with_roots: bool,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.credentials.current();
        Some(Arc::clone(if self.with_roots { &current.certified_with_roots } else { &current.certified }))
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.credentials.current().certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The identity of whoever is at the other end; `None` without a certificate.
pub(crate) fn peer_of(chain: Option<&[CertificateDer<'_>]>) -> Result<Option<PeerIdentity>, IdentityError> {
    chain.and_then(<[_]>::first).map(|leaf| PeerIdentity::from_der(leaf)).transpose()
}
