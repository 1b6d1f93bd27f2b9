//! Nodes at a tick: down after a silence, up at the next report, and held back when they flap.

use placement::map::NodeState;

use crate::limits::NODE_ROWS_PER_TICK;
use crate::output::Severity;
use crate::rack::Rack;
use crate::rows::NodeRow;
use crate::step::Step;

/// How long a refusal is a risk, when it is not repeated.
const REFUSED_REMEMBERED_MS: u64 = 60_000;

impl Rack {
    /// Ticks come about once a second. When none came for half an expiry it was us who were away, and nobody could be
    /// heard: everyone gets a whole expiry more.
    pub(crate) fn forgive_own_silence(&mut self, step: &Step) {
        let before = self.seen.ticked_ms.replace(step.now);
        if before.is_some_and(|before| step.now - before > self.expiry_ms() / 2) {
            for seen in &mut self.seen.nodes {
                seen.grace_ms = step.now;
            }
        }
        self.seen.refused.retain(|_, (_, at)| step.now.saturating_sub(*at) < REFUSED_REMEMBERED_MS);
    }

    pub(crate) fn settle_nodes(&mut self, step: &mut Step) {
        let expiry = self.expiry_ms();
        for at in 0..self.nodes.len() {
            if step.rows.len() >= NODE_ROWS_PER_TICK {
                break;
            }
            let place = at as u32;
            let alive = step.now.saturating_sub(self.seen.nodes[at].last_ms()) < expiry;
            match (self.nodes[at].state, alive) {
                (NodeState::Removed, _) => {}
                (NodeState::Down, true) => self.try_up(place, step),
                (NodeState::Up | NodeState::Draining, false) => self.down(place, step),
                // Held back, and silent again.
                (NodeState::Down, false) => self.forget_claims(place),
                (NodeState::Up | NodeState::Draining, true) => {}
            }
            if let Some(facts) = self.seen.nodes[at].facts.take() {
                self.edit_node(place, step, |row| row.facts = facts);
            }
        }
    }

    fn down(&mut self, at: u32, step: &mut Step) {
        let since = self.seen.nodes[at as usize].last_ms();
        let (now, flap_ms) = (step.now, self.limits.flap_ms);
        self.edit_node(at, step, |row| {
            row.downs = if now.saturating_sub(row.up_since_ms) < flap_ms { row.downs.saturating_add(1) } else { 1 };
            row.down_since_ms = Some(since);
            row.state = NodeState::Down;
        });
        self.forget_claims(at);
        let row = &self.nodes[at as usize];
        let silence_s = now.saturating_sub(since) / 1_000;
        let text = format!("node {} is down: not heard of for {silence_s} s", self.named(at));
        step.event(Severity::Warning, "node-down", (Some(row.id), None), text);
        for partition in self.partitions_only_on(at) {
            let text = format!(
                "partition {} waits: its only journal is on node {}, which is down; it comes back whole with the node",
                partition.0,
                self.named(at)
            );
            step.event(Severity::Critical, "partition-waits", (Some(row.id), None), text);
        }
    }

    /// Back up; at once the first time, later and later when it goes down again and again.
    fn try_up(&mut self, at: u32, step: &mut Step) {
        let row = &self.nodes[at as usize];
        let last = self.seen.nodes[at as usize].heard.as_ref().map_or(0, |heard| heard.at_ms);
        // Time counts as steady up to its last report, not through the silence that may have begun.
        if self.held_until(row).is_none_or(|until| last < until) {
            return;
        }
        let now = step.now;
        self.edit_node(at, step, |row| {
            row.state = if row.draining { NodeState::Draining } else { NodeState::Up };
            row.down_since_ms = None;
            row.up_since_ms = now;
        });
        let node = self.nodes[at as usize].id;
        step.event(Severity::Info, "node-up", (Some(node), None), format!("node {} is up again", self.named(at)));
        for partition in self.partitions_only_on(at) {
            let text = format!("partition {} can go on: node {} is up", partition.0, self.named(at));
            step.event(Severity::Info, "partition-back", (Some(node), None), text);
        }
    }

    /// When a node that reports again counts as up; none while it does not.
    pub(crate) fn held_until(&self, row: &NodeRow) -> Option<u64> {
        let heard = self.seen.nodes[row.place as usize].heard.as_ref()?;
        let alive = self.seen.now.saturating_sub(heard.at_ms) < self.expiry_ms();
        alive.then(|| heard.steady_since_ms + self.limits.hold_ms(row.downs))
    }

    /// What a node reported no longer counts; who owned it may be asked again.
    pub(crate) fn forget_claims(&mut self, at: u32) {
        if !std::mem::take(&mut self.seen.nodes[at as usize].claims) {
            return;
        }
        let reported: Vec<_> =
            self.seen.nodes[at as usize].heard.iter().flat_map(|heard| heard.devices.keys().copied()).collect();
        for device in reported {
            self.drop_claim(device, at);
            self.seen.dirty.insert(device);
        }
        let owned = self.devices_of[at as usize].iter().map(|place| self.devices[*place as usize].id);
        self.seen.dirty.extend(owned);
    }
}
