//! Nodes that join and report: what is taken, and what is refused by name. Nothing here changes the map but a join;
//! the next tick does.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;

use base::{DeviceId, NodeId};
use placement::map::NodeState;

use crate::input::{DeviceFacts, NodeFacts, NodeReport};
use crate::limits::{DEVICES_PER_NODE_MAX, NODES_MAX, PROTOCOLS, TEXT_BYTES_MAX};
use crate::output::{Output, Reason, Severity};
use crate::rack::{Rack, count};
use crate::rows::NodeRow;
use crate::seen::Heard;
use crate::step::Step;

/// Refusals that are remembered; who is refused has a certificate, so there are few.
const REFUSED_MAX: usize = 1024;
/// Uptime comes in whole seconds, and a report may be under way for as long as a clock may be off: later ones are
/// refused by their clock.
const START_SLACK_MS: u64 = 1_000;

impl Rack {
    pub(crate) fn join(&mut self, node: NodeId, facts: NodeFacts, clock_ms: u64, protocol: u32, step: &mut Step) {
        if let Err(reason) = self.admissible(node, &facts, clock_ms, protocol, step.wall) {
            return self.refuse_node(node, reason, step);
        }
        match self.node_at.get(&node) {
            // The answer to the first was lost.
            Some(at) => self.edit_node(*at, step, |row| row.facts = facts),
            None if self.nodes.len() >= NODES_MAX => return self.refuse_node(node, Reason::TooManyNodes, step),
            None => {
                let twin = self.nodes.iter().find(|row| {
                    row.state != NodeState::Removed && row.facts.name == facts.name && !facts.name.is_empty()
                });
                if let Some(twin) = twin {
                    let text = format!("nodes {} and {node} are both called {}", twin.id, facts.name);
                    step.event(Severity::Warning, "name-taken", (Some(node), None), text);
                }
                let place = count(self.nodes.len());
                let row = NodeRow {
                    place,
                    id: node,
                    state: NodeState::Up,
                    facts,
                    joined_ms: step.now,
                    draining: false,
                    down_since_ms: None,
                    up_since_ms: step.now,
                    downs: 0,
                };
                self.add_node(row, step);
                let text = format!("node {} joined", self.named(place));
                step.event(Severity::Info, "node-joined", (Some(node), None), text);
            }
        }
        self.forget_refusal(node);
        self.say_interval(node, step);
    }

    pub(crate) fn report(&mut self, report: NodeReport, step: &mut Step) {
        let node = report.node;
        let Some(at) = self.node_at.get(&node).copied() else {
            return self.refuse_node(node, Reason::UnknownNode(node), step);
        };
        let checked = self
            .admissible(node, &report.facts, report.clock_ms, report.protocol, step.wall)
            .and_then(|()| self.one_run(at, &report, step.now))
            .and_then(|()| self.bounded(&report));
        if let Err(reason) = checked {
            return self.refuse_node(node, reason, step);
        }
        self.forget_refusal(node);
        let heard = self.hear(at, report, step);
        self.take_claims(at, &heard, step.now);
        self.seen.nodes[at as usize].heard = Some(heard);
        self.say_interval(node, step);
    }

    fn admissible(
        &self,
        node: NodeId,
        facts: &NodeFacts,
        clock_ms: u64,
        protocol: u32,
        wall: u64,
    ) -> Result<(), Reason> {
        if self.node_at.get(&node).is_some_and(|at| self.nodes[*at as usize].state == NodeState::Removed) {
            return Err(Reason::NodeRemoved(node));
        }
        if !PROTOCOLS.contains(&protocol) {
            let (oldest, newest) = (*PROTOCOLS.start(), *PROTOCOLS.end());
            return Err(Reason::Protocol { node, spoken: protocol, oldest, newest });
        }
        let offset_ms = offset(clock_ms, wall);
        let bound_ms = self.limits.clock_bound_ms;
        if offset_ms.unsigned_abs() > bound_ms {
            return Err(Reason::Clock { node, offset_ms, bound_ms });
        }
        if facts.texts().iter().any(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(Reason::Text(node));
        }
        Ok(())
    }

    /// A run that began before the one we hear now is still alive: not one host, but two.
    fn one_run(&self, at: u32, report: &NodeReport, now: u64) -> Result<(), Reason> {
        let Some(heard) = &self.seen.nodes[at as usize].heard else { return Ok(()) };
        let slack = START_SLACK_MS + 2 * self.limits.clock_bound_ms;
        let alive = now.saturating_sub(heard.at_ms) < self.expiry_ms();
        if alive && started_ms(report, now) + slack < heard.started_ms {
            let here = self.facts_of(at).peer_addr.clone();
            return Err(Reason::CopiedIdentity { node: report.node, here, there: report.facts.peer_addr.clone() });
        }
        Ok(())
    }

    fn bounded(&self, report: &NodeReport) -> Result<(), Reason> {
        if report.devices.len() > DEVICES_PER_NODE_MAX {
            return Err(Reason::TooManyDevices(report.node));
        }
        let texts = report.devices.iter().flat_map(|device| {
            let identity = &device.identity;
            [&identity.path, &identity.model, &identity.serial]
        });
        if texts.into_iter().any(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(Reason::Text(report.node));
        }
        Ok(())
    }

    /// The facts as the next tick will take them over.
    pub(crate) fn facts_of(&self, at: u32) -> &NodeFacts {
        self.seen.nodes[at as usize].facts.as_ref().unwrap_or(&self.nodes[at as usize].facts)
    }

    fn hear(&mut self, at: u32, report: NodeReport, step: &mut Step) -> Heard {
        let now = step.now;
        let expiry = self.expiry_ms();
        let offset_ms = offset(report.clock_ms, step.wall);
        let started_ms = started_ms(&report, now);
        let mut devices = BTreeMap::new();
        let mut twice = BTreeSet::new();
        let mut barred = BTreeSet::new();
        for facts in report.devices {
            let device = facts.device;
            if self.barred(report.node, &facts, step) {
                barred.insert(device);
            } else if devices.insert(device, facts).is_some() {
                twice.insert(device);
            }
        }
        self.seen.barred.retain(|(node, device), _| *node != report.node || barred.contains(device));
        let seen = &mut self.seen.nodes[at as usize];
        seen.facts = (self.nodes[at as usize].facts != report.facts).then_some(report.facts);
        let before = seen.heard.as_ref();
        let steady_since_ms = match before {
            Some(heard) if now.saturating_sub(heard.at_ms) < expiry => heard.steady_since_ms,
            _ => now,
        };
        Heard {
            at_ms: now,
            steady_since_ms,
            started_ms,
            offset_ms,
            devices,
            twice,
            map_epoch: report.map_epoch,
            load_permille: report.load_permille,
            memory_used_bytes: report.memory_used_bytes,
            uptime_s: report.uptime_s,
        }
    }

    /// Whether a device may not come in at all.
    fn barred(&mut self, node: NodeId, facts: &DeviceFacts, step: &mut Step) -> bool {
        let device = facts.device;
        let removed = self.device_at.get(&device).is_some_and(|at| self.devices[*at as usize].removed);
        let reason = if facts.cluster != self.map.cluster {
            Reason::ForeignDevice { device, cluster: facts.cluster, node }
        } else if removed {
            Reason::DeviceRemoved(device)
        } else {
            return false;
        };
        if self.seen.barred.insert((node, device), reason.clone()).as_ref() != Some(&reason) {
            step.event(Severity::Warning, "device-refused", (Some(node), Some(device)), reason.to_string());
        }
        step.refuse(reason);
        true
    }

    /// Notes which labels are where, and that the next tick looks at them.
    fn take_claims(&mut self, at: u32, heard: &Heard, now: u64) {
        let before = self.seen.nodes[at as usize].heard.as_ref();
        let gone: Vec<DeviceId> = before
            .into_iter()
            .flat_map(|before| before.devices.keys())
            .filter(|device| !heard.devices.contains_key(device))
            .copied()
            .collect();
        for device in &gone {
            self.drop_claim(*device, at);
        }
        self.seen.nodes[at as usize].claims = true;
        for device in heard.devices.keys() {
            self.seen.claims.entry(*device).or_default().entry(at).or_insert(now);
        }
        let owned = self.devices_of[at as usize].iter().map(|place| self.devices[*place as usize].id);
        self.seen.dirty.extend(owned.chain(gone).chain(heard.devices.keys().copied()));
    }

    pub(crate) fn drop_claim(&mut self, device: DeviceId, at: u32) {
        if let Some(claims) = self.seen.claims.get_mut(&device) {
            claims.remove(&at);
            if claims.is_empty() {
                self.seen.claims.remove(&device);
            }
        }
    }

    fn refuse_node(&mut self, node: NodeId, reason: Reason, step: &mut Step) {
        let known = self.seen.refused.get(&node).is_some_and(|(said, _)| discriminant(said) == discriminant(&reason));
        let room = known || self.seen.refused.len() < REFUSED_MAX;
        if !known && room {
            let severity =
                if matches!(reason, Reason::CopiedIdentity { .. }) { Severity::Critical } else { Severity::Warning };
            step.event(severity, "node-refused", (Some(node), None), reason.to_string());
        }
        if room {
            self.seen.refused.insert(node, (reason.clone(), step.now));
        }
        step.refuse(reason);
    }

    /// A report was taken. That there are two of a node is not forgotten at once: they take turns.
    fn forget_refusal(&mut self, node: NodeId) {
        if !matches!(self.seen.refused.get(&node), Some((Reason::CopiedIdentity { .. }, _))) {
            self.seen.refused.remove(&node);
        }
    }

    fn say_interval(&self, node: NodeId, step: &mut Step) {
        let ms = self.limits.report_every_ms(self.nodes.len(), self.formed());
        step.say(Output::SetReportInterval { node, ms });
    }
}

fn offset(clock_ms: u64, now_ms: u64) -> i64 {
    let ahead = i128::from(clock_ms) - i128::from(now_ms);
    i64::try_from(ahead).unwrap_or(if ahead > 0 { i64::MAX } else { i64::MIN })
}

/// By our time, so that no clock that is set makes one run look like another.
fn started_ms(report: &NodeReport, now: u64) -> u64 {
    now.saturating_sub(report.uptime_s.saturating_mul(1_000))
}
