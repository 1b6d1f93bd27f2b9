//! The catalog in one `redb` file: the default, for a single node or a rack with one controller.
//!
//! Invariants: the file has mode 0600 before the first byte is in it; every change is one transaction
//! with immediate durability; the format number is read before any row and a newer one is refused.
//!
//! Left out on purpose: a cache. `redb` keeps its pages in memory, and a key look-up reads one.

use std::fs::OpenOptions;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{AccessKey, Catalog, CatalogError, CatalogResult, ClusterFacts, KEYS_MAX, KeyInfo};

/// Format 1: `keys` and `cluster` hold JSON.
const FORMAT: u64 = 1;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const KEYS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("keys");
const CLUSTER: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("cluster");

const META_FORMAT: &str = "format";
const CLUSTER_FACTS: &str = "facts";

/// Bytes of pages kept in memory: a catalog is far smaller than the library's default of 1 GiB.
const CACHE_BYTES: usize = 4 << 20;

/// A catalog in a file. Only one process may hold it.
pub struct RedbCatalog {
    db: Database,
}

impl std::fmt::Debug for RedbCatalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedbCatalog(..)")
    }
}

impl RedbCatalog {
    /// Opens the catalog at `path`, or makes an empty one.
    ///
    /// # Errors
    /// [`CatalogError::InUse`] when another process holds it, [`CatalogError::NewerFormat`],
    /// [`CatalogError::Store`].
    pub fn open_or_create(path: &Path) -> CatalogResult<Self> {
        Self::from_database(open_database(path, true)?)
    }

    /// Opens a catalog that is there.
    ///
    /// # Errors
    /// As [`RedbCatalog::open_or_create`]; [`CatalogError::Store`] when there is none.
    pub fn open(path: &Path) -> CatalogResult<Self> {
        Self::from_database(open_database(path, false)?)
    }

    fn from_database(db: Database) -> CatalogResult<Self> {
        let catalog = Self { db };
        catalog.check_format()?;
        Ok(catalog)
    }

    fn check_format(&self) -> CatalogResult<()> {
        let txn = self.db.begin_write().map_err(store)?;
        let fresh = {
            let mut meta = txn.open_table(META).map_err(store)?;
            let found = meta.get(META_FORMAT).map_err(store)?.map(|v| v.value());
            match found {
                Some(found) if found > FORMAT => {
                    return Err(CatalogError::NewerFormat { found, known: FORMAT });
                }
                Some(_) => false,
                None => {
                    meta.insert(META_FORMAT, FORMAT).map_err(store)?;
                    // Readers open tables without creating them.
                    txn.open_table(KEYS).map_err(store)?;
                    txn.open_table(CLUSTER).map_err(store)?;
                    true
                }
            }
        };
        if fresh { txn.commit().map_err(store) } else { txn.abort().map_err(store) }
    }
}

impl Catalog for RedbCatalog {
    fn add_key(&self, key: &AccessKey) -> CatalogResult<()> {
        key.check()?;
        let row = to_row("access key", key)?;
        let txn = self.db.begin_write().map_err(store)?;
        {
            let mut keys = txn.open_table(KEYS).map_err(store)?;
            if keys.get(key.access_key_id.as_str()).map_err(store)?.is_some() {
                return Err(CatalogError::KeyExists(key.access_key_id.clone()));
            }
            if keys.len().map_err(store)? >= KEYS_MAX as u64 {
                return Err(CatalogError::TooManyKeys);
            }
            keys.insert(key.access_key_id.as_str(), row.as_slice()).map_err(store)?;
        }
        txn.commit().map_err(store)
    }

    fn key(&self, access_key_id: &str) -> CatalogResult<Option<AccessKey>> {
        let txn = self.db.begin_read().map_err(store)?;
        let keys = txn.open_table(KEYS).map_err(store)?;
        let row = keys.get(access_key_id).map_err(store)?;
        let key: Option<AccessKey> = row.map(|row| from_row("access key", row.value())).transpose()?;
        match key {
            Some(key) if key.access_key_id != access_key_id => {
                Err(CatalogError::Corrupt { what: "access key", reason: "it is stored under another id".to_owned() })
            }
            key => Ok(key),
        }
    }

    fn keys(&self) -> CatalogResult<Vec<KeyInfo>> {
        let txn = self.db.begin_read().map_err(store)?;
        let keys = txn.open_table(KEYS).map_err(store)?;
        let mut all = Vec::new();
        for row in keys.iter().map_err(store)? {
            let (_, value) = row.map_err(store)?;
            all.push(from_row::<AccessKey>("access key", value.value())?.info());
        }
        Ok(all)
    }

    fn delete_key(&self, access_key_id: &str) -> CatalogResult<bool> {
        let txn = self.db.begin_write().map_err(store)?;
        let found = {
            let mut keys = txn.open_table(KEYS).map_err(store)?;
            keys.remove(access_key_id).map_err(store)?.is_some()
        };
        txn.commit().map_err(store)?;
        Ok(found)
    }

    fn cluster(&self) -> CatalogResult<Option<ClusterFacts>> {
        let txn = self.db.begin_read().map_err(store)?;
        let table = txn.open_table(CLUSTER).map_err(store)?;
        let row = table.get(CLUSTER_FACTS).map_err(store)?;
        row.map(|row| from_row("cluster facts", row.value())).transpose()
    }

    fn put_cluster(&self, facts: &ClusterFacts) -> CatalogResult<u64> {
        facts.check()?;
        let txn = self.db.begin_write().map_err(store)?;
        let revision = {
            let mut table = txn.open_table(CLUSTER).map_err(store)?;
            let stored = match table.get(CLUSTER_FACTS).map_err(store)? {
                Some(row) => from_row::<ClusterFacts>("cluster facts", row.value())?.revision,
                None => 0,
            };
            if stored != facts.revision {
                return Err(CatalogError::Stale { stored, given: facts.revision });
            }
            let next = ClusterFacts { revision: stored + 1, ..facts.clone() };
            table.insert(CLUSTER_FACTS, to_row("cluster facts", &next)?.as_slice()).map_err(store)?;
            next.revision
        };
        txn.commit().map_err(store)?;
        Ok(revision)
    }
}

/// Opens the file of a database, with its mode, or makes one.
pub(crate) fn open_database(path: &Path, create: bool) -> CatalogResult<Database> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).truncate(false).mode(0o600);
    let file = options.open(path).map_err(|e| at(path, &e))?;
    // A file restored from a backup may have come with another mode.
    file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(store)?;
    let in_use = |e| match e {
        DatabaseError::DatabaseAlreadyOpen => CatalogError::InUse,
        other => store(other),
    };
    let backend = FileBackend::new(file).map_err(in_use)?;
    Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend).map_err(in_use)
}

fn to_row<T: Serialize>(what: &'static str, value: &T) -> CatalogResult<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| CatalogError::Corrupt { what, reason: e.to_string() })
}

fn from_row<T: DeserializeOwned>(what: &'static str, row: &[u8]) -> CatalogResult<T> {
    // The parser's own message may quote the row, and the row holds secrets: only the place is told.
    serde_json::from_slice(row)
        .map_err(|e| CatalogError::Corrupt { what, reason: format!("at line {}, column {}", e.line(), e.column()) })
}

fn store(error: impl std::fmt::Display) -> CatalogError {
    CatalogError::Store(error.to_string())
}

fn at(path: &Path, error: &std::io::Error) -> CatalogError {
    CatalogError::Store(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.redb");
        drop(RedbCatalog::open_or_create(&path).unwrap());
        let db = Database::open(&path).unwrap();
        let txn = db.begin_write().unwrap();
        txn.open_table(META).unwrap().insert(META_FORMAT, FORMAT + 1).unwrap();
        txn.commit().unwrap();
        drop(db);
        let refusal = RedbCatalog::open(&path).unwrap_err();
        assert!(matches!(refusal, CatalogError::NewerFormat { found: 2, known: 1 }), "{refusal}");
    }

    #[test]
    fn a_row_that_does_not_parse_is_named_and_not_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.redb");
        let catalog = RedbCatalog::open_or_create(&path).unwrap();
        let txn = catalog.db.begin_write().unwrap();
        txn.open_table(KEYS).unwrap().insert("HFX", br#"{"secret":"hidden""#.as_slice()).unwrap();
        txn.commit().unwrap();
        for refusal in [catalog.key("HFX").unwrap_err(), catalog.keys().unwrap_err()] {
            assert!(matches!(refusal, CatalogError::Corrupt { what: "access key", .. }), "{refusal}");
            assert!(!refusal.to_string().contains("hidden"), "{refusal}");
        }
    }

    #[test]
    fn a_row_under_another_id_is_corrupt() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = RedbCatalog::open_or_create(&dir.path().join("catalog.redb")).unwrap();
        let (access_key_id, secret) = ("HFOTHER".to_owned(), crate::Secret::new("hidden".to_owned()));
        let key = AccessKey { access_key_id, secret, name: String::new(), created_ms: 0 };
        let txn = catalog.db.begin_write().unwrap();
        txn.open_table(KEYS).unwrap().insert("HFX", serde_json::to_vec(&key).unwrap().as_slice()).unwrap();
        txn.commit().unwrap();
        let refusal = catalog.key("HFX").unwrap_err();
        assert!(matches!(refusal, CatalogError::Corrupt { what: "access key", .. }), "{refusal}");
    }
}
