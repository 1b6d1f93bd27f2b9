//! The admin server: health and metrics on a TCP address, access keys on a unix socket.
//!
//! Invariants:
//! - what changes anything or shows a secret is on the unix socket alone, whose mode is 0600: whoever may
//!   open it is the server's own user;
//! - a connection carries one request, is one of at most [`CONNECTIONS_MAX`], and ends within
//!   [`CONNECTION_TIME_MAX`] whatever its peer does;
//! - an answer never carries a secret, except the one that creates the key.
//!
//! Left out on purpose: TLS and authentication on the TCP side. It tells health and numbers only, and is
//! bound to the loopback address unless the operator says otherwise.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use crate::metrics;

/// Connections served at once, both listeners together: a scraper, a few probes and an operator need a
/// handful; the next ones wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 64;
/// How long one connection lives: ten times what the slowest answer takes under full load.
pub const CONNECTION_TIME_MAX: Duration = Duration::from_secs(30);
/// How long the request's head may take.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// How long answers under way may go on after shutdown began.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
/// Bytes of a request's body: a key's name and its quotes.
const REQUEST_BYTES_MAX: usize = 4096;
/// Where the key API begins.
pub const KEYS_PATH: &str = "/v1/keys";

/// Whether the node takes requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Reads and writes are served.
    Ready,
    /// Something is not, for this reason.
    NotReady(String),
}

/// What the admin server shows of the node.
pub trait Observed: Send + Sync + 'static {
    /// Whether the node takes requests; cheap, called for each probe.
    fn readiness(&self) -> Readiness;
    /// The metrics, in Prometheus' text format (see [`metrics::MetricsText`]).
    fn metrics(&self) -> BoxFuture<'_, String>;
}

/// A key as listings show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    /// Public id.
    pub access_key_id: String,
    /// For people.
    pub name: String,
    /// When it was drawn, milliseconds since 1970-01-01T00:00:00Z.
    pub created_ms: u64,
}

/// A key just created: the one time that its secret is told.
#[derive(Clone, Serialize, Deserialize)]
pub struct NewKey {
    /// Public id.
    pub access_key_id: String,
    /// The secret; in no `Debug`.
    pub secret_access_key: String,
    /// For people.
    pub name: String,
    /// When it was drawn, milliseconds since 1970-01-01T00:00:00Z.
    pub created_ms: u64,
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// All keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyList {
    /// By ascending id.
    pub keys: Vec<KeyRow>,
}

/// The body that asks for a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// For people.
    pub name: String,
}

/// The body of every refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why, in a sentence.
    pub error: String,
}

/// Why a key was not created, listed or deleted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyAdminError {
    /// The name breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// No room for another key.
    #[error("{0}")]
    Full(String),
    /// The store of keys failed.
    #[error("{0}")]
    Failed(String),
}

/// Who keeps the keys. Calls may block for a disk flush; the server makes them off its executor.
pub trait KeyAdmin: Send + Sync + 'static {
    /// Draws and stores a key.
    ///
    /// # Errors
    /// [`KeyAdminError`].
    fn create(&self, name: &str) -> Result<NewKey, KeyAdminError>;
    /// All keys by ascending id.
    ///
    /// # Errors
    /// [`KeyAdminError`].
    fn list(&self) -> Result<Vec<KeyRow>, KeyAdminError>;
    /// Deletes a key; `false` when there was none. Requests signed with it are refused from then on.
    ///
    /// # Errors
    /// [`KeyAdminError`].
    fn delete(&self, access_key_id: &str) -> Result<bool, KeyAdminError>;
}

/// Why the admin server did not start.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The address cannot be had.
    #[error("the admin address {addr} cannot be had: {source}")]
    Address {
        /// Which.
        addr: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The socket cannot be made.
    #[error("the admin socket {} cannot be made: {source}", path.display())]
    Socket {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// The server, bound and not yet serving.
#[derive(Debug)]
pub struct AdminServer {
    tcp: TcpListener,
    unix: UnixListener,
    socket: PathBuf,
}

impl AdminServer {
    /// Binds both. A socket left by a process that died is replaced: the caller holds the data
    /// directory's lock, so no living server listens on it.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn bind(addr: SocketAddr, socket: &Path) -> Result<Self, AdminError> {
        let tcp = TcpListener::bind(addr).await.map_err(|source| AdminError::Address { addr, source })?;
        let at = |source| AdminError::Socket { path: socket.to_owned(), source };
        match std::fs::remove_file(socket) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at(e)),
            _ => {}
        }
        let unix = UnixListener::bind(socket).map_err(at)?;
        // The directory has mode 0700, so nobody else gets in between the two calls.
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600)).map_err(at)?;
        Ok(Self { tcp, unix, socket: socket.to_owned() })
    }

    /// The TCP address in use (the port is a real one even when 0 was asked for).
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until `shutdown` ends, then lets answers under way finish and removes the socket.
    pub async fn serve(self, node: Arc<dyn Observed>, keys: Arc<dyn KeyAdmin>, shutdown: impl Future<Output = ()>) {
        let face = Arc::new(Face { node, keys });
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let graceful = GracefulShutdown::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            // The permit comes first: without one, nothing is accepted.
            let permit = tokio::select! {
                () = &mut shutdown => break,
                permit = Arc::clone(&permits).acquire_owned() => permit.expect("the semaphore is never closed"),
            };
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                peer = self.tcp.accept() => peer.map(|(stream, _)| {
                    start(stream, Side::Tcp, &face, &graceful, permit);
                }),
                peer = self.unix.accept() => peer.map(|(stream, _)| {
                    start(stream, Side::Unix, &face, &graceful, permit);
                }),
            };
            if let Err(error) = accepted {
                tracing::warn!(%error, "the admin server could not accept a connection");
                // Out of descriptors, most likely: trying again at once would only spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        drop((self.tcp, self.unix));
        if let Err(error) = std::fs::remove_file(&self.socket) {
            tracing::debug!(%error, "the admin socket was gone before its server");
        }
        if tokio::time::timeout(DRAIN_TIME_MAX, graceful.shutdown()).await.is_err() {
            tracing::debug!("admin answers under way were cut off");
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Tcp,
    Unix,
}

struct Face {
    node: Arc<dyn Observed>,
    keys: Arc<dyn KeyAdmin>,
}

fn start<S>(stream: S, side: Side, face: &Arc<Face>, graceful: &GracefulShutdown, permit: impl Send + 'static)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let face = Arc::clone(face);
    let service = service_fn(move |request| {
        let face = Arc::clone(&face);
        async move { Ok::<_, std::convert::Infallible>(answer(&face, side, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .keep_alive(false)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        let _permit = permit;
        match tokio::time::timeout(CONNECTION_TIME_MAX, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "an admin connection broke off"),
            Err(_) => tracing::debug!("an admin connection took too long"),
        }
    });
}

type Answer = Response<Full<Bytes>>;

#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Live,
    Ready,
    Metrics,
    CreateKey,
    ListKeys,
    DeleteKey(&'a str),
    Unknown,
    /// The path is known; these methods are.
    WrongMethod(&'static str),
}

fn route<'a>(side: Side, method: &Method, path: &'a str) -> Route<'a> {
    let get =
        |route| if matches!(*method, Method::GET | Method::HEAD) { route } else { Route::WrongMethod("GET, HEAD") };
    match path {
        "/health/live" => get(Route::Live),
        "/health/ready" => get(Route::Ready),
        "/metrics" => get(Route::Metrics),
        _ if side == Side::Tcp => Route::Unknown,
        KEYS_PATH => match *method {
            Method::GET => Route::ListKeys,
            Method::POST => Route::CreateKey,
            _ => Route::WrongMethod("GET, POST"),
        },
        _ => match path.strip_prefix(KEYS_PATH).and_then(|rest| rest.strip_prefix('/')) {
            Some(id) if !id.is_empty() && !id.contains('/') => match *method {
                Method::DELETE => Route::DeleteKey(id),
                _ => Route::WrongMethod("DELETE"),
            },
            _ => Route::Unknown,
        },
    }
}

async fn answer<B>(face: &Face, side: Side, request: Request<B>) -> Answer
where
    B: Body<Data = Bytes> + Send,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let (head, body) = request.into_parts();
    match route(side, &head.method, head.uri.path()) {
        Route::Live => text(StatusCode::OK, "live\n".into()),
        Route::Ready => match face.node.readiness() {
            Readiness::Ready => text(StatusCode::OK, "ready\n".into()),
            Readiness::NotReady(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        },
        Route::Metrics => respond(StatusCode::OK, metrics::CONTENT_TYPE, face.node.metrics().await.into()),
        Route::ListKeys => match with_keys(face, |keys| keys.list()).await {
            Ok(keys) => json(StatusCode::OK, &KeyList { keys }),
            Err(refusal) => refusal,
        },
        Route::CreateKey => match Limited::new(body, REQUEST_BYTES_MAX).collect().await {
            Ok(body) => create_key(face, &body.to_bytes()).await,
            Err(error) => refuse(StatusCode::BAD_REQUEST, format!("the request cannot be read: {error}")),
        },
        Route::DeleteKey(id) => {
            let id = id.to_owned();
            match with_keys(face, move |keys| keys.delete(&id)).await {
                Ok(true) => respond(StatusCode::NO_CONTENT, "application/json", Bytes::new()),
                Ok(false) => refuse(StatusCode::NOT_FOUND, "there is no such access key".into()),
                Err(refusal) => refusal,
            }
        }
        Route::Unknown => refuse(StatusCode::NOT_FOUND, "there is nothing at this path".into()),
        Route::WrongMethod(allowed) => {
            let mut answer = refuse(StatusCode::METHOD_NOT_ALLOWED, format!("use {allowed}"));
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            answer
        }
    }
}

async fn create_key(face: &Face, body: &[u8]) -> Answer {
    let request: CreateKey = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, format!("the request does not parse: {error}")),
    };
    match with_keys(face, move |keys| keys.create(&request.name)).await {
        Ok(key) => {
            tracing::info!(access_key_id = %key.access_key_id, name = %key.name, "access key created");
            json(StatusCode::CREATED, &key)
        }
        Err(refusal) => refusal,
    }
}

async fn with_keys<T, F>(face: &Face, work: F) -> Result<T, Answer>
where
    T: Send + 'static,
    F: FnOnce(&dyn KeyAdmin) -> Result<T, KeyAdminError> + Send + 'static,
{
    let keys = Arc::clone(&face.keys);
    match tokio::task::spawn_blocking(move || work(&*keys)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => {
            let status = match error {
                KeyAdminError::Invalid(_) => StatusCode::BAD_REQUEST,
                KeyAdminError::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
                KeyAdminError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            Err(refuse(status, error.to_string()))
        }
        Err(error) => {
            tracing::error!(%error, "the key store panicked");
            Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, "the key store failed".into()))
        }
    }
}

fn text(status: StatusCode, body: String) -> Answer {
    respond(status, "text/plain; charset=utf-8", body.into())
}

fn refuse(status: StatusCode, error: String) -> Answer {
    json(status, &Refusal { error })
}

fn json<T: Serialize>(status: StatusCode, body: &T) -> Answer {
    let body = serde_json::to_vec(body).expect("our answers are plain structs");
    respond(status, "application/json", body.into())
}

fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_on_the_unix_side_alone() {
        let table = [
            (Side::Tcp, Method::GET, "/health/live", Route::Live),
            (Side::Unix, Method::HEAD, "/health/ready", Route::Ready),
            (Side::Tcp, Method::GET, "/metrics", Route::Metrics),
            (Side::Tcp, Method::POST, "/metrics", Route::WrongMethod("GET, HEAD")),
            (Side::Tcp, Method::GET, "/v1/keys", Route::Unknown),
            (Side::Tcp, Method::DELETE, "/v1/keys/HFA", Route::Unknown),
            (Side::Unix, Method::GET, "/v1/keys", Route::ListKeys),
            (Side::Unix, Method::POST, "/v1/keys", Route::CreateKey),
            (Side::Unix, Method::PUT, "/v1/keys", Route::WrongMethod("GET, POST")),
            (Side::Unix, Method::DELETE, "/v1/keys/HFA", Route::DeleteKey("HFA")),
            (Side::Unix, Method::GET, "/v1/keys/HFA", Route::WrongMethod("DELETE")),
            (Side::Unix, Method::DELETE, "/v1/keys/", Route::Unknown),
            (Side::Unix, Method::DELETE, "/v1/keys/a/b", Route::Unknown),
            (Side::Unix, Method::GET, "/v1/keysets", Route::Unknown),
            (Side::Unix, Method::GET, "/", Route::Unknown),
        ];
        for (side, method, path, expected) in table {
            assert_eq!(route(side, &method, path), expected, "{side:?} {method} {path}");
        }
    }

    #[test]
    fn a_new_key_prints_without_its_secret() {
        let key =
            NewKey { access_key_id: "HFA".into(), secret_access_key: "hidden".into(), name: "n".into(), created_ms: 1 };
        assert!(!format!("{key:?}").contains("hidden"));
    }
}
