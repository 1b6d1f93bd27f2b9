//! One view of the partition: a redb database in a region of one mirror's store.
//!
//! Written without waiting between checkpoints: the journal is the truth, and the view says with every
//! commit up to where it has applied it. A view that fails once is out of use until it is opened again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use base::{DeviceId, Lsn};
use redb::{
    Builder, Database, Durability, Key, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, Value,
};
use replica::Mirror;

use crate::apply::{apply, create_tables};
use crate::batch::Batch;
use crate::error::{IndexError, ViewError, ViewResult};
use crate::model::Outcome;
use crate::region::RegionBackend;
use crate::tables::{
    BUCKETS, COMPLETED, COMPLETED_ORDER, GARBAGE, LAYOUTS, META, MISSING, OBJECTS, PACK_MEMBERS, PACKS, PARTS,
    SCHEMA_VERSION, UNPACKED, UPLOADS, UPLOADS_BY_KEY, meta,
};

/// One view.
pub(crate) struct View {
    device: DeviceId,
    db: Database,
    applied: AtomicU64,
    durable: AtomicU64,
    failed: AtomicBool,
    reason: Mutex<String>,
    /// Held while the rows change: batches are applied one after the other.
    writer: Mutex<()>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("device", &self.device).field("applied", &self.applied).finish_non_exhaustive()
    }
}

impl View {
    /// Opens the view in a store, or begins one where there is none. Blocks.
    pub(crate) fn open(store: &Mirror, region: u32, cache_bytes: usize) -> ViewResult<Self> {
        let backend = RegionBackend::open(store.clone(), region).map_err(redb::StorageError::Io)?;
        let db = Builder::new().set_cache_size(cache_bytes).create_with_backend(backend)?;
        let applied = match applied(&db)? {
            Some(applied) => applied,
            None => {
                let mut txn = db.begin_write()?;
                txn.set_quick_repair(true);
                create_tables(&txn)?;
                txn.commit()?;
                0
            }
        };
        Ok(Self {
            device: store.device(),
            db,
            applied: applied.into(),
            durable: applied.into(),
            failed: AtomicBool::new(false),
            reason: Mutex::default(),
            writer: Mutex::default(),
        })
    }

    /// Makes a view anew from the rows of another. Blocks.
    pub(crate) fn rebuild(store: &Mirror, region: u32, cache_bytes: usize, donor: &Self) -> ViewResult<Self> {
        RegionBackend::wipe(store, region).map_err(|e| redb::StorageError::Io(std::io::Error::other(e)))?;
        let view = Self::open(store, region, cache_bytes)?;
        let rows = donor.database()?.begin_read()?;
        view.copy(&rows, BUCKETS)?;
        view.copy(&rows, OBJECTS)?;
        view.copy(&rows, LAYOUTS)?;
        view.copy(&rows, UPLOADS)?;
        view.copy(&rows, UPLOADS_BY_KEY)?;
        view.copy(&rows, PARTS)?;
        view.copy(&rows, COMPLETED)?;
        view.copy(&rows, COMPLETED_ORDER)?;
        view.copy(&rows, GARBAGE)?;
        view.copy(&rows, MISSING)?;
        view.copy(&rows, UNPACKED)?;
        view.copy(&rows, PACKS)?;
        view.copy(&rows, PACK_MEMBERS)?;
        // Last, since it says that the others are complete; nothing was durable until now.
        view.copy(&rows, META)?;
        let at = applied(&view.db)?.ok_or(ViewError::Disagreement("the copied view has no schema"))?;
        view.applied.store(at, Ordering::SeqCst);
        view.checkpoint()?;
        Ok(view)
    }

    fn copy<K: Key + 'static, V: Value + 'static>(
        &self,
        from: &ReadTransaction,
        table: TableDefinition<'static, K, V>,
    ) -> ViewResult<()> {
        let rows = from.open_table(table)?;
        let mut txn = self.db.begin_write()?;
        txn.set_durability(Durability::None)?;
        {
            let mut to = txn.open_table(table)?;
            for row in rows.iter()? {
                let (key, value) = row?;
                to.insert(key.value(), value.value())?;
            }
        }
        Ok(txn.commit()?)
    }

    pub(crate) fn device(&self) -> DeviceId {
        self.device
    }

    /// The newest position its rows contain.
    pub(crate) fn applied(&self) -> Lsn {
        Lsn(self.applied.load(Ordering::SeqCst))
    }

    /// The newest position its rows contain after a crash.
    pub(crate) fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::SeqCst))
    }

    pub(crate) fn is_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Why it failed, when it did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.is_failed().then(|| self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Puts the view out of use.
    pub(crate) fn fail(&self, error: &ViewError) -> IndexError {
        let reason = error.to_string();
        if !self.failed.swap(true, Ordering::SeqCst) {
            tracing::error!(device = %self.device, %reason, "an index view fails; it is out of use until it is rebuilt");
            *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason.clone();
        }
        IndexError::View { device: self.device, reason }
    }

    pub(crate) fn database(&self) -> ViewResult<&Database> {
        if self.is_failed() { Err(ViewError::Failed) } else { Ok(&self.db) }
    }

    /// Applies the batch at `lsn`, unless the rows contain it already (`None`). Blocks.
    pub(crate) fn apply(&self, lsn: Lsn, batch: &Batch) -> ViewResult<Option<Vec<Outcome>>> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let at = self.applied();
        if lsn <= at {
            return Ok(None);
        }
        if lsn != at.next() {
            return Err(ViewError::Gap { at, batch: lsn });
        }
        let mut txn = self.database()?.begin_write()?;
        txn.set_durability(Durability::None)?;
        let outcomes = apply(&txn, lsn, batch)?;
        txn.commit()?;
        self.applied.store(lsn.0, Ordering::SeqCst);
        Ok(Some(outcomes))
    }

    /// Makes durable what is applied; gives up to where. Blocks.
    pub(crate) fn checkpoint(&self) -> ViewResult<Lsn> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let at = self.applied();
        if at != self.durable() {
            let mut txn = self.database()?.begin_write()?;
            // Checkpoints are rare: the dearer commit buys an opening that does not walk all pages.
            txn.set_quick_repair(true);
            txn.commit()?;
            self.durable.store(at.0, Ordering::SeqCst);
        }
        Ok(at)
    }
}

/// Up to where a database's rows go; `None` when it has no tables of ours.
fn applied(db: &Database) -> ViewResult<Option<u64>> {
    let txn = db.begin_read()?;
    let table = match txn.open_table(META) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match table.get(meta::SCHEMA)?.map(|v| v.value()) {
        None => Ok(None),
        Some(SCHEMA_VERSION) => {
            let applied = table.get(meta::APPLIED)?.map(|v| v.value());
            applied.map(Some).ok_or(ViewError::Row { table: "meta", what: "the applied position is absent" })
        }
        Some(_) => Err(ViewError::Row { table: "meta", what: "the tables have another version" }),
    }
}

#[cfg(test)]
impl View {
    /// Every row of every table, as text.
    pub(crate) fn dump(&self) -> ViewResult<Vec<String>> {
        fn rows<K: Key + 'static, V: Value + 'static>(
            txn: &ReadTransaction,
            table: TableDefinition<'static, K, V>,
            out: &mut Vec<String>,
        ) -> ViewResult<()> {
            for row in txn.open_table(table)?.iter()? {
                let (key, value) = row?;
                out.push(format!("{table}: {:?} = {:?}", key.value(), value.value()));
            }
            Ok(())
        }
        let txn = self.database()?.begin_read()?;
        let mut out = Vec::new();
        rows(&txn, META, &mut out)?;
        rows(&txn, BUCKETS, &mut out)?;
        rows(&txn, OBJECTS, &mut out)?;
        rows(&txn, LAYOUTS, &mut out)?;
        rows(&txn, UPLOADS, &mut out)?;
        rows(&txn, UPLOADS_BY_KEY, &mut out)?;
        rows(&txn, PARTS, &mut out)?;
        rows(&txn, COMPLETED, &mut out)?;
        rows(&txn, COMPLETED_ORDER, &mut out)?;
        rows(&txn, GARBAGE, &mut out)?;
        rows(&txn, MISSING, &mut out)?;
        rows(&txn, UNPACKED, &mut out)?;
        rows(&txn, PACKS, &mut out)?;
        rows(&txn, PACK_MEMBERS, &mut out)?;
        Ok(out)
    }
}
