//! Facts in one `redb` file: for a rack with one controller.
//!
//! Invariants:
//! - the file has mode 0600 and one holder: the lock on it is the lease, so whoever has it open may lead, one leadership
//!   of a name at a time;
//! - a commit is one transaction with immediate durability (the library's default), and the store's revision is kept in
//!   the same transaction;
//! - a commit whose flush failed has an unknown outcome, and then the handle answers nothing more: what the file holds is
//!   known again after opening it anew.
//!
//! Left out on purpose: the past (what is replaced is gone), and sharing the file with the catalog of access keys.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};

use crate::facts::{Change, Check, Commit, Fact, Facts, FactsError, FactsResult, Fence, Leadership, Lease};
use crate::facts::{Listing, Outcome, check_key, check_prefix};
use crate::redb_store::open_database;

/// Format 1: a row of `facts` is the revision in 8 bytes, little endian, and the value.
const FORMAT: u64 = 1;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("facts_meta");
const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");

const META_FORMAT: &str = "format";
const META_REVISION: &str = "revision";
const REVISION_BYTES: usize = 8;

/// Facts in a file. Only one process may hold it. Needs a tokio runtime: transactions run on its blocking threads.
pub struct RedbFacts {
    inner: Arc<Inner>,
}

struct Inner {
    db: Database,
    /// After a failed flush nothing that the handle says can be relied on.
    failed: AtomicBool,
    leads: Mutex<BTreeMap<String, Lead>>,
}

struct Lead {
    who: String,
    revision: u64,
}

impl std::fmt::Debug for RedbFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedbFacts(..)")
    }
}

impl RedbFacts {
    /// Opens the facts at `path`, or makes an empty store. Blocks for a disk flush or two.
    ///
    /// # Errors
    /// [`FactsError::InUse`] when another process holds them, [`FactsError::NewerFormat`], [`FactsError::Store`].
    pub fn open_or_create(path: &Path) -> FactsResult<Self> {
        Self::from_database(open_database(path, true)?)
    }

    fn from_database(db: Database) -> FactsResult<Self> {
        let inner = Inner { db, failed: AtomicBool::new(false), leads: Mutex::default() };
        inner.check_format()?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs a transaction where it may block.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> FactsResult<T> + Send + 'static,
    ) -> FactsResult<T> {
        let inner = self.inner.clone();
        let task = tokio::task::spawn_blocking(move || {
            if inner.failed.load(Ordering::Acquire) {
                return Err(FactsError::Store("a flush failed: open the facts again".to_owned()));
            }
            work(&inner)
        });
        match task.await {
            Ok(answer) => answer,
            // Only a runtime that is shutting down cancels, and only what has not begun; a panic in there is a bug.
            Err(error) if error.is_cancelled() => {
                Err(FactsError::Unavailable("the process is shutting down".to_owned()))
            }
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

#[async_trait]
impl Facts for RedbFacts {
    async fn get(&self, key: &str) -> FactsResult<Option<Fact>> {
        check_key(key)?;
        let key = key.to_owned();
        self.run(move |inner| {
            let table = inner.read()?.open_table(FACTS).map_err(table_error)?;
            let row = table.get(key.as_str()).map_err(store)?;
            row.map(|row| fact(&key, row.value())).transpose()
        })
        .await
    }

    async fn changed(&self, prefix: &str, after: u64) -> FactsResult<Listing> {
        check_prefix(prefix)?;
        let prefix = prefix.to_owned();
        self.run(move |inner| {
            let txn = inner.read()?;
            let mut listing = Listing { revision: revision(&txn)?, facts: Vec::new(), count: 0 };
            each_below(&txn, &prefix, |key, row| {
                listing.count += 1;
                if split(row)?.0 > after {
                    listing.facts.push(fact(key, row)?);
                }
                Ok(())
            })?;
            Ok(listing)
        })
        .await
    }

    async fn keys(&self, prefix: &str) -> FactsResult<Vec<Check>> {
        check_prefix(prefix)?;
        let prefix = prefix.to_owned();
        self.run(move |inner| {
            let mut keys = Vec::new();
            each_below(&inner.read()?, &prefix, |key, row| {
                keys.push(Check { key: key.to_owned(), revision: split(row)?.0 });
                Ok(())
            })?;
            Ok(keys)
        })
        .await
    }

    async fn commit(&self, commit: Commit) -> FactsResult<Outcome> {
        commit.validate()?;
        self.run(move |inner| inner.commit(&commit)).await
    }

    async fn lead(&self, name: &str, who: &str) -> FactsResult<Leadership> {
        check_key(name)?;
        let (name, who) = (name.to_owned(), who.to_owned());
        let fence = self.run(move |inner| inner.lead(name, who)).await?;
        let lease = FileLease { inner: self.inner.clone(), fence: fence.clone() };
        Ok(Leadership::new(fence, Box::new(lease)))
    }
}

impl Inner {
    fn check_format(&self) -> FactsResult<()> {
        let txn = self.write()?;
        let fresh = {
            let mut meta = txn.open_table(META).map_err(table_error)?;
            let found = meta.get(META_FORMAT).map_err(store)?.map(|v| v.value());
            match found {
                Some(found) if found > FORMAT => return Err(FactsError::NewerFormat { found, known: FORMAT }),
                Some(_) => false,
                None => {
                    meta.insert(META_FORMAT, FORMAT).map_err(store)?;
                    meta.insert(META_REVISION, 0).map_err(store)?;
                    // Readers open tables without creating them.
                    txn.open_table(FACTS).map_err(table_error)?;
                    true
                }
            }
        };
        if fresh { txn.commit().map_err(store) } else { txn.abort().map_err(store) }
    }

    fn commit(&self, commit: &Commit) -> FactsResult<Outcome> {
        // One transaction at a time: what is checked cannot change before it is committed.
        let txn = self.write()?;
        if let Some(fence) = &commit.fence
            && self.leads().get(&fence.name).is_none_or(|lead| lead.revision != fence.revision)
        {
            return Err(FactsError::NotLeader);
        }
        let before = txn_revision(&txn)?;
        let mut changed = false;
        {
            let mut table = txn.open_table(FACTS).map_err(table_error)?;
            for Check { key, revision: expected } in &commit.checks {
                let found =
                    table.get(key.as_str()).map_err(store)?.map_or(Ok(0), |row| split(row.value()).map(|r| r.0))?;
                if found != *expected {
                    return Ok(Outcome::Conflict { key: key.clone(), revision: found });
                }
            }
            for change in &commit.changes {
                match change {
                    Change::Put { key, value } => {
                        table.insert(key.as_str(), join(before + 1, value).as_slice()).map_err(store)?;
                        changed = true;
                    }
                    Change::Delete { key } => changed |= table.remove(key.as_str()).map_err(store)?.is_some(),
                }
            }
        }
        if !changed {
            return Ok(Outcome::Committed { revision: before });
        }
        self.finish(txn, before + 1)?;
        Ok(Outcome::Committed { revision: before + 1 })
    }

    fn lead(&self, name: String, who: String) -> FactsResult<Fence> {
        // Held to the end, so that of two calls one finds the other's entry.
        let txn = self.write()?;
        if let Some(lead) = self.leads().get(&name) {
            return Err(FactsError::Led { by: lead.who.clone() });
        }
        // A revision of its own: a fence from before the file was last opened is none of today's.
        let revision = txn_revision(&txn)? + 1;
        self.finish(txn, revision)?;
        match self.leads().entry(name.clone()) {
            std::collections::btree_map::Entry::Occupied(lead) => Err(FactsError::Led { by: lead.get().who.clone() }),
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(Lead { who, revision });
                Ok(Fence { name, revision })
            }
        }
    }

    fn finish(&self, txn: WriteTransaction, revision: u64) -> FactsResult<()> {
        txn.open_table(META).map_err(table_error)?.insert(META_REVISION, revision).map_err(store)?;
        txn.commit().map_err(|error| {
            self.failed.store(true, Ordering::Release);
            FactsError::Unknown(error.to_string())
        })
    }

    fn read(&self) -> FactsResult<ReadTransaction> {
        self.db.begin_read().map_err(store)
    }

    fn write(&self) -> FactsResult<WriteTransaction> {
        self.db.begin_write().map_err(store)
    }

    fn leads(&self) -> MutexGuard<'_, BTreeMap<String, Lead>> {
        self.leads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends with its leadership; the lock on the file never runs out.
struct FileLease {
    inner: Arc<Inner>,
    fence: Fence,
}

impl FileLease {
    fn give_up(&self) {
        let mut leads = self.inner.leads();
        if leads.get(&self.fence.name).is_some_and(|lead| lead.revision == self.fence.revision) {
            leads.remove(&self.fence.name);
        }
    }
}

impl Drop for FileLease {
    fn drop(&mut self) {
        self.give_up();
    }
}

#[async_trait]
impl Lease for FileLease {
    fn is_held(&self) -> bool {
        !self.inner.failed.load(Ordering::Acquire)
    }

    async fn lost(&self) {
        std::future::pending().await
    }

    async fn release(&mut self) -> FactsResult<()> {
        self.give_up();
        Ok(())
    }
}

fn each_below(
    txn: &ReadTransaction,
    prefix: &str,
    mut tell: impl FnMut(&str, &[u8]) -> FactsResult<()>,
) -> FactsResult<()> {
    let table = txn.open_table(FACTS).map_err(table_error)?;
    for row in table.range(prefix..).map_err(store)? {
        let (key, value) = row.map_err(store)?;
        if !key.value().starts_with(prefix) {
            break;
        }
        tell(key.value(), value.value())?;
    }
    Ok(())
}

fn revision(txn: &ReadTransaction) -> FactsResult<u64> {
    let meta = txn.open_table(META).map_err(table_error)?;
    let row = meta.get(META_REVISION).map_err(store)?;
    row.map(|row| row.value()).ok_or_else(|| corrupt("the revision"))
}

fn txn_revision(txn: &WriteTransaction) -> FactsResult<u64> {
    let meta = txn.open_table(META).map_err(table_error)?;
    let row = meta.get(META_REVISION).map_err(store)?;
    row.map(|row| row.value()).ok_or_else(|| corrupt("the revision"))
}

fn join(revision: u64, value: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(REVISION_BYTES + value.len());
    row.extend_from_slice(&revision.to_le_bytes());
    row.extend_from_slice(value);
    row
}

fn split(row: &[u8]) -> FactsResult<(u64, &[u8])> {
    let (revision, value) = row.split_first_chunk::<REVISION_BYTES>().ok_or_else(|| corrupt("a row"))?;
    match u64::from_le_bytes(*revision) {
        // No key is put at 0: it would pass for absent.
        0 => Err(corrupt("a row")),
        revision => Ok((revision, value)),
    }
}

fn fact(key: &str, row: &[u8]) -> FactsResult<Fact> {
    let (revision, value) = split(row)?;
    Ok(Fact { key: key.to_owned(), revision, value: Bytes::copy_from_slice(value) })
}

fn corrupt(what: &'static str) -> FactsError {
    FactsError::Corrupt { what, reason: "it is cut off or has no revision".to_owned() }
}

fn table_error(error: TableError) -> FactsError {
    FactsError::Store(error.to_string())
}

fn store(error: impl std::fmt::Display) -> FactsError {
    FactsError::Store(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::{Error, Result};
    use std::sync::atomic::AtomicU64;

    use redb::StorageBackend;

    use super::*;

    /// A file in memory whose n-th write or flush fails, and all after it; what was not flushed is in `written` alone.
    #[derive(Debug, Clone, Default)]
    struct Failing {
        written: Arc<Mutex<Vec<u8>>>,
        flushed: Arc<Mutex<Vec<u8>>>,
        left: Arc<AtomicU64>,
    }

    impl Failing {
        fn spend(&self) -> Result<()> {
            let spent = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            spent.map(drop).map_err(|_| Error::other("the device is gone"))
        }

        fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
            self.written.lock().unwrap()
        }
    }

    impl StorageBackend for Failing {
        fn len(&self) -> Result<u64> {
            Ok(self.bytes().len() as u64)
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
            out.copy_from_slice(&self.bytes()[offset as usize..][..out.len()]);
            Ok(())
        }

        fn set_len(&self, len: u64) -> Result<()> {
            self.spend()?;
            self.bytes().resize(len as usize, 0);
            Ok(())
        }

        fn sync_data(&self) -> Result<()> {
            self.spend()?;
            *self.flushed.lock().unwrap() = self.bytes().clone();
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
            self.spend()?;
            self.bytes()[offset as usize..][..data.len()].copy_from_slice(data);
            Ok(())
        }
    }

    fn open(file: &Failing) -> RedbFacts {
        let builder = Database::builder().create_with_backend(file.clone());
        RedbFacts::from_database(builder.unwrap()).unwrap()
    }

    /// Whichever write or flush of a commit fails, and whether or not what was not flushed survives: the answer is an
    /// unknown outcome, the handle says nothing more, and after opening anew the commit is there as a whole or not at all.
    #[tokio::test]
    async fn a_failed_flush_is_an_unknown_outcome() {
        let value = |n: u8| Bytes::from(vec![n; 20_000]);
        let commit = |n: u8| Commit::new().put("a", value(n)).put("b", value(n));
        let (mut unknown, mut seen) = (0, [0; 2]);
        for fails_at in 0.. {
            let file = Failing { left: Arc::new(AtomicU64::new(u64::MAX)), ..Failing::default() };
            let facts = open(&file);
            facts.commit(commit(1)).await.unwrap();
            let leadership = facts.lead("x", "me").await.unwrap();
            file.left.store(fails_at, Ordering::SeqCst);
            let answer = facts.commit(commit(2)).await;
            if let Ok(Outcome::Committed { .. }) = answer {
                assert!(fails_at > 2, "a commit writes and flushes");
                break;
            }
            let error = answer.unwrap_err();
            if error.is_outcome_unknown() {
                unknown += 1;
                assert!(!leadership.is_held());
                for after in [facts.get("a").await.map(drop), facts.commit(commit(3)).await.map(drop)] {
                    assert!(matches!(after, Err(FactsError::Store(_))), "{after:?}");
                }
            } else {
                assert!(matches!(error, FactsError::Store(_)), "{error}");
            }
            drop((leadership, facts));
            let survivors = [file.bytes().clone(), file.flushed.lock().unwrap().clone()];
            for survivor in survivors {
                let again = Failing { left: Arc::new(AtomicU64::new(u64::MAX)), ..Failing::default() };
                *again.written.lock().unwrap() = survivor;
                let facts = open(&again);
                let list = facts.list("").await.unwrap().facts;
                let n = list[0].value[0];
                assert!(list.len() == 2 && list.iter().all(|fact| fact.value == value(n)), "step {fails_at}");
                assert!(n == 1 || error.is_outcome_unknown(), "step {fails_at}: said to have changed nothing");
                seen[usize::from(n) - 1] += 1;
            }
        }
        assert!(unknown > 0 && seen.iter().all(|n| *n > 0), "{unknown} unknown, {seen:?}");
    }
}
