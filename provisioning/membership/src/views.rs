//! Nodes and devices as operators see them: what is kept, and what was last reported.

use base::NodeId;
use placement::map::{DeviceState, NodeState};

use crate::Membership;
use crate::input::{DeviceFacts, NodeFacts};
use crate::rack::Rack;
use crate::rows::{DeviceRow, NodeRow};

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its id.
    pub node: NodeId,
    /// As in the map.
    pub state: NodeState,
    /// Of itself.
    pub facts: NodeFacts,
    /// Since it was last heard of; since it joined, or we lead, if it was not heard of yet.
    pub seen_ms_ago: u64,
    /// The map it goes by.
    pub map_epoch: u64,
    /// Devices that are not removed.
    pub devices: u32,
    /// Load average, in thousandths.
    pub load_permille: u64,
    /// Memory in use.
    pub memory_used_bytes: u64,
    /// Since its start.
    pub uptime_s: u64,
    /// Its clock against ours.
    pub clock_offset_ms: i64,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceView {
    /// The node that has it.
    pub node: NodeId,
    /// What that calls itself.
    pub node_name: String,
    /// As in the map; none for a device that is not let in yet.
    pub state: Option<DeviceState>,
    /// Why it is not trusted, or is emptied.
    pub why: String,
    /// The last that was reported, or what is kept of it.
    pub facts: DeviceFacts,
    /// Groups that have a slot on it.
    pub groups: u32,
}

impl Membership {
    /// Every node there ever was, by place.
    #[must_use]
    pub fn nodes(&self, now_ms: u64) -> Vec<NodeView> {
        self.rack.iter().flat_map(|rack| rack.nodes.iter().map(|row| rack.node_view(row, now_ms))).collect()
    }

    /// Every device there ever was, by place, and then those that are not let in yet.
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceView> {
        self.rack.iter().flat_map(Rack::device_views).collect()
    }
}

impl Rack {
    fn node_view(&self, row: &NodeRow, now_ms: u64) -> NodeView {
        let seen = &self.seen.nodes[row.place as usize];
        let heard = seen.heard.as_ref();
        NodeView {
            node: row.id,
            state: row.state,
            facts: self.facts_of(row.place).clone(),
            seen_ms_ago: self.time(now_ms).saturating_sub(heard.map_or(seen.grace_ms, |heard| heard.at_ms)),
            map_epoch: heard.map_or(0, |heard| heard.map_epoch),
            devices: self.devices_of[row.place as usize].len() as u32,
            load_permille: heard.map_or(0, |heard| heard.load_permille),
            memory_used_bytes: heard.map_or(0, |heard| heard.memory_used_bytes),
            uptime_s: heard.map_or(0, |heard| heard.uptime_s),
            clock_offset_ms: heard.map_or(0, |heard| heard.offset_ms),
        }
    }

    fn device_views(&self) -> Vec<DeviceView> {
        let known = self.devices.iter().map(|row| self.device_view(row));
        let new = self.seen.claims.iter().filter(|(device, _)| !self.device_at.contains_key(device));
        let new = new.flat_map(|(device, claims)| {
            claims.keys().filter_map(|node| {
                Some(DeviceView {
                    node: self.nodes[*node as usize].id,
                    node_name: self.facts_of(*node).name.clone(),
                    state: None,
                    why: if claims.len() > 1 { "in two places".to_owned() } else { "new".to_owned() },
                    facts: self.reported(*device, *node)?.clone(),
                    groups: 0,
                })
            })
        });
        known.chain(new).collect()
    }

    /// The last that was heard of a device, if anything was since we lead; of one whose node is down, too.
    pub(crate) fn last_facts(&self, row: &DeviceRow) -> Option<&DeviceFacts> {
        self.seen.nodes[row.node as usize].heard.as_ref()?.devices.get(&row.id)
    }

    fn device_view(&self, row: &DeviceRow) -> DeviceView {
        let kept = DeviceFacts {
            device: row.id,
            cluster: self.map.cluster,
            identity: row.identity.clone(),
            capacity_bytes: row.capacity_bytes,
            live_bytes: 0,
            available_bytes: 0,
            failed: false,
            slow: false,
            corrupt_found: 0,
            device_errors: 0,
            put_p50_us: 0,
            get_p50_us: 0,
        };
        let why = row.suspicion.map_or("", |suspicion| suspicion.cause.text());
        DeviceView {
            node: self.nodes[row.node as usize].id,
            node_name: self.nodes[row.node as usize].facts.name.clone(),
            state: Some(row.state()),
            why: why.to_owned(),
            facts: self.last_facts(row).cloned().unwrap_or(kept),
            groups: self.groups_of[row.place as usize].len() as u32,
        }
    }
}
