//! Which group takes new data, and how far groups are from losing any.
#![forbid(unsafe_code)]

mod racks;

use std::cell::Cell;

use placement::Standing;
use placement::choose::{Choice, Chooser, DRAWS, NoGroup, SCAN_MAX};
use placement::groups::{Limits, make};
use placement::health::{can_lose, health};
use placement::map::{ClusterMap, DeviceState, Level, NodeState};
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use racks::{clusters, domain, policy, rack};

/// Clusters with groups in which this and that is not as it should be.
fn worn() -> impl Strategy<Value = ClusterMap> {
    let device = prop_oneof![
        12 => Just(DeviceState::Healthy),
        1 => Just(DeviceState::Suspect),
        1 => Just(DeviceState::Draining),
        1 => Just(DeviceState::Removed)
    ];
    let node = prop_oneof![
        12 => Just(NodeState::Up), 1 => Just(NodeState::Down), 1 => Just(NodeState::Draining), 1 => Just(NodeState::Removed)
    ];
    let states = (proptest::collection::vec(device, 60), proptest::collection::vec(node, 14));
    (clusters(), any::<u64>(), states).prop_filter_map("no groups", |(map, seed, (devices, nodes))| {
        let groups = make(&map, &Limits { scatter_width: 10 }, seed).ok()?;
        let mut map = ClusterMap { groups, ..map };
        map.devices.iter_mut().zip(devices).for_each(|(device, state)| device.state = state);
        map.nodes.iter_mut().zip(nodes).for_each(|(node, state)| node.state = state);
        Some(map)
    })
}

fn count(map: &ClusterMap, group: u32, is: impl Fn(u32) -> bool) -> u8 {
    map.groups[group as usize].slots.iter().filter(|device| is(**device)).count() as u8
}

fn healthy_rack(nodes: usize, devices: usize) -> ClusterMap {
    let map = rack(policy(4, 2, Level::Node, 1), nodes, devices);
    ClusterMap { groups: make(&map, &Limits::default(), 1).expect("enough nodes"), ..map }
}

proptest! {
    #[test]
    fn a_choice_can_be_written_and_none_less_broken_is_passed_over(
        map in worn(), tolerated in 0..3u8, full in proptest::collection::vec(proptest::bool::weighted(0.1), 60),
        random in any::<u64>()
    ) {
        // Small enough for the whole list to be looked at.
        prop_assert!(map.groups.len() <= SCAN_MAX);
        let chooser = Chooser::new(&map, tolerated);
        let refuses = |device: u32| !Standing::of(&map, device).writable || full[device as usize];
        let unhealthy = |group: u32| count(&map, group, |device| !Standing::of(&map, device).healthy);
        let missing = |group: u32| count(&map, group, refuses);
        let heat = |device: u32| (!full[device as usize]).then_some(u64::from(device));
        let possible = || (0..map.groups.len() as u32).filter(|group| missing(*group) <= tolerated);
        match chooser.choose(random, heat) {
            Ok(Choice { group, missing: said }) => {
                prop_assert_eq!(said, missing(group));
                prop_assert!(said <= tolerated);
                prop_assert_eq!(Some(unhealthy(group)), possible().map(unhealthy).min());
            }
            Err(NoGroup::TooManyMissing { best, tolerated: said }) => {
                let by_map = |group: u32| count(&map, group, |device| !Standing::of(&map, device).writable);
                prop_assert_eq!(Some(best), (0..map.groups.len() as u32).map(by_map).min());
                prop_assert!(best > tolerated && said == tolerated);
            }
            Err(NoGroup::Refused { looked_at }) => {
                prop_assert_eq!(possible().count(), 0);
                prop_assert!(looked_at > 0);
            }
            Err(NoGroup::NoGroups) => prop_assert!(false, "there are groups"),
        }
    }

    #[test]
    fn health_counts_what_cannot_be_read(map in worn()) {
        let unreadable = |device: u32| {
            let device = map.devices[device as usize];
            let node = map.nodes[device.node as usize].state;
            device.state == DeviceState::Removed || matches!(node, NodeState::Down | NodeState::Removed)
        };
        let lost: Vec<u8> = (0..map.groups.len() as u32).map(|group| count(&map, group, unreadable)).collect();
        let of = |slots: usize| lost.iter().filter(|lost| usize::from(**lost) == slots).count() as u64;
        let health = health(&map);
        prop_assert_eq!(&health.groups, &(0..=map.policy.width()).map(of).collect::<Vec<_>>());
        let m = map.policy.parity_shards;
        prop_assert_eq!(health.whole(), of(0));
        prop_assert_eq!(health.on_the_edge(), of(m.into()));
        prop_assert_eq!(health.unreadable(), lost.iter().filter(|lost| **lost > m).count() as u64);
        prop_assert_eq!(can_lose(&map, &[]), health.unreadable() == 0);
    }

    #[test]
    fn what_can_be_lost_leaves_k_of_every_group(map in worn(), chosen in proptest::collection::vec(any::<u32>(), 0..5)) {
        let chosen: Vec<u32> = chosen.iter().map(|which| which % map.devices.len() as u32).collect();
        let left = |group: u32| count(&map, group, |d| Standing::of(&map, d).readable && !chosen.contains(&d));
        let fine = (0..map.groups.len() as u32).all(|group| left(group) >= map.policy.data_shards);
        prop_assert_eq!(can_lose(&map, &chosen), fine);
    }

    #[test]
    fn any_one_domain_of_a_whole_cluster_can_be_lost(map in clusters(), which in any::<u32>(), seed in any::<u64>()) {
        let Ok(groups) = make(&map, &Limits { scatter_width: 10 }, seed) else { return Ok(()) };
        let map = ClusterMap { groups, ..map };
        let devices = || 0..map.devices.len() as u32;
        let lost = domain(&map, which % map.devices.len() as u32);
        let inside: Vec<u32> = devices().filter(|device| domain(&map, *device) == lost).collect();
        prop_assert!(map.policy.parity_shards == 0 || can_lose(&map, &inside));
        prop_assert!(!can_lose(&map, &devices().collect::<Vec<_>>()));
    }
}

#[test]
fn hot_devices_are_passed_over_and_nobody_is_left_out() {
    let map = healthy_rack(12, 2);
    let chooser = Chooser::new(&map, 1);
    let hot = |device: u32| Some(if device == 3 { 100 } else { 1 });
    let mut picked = vec![0u32; map.groups.len()];
    for random in 0..100_000 {
        picked[chooser.choose(random, hot).expect("all healthy").group as usize] += 1;
    }
    let on_hot = |group: u32| count(&map, group, |device| device == 3) > 0;
    let groups = 0..map.groups.len() as u32;
    let (hot, cool): (Vec<_>, Vec<_>) = groups.partition(|group| on_hot(*group));
    let share = hot.iter().map(|group| picked[*group as usize]).sum::<u32>() as f64 / 100_000.0;
    // Both looks must have been at hot groups.
    let wanted = (hot.len() * (hot.len() - 1)) as f64 / (map.groups.len() * (map.groups.len() - 1)) as f64;
    assert!((share / wanted - 1.0).abs() < 0.05, "{share} {wanted}");
    let mean = 100_000.0 * (1.0 - share) / cool.len() as f64;
    let near = |group: &u32| (f64::from(picked[*group as usize]) / mean - 1.0).abs() < 0.2;
    assert!(cool.iter().all(near), "{picked:?}");
}

#[test]
fn two_looks_keep_queues_shorter_than_one() {
    let map = healthy_rack(40, 4);
    let chooser = Chooser::new(&map, 1);
    let longest = |look: bool| {
        let mut queues = vec![0u64; map.devices.len()];
        for random in 0..20_000 {
            let choice = chooser.choose(random, |device| Some(if look { queues[device as usize] } else { 0 }));
            let group = choice.expect("all healthy").group;
            map.groups[group as usize].slots.iter().for_each(|device| queues[*device as usize] += 1);
        }
        let mean = queues.iter().sum::<u64>() / queues.len() as u64;
        queues.iter().max().map_or(0, |longest| longest - mean)
    };
    let (two, one) = (longest(true), longest(false));
    assert!(two * 3 < one, "{two} against {one}");
}

#[test]
fn a_small_rack_with_a_node_down_is_written_with_a_shard_owed() {
    let mut map = healthy_rack(6, 3);
    map.nodes[4].state = NodeState::Down;
    let choose = |map: &ClusterMap, tolerated| Chooser::new(map, tolerated).choose(7, |_| Some(0));
    assert!(matches!(choose(&map, 1), Ok(Choice { missing: 1, .. })));
    assert_eq!(choose(&map, 0), Err(NoGroup::TooManyMissing { best: 1, tolerated: 0 }));
    map.nodes[5].state = NodeState::Down;
    assert_eq!(choose(&map, 1), Err(NoGroup::TooManyMissing { best: 2, tolerated: 1 }));
    assert_eq!(choose(&ClusterMap { groups: vec![], ..map }, 1), Err(NoGroup::NoGroups));
}

#[test]
fn suspect_devices_are_written_when_there_are_no_others() {
    let mut map = healthy_rack(6, 3);
    map.devices.iter_mut().for_each(|device| device.state = DeviceState::Suspect);
    assert!(matches!(Chooser::new(&map, 1).choose(7, |_| Some(0)), Ok(Choice { missing: 0, .. })));
}

#[test]
fn a_choice_among_many_full_devices_has_a_bounded_cost() {
    let map = healthy_rack(60, 24);
    assert!(map.groups.len() > 2 * SCAN_MAX);
    let chooser = Chooser::new(&map, 1);
    let asked = Cell::new(0);
    let heat = |_| {
        asked.set(asked.get() + 1);
        None
    };
    assert_eq!(chooser.choose(1, heat), Err(NoGroup::Refused { looked_at: (DRAWS + SCAN_MAX) as u32 }));
    assert_eq!(asked.get(), (DRAWS + SCAN_MAX) * 6);
}
