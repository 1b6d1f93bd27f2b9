//! Whether anything is at risk, and what the rack is doing about it: a question, changes nothing.

use std::collections::BTreeSet;
use std::fmt;

use base::{ClusterId, DeviceId, NodeId, PartitionId};
use placement::map::{DeviceState, NodeState};

use crate::Membership;
use crate::output::Reason;
use crate::rack::{Rack, count};
use crate::rows::{Cause, Drain};

/// Lines about single groups in one status: it fits a screen.
const GROUP_LINES_MAX: usize = 8;
/// Live bytes in thousandths of the capacity, from which on the rack counts as nearly full: emptying a node needs room.
const NEARLY_FULL_PERMILLE: u64 = 850;

/// The rack in one screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its id; none before a cluster is created.
    pub cluster: Option<ClusterId>,
    /// The map's.
    pub map_epoch: u64,
    /// Members.
    pub nodes: u32,
    /// Of them heard of.
    pub nodes_up: u32,
    /// Devices that are not removed.
    pub devices: u32,
    /// Of them trusted and reachable.
    pub devices_healthy: u32,
    /// Groups.
    pub groups: u32,
    /// How many groups miss 0, 1, 2, ... slots.
    pub groups_missing: Vec<u32>,
    /// Of devices that are not removed.
    pub capacity_bytes: u64,
    /// As last reported.
    pub live_bytes: u64,
    /// As last reported, of devices that take writes.
    pub available_bytes: u64,
    /// The gravest first.
    pub risks: Vec<Risk>,
    /// What is being done.
    pub doing: Vec<Doing>,
    /// k.
    pub data_shards: u8,
    /// m.
    pub parity_shards: u8,
}

/// Something that takes redundancy or room. In the order of weight.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Risk {
    /// A group that cannot be read.
    GroupLost {
        /// Which.
        group: u32,
        /// Slots that are away.
        missing: usize,
        /// m.
        tolerated: usize,
    },
    /// A partition whose only journal is away.
    PartitionWaits {
        /// Which.
        partition: PartitionId,
        /// The node that has it.
        node: String,
        /// How long it has been silent.
        silent_ms: u64,
    },
    /// A group that misses slots.
    GroupMisses {
        /// Slots it can still lose.
        left: usize,
        /// Which.
        group: u32,
        /// Slots that are away.
        missing: usize,
        /// m.
        tolerated: usize,
    },
    /// More groups than are named.
    MoreGroups {
        /// How many.
        groups: usize,
    },
    /// Two hosts or devices with one identity, a wrong clock, a protocol not spoken.
    NodeRefused {
        /// Who.
        node: NodeId,
        /// Why.
        reason: Reason,
    },
    /// A label in two places.
    DeviceCopied {
        /// Which.
        device: DeviceId,
        /// Where.
        places: String,
        /// Since when.
        for_ms: u64,
    },
    /// A node that is not heard of.
    NodeDown {
        /// Which.
        node: String,
        /// How long it has been silent.
        silent_ms: u64,
    },
    /// A device that is not trusted.
    DeviceSuspect {
        /// Which.
        device: DeviceId,
        /// Where.
        node: String,
        /// Why.
        cause: Cause,
        /// How long.
        for_ms: u64,
    },
    /// Slots that must go and have no place to go to.
    NoPlace {
        /// How many.
        slots: usize,
    },
    /// Hardly any room.
    NearlyFull {
        /// Live bytes in thousandths of the capacity.
        used_permille: u64,
    },
    /// The largest node could not be rebuilt elsewhere.
    NoRoomToRebuild {
        /// What it holds.
        largest_bytes: u64,
        /// What the others can take.
        room_bytes: u64,
    },
}

/// What the rack does of itself, or because it was asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doing {
    /// Waiting for what the policy needs.
    Forming {
        /// Such as "5 of 6 devices in 2 of 3 nodes".
        there: String,
    },
    /// Enough is there; hosts may still be joining.
    Settling,
    /// New devices that are watched, or wait for an operator.
    NewDevices {
        /// How many.
        devices: usize,
        /// An operator lets them in.
        by_hand: bool,
    },
    /// Groups that are made and not yet on the map.
    AddingGroups {
        /// How many.
        groups: usize,
    },
    /// A node that is to be emptied.
    DrainingNode {
        /// Which.
        node: String,
        /// Slots that are still on it.
        slots: u64,
    },
    /// A device that is to be emptied.
    DrainingDevice {
        /// Which.
        device: DeviceId,
        /// Slots that are still on it.
        slots: u64,
        /// Nobody asked: it is unfit.
        unfit: bool,
    },
    /// Moves that wait to be carried out.
    PlannedMoves {
        /// How many.
        moves: usize,
    },
    /// A node that reports again and is held back, because it went down too often.
    HeldBack {
        /// Which.
        node: String,
        /// For how long still.
        for_ms: u64,
    },
}

impl Membership {
    /// The rack at a time, as in [`Membership::step`].
    #[must_use]
    pub fn status(&self, now_ms: u64) -> Status {
        self.rack.as_ref().map_or_else(Status::empty, |rack| rack.status(now_ms))
    }
}

impl Status {
    fn empty() -> Self {
        Self {
            cluster: None,
            map_epoch: 0,
            nodes: 0,
            nodes_up: 0,
            devices: 0,
            devices_healthy: 0,
            groups: 0,
            groups_missing: Vec::new(),
            capacity_bytes: 0,
            live_bytes: 0,
            available_bytes: 0,
            risks: Vec::new(),
            doing: Vec::new(),
            data_shards: 0,
            parity_shards: 0,
        }
    }
}

impl Rack {
    fn status(&self, now_ms: u64) -> Status {
        let now = self.time(now_ms).max(self.seen.now);
        let policy = self.map.policy;
        let mut status = Status {
            cluster: Some(self.map.cluster),
            map_epoch: self.map.epoch,
            groups: count(self.map.groups.len()),
            groups_missing: vec![0; policy.width() + 1],
            data_shards: policy.data_shards,
            parity_shards: policy.parity_shards,
            ..Status::empty()
        };
        let members = self.nodes.iter().filter(|row| row.state != NodeState::Removed);
        status.nodes = count(members.clone().count());
        status.nodes_up = count(members.filter(|row| row.state != NodeState::Down).count());
        self.add_devices(&mut status);
        self.add_group_risks(&mut status);
        self.add_host_risks(now, &mut status);
        self.add_room_risks(&mut status);
        status.risks.sort();
        status.doing = self.doing(now);
        status
    }

    fn add_devices(&self, status: &mut Status) {
        for row in self.devices.iter().filter(|row| !row.removed) {
            status.devices += 1;
            status.capacity_bytes += row.capacity_bytes;
            let facts = self.last_facts(row);
            status.live_bytes += facts.map_or(0, |facts| facts.live_bytes);
            if self.takes_writes(row.place) {
                status.available_bytes += facts.map_or(0, |facts| facts.available_bytes);
            }
            let here = self.nodes[row.node as usize].state;
            let reachable = matches!(here, NodeState::Up | NodeState::Draining);
            status.devices_healthy += u32::from(row.state() == DeviceState::Healthy && reachable);
        }
    }

    fn add_group_risks(&self, status: &mut Status) {
        let tolerated = usize::from(self.map.policy.parity_shards);
        let mut missing_of = Vec::new();
        for (group, members) in (0u32..).zip(&self.map.groups) {
            let missing = self.away(members);
            status.groups_missing[missing] += 1;
            if missing > 0 {
                missing_of.push((std::cmp::Reverse(missing), group));
            }
        }
        missing_of.sort_unstable();
        let (named, others) = missing_of.split_at(missing_of.len().min(GROUP_LINES_MAX));
        for (std::cmp::Reverse(missing), group) in named.iter().copied() {
            status.risks.push(match tolerated.checked_sub(missing) {
                None => Risk::GroupLost { group, missing, tolerated },
                Some(left) => Risk::GroupMisses { left, group, missing, tolerated },
            });
        }
        if !others.is_empty() {
            status.risks.push(Risk::MoreGroups { groups: others.len() });
        }
    }

    fn add_host_risks(&self, now: u64, status: &mut Status) {
        for row in self.nodes.iter().filter(|row| row.state == NodeState::Down) {
            let silent_ms = now.saturating_sub(row.down_since_ms.unwrap_or(now));
            let node = self.named(row.place);
            for partition in self.partitions_only_on(row.place) {
                status.risks.push(Risk::PartitionWaits { partition, node: node.clone(), silent_ms });
            }
            status.risks.push(Risk::NodeDown { node, silent_ms });
        }
        for (node, (reason, _)) in &self.seen.refused {
            status.risks.push(Risk::NodeRefused { node: *node, reason: reason.clone() });
        }
        for (device, conflict) in &self.seen.conflicts {
            let places = self.named_all(&conflict.nodes);
            let for_ms = now.saturating_sub(conflict.since_ms);
            status.risks.push(Risk::DeviceCopied { device: *device, places, for_ms });
        }
        for row in self.devices.iter().filter(|row| !row.removed) {
            if let Some(suspicion) = row.suspicion {
                status.risks.push(Risk::DeviceSuspect {
                    device: row.id,
                    node: self.named(row.node),
                    cause: suspicion.cause,
                    for_ms: now.saturating_sub(suspicion.since_ms),
                });
            }
        }
    }

    fn add_room_risks(&self, status: &mut Status) {
        let used_permille = (u128::from(status.live_bytes) * 1_000).checked_div(u128::from(status.capacity_bytes));
        let used_permille = used_permille.unwrap_or(0) as u64;
        if used_permille >= NEARLY_FULL_PERMILLE {
            status.risks.push(Risk::NearlyFull { used_permille });
        }
        let sums = self.devices_of.iter().map(|devices| {
            let facts = devices.iter().filter_map(|at| self.last_facts(&self.devices[*at as usize]));
            facts.fold((0u64, 0u64), |(live, room), facts| (live + facts.live_bytes, room + facts.available_bytes))
        });
        let Some((largest_bytes, own_room)) = sums.max() else { return };
        let room_bytes = status.available_bytes.saturating_sub(own_room);
        if largest_bytes > room_bytes {
            status.risks.push(Risk::NoRoomToRebuild { largest_bytes, room_bytes });
        }
        if self.seen.stuck > 0 {
            status.risks.push(Risk::NoPlace { slots: self.seen.stuck });
        }
    }

    fn doing(&self, now: u64) -> Vec<Doing> {
        let mut doing = Vec::new();
        if !self.formed() {
            doing.push(match self.shortage() {
                Some(shortage) => Doing::Forming { there: shortage.text() },
                None => Doing::Settling,
            });
        }
        let by_hand = !self.limits.auto_claim;
        match self.seen.candidates.len() {
            0 => {}
            devices => doing.push(Doing::NewDevices { devices, by_hand }),
        }
        if !self.seen.waiting.is_empty() {
            doing.push(Doing::AddingGroups { groups: self.seen.waiting.len() });
        }
        for row in self.nodes.iter().filter(|row| row.draining) {
            let slots = self.slots_on(&self.devices_of[row.place as usize]);
            doing.push(Doing::DrainingNode { node: self.named(row.place), slots });
        }
        for row in &self.devices {
            if let Some(drain) = row.drain {
                let slots = self.slots_on(&BTreeSet::from([row.place]));
                doing.push(Doing::DrainingDevice { device: row.id, slots, unfit: drain == Drain::Unfit });
            }
        }
        if !self.moves.is_empty() {
            doing.push(Doing::PlannedMoves { moves: self.moves.len() });
        }
        for row in self.nodes.iter().filter(|row| row.state == NodeState::Down) {
            if let Some(until) = self.held_until(row).filter(|until| *until > now) {
                doing.push(Doing::HeldBack { node: self.named(row.place), for_ms: until - now });
            }
        }
        doing
    }
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GroupLost { group, missing, tolerated } => {
                write!(f, "group {group} misses {missing} slots and tolerates {tolerated}: it cannot be read")
            }
            Self::PartitionWaits { partition, node, silent_ms } => write!(
                f,
                "partition {} waits for node {node}, which has its only journal and is silent for {} s",
                partition.0,
                silent_ms / 1_000
            ),
            Self::GroupMisses { group, missing, tolerated, .. } => {
                write!(f, "group {group} misses {missing} of its {tolerated} tolerated slots")
            }
            Self::MoreGroups { groups } => write!(f, "{groups} more groups miss slots"),
            Self::NodeRefused { node, reason } => write!(f, "node {node} is refused: {reason}"),
            Self::DeviceCopied { device, places, for_ms } => {
                write!(f, "device {device} is a copy, for {} s: its label is in {places}", for_ms / 1_000)
            }
            Self::NodeDown { node, silent_ms } => {
                write!(f, "node {node} is down: silent for {} s", silent_ms / 1_000)
            }
            Self::DeviceSuspect { device, node, cause, for_ms } => {
                write!(f, "device {device} of node {node} is {} for {} s", cause.text(), for_ms / 1_000)
            }
            Self::NoPlace { slots } => write!(f, "{slots} slots must go and have no place to go to"),
            Self::NearlyFull { used_permille } => {
                write!(f, "{}.{} % of the capacity is used", used_permille / 10, used_permille % 10)
            }
            Self::NoRoomToRebuild { largest_bytes, room_bytes } => write!(
                f,
                "the largest node holds {} GiB and the others have room for {} GiB: it could not be rebuilt",
                largest_bytes >> 30,
                room_bytes >> 30
            ),
        }
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forming { there } => write!(f, "waiting to form: {there}"),
            Self::Settling => f.write_str("waiting to form: devices may still be joining"),
            Self::NewDevices { devices, by_hand: true } => write!(f, "{devices} new devices wait to be claimed"),
            Self::NewDevices { devices, by_hand: false } => write!(f, "{devices} new devices are being let in"),
            Self::AddingGroups { groups } => write!(f, "adding {groups} groups"),
            Self::DrainingNode { node, slots } => {
                write!(f, "no new data on node {node}: {slots} slots are still on it")
            }
            Self::DrainingDevice { device, slots, unfit } => {
                let why = if *unfit { ", which is unfit" } else { "" };
                write!(f, "no new data on device {device}{why}: {slots} slots are still on it")
            }
            Self::PlannedMoves { moves } => write!(f, "{moves} moves of slots are planned"),
            Self::HeldBack { node, for_ms } => {
                write!(f, "node {node} went down too often and is held back for {} s", for_ms.div_ceil(1_000))
            }
        }
    }
}
