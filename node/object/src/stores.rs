//! The store of one device as the object layer sees it: on this host or on another one.
//!
//! What holds of [`StoreHandle`]'s methods holds here: a put is answered when it is durable, bytes are verified
//! before they leave, deleting what is not there is no error. A store elsewhere adds its own failures
//! ([`ShardError`]); after any of them but a refusal of the store itself, a put may or may not have taken effect.

use std::fmt::Debug;
use std::ops::Range;

use base::DeviceId;
use bytes::Bytes;
use format::ShardKey;
use futures::future::BoxFuture;
use shards::{Payload, ShardInfo, StoreError, StoreHandle, StoreStats};
use thiserror::Error;

/// Why a store could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShardError {
    /// The store said so.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its host cannot be reached.
    #[error("the device's host cannot be reached: {reason}")]
    Unreachable {
        /// Why.
        reason: String,
    },
    /// It did not answer in time.
    #[error("the device did not answer in time")]
    Timeout,
    /// Its host goes by a newer map and did nothing.
    #[error("the device's host takes requests by the map of epoch {fence} or later")]
    StaleMap {
        /// The least epoch that it takes.
        fence: u64,
    },
}

/// A result of a store, here or elsewhere.
pub type ShardResult<T> = Result<T, ShardError>;

/// One device's store. Dropping a future gives the request up; it may still be carried out.
pub trait ShardStore: Debug + Send + Sync + 'static {
    /// The device.
    fn device(&self) -> DeviceId;
    /// Whether its numbers cost nothing to ask for, several times a second.
    fn is_local(&self) -> bool;
    /// Stores a record durably; see [`StoreHandle::put`].
    fn put(&self, key: ShardKey, descriptor: Bytes, payload: Payload) -> BoxFuture<'_, ShardResult<()>>;
    /// Verified bytes of a record; see [`StoreHandle::get`].
    fn get(&self, key: ShardKey, range: Range<u32>) -> BoxFuture<'_, ShardResult<Bytes>>;
    /// A record's payload length and descriptor.
    fn describe(&self, key: ShardKey) -> BoxFuture<'_, ShardResult<(u32, Bytes)>>;
    /// Removes records durably.
    fn delete(&self, keys: Vec<ShardKey>) -> BoxFuture<'_, ShardResult<()>>;
    /// Records with keys above `after`, in key order, at most `limit`.
    fn list(&self, after: Option<ShardKey>, limit: usize) -> BoxFuture<'_, ShardResult<Vec<ShardInfo>>>;
    /// Counters and space.
    fn stats(&self) -> BoxFuture<'_, ShardResult<StoreStats>>;
}

impl ShardStore for StoreHandle {
    fn device(&self) -> DeviceId {
        Self::device(self)
    }

    fn is_local(&self) -> bool {
        true
    }

    fn put(&self, key: ShardKey, descriptor: Bytes, payload: Payload) -> BoxFuture<'_, ShardResult<()>> {
        Box::pin(async move { Ok(Self::put(self, key, descriptor, payload).await?) })
    }

    fn get(&self, key: ShardKey, range: Range<u32>) -> BoxFuture<'_, ShardResult<Bytes>> {
        Box::pin(async move { Ok(Self::get(self, key, range).await?) })
    }

    fn describe(&self, key: ShardKey) -> BoxFuture<'_, ShardResult<(u32, Bytes)>> {
        Box::pin(async move { Ok(Self::describe(self, key).await?) })
    }

    fn delete(&self, keys: Vec<ShardKey>) -> BoxFuture<'_, ShardResult<()>> {
        Box::pin(async move { Ok(Self::delete(self, keys).await?) })
    }

    fn list(&self, after: Option<ShardKey>, limit: usize) -> BoxFuture<'_, ShardResult<Vec<ShardInfo>>> {
        Box::pin(async move { Ok(Self::list(self, after, limit).await?) })
    }

    fn stats(&self) -> BoxFuture<'_, ShardResult<StoreStats>> {
        Box::pin(async move { Ok(Self::stats(self).await?) })
    }
}
