//! A connection that has passed its handshake, and whom it belongs to.
//!
//! Invariant: a [`Conn`] breaks when its peer may not speak any more: at once when the peer is newly refused, and within
//! [`RECHECK`] of the certificate's end. (A connection in use would otherwise outlive both for ever.)

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base::NodeId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::{Request, Status};

use crate::identity::{PeerIdentity, PeerKind, Role};
use crate::tls::Credentials;
use crate::tls_verify::PeerRefused;

/// How often a connection's certificate is looked at: short against its life, long against the cost of a timer.
pub const RECHECK: Duration = Duration::from_secs(60);

/// Whom a request came from; in its extensions.
#[derive(Debug, Clone)]
pub struct Peer {
    identity: Option<Arc<PeerIdentity>>,
    address: SocketAddr,
}

impl Peer {
    pub(crate) fn new(identity: Option<PeerIdentity>, address: SocketAddr) -> Self {
        Self { identity: identity.map(Arc::new), address }
    }

    /// Who sent a request; `None` when it did not come through a [`crate::listen::Listener`].
    #[must_use]
    pub fn of<T>(request: &Request<T>) -> Option<&Self> {
        request.extensions().get()
    }

    /// Who it is; `None` for a peer without a certificate.
    #[must_use]
    pub fn identity(&self) -> Option<&PeerIdentity> {
        self.identity.as_deref()
    }

    /// Where it calls from.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The identity of who sent a request.
///
/// # Errors
/// UNAUTHENTICATED for a peer without a certificate.
pub fn require_identity<T>(request: &Request<T>) -> Result<&PeerIdentity, Status> {
    let identity = Peer::of(request).and_then(Peer::identity);
    identity.ok_or_else(|| Status::unauthenticated("this asks for a certificate of the cluster"))
}

/// The node that sent a request.
///
/// # Errors
/// UNAUTHENTICATED without a certificate, PERMISSION_DENIED for anyone but a node.
pub fn require_node<T>(request: &Request<T>) -> Result<NodeId, Status> {
    let identity = require_identity(request)?;
    identity.node().ok_or_else(|| Status::permission_denied(format!("this is for nodes, not for {}", identity.kind)))
}

/// The name of the operator that sent a request, when its role is at least `role`.
///
/// # Errors
/// UNAUTHENTICATED without a certificate, PERMISSION_DENIED for a lesser role or anyone but an operator.
pub fn require_operator<T>(request: &Request<T>, role: Role) -> Result<&str, Status> {
    match &require_identity(request)?.kind {
        PeerKind::Operator { name, role: own } if *own >= role => Ok(name),
        other => {
            let wants = role.name();
            Err(Status::permission_denied(format!("this asks for an operator with role {wants}, not for {other}")))
        }
    }
}

type Guard = Pin<Box<dyn Future<Output = PeerRefused> + Send>>;

/// A connection with its peer. Breaks when the peer is refused.
pub struct Conn<S> {
    io: S,
    peer: Peer,
    guard: Guard,
    broken: Option<PeerRefused>,
    /// Gives its place back when the connection ends.
    place: Option<Box<dyn Place>>,
}

/// What is held as long as a connection lives.
pub(crate) trait Place: Send + Sync {
    /// The connection is broken for this reason.
    fn broken(&self, peer: &Peer, why: &PeerRefused);
}

impl<S> Conn<S> {
    /// `guard` ends when the peer may not speak any more.
    pub(crate) fn new(io: S, peer: Peer, guard: Guard, place: Option<Box<dyn Place>>) -> Self {
        Self { io, peer, guard, broken: None, place }
    }

    /// Whom it belongs to.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.broken.is_none()
            && let Poll::Ready(why) = self.guard.as_mut().poll(context)
        {
            if let Some(place) = &self.place {
                place.broken(&self.peer, &why);
            }
            self.broken = Some(why);
        }
        self.broken.clone().map_or(Ok(()), |why| Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)))
    }
}

/// Ends when `peer` is refused, or its certificate ends.
pub(crate) async fn until_refused(
    credentials: Arc<Credentials>,
    peer: Arc<PeerIdentity>,
    recheck: Duration,
) -> PeerRefused {
    let mut refused = credentials.watch_refused();
    loop {
        refused.mark_unchanged();
        if let Err(why) = credentials.judge(&peer) {
            return why;
        }
        let left = Duration::from_millis(peer.not_after_ms.saturating_sub(credentials.now_ms()));
        // Either way the peer is judged again: the list has changed, or time has passed. The sender lives in
        // `credentials`, so the change never fails.
        let _ = tokio::time::timeout(left.min(recheck), refused.changed()).await;
    }
}

/// The guard of a connection, from its peer: one without a certificate may stay `anonymous`.
pub(crate) fn guard(credentials: Arc<Credentials>, peer: &Peer, recheck: Duration, anonymous: Duration) -> Guard {
    match &peer.identity {
        Some(identity) => Box::pin(until_refused(credentials, Arc::clone(identity), recheck)),
        None => Box::pin(async move {
            tokio::time::sleep(anonymous).await;
            PeerRefused::AnonymousTooLong
        }),
    }
}

impl<S> Connected for Conn<S> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl<S> fmt::Debug for Conn<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conn({:?})", self.peer)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Conn<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Conn<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
