//! The map: the controller's versioned picture of the cluster, by which every node finds shards and partitions.
//!
//! Invariants ([`ClusterMap::check`]): ids are unique; every device names a node of the map; every slot of a group
//! names a device of the map; a group has k+m slots. Group numbers are kept in rows on devices: a group keeps its
//! number for ever, its slots change only from one epoch to a later one. Devices keep their places in the list for
//! ever, too: one that is gone stays as [`DeviceState::Removed`].
//!
//! Encoding ([`ClusterMap::encode`]): one byte of format, then postcard. A newer format is refused by name.

use std::fmt;

use base::{ClusterId, DeviceId, NodeId, PartitionId};
use serde::{Deserialize, Serialize};

/// Format of the encoded map.
const FORMAT: u8 = 1;
/// Bytes of an encoded map at most: what a receiver takes. 240,000 devices need about 14 to 21 MiB.
pub const MAP_BYTES_MAX: usize = 64 << 20;

/// Where a fault takes everything inside with it, from small to large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// One device.
    Device,
    /// One host.
    Node,
    /// One rack.
    Rack,
    /// One site.
    Site,
}

/// How stripes are kept: k data and m parity shards, at most so many of them in one domain of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// k.
    pub data_shards: u8,
    /// m.
    pub parity_shards: u8,
    /// The level at which slots are kept apart.
    pub level: Level,
    /// Slots of one group that may share one domain of that level: 1, or up to m on a small rack.
    pub slots_per_domain: u8,
}

impl Policy {
    /// k + m.
    #[must_use]
    pub fn width(&self) -> usize {
        usize::from(self.data_shards) + usize::from(self.parity_shards)
    }
}

/// A node's part in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Heard of lately.
    Up,
    /// Not heard of for a while: its devices are not written to.
    Down,
    /// Being emptied.
    Draining,
    /// No member any more; its certificate is refused.
    Removed,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapNode {
    /// Which.
    pub id: NodeId,
    /// For people: what it calls itself.
    pub name: String,
    /// The site it stands in.
    pub site: String,
    /// The rack it stands in, within its site.
    pub rack: String,
    /// Where other nodes reach it: `address:port`.
    pub peer_addr: String,
    /// Its part.
    pub state: NodeState,
}

/// A device's part in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceState {
    /// Takes reads and writes.
    Healthy,
    /// Takes reads; writes go elsewhere while they can (failing, slow or full).
    Suspect,
    /// Being emptied: reads only.
    Draining,
    /// Gone for ever; kept so that places in the list do not move.
    Removed,
}

/// One device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapDevice {
    /// Which.
    pub id: DeviceId,
    /// Its node, by place in [`ClusterMap::nodes`].
    pub node: u32,
    /// What its extents hold, in bytes.
    pub capacity_bytes: u64,
    /// Its part.
    pub state: DeviceState,
}

/// One placement group: its devices by slot, as places in [`ClusterMap::devices`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Data slots first, then parity.
    pub slots: Vec<u32>,
}

/// One metadata partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapPartition {
    /// Which.
    pub id: PartitionId,
    /// The nodes of its chain, head first, as places in [`ClusterMap::nodes`].
    pub chain: Vec<u32>,
    /// Version of the chain.
    pub epoch: u64,
}

/// The whole picture at one epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMap {
    /// Version: a change of anything makes the next.
    pub epoch: u64,
    /// Whose map.
    pub cluster: ClusterId,
    /// How stripes are kept.
    pub policy: Policy,
    /// Every node there ever was, by place.
    pub nodes: Vec<MapNode>,
    /// Every device there ever was, by place.
    pub devices: Vec<MapDevice>,
    /// The groups, by number.
    pub groups: Vec<Group>,
    /// The partitions.
    pub partitions: Vec<MapPartition>,
}

/// Why bytes are no map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapError {
    /// Of a newer release.
    NewerFormat(u8),
    /// They do not parse, or say what cannot be.
    Invalid(&'static str),
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewerFormat(found) => {
                write!(f, "the map has format {found}; this release reads up to {FORMAT}")
            }
            Self::Invalid(what) => write!(f, "no valid map: {what}"),
        }
    }
}

impl std::error::Error for MapError {}

impl ClusterMap {
    /// The map as bytes.
    ///
    /// # Panics
    /// Never: plain numbers and text always encode.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![FORMAT]).expect("plain numbers and text encode")
    }

    /// The map from bytes of outside.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, MapError> {
        match bytes.split_first() {
            _ if bytes.len() > MAP_BYTES_MAX => Err(MapError::Invalid("too long")),
            Some((&FORMAT, rest)) => {
                let (map, rest) = postcard::take_from_bytes::<Self>(rest).map_err(|_| MapError::Invalid("encoding"))?;
                if !rest.is_empty() {
                    return Err(MapError::Invalid("bytes after its end"));
                }
                map.check()?;
                Ok(map)
            }
            Some((&newer, _)) if newer > FORMAT => Err(MapError::NewerFormat(newer)),
            _ => Err(MapError::Invalid("format")),
        }
    }

    /// Whether it keeps the invariants in the file's header.
    ///
    /// # Errors
    /// [`MapError::Invalid`].
    pub fn check(&self) -> Result<(), MapError> {
        let unique = |mut ids: Vec<[u8; 16]>| {
            ids.sort_unstable();
            ids.windows(2).all(|pair| pair[0] != pair[1])
        };
        if self.policy.data_shards == 0 || self.policy.width() > 64 {
            return Err(MapError::Invalid("policy"));
        }
        if !unique(self.nodes.iter().map(|node| node.id.0).collect()) {
            return Err(MapError::Invalid("a node twice"));
        }
        if !unique(self.devices.iter().map(|device| device.id.0).collect()) {
            return Err(MapError::Invalid("a device twice"));
        }
        if self.devices.iter().any(|device| device.node as usize >= self.nodes.len()) {
            return Err(MapError::Invalid("a device of no node"));
        }
        let width = self.policy.width();
        let fits = |group: &Group| {
            group.slots.len() == width && group.slots.iter().all(|slot| (*slot as usize) < self.devices.len())
        };
        if !self.groups.iter().all(fits) {
            return Err(MapError::Invalid("a group"));
        }
        let known = |partition: &MapPartition| {
            !partition.chain.is_empty() && partition.chain.iter().all(|node| (*node as usize) < self.nodes.len())
        };
        if !self.partitions.iter().all(known) {
            return Err(MapError::Invalid("a partition's chain"));
        }
        Ok(())
    }

    /// A node by id, with its place.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<(u32, &MapNode)> {
        (0u32..).zip(&self.nodes).find(|(_, node)| node.id == id)
    }

    /// A device by id, with its place.
    #[must_use]
    pub fn device(&self, id: DeviceId) -> Option<(u32, &MapDevice)> {
        (0u32..).zip(&self.devices).find(|(_, device)| device.id == id)
    }

    /// The device of a slot of a group.
    #[must_use]
    pub fn slot(&self, group: u32, slot: usize) -> Option<&MapDevice> {
        let device = *self.groups.get(group as usize)?.slots.get(slot)?;
        self.devices.get(device as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> ClusterMap {
        let node = |n: u8| MapNode {
            id: NodeId([n; 16]),
            name: format!("n{n}"),
            site: "s".into(),
            rack: "r".into(),
            peer_addr: "127.0.0.1:1".into(),
            state: NodeState::Up,
        };
        let device = |n: u8| MapDevice {
            id: DeviceId([n; 16]),
            node: u32::from(n),
            capacity_bytes: 1 << 40,
            state: DeviceState::Healthy,
        };
        ClusterMap {
            epoch: 7,
            cluster: ClusterId([1; 16]),
            policy: Policy { data_shards: 2, parity_shards: 1, level: Level::Node, slots_per_domain: 1 },
            nodes: (0..3).map(node).collect(),
            devices: (0..3).map(device).collect(),
            groups: vec![Group { slots: vec![0, 1, 2] }, Group { slots: vec![1, 2, 0] }],
            partitions: vec![MapPartition { id: PartitionId(0), chain: vec![2], epoch: 1 }],
        }
    }

    #[test]
    fn a_map_comes_back_from_its_bytes() {
        let map = small();
        assert_eq!(ClusterMap::decode(&map.encode()), Ok(map));
    }

    #[test]
    fn what_is_no_map_is_refused_by_name() {
        let map = small();
        let mut newer = map.encode();
        newer[0] = FORMAT + 1;
        assert_eq!(ClusterMap::decode(&newer), Err(MapError::NewerFormat(FORMAT + 1)));
        let bytes = map.encode();
        for cut in 0..bytes.len() {
            assert!(ClusterMap::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        let bad = |change: fn(&mut ClusterMap)| {
            let mut map = small();
            change(&mut map);
            ClusterMap::decode(&map.encode())
        };
        assert_eq!(bad(|m| m.devices[0].node = 3), Err(MapError::Invalid("a device of no node")));
        assert_eq!(bad(|m| m.groups[1].slots[2] = 3), Err(MapError::Invalid("a group")));
        assert_eq!(bad(|m| m.groups[1].slots.truncate(2)), Err(MapError::Invalid("a group")));
        assert_eq!(bad(|m| m.nodes[1].id = m.nodes[0].id), Err(MapError::Invalid("a node twice")));
        assert_eq!(bad(|m| m.partitions[0].chain.clear()), Err(MapError::Invalid("a partition's chain")));
    }
}
