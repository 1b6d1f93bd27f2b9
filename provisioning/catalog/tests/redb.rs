//! The contract on the `redb` store, and what only a file can get wrong: modes and locks.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use base::{OsClock, OsEntropy};
use catalog::contract::{Home, run};
use catalog::{Catalog, CatalogError, RedbCatalog, draw_key};
use tempfile::TempDir;

struct Dir(TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("catalog.redb")
    }
}

impl Home for Dir {
    type Store = RedbCatalog;

    fn open(&self) -> RedbCatalog {
        RedbCatalog::open_or_create(&self.path()).unwrap()
    }
}

#[test]
fn the_redb_store_keeps_the_law() {
    run(Dir::new);
}

#[test]
fn the_file_is_its_owners_alone_also_after_a_restore() {
    let dir = Dir::new();
    drop(dir.open());
    let mode = || std::fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    drop(RedbCatalog::open(&dir.path()).unwrap());
    assert_eq!(mode(), 0o600);
}

#[test]
fn a_second_holder_is_refused_until_the_first_lets_go() {
    let dir = Dir::new();
    let first = dir.open();
    first.add_key(&draw_key(&OsEntropy, &OsClock::new(), "root")).unwrap();
    let refusal = RedbCatalog::open(&dir.path()).unwrap_err();
    assert!(matches!(refusal, CatalogError::InUse) && refusal.is_retryable(), "{refusal}");
    drop(first);
    assert_eq!(RedbCatalog::open(&dir.path()).unwrap().keys().unwrap().len(), 1);
}

#[test]
fn an_absent_catalog_is_not_made_by_opening() {
    let dir = Dir::new();
    let refusal = RedbCatalog::open(&dir.path()).unwrap_err().to_string();
    assert!(refusal.contains("catalog.redb") && refusal.contains("No such file"), "{refusal}");
    assert!(!dir.path().exists());
}
