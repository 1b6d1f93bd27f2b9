//! Dialling: a tonic [`Channel`] to one peer, verified by name, connected when it is first used and again after it
//! broke.
//!
//! A channel outlives connections and certificates: each connect takes the credentials that are in use then. A dead
//! peer is found by HTTP/2 pings, so that a request does not wait for TCP to give up.
//!
//! Left out: deadlines of requests, retries, and which peer to ask.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base::{Clock, NodeId};
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use crate::identity::{CONTROLLER_SERVER_NAME, Fingerprint, node_server_name};
use crate::tls::{ALPN, Credentials, TlsError, bootstrap_config, peer_of};
use crate::tls_conn::{Conn, Peer, RECHECK, until_refused};

/// How channels behave.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long one address may take, TCP and TLS together.
    pub connect_timeout: Duration,
    /// A ping after this much silence...
    pub keepalive_interval: Duration,
    /// ...and the connection is dead when it is not answered within this.
    pub keepalive_timeout: Duration,
    /// Bytes under way on one stream at most: two shards of 1 MiB.
    pub stream_window_bytes: u32,
    /// Bytes under way on one connection at most; bounds what one peer makes us hold.
    pub connection_window_bytes: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            keepalive_interval: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(5),
            stream_window_bytes: 2 << 20,
            connection_window_bytes: 16 << 20,
        }
    }
}

/// Why a connect failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// There is no address to dial.
    #[error("there is no address to dial")]
    NoAddress,
    /// The address does not answer.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Which.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Who answers is not who was dialled, or refuses us.
    #[error("no TLS with {name} at {address}: {source}")]
    Tls {
        /// Whom.
        name: String,
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// No answer in time.
    #[error("{address} did not answer within {after:?}")]
    Timeout {
        /// Which.
        address: String,
        /// How long it had.
        after: Duration,
    },
}

/// Makes channels with one process's credentials.
#[derive(Debug, Clone)]
pub struct Dialer {
    credentials: Arc<Credentials>,
    config: Arc<ClientConfig>,
    settings: Settings,
}

impl Dialer {
    /// A dialer.
    ///
    /// # Errors
    /// [`TlsError::Rustls`] when the library cannot do TLS 1.3.
    pub fn new(credentials: Arc<Credentials>, settings: Settings) -> Result<Self, TlsError> {
        Ok(Self { config: credentials.client_config()?, credentials, settings })
    }

    /// A channel to a node at `address:port`. Nothing is dialled yet.
    #[must_use]
    pub fn node(&self, node: NodeId, address: &str) -> Channel {
        self.channel(node_server_name(node), vec![address.to_owned()])
    }

    /// A channel to whichever of the controllers answers first, in this order, at every connect.
    #[must_use]
    pub fn controller(&self, addresses: &[String]) -> Channel {
        self.channel(CONTROLLER_SERVER_NAME.to_owned(), addresses.to_vec())
    }

    fn channel(&self, name: String, addresses: Vec<String>) -> Channel {
        let credentials = Some(Arc::clone(&self.credentials));
        channel(Target { name, addresses, config: Arc::clone(&self.config), credentials }, &self.settings)
    }
}

/// A channel to a controller for a host that has no certificate yet and knows the authority's fingerprint.
///
/// # Errors
/// [`TlsError::Rustls`] when the library cannot do TLS 1.3.
pub fn bootstrap(
    authority: Fingerprint,
    addresses: &[String],
    clock: Arc<dyn Clock>,
    settings: &Settings,
) -> Result<Channel, TlsError> {
    let config = bootstrap_config(authority, clock)?;
    let (name, addresses) = (CONTROLLER_SERVER_NAME.to_owned(), addresses.to_vec());
    Ok(channel(Target { name, addresses, config, credentials: None }, settings))
}

fn channel(target: Target, settings: &Settings) -> Channel {
    // TLS is the connector's; to tonic the connection looks plain.
    let uri = Uri::builder().scheme("http").authority(target.name.as_str()).path_and_query("/").build();
    let endpoint = Endpoint::from(uri.expect("a server's name is a host name"))
        .http2_keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(settings.stream_window_bytes)
        .initial_connection_window_size(settings.connection_window_bytes);
    endpoint.connect_with_connector_lazy(Connector { target: Arc::new(target), each: settings.connect_timeout })
}

struct Target {
    name: String,
    addresses: Vec<String>,
    config: Arc<ClientConfig>,
    /// Whoever has none cannot tell later whether the server is refused; its connection is short.
    credentials: Option<Arc<Credentials>>,
}

#[derive(Clone)]
struct Connector {
    target: Arc<Target>,
    each: Duration,
}

type Outgoing = Conn<TlsStream<TcpStream>>;

impl Service<Uri> for Connector {
    type Response = TokioIo<Outgoing>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { target, each } = self.clone();
        Box::pin(async move {
            let mut last = DialError::NoAddress;
            for address in &target.addresses {
                match timeout(each, connect(&target, address)).await {
                    Ok(Ok(conn)) => return Ok(TokioIo::new(conn)),
                    Ok(Err(error)) => last = error,
                    Err(_) => last = DialError::Timeout { address: address.clone(), after: each },
                }
            }
            Err(last)
        })
    }
}

async fn connect(target: &Target, address: &str) -> Result<Outgoing, DialError> {
    let plain = |source| DialError::Connect { address: address.to_owned(), source };
    let tls = |source| DialError::Tls { name: target.name.clone(), address: address.to_owned(), source };
    let tcp = TcpStream::connect(address).await.map_err(plain)?;
    let from = tcp.peer_addr().map_err(plain)?;
    tcp.set_nodelay(true).map_err(plain)?;
    let name = ServerName::try_from(target.name.clone()).map_err(|error| tls(io::Error::other(error)))?;
    let io = TlsConnector::from(Arc::clone(&target.config)).connect(name, tcp).await.map_err(tls)?;
    let (_, session) = io.get_ref();
    if session.alpn_protocol() != Some(ALPN) {
        return Err(tls(io::Error::other("the server does not speak HTTP/2")));
    }
    let identity = peer_of(session.peer_certificates()).map_err(|error| tls(io::Error::other(error)))?;
    let identity = identity.ok_or_else(|| tls(io::Error::other("the server has no certificate")))?;
    let peer = Peer::new(Some(identity.clone()), from);
    let guard: Pin<Box<dyn Future<Output = _> + Send>> = match &target.credentials {
        Some(credentials) => Box::pin(until_refused(Arc::clone(credentials), Arc::new(identity), RECHECK)),
        None => Box::pin(std::future::pending()),
    };
    Ok(Conn::new(io, peer, guard, None))
}
