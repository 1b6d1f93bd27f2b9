//! Devices at a tick: whose they are, whether they come in, how they do.
//!
//! new -> healthy when one node alone has reported it, sound, for a while; healthy <-> suspect as reports say, slower
//! back than forth; suspect -> draining when it may be unreadable for long; removed by an operator's word alone.

use std::collections::BTreeSet;

use base::DeviceId;
use placement::map::NodeState;

use crate::input::DeviceFacts;
use crate::limits::{CANDIDATES_MAX, DEVICES_MAX, DEVICES_PER_NODE_MAX, HOST_ROWS_PER_TICK};
use crate::output::Severity;
use crate::rack::{Rack, count};
use crate::rows::{Cause, DeviceRow, Drain, Suspicion};
use crate::seen::{Conflict, Watch};
use crate::step::Step;

/// A device is full below this share of its capacity, and no longer full above the other: reclaim works in between.
const FULL_BELOW: u64 = 50;
const FULL_ABOVE: u64 = 20;
/// A capacity is news when it differs by this share: what a store can hold varies a little with what it holds.
const CAPACITY_STEP: u64 = 64;

impl Rack {
    /// Looks at every device that a report or a silence touched, in the order of their ids.
    pub(crate) fn settle_devices(&mut self, step: &mut Step) {
        while step.rows.len() < HOST_ROWS_PER_TICK
            && let Some(device) = self.seen.dirty.pop_first()
        {
            match self.device_at.get(&device).copied() {
                Some(at) if self.devices[at as usize].removed => {
                    self.seen.conflicts.remove(&device);
                }
                Some(at) => self.settle_known(at, step),
                None => self.settle_new(device, step),
            }
        }
    }

    // ---- whose it is ----

    fn settle_known(&mut self, at: u32, step: &mut Step) {
        let row = &self.devices[at as usize];
        let (device, owner) = (row.id, row.node);
        let claimants = self.claimants(device);
        let others: Vec<u32> = claimants.iter().copied().filter(|node| *node != owner).collect();
        let twice = self.reported_twice(device, &claimants);
        if others.is_empty() && !twice {
            self.seen.conflicts.remove(&device);
            if claimants == [owner] {
                self.edit_device(at, step, |row| row.pinned = false);
            }
        } else if row.pinned {
            self.seen.conflicts.remove(&device);
        } else if twice || others.len() > 1 || claimants.contains(&owner) {
            return self.note_conflict(device, &claimants, step);
        } else if self.has_let_go(owner) && self.devices_of[others[0] as usize].len() < DEVICES_PER_NODE_MAX {
            self.move_device(at, others[0], step);
        } else {
            // The owner has not spoken since we lead.
            return;
        }
        self.judge(at, step);
    }

    /// Whether a node that does not report a device really says that it does not have it, or is silent for good.
    fn has_let_go(&self, node: u32) -> bool {
        self.seen.nodes[node as usize].heard.is_some()
            || matches!(self.nodes[node as usize].state, NodeState::Down | NodeState::Removed)
    }

    pub(crate) fn move_device(&mut self, at: u32, node: u32, step: &mut Step) {
        let from = self.devices[at as usize].node;
        self.edit_device(at, step, |row| row.node = node);
        let device = self.devices[at as usize].id;
        self.seen.conflicts.remove(&device);
        // Counters begin again, and its groups may now break the policy.
        self.seen.watches[at as usize] = Watch::default();
        self.seen.plan_due = true;
        let text = format!("device {device} moved from node {} to node {}", self.named(from), self.named(node));
        step.event(Severity::Info, "device-moved", (Some(self.nodes[node as usize].id), Some(device)), text);
    }

    fn claimants(&self, device: DeviceId) -> Vec<u32> {
        self.seen.claims.get(&device).map(|claims| claims.keys().copied().collect()).unwrap_or_default()
    }

    fn reported_twice(&self, device: DeviceId, claimants: &[u32]) -> bool {
        let heard = |node: &u32| self.seen.nodes[*node as usize].heard.as_ref();
        claimants.iter().filter_map(heard).any(|heard| heard.twice.contains(&device))
    }

    /// A label in two places changes nothing. It is named once each has been seen after the other: a device that is
    /// carried from one node to another is in both lists for a moment.
    fn note_conflict(&mut self, device: DeviceId, claimants: &[u32], step: &mut Step) {
        self.seen.candidates.remove(&device);
        let claims = &self.seen.claims[&device];
        let after_the_others = |node: &u32| {
            let heard = self.seen.nodes[*node as usize].heard.as_ref().map_or(0, |heard| heard.at_ms);
            claims.iter().all(|(other, since)| other == node || heard > *since)
        };
        if !self.reported_twice(device, claimants) && !claimants.iter().all(after_the_others) {
            return;
        }
        let known = self.seen.conflicts.get(&device).is_some_and(|conflict| conflict.nodes == claimants);
        if !known {
            let since_ms = self.seen.conflicts.get(&device).map_or(step.now, |conflict| conflict.since_ms);
            self.seen.conflicts.insert(device, Conflict { nodes: claimants.to_vec(), since_ms });
            let text = format!("device {device} is a copy: its label is in {}", self.named_all(claimants));
            step.event(Severity::Critical, "device-copied", (None, Some(device)), text);
        }
    }

    pub(crate) fn named_all(&self, nodes: &[u32]) -> String {
        match nodes {
            [one] => format!("two slots of node {}", self.named(*one)),
            many => {
                let names: Vec<_> = many.iter().map(|node| format!("node {}", self.named(*node))).collect();
                names.join(" and ")
            }
        }
    }

    // ---- whether it comes in ----

    fn settle_new(&mut self, device: DeviceId, step: &mut Step) {
        let claimants = self.claimants(device);
        let &[node] = claimants.as_slice() else {
            self.seen.candidates.remove(&device);
            if claimants.is_empty() {
                self.seen.conflicts.remove(&device);
            } else {
                self.note_conflict(device, &claimants, step);
            }
            return;
        };
        if self.reported_twice(device, &claimants) {
            return self.note_conflict(device, &claimants, step);
        }
        self.seen.conflicts.remove(&device);
        let sound = self.reported(device, node).is_some_and(|facts| !facts.failed);
        if !sound || self.seen.candidates.len() >= CANDIDATES_MAX {
            self.seen.candidates.remove(&device);
            return;
        }
        let since = *self.seen.candidates.entry(device).or_insert(step.now);
        if self.limits.auto_claim && step.now.saturating_sub(since) >= self.limits.admit_ms {
            self.admit(device, node, step);
        }
    }

    /// A new device becomes one of ours, if there is room.
    pub(crate) fn admit(&mut self, device: DeviceId, node: u32, step: &mut Step) -> bool {
        let full = self.devices.len() >= DEVICES_MAX || self.devices_of[node as usize].len() >= DEVICES_PER_NODE_MAX;
        let Some(facts) = self.reported(device, node).filter(|_| !full) else { return false };
        let row = DeviceRow {
            place: count(self.devices.len()),
            id: device,
            node,
            capacity_bytes: facts.capacity_bytes,
            identity: facts.identity.clone(),
            joined_ms: step.now,
            removed: false,
            drain: None,
            suspicion: None,
            pinned: false,
        };
        let gib = row.capacity_bytes >> 30;
        self.add_device(row, step);
        self.seen.candidates.remove(&device);
        self.seen.admitted_ms = step.now;
        let text = format!("device {device} of node {} is in: {gib} GiB", self.named(node));
        step.event(Severity::Info, "device-admitted", (Some(self.nodes[node as usize].id), Some(device)), text);
        true
    }

    /// The last that a living node said of a device.
    pub(crate) fn reported(&self, device: DeviceId, node: u32) -> Option<&DeviceFacts> {
        self.seen.claims.get(&device)?.get(&node)?;
        self.seen.nodes[node as usize].heard.as_ref()?.devices.get(&device)
    }

    // ---- how it does ----

    /// Takes over what its node says of it.
    fn judge(&mut self, at: u32, step: &mut Step) {
        let row = &self.devices[at as usize];
        let (device, owner) = (row.id, row.node);
        if self.seen.nodes[owner as usize].heard.is_none() || self.nodes[owner as usize].state == NodeState::Down {
            return;
        }
        let facts = self.reported(device, owner).cloned();
        let cause = self.cause(at, facts.as_ref(), step.now);
        if let Some(facts) = facts {
            self.edit_device(at, step, |row| {
                if row.capacity_bytes.abs_diff(facts.capacity_bytes) > row.capacity_bytes / CAPACITY_STEP {
                    row.capacity_bytes = facts.capacity_bytes;
                }
                row.identity = facts.identity;
            });
        }
        match cause {
            Some(cause) => self.suspect(at, cause, step),
            None => self.trust(at, step),
        }
    }

    /// What speaks against a device; the gravest of it.
    fn cause(&mut self, at: u32, facts: Option<&DeviceFacts>, now: u64) -> Option<Cause> {
        let limits = self.limits;
        let was_full = self.devices[at as usize].suspicion.is_some_and(|suspicion| suspicion.cause == Cause::Full);
        let watch = &mut self.seen.watches[at as usize];
        let Some(facts) = facts else { return Some(Cause::Missing) };
        let counted = facts.device_errors.saturating_add(facts.corrupt_found);
        if now.saturating_sub(watch.window_ms) >= limits.errors_window_ms {
            watch.errors_in_window = 0;
        }
        // The counters begin again with the daemon; what was counted before we looked is not new.
        let before = watch.errors.replace(counted).unwrap_or(counted);
        let new = if counted >= before { counted - before } else { counted };
        if watch.errors_in_window == 0 {
            // A window opens with its first error.
            watch.window_ms = now;
        }
        watch.errors_in_window = watch.errors_in_window.saturating_add(new);
        watch.slow_since_ms = facts.slow.then(|| watch.slow_since_ms.unwrap_or(now));
        let share = if was_full { FULL_ABOVE } else { FULL_BELOW };
        if facts.failed {
            Some(Cause::Failed)
        } else if watch.errors_in_window >= limits.errors_max {
            Some(Cause::Errors)
        } else if watch.slow_since_ms.is_some_and(|since| now.saturating_sub(since) >= limits.slow_ms) {
            Some(Cause::Slow)
        } else if facts.available_bytes < facts.capacity_bytes / share {
            Some(Cause::Full)
        } else {
            None
        }
    }

    fn suspect(&mut self, at: u32, cause: Cause, step: &mut Step) {
        self.seen.watches[at as usize].good_since_ms = None;
        let row = &self.devices[at as usize];
        let (device, node, drain) = (row.id, row.node, row.drain);
        let known = row.suspicion;
        let since_ms = match known {
            // From bad to worse: what endangers reads is counted from its own beginning.
            Some(known) if known.cause.endangers_reads() || !cause.endangers_reads() => known.since_ms,
            _ => step.now,
        };
        self.edit_device(at, step, |row| row.suspicion = Some(Suspicion { cause, since_ms }));
        if known.map(|known| known.cause) != Some(cause) {
            let severity = if cause == Cause::Full { Severity::Info } else { Severity::Warning };
            let text = format!("device {device} of node {} is suspect: {}", self.named(node), cause.text());
            step.event(severity, "device-suspect", (Some(self.nodes[node as usize].id), Some(device)), text);
        }
        let long = step.now.saturating_sub(since_ms) >= self.limits.evacuate_ms;
        if cause.endangers_reads() && long && drain.is_none() && self.may_drain(&BTreeSet::from([at])).is_ok() {
            self.edit_device(at, step, |row| row.drain = Some(Drain::Unfit));
            self.seen.plan_due = true;
            let text = format!("device {device} is to be emptied: {} for too long", cause.text());
            step.event(Severity::Warning, "device-unfit", (Some(self.nodes[node as usize].id), Some(device)), text);
        }
    }

    fn trust(&mut self, at: u32, step: &mut Step) {
        let watch = &mut self.seen.watches[at as usize];
        let good_since = *watch.good_since_ms.get_or_insert(step.now);
        let row = &self.devices[at as usize];
        let Some(suspicion) = row.suspicion else { return };
        let needed = match suspicion.cause {
            // Room is a fact, not a symptom.
            Cause::Full => 0,
            Cause::Missing => self.limits.return_ms,
            Cause::Slow | Cause::Errors | Cause::Failed => self.limits.recover_ms,
        };
        if step.now.saturating_sub(good_since) < needed {
            return;
        }
        let (device, node) = (row.id, row.node);
        self.edit_device(at, step, |row| {
            row.suspicion = None;
            row.drain = row.drain.filter(|drain| *drain == Drain::Asked);
        });
        self.seen.plan_due = true;
        let text = format!("device {device} of node {} is trusted again", self.named(node));
        step.event(Severity::Info, "device-trusted", (Some(self.nodes[node as usize].id), Some(device)), text);
    }
}
