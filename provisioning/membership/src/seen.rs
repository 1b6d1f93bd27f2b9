//! What the machine remembers without storing it: who was heard when, and what waits.
//!
//! After a change of leader it is empty, and the next report of each node fills it again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{DeviceId, NodeId};
use placement::map::Group;

use crate::input::DeviceFacts;
use crate::output::Reason;

/// The last report that was taken from a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    /// When.
    pub(crate) at_ms: u64,
    /// Since when it has reported without a silence as long as an expiry.
    pub(crate) steady_since_ms: u64,
    /// When its run began, by our time and its uptime.
    pub(crate) started_ms: u64,
    /// Its clock against ours.
    pub(crate) offset_ms: i64,
    pub(crate) devices: BTreeMap<DeviceId, DeviceFacts>,
    /// Labels that it reported twice.
    pub(crate) twice: BTreeSet<DeviceId>,
    pub(crate) map_epoch: u64,
    pub(crate) load_permille: u64,
    pub(crate) memory_used_bytes: u64,
    pub(crate) uptime_s: u64,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct NodeSeen {
    /// It counts as heard at this time although it was not: it joined, or we were away.
    pub(crate) grace_ms: u64,
    pub(crate) heard: Option<Heard>,
    /// What it reported counts in [`Seen::claims`].
    pub(crate) claims: bool,
    /// Facts to be taken over at the next tick.
    pub(crate) facts: Option<crate::input::NodeFacts>,
}

impl NodeSeen {
    /// The last sign of life.
    pub(crate) fn last_ms(&self) -> u64 {
        self.heard.as_ref().map_or(0, |heard| heard.at_ms).max(self.grace_ms)
    }
}

/// How one device has been doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Watch {
    pub(crate) slow_since_ms: Option<u64>,
    pub(crate) good_since_ms: Option<u64>,
    /// The counter of errors at the last look; none before the first.
    pub(crate) errors: Option<u64>,
    pub(crate) window_ms: u64,
    pub(crate) errors_in_window: u64,
}

/// A label that is in two places at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) nodes: Vec<u32>,
    pub(crate) since_ms: u64,
}

/// Everything that is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    /// Our time: the clock's, and what it was set back by since we lead.
    pub(crate) now: u64,
    pub(crate) wall_ms: u64,
    pub(crate) set_back_ms: u64,
    pub(crate) ticked_ms: Option<u64>,
    pub(crate) nodes: Vec<NodeSeen>,
    pub(crate) watches: Vec<Watch>,
    /// Label -> the living nodes that report it, each with the time from which on it has.
    pub(crate) claims: BTreeMap<DeviceId, BTreeMap<u32, u64>>,
    /// Devices that are not let in yet, and since when they have been sound and in one place.
    pub(crate) candidates: BTreeMap<DeviceId, u64>,
    pub(crate) conflicts: BTreeMap<DeviceId, Conflict>,
    /// To be looked at by the next tick.
    pub(crate) dirty: BTreeSet<DeviceId>,
    /// Why a node is refused, and when it last was.
    pub(crate) refused: BTreeMap<NodeId, (Reason, u64)>,
    /// Devices that are refused, as events have said.
    pub(crate) barred: BTreeMap<(NodeId, DeviceId), Reason>,
    /// When a device was last let in.
    pub(crate) admitted_ms: u64,
    /// Groups that are made and wait to be added, some each tick.
    pub(crate) waiting: VecDeque<Group>,
    /// The epoch for which growth gave nothing.
    pub(crate) grown_for: Option<u64>,
    /// The plan of moves is out of date.
    pub(crate) plan_due: bool,
    /// Slots that must go and have no place to go to, by the last plan.
    pub(crate) stuck: usize,
    /// What formation waits for, as an event has said.
    pub(crate) waits_for: String,
}
