//! The catalog's rows as they come from the file: whatever a row holds, reading it gives what was stored or
//! a refusal that quotes nothing, without a panic and within memory bounded by the row.

use std::alloc::System;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base::{ClusterId, DeviceId};
use catalog::{AccessKey, Catalog, CatalogError, ClusterFacts, DeviceEntry, DomainLevel, RedbCatalog, Secret};
use proptest::prelude::*;
use redb::{Database, TableDefinition};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes allocated in all for each byte of a row: a device takes 80 bytes there and in memory, in a list that
/// doubles.
const FACTOR: usize = 8;
/// And besides.
const CONSTANT: usize = 4096;

/// Allocations are counted for the whole process: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key() -> AccessKey {
    AccessKey {
        access_key_id: "HFROOT".into(),
        secret: Secret::new("hidden-from-all".into()),
        name: "root \"é\"".into(),
        created_ms: 1_000,
    }
}

fn facts() -> ClusterFacts {
    let device = |n| DeviceEntry { device_id: DeviceId([n; 16]), path: "/dev/sda".into(), size_bytes: 1 << 40 };
    ClusterFacts {
        revision: 3,
        cluster_id: ClusterId([1; 16]),
        data_shards: 4,
        parity_shards: 2,
        domain_level: DomainLevel::Device,
        devices: vec![device(1), device(2)],
    }
}

/// What the catalog does with the bytes of a row.
fn check(row: &[u8]) {
    let region = Region::new(ALLOCATOR);
    let key = serde_json::from_slice::<AccessKey>(row);
    let facts = serde_json::from_slice::<ClusterFacts>(row);
    let allocated = region.change().bytes_allocated;
    assert!(allocated <= 2 * (FACTOR * row.len() + CONSTANT), "{allocated} bytes for {}", row.len());
    if let Ok(key) = key {
        let _ = key.check();
        let again = serde_json::to_vec(&key).expect("keys encode");
        assert_eq!(serde_json::from_slice::<AccessKey>(&again).expect("its own words"), key);
    }
    if let Ok(facts) = facts {
        let _ = facts.check();
        let again = serde_json::to_vec(&facts).expect("facts encode");
        assert_eq!(serde_json::from_slice::<ClusterFacts>(&again).expect("its own words"), facts);
    }
}

#[test]
fn arbitrary_and_damaged_rows() {
    let _alone = alone();
    let rows = [serde_json::to_vec(&key()).expect("keys"), serde_json::to_vec(&facts()).expect("facts")];
    let bits = prop::collection::vec(any::<usize>(), 0..4);
    let some = prop::collection::vec(any::<u8>(), 0..300);
    let damage = (0usize..2, bits, any::<usize>(), some);
    proptest!(ProptestConfig::with_cases(2000), |((which, bits, cut, some) in damage)| {
        check(&some);
        let mut row = rows[which].clone();
        for bit in bits {
            let bit = bit % (row.len() * 8);
            row[bit / 8] ^= 1 << (bit % 8);
        }
        check(&row);
        row.truncate(cut % (row.len() + 1));
        check(&row);
        row.extend(some);
        check(&row);
    });
}

/// Deep nesting is refused by depth, not by the end of the stack.
#[test]
fn nested_rows_are_refused() {
    let _alone = alone();
    for open in ["[", "{\"a\":"] {
        check(open.repeat(100_000).as_bytes());
        check(format!("{{\"revision\":1,\"devices\":{}", open.repeat(100_000)).as_bytes());
    }
}

/// The same through a catalog whose file holds such rows.
#[test]
fn a_catalog_with_foreign_rows_refuses_them_by_name() {
    let _alone = alone();
    let whole = serde_json::to_vec(&key()).expect("keys encode");
    let missing = br#"{"access_key_id":"HFROOT","secret":"hidden-from-all"}"#;
    for row in [&b""[..], b"\xff\xfe", b"null", b"[1]", missing, &whole[..whole.len() - 1]] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("catalog.redb");
        drop(RedbCatalog::open_or_create(&path).expect("a new catalog"));
        put_raw(&path, row);
        let catalog = RedbCatalog::open(&path).expect("its format is known");
        let refusals = [
            catalog.key("HFROOT").expect_err("the row is no key"),
            catalog.keys().expect_err("the row is no key"),
            catalog.cluster().expect_err("the row is no cluster"),
            catalog.put_cluster(&facts()).expect_err("what is there has no revision"),
        ];
        for refusal in refusals {
            assert!(matches!(refusal, CatalogError::Corrupt { .. }), "{refusal}");
            assert!(!refusal.to_string().contains("hidden"), "{refusal}");
        }
        assert!(catalog.delete_key("HFROOT").expect("it can be removed unread"));
    }
}

fn put_raw(path: &std::path::Path, row: &[u8]) {
    let db = Database::open(path).expect("a database");
    let txn = db.begin_write().expect("a transaction");
    for (table, name) in [("keys", "HFROOT"), ("cluster", "facts")] {
        let table: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(table);
        txn.open_table(table).expect("a table").insert(name, row).expect("a row");
    }
    txn.commit().expect("a commit");
}
