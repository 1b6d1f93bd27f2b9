//! What is refused before its time: single certificates, and nodes that were removed with all of theirs.
//!
//! An entry is kept until nothing that it refuses can be valid any more, and then forgotten; so the list is bounded by
//! what was revoked within one life of a certificate. A node that was removed never comes back under its id: a new
//! join draws a new one.

use std::collections::BTreeMap;

use base::NodeId;
use serde::{Deserialize, Serialize};
use wire::identity::{PeerIdentity, Serial};
use wire::tls::Refused;

use crate::authority::{CLOCK_SLACK_MS, IssuedRow, VALIDITY_MS};

/// Refused certificates and nodes, each with the time until which it must be remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Rows", into = "Rows")]
pub struct RevocationList {
    serials: BTreeMap<Serial, u64>,
    nodes: BTreeMap<NodeId, u64>,
}

/// As it is stored: lists, since not every encoding has maps whose keys are no text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    serials: Vec<(Serial, u64)>,
    nodes: Vec<(NodeId, u64)>,
}

impl From<Rows> for RevocationList {
    fn from(rows: Rows) -> Self {
        Self { serials: rows.serials.into_iter().collect(), nodes: rows.nodes.into_iter().collect() }
    }
}

impl From<RevocationList> for Rows {
    fn from(list: RevocationList) -> Self {
        Self { serials: list.serials.into_iter().collect(), nodes: list.nodes.into_iter().collect() }
    }
}

impl RevocationList {
    /// Refuses one certificate. Answers whether that is new.
    pub fn revoke(&mut self, certificate: &IssuedRow) -> bool {
        self.serials.insert(certificate.serial, until(certificate.not_after_ms)).is_none()
    }

    /// Refuses a node with every certificate that it has, or is being given at this moment. Answers whether that is new.
    pub fn revoke_node(&mut self, node: NodeId, now_ms: u64) -> bool {
        self.nodes.insert(node, until(now_ms.saturating_add(VALIDITY_MS))).is_none()
    }

    /// Whether a peer is refused.
    #[must_use]
    pub fn holds(&self, peer: &PeerIdentity) -> bool {
        self.serials.contains_key(&peer.serial) || peer.node().is_some_and(|node| self.nodes.contains_key(&node))
    }

    /// Forgets what has ended by itself. Answers whether anything was forgotten.
    pub fn prune(&mut self, now_ms: u64) -> bool {
        let before = self.len();
        self.serials.retain(|_, until_ms| *until_ms > now_ms);
        self.nodes.retain(|_, until_ms| *until_ms > now_ms);
        self.len() != before
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.serials.len() + self.nodes.len()
    }

    /// Whether nothing is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers of refused certificates.
    pub fn serials(&self) -> impl Iterator<Item = Serial> + '_ {
        self.serials.keys().copied()
    }

    /// The nodes that were removed.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.keys().copied()
    }

    /// What [`wire::tls::Credentials::refuse`] takes.
    #[must_use]
    pub fn refused(&self) -> Refused {
        Refused { serials: self.serials().collect(), nodes: self.nodes().collect() }
    }
}

/// A little longer than it is valid: not every peer's clock is exact.
fn until(not_after_ms: u64) -> u64 {
    not_after_ms.saturating_add(CLOCK_SLACK_MS)
}
