//! Groups and partitions: formed when there are enough devices, more of them when devices join, moves planned.
//!
//! Formation waits until the policy can be met and no device has joined for a while, so that hosts that are switched
//! on together form together. New groups over new devices make room at once; moving what older groups hold is only
//! planned. A plan is made anew when devices join, leave, move or are emptied, and replaces the one before.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use placement::groups;
use placement::map::{DeviceState, Level, NodeState};

use crate::limits::{GROUP_ROWS_PER_TICK, GROUPS_PER_ROW, MOVES_MAX};
use crate::output::Severity;
use crate::rack::{Rack, count};
use crate::rows::RowKey;
use crate::step::Step;

/// What is there and what the policy needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shortage {
    devices: (usize, usize),
    domains: (usize, usize),
    room: (usize, usize),
    level: Level,
    /// Devices that one node needs for a journal's copies.
    journal: Option<usize>,
}

impl Shortage {
    pub(crate) fn text(&self) -> String {
        let level = match self.level {
            Level::Device => "device",
            Level::Node => "node",
            Level::Rack => "rack",
            Level::Site => "site",
        };
        let (devices, domains, room) = (self.devices, self.domains, self.room);
        let mut text = format!(
            "{} of {} devices in {} of {} {level}s",
            devices.0.min(devices.1),
            devices.1,
            domains.0.min(domains.1),
            domains.1
        );
        if room.0 < room.1 && devices.0 >= devices.1 && domains.0 >= domains.1 {
            text += &format!(", with room for {} of the {} slots of a group", room.0, room.1);
        }
        if let Some(needed) = self.journal {
            text += &format!(", no node with the {needed} devices that a journal needs");
        }
        text
    }
}

impl Rack {
    pub(crate) fn form(&mut self, step: &mut Step) {
        let settled = step.now.saturating_sub(self.seen.admitted_ms) >= self.limits.settle_ms;
        if !self.seen.waiting.is_empty() {
            self.add_waiting(step);
        } else if !self.formed() {
            self.try_form(settled, step);
        } else if settled && !self.try_grow(step) && self.seen.plan_due {
            self.plan(step);
        }
    }

    /// What formation waits for; none when nothing is missing.
    pub(crate) fn shortage(&self) -> Option<Shortage> {
        let policy = &self.map.policy;
        let width = policy.width();
        let spread = usize::from(policy.slots_per_domain);
        let mut domains: BTreeMap<Vec<&str>, usize> = BTreeMap::new();
        let usable: Vec<u32> = (0..count(self.devices.len())).filter(|at| self.is_usable(*at)).collect();
        let ids: Vec<String> = self.devices.iter().map(|row| row.id.to_string()).collect();
        let node_ids: Vec<String> = self.nodes.iter().map(|row| row.id.to_string()).collect();
        for at in &usable {
            let node = self.devices[*at as usize].node as usize;
            let facts = &self.nodes[node].facts;
            let domain = match policy.level {
                Level::Device => vec![ids[*at as usize].as_str()],
                Level::Node => vec![node_ids[node].as_str()],
                Level::Rack => vec![facts.site.as_str(), facts.rack.as_str()],
                Level::Site => vec![facts.site.as_str()],
            };
            *domains.entry(domain).or_default() += 1;
        }
        let room = domains.values().map(|devices| (*devices).min(spread)).sum();
        let copies = usize::from(policy.parity_shards) + 1;
        let journal = self.journal_home().is_none().then_some(copies);
        let shortage = Shortage {
            devices: (usable.len(), width),
            domains: (domains.len(), width.div_ceil(spread)),
            room: (room, width),
            level: policy.level,
            journal,
        };
        (room < width || journal.is_some()).then_some(shortage)
    }

    /// Whether new groups may use it.
    fn is_usable(&self, at: u32) -> bool {
        let device = &self.map.devices[at as usize];
        device.state == DeviceState::Healthy && self.map.nodes[device.node as usize].state == NodeState::Up
    }

    /// The node for a partition: enough devices for the journal's copies, the steadiest, then the largest.
    fn journal_home(&self) -> Option<u32> {
        let copies = usize::from(self.map.policy.parity_shards) + 1;
        let mut homes: Vec<_> = (0..count(self.nodes.len()))
            .filter_map(|at| {
                let usable = self.devices_of[at as usize].iter().filter(|device| self.is_usable(**device));
                let capacities: Vec<u64> = usable.map(|device| self.devices[*device as usize].capacity_bytes).collect();
                let row = &self.nodes[at as usize];
                let rank = (row.downs, Reverse(capacities.iter().sum::<u64>()), row.joined_ms, row.id);
                (capacities.len() >= copies).then_some((rank, at))
            })
            .collect();
        homes.sort_unstable();
        homes.first().map(|(_, at)| *at)
    }

    fn try_form(&mut self, settled: bool, step: &mut Step) {
        if let Some(shortage) = self.shortage() {
            let text = shortage.text();
            if self.seen.waits_for != text {
                step.event(Severity::Info, "forming", (None, None), format!("the cluster waits: {text}"));
                self.seen.waits_for = text;
            }
            return;
        }
        if !settled {
            return;
        }
        let Some(home) = self.journal_home() else { return };
        match groups::make(&self.map, &self.group_limits(), self.seed()) {
            Ok(groups) => self.seen.waiting = groups.into(),
            Err(error) => {
                let text = format!("no groups can be made: {error}");
                if self.seen.waits_for != text {
                    step.event(Severity::Warning, "forming", (None, None), text.clone());
                    self.seen.waits_for = text;
                }
                return;
            }
        }
        if self.map.partitions.is_empty() {
            self.add_partition(vec![home], step);
            let text = format!("partition 0 is on node {}", self.named(home));
            step.event(Severity::Info, "partition-placed", (Some(self.nodes[home as usize].id), None), text);
        }
        self.add_waiting(step);
        let text = format!("the cluster is formed: {} groups", self.map.groups.len() + self.seen.waiting.len());
        step.event(Severity::Info, "formed", (None, None), text);
    }

    /// Adds as many groups as fit a step. One with a device that has left since they were made is dropped: growth
    /// makes another.
    fn add_waiting(&mut self, step: &mut Step) {
        let filled = count(self.map.groups.len()) % GROUPS_PER_ROW;
        let most = (GROUP_ROWS_PER_TICK * GROUPS_PER_ROW - filled) as usize;
        let next: Vec<_> = self.seen.waiting.drain(..self.seen.waiting.len().min(most)).collect();
        let fits = |slot: &u32| {
            let row = &self.devices[*slot as usize];
            !row.removed && row.drain.is_none() && self.nodes[row.node as usize].state != NodeState::Removed
        };
        let groups: Vec<_> = next.into_iter().filter(|group| group.slots.iter().all(fits)).collect();
        self.seen.plan_due = true;
        self.add_groups(groups, step);
    }

    /// Groups over devices that have none; whether there are any to add.
    fn try_grow(&mut self, step: &mut Step) -> bool {
        let tried = self.seen.grown_for == Some(self.map.epoch);
        let fresh = || {
            (0..count(self.devices.len())).filter(|at| self.is_usable(*at) && self.groups_of[*at as usize].is_empty())
        };
        let new = if tried { 0 } else { fresh().count() };
        if new == 0 {
            return false;
        }
        self.seen.grown_for = Some(self.map.epoch);
        let groups = groups::grow(&self.map, &self.group_limits(), self.seed()).unwrap_or_default();
        self.seen.plan_due = true;
        if groups.is_empty() {
            return false;
        }
        let text = format!("{} more groups over {new} new devices", groups.len());
        step.event(Severity::Info, "growing", (None, None), text);
        self.seen.waiting = groups.into();
        self.add_waiting(step);
        true
    }

    fn plan(&mut self, step: &mut Step) {
        self.seen.plan_due = false;
        let plan = groups::rebalance(&self.map, self.seed());
        if plan.stuck.len() != self.seen.stuck {
            self.seen.stuck = plan.stuck.len();
            let text = format!("{} slots must go and have no place to go to", self.seen.stuck);
            step.event(Severity::Warning, "moves-stuck", (None, None), text);
        }
        let mut moves = BTreeMap::new();
        let mut blocks = BTreeSet::new();
        for groups::Move { group, slot, to, .. } in plan.moves.into_iter().take(MOVES_MAX) {
            let block = group / GROUPS_PER_ROW;
            if blocks.contains(&block) || blocks.len() < GROUP_ROWS_PER_TICK as usize {
                blocks.insert(block);
                moves.insert((group, u32::from(slot)), to);
            }
        }
        if moves == self.moves {
            return;
        }
        blocks.extend(self.moves.keys().map(|(group, _)| group / GROUPS_PER_ROW));
        step.rows.extend(blocks.into_iter().map(RowKey::Groups));
        step.event(Severity::Info, "moves-planned", (None, None), format!("{} slots are to move", moves.len()));
        self.moves = moves;
    }

    fn group_limits(&self) -> groups::Limits {
        groups::Limits { scatter_width: self.limits.scatter_width }
    }

    /// The same map gives the same groups, whoever leads.
    fn seed(&self) -> u64 {
        let id = self.map.cluster.0;
        u64::from_le_bytes(id[..8].try_into().expect("eight bytes")) ^ self.map.epoch
    }
}
