//! A listener: TCP accepted, TLS shaken, strangers refused; what comes out is for tonic's `serve_with_incoming`.
//!
//! Invariants, whatever comes in:
//! - Handshakes under way, connections, connections of one peer, and the time of each handshake have bounds
//!   ([`Settings`]). What is held for a stranger is one socket and one TLS state.
//! - When all places for handshakes are taken, the oldest one of the address that holds most of them makes room: a
//!   crowd that never finishes pushes out its own, and a good peer's handshake takes a few milliseconds.
//! - A refusal is counted and logged with its reason; nothing a stranger sends ends the stream.
//! - Dropping the listener ends its handshakes.
//!
//! Left out: requests. Their number, size and time are bounded by the server that the connections are given to.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::identity::PeerKind;
use crate::listen_count::{Counts, Refusal};
use crate::tls::{ALPN, Admit, Credentials, TlsError, peer_of};
use crate::tls_conn::{Conn, Peer, Place, RECHECK, guard};
use crate::tls_verify::PeerRefused;

/// A pause after a socket could not be accepted: there are no file descriptors then, and trying at once burns a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener's bounds.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Handshakes under way at most. One holds up to about 100 KiB, so 128 hold 13 MiB.
    pub handshakes_max: usize,
    /// How long a handshake may take: several round trips around the world, with losses.
    pub handshake_timeout: Duration,
    /// Connections at most. Every node of a large rack may hold a few to each other.
    pub connections_max: usize,
    /// Connections of one peer at most, so that one that goes wild leaves room for the others.
    pub connections_per_peer_max: usize,
    /// Connections without a certificate at most; they are for joining.
    pub anonymous_max: usize,
    /// Those from one address.
    pub anonymous_per_address_max: usize,
    /// How long one without a certificate may stay: joining takes one request.
    pub anonymous_life: Duration,
    /// How often a connection's certificate is looked at.
    pub recheck: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            handshakes_max: 128,
            handshake_timeout: Duration::from_secs(5),
            connections_max: 4096,
            connections_per_peer_max: 64,
            anonymous_max: 64,
            anonymous_per_address_max: 16,
            anonymous_life: Duration::from_secs(30),
            recheck: RECHECK,
        }
    }
}

/// Why a listener cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be listened to.
    #[error("cannot listen on {address}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A connection from a peer that has passed.
pub type Incoming = Conn<TlsStream<TcpStream>>;

/// Accepts peers. A stream of [`Incoming`] that never ends and never fails.
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    credentials: Arc<Credentials>,
    settings: Settings,
    counts: Arc<Counts>,
    places: Arc<Places>,
    handshakes: JoinSet<Result<Shaken, Failed>>,
    /// Those of `handshakes` that were not pushed out, oldest first.
    waiting: VecDeque<Waiting>,
    pause: Option<Pin<Box<Sleep>>>,
}

struct Shaken {
    io: TlsStream<TcpStream>,
    peer: Peer,
}

struct Failed {
    why: Refusal,
    from: SocketAddr,
    detail: String,
}

struct Waiting {
    task: Id,
    from: SocketAddr,
    abort: AbortHandle,
}

impl Listener {
    /// Listens on `address`, for the peers that `admit` says.
    ///
    /// # Errors
    /// [`ListenError`].
    pub async fn bind(
        address: SocketAddr,
        credentials: Arc<Credentials>,
        admit: Admit,
        settings: Settings,
    ) -> Result<Self, ListenError> {
        let bind_error = |source| ListenError::Bind { address, source };
        let tcp = TcpListener::bind(address).await.map_err(bind_error)?;
        let address = tcp.local_addr().map_err(bind_error)?;
        let acceptor = TlsAcceptor::from(credentials.server_config(admit)?);
        let counts = Counts::new(credentials.clock());
        let places = Arc::new(Places { counts: Arc::clone(&counts), taken: Mutex::default() });
        let (handshakes, waiting) = (JoinSet::new(), VecDeque::new());
        Ok(Self { tcp, address, acceptor, credentials, settings, counts, places, handshakes, waiting, pause: None })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has let in and refused.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    fn start_handshake(&mut self, tcp: TcpStream, from: SocketAddr) {
        while self.waiting.len() >= self.settings.handshakes_max.max(1) {
            self.push_out();
        }
        let (acceptor, limit) = (self.acceptor.clone(), self.settings.handshake_timeout);
        let abort = self.handshakes.spawn(async move {
            let failed = |why, detail: String| Failed { why, from, detail };
            // Small messages go out as they are; a refusal here is no reason to refuse the peer.
            let _ = tcp.set_nodelay(true);
            match timeout(limit, acceptor.accept(tcp)).await {
                Ok(Ok(io)) => shaken(io, from).map_err(|(why, detail)| failed(why, detail)),
                Ok(Err(error)) => Err(failed(Refusal::of_handshake(&error), error.to_string())),
                Err(_) => Err(failed(Refusal::Slow, format!("no end of the handshake after {limit:?}"))),
            }
        });
        self.waiting.push_back(Waiting { task: abort.id(), from, abort });
        self.counts.set_handshakes(self.waiting.len());
    }

    /// Ends the oldest handshake of the address that holds most of them.
    fn push_out(&mut self) {
        let mut held: BTreeMap<IpAddr, usize> = BTreeMap::new();
        self.waiting.iter().for_each(|one| *held.entry(network(one.from.ip())).or_default() += 1);
        let most = held.iter().max_by_key(|(_, count)| **count).map(|(address, _)| *address);
        let oldest = self.waiting.iter().position(|one| Some(network(one.from.ip())) == most);
        if let Some(one) = oldest.and_then(|at| self.waiting.remove(at)) {
            one.abort.abort();
            self.counts.refuse(Refusal::Crowded, Some(one.from), &"all places for handshakes were taken");
        }
    }

    fn finished(&mut self, task: Id) {
        self.waiting.retain(|one| one.task != task);
        self.counts.set_handshakes(self.waiting.len());
    }

    fn admit(&self, shaken: Shaken) -> Option<Incoming> {
        let Shaken { io, peer } = shaken;
        let Some(place) = self.places.take(&peer, &self.settings) else {
            self.counts.refuse(Refusal::TooMany, Some(peer.address()), &"all places for such connections are taken");
            return None;
        };
        let credentials = Arc::clone(&self.credentials);
        let guard = guard(credentials, &peer, self.settings.recheck, self.settings.anonymous_life);
        Some(Conn::new(io, peer, guard, Some(Box::new(place))))
    }

    fn poll_handshakes(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        while let Poll::Ready(Some(ended)) = self.handshakes.poll_join_next_with_id(context) {
            match ended {
                Ok((task, outcome)) => {
                    self.finished(task);
                    match outcome {
                        Ok(shaken) => {
                            if let Some(conn) = self.admit(shaken) {
                                return Poll::Ready(conn);
                            }
                        }
                        Err(failed) => {
                            self.counts.refuse(failed.why, Some(failed.from), &failed.detail);
                        }
                    }
                }
                // Pushed out, and counted then; or a panic in the TLS library, which ends this handshake alone.
                Err(error) => {
                    self.finished(error.id());
                    if error.is_panic() {
                        self.counts.refuse(Refusal::NotTls, None, &"the handshake panicked");
                    }
                }
            }
        }
        Poll::Pending
    }

    /// Takes one socket in. Ready when there may be more.
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        // Handshakes that were pushed out are gone only when the runtime has dropped them: they are waited for, so that
        // the bound holds for sockets, too.
        if self.handshakes.len() >= 2 * self.settings.handshakes_max.max(1) {
            return Poll::Pending;
        }
        match std::task::ready!(self.tcp.poll_accept(context)) {
            Ok((tcp, from)) => self.start_handshake(tcp, from),
            Err(error) => {
                self.counts.refuse(Refusal::Accept, None, &error);
                self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
            }
        }
        Poll::Ready(())
    }
}

impl Stream for Listener {
    type Item = Result<Incoming, io::Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Poll::Ready(conn) = this.poll_handshakes(context) {
                return Poll::Ready(Some(Ok(conn)));
            }
            // A handshake that has just begun must be polled for, so the loop goes round after every socket. It ends:
            // tokio makes a socket Pending when the task has had its share.
            std::task::ready!(this.poll_accept(context));
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({}, {:?})", self.address, self.counts)
    }
}

fn shaken(io: TlsStream<TcpStream>, from: SocketAddr) -> Result<Shaken, (Refusal, String)> {
    let (_, session) = io.get_ref();
    if session.alpn_protocol() != Some(ALPN) {
        return Err((Refusal::NotTls, "the peer does not speak HTTP/2".to_owned()));
    }
    match peer_of(session.peer_certificates()) {
        Ok(identity) => Ok(Shaken { io, peer: Peer::new(identity, from) }),
        Err(error) => Err((Refusal::BadCertificate, error.to_string())),
    }
}

/// Addresses that are one stranger's: a host has a whole /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

/// Who holds how many connections.
struct Places {
    counts: Arc<Counts>,
    taken: Mutex<BTreeMap<Holder, usize>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Peer(PeerKind),
    Anonymous(IpAddr),
}

impl Places {
    fn take(self: &Arc<Self>, peer: &Peer, settings: &Settings) -> Option<Taken> {
        let holder = match peer.identity() {
            Some(identity) => Holder::Peer(identity.kind.clone()),
            None => Holder::Anonymous(network(peer.address().ip())),
        };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(&holder).copied().unwrap_or_default();
        let all: usize = taken.values().sum();
        let anonymous: usize =
            taken.iter().filter(|(holder, _)| matches!(holder, Holder::Anonymous(_))).map(|(_, count)| count).sum();
        let room = match holder {
            Holder::Peer(_) => own < settings.connections_per_peer_max,
            Holder::Anonymous(_) => own < settings.anonymous_per_address_max && anonymous < settings.anonymous_max,
        };
        if !room || all >= settings.connections_max {
            return None;
        }
        *taken.entry(holder.clone()).or_default() += 1;
        self.counts.opened();
        Some(Taken { places: Arc::clone(self), holder })
    }
}

/// One connection's place.
struct Taken {
    places: Arc<Places>,
    holder: Holder,
}

impl Place for Taken {
    fn broken(&self, peer: &Peer, why: &PeerRefused) {
        self.places.counts.refuse(Refusal::of_peer(why), Some(peer.address()), why);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.holder);
            }
        }
        self.places.counts.closed();
    }
}
