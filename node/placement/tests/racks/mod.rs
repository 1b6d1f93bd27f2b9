//! Clusters to try placement on, and the laws of groups said a second time, plainly.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::{BTreeMap, BTreeSet};

use base::{ClusterId, DeviceId, NodeId};
use placement::map::{ClusterMap, DeviceState, Group, Level, MapDevice, MapNode, NodeState, Policy};
use proptest::prelude::{Just, Strategy, prop_oneof};

pub(crate) fn policy(data_shards: u8, parity_shards: u8, level: Level, slots_per_domain: u8) -> Policy {
    Policy { data_shards, parity_shards, level, slots_per_domain }
}

pub(crate) fn empty(policy: Policy) -> ClusterMap {
    let (nodes, devices, groups, partitions) = Default::default();
    ClusterMap { epoch: 1, cluster: ClusterId([9; 16]), policy, nodes, devices, groups, partitions }
}

/// One node more, with devices of these capacities.
pub(crate) fn add_node(map: &mut ClusterMap, site: &str, rack: &str, capacities: &[u64]) -> u32 {
    let place = map.nodes.len() as u32;
    map.nodes.push(MapNode {
        id: NodeId(u128::from(place).to_le_bytes()),
        name: format!("n{place}"),
        site: site.into(),
        rack: rack.into(),
        peer_addr: "127.0.0.1:1".into(),
        state: NodeState::Up,
    });
    capacities.iter().for_each(|capacity| add_device(map, place, *capacity));
    place
}

pub(crate) fn add_device(map: &mut ClusterMap, node: u32, capacity_bytes: u64) {
    let id = DeviceId((map.devices.len() as u128).to_le_bytes());
    map.devices.push(MapDevice { id, node, capacity_bytes, state: DeviceState::Healthy });
}

/// Equal nodes in one rack.
pub(crate) fn rack(policy: Policy, nodes: usize, devices: usize) -> ClusterMap {
    let mut map = empty(policy);
    (0..nodes).for_each(|_| {
        add_node(&mut map, "s", "r", &vec![1 << 40; devices]);
    });
    map
}

pub(crate) fn policies() -> impl Strategy<Value = Policy> {
    let level = prop_oneof![
        2 => Just(Level::Device),
        4 => Just(Level::Node),
        2 => Just(Level::Rack),
        1 => Just(Level::Site),
    ];
    (1..=8u8, 0..=3u8, level, 1..=3u8).prop_map(|(k, m, level, per)| policy(k, m, level, per.min(m.max(1))))
}

/// Any cluster of one to three sites, most of them small, all of it healthy.
pub(crate) fn clusters() -> impl Strategy<Value = ClusterMap> {
    let capacity = prop_oneof![3 => Just(4u64 << 40), 1 => Just(1 << 40), 1 => Just(16 << 40), 1 => 1..(1u64 << 44)];
    let equal = prop_oneof![Just(true), Just(false)];
    let node = (0..3u8, 0..3u8, proptest::collection::vec(capacity, 1..5));
    (policies(), equal, proptest::collection::vec(node, 1..14)).prop_map(|(policy, equal, nodes)| {
        let mut map = empty(policy);
        for (site, rack, mut capacities) in nodes {
            if equal {
                capacities.iter_mut().for_each(|capacity| *capacity = 1 << 40);
            }
            add_node(&mut map, &format!("s{site}"), &format!("r{rack}"), &capacities);
        }
        map
    })
}

/// The tiny racks that people start with.
pub(crate) fn small_racks() -> [ClusterMap; 5] {
    [
        rack(policy(4, 2, Level::Device, 1), 1, 6),
        rack(policy(4, 2, Level::Node, 2), 3, 3),
        rack(policy(4, 2, Level::Node, 1), 6, 3),
        rack(policy(2, 1, Level::Node, 1), 3, 1),
        rack(policy(4, 2, Level::Node, 2), 4, 2),
    ]
}

/// The fault domain of a device, by name.
pub(crate) fn domain(map: &ClusterMap, device: u32) -> String {
    let node = map.devices[device as usize].node;
    let MapNode { site, rack, .. } = &map.nodes[node as usize];
    match map.policy.level {
        Level::Device => format!("{device}"),
        Level::Node => format!("{node}"),
        Level::Rack => format!("{site}/{rack}"),
        Level::Site => site.clone(),
    }
}

/// Whether a group keeps the policy.
pub(crate) fn is_valid(map: &ClusterMap, group: &Group) -> bool {
    let distinct: BTreeSet<_> = group.slots.iter().collect();
    let mut in_domain = BTreeMap::new();
    group.slots.iter().for_each(|device| *in_domain.entry(domain(map, *device)).or_insert(0u8) += 1);
    let at_most = if map.policy.level == Level::Device { 1 } else { map.policy.slots_per_domain };
    distinct.len() == map.policy.width() && in_domain.values().all(|slots| *slots <= at_most)
}

/// Slots of each device.
pub(crate) fn held(map: &ClusterMap) -> Vec<u64> {
    let mut held = vec![0; map.devices.len()];
    map.groups.iter().flat_map(|group| &group.slots).for_each(|device| held[*device as usize] += 1);
    held
}

/// The greatest slots / weight, against the mean, over healthy devices.
pub(crate) fn unevenness(map: &ClusterMap) -> f64 {
    let held = held(map);
    let healthy = |device: &usize| map.devices[*device].state == DeviceState::Healthy;
    let weight = |device: usize| map.devices[device].capacity_bytes as f64;
    let devices: Vec<usize> = (0..held.len()).filter(healthy).collect();
    let mean = devices.iter().map(|d| held[*d] as f64).sum::<f64>() / devices.iter().map(|d| weight(*d)).sum::<f64>();
    devices.iter().map(|device| held[*device] as f64 / weight(*device) / mean).fold(0.0, f64::max)
}

/// Whether every device could have a tenth more than its share without breaking the policy.
pub(crate) fn shares_fit(map: &ClusterMap) -> bool {
    let groups = map.groups.len() as f64;
    let all: f64 = map.devices.iter().map(|device| device.capacity_bytes as f64).sum();
    let share = |device: &MapDevice| 1.1 * groups * map.policy.width() as f64 * device.capacity_bytes as f64 / all;
    let mut in_domain = BTreeMap::new();
    for (place, device) in (0..).zip(&map.devices) {
        *in_domain.entry(domain(map, place)).or_insert(0.0) += share(device);
    }
    let at_most = if map.policy.level == Level::Device { 1.0 } else { f64::from(map.policy.slots_per_domain) };
    map.devices.iter().all(|device| share(device) <= groups) && in_domain.values().all(|sum| *sum <= at_most * groups)
}

/// With how many others each device shares groups.
pub(crate) fn partners(map: &ClusterMap) -> Vec<usize> {
    let mut partners = vec![BTreeSet::<u32>::new(); map.devices.len()];
    for group in &map.groups {
        group.slots.iter().for_each(|device| partners[*device as usize].extend(&group.slots));
    }
    partners.iter().map(|others| others.len().saturating_sub(1)).collect()
}
