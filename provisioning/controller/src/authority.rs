//! Joining, renewing and refusing: enrolment's rules over the store of small facts.
//!
//! Invariants: a token's use is stored, by compare-and-set, before its certificate is handed out; a node is a member
//! before it has a certificate; a refused node is stored as such before the answer.

use std::sync::Arc;

use base::{Clock, ClusterId, Entropy, NodeId};
use bytes::Bytes;
use catalog::{Commit, Facts, FactsError, Outcome};
use enrolment::{Authority, Issued, Joiner, RequestedKey, RevocationList, TokenRow, redeem};
use membership::Input;
use wire::Fault;
use wire::controller::{JoinReply, JoinRequest, RenewReply, Token};
use wire::identity::{IdentityError, PeerIdentity, PeerKind, Role};
use wire::identity_token::JoinToken;
use wire::tls::Credentials;

use crate::convert;
use crate::state::State;

/// Where the authority, tokens and refusals are.
pub(crate) const AUTHORITY: &str = "authority";
const TOKENS: &str = "tokens/";
const REVOKED: &str = "revoked";
/// Tries of a compare-and-set that others win.
const TRIES: usize = 8;
/// Tokens that may be waiting.
const TOKENS_MAX: usize = 10_000;

/// See the file's header.
pub(crate) struct Enroller {
    facts: Arc<dyn Facts>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    authority: Authority,
    credentials: Arc<Credentials>,
    state: Arc<State>,
}

fn store_failed(error: &FactsError) -> Fault {
    tracing::error!(%error, "the store of facts failed");
    Fault::Busy("the controller's store does not answer".into())
}

fn stale() -> Fault {
    Fault::Busy("too many changes at once: try again".into())
}

fn all(list: Vec<Vec<u8>>) -> Vec<Bytes> {
    list.into_iter().map(Bytes::from).collect()
}

impl Enroller {
    pub(crate) fn new(
        facts: Arc<dyn Facts>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        authority: Authority,
        credentials: Arc<Credentials>,
        state: Arc<State>,
    ) -> Self {
        Self { facts, clock, entropy, authority, credentials, state }
    }

    pub(crate) fn cluster(&self) -> ClusterId {
        self.authority.cluster()
    }

    fn key(csr: &[u8]) -> Result<RequestedKey, Fault> {
        RequestedKey::from_csr(csr).map_err(|error| Fault::Invalid(error.to_string()))
    }

    fn issue(&self, key: &RequestedKey, holder: PeerKind) -> Result<Issued, Fault> {
        let issued = self.authority.issue(key, holder, self.clock.unix_ms(), &*self.entropy);
        issued.map_err(|error| Fault::Invalid(error.to_string()))
    }

    /// Admits the bearer of a token.
    pub(crate) async fn join(&self, request: JoinRequest) -> Result<JoinReply, Fault> {
        let key = Self::key(&request.csr)?;
        let token = JoinToken::parse(&request.token).map_err(|error| Fault::NotAllowed(error.to_string()))?;
        let facts = convert::node_facts(request.facts)?;
        let node = self.redeem(&token, &key).await?;
        let (clock_ms, protocol) = (request.clock_ms, request.protocol);
        self.state.ask(Input::NodeJoined { node, facts: facts.clone(), clock_ms, protocol }).await?;
        let issued = self.issue(&key, PeerKind::Node(node))?;
        tracing::info!(%node, name = facts.name, token = %token.id(), "a node has joined");
        Ok(JoinReply {
            node: node.0.to_vec().into(),
            cluster: self.cluster().0.to_vec().into(),
            chain: all(issued.chain),
            roots: all(issued.roots),
        })
    }

    async fn redeem(&self, token: &JoinToken, key: &RequestedKey) -> Result<NodeId, Fault> {
        let path = format!("{TOKENS}{}", token.id());
        for _ in 0..TRIES {
            let fact = self.facts.get(&path).await.map_err(|error| store_failed(&error))?;
            let row = fact.as_ref().and_then(|fact| serde_json::from_slice::<TokenRow>(&fact.value).ok());
            let mut fresh = [0; 16];
            self.entropy.fill(&mut fresh);
            let now_ms = self.clock.unix_ms();
            let joiner = Joiner { key, fresh: NodeId(fresh) };
            let (revoked, _) = self.revoked().await?;
            let redeemed = redeem(row.as_ref(), token, self.authority.fingerprint(), joiner, &revoked, now_ms);
            let redeemed = redeemed.map_err(|refusal| {
                tracing::warn!(token = %token.id(), %refusal, "a join is refused");
                Fault::NotAllowed(refusal.to_string())
            })?;
            let (Some(store), Some(fact)) = (redeemed.store, fact) else { return Ok(redeemed.node) };
            let row = serde_json::to_vec(&store).map_err(|_| Fault::Invalid("the token does not encode".into()))?;
            let commit = Commit::new().check(path.clone(), fact.revision).put(path.clone(), row);
            match self.facts.commit(commit).await.map_err(|error| store_failed(&error))? {
                Outcome::Committed { .. } => return Ok(redeemed.node),
                Outcome::Conflict { .. } => {}
            }
        }
        Err(stale())
    }

    /// A fresh certificate for a node that has one.
    pub(crate) async fn renew(&self, peer: &PeerIdentity, csr: &[u8]) -> Result<RenewReply, Fault> {
        let key = Self::key(csr)?;
        let (revoked, _) = self.revoked().await?;
        let issued = self.authority.renew(peer, &key, &revoked, self.clock.unix_ms(), &*self.entropy);
        let issued = issued.map_err(|error| Fault::NotAllowed(error.to_string()))?;
        Ok(RenewReply { chain: all(issued.chain), roots: all(issued.roots) })
    }

    /// A certificate for an operator.
    pub(crate) async fn issue_operator(&self, csr: &[u8], name: &str, role: &str) -> Result<RenewReply, Fault> {
        let role: Role = role.parse().map_err(|error: IdentityError| Fault::Invalid(error.to_string()))?;
        let issued = self.issue(&Self::key(csr)?, PeerKind::Operator { name: name.to_owned(), role })?;
        Ok(RenewReply { chain: all(issued.chain), roots: all(issued.roots) })
    }

    /// Makes a token.
    pub(crate) async fn create_token(&self, ttl_s: u64, comment: &str) -> Result<Token, Fault> {
        let now_ms = self.clock.unix_ms();
        if self.prune_tokens(now_ms).await? >= TOKENS_MAX {
            return Err(Fault::Invalid(format!("there are {TOKENS_MAX} tokens, the most there may be")));
        }
        let life_ms = ttl_s.saturating_mul(1000);
        let made = TokenRow::create(self.authority.fingerprint(), life_ms, comment.to_owned(), now_ms, &*self.entropy);
        let (row, token) = made.map_err(|error| Fault::Invalid(error.to_string()))?;
        let path = format!("{TOKENS}{}", row.id);
        let bytes = serde_json::to_vec(&row).map_err(|_| Fault::Invalid("the token does not encode".into()))?;
        let commit = Commit::new().check(path.clone(), 0).put(path, bytes);
        match self.facts.commit(commit).await.map_err(|error| store_failed(&error))? {
            Outcome::Committed { .. } => Ok(Token { token: token.expose().to_string(), ..shown(&row) }),
            Outcome::Conflict { .. } => Err(stale()),
        }
    }

    /// Tokens that have not expired, without their secrets.
    pub(crate) async fn tokens(&self) -> Result<Vec<Token>, Fault> {
        let listing = self.facts.list(TOKENS).await.map_err(|error| store_failed(&error))?;
        let now_ms = self.clock.unix_ms();
        let rows = listing.facts.iter().filter_map(|fact| serde_json::from_slice::<TokenRow>(&fact.value).ok());
        Ok(rows.filter(|row| !row.is_over(now_ms)).map(|row| shown(&row)).collect())
    }

    /// Forgets tokens that are over; gives how many are left.
    async fn prune_tokens(&self, now_ms: u64) -> Result<usize, Fault> {
        let listing = self.facts.list(TOKENS).await.map_err(|error| store_failed(&error))?;
        let mut left = 0;
        for fact in &listing.facts {
            let over = serde_json::from_slice::<TokenRow>(&fact.value).is_ok_and(|row| row.is_over(now_ms));
            if !over {
                left += 1;
                continue;
            }
            let commit = Commit::new().check(fact.key.clone(), fact.revision).delete(fact.key.clone());
            self.facts.commit(commit).await.map_err(|error| store_failed(&error))?;
        }
        Ok(left)
    }

    async fn revoked(&self) -> Result<(RevocationList, u64), Fault> {
        let Some(fact) = self.facts.get(REVOKED).await.map_err(|error| store_failed(&error))? else {
            return Ok((RevocationList::default(), 0));
        };
        // What does not parse must not let anybody in again.
        let list = serde_json::from_slice(&fact.value).map_err(|_| {
            tracing::error!("the list of refused certificates does not parse");
            Fault::Busy("the list of refused certificates cannot be read".into())
        })?;
        Ok((list, fact.revision))
    }

    /// Lets the listener know whom it refuses.
    pub(crate) async fn refresh_refused(&self) -> Result<(), Fault> {
        let (list, _) = self.revoked().await?;
        self.credentials.refuse(list.refused());
        Ok(())
    }

    /// Refuses a node from now on, with every certificate that it has.
    pub(crate) async fn refuse_node(&self, node: NodeId) -> Result<(), Fault> {
        for _ in 0..TRIES {
            let (mut list, revision) = self.revoked().await?;
            let now_ms = self.clock.unix_ms();
            list.prune(now_ms);
            list.revoke_node(node, now_ms);
            let bytes = serde_json::to_vec(&list).map_err(|_| Fault::Invalid("the list does not encode".into()))?;
            let commit = Commit::new().check(REVOKED, revision).put(REVOKED, bytes);
            if let Outcome::Committed { .. } = self.facts.commit(commit).await.map_err(|error| store_failed(&error))? {
                self.credentials.refuse(list.refused());
                return Ok(());
            }
        }
        Err(stale())
    }
}

fn shown(row: &TokenRow) -> Token {
    Token {
        token: String::new(),
        id: row.id.to_string(),
        expires_ms: row.expires_ms,
        comment: row.comment.clone(),
        used: row.used.is_some(),
    }
}
