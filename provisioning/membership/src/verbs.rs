//! What operators ask. Each verb is done whole or refused by name; done twice it is done once.

use std::collections::BTreeSet;

use base::{DeviceId, NodeId};
use placement::map::NodeState;

use crate::input::Input;
use crate::limits::DEVICES_PER_NODE_MAX;
use crate::output::{Reason, Severity};
use crate::rack::Rack;
use crate::rows::Drain;
use crate::step::Step;

impl Rack {
    pub(crate) fn verb(&mut self, verb: Input, step: &mut Step) -> Result<(), Reason> {
        match verb {
            Input::DrainNode(node) => self.drain_node(self.known_node(node)?, step),
            Input::UndrainNode(node) => {
                self.undrain_node(self.known_node(node)?, step);
                Ok(())
            }
            Input::RemoveNode { node, force } => self.remove_node(node, force, step),
            Input::DrainDevice(device) => self.drain_device(self.known_device(device)?, step),
            Input::UndrainDevice(device) => {
                self.undrain_device(self.known_device(device)?, step);
                Ok(())
            }
            Input::RemoveDevice { device, force } => self.remove_device(device, force, step),
            Input::ClaimDevice { device, node } => self.claim(device, self.known_node(node)?, step),
            Input::ClusterCreated { .. } | Input::NodeJoined { .. } | Input::NodeReported(_) | Input::Tick => {
                unreachable!("no verb")
            }
        }
    }

    fn known_node(&self, node: NodeId) -> Result<u32, Reason> {
        let at = *self.node_at.get(&node).ok_or(Reason::UnknownNode(node))?;
        let removed = self.nodes[at as usize].state == NodeState::Removed;
        if removed { Err(Reason::NodeRemoved(node)) } else { Ok(at) }
    }

    fn known_device(&self, device: DeviceId) -> Result<u32, Reason> {
        let at = *self.device_at.get(&device).ok_or(Reason::UnknownDevice(device))?;
        if self.devices[at as usize].removed { Err(Reason::DeviceRemoved(device)) } else { Ok(at) }
    }

    // ---- nodes ----

    fn drain_node(&mut self, at: u32, step: &mut Step) -> Result<(), Reason> {
        if self.nodes[at as usize].draining {
            return Ok(());
        }
        self.may_drain(&self.devices_of[at as usize])?;
        self.edit_node(at, step, |row| {
            row.draining = true;
            if row.state == NodeState::Up {
                row.state = NodeState::Draining;
            }
        });
        self.seen.plan_due = true;
        let node = self.nodes[at as usize].id;
        let text = format!("node {} is to be emptied", self.named(at));
        step.event(Severity::Info, "node-draining", (Some(node), None), text);
        for partition in self.partitions_only_on(at) {
            let text = format!("partition {} stays on node {}: its only journal is there", partition.0, self.named(at));
            step.event(Severity::Warning, "partition-stays", (Some(node), None), text);
        }
        Ok(())
    }

    fn undrain_node(&mut self, at: u32, step: &mut Step) {
        if !self.nodes[at as usize].draining {
            return;
        }
        self.edit_node(at, step, |row| {
            row.draining = false;
            if row.state == NodeState::Draining {
                row.state = NodeState::Up;
            }
        });
        self.seen.plan_due = true;
        let text = format!("node {} is not emptied any more", self.named(at));
        step.event(Severity::Info, "node-undrained", (Some(self.nodes[at as usize].id), None), text);
    }

    /// The node is no member any more. Its empty devices go with it; one that holds slots (by force only) stays known
    /// and away, and counts again when it is put into another node.
    fn remove_node(&mut self, node: NodeId, force: bool, step: &mut Step) -> Result<(), Reason> {
        let at = match self.known_node(node) {
            Err(Reason::NodeRemoved(_)) => return Ok(()),
            other => other?,
        };
        if let Some(partition) = self.map.partitions.iter().find(|partition| partition.chain.contains(&at)) {
            return Err(Reason::HoldsPartition(partition.id));
        }
        let devices = self.devices_of[at as usize].clone();
        self.may_remove(&devices, force)?;
        let slots = self.slots_on(&devices);
        for device in devices {
            if self.groups_of[device as usize].is_empty() {
                self.retire(device, step);
            }
        }
        self.edit_node(at, step, |row| {
            row.state = NodeState::Removed;
            row.draining = false;
            row.down_since_ms = None;
        });
        self.forget_claims(at);
        let seen = &mut self.seen.nodes[at as usize];
        (seen.heard, seen.facts) = (None, None);
        self.seen.refused.remove(&node);
        self.seen.barred.retain(|(barred, _), _| *barred != node);
        self.seen.plan_due = true;
        let (severity, left) = if slots > 0 {
            (Severity::Warning, format!(" with {slots} slots of groups"))
        } else {
            (Severity::Info, String::new())
        };
        let text = format!("node {} is removed{left}", self.named(at));
        step.event(severity, "node-removed", (Some(node), None), text);
        Ok(())
    }

    // ---- devices ----

    fn drain_device(&mut self, at: u32, step: &mut Step) -> Result<(), Reason> {
        if self.devices[at as usize].drain == Some(Drain::Asked) {
            return Ok(());
        }
        self.may_drain(&BTreeSet::from([at]))?;
        self.edit_device(at, step, |row| row.drain = Some(Drain::Asked));
        self.seen.plan_due = true;
        let device = self.devices[at as usize].id;
        step.event(
            Severity::Info,
            "device-draining",
            (None, Some(device)),
            format!("device {device} is to be emptied"),
        );
        Ok(())
    }

    fn undrain_device(&mut self, at: u32, step: &mut Step) {
        if self.devices[at as usize].drain.is_none() {
            return;
        }
        let now = step.now;
        self.edit_device(at, step, |row| {
            row.drain = None;
            // An operator who knows better gets the whole time again.
            if let Some(suspicion) = &mut row.suspicion {
                suspicion.since_ms = now;
            }
        });
        self.seen.plan_due = true;
        let device = self.devices[at as usize].id;
        let text = format!("device {device} is not emptied any more");
        step.event(Severity::Info, "device-undrained", (None, Some(device)), text);
    }

    fn remove_device(&mut self, device: DeviceId, force: bool, step: &mut Step) -> Result<(), Reason> {
        let at = match self.known_device(device) {
            Err(Reason::DeviceRemoved(_)) => return Ok(()),
            other => other?,
        };
        let set = BTreeSet::from([at]);
        self.may_remove(&set, force)?;
        self.leaves_journal(at, force)?;
        let slots = self.slots_on(&set);
        self.retire(at, step);
        self.seen.plan_due = true;
        let lost = self.lost_groups(&set);
        let (severity, left) = match (lost.first(), slots) {
            (Some(first), _) => (
                Severity::Critical,
                format!(": {} groups, {first} the first, have fewer than k slots left for ever", lost.len()),
            ),
            (None, 0) => (Severity::Info, String::new()),
            (None, slots) => (Severity::Warning, format!(" with {slots} slots of groups")),
        };
        step.event(severity, "device-removed", (None, Some(device)), format!("device {device} is removed{left}"));
        Ok(())
    }

    /// A journal has copies on m+1 devices of its node, we do not know which: so many sound ones stay, or by force one.
    fn leaves_journal(&self, at: u32, force: bool) -> Result<(), Reason> {
        let node = self.devices[at as usize].node;
        let sound =
            |device: &&u32| !self.devices[**device as usize].suspicion.is_some_and(|s| s.cause.endangers_reads());
        let needed = if force { 1 } else { usize::from(self.map.policy.parity_shards) + 1 };
        let left = self.devices_of[node as usize].iter().filter(|device| **device != at).filter(sound).count();
        match self.map.partitions.iter().find(|partition| partition.chain.contains(&node)) {
            Some(partition) if left < needed && sound(&&at) => {
                Err(Reason::JournalDevices { partition: partition.id, left, needed })
            }
            _ => Ok(()),
        }
    }

    fn retire(&mut self, at: u32, step: &mut Step) {
        self.edit_device(at, step, |row| {
            row.removed = true;
            row.drain = None;
            row.suspicion = None;
            row.pinned = false;
        });
        let device = self.devices[at as usize].id;
        self.seen.conflicts.remove(&device);
        self.seen.claims.remove(&device);
    }

    fn has_room(&self, device: u32, node: u32) -> bool {
        let devices = &self.devices_of[node as usize];
        devices.contains(&device) || devices.len() < DEVICES_PER_NODE_MAX
    }

    /// An operator says that a new device is ours, or which of two with one label is the true one.
    fn claim(&mut self, device: DeviceId, node: u32, step: &mut Step) -> Result<(), Reason> {
        let not_there = Reason::NotThere { device, node: self.nodes[node as usize].id };
        let there = self.reported(device, node).is_some();
        let twice = self.seen.nodes[node as usize].heard.as_ref().is_some_and(|heard| heard.twice.contains(&device));
        let at = match self.device_at.get(&device).copied() {
            Some(at) if self.devices[at as usize].removed => return Err(Reason::DeviceRemoved(device)),
            _ if !there || twice => return Err(not_there),
            Some(at) if self.has_room(at, node) => at,
            None if self.admit(device, node, step) => self.device_at[&device],
            _ => return Err(Reason::TooManyDevices(self.nodes[node as usize].id)),
        };
        let contested = self.seen.claims[&device].len() > 1;
        if self.devices[at as usize].node != node {
            self.move_device(at, node, step);
        }
        self.edit_device(at, step, |row| row.pinned = contested);
        self.seen.conflicts.remove(&device);
        self.seen.dirty.insert(device);
        let text = format!("device {device} is claimed for node {}", self.named(node));
        step.event(Severity::Info, "device-claimed", (Some(self.nodes[node as usize].id), Some(device)), text);
        Ok(())
    }
}
