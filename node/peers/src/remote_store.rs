//! The store of a device of another node.
//!
//! Nothing is sent twice by itself: whoever asked decides what a failure means. Deadlines are long: giving up on a
//! slow device early is the object layer's, which knows its twins.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use base::DeviceId;
use bytes::Bytes;
use format::ShardKey;
use futures::future::BoxFuture;
use object::{ShardError, ShardResult, ShardStore};
use shards::{Payload, ShardInfo, StoreError, StoreStats};
use tonic::transport::Channel;
use wire::Fault;
use wire::shards::{ShardClient, Target};

use crate::convert::store_error_of;

/// How long a put may take: a device that flushes slowly, behind a queue.
const PUT_DEADLINE: Duration = Duration::from_secs(30);
/// How long a read may take.
const GET_DEADLINE: Duration = Duration::from_secs(15);
/// How long a delete of many keys may take.
const DELETE_DEADLINE: Duration = Duration::from_secs(60);
/// How long numbers may take.
const STATS_DEADLINE: Duration = Duration::from_secs(5);

/// See the file's header. Clones share the connection.
#[derive(Clone)]
pub struct RemoteStore {
    client: ShardClient,
    target: Target,
}

impl fmt::Debug for RemoteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteStore").field("device", &self.target.device).finish_non_exhaustive()
    }
}

impl RemoteStore {
    /// The device over its node's connection, asked by the map of this epoch.
    #[must_use]
    pub fn new(channel: Channel, device: DeviceId, map_epoch: u64) -> Self {
        Self { client: ShardClient::new(channel), target: Target { device, map_epoch } }
    }
}

fn shard_error_of(fault: Fault) -> ShardError {
    match fault {
        Fault::TimedOut => ShardError::Timeout,
        Fault::StaleMap { epoch } => ShardError::StaleMap { fence: epoch },
        Fault::NotFound | Fault::Full | Fault::Corrupt { .. } | Fault::Poisoned(_) | Fault::Device(_) => {
            ShardError::Store(store_error_of(fault))
        }
        other => ShardError::Unreachable { reason: other.to_string() },
    }
}

fn pieces(payload: Payload) -> Vec<Bytes> {
    match payload {
        Payload::Aligned { bytes, len } => vec![bytes.to_bytes(0..len)],
        Payload::Parts(parts) => parts,
    }
}

impl ShardStore for RemoteStore {
    fn device(&self) -> DeviceId {
        self.target.device
    }

    fn is_local(&self) -> bool {
        false
    }

    fn put(&self, key: ShardKey, descriptor: Bytes, payload: Payload) -> BoxFuture<'_, ShardResult<()>> {
        Box::pin(async move {
            if payload.len() > format::PAYLOAD_MAX_BYTES {
                let (len, descriptor_len) = (payload.len(), descriptor.len());
                return Err(StoreError::TooLarge { len, descriptor_len }.into());
            }
            let put = self.client.put(self.target, key, descriptor, pieces(payload), PUT_DEADLINE);
            put.await.map_err(shard_error_of)
        })
    }

    fn get(&self, key: ShardKey, range: Range<u32>) -> BoxFuture<'_, ShardResult<Bytes>> {
        Box::pin(async move {
            let got = self.client.get(self.target, key, range, GET_DEADLINE).await.map_err(shard_error_of)?;
            Ok(match <[Bytes; 1]>::try_from(got) {
                Ok([whole]) => whole,
                Err(pieces) => pieces.concat().into(),
            })
        })
    }

    fn describe(&self, key: ShardKey) -> BoxFuture<'_, ShardResult<(u32, Bytes)>> {
        Box::pin(async move { self.client.describe(self.target, key, GET_DEADLINE).await.map_err(shard_error_of) })
    }

    fn delete(&self, keys: Vec<ShardKey>) -> BoxFuture<'_, ShardResult<()>> {
        Box::pin(async move { self.client.delete(self.target, &keys, DELETE_DEADLINE).await.map_err(shard_error_of) })
    }

    fn list(&self, after: Option<ShardKey>, limit: usize) -> BoxFuture<'_, ShardResult<Vec<ShardInfo>>> {
        Box::pin(async move {
            let found = self.client.list(self.target, after, limit, GET_DEADLINE).await.map_err(shard_error_of)?;
            Ok(found.into_iter().map(|(key, len)| ShardInfo { key, len }).collect())
        })
    }

    fn stats(&self) -> BoxFuture<'_, ShardResult<StoreStats>> {
        Box::pin(async move {
            let stats = self.client.stats(self.target, STATS_DEADLINE).await.map_err(shard_error_of)?;
            Ok(StoreStats {
                capacity_bytes: stats.capacity_bytes,
                live_bytes: stats.live_bytes,
                available_bytes: stats.available_bytes,
                records: stats.records,
                poisoned: stats.poisoned,
                ..StoreStats::default()
            })
        })
    }
}
