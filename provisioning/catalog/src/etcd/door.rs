//! The way to one etcd server: a socket, with TLS where the endpoint says so.
//!
//! TLS is made here and not by the gRPC library, whose own would bring an older version of the protocol into every other
//! connection of the workspace.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

use super::config::{EtcdConfig, EtcdTls};
use crate::facts::{FactsError, FactsResult};

/// How often a connection that waits for an answer is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(5);

/// One server and how to connect to it.
#[derive(Clone)]
pub(super) struct Door {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    connect_timeout: Duration,
    endpoint: Endpoint,
}

pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Door {
    pub(super) fn new(config: &EtcdConfig, endpoint: &str) -> FactsResult<Self> {
        let refuse = |rule| FactsError::Invalid { field: "an endpoint of etcd", rule };
        let uri: Uri = endpoint.parse().map_err(|_| refuse("is http://host:port or https://host:port"))?;
        let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else {
            return Err(refuse("has a host and a port"));
        };
        // A literal IPv6 address stands in brackets, which are the URL's and not the address's.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = match (uri.scheme_str(), &config.tls) {
            (Some("http"), None) => None,
            (Some("https"), Some(tls)) => Some(client(tls, &host)?),
            (Some("http"), Some(_)) => return Err(refuse("is https:// when there are certificates")),
            (Some("https"), None) => return Err(refuse("is http:// when there are no certificates")),
            _ => return Err(refuse("is http:// or https://")),
        };
        // The library is told `http`: what it sends goes through our TLS.
        let plain = Endpoint::from_shared(format!("http://{}", uri.authority().map_or("", |a| a.as_str())))
            .map_err(|_| refuse("is http://host:port or https://host:port"))?
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(config.call_timeout);
        Ok(Self { host, port, tls, connect_timeout: config.connect_timeout, endpoint: plain })
    }

    /// Connects, within the timeout.
    pub(super) async fn open(&self) -> Result<Channel, String> {
        self.endpoint.connect_with_connector(self.clone()).await.map_err(|error| chain(&error))
    }

    async fn dial(&self) -> std::io::Result<Box<dyn Io>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some((connector, name)) => Ok(Box::new(connector.connect(name.clone(), stream).await?)),
        }
    }
}

impl Service<Uri> for Door {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let door = self.clone();
        Box::pin(async move {
            match tokio::time::timeout(door.connect_timeout, door.dial()).await {
                Ok(stream) => stream.map(TokioIo::new),
                Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
            }
        })
    }
}

/// An error and what it is made of, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(cause) = inner {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        inner = cause.source();
    }
    text
}

fn client(tls: &EtcdTls, host: &str) -> FactsResult<(TlsConnector, ServerName<'static>)> {
    let refuse = |field, rule| FactsError::Invalid { field, rule };
    let mut roots = RootCertStore::empty();
    for ca in certificates(&tls.ca_pem).ok_or(refuse("etcd's CA", "is certificates in PEM"))? {
        roots.add(ca).map_err(|_| refuse("etcd's CA", "is certificates in PEM"))?;
    }
    let own = certificates(&tls.cert_pem).ok_or(refuse("our certificate for etcd", "is a chain in PEM"))?;
    let key = PrivateKeyDer::from_pem_slice(&tls.key_pem).map_err(|_| refuse("our key for etcd", "is a key in PEM"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| refuse("the cryptography", "knows TLS 1.3"))?
        .with_root_certificates(roots)
        .with_client_auth_cert(own, key)
        .map_err(|_| refuse("our key for etcd", "is that of the certificate"))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(tls.server_name.clone().unwrap_or_else(|| host.to_owned()))
        .map_err(|_| refuse("the name of etcd's servers", "is a DNS name or an address"))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// At least one, all of them sound.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.ok().filter(|all| !all.is_empty())
}
