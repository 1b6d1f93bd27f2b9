//! Making a cluster: the authority, the first administrator and the first controller, and the empty membership.
//!
//! Order, so that a crash between any two steps leaves something that can be done again: nothing is in the store
//! before the authority is, and the membership is last; a store that holds an authority is refused.

use std::sync::Arc;

use base::{Clock, ClusterId, Entropy};
use catalog::{Commit, Facts, FactsError, Outcome, Writer};
use enrolment::{Authority, AuthorityError, RequestError, RequestedKey};
use membership::{Input, Limits, Membership, Output};
use placement::map::Policy;
use thiserror::Error;
use wire::identity::{PeerKind, Role};
use wire::identity_key::{Identity, Key, KeyError};

use crate::authority::AUTHORITY;
use crate::rows::{Rows, RowsError};

/// Why a cluster was not made.
#[derive(Debug, Error)]
pub enum CreateError {
    /// There is one.
    #[error("there is a cluster here already")]
    Exists,
    /// The policy or a limit makes no sense.
    #[error("{0}")]
    Refused(String),
    /// The store.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// The store, again.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// The authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A request for a certificate.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// A cluster that has just been made.
pub struct Created {
    /// Which.
    pub cluster: ClusterId,
    /// The first controller's certificate.
    pub controller: Identity,
    /// The first administrator's certificate.
    pub administrator: Identity,
}

/// Makes a cluster in an empty store.
///
/// # Errors
/// [`CreateError`].
pub async fn create(
    facts: Arc<dyn Facts>,
    policy: Policy,
    controller: &str,
    administrator: &str,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> Result<Created, CreateError> {
    if facts.get(AUTHORITY).await?.is_some() {
        return Err(CreateError::Exists);
    }
    let mut id = [0; 16];
    entropy.fill(&mut id);
    let (cluster, now_ms) = (ClusterId(id), clock.unix_ms());
    let mut membership = Membership::new();
    let said = membership.step(now_ms, Input::ClusterCreated { cluster, policy, limits: Limits::default() });
    let mut rows = Vec::new();
    for output in said {
        match output {
            Output::Refused(reason) => return Err(CreateError::Refused(reason.to_string())),
            Output::RowsChanged { rows: changed, .. } => rows.extend(changed),
            _ => {}
        }
    }
    let authority = Authority::create(cluster, now_ms, entropy)?;
    let issue = |holder: PeerKind| -> Result<Identity, CreateError> {
        let key = Key::generate()?;
        let issued = authority.issue(&RequestedKey::from_csr(&key.csr()?)?, holder, now_ms, entropy)?;
        Ok(Identity::from_der(issued.chain, key, issued.roots)?)
    };
    let made = Created {
        cluster,
        controller: issue(PeerKind::Controller(controller.to_owned()))?,
        administrator: issue(PeerKind::Operator { name: administrator.to_owned(), role: Role::Admin })?,
    };
    let leadership = facts.lead("controller", controller).await?;
    let writer = Writer::claim(Arc::clone(&facts), entropy, controller).await?;
    let mut store = Rows::new(Arc::clone(&facts), writer, leadership.fence().clone());
    store.store(rows).await?;
    let pem = authority.to_pem();
    let commit = Commit::new().fenced(leadership.fence()).check(AUTHORITY, 0).put(AUTHORITY, pem.as_bytes().to_vec());
    match facts.commit(commit).await? {
        Outcome::Committed { .. } => {}
        Outcome::Conflict { .. } => return Err(CreateError::Exists),
    }
    leadership.resign().await?;
    Ok(made)
}
