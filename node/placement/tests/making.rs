//! Groups as they are made.
#![forbid(unsafe_code)]

mod racks;

use std::collections::BTreeSet;

use placement::groups::{Limits, PlacementError, grow, make, violations};
use placement::map::{ClusterMap, DeviceState, Group, Level};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use racks::{add_node, clusters, held, is_valid, partners, policy, rack, shares_fit, small_racks, unevenness};

fn made(mut map: ClusterMap, limits: &Limits, seed: u64) -> ClusterMap {
    map.groups = make(&map, limits, seed).expect("enough domains");
    map
}

/// Whether any valid group exists, by trying every set of devices.
fn any_group(map: &ClusterMap, chosen: &mut Vec<u32>, from: u32) -> bool {
    if chosen.len() == map.policy.width() {
        return is_valid(map, &Group { slots: chosen.clone() });
    }
    (from..map.devices.len() as u32).any(|device| {
        chosen.push(device);
        let found = any_group(map, chosen, device + 1);
        chosen.pop();
        found
    })
}

proptest! {
    #[test]
    fn groups_keep_the_policy_and_shares_are_even(map in clusters(), scatter_width in 0..40u32, seed in any::<u64>()) {
        let made = make(&map, &Limits { scatter_width }, seed);
        prop_assert_eq!(&made, &make(&map, &Limits { scatter_width }, seed));
        let Ok(groups) = made else { return Ok(()) };
        let map = ClusterMap { groups, ..map };
        prop_assert_eq!(map.check(), Ok(()));
        prop_assert!(map.groups.iter().all(|group| is_valid(&map, group)));
        prop_assert_eq!(violations(&map), vec![]);
        prop_assert!(map.groups.len() * map.policy.width() >= 10 * map.devices.len());
        if shares_fit(&map) {
            prop_assert!(unevenness(&map) <= 1.1, "{}", unevenness(&map));
        }
    }

    #[test]
    fn every_device_holds_every_slot_equally_often(map in clusters(), seed in any::<u64>()) {
        let Ok(groups) = make(&map, &Limits { scatter_width: 20 }, seed) else { return Ok(()) };
        let mut counts = vec![vec![0usize; map.policy.width()]; map.devices.len()];
        for group in &groups {
            (0..).zip(&group.slots).for_each(|(slot, device): (usize, _)| counts[*device as usize][slot] += 1);
        }
        for slots in counts {
            prop_assert!(slots.iter().max().unwrap_or(&0) - slots.iter().min().unwrap_or(&0) <= 1, "{:?}", slots);
        }
    }

    #[test]
    fn groups_are_refused_exactly_when_there_is_none(map in clusters(), seed in any::<u64>()) {
        if map.devices.len() > 14 {
            return Ok(());
        }
        let exists = any_group(&map, &mut Vec::new(), 0);
        match make(&map, &Limits { scatter_width: 1 }, seed) {
            Ok(_) => prop_assert!(exists),
            Err(PlacementError::TooFewDomains { needed, there, .. }) => {
                prop_assert!(!exists);
                // As many as it says are enough, one fewer is not.
                let slots = usize::from(map.policy.slots_per_domain);
                let with = |more: usize| {
                    let mut map = map.clone();
                    for n in 0..more {
                        let devices = if map.policy.level == Level::Device { 1 } else { slots };
                        add_node(&mut map, &format!("x{n}"), "x", &vec![1 << 40; devices]);
                    }
                    make(&map, &Limits { scatter_width: 1 }, seed)
                };
                prop_assert!(with(needed - there).is_ok());
                prop_assert!(with(needed - there - 1).is_err());
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn more_groups_level_out_what_devices_hold(map in clusters(), seed in any::<u64>()) {
        let Ok(groups) = make(&map, &Limits { scatter_width: 1 }, seed) else { return Ok(()) };
        let mut map = ClusterMap { groups, ..map };
        prop_assert_eq!(grow(&map, &Limits { scatter_width: 1 }, seed), Ok(vec![]));
        let even = unevenness(&map);
        let limits = Limits { scatter_width: 60 };
        let more = grow(&map, &limits, seed).expect("enough domains");
        prop_assert!(more.iter().all(|group| is_valid(&map, group)));
        map.groups.extend(more);
        prop_assert_eq!(map.groups.len(), make(&map, &limits, seed).expect("enough domains").len());
        prop_assert!(!shares_fit(&map) || unevenness(&map) <= 1.1, "{} {}", even, unevenness(&map));
    }
}

#[test]
fn small_racks_have_groups_over_all_their_devices() {
    for map in small_racks() {
        let map = made(map, &Limits::default(), 1);
        let held = held(&map);
        let (least, most) = (held.iter().min(), held.iter().max());
        assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1 && *least >= 10), "{held:?}");
        assert!(map.groups.iter().all(|group| is_valid(&map, group)));
        let apart = map.policy.level == Level::Node && map.policy.slots_per_domain == 1;
        let alike = if apart { map.devices.iter().filter(|device| device.node == 0).count() } else { 1 };
        let reach = map.devices.len() - alike;
        // All but one at least of those that a device may share groups with.
        assert!(partners(&map).iter().all(|others| (reach - 1..=reach).contains(others)), "{:?}", partners(&map));
    }
}

#[test]
fn devices_share_groups_with_as_many_as_was_asked_and_no_more() {
    for (k, m, scatter) in [(4, 2, 50), (4, 2, 100), (8, 3, 100), (8, 3, 200)] {
        let map = made(rack(policy(k, m, Level::Node, 1), 200, 12), &Limits { scatter_width: scatter }, 3);
        let partners = partners(&map);
        let mean = partners.iter().sum::<usize>() as f64 / partners.len() as f64;
        assert!((0.93..=1.1).contains(&(mean / f64::from(scatter))), "{k}+{m}, {scatter}: {mean}");
        // Nobody is left with few.
        assert!(partners.iter().all(|others| *others as f64 > 0.8 * mean), "{:?}", partners.iter().min());
    }
}

#[test]
fn the_distinct_combinations_are_as_many_as_groups_and_grow_with_the_scatter_width() {
    let combinations = |scatter_width| {
        let map = made(rack(policy(4, 2, Level::Node, 1), 60, 4), &Limits { scatter_width }, 5);
        let sorted = |group: &Group| group.slots.iter().copied().collect::<BTreeSet<_>>();
        (map.groups.iter().map(sorted).collect::<BTreeSet<_>>().len(), map.groups.len())
    };
    assert_eq!(combinations(50), (400, 400));
    assert_eq!(combinations(100), (800, 800));
}

#[test]
fn groups_spread_over_racks_and_sites_that_the_policy_does_not_ask_for() {
    let mut map = racks::empty(policy(4, 2, Level::Node, 2));
    for node in 0..24 {
        add_node(&mut map, &format!("s{}", node % 3), &format!("r{}", node / 3 % 2), &[1 << 40; 4]);
    }
    let map = made(map, &Limits::default(), 7);
    for group in &map.groups {
        let node = |device: &u32| map.devices[*device as usize].node;
        let nodes: BTreeSet<_> = group.slots.iter().map(node).collect();
        assert_eq!(nodes.len(), 6, "two slots on one node, though there are more nodes");
        let racks: BTreeSet<_> = nodes.iter().map(|node| (node % 3, node / 3 % 2)).collect();
        assert_eq!(racks.len(), 6, "{racks:?}");
    }
}

#[test]
fn devices_that_are_not_healthy_get_no_slots() {
    let mut map = rack(policy(4, 2, Level::Node, 1), 8, 3);
    map.devices[1].state = DeviceState::Suspect;
    map.devices[7].state = DeviceState::Draining;
    map.devices[20].state = DeviceState::Removed;
    let held = held(&made(map, &Limits::default(), 1));
    assert_eq!((0..24).filter(|device| held[*device] == 0).collect::<Vec<_>>(), [1, 7, 20]);
}

#[test]
fn seeds_give_different_groups() {
    let map = rack(policy(4, 2, Level::Node, 1), 12, 3);
    assert_ne!(make(&map, &Limits::default(), 1), make(&map, &Limits::default(), 2));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let refused = |policy, nodes| make(&rack(policy, nodes, 4), &Limits::default(), 1).expect_err("impossible");
    let few = PlacementError::TooFewDomains { policy: policy(4, 2, Level::Node, 1), needed: 6, there: 5, room: 5 };
    assert_eq!(refused(policy(4, 2, Level::Node, 1), 5), few);
    assert!(matches!(refused(policy(4, 2, Level::Node, 3), 6), PlacementError::Policy(_)));
    assert!(matches!(refused(policy(0, 2, Level::Node, 1), 6), PlacementError::Policy(_)));
    assert!(matches!(refused(policy(60, 5, Level::Node, 1), 70), PlacementError::Policy(_)));
    let wide = Limits { scatter_width: u32::MAX };
    let map = rack(policy(1, 1, Level::Node, 1), 5000, 1);
    assert!(matches!(make(&map, &wide, 1), Err(PlacementError::TooManySlots { .. })));
}
