//! A partition that is served by another node: found by the map, asked over its connection.
//!
//! Invariant: a command is sent at most once. Where it may have arrived and no answer came, the error says so
//! ([`IndexError::Unanswered`]); only where the other side refused it before looking at it (an old map, not its
//! partition) it is sent again, by the map of then.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use base::{Lsn, NodeId, PartitionId};
use bytes::Bytes;
use futures::future::BoxFuture;
use index::model::{Command, Outcome};
use index::{Answer, IndexError, PartitionClient, Question};
use wire::Fault;
use wire::index::{IndexClient, Target};

use crate::Pool;
use crate::index_host::{FAILED, SAID};

/// How long a command may take: the journal's devices may be slow, and clients wait longer than this.
const SUBMIT_DEADLINE: Duration = Duration::from_secs(20);
/// How long a question may take.
const ASK_DEADLINE: Duration = Duration::from_secs(10);
/// How often a request is sent again because the map has moved on.
const MOVES_MAX: usize = 4;

/// Where a partition is now: the node, its address, the map's epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The head of its chain.
    pub node: NodeId,
    /// Where that is reached.
    pub peer_addr: String,
    /// Of the map that says so.
    pub map_epoch: u64,
}

/// Finds a partition, and waits for a newer map.
pub trait Routes: Send + Sync + 'static {
    /// By the newest map that is here; `None` when there is no map, or it names no such partition.
    fn route(&self, partition: PartitionId) -> Option<Route>;
    /// Returns when a map of at least this epoch is here, or after a while.
    fn at_least(&self, epoch: u64) -> BoxFuture<'_, ()>;
}

/// See the file's header.
#[derive(Clone)]
pub struct RemotePartition {
    partition: PartitionId,
    pool: Pool,
    routes: Arc<dyn Routes>,
}

impl fmt::Debug for RemotePartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemotePartition").field("partition", &self.partition).finish_non_exhaustive()
    }
}

impl RemotePartition {
    /// The partition wherever the map says.
    #[must_use]
    pub fn new(partition: PartitionId, pool: Pool, routes: Arc<dyn Routes>) -> Self {
        Self { partition, pool, routes }
    }

    async fn call<T, Fut>(&self, mut call: impl FnMut(IndexClient, Target) -> Fut) -> Result<T, IndexError>
    where
        Fut: Future<Output = Result<T, Fault>>,
    {
        let mut last = Fault::Unreachable("the map does not say where it is".into());
        for _ in 0..MOVES_MAX {
            let Some(route) = self.routes.route(self.partition) else { break };
            let Some(channel) = self.pool.channel(route.node, &route.peer_addr) else {
                last = Fault::Unreachable(format!("{} is no address", route.peer_addr));
                break;
            };
            let target = Target { partition: self.partition, map_epoch: route.map_epoch };
            match call(IndexClient::new(channel), target).await {
                Ok(done) => return Ok(done),
                Err(fault @ (Fault::StaleMap { .. } | Fault::NoSuchPartition)) => {
                    let epoch = match fault {
                        Fault::StaleMap { epoch } => epoch,
                        _ => route.map_epoch + 1,
                    };
                    last = fault;
                    self.routes.at_least(epoch).await;
                }
                Err(fault) => {
                    last = fault;
                    break;
                }
            }
        }
        Err(index_error_of(&last))
    }
}

fn index_error_of(fault: &Fault) -> IndexError {
    let reason = fault.to_string();
    if fault.is_outcome_unknown() { IndexError::Unanswered { reason } } else { IndexError::Unreachable { reason } }
}

/// What the index said, or its error.
fn said<T>(bytes: &Bytes, decode: impl FnOnce(&[u8]) -> Result<T, index::Malformed>) -> Result<T, IndexError> {
    match bytes.split_first() {
        Some((&SAID, body)) => decode(body).map_err(|error| IndexError::Malformed(error.0)),
        Some((&FAILED, body)) => Err(IndexError::decode(body)),
        _ => Err(IndexError::Malformed("an answer of no kind")),
    }
}

impl PartitionClient for RemotePartition {
    fn submit(&self, command: Command, data: Vec<Bytes>) -> BoxFuture<'_, Result<Outcome, IndexError>> {
        Box::pin(async move {
            let command = Bytes::from(command.encode());
            let answer = self
                .call(|client, to| {
                    let (command, data) = (command.clone(), data.clone());
                    async move { client.submit(to, command, data, SUBMIT_DEADLINE).await }
                })
                .await?;
            said(&answer, Outcome::decode)
        })
    }

    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Answer, IndexError>> {
        Box::pin(async move {
            let question = Bytes::from(question.encode());
            let answer = self
                .call(|client, of| {
                    let question = question.clone();
                    async move { client.ask(of, question, ASK_DEADLINE).await }
                })
                .await?;
            said(&answer, Answer::decode)
        })
    }

    fn read_data(&self, lsn: Lsn, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, IndexError>> {
        Box::pin(async move {
            let pieces = self
                .call(|client, of| {
                    let range = range.clone();
                    async move { client.read_data(of, lsn, range, ASK_DEADLINE).await }
                })
                .await?;
            Ok(match <[Bytes; 1]>::try_from(pieces) {
                Ok([whole]) => whole,
                Err(pieces) => pieces.concat().into(),
            })
        })
    }
}
