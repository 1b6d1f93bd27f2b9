//! The catalog as the node sees it: keys to verify signatures with, and the admin server's key store.
//!
//! This is where the rooms meet: the node names its own traits and never imports the catalog.

use std::fmt;
use std::sync::Arc;

use base::{Clock, Entropy};
use catalog::{Catalog, CatalogError, CatalogResult, KeyInfo, draw_key};
use daemon::admin::{KeyAdmin, KeyAdminError, KeyRow, NewKey};

/// Keys in a catalog, with what is needed to draw new ones.
#[derive(Clone)]
pub(crate) struct CatalogKeys {
    catalog: Arc<dyn Catalog>,
    entropy: Arc<dyn Entropy>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for CatalogKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CatalogKeys(..)")
    }
}

impl CatalogKeys {
    pub(crate) fn new(catalog: Arc<dyn Catalog>, entropy: Arc<dyn Entropy>, clock: Arc<dyn Clock>) -> Self {
        Self { catalog, entropy, clock }
    }

    /// Draws a key and stores it.
    pub(crate) fn draw(&self, name: &str) -> CatalogResult<catalog::AccessKey> {
        let key = draw_key(&*self.entropy, &*self.clock, name);
        self.catalog.add_key(&key)?;
        Ok(key)
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
        self.catalog.delete_key(access_key_id).map_err(refusal)
    }
}

fn refusal(error: CatalogError) -> KeyAdminError {
    match error {
        CatalogError::Invalid { .. } => KeyAdminError::Invalid(error.to_string()),
        CatalogError::TooManyKeys => KeyAdminError::Full(error.to_string()),
        other => KeyAdminError::Failed(other.to_string()),
    }
}
