//! What the machine says: rows to store, a new map, refusals by name, events for the audit log.

use std::fmt;

use base::{ClusterId, DeviceId, NodeId, PartitionId};

use crate::rows::Row;

/// One thing to do. The outputs of a step are done in order; [`Output::RowsChanged`] comes first, and nothing after it
/// may be seen by anyone before the rows are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Store these, all or none, if the stored cluster row has `base` as its revision (0: if there is none). If it has
    /// another one, someone else leads: drop the machine and load the rows again.
    RowsChanged {
        /// The revision they follow.
        base: u64,
        /// At most [`crate::limits::ROWS_PER_STEP_MAX`], the cluster row among them.
        rows: Vec<Row>,
    },
    /// The map has a new epoch.
    MapChanged(u64),
    /// The input was not taken, or one device of a report was left out.
    Refused(Reason),
    /// For the audit log.
    Event(Event),
    /// When a node reports next.
    SetReportInterval {
        /// Which node.
        node: NodeId,
        /// From now.
        ms: u64,
    },
}

/// How loud an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// As it should be.
    Info,
    /// Redundancy or capacity is less, or someone was refused.
    Warning,
    /// Data cannot be reached, or may be lost by one more failure.
    Critical,
}

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// How loud.
    pub severity: Severity,
    /// A word for machines, such as `node-down`.
    pub kind: &'static str,
    /// The node it is about.
    pub node: Option<NodeId>,
    /// The device it is about.
    pub device: Option<DeviceId>,
    /// For people.
    pub text: String,
}

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// There is none yet.
    NoCluster,
    /// There is one, of this id.
    ClusterExists(ClusterId),
    /// The policy cannot be kept.
    Policy(&'static str),
    /// The limits make no sense.
    Limits(&'static str),
    /// Never joined.
    UnknownNode(NodeId),
    /// Was removed.
    NodeRemoved(NodeId),
    /// Its clock is too far away.
    Clock {
        /// Whose.
        node: NodeId,
        /// Ahead of ours by.
        offset_ms: i64,
        /// What is allowed.
        bound_ms: u64,
    },
    /// It speaks a protocol that we do not.
    Protocol {
        /// Who.
        node: NodeId,
        /// Its version.
        spoken: u32,
        /// The oldest we speak.
        oldest: u32,
        /// The newest we speak.
        newest: u32,
    },
    /// A later run of this node has reported: two hosts use one identity.
    CopiedIdentity {
        /// Which.
        node: NodeId,
        /// Where the later run is reached.
        here: String,
        /// Where the refused one is reached.
        there: String,
    },
    /// A text among the facts is too long.
    Text(NodeId),
    /// More devices than one node may have.
    TooManyDevices(NodeId),
    /// The cluster has all the nodes it can have.
    TooManyNodes,
    /// A device of another cluster.
    ForeignDevice {
        /// Which.
        device: DeviceId,
        /// Whose.
        cluster: ClusterId,
        /// Who has it.
        node: NodeId,
    },
    /// Was removed.
    DeviceRemoved(DeviceId),
    /// Never seen.
    UnknownDevice(DeviceId),
    /// The node does not report that device.
    NotThere {
        /// Which.
        device: DeviceId,
        /// Who should have it.
        node: NodeId,
    },
    /// Data lies on it: slots of groups.
    HoldsSlots {
        /// How many.
        slots: u64,
    },
    /// A group would have fewer than k slots that can be read.
    BelowK {
        /// Which.
        group: u32,
        /// What would be left.
        left: usize,
        /// What is needed.
        k: usize,
    },
    /// A group would have more slots away or being emptied than it tolerates.
    TooManyDraining {
        /// Which.
        group: u32,
        /// Slots that would take no writes.
        away: usize,
        /// What is tolerated.
        tolerated: usize,
    },
    /// No group would be left that takes writes.
    NoGroupForWrites,
    /// The only journal of a partition is on that node.
    HoldsPartition(PartitionId),
    /// The node keeps a journal and would have too few devices for its copies.
    JournalDevices {
        /// Which partition's.
        partition: PartitionId,
        /// What would be left.
        left: usize,
        /// What is needed.
        needed: usize,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCluster => f.write_str("there is no cluster yet"),
            Self::ClusterExists(id) => write!(f, "this is cluster {id} already"),
            Self::Policy(rule) => write!(f, "the policy cannot be kept: {rule}"),
            Self::Limits(rule) => write!(f, "the limits make no sense: {rule}"),
            Self::UnknownNode(node) => write!(f, "node {node} never joined"),
            Self::NodeRemoved(node) => write!(f, "node {node} was removed"),
            Self::Clock { node, offset_ms, bound_ms } => {
                write!(f, "the clock of node {node} is {offset_ms} ms away; {bound_ms} ms are allowed")
            }
            Self::Protocol { node, spoken, oldest, newest } => {
                write!(f, "node {node} speaks protocol {spoken}; this release speaks {oldest} to {newest}")
            }
            Self::CopiedIdentity { node, here, there } => {
                write!(f, "two hosts use the identity of node {node}: {here} (started later) and {there}")
            }
            Self::Text(node) => write!(f, "node {node} sent a text that is too long"),
            Self::TooManyDevices(node) => write!(f, "node {node} has more devices than one node may have"),
            Self::TooManyNodes => f.write_str("the cluster has all the nodes it can have"),
            Self::ForeignDevice { device, cluster, node } => {
                write!(f, "device {device} in node {node} belongs to cluster {cluster}")
            }
            Self::DeviceRemoved(device) => write!(f, "device {device} was removed"),
            Self::UnknownDevice(device) => write!(f, "device {device} is not known"),
            Self::NotThere { device, node } => write!(f, "node {node} does not report device {device}"),
            Self::HoldsSlots { slots } => write!(f, "{slots} slots of groups are on it: drain it first"),
            Self::BelowK { group, left, k } => {
                write!(f, "group {group} would have {left} readable slots and needs {k}")
            }
            Self::TooManyDraining { group, away, tolerated } => {
                write!(f, "{away} slots of group {group} would take no writes; {tolerated} are tolerated")
            }
            Self::NoGroupForWrites => f.write_str("no group would be left that takes writes"),
            Self::HoldsPartition(partition) => {
                write!(f, "the only journal of partition {} is on it", partition.0)
            }
            Self::JournalDevices { partition, left, needed } => write!(
                f,
                "the node keeps the journal of partition {} and would have {left} sound devices; it needs {needed}",
                partition.0
            ),
        }
    }
}

impl std::error::Error for Reason {}
