//! The state piece by piece, as a key-value store keeps it.
//!
//! One row for the cluster, one for each node and device ever known (by its place in the map), one for each 128
//! groups with the moves planned for them, one for each partition. Rows are never deleted. The cluster row carries the
//! revision by which writers compare and set, and how many of the others there are, so that a store that lost some is
//! noticed.
//!
//! Encoding: one byte of format, then postcard. A newer format is refused by name.

use base::{ClusterId, DeviceId, NodeId};
use placement::map::{DeviceState, Group, MapDevice, MapNode, MapPartition, NodeState, Policy};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::input::{DeviceIdentity, NodeFacts};
use crate::limits::Limits;

/// Format of an encoded row.
const FORMAT: u8 = 1;

/// Which row. In this order they are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    /// The cluster.
    Cluster,
    /// A node, by place.
    Node(u32),
    /// A device, by place.
    Device(u32),
    /// 128 groups: this times 128 is the first one's number.
    Groups(u32),
    /// A partition, by place in the map's list.
    Partition(u32),
}

impl RowKey {
    /// The key as text; sorts by kind, then number.
    #[must_use]
    pub fn path(self) -> String {
        match self {
            Self::Cluster => "cluster".to_owned(),
            Self::Node(place) => format!("node/{place:08x}"),
            Self::Device(place) => format!("device/{place:08x}"),
            Self::Groups(block) => format!("groups/{block:08x}"),
            Self::Partition(place) => format!("partition/{place:08x}"),
        }
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Row {
    /// The cluster.
    Cluster(ClusterRow),
    /// A node.
    Node(NodeRow),
    /// A device.
    Device(DeviceRow),
    /// Groups.
    Groups(GroupsRow),
    /// A partition.
    Partition(PartitionRow),
}

/// The cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRow {
    /// Its id.
    pub cluster: ClusterId,
    /// How stripes are kept.
    pub policy: Policy,
    /// The rest.
    pub limits: Limits,
    /// When it was made.
    pub created_ms: u64,
    /// The map's.
    pub epoch: u64,
    /// Grows with every change of any row.
    pub revision: u64,
    /// How many node rows there are.
    pub nodes: u32,
    /// How many device rows.
    pub devices: u32,
    /// How many groups.
    pub groups: u32,
    /// How many partitions.
    pub partitions: u32,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// In the map's list, for ever.
    pub place: u32,
    /// Its id.
    pub id: NodeId,
    /// As in the map.
    pub state: NodeState,
    /// Of itself.
    pub facts: NodeFacts,
    /// When it got its certificate.
    pub joined_ms: u64,
    /// An operator wants it empty; outlives [`NodeState::Down`].
    pub draining: bool,
    /// While down: when it was last heard of.
    pub down_since_ms: Option<u64>,
    /// When it last came up.
    pub up_since_ms: u64,
    /// How often it went down in short order.
    pub downs: u32,
}

impl NodeRow {
    pub(crate) fn on_map(&self) -> MapNode {
        MapNode {
            id: self.id,
            name: self.facts.name.clone(),
            site: self.facts.site.clone(),
            rack: self.facts.rack.clone(),
            peer_addr: self.facts.peer_addr.clone(),
            state: self.state,
        }
    }
}

/// Why a device is not trusted, the gravest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// Hardly any room.
    Full,
    /// Slow beside its twins.
    Slow,
    /// Many new errors.
    Errors,
    /// It failed, and takes no writes until it has been opened again.
    Failed,
    /// Its node no longer reports it.
    Missing,
}

impl Cause {
    /// Whether what is on it may be unreadable.
    #[must_use]
    pub fn endangers_reads(self) -> bool {
        self >= Self::Errors
    }

    /// For people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Slow => "slow beside its twins",
            Self::Errors => "many errors",
            Self::Failed => "failed",
            Self::Missing => "missing",
        }
    }
}

/// That a device is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Suspicion {
    /// Why.
    pub cause: Cause,
    /// Since when.
    pub since_ms: u64,
}

/// Who wants a device empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Drain {
    /// An operator, until an operator undoes it.
    Asked,
    /// The machine, until the device is trusted again.
    Unfit,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRow {
    /// In the map's list, for ever.
    pub place: u32,
    /// Its id.
    pub id: DeviceId,
    /// The node that has it, by place.
    pub node: u32,
    /// What its extents hold.
    pub capacity_bytes: u64,
    /// What does not change.
    pub identity: DeviceIdentity,
    /// When it was let in.
    pub joined_ms: u64,
    /// Gone for ever.
    pub removed: bool,
    /// Whether it is to be emptied.
    pub drain: Option<Drain>,
    /// Whether it is not trusted.
    pub suspicion: Option<Suspicion>,
    /// An operator said that its node has the true one, while another reports the same label.
    pub pinned: bool,
}

impl DeviceRow {
    /// As in the map.
    #[must_use]
    pub fn state(&self) -> DeviceState {
        if self.removed {
            DeviceState::Removed
        } else if self.drain.is_some() {
            DeviceState::Draining
        } else if self.suspicion.is_some() {
            DeviceState::Suspect
        } else {
            DeviceState::Healthy
        }
    }

    pub(crate) fn on_map(&self) -> MapDevice {
        MapDevice { id: self.id, node: self.node, capacity_bytes: self.capacity_bytes, state: self.state() }
    }
}

/// A slot that is to lie elsewhere. Who moves data does it and says so; until then the map stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PlannedMove {
    /// The group.
    pub group: u32,
    /// The slot.
    pub slot: u32,
    /// The device, by place, that is to have it.
    pub to: u32,
}

/// 128 groups, or the last few.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupsRow {
    /// Which row: this times 128 is the first group's number.
    pub block: u32,
    /// The groups.
    pub groups: Vec<Group>,
    /// What is planned for them.
    pub moves: Vec<PlannedMove>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRow {
    /// In the map's list.
    pub place: u32,
    /// As in the map.
    pub partition: MapPartition,
}

/// Why rows are no state.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoadError {
    /// Of a newer release.
    #[error("row {key} has format {found}; this release reads up to {FORMAT}")]
    NewerFormat {
        /// Which row.
        key: String,
        /// Its format.
        found: u8,
    },
    /// It does not parse, or lies under another row's key.
    #[error("row {0} does not parse")]
    Corrupt(String),
    /// The cluster row counts more than there are.
    #[error("row {0} is missing")]
    Missing(String),
    /// The cluster row counts fewer than there are.
    #[error("row {0} belongs to no state that was stored")]
    Stray(String),
    /// The rows do not fit one another.
    #[error("the rows do not fit one another: {0}")]
    Unfit(&'static str),
}

impl Row {
    /// Which row it is.
    #[must_use]
    pub fn key(&self) -> RowKey {
        match self {
            Self::Cluster(_) => RowKey::Cluster,
            Self::Node(row) => RowKey::Node(row.place),
            Self::Device(row) => RowKey::Device(row.place),
            Self::Groups(row) => RowKey::Groups(row.block),
            Self::Partition(row) => RowKey::Partition(row.place),
        }
    }

    /// The row as bytes.
    ///
    /// # Panics
    /// Never: plain numbers and text always encode.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![FORMAT]).expect("plain numbers and text encode")
    }

    /// The row from bytes found under a key's [`RowKey::path`].
    ///
    /// # Errors
    /// [`LoadError::NewerFormat`], [`LoadError::Corrupt`].
    pub fn decode(path: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        let corrupt = || LoadError::Corrupt(path.to_owned());
        match bytes.split_first() {
            Some((&FORMAT, rest)) => {
                let (row, rest) = postcard::take_from_bytes::<Self>(rest).map_err(|_| corrupt())?;
                if rest.is_empty() && row.key().path() == path { Ok(row) } else { Err(corrupt()) }
            }
            Some((&found, _)) if found > FORMAT => Err(LoadError::NewerFormat { key: path.to_owned(), found }),
            _ => Err(corrupt()),
        }
    }
}
