//! What may be taken away: questions about groups that operators' verbs, and the machine's own draining, must pass.
//!
//! A slot is *away* when what is on it may be unreadable: its node is down or removed, its device is removed, missing,
//! failed or full of errors. A slot *takes writes* when it is not away and nobody is emptying it. A group takes writes
//! while at most m-1 of its slots do not (with m = 0 or 1: while all do).

use std::collections::BTreeSet;

use placement::map::{Group, NodeState};

use crate::output::Reason;
use crate::rack::Rack;

impl Rack {
    /// Whether what is on a device may be unreadable.
    pub(crate) fn is_away(&self, device: u32) -> bool {
        let row = &self.devices[device as usize];
        let node = self.map.nodes[row.node as usize].state;
        row.removed
            || matches!(node, NodeState::Down | NodeState::Removed)
            || row.suspicion.is_some_and(|suspicion| suspicion.cause.endangers_reads())
    }

    pub(crate) fn takes_writes(&self, device: u32) -> bool {
        let row = &self.devices[device as usize];
        !self.is_away(device) && row.drain.is_none() && !self.nodes[row.node as usize].draining
    }

    /// Slots of a group that are away.
    pub(crate) fn away(&self, group: &Group) -> usize {
        group.slots.iter().filter(|slot| self.is_away(**slot)).count()
    }

    /// How many slots that take no writes a group bears and still takes writes.
    fn bearable(&self) -> usize {
        usize::from(self.map.policy.parity_shards).saturating_sub(1)
    }

    /// Whether these devices may be emptied, too.
    pub(crate) fn may_drain(&self, devices: &BTreeSet<u32>) -> Result<(), Reason> {
        let tolerated = usize::from(self.map.policy.parity_shards);
        let unwritable = |group: &Group| group.slots.iter().filter(|slot| !self.takes_writes(**slot)).count();
        let after = |group: &Group| {
            group.slots.iter().filter(|slot| devices.contains(slot) || !self.takes_writes(**slot)).count()
        };
        for number in self.groups_on(devices) {
            let group = &self.map.groups[number as usize];
            let away = after(group);
            if away > unwritable(group) && away > tolerated {
                return Err(Reason::TooManyDraining { group: number, away, tolerated });
            }
        }
        let some =
            |count: &dyn Fn(&Group) -> usize| self.map.groups.iter().any(|group| count(group) <= self.bearable());
        if some(&unwritable) && !some(&after) { Err(Reason::NoGroupForWrites) } else { Ok(()) }
    }

    /// Whether these devices may be gone for ever. Force gives up slots that can be rebuilt from the rest, and what
    /// cannot be read anyhow; it never makes readable data unreadable.
    pub(crate) fn may_remove(&self, devices: &BTreeSet<u32>, force: bool) -> Result<(), Reason> {
        let k = usize::from(self.map.policy.data_shards);
        for number in self.groups_on(devices) {
            let group = &self.map.groups[number as usize];
            let before = group.slots.len() - self.away(group);
            let left = group.slots.iter().filter(|slot| !devices.contains(slot) && !self.is_away(**slot)).count();
            if left < k && left < before {
                return Err(Reason::BelowK { group: number, left, k });
            }
        }
        let slots = self.slots_on(devices);
        if slots > 0 && !force { Err(Reason::HoldsSlots { slots }) } else { Ok(()) }
    }

    /// Groups with fewer than k slots that are not gone for ever.
    pub(crate) fn lost_groups(&self, devices: &BTreeSet<u32>) -> Vec<u32> {
        let k = usize::from(self.map.policy.data_shards);
        let left = |number: &u32| {
            let slots = &self.map.groups[*number as usize].slots;
            slots.iter().filter(|slot| !self.devices[**slot as usize].removed).count()
        };
        self.groups_on(devices).into_iter().filter(|number| left(number) < k).collect()
    }

    pub(crate) fn groups_on(&self, devices: &BTreeSet<u32>) -> BTreeSet<u32> {
        devices.iter().flat_map(|device| self.groups_of[*device as usize].iter().copied()).collect()
    }

    /// Slots of groups that lie on these devices.
    pub(crate) fn slots_on(&self, devices: &BTreeSet<u32>) -> u64 {
        let on = |device: &u32| {
            let groups = self.groups_of[*device as usize].iter();
            groups
                .map(|group| {
                    self.map.groups[*group as usize].slots.iter().filter(|slot| *slot == device).count() as u64
                })
                .sum::<u64>()
        };
        devices.iter().map(on).sum()
    }
}
