//! The catalog's rows, as `RedbCatalog` reads them: JSON of a key, or of the cluster's facts.
//!
//! Left out: redb's own file format, which is not ours; `provisioning/catalog/tests/decoders.rs` puts such
//! rows into a real catalog.

use catalog::{AccessKey, ClusterFacts};

use crate::bounded;

pub(crate) fn rows(data: &[u8]) {
    if let Ok(key) = bounded(data.len(), 8, 4 << 10, || serde_json::from_slice::<AccessKey>(data)) {
        let _ = key.check();
        assert!(!format!("{key:?}").contains(key.secret.expose()) || key.secret.expose().len() < 8, "a secret shows");
        let again = serde_json::to_vec(&key).expect("keys encode");
        assert_eq!(serde_json::from_slice::<AccessKey>(&again).expect("its own words"), key);
    }
    if let Ok(facts) = bounded(data.len(), 8, 4 << 10, || serde_json::from_slice::<ClusterFacts>(data)) {
        let _ = facts.check();
        let again = serde_json::to_vec(&facts).expect("facts encode");
        assert_eq!(serde_json::from_slice::<ClusterFacts>(&again).expect("its own words"), facts);
    }
}
