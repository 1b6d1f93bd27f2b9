//! `holdfast key`: through the running server's socket, or on the catalog itself when no server runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{OsClock, OsEntropy};
use catalog::RedbCatalog;
use daemon::admin::{KeyAdmin, KeyAdminError, KeyList, KeyRow, NewKey};
use serde::Serialize;
use wire::controller::{AccessKey, CreateKeyRequest, DeleteKeyRequest, Empty};

use crate::args::{KeyPlace, KeyVerb, Output};
use crate::catalog_keys::CatalogKeys;
use crate::data_dir::DataDir;
use crate::error::CliError;
use crate::output::{self, utc};
use crate::rack::connect::with_controller;
use crate::socket::AdminSocket;

enum Door {
    Server(AdminSocket),
    File(CatalogKeys),
    Rack(PathBuf),
}

impl Door {
    fn open(place: &KeyPlace) -> Result<Self, CliError> {
        let data = match (&place.data, &place.operator) {
            (Some(data), _) => DataDir::at(data),
            (None, Some(operator)) => return Ok(Self::Rack(operator.clone())),
            (None, None) => return Err(CliError::Usage("give --data or --as".into())),
        };
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
            let key = match Door::open(&place)? {
                Door::Server(socket) => socket.create_key(&name)?,
                Door::Rack(operator) => rack_create(&operator, name)?,
                Door::File(keys) => keys.create(&name).map_err(failed)?,
            };
            output::print(format, &key, || created(&key))
        }
        KeyVerb::List { place } => {
            let keys = match Door::open(&place)? {
                Door::Server(socket) => socket.list_keys()?,
                Door::Rack(operator) => rack_list(&operator)?,
                Door::File(keys) => keys.list().map_err(failed)?,
            };
            let list = KeyList { keys };
            output::print(format, &list, || table(&list.keys))
        }
        KeyVerb::Delete { place, access_key_id } => {
            let found = match Door::open(&place)? {
                Door::Server(socket) => socket.delete_key(&access_key_id)?,
                Door::Rack(operator) => rack_delete(&operator, &access_key_id)?,
                Door::File(keys) => keys.delete(&access_key_id).map_err(failed)?,
            };
            if !found {
                return Err(CliError::NoSuchKey(access_key_id));
            }
            output::print(format, &Deleted { deleted: &access_key_id }, || format!("deleted {access_key_id}"))
        }
    }
}

fn rack_create(operator: &Path, name: String) -> Result<NewKey, CliError> {
    let ask = CreateKeyRequest { name };
    let key = with_controller(operator, |mut admin| async move { admin.create_key(ask).await })?;
    let AccessKey { id, secret, name, created_ms } = key;
    Ok(NewKey { access_key_id: id, secret_access_key: secret, name, created_ms })
}

fn rack_list(operator: &Path) -> Result<Vec<KeyRow>, CliError> {
    let list = with_controller(operator, |mut admin| async move { admin.list_keys(Empty {}).await })?;
    let row = |key: AccessKey| KeyRow { access_key_id: key.id, name: key.name, created_ms: key.created_ms };
    Ok(list.keys.into_iter().map(row).collect())
}

fn rack_delete(operator: &Path, id: &str) -> Result<bool, CliError> {
    if !rack_list(operator)?.iter().any(|key| key.access_key_id == id) {
        return Ok(false);
    }
    let ask = DeleteKeyRequest { id: id.to_owned() };
    with_controller(operator, |mut admin| async move { admin.delete_key(ask).await }).map(|_| true)
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
