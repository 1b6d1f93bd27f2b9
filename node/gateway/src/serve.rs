//! The server: accepts connections, bounds them, and ends in order.
//!
//! Every wait on a client has a bound and so has every count; what is beyond is refused with `503 SlowDown`
//! rather than queued. Plain HTTP/1.1: TLS belongs to a listener in front.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::front::{Front, Gateway};
use crate::socket::{Socket, linger};
use crate::stats::GatewayStats;

/// Bytes hyper reads at one go from a connection, and holds for it at most in either direction.
const BUFFER_BYTES_MAX: usize = 256 * 1024;
/// Pause after accept fails (mostly: no file descriptors left), instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections being told that there are too many; beyond that they are just closed.
const REFUSALS_MAX: usize = 64;

/// The bounds of one server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections. Each may hold 256 KiB of buffers.
    pub connections_max: usize,
    /// Requests being answered at once, over all connections.
    pub requests_max: usize,
    /// From a header's first byte to its last.
    pub header_timeout: Duration,
    /// From the end of a response (or from accept) to the end of the next header.
    pub idle_timeout: Duration,
    /// Without one byte of a request's body, or taken of a response.
    pub stall_timeout: Duration,
    /// Bytes of a request's head. AWS allows 8 KiB of headers; a path and a query come on top.
    pub header_bytes_max: usize,
    /// Headers of a request.
    pub headers_max: usize,
    /// Bytes of an XML body: 10,000 parts with checksums, or 1,000 keys of 1,024 escaped bytes, fit in 2 MiB.
    pub xml_bytes_max: usize,
    /// From the wish to end until connections are cut.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            requests_max: 1024,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(30),
            header_bytes_max: 32 * 1024,
            headers_max: 128,
            xml_bytes_max: 2 * 1024 * 1024,
            shutdown_timeout: Duration::from_secs(30),
        }
    }
}

/// A bound socket, tokio's or std's.
pub enum Listener {
    /// Already registered with a runtime.
    Tokio(TcpListener),
    /// To be registered with the runtime that serves.
    Std(std::net::TcpListener),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tokio(listener)
    }
}

impl From<std::net::TcpListener> for Listener {
    fn from(listener: std::net::TcpListener) -> Self {
        Self::Std(listener)
    }
}

/// Why a server did not start.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The listener cannot be used.
    #[error("the listener cannot be used: {0}")]
    Listener(#[from] io::Error),
}

/// Serves until `shutdown` is ready, then lets requests under way end within the limit's time.
///
/// # Errors
/// When the listener cannot be used. What fails on single connections ends those.
pub async fn serve(
    listener: impl Into<Listener>,
    gateway: Gateway,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let listener = match listener.into() {
        Listener::Tokio(listener) => listener,
        Listener::Std(listener) => {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)?
        }
    };
    let mut server = Server::new(gateway, limits);
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = server.tasks.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => server.welcome(stream),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    server.end().await;
    Ok(())
}

struct Server {
    front: Arc<Front>,
    stats: Arc<GatewayStats>,
    http: http1::Builder,
    limits: Limits,
    connections: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Server {
    fn new(gateway: Gateway, limits: Limits) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(limits.idle_timeout)
            .max_headers(limits.headers_max)
            .max_header_size(limits.header_bytes_max)
            .max_buf_size(BUFFER_BYTES_MAX.max(limits.header_bytes_max));
        Self {
            stats: gateway.stats(),
            connections: Arc::new(Semaphore::new(limits.connections_max)),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            front: Arc::new(Front::new(gateway, limits.clone())),
            http,
            limits,
            tasks: JoinSet::new(),
            stop: watch::Sender::new(false),
        }
    }

    fn welcome(&mut self, stream: TcpStream) {
        let Ok(permit) = self.connections.clone().try_acquire_owned() else {
            return self.refuse(stream);
        };
        // Without it a response in two writes would wait for the client's delayed acknowledgement (40 ms).
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let socket = Socket::new(stream, self.limits.header_timeout, self.limits.stall_timeout);
        let connection = converse(self.http.clone(), socket, self.front.clone(), self.stop.subscribe());
        let stats = self.stats.clone();
        stats.connection_opened();
        self.tasks.spawn(async move {
            connection.await;
            stats.connection_closed();
            drop(permit);
        });
    }

    /// Too many connections: says so and closes.
    fn refuse(&mut self, mut stream: TcpStream) {
        const RESPONSE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
            content-type: application/xml\r\ncontent-length: 114\r\nconnection: close\r\nretry-after: 1\r\n\r\n\
            <?xml version=\"1.0\" encoding=\"UTF-8\"?>\
            <Error><Code>SlowDown</Code><Message>Too many connections.</Message></Error>";
        self.stats.connection_refused();
        let Ok(permit) = self.refusals.clone().try_acquire_owned() else { return };
        self.tasks.spawn(async move {
            let said = timeout(ACCEPT_PAUSE, stream.write_all(RESPONSE)).await;
            if matches!(said, Ok(Ok(()))) {
                linger(stream).await;
            }
            drop(permit);
        });
    }

    async fn end(mut self) {
        self.stop.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(self.limits.shutdown_timeout, all).await.is_err() {
            tracing::warn!(connections = self.tasks.len(), "connections are cut: they did not end in time");
            self.tasks.shutdown().await;
        }
    }
}

/// One connection from its first byte to its last.
async fn converse(http: http1::Builder, socket: Socket, front: Arc<Front>, mut stop: watch::Receiver<bool>) {
    let phase = socket.phase();
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = front.clone().answer(request, phase.clone());
        Box::pin(async move { Ok::<_, std::convert::Infallible>(answer.await) })
    });
    let mut connection = http.serve_connection(TokioIo::new(socket), service);
    let mut stopping = *stop.borrow();
    if stopping {
        Pin::new(&mut connection).graceful_shutdown();
    }
    let outcome = loop {
        tokio::select! {
            outcome = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break outcome,
            changed = stop.changed(), if !stopping => {
                stopping = true;
                if changed.is_ok() {
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
        }
    };
    match outcome {
        Ok(()) => linger(connection.into_parts().io.into_inner()).await,
        // The socket is dropped at once: a response that broke off must not look whole.
        Err(error) => tracing::debug!(%error, "a connection ended early"),
    }
}
