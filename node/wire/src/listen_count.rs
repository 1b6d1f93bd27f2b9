//! What a listener refuses: named, counted, and logged at a bounded rate.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::Clock;
use rustls::{CertificateError, Error};

use crate::tls_verify::PeerRefused;

/// A reason is logged at once, and then at most this often, with how many were not logged: a flood of refusals must
/// not become a flood of lines.
pub const LOG_INTERVAL: Duration = Duration::from_secs(10);

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a connection was refused or broken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Refusal { $($(#[$doc])* $variant,)* }

        impl Refusal {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name in logs and metrics.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

refusals! {
    /// What came was not TLS, or not TLS that can be spoken here.
    NotTls = "not TLS 1.3",
    /// The handshake took too long.
    Slow = "handshake too slow",
    /// Pushed out of the handshake by newer ones while all places were taken.
    Crowded = "too many handshakes",
    /// The peer went away, or gave up, during the handshake.
    Gone = "gone during the handshake",
    /// No certificate, where one is asked for.
    NoCertificate = "no certificate",
    /// A certificate of an authority that is not ours.
    UnknownAuthority = "unknown authority",
    /// A certificate that is not valid now.
    Expired = "expired certificate",
    /// A certificate that is revoked, or whose node was removed.
    Revoked = "revoked certificate",
    /// A certificate of another cluster.
    OtherCluster = "another cluster",
    /// A peer of a kind that is not served here.
    Kind = "kind not admitted",
    /// A certificate that is wrong otherwise.
    BadCertificate = "bad certificate",
    /// All places for connections are taken, or all that one peer may have.
    TooMany = "too many connections",
    /// A peer without a certificate that stayed too long.
    AnonymousTooLong = "stayed too long without a certificate",
    /// The socket could not be accepted.
    Accept = "accept failed",
}

impl Refusal {
    /// The reason behind a failed handshake.
    pub(crate) fn of_handshake(error: &io::Error) -> Self {
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
            return Self::Gone;
        };
        match tls {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(wrong) => Self::of_certificate(wrong),
            Error::AlertReceived(_) => Self::Gone,
            _ => Self::NotTls,
        }
    }

    fn of_certificate(wrong: &CertificateError) -> Self {
        use CertificateError as C;
        match wrong {
            C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. } => Self::Expired,
            C::Revoked => Self::Revoked,
            C::UnknownIssuer | C::BadSignature => Self::UnknownAuthority,
            C::Other(other) => other.0.downcast_ref().map_or(Self::BadCertificate, Self::of_peer),
            _ => Self::BadCertificate,
        }
    }

    pub(crate) fn of_peer(why: &PeerRefused) -> Self {
        match why {
            PeerRefused::OtherCluster(_) => Self::OtherCluster,
            PeerRefused::Revoked(_) => Self::Revoked,
            PeerRefused::Expired => Self::Expired,
            PeerRefused::Kind(_) => Self::Kind,
            PeerRefused::AnonymousTooLong => Self::AnonymousTooLong,
            PeerRefused::NoPeer(_) | PeerRefused::OtherServer(_) | PeerRefused::OtherAuthority(_) => {
                Self::BadCertificate
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A listener's counts, shared with whoever shows them.
pub struct Counts {
    clock: Arc<dyn Clock>,
    accepted: AtomicU64,
    handshakes: AtomicU64,
    connections: AtomicU64,
    reasons: Vec<Reason>,
}

#[derive(Default)]
struct Reason {
    count: AtomicU64,
    logged: Mutex<Logged>,
}

#[derive(Default)]
struct Logged {
    at: Option<Duration>,
    count: u64,
}

impl Counts {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let reasons = Refusal::ALL.iter().map(|_| Reason::default()).collect();
        let zero = AtomicU64::default;
        Arc::new(Self { clock, accepted: zero(), handshakes: zero(), connections: zero(), reasons })
    }

    /// Connections that passed their handshake so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Handshakes under way.
    #[must_use]
    pub fn handshakes(&self) -> u64 {
        self.handshakes.load(Ordering::Relaxed)
    }

    /// Connections that live now.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// How many were refused for this reason so far.
    #[must_use]
    pub fn refused(&self, why: Refusal) -> u64 {
        self.reasons[why as usize].count.load(Ordering::Relaxed)
    }

    pub(crate) fn set_handshakes(&self, now: usize) {
        self.handshakes.store(now as u64, Ordering::Relaxed);
    }

    pub(crate) fn opened(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a refusal, and logs it if its turn has come. Answers whether it was logged.
    pub(crate) fn refuse(&self, why: Refusal, from: Option<SocketAddr>, detail: &dyn fmt::Display) -> bool {
        let reason = &self.reasons[why as usize];
        let count = reason.count.fetch_add(1, Ordering::Relaxed) + 1;
        let now = self.clock.monotonic();
        let mut logged = reason.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.at.is_some_and(|at| now.saturating_sub(at) < LOG_INTERVAL) {
            return false;
        }
        let unlogged = count.saturating_sub(logged.count + 1);
        *logged = Logged { at: Some(now), count };
        drop(logged);
        let from = from.map(|from| from.to_string()).unwrap_or_default();
        tracing::warn!(reason = why.name(), from, unlogged, "connection refused: {detail}");
        true
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = f.debug_struct("Counts");
        all.field("accepted", &self.accepted()).field("handshakes", &self.handshakes());
        all.field("connections", &self.connections());
        for why in Refusal::ALL.iter().filter(|why| self.refused(**why) > 0) {
            all.field(why.name(), &self.refused(*why));
        }
        all.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::StepClock;

    #[test]
    fn a_flood_of_refusals_is_counted_whole_and_logged_seldom() {
        let clock = StepClock::default();
        let counts = Counts::new(Arc::new(clock.clone()));
        let mut lines = 0;
        for _ in 0..1000 {
            lines += u64::from(counts.refuse(Refusal::NotTls, None, &"garbage"));
            clock.advance(Duration::from_millis(25));
        }
        // 25 seconds at one line every 10.
        assert_eq!((counts.refused(Refusal::NotTls), lines), (1000, 3));
        assert!(counts.refuse(Refusal::Slow, None, &"slow"), "another reason has a turn of its own");
    }

    #[test]
    fn every_reason_has_its_own_place() {
        for (place, why) in Refusal::ALL.iter().enumerate() {
            assert_eq!(*why as usize, place);
        }
    }
}
