//! Where devices stand: their site, rack, node, and the fault domain that the policy counts.
//!
//! Sites are told apart by name, racks by name within their site. Places only, no states.

use std::collections::BTreeMap;

use crate::map::{ClusterMap, Level};

/// Numbers, counted from 0, for every device by place.
#[derive(Debug)]
pub(crate) struct Topology {
    /// Slots in a group.
    pub(crate) width: usize,
    /// Slots of one group in one domain at most.
    pub(crate) per_domain: usize,
    /// How many domains there are.
    pub(crate) domains: usize,
    pub(crate) domain: Vec<u32>,
    pub(crate) node: Vec<u32>,
    pub(crate) rack: Vec<u32>,
    pub(crate) site: Vec<u32>,
}

impl Topology {
    pub(crate) fn of(map: &ClusterMap) -> Self {
        let mut sites = BTreeMap::new();
        let mut racks = BTreeMap::new();
        let mut stands = Vec::with_capacity(map.nodes.len());
        for node in &map.nodes {
            let (next_site, next_rack) = (sites.len() as u32, racks.len() as u32);
            let site = *sites.entry(node.site.as_str()).or_insert(next_site);
            stands.push((site, *racks.entry((site, node.rack.as_str())).or_insert(next_rack)));
        }
        let node: Vec<u32> = map.devices.iter().map(|device| device.node).collect();
        let site: Vec<u32> = node.iter().map(|node| stands[*node as usize].0).collect();
        let rack: Vec<u32> = node.iter().map(|node| stands[*node as usize].1).collect();
        let (domains, domain) = match map.policy.level {
            Level::Device => (node.len(), (0..node.len() as u32).collect()),
            Level::Node => (map.nodes.len(), node.clone()),
            Level::Rack => (racks.len(), rack.clone()),
            Level::Site => (sites.len(), site.clone()),
        };
        // A device holds one slot of a group at most, whatever the policy says.
        let per_domain =
            if map.policy.level == Level::Device { 1 } else { usize::from(map.policy.slots_per_domain.max(1)) };
        Self { width: map.policy.width(), per_domain, domains, domain, node, rack, site }
    }

    /// How much two devices have in common: what takes both is likelier for a node than for a rack or a site.
    pub(crate) fn nearness(&self, one: u32, other: u32) -> u64 {
        let same = |places: &[u32]| u64::from(places[one as usize] == places[other as usize]);
        (same(&self.node) << 16) + (same(&self.rack) << 8) + same(&self.site)
    }
}
