//! What a device is good for, from its state and its node's.

use crate::map::{ClusterMap, DeviceState, NodeState};

/// What may be asked of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its shards can be read.
    pub readable: bool,
    /// It can take new shards. A suspect one can, though others are asked first.
    pub writable: bool,
    /// Nothing speaks against it.
    pub healthy: bool,
    /// Its slots have to go elsewhere.
    pub leaving: bool,
    /// Its node has not been heard of: what it holds is neither moved away nor added to.
    pub away: bool,
}

impl Standing {
    /// The standing of the device at a place of the map's list.
    ///
    /// # Panics
    /// When the map has no such place, or the device names no node of it.
    #[must_use]
    pub fn of(map: &ClusterMap, place: u32) -> Self {
        let device = &map.devices[place as usize];
        let node = map.nodes[device.node as usize].state;
        let leaving = matches!(device.state, DeviceState::Draining | DeviceState::Removed)
            || matches!(node, NodeState::Draining | NodeState::Removed);
        let readable =
            matches!(node, NodeState::Up | NodeState::Draining) && !matches!(device.state, DeviceState::Removed);
        Self {
            readable,
            writable: readable && !leaving,
            healthy: matches!((device.state, node), (DeviceState::Healthy, NodeState::Up)),
            leaving,
            away: matches!(node, NodeState::Down) && !leaving,
        }
    }

    /// The standing of every device, by place.
    #[must_use]
    pub fn all(map: &ClusterMap) -> Vec<Self> {
        (0..map.devices.len() as u32).map(|place| Self::of(map, place)).collect()
    }
}
