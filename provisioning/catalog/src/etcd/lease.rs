//! Leadership by an etcd lease: taking it, keeping it alive, knowing when it is over.
//!
//! Invariants:
//! - the leader's key is put in one transaction that checks its absence, bound to a lease: when the lease runs out, etcd
//!   deletes the key, and the next leader's key has another revision;
//! - the end of the lease is reckoned from before a renewal was sent, so this host stops believing in it before etcd does,
//!   as long as the two clocks run at about the same speed;
//! - dropping the leadership ends its keeping; the name is free when the lease has run out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base::Clock;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::pb::kv_client::KvClient;
use super::pb::lease_client::LeaseClient;
use super::servers::Servers;
use super::{EtcdFacts, corrupt, has_revision, header_revision, operation, pb, signed, unsigned};
use crate::facts::{FactsError, FactsResult, Fence, Leadership, Lease};

/// Renewals in the life of a lease: two may go wrong before it is in danger.
const RENEWALS: u32 = 4;
/// Attempts in the life of a lease when renewing goes wrong.
const ATTEMPTS: u32 = 20;

/// See [`crate::Facts::lead`].
pub(super) async fn lead(facts: &EtcdFacts, name: &str, who: &str) -> FactsResult<Leadership> {
    let key = facts.name(name);
    let held = facts.range(pb::RangeRequest { key: key.clone(), ..Default::default() }).await?;
    if let Some(leader) = held.kvs.first() {
        return Err(led(&leader.value));
    }
    let asked_at = facts.clock.monotonic();
    let lease = grant(&facts.servers).await?;
    let request = pb::TxnRequest {
        compare: vec![has_revision(key.clone(), 0)],
        success: vec![operation(pb::request_op::Request::RequestPut(pb::PutRequest {
            key: key.clone(),
            value: who.to_owned().into(),
            lease: lease.id,
        }))],
        failure: vec![operation(pb::request_op::Request::RequestRange(pb::RangeRequest { key, ..Default::default() }))],
    };
    let answer = facts
        .servers
        .write(|channel| {
            let request = request.clone();
            async move { KvClient::new(channel).txn(request).await }
        })
        .await;
    let revision = match answer {
        Ok(answer) if answer.succeeded => header_revision(answer.header.as_ref())?,
        Ok(answer) => {
            let _ = revoke(&facts.servers, lease.id).await;
            return Err(match answer.responses.first().and_then(|response| response.response.as_ref()) {
                Some(pb::response_op::Response::ResponseRange(range)) if !range.kvs.is_empty() => {
                    led(&range.kvs[0].value)
                }
                _ => corrupt("an answer of etcd", "a leader's key is there and is not"),
            });
        }
        // If it was put, it goes with the lease: nobody keeps that one alive.
        Err(error) if error.is_outcome_unknown() => return Err(FactsError::Unavailable(error.to_string())),
        Err(error) => return Err(error),
    };
    let fence = Fence { name: name.to_owned(), revision };
    Ok(Leadership::new(fence, Box::new(Kept::start(facts, name, &lease, asked_at)?)))
}

fn led(who: &[u8]) -> FactsError {
    FactsError::Led { by: String::from_utf8_lossy(who).into_owned() }
}

async fn grant(servers: &Servers) -> FactsResult<pb::LeaseGrantResponse> {
    // A lease that was granted and not heard of runs out by itself, so asking twice does no harm.
    let request = pb::LeaseGrantRequest { ttl: signed(servers.config.lease_ttl.as_secs()), id: 0 };
    servers.read(|channel| async move { LeaseClient::new(channel).lease_grant(request).await }).await
}

async fn revoke(servers: &Servers, id: i64) -> FactsResult<()> {
    let ask = |channel| async move { LeaseClient::new(channel).lease_revoke(pb::LeaseRevokeRequest { id }).await };
    match servers.read(ask).await {
        Ok(_) => Ok(()),
        // It has run out already.
        Err(FactsError::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Renews once; the seconds it lives from now, or 0 when it is over.
async fn renew(servers: &Servers, id: i64, limit: Duration) -> FactsResult<u64> {
    let answer = servers
        .read_within(limit, |channel| async move {
            let one = futures::stream::iter([pb::LeaseKeepAliveRequest { id }]);
            let mut answers = LeaseClient::new(channel).lease_keep_alive(one).await?.into_inner();
            match answers.message().await? {
                Some(answer) => Ok(tonic::Response::new(answer)),
                None => Err(tonic::Status::unavailable("the stream ended without an answer")),
            }
        })
        .await?;
    unsigned(answer.ttl)
}

async fn compact(servers: &Servers, revision: u64) -> FactsResult<()> {
    let request = pb::CompactionRequest { revision: signed(revision) };
    match servers.read(|channel| async move { KvClient::new(channel).compact(request).await }).await {
        Ok(_) => Ok(()),
        // Another one compacted further.
        Err(FactsError::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A lease that a task keeps alive.
struct Kept {
    shared: Arc<Shared>,
    held: watch::Receiver<bool>,
    keeper: JoinHandle<()>,
}

struct Shared {
    servers: Arc<Servers>,
    clock: Arc<dyn Clock>,
    name: String,
    id: i64,
    /// Microseconds of the clock until which the lease lives at least.
    until_us: AtomicU64,
}

impl Kept {
    fn start(facts: &EtcdFacts, name: &str, lease: &pb::LeaseGrantResponse, asked_at: Duration) -> FactsResult<Self> {
        let ttl = Duration::from_secs(unsigned(lease.ttl)?);
        let shared = Arc::new(Shared {
            servers: facts.servers.clone(),
            clock: facts.clock.clone(),
            name: name.to_owned(),
            id: lease.id,
            until_us: AtomicU64::new(micros(asked_at + ttl)),
        });
        let (tell, held) = watch::channel(true);
        let own = shared.clone();
        let keeper = tokio::spawn(async move {
            let compacting = async {
                match own.servers.config.compact_every {
                    Some(every) => own.compact(every).await,
                    None => std::future::pending().await,
                }
            };
            futures::future::select(std::pin::pin!(own.keep(ttl)), std::pin::pin!(compacting)).await;
            tell.send_replace(false);
        });
        Ok(Self { shared, held, keeper })
    }
}

impl Shared {
    /// How long the lease lives at least, if it still does.
    fn left(&self) -> Option<Duration> {
        let left = self.until_us.load(Ordering::Acquire).checked_sub(micros(self.clock.monotonic()))?;
        (left > 0).then(|| Duration::from_micros(left))
    }

    /// Renews until that fails for as long as the lease lives.
    async fn keep(&self, mut ttl: Duration) {
        let mut pause = ttl / RENEWALS;
        while let Some(left) = self.left() {
            tokio::time::sleep(pause.min(left)).await;
            let asked_at = self.clock.monotonic();
            // One silent server must not cost the lease.
            let renewal = renew(&self.servers, self.id, ttl / RENEWALS);
            match tokio::time::timeout(self.left().unwrap_or_default(), renewal).await {
                Ok(Ok(0)) => {
                    tracing::warn!(name = self.name, "the lease has run out: no longer the leader");
                    return;
                }
                Ok(Ok(seconds)) => {
                    ttl = Duration::from_secs(seconds);
                    self.until_us.store(micros(asked_at + ttl), Ordering::Release);
                    pause = ttl / RENEWALS;
                }
                Ok(Err(error)) => {
                    tracing::warn!(name = self.name, %error, "the lease was not renewed");
                    pause = ttl / ATTEMPTS;
                }
                Err(_) => break,
            }
        }
        tracing::warn!(name = self.name, "the lease was not renewed in time: no longer the leader");
    }

    /// Lets etcd forget what was the past one interval ago.
    async fn compact(&self, every: Duration) {
        let mut past = None;
        loop {
            let now = self.servers.read(|channel| async move {
                let probe = pb::RangeRequest { key: "\0".into(), keys_only: true, ..Default::default() };
                KvClient::new(channel).range(probe).await
            });
            let now = now.await.and_then(|answer| header_revision(answer.header.as_ref()));
            if let Some(revision) = past
                && let Err(error) = compact(&self.servers, revision).await
            {
                tracing::warn!(%error, "the past was not compacted");
            }
            past = now.ok();
            tokio::time::sleep(every).await;
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

#[async_trait]
impl Lease for Kept {
    fn is_held(&self) -> bool {
        *self.held.borrow() && self.shared.left().is_some()
    }

    async fn lost(&self) {
        // An error means that the task is gone, and the keeping with it.
        let _ = self.held.clone().wait_for(|held| !held).await;
    }

    async fn release(&mut self) -> FactsResult<()> {
        self.keeper.abort();
        self.shared.until_us.store(0, Ordering::Release);
        revoke(&self.shared.servers, self.shared.id).await
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
