//! Facts on etcd servers: for a rack with several controllers.
//!
//! Invariants:
//! - every key of ours begins with the deployment's prefix, so that one etcd may serve several; facts and leaderships live
//!   side by side below it, and no fact's key can be a leadership's;
//! - reads are linearizable: they are answered by a majority, never from one server's memory;
//! - a commit is one transaction. It is sent to one server; to another one only when it cannot have arrived. What was sent
//!   and not answered is [`FactsError::Unknown`];
//! - a leadership is a key that lives with a lease, and a fence is the check that this key still has the revision of that
//!   leadership: a deposed leader's commit is refused by etcd itself, however late it arrives.
//!
//! Left out on purpose: watches (see [`crate::Facts`]), users and passwords (certificates say who we are), and keeping the
//! servers: members, backups and defragmentation are the operator's.

mod config;
mod door;
mod lease;
mod servers;

use std::sync::Arc;

use async_trait::async_trait;
use base::Clock;

pub use config::{EtcdConfig, EtcdTls};
use pb::kv_client::KvClient;
use servers::Servers;

use crate::facts::{Change, Check, Commit, Fact, Facts, FactsError, FactsResult, Leadership, Listing, Outcome};
use crate::facts::{VALUE_BYTES_MAX, check_key, check_prefix};

/// What our subset of etcd's messages becomes.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    unused_qualifications,
    unreachable_pub,
    reason = "generated from proto/, where the fields are explained"
)]
mod pb {
    tonic::include_proto!("etcdserverpb");
}

/// Keys of one page of a listing: values are small as a rule, and 1 MiB at most.
const PAGE_KEYS: i64 = 128;
/// Bytes of an answer at most: a page of the largest values and their keys.
const ANSWER_BYTES_MAX: usize = PAGE_KEYS as usize * (VALUE_BYTES_MAX + 1024);
/// Times a listing starts over because the past that it reads was compacted away under it.
const LISTINGS_MAX: usize = 3;

/// Facts on etcd. Needs a tokio runtime.
#[derive(Clone)]
pub struct EtcdFacts {
    servers: Arc<Servers>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for EtcdFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EtcdFacts({:?})", self.servers.config.endpoints)
    }
}

impl EtcdFacts {
    /// Takes the settings; connects when first asked for something.
    ///
    /// # Errors
    /// [`FactsError::Invalid`] with what is wrong about the settings.
    pub fn new(config: EtcdConfig, clock: Arc<dyn Clock>) -> FactsResult<Self> {
        Ok(Self { servers: Arc::new(Servers::new(config)?), clock })
    }

    /// The key as etcd has it.
    fn key(&self, key: &str) -> bytes::Bytes {
        format!("{}f/{key}", self.servers.config.prefix).into()
    }

    fn name(&self, name: &str) -> bytes::Bytes {
        format!("{}l/{name}", self.servers.config.prefix).into()
    }

    /// Our name for one of etcd's keys.
    fn own(&self, key: &[u8]) -> FactsResult<String> {
        let prefix = self.servers.config.prefix.len() + 2;
        let own = key.get(prefix..).and_then(|own| std::str::from_utf8(own).ok());
        own.map(str::to_owned).ok_or_else(|| corrupt("a key", "it is not text"))
    }

    async fn range(&self, request: pb::RangeRequest) -> FactsResult<pb::RangeResponse> {
        self.servers
            .read(|channel| {
                let request = request.clone();
                async move { KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX).range(request).await }
            })
            .await
    }

    /// Everything below a prefix as of one moment, page by page.
    async fn pages(&self, prefix: &str, after: u64, keys_only: bool) -> FactsResult<Listing> {
        check_prefix(prefix)?;
        let mut last = FactsError::Unavailable("no listing was tried".to_owned());
        for _ in 0..LISTINGS_MAX {
            match self.pages_once(prefix, after, keys_only).await {
                Err(error @ FactsError::Refused(_)) if error.to_string().contains("compacted") => last = error,
                answer => return answer,
            }
        }
        Err(FactsError::Unavailable(last.to_string()))
    }

    async fn pages_once(&self, prefix: &str, after: u64, keys_only: bool) -> FactsResult<Listing> {
        let begin = self.key(prefix);
        let mut request = pb::RangeRequest {
            range_end: after_all_below(&begin),
            key: begin,
            limit: PAGE_KEYS,
            keys_only,
            min_mod_revision: if after == 0 { 0 } else { signed(after.saturating_add(1)) },
            ..Default::default()
        };
        let first = self.range(request.clone()).await?;
        let revision = header_revision(first.header.as_ref())?;
        let mut listing = Listing { revision, facts: Vec::new(), count: unsigned(first.count)? };
        // Later pages are read as of the first.
        request.revision = signed(revision);
        let mut page = first;
        loop {
            let more = page.more;
            for row in page.kvs {
                listing.facts.push(Fact {
                    key: self.own(&row.key)?,
                    revision: unsigned(row.mod_revision)?,
                    value: row.value,
                });
            }
            let Some(last) = listing.facts.last().filter(|_| more) else { return Ok(listing) };
            request.key = just_after(&self.key(&last.key));
            page = self.range(request.clone()).await?;
        }
    }

    fn transaction(&self, commit: &Commit) -> pb::TxnRequest {
        let fence = commit.fence.iter().map(|fence| (self.name(&fence.name), fence.revision));
        let checks = commit.checks.iter().map(|check| (self.key(&check.key), check.revision));
        let (mut compare, mut failure) = (Vec::new(), Vec::new());
        for (key, revision) in fence.chain(checks) {
            // When a comparison fails, etcd does not say which: the revisions are read back in the same transaction.
            failure.push(operation(pb::request_op::Request::RequestRange(pb::RangeRequest {
                key: key.clone(),
                keys_only: true,
                ..Default::default()
            })));
            compare.push(has_revision(key, revision));
        }
        let success = commit.changes.iter().map(|change| match change {
            Change::Put { key, value } => operation(pb::request_op::Request::RequestPut(pb::PutRequest {
                key: self.key(key),
                value: value.clone(),
                lease: 0,
            })),
            Change::Delete { key } => {
                operation(pb::request_op::Request::RequestDeleteRange(pb::DeleteRangeRequest { key: self.key(key) }))
            }
        });
        pb::TxnRequest { compare, success: success.collect(), failure }
    }

    /// Which of the checks did not hold, from the revisions read back.
    fn conflict(&self, commit: &Commit, answer: &pb::TxnResponse) -> FactsResult<Outcome> {
        let mut found = answer.responses.iter().map(|response| match &response.response {
            Some(pb::response_op::Response::ResponseRange(range)) => {
                range.kvs.first().map_or(Ok(0), |row| unsigned(row.mod_revision))
            }
            _ => Err(corrupt("an answer of etcd", "it is not what was asked")),
        });
        let mut next = || found.next().ok_or_else(|| corrupt("an answer of etcd", "it is too short"))?;
        if let Some(fence) = &commit.fence
            && next()? != fence.revision
        {
            return Err(FactsError::NotLeader);
        }
        for check in &commit.checks {
            let revision = next()?;
            if revision != check.revision {
                return Ok(Outcome::Conflict { key: check.key.clone(), revision });
            }
        }
        Err(corrupt("an answer of etcd", "a transaction failed and every check holds"))
    }
}

#[async_trait]
impl Facts for EtcdFacts {
    async fn get(&self, key: &str) -> FactsResult<Option<Fact>> {
        check_key(key)?;
        let answer = self.range(pb::RangeRequest { key: self.key(key), ..Default::default() }).await?;
        let row = answer.kvs.into_iter().next();
        row.map(|row| Ok(Fact { key: key.to_owned(), revision: unsigned(row.mod_revision)?, value: row.value }))
            .transpose()
    }

    async fn changed(&self, prefix: &str, after: u64) -> FactsResult<Listing> {
        self.pages(prefix, after, false).await
    }

    async fn keys(&self, prefix: &str) -> FactsResult<Vec<Check>> {
        let all = self.pages(prefix, 0, true).await?.facts;
        Ok(all.into_iter().map(|fact| Check { key: fact.key, revision: fact.revision }).collect())
    }

    async fn commit(&self, commit: Commit) -> FactsResult<Outcome> {
        commit.validate()?;
        let request = self.transaction(&commit);
        // In a task of its own: dropping the future does not cut the request off in the middle.
        let servers = self.servers.clone();
        let sent = tokio::spawn(async move {
            servers
                .write(|channel| {
                    let request = request.clone();
                    async move { KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX).txn(request).await }
                })
                .await
        });
        let answer = sent.await.unwrap_or_else(|error| Err(FactsError::Unknown(error.to_string())))?;
        if answer.succeeded {
            return Ok(Outcome::Committed { revision: header_revision(answer.header.as_ref())? });
        }
        self.conflict(&commit, &answer)
    }

    async fn lead(&self, name: &str, who: &str) -> FactsResult<Leadership> {
        check_key(name)?;
        lease::lead(self, name, who).await
    }
}

fn has_revision(key: bytes::Bytes, revision: u64) -> pb::Compare {
    pb::Compare {
        result: pb::compare::CompareResult::Equal.into(),
        target: pb::compare::CompareTarget::Mod.into(),
        key,
        target_union: Some(pb::compare::TargetUnion::ModRevision(signed(revision))),
    }
}

fn operation(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// The first key behind all that begin with `prefix`, which is text and not empty: so its last byte is not 0xff.
fn after_all_below(prefix: &[u8]) -> bytes::Bytes {
    let mut end = prefix.to_vec();
    let last = end.last_mut().expect("a deployment's prefix is not empty");
    *last = last.checked_add(1).expect("text has no byte 0xff");
    end.into()
}

fn just_after(key: &[u8]) -> bytes::Bytes {
    let mut next = key.to_vec();
    next.push(0);
    next.into()
}

fn header_revision(header: Option<&pb::ResponseHeader>) -> FactsResult<u64> {
    unsigned(header.map_or(-1, |header| header.revision))
}

fn unsigned(number: i64) -> FactsResult<u64> {
    u64::try_from(number).map_err(|_| corrupt("an answer of etcd", "a number is missing or negative"))
}

/// Revisions come from etcd or were checked: they fit.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn corrupt(what: &'static str, reason: &str) -> FactsError {
    FactsError::Corrupt { what, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_behind_all_below_it() {
        for (prefix, below, behind) in [("a", "a\u{10ffff}", "b"), ("ab/", "ab/zz", "ab0"), ("é", "éz", "ê")] {
            let end = after_all_below(prefix.as_bytes());
            assert!(below.as_bytes() < &end[..] && behind.as_bytes() >= &end[..], "{prefix}");
        }
    }
}
