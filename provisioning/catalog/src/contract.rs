//! The law every store of the catalog keeps, as a test-suite that takes the store as a parameter.
//!
//! A store's own tests call [`run`] with a way to open it, to open it again, and to throw it away; the
//! suite compares it with a map in memory over random histories with reopening in between. The law of a
//! store of facts is in [`facts`].

mod blobs;
pub mod facts;
mod histories;
pub mod lossy;
pub mod writers;

use std::collections::BTreeMap;

use base::{ClusterId, DeviceId};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::{AccessKey, Catalog, CatalogError, ClusterFacts, DeviceEntry, DomainLevel, Secret};

/// A place that one catalog lives in. Dropping it throws the catalog away.
pub trait Home {
    /// The store under test.
    type Store: Catalog;
    /// Opens the catalog; called again after the last one was dropped.
    fn open(&self) -> Self::Store;
}

/// Runs the whole suite; `fresh` gives an empty home for each history.
///
/// # Panics
/// When the store breaks the law.
pub fn run<H: Home>(mut fresh: impl FnMut() -> H) {
    keys_are_created_once(&fresh().open());
    facts_change_by_compare_and_set(&fresh().open());
    refusals_change_nothing(&fresh().open());
    let fresh = std::cell::RefCell::new(fresh);
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let histories = vec(operation(), 1..40);
    let outcome = runner.run(&histories, |history| {
        let home = (*fresh.borrow_mut())();
        agrees_with_a_map(&home, &history);
        Ok(())
    });
    if let Err(broken) = outcome {
        panic!("the store differs from the model: {broken}");
    }
}

#[derive(Debug, Clone)]
enum Operation {
    Add { id: u8, secret: u8 },
    Delete { id: u8 },
    PutCluster { revision_back: u64, k: u8 },
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0..12_u8, any::<u8>()).prop_map(|(id, secret)| Operation::Add { id, secret }),
        3 => (0..12_u8).prop_map(|id| Operation::Delete { id }),
        2 => (0..2_u64, 1..9_u8).prop_map(|(revision_back, k)| Operation::PutCluster { revision_back, k }),
        1 => Just(Operation::Reopen),
    ]
}

fn agrees_with_a_map<H: Home>(home: &H, history: &[Operation]) {
    let mut keys: BTreeMap<String, AccessKey> = BTreeMap::new();
    let mut facts: Option<ClusterFacts> = None;
    let mut store = home.open();
    for operation in history {
        match operation {
            Operation::Add { id, secret } => {
                let key = sample_key(*id, *secret);
                let answer = store.add_key(&key);
                if keys.contains_key(&key.access_key_id) {
                    assert!(matches!(answer, Err(CatalogError::KeyExists(_))), "{answer:?}");
                } else {
                    answer.expect("a free id is taken in");
                    keys.insert(key.access_key_id.clone(), key);
                }
            }
            Operation::Delete { id } => {
                let id = sample_key(*id, 0).access_key_id;
                let found = store.delete_key(&id).expect("deleting works");
                assert_eq!(found, keys.remove(&id).is_some(), "{id}");
            }
            Operation::PutCluster { revision_back, k } => {
                let stored = facts.as_ref().map_or(0, |facts| facts.revision);
                let wanted = sample_facts(stored.wrapping_sub(*revision_back), *k);
                match store.put_cluster(&wanted) {
                    Ok(revision) => {
                        assert_eq!((*revision_back, revision), (0, stored + 1));
                        facts = Some(ClusterFacts { revision, ..wanted });
                    }
                    Err(CatalogError::Stale { stored: told, given }) => {
                        assert_eq!((told, given), (stored, wanted.revision));
                        assert_ne!(*revision_back, 0);
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            Operation::Reopen => {
                drop(store);
                store = home.open();
            }
        }
        assert_same(&store, &keys, facts.as_ref());
    }
    drop(store);
    assert_same(&home.open(), &keys, facts.as_ref());
}

fn assert_same(store: &impl Catalog, keys: &BTreeMap<String, AccessKey>, facts: Option<&ClusterFacts>) {
    let expected: Vec<_> = keys.values().map(AccessKey::info).collect();
    assert_eq!(store.keys().expect("listing works"), expected);
    for id in (0..12).map(|id| sample_key(id, 0).access_key_id) {
        assert_eq!(store.key(&id).expect("reading works").as_ref(), keys.get(&id), "{id}");
    }
    assert_eq!(store.cluster().expect("reading works").as_ref(), facts);
}

fn keys_are_created_once(store: &impl Catalog) {
    let (first, second) = (sample_key(1, 1), sample_key(1, 2));
    store.add_key(&first).expect("a free id is taken in");
    assert!(matches!(store.add_key(&second), Err(CatalogError::KeyExists(id)) if id == first.access_key_id));
    assert_eq!(store.key(&first.access_key_id).expect("reading works"), Some(first.clone()));
    assert!(store.delete_key(&first.access_key_id).expect("deleting works"));
    assert!(!store.delete_key(&first.access_key_id).expect("deleting works"));
    assert_eq!(store.key(&first.access_key_id).expect("reading works"), None);
}

fn facts_change_by_compare_and_set(store: &impl Catalog) {
    assert_eq!(store.cluster().expect("reading works"), None);
    assert!(matches!(store.put_cluster(&sample_facts(1, 4)), Err(CatalogError::Stale { stored: 0, given: 1 })));
    assert_eq!(store.put_cluster(&sample_facts(0, 4)).expect("the first facts are taken in"), 1);
    assert!(matches!(store.put_cluster(&sample_facts(0, 5)), Err(CatalogError::Stale { stored: 1, given: 0 })));
    assert_eq!(store.put_cluster(&sample_facts(1, 5)).expect("the right revision is taken in"), 2);
    assert_eq!(store.cluster().expect("reading works"), Some(sample_facts(2, 5)));
}

fn refusals_change_nothing(store: &impl Catalog) {
    let nameless = AccessKey { name: String::new(), ..sample_key(3, 3) };
    assert!(matches!(store.add_key(&nameless), Err(CatalogError::Invalid { .. })));
    assert!(matches!(store.put_cluster(&sample_facts(0, 0)), Err(CatalogError::Invalid { .. })));
    assert_eq!(store.keys().expect("listing works"), []);
    assert_eq!(store.cluster().expect("reading works"), None);
}

fn sample_key(id: u8, secret: u8) -> AccessKey {
    AccessKey {
        access_key_id: format!("HFKEY{id:03}"),
        secret: Secret::new(format!("secret-{secret:03}-{id:03}")),
        name: format!("key {id}"),
        created_ms: u64::from(secret),
    }
}

fn sample_facts(revision: u64, k: u8) -> ClusterFacts {
    let device = |n: u8| DeviceEntry { device_id: DeviceId([n; 16]), path: format!("/d/{n}"), size_bytes: 1 << 32 };
    ClusterFacts {
        revision,
        cluster_id: ClusterId([9; 16]),
        data_shards: k,
        parity_shards: 2,
        domain_level: DomainLevel::Device,
        devices: (0..k).map(device).collect(),
    }
}
