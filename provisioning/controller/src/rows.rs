//! The membership's rows in the store of small facts.
//!
//! Invariants: what one step changed is one commit, and the revision of the cluster's row is checked by it, so that of
//! two writers one is refused and no half of a change is ever seen. What was refused or left unknown makes the state
//! untrusted: it is loaded again.

use std::sync::Arc;

use catalog::{Change, Commit, Facts, FactsError, Fence, Outcome, Writer};
use membership::{LoadError, Membership, Row};
use thiserror::Error;

/// Where the rows are.
const RACK: &str = "rack/";
// A marked commit holds one change less than any other.
const _: () = assert!(membership::limits::ROWS_PER_STEP_MAX < catalog::CHANGES_MAX);

/// Why rows were not stored or read.
#[derive(Debug, Error)]
pub enum RowsError {
    /// The store.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// Somebody else has changed them.
    #[error("another controller has changed {0}")]
    Conflict(String),
    /// What is stored is no state.
    #[error("the rack's state cannot be read: {0}")]
    Load(#[from] LoadError),
}

/// The rows' place, with what is known of it.
pub(crate) struct Rows {
    facts: Arc<dyn Facts>,
    writer: Writer,
    fence: Fence,
    /// Revision of the cluster's row in the store; 0 before there is one.
    cluster_revision: u64,
}

fn path(row: &Row) -> String {
    format!("{RACK}{}", row.key().path())
}

impl Rows {
    pub(crate) fn new(facts: Arc<dyn Facts>, writer: Writer, fence: Fence) -> Self {
        Self { facts, writer, fence, cluster_revision: 0 }
    }

    /// Reads the state.
    pub(crate) async fn load(&mut self, now_ms: u64) -> Result<Membership, RowsError> {
        let listing = self.facts.list(RACK).await?;
        let mut rows = Vec::new();
        for fact in &listing.facts {
            let row = Row::decode(&fact.key[RACK.len()..], &fact.value)?;
            if matches!(row, Row::Cluster(_)) {
                self.cluster_revision = fact.revision;
            }
            rows.push(row);
        }
        Ok(Membership::load(rows, now_ms)?)
    }

    /// Stores what changed, all of it or nothing; durable when it returns well.
    pub(crate) async fn store(&mut self, rows: Vec<Row>) -> Result<(), RowsError> {
        let cluster = format!("{RACK}{}", membership::RowKey::Cluster.path());
        let names_cluster = rows.iter().any(|row| matches!(row, Row::Cluster(_)));
        let mut commit = Commit::new().fenced(&self.fence).check(cluster, self.cluster_revision);
        for row in rows {
            commit.changes.push(Change::Put { key: path(&row), value: row.encode().into() });
        }
        let outcome = match self.writer.commit(commit).await {
            Err(FactsError::Unknown(_)) => self.writer.settle().await?,
            other => other?,
        };
        match outcome {
            Outcome::Committed { revision } => {
                if names_cluster {
                    self.cluster_revision = revision;
                }
                Ok(())
            }
            Outcome::Conflict { key, .. } => Err(RowsError::Conflict(key)),
        }
    }
}
