//! The controller's process: the store, the lead, the listener and its services.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Entropy};
use catalog::{Facts, FactsError};
use enrolment::{Authority, AuthorityError};
use thiserror::Error;
use tokio::time::sleep;
use tonic::transport::Server;
use wire::controller::{AdminServer, EnrolmentServer, MESSAGE_BYTES_MAX, REQUEST_BYTES_MAX, RackServer};
use wire::identity_key::Identity;
use wire::listen::{ListenError, Listener, Settings};
use wire::tls::{Admit, Credentials, TlsError};

use crate::admin_service::AdminService;
use crate::authority::{AUTHORITY, Enroller};
use crate::enrolment_service::EnrolmentService;
use crate::keys::KeyRing;
use crate::rack_service::RackService;
use crate::shared::Shared;
use crate::state::State;

/// Between looks at keys and refusals that another controller may have changed.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// Requests of one connection at once.
const STREAMS_MAX: u32 = 64;

/// Why a controller does not serve.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The store holds no cluster.
    #[error("there is no cluster here: `holdfast cluster create` makes one")]
    NoCluster,
    /// The store.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// The authority's certificate or key.
    #[error("the cluster's authority: {0}")]
    Authority(#[from] AuthorityError),
    /// The controller's own certificate.
    #[error("the controller's certificate: {0}")]
    Tls(#[from] TlsError),
    /// The address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The listener ended.
    #[error("the listener failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// What a controller runs on.
pub struct ControllerConfig {
    /// The store.
    pub facts: Arc<dyn Facts>,
    /// What it is called.
    pub name: String,
    /// Its certificate.
    pub identity: Identity,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

/// Serves until `stop` ends. `ready` hears the address in use.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(
    config: ControllerConfig,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let ControllerConfig { facts, name, identity, listen, clock, entropy } = config;
    let pem = facts.get(AUTHORITY).await?.ok_or(ServeError::NoCluster)?;
    let pem = std::str::from_utf8(&pem.value).map_err(|_| AuthorityError::Malformed("the authority is no text"))?;
    let authority = Authority::from_pem(pem)?;
    let credentials = Credentials::new(&identity, Arc::clone(&clock))?;
    let state = State::new(Arc::clone(&facts), Arc::clone(&clock), Arc::clone(&entropy), name);
    let enroller =
        Enroller::new(Arc::clone(&facts), clock, entropy, authority, Arc::clone(&credentials), Arc::clone(&state));
    let shared = Arc::new(Shared { state: Arc::clone(&state), authority: enroller, keys: KeyRing::new(facts) });
    let listener = Listener::bind(listen, credentials, Admit::CONTROLLER, Settings::default()).await?;
    ready(listener.address());
    let rack = RackServer::new(RackService(Arc::clone(&shared)))
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let admin = AdminServer::new(AdminService(Arc::clone(&shared)))
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let enrolment = EnrolmentServer::new(EnrolmentService(Arc::clone(&shared))).max_decoding_message_size(64 << 10);
    let server = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .add_service(rack)
        .add_service(admin)
        .add_service(enrolment)
        .serve_with_incoming_shutdown(listener, stop);
    tokio::select! {
        served = server => served.map_err(ServeError::from),
        () = state.lead() => Ok(()),
        () = refresh(&shared) => Ok(()),
    }
}

async fn refresh(shared: &Shared) {
    loop {
        for done in [shared.keys.refresh().await, shared.authority.refresh_refused().await] {
            if let Err(fault) = done {
                tracing::warn!(%fault, "keys or refusals could not be looked at");
            }
        }
        sleep(REFRESH_EVERY).await;
    }
}
