//! The law of facts on the `redb` store, and what only a file can get wrong: modes, locks, formats.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use catalog::contract::facts::{FactsHome, run};
use catalog::{Commit, Facts, FactsError, RedbFacts};
use redb::{Database, TableDefinition};
use tempfile::TempDir;

struct Dir(TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("facts.redb")
    }
}

#[async_trait]
impl FactsHome for Dir {
    async fn open(&self) -> Arc<dyn Facts> {
        Arc::new(RedbFacts::open_or_create(&self.path()).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_redb_store_keeps_the_law_of_facts() {
    run(Dir::new, &|| Box::pin(tokio::task::yield_now()), 0..12).await;
}

#[tokio::test]
async fn the_file_has_one_holder_and_is_its_owners_alone() {
    let dir = Dir::new();
    let first = dir.open().await;
    first.commit(Commit::new().put("a", "1")).await.unwrap();
    let refusal = RedbFacts::open_or_create(&dir.path()).unwrap_err();
    assert!(matches!(refusal, FactsError::InUse) && refusal.is_retryable(), "{refusal}");
    drop(first);
    let mode = || std::fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(dir.open().await.get("a").await.unwrap().unwrap().value, "1");
    assert_eq!(mode(), 0o600);
}

#[tokio::test]
async fn a_newer_format_and_damaged_rows_are_refused_by_name() {
    let dir = Dir::new();
    drop(dir.open().await);
    let edit = |change: &dyn Fn(&redb::WriteTransaction)| {
        let db = Database::open(dir.path()).unwrap();
        let txn = db.begin_write().unwrap();
        change(&txn);
        txn.commit().unwrap();
    };
    let rows: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");
    for row in [&b"\x01\0\0"[..], &[0; 9]] {
        edit(&|txn| drop(txn.open_table(rows).unwrap().insert("a", row).unwrap()));
        let facts = dir.open().await;
        for refusal in [
            facts.get("a").await.unwrap_err(),
            facts.list("").await.unwrap_err(),
            facts.commit(Commit::new().check("a", 0).put("a", "1")).await.unwrap_err(),
        ] {
            assert!(matches!(refusal, FactsError::Corrupt { what: "a row", .. }), "{refusal}");
        }
    }
    let meta: TableDefinition<'_, &str, u64> = TableDefinition::new("facts_meta");
    edit(&|txn| drop(txn.open_table(meta).unwrap().insert("format", 2).unwrap()));
    let refusal = RedbFacts::open_or_create(&dir.path()).unwrap_err();
    assert!(matches!(refusal, FactsError::NewerFormat { found: 2, known: 1 }), "{refusal}");
}
