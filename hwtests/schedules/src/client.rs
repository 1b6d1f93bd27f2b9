//! A client of a harness: asks the store, and records what it asked and saw.

use std::future::Future;
use std::task::{Context, Poll, Waker};

use base::{Lsn, PartitionId, StripeId};
use bytes::Bytes;
use format::ShardKey;
use futures::future::join_all;
use shards::{StoreError, StoreHandle, StoreResult};

use crate::chance;
use crate::history::{History, Key, Value, What};
use crate::payload::{Size, payload, value_of, value_of_len};

/// Keys of the stream of shards.
pub const STRIPES: Key = 0;
/// The first key of the journal; a key is its position in partition 1.
pub const JOURNAL: Key = 64;
/// The first key of the stream of index blocks.
pub const REGIONS: Key = 128;

/// A harness's key as the store knows it; both are in the same order.
#[must_use]
pub fn shard_key(key: Key) -> ShardKey {
    match key {
        STRIPES..JOURNAL => ShardKey::stripe(StripeId(7), key),
        JOURNAL..REGIONS => ShardKey::journal(PartitionId(1), Lsn(u64::from(key))),
        REGIONS.. => ShardKey::region(3, u64::from(key)),
    }
}

/// Which refusals are part of a harness. Every other one fails it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tolerates {
    /// None.
    Nothing,
    /// The store was closed.
    Closing,
    /// The power went.
    PowerLoss,
}

impl Tolerates {
    fn accepts(self, error: &StoreError) -> bool {
        match error {
            StoreError::Closed => self != Self::Nothing,
            StoreError::Poisoned { .. } | StoreError::Disk(_) => self == Self::PowerLoss,
            _ => false,
        }
    }
}

/// The store is gone, as the harness expected.
#[derive(Debug)]
pub struct Gone;

/// See the file's header. Every request is preceded by a pause.
#[derive(Clone)]
pub struct Client {
    name: &'static str,
    handle: StoreHandle,
    history: History,
    keys: Vec<Key>,
    tolerates: Tolerates,
}

impl Client {
    pub(crate) fn new(
        name: &'static str,
        handle: StoreHandle,
        history: History,
        keys: Vec<Key>,
        tolerates: Tolerates,
    ) -> Self {
        Self { name, handle, history, keys, tolerates }
    }

    /// The store, for requests that change nothing a client could see.
    pub async fn ask<T, F: Future<Output = StoreResult<T>>>(
        &self,
        f: impl FnOnce(StoreHandle) -> F,
    ) -> Result<T, Gone> {
        chance::pause().await;
        self.settle(f(self.handle.clone()).await, "asked of the store")
    }

    fn settle<T>(&self, answer: StoreResult<T>, what: &str) -> Result<T, Gone> {
        match answer {
            Ok(value) => Ok(value),
            Err(error) if self.tolerates.accepts(&error) => Err(Gone),
            Err(error) => panic!("{}: {what} was answered: {error}", self.name),
        }
    }

    /// Writes a fresh value.
    ///
    /// # Errors
    /// [`Gone`]; the write may or may not have happened.
    pub async fn put(&self, key: Key, size: Size) -> Result<(), Gone> {
        chance::pause().await;
        self.put_now(key, size).await
    }

    async fn put_now(&self, key: Key, size: Size) -> Result<(), Gone> {
        let value = self.history.fresh();
        let asked = self.history.ask(self.name, What::Put(key, value));
        self.settle(self.begin_put(key, value, size).await, "a put")?;
        self.history.acknowledge(&asked);
        Ok(())
    }

    fn begin_put(&self, key: Key, value: Value, size: Size) -> impl Future<Output = StoreResult<()>> {
        let descriptor = Bytes::copy_from_slice(&value.to_le_bytes());
        self.handle.put(shard_key(key), descriptor, payload(value, size, chance::one_in(2)))
    }

    /// Writes fresh values to all of `keys` at once, each an operation of its own.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn put_all(&self, keys: &[Key], size: Size) -> Result<(), Gone> {
        chance::pause().await;
        join_all(keys.iter().map(|key| self.put_now(*key, size))).await.into_iter().collect()
    }

    /// Writes a fresh value and goes away before the answer, as a task that was cancelled does.
    pub async fn put_and_leave(&self, key: Key, size: Size) {
        chance::pause().await;
        let value = self.history.fresh();
        let _ = self.history.ask(self.name, What::Put(key, value));
        let mut put = Box::pin(self.begin_put(key, value, size));
        for _ in 0..=chance::below(3) {
            if let Poll::Ready(answer) = put.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                let _ = self.settle(answer, "a put");
                return;
            }
            chance::pause().await;
        }
    }

    /// Deletes the keys.
    ///
    /// # Errors
    /// [`Gone`]; it may or may not have happened.
    pub async fn delete(&self, keys: &[Key]) -> Result<(), Gone> {
        chance::pause().await;
        let asked = self.history.ask(self.name, What::Delete(keys.to_vec()));
        self.settle(self.handle.delete(keys.iter().map(|key| shard_key(*key)).collect()).await, "a delete")?;
        self.history.acknowledge(&asked);
        Ok(())
    }

    /// Trims the journal below `below`: deletes those keys.
    ///
    /// # Errors
    /// As [`Self::delete`].
    pub async fn trim(&self, below: Key) -> Result<(), Gone> {
        chance::pause().await;
        let keys: Vec<Key> = self.keys.iter().copied().filter(|key| (JOURNAL..below).contains(key)).collect();
        let asked = self.history.ask(self.name, What::Delete(keys));
        self.settle(self.handle.trim(PartitionId(1), Lsn(u64::from(below))).await, "a trim")?;
        self.history.acknowledge(&asked);
        Ok(())
    }

    /// Reads a key in one of the ways there are: whole, in part, or its descriptor.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn get(&self, key: Key) -> Result<Option<Value>, Gone> {
        chance::pause().await;
        let call = self.history.now();
        let of = shard_key(key);
        let seen = match chance::below(3) {
            0 => match self.handle.describe(of).await {
                Err(StoreError::NotFound) => None,
                answer => {
                    let (len, descriptor) = self.settle(answer, "a description")?;
                    let value = Value::from_le_bytes(descriptor[..].try_into().expect("descriptors are values"));
                    assert_eq!(value_of_len(len), value, "the descriptor and the length of two values");
                    Some(value)
                }
            },
            way => {
                let start = if way == 1 { 0 } else { chance::pick(&[8, 4096, 72 << 10]) };
                let end = if way == 1 { u32::MAX } else { start + chance::pick(&[8, 5000 / 8 * 8, 40 << 10]) };
                match self.handle.get(of, start..end).await {
                    Err(StoreError::NotFound) => None,
                    answer => match value_of(&self.settle(answer, "a get")?, start as usize) {
                        // The record ends before the range: which value it has cannot be told.
                        None => return Ok(None),
                        value => value,
                    },
                }
            }
        };
        self.history.see(self.name, call, vec![(key, seen)]);
        Ok(seen)
    }

    /// One page of the list: what it says of the harness's keys above `after`, and the key where to go on.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn page(&self, after: Option<Key>, limit: usize) -> Result<(Vec<(Key, Value)>, Option<Key>), Gone> {
        chance::pause().await;
        let call = self.history.now();
        let infos = self.settle(self.handle.list(after.map(shard_key), limit).await, "a list")?;
        assert!(infos.len() <= limit, "a page is longer than asked");
        assert!(infos.windows(2).all(|two| two[0].key < two[1].key), "a page is not in the order of keys");
        let known = |of: ShardKey| self.keys.iter().copied().find(|key| shard_key(*key) == of);
        let listed: Vec<(Key, Value)> = infos
            .iter()
            .map(|info| (known(info.key).expect("a listed key that nobody put"), value_of_len(info.len)))
            .collect();
        let last = if infos.len() == limit { listed.last().map(|(key, _)| *key) } else { None };
        let covered = |key: &&Key| after.is_none_or(|after| **key > after) && last.is_none_or(|last| **key <= last);
        let value = |key: Key| listed.iter().find(|(listed, _)| *listed == key).map(|(_, value)| *value);
        let seen = self.keys.iter().filter(covered).map(|key| (*key, value(*key))).collect();
        assert!(listed.iter().all(|(key, _)| covered(&key)), "a page holds keys that were not asked for");
        self.history.see(self.name, call, seen);
        Ok((listed, last))
    }

    /// All pages of the list.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn list(&self, limit: usize) -> Result<Vec<(Key, Value)>, Gone> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let (listed, last) = self.page(after, limit).await?;
            all.extend(listed);
            if last.is_none() {
                return Ok(all);
            }
            after = last;
        }
    }
}
