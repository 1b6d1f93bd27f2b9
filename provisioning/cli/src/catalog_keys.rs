//! The catalog as the node sees it: keys to verify signatures with, and the admin server's key store.
//!
//! This is where the rooms meet: the node names its own traits and never imports the catalog.
//!
//! Invariants: the secrets in memory are those of the catalog, which no other process can change while this
//! one holds it; a key counts as created when it is durable, and as deleted when no request can use it any more.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use base::{Clock, Entropy};
use catalog::{AccessKey, Catalog, CatalogError, CatalogResult, KeyInfo, Secret, draw_key};
use daemon::admin::{KeyAdmin, KeyAdminError, KeyRow, NewKey};

/// Keys in a catalog, with what is needed to draw new ones.
pub(crate) struct CatalogKeys {
    catalog: Arc<dyn Catalog>,
    entropy: Arc<dyn Entropy>,
    clock: Arc<dyn Clock>,
    /// Secrets by access key id: every signed request asks here. At most [`catalog::KEYS_MAX`].
    secrets: RwLock<HashMap<String, Secret>>,
    /// Held over a change of the catalog and of the secrets, so that both see changes in one order.
    change: Mutex<()>,
}

impl fmt::Debug for CatalogKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CatalogKeys(..)")
    }
}

impl CatalogKeys {
    /// Reads every secret in.
    pub(crate) fn open(
        catalog: Arc<dyn Catalog>,
        entropy: Arc<dyn Entropy>,
        clock: Arc<dyn Clock>,
    ) -> CatalogResult<Self> {
        let mut secrets = HashMap::new();
        for info in catalog.keys()? {
            if let Some(key) = catalog.key(&info.access_key_id)? {
                secrets.insert(key.access_key_id, key.secret);
            }
        }
        assert!(secrets.len() <= catalog::KEYS_MAX, "the catalog bounds its keys");
        Ok(Self { catalog, entropy, clock, secrets: RwLock::new(secrets), change: Mutex::new(()) })
    }

    /// Draws a key and stores it.
    pub(crate) fn draw(&self, name: &str) -> CatalogResult<AccessKey> {
        let key = draw_key(&*self.entropy, &*self.clock, name);
        let _order = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        self.catalog.add_key(&key)?;
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        secrets.insert(key.access_key_id.clone(), key.secret.clone());
        Ok(key)
    }

    /// The secret of an access key.
    pub(crate) fn secret(&self, access_key_id: &str) -> Option<Secret> {
        self.secrets.read().unwrap_or_else(PoisonError::into_inner).get(access_key_id).cloned()
    }
}

impl daemon::Keys for CatalogKeys {
    fn secret(&self, access_key_id: &str) -> Option<daemon::Secret> {
        Self::secret(self, access_key_id).map(|secret| daemon::Secret::new(secret.expose().to_owned()))
    }
}

impl KeyAdmin for CatalogKeys {
    fn create(&self, name: &str) -> Result<NewKey, KeyAdminError> {
        let key = self.draw(name).map_err(refusal)?;
        Ok(NewKey {
            access_key_id: key.access_key_id,
            secret_access_key: key.secret.expose().to_owned(),
            name: key.name,
            created_ms: key.created_ms,
        })
    }

    fn list(&self) -> Result<Vec<KeyRow>, KeyAdminError> {
        let row =
            |key: KeyInfo| KeyRow { access_key_id: key.access_key_id, name: key.name, created_ms: key.created_ms };
        Ok(self.catalog.keys().map_err(refusal)?.into_iter().map(row).collect())
    }

    fn delete(&self, access_key_id: &str) -> Result<bool, KeyAdminError> {
        let _order = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let found = self.catalog.delete_key(access_key_id).map_err(refusal)?;
        self.secrets.write().unwrap_or_else(PoisonError::into_inner).remove(access_key_id);
        Ok(found)
    }
}

fn refusal(error: CatalogError) -> KeyAdminError {
    match error {
        CatalogError::Invalid { .. } => KeyAdminError::Invalid(error.to_string()),
        CatalogError::TooManyKeys => KeyAdminError::Full(error.to_string()),
        other => KeyAdminError::Failed(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use base::{OsClock, OsEntropy};
    use catalog::RedbCatalog;

    use super::*;

    #[test]
    fn secrets_follow_the_catalog_and_survive_it_being_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.redb");
        let open = || {
            let catalog = Arc::new(RedbCatalog::open_or_create(&path).unwrap());
            CatalogKeys::open(catalog, Arc::new(OsEntropy), Arc::new(OsClock::new())).unwrap()
        };
        let keys = open();
        let (kept, gone) = (keys.create("kept").unwrap(), keys.create("gone").unwrap());
        assert_eq!(keys.secret(&gone.access_key_id), Some(Secret::new(gone.secret_access_key.clone())));
        assert_eq!(keys.delete(&gone.access_key_id), Ok(true));
        assert_eq!(keys.secret(&gone.access_key_id), None);
        drop(keys);
        let keys = open();
        assert_eq!(keys.secret(&kept.access_key_id), Some(Secret::new(kept.secret_access_key)));
        assert_eq!(keys.secret(&gone.access_key_id), None);
        assert_eq!(keys.delete(&gone.access_key_id), Ok(false));
    }
}
