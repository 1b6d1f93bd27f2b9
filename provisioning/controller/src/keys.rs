//! Access keys of the S3 face: kept here, handed to every node whole whenever one changes.

use std::sync::Arc;

use base::{Clock, Entropy};
use catalog::{AccessKey, Commit, Facts, Follower, KEYS_MAX, NAME_BYTES_MAX, Outcome, draw_key};
use tokio::sync::{Mutex, watch};
use wire::Fault;
use wire::controller as pb;

/// Where the keys are.
const KEYS: &str = "keys/";

/// All keys, by id.
pub(crate) type AllKeys = Arc<Vec<AccessKey>>;

/// See the file's header.
pub(crate) struct KeyRing {
    facts: Arc<dyn Facts>,
    all: watch::Sender<AllKeys>,
    follower: Mutex<Follower>,
}

pub(crate) fn to_wire(key: &AccessKey) -> pb::AccessKey {
    pb::AccessKey {
        id: key.access_key_id.clone(),
        secret: key.secret.expose().to_owned(),
        name: key.name.clone(),
        created_ms: key.created_ms,
    }
}

fn failed(error: &catalog::FactsError) -> Fault {
    Fault::Busy(error.to_string())
}

impl KeyRing {
    pub(crate) fn new(facts: Arc<dyn Facts>) -> Self {
        Self { facts, all: watch::Sender::default(), follower: Mutex::new(Follower::new(KEYS)) }
    }

    /// All keys from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<AllKeys> {
        self.all.subscribe()
    }

    /// Looks whether anybody has changed the keys.
    pub(crate) async fn refresh(&self) -> Result<(), Fault> {
        let mut follower = self.follower.lock().await;
        if follower.poll(&*self.facts).await.map_err(|error| failed(&error))?.is_empty() {
            return Ok(());
        }
        let mut keys = Vec::new();
        for fact in follower.known().values() {
            match serde_json::from_slice::<AccessKey>(&fact.value) {
                Ok(key) if fact.key.strip_prefix(KEYS) == Some(key.access_key_id.as_str()) => keys.push(key),
                // Nothing of its text is shown: it holds a secret.
                _ => tracing::error!(key = fact.key, "an access key's row does not parse and is left out"),
            }
        }
        self.all.send_replace(Arc::new(keys));
        Ok(())
    }

    /// Draws a key.
    pub(crate) async fn create(
        &self,
        name: &str,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Result<AccessKey, Fault> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(Fault::Invalid(format!(
                "a key's name has 1 to {NAME_BYTES_MAX} bytes and no control characters"
            )));
        }
        if self.all.borrow().len() >= KEYS_MAX {
            return Err(Fault::Invalid(format!("there are {KEYS_MAX} access keys, the most there may be")));
        }
        let key = draw_key(entropy, clock, name);
        let row = serde_json::to_vec(&key).map_err(|_| Fault::Invalid("the key does not encode".into()))?;
        let path = format!("{KEYS}{}", key.access_key_id);
        let commit = Commit::new().check(path.clone(), 0).put(path, row);
        match self.facts.commit(commit).await.map_err(|error| failed(&error))? {
            Outcome::Committed { .. } => {}
            Outcome::Conflict { .. } => return Err(Fault::Busy("the key's id was taken: try again".into())),
        }
        self.refresh().await?;
        Ok(key)
    }

    /// Deletes a key; requests signed with it are refused as soon as the nodes have heard of it.
    pub(crate) async fn delete(&self, id: &str) -> Result<(), Fault> {
        self.refresh().await?;
        if !self.all.borrow().iter().any(|key| key.access_key_id == id) {
            return Err(Fault::NotFound);
        }
        let commit = Commit::new().delete(format!("{KEYS}{id}"));
        self.facts.commit(commit).await.map_err(|error| failed(&error))?;
        self.refresh().await
    }
}
