//! `holdfast key`: through the running server's socket, or on the catalog itself when no server runs.

use std::sync::Arc;

use base::{OsClock, OsEntropy};
use catalog::RedbCatalog;
use daemon::admin::{KeyAdmin, KeyAdminError, KeyList, KeyRow, NewKey};
use serde::Serialize;

use crate::args::{KeyVerb, Output};
use crate::catalog_keys::CatalogKeys;
use crate::data_dir::DataDir;
use crate::error::CliError;
use crate::output::{self, utc};
use crate::socket::AdminSocket;

enum Door {
    Server(AdminSocket),
    File(CatalogKeys),
}

impl Door {
    fn open(data: &DataDir) -> Result<Self, CliError> {
        if let Some(socket) = AdminSocket::connect(&data.socket())? {
            return Ok(Self::Server(socket));
        }
        let path = data.catalog();
        if !path.exists() {
            return Err(CliError::Refused(format!(
                "{} holds no catalog; `holdfast dev --data {}` makes one",
                data.path().display(),
                data.path().display()
            )));
        }
        let catalog = Arc::new(RedbCatalog::open(&path)?);
        Ok(Self::File(CatalogKeys::open(catalog, Arc::new(OsEntropy), Arc::new(OsClock::new()))?))
    }
}

#[derive(Serialize)]
struct Deleted<'a> {
    deleted: &'a str,
}

/// Runs one verb and prints its result.
pub(crate) fn run(verb: KeyVerb, format: Output) -> Result<(), CliError> {
    match verb {
        KeyVerb::Create { place, name } => {
            let key = match Door::open(&DataDir::at(&place.data))? {
                Door::Server(socket) => socket.create_key(&name)?,
                Door::File(keys) => keys.create(&name).map_err(failed)?,
            };
            output::print(format, &key, || created(&key))
        }
        KeyVerb::List { place } => {
            let keys = match Door::open(&DataDir::at(&place.data))? {
                Door::Server(socket) => socket.list_keys()?,
                Door::File(keys) => keys.list().map_err(failed)?,
            };
            let list = KeyList { keys };
            output::print(format, &list, || table(&list.keys))
        }
        KeyVerb::Delete { place, access_key_id } => {
            let found = match Door::open(&DataDir::at(&place.data))? {
                Door::Server(socket) => socket.delete_key(&access_key_id)?,
                Door::File(keys) => keys.delete(&access_key_id).map_err(failed)?,
            };
            if !found {
                return Err(CliError::NoSuchKey(access_key_id));
            }
            output::print(format, &Deleted { deleted: &access_key_id }, || format!("deleted {access_key_id}"))
        }
    }
}

fn failed(error: KeyAdminError) -> CliError {
    CliError::Refused(error.to_string())
}

fn created(key: &NewKey) -> String {
    format!("export AWS_ACCESS_KEY_ID={}\nexport AWS_SECRET_ACCESS_KEY={}", key.access_key_id, key.secret_access_key)
}

fn table(keys: &[KeyRow]) -> String {
    let mut lines = vec![format!("{:<20}  {:<20}  NAME", "ACCESS KEY ID", "CREATED")];
    lines.extend(keys.iter().map(|key| format!("{:<20}  {}  {}", key.access_key_id, utc(key.created_ms), key.name)));
    lines.join("\n")
}
