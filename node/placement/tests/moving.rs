//! Moves: when devices come, go, fail or fill.
#![forbid(unsafe_code)]

mod racks;

use std::collections::BTreeSet;

use placement::Standing;
use placement::groups::{
    Limits, Move, Plan, Stuck, apply, by_capacity, by_fill, make, rebalance, rebalance_by, replace, violations,
};
use placement::map::{ClusterMap, DeviceState, Group, Level, NodeState};
use proptest::prelude::{Just, Strategy, TestCaseError, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use racks::{add_device, add_node, clusters, held, is_valid, policy, rack, shares_fit, small_racks, unevenness};

/// What happens to a cluster. Numbers choose a device or node, modulo how many there are.
#[derive(Debug, Clone)]
enum Event {
    NodeJoins(u8, u8, u8),
    DeviceAdded(usize),
    Device(usize, DeviceState),
    Node(usize, NodeState),
    NodeMoves(usize, u8),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let device = prop_oneof![
        Just(DeviceState::Healthy),
        Just(DeviceState::Suspect),
        Just(DeviceState::Draining),
        Just(DeviceState::Removed)
    ];
    let node = prop_oneof![
        2 => Just(NodeState::Up),
        2 => Just(NodeState::Down),
        1 => Just(NodeState::Draining),
        1 => Just(NodeState::Removed)
    ];
    let event = prop_oneof![
        4 => (0..3u8, 0..3u8, 1..5u8).prop_map(|(site, rack, devices)| Event::NodeJoins(site, rack, devices)),
        2 => any::<usize>().prop_map(Event::DeviceAdded),
        4 => (any::<usize>(), device).prop_map(|(which, state)| Event::Device(which, state)),
        3 => (any::<usize>(), node).prop_map(|(which, state)| Event::Node(which, state)),
        1 => (any::<usize>(), 0..3u8).prop_map(|(which, rack)| Event::NodeMoves(which, rack)),
    ];
    proptest::collection::vec(event, 1..5)
}

fn happen(map: &mut ClusterMap, event: &Event) {
    let (nodes, devices) = (map.nodes.len(), map.devices.len());
    match event {
        Event::NodeJoins(site, rack, devices) => {
            let capacities = vec![4 << 40; usize::from(*devices)];
            add_node(map, &format!("s{site}"), &format!("r{rack}"), &capacities);
        }
        Event::DeviceAdded(node) => add_device(map, (node % nodes) as u32, 4 << 40),
        Event::Device(which, state) => map.devices[which % devices].state = *state,
        Event::Node(which, state) => map.nodes[which % nodes].state = *state,
        Event::NodeMoves(which, rack) => map.nodes[which % nodes].rack = format!("r{rack}"),
    }
}

fn after(map: &ClusterMap, moves: &[Move]) -> ClusterMap {
    let mut map = map.clone();
    moves.iter().for_each(|step| apply(&mut map.groups, step));
    map
}

/// Everything that is promised of one plan.
fn check_plan(map: &ClusterMap, plan: &Plan) -> Result<(), TestCaseError> {
    let slots: BTreeSet<_> = plan.moves.iter().map(|step| (step.group, step.slot)).collect();
    prop_assert_eq!(slots.len(), plan.moves.len(), "a slot moves twice");
    let stuck: BTreeSet<_> = plan.stuck.iter().map(|stuck| (stuck.group, stuck.slot)).collect();
    for step in &plan.moves {
        let (from, to) = (Standing::of(map, step.from), Standing::of(map, step.to));
        prop_assert!(to.healthy || (to.writable && !from.readable), "{:?}", step);
        prop_assert!(!from.away, "{:?} is off a node that may come back", step);
    }
    check_every_subset(map, plan)?;
    let end = after(map, &plan.moves);
    for (number, group) in (0u32..).zip(&end.groups) {
        for (slot, device) in (0u8..).zip(&group.slots) {
            let leaving = Standing::of(&end, *device).leaving;
            prop_assert_eq!(leaving && !stuck.contains(&(number, slot)), false, "{} {} stays", number, slot);
        }
    }
    for Stuck { group, slot, on } in &plan.stuck {
        prop_assert_eq!(end.groups[*group as usize].slots[usize::from(*slot)], *on);
        let moved = plan.moves.iter().any(|step| step.group == *group);
        let place = (0..end.devices.len() as u32).find(|device| {
            let mut group = end.groups[*group as usize].clone();
            group.slots[usize::from(*slot)] = *device;
            Standing::of(&end, *device).healthy && is_valid(&end, &group)
        });
        prop_assert!(moved || place.is_none(), "{} {} is stuck, but {:?} could take it", group, slot, place);
    }
    Ok(())
}

/// Whatever moves of a group are made first, what was valid stays valid.
fn check_every_subset(map: &ClusterMap, plan: &Plan) -> Result<(), TestCaseError> {
    let mut moves = plan.moves.clone();
    moves.sort_by_key(|step| step.group);
    for of_group in moves.chunk_by(|one, other| one.group == other.group) {
        let group = &map.groups[of_group[0].group as usize];
        let valid = is_valid(map, group);
        for subset in 0..1u32 << of_group.len().min(10) {
            let mut group = group.clone();
            for step in of_group.iter().enumerate().filter(|(n, _)| subset >> n & 1 == 1).map(|(_, step)| step) {
                group.slots[usize::from(step.slot)] = step.to;
            }
            prop_assert!(!valid || is_valid(map, &group), "{:?} {:#b}", of_group, subset);
        }
    }
    Ok(())
}

fn grouped(map: ClusterMap, seed: u64) -> Option<ClusterMap> {
    let groups = make(&map, &Limits { scatter_width: 10 }, seed).ok()?;
    Some(ClusterMap { groups, ..map })
}

proptest! {
    #[test]
    fn plans_keep_the_policy_empty_what_leaves_and_come_to_rest(
        map in clusters(), events in proptest::collection::vec(events(), 1..4), seed in any::<u64>()
    ) {
        let Some(mut map) = grouped(map, seed) else { return Ok(()) };
        for events in events {
            events.iter().for_each(|event| happen(&mut map, event));
            let mut rounds = 0;
            loop {
                let plan = rebalance(&map, seed ^ rounds);
                prop_assert_eq!(&plan, &rebalance(&map, seed ^ rounds));
                check_plan(&map, &plan)?;
                map = after(&map, &plan.moves);
                if plan.moves.is_empty() {
                    break;
                }
                rounds += 1;
                prop_assert!(rounds < 6, "no rest after {} plans", rounds);
            }
        }
    }

    #[test]
    fn one_device_is_replaced_and_nothing_else_moves(map in clusters(), which in any::<u32>(), seed in any::<u64>()) {
        let Some(map) = grouped(map, seed) else { return Ok(()) };
        let device = which % map.devices.len() as u32;
        let plan = replace(&map, device, seed);
        prop_assert!(plan.moves.iter().all(|step| step.from == device));
        prop_assert_eq!((plan.moves.len() + plan.stuck.len()) as u64, held(&map)[device as usize]);
        let mut gone = map.clone();
        gone.devices[device as usize].state = DeviceState::Removed;
        check_plan(&gone, &plan)?;
    }

    #[test]
    fn joining_and_leaving_move_no_more_than_their_share(
        nodes in 7..40usize, devices in 1..5usize, per_node in 1..3u8, seed in any::<u64>()
    ) {
        let map = rack(policy(4, 2, Level::Node, per_node), nodes, devices);
        let map = grouped(map, seed).expect("enough nodes");
        let slots = (map.groups.len() * 6) as f64;
        let mut joined = map.clone();
        add_node(&mut joined, "s", "r", &vec![1 << 40; devices]);
        let plan = rebalance(&joined, seed);
        let fair = slots / (nodes + 1) as f64;
        prop_assert!(plan.moves.len() as f64 <= 1.2 * fair, "{} of {}", plan.moves.len(), fair);
        // On a few nodes the last slot may find its way only through a third device.
        let aside = plan.moves.iter().filter(|step| joined.devices[step.to as usize].node as usize != nodes).count();
        prop_assert!(aside <= if nodes < 12 { 2 } else { 0 }, "{} of {} go elsewhere", aside, plan.moves.len());
        let joined = after(&joined, &plan.moves);
        prop_assert!(unevenness(&joined) <= 1.1, "{}", unevenness(&joined));

        let mut leaving = joined.clone();
        leaving.nodes[0].state = NodeState::Draining;
        let on_it: u64 = held(&leaving)[..devices].iter().sum();
        let plan = rebalance(&leaving, seed);
        // On seven nodes a slot has two places to go to; the last ones may have to go there by way of another.
        let at_most = (1.2 * on_it as f64).max((on_it + 2) as f64);
        prop_assert!(plan.moves.len() as f64 <= at_most, "{} of {}", plan.moves.len(), on_it);
        prop_assert_eq!(plan.stuck, vec![]);
    }

    #[test]
    fn healthy_clusters_end_up_even(map in clusters(), events in events(), seed in any::<u64>()) {
        let Some(mut map) = grouped(map, seed) else { return Ok(()) };
        events.iter().filter(|event| matches!(event, Event::NodeJoins(..) | Event::DeviceAdded(_)))
            .for_each(|event| happen(&mut map, event));
        for round in 0..5 {
            map = after(&map, &rebalance(&map, seed ^ round).moves);
        }
        let mean = (map.groups.len() * map.policy.width()) as f64 / map.devices.len() as f64;
        if shares_fit(&map) {
            prop_assert!(unevenness(&map) <= 1.0 + 1.0 / mean, "{} at {} slots", unevenness(&map), mean);
        }
    }
}

/// Every way to give each moved slot a new device, in every order, is tried for the fewest moves that empty what
/// leaves and leave nobody a slot above its share.
fn fewest_moves(map: &ClusterMap, share: u64) -> Option<usize> {
    let mut worlds = BTreeSet::from([map.groups.iter().map(|group| group.slots.clone()).collect::<Vec<_>>()]);
    for moves in 0..5 {
        let done = |world: &Vec<Vec<u32>>| {
            let groups = world.iter().map(|slots| Group { slots: slots.clone() }).collect();
            let map = ClusterMap { groups, ..map.clone() };
            let fine = |(device, held): (usize, &u64)| {
                *held <= if map.devices[device].state == DeviceState::Healthy { share } else { 0 }
            };
            held(&map).iter().enumerate().all(fine)
        };
        if worlds.iter().any(done) {
            return Some(moves);
        }
        let mut next = BTreeSet::new();
        for world in &worlds {
            for (group, slots) in world.iter().enumerate() {
                for slot in 0..slots.len() {
                    for device in 0..map.devices.len() as u32 {
                        let mut slots = slots.clone();
                        slots[slot] = device;
                        if is_valid(map, &Group { slots: slots.clone() }) {
                            let mut world = world.clone();
                            world[group] = slots;
                            next.insert(world);
                        }
                    }
                }
            }
        }
        worlds = next;
    }
    None
}

#[test]
fn no_plan_for_a_tiny_cluster_could_be_shorter() {
    let mut seen = BTreeSet::new();
    for seed in 0..30 {
        let mut map = rack(policy(1, 1, Level::Node, 1), 3, 1);
        map.groups = make(&map, &Limits { scatter_width: 1 }, seed).expect("enough nodes");
        map.groups.truncate(3);
        map.groups = (0..3).map(|group| Group { slots: vec![group % 3, (group + 1) % 3] }).collect();
        match seed % 3 {
            0 => drop(add_node(&mut map, "s", "r", &[1 << 40])),
            1 => add_device(&mut map, 0, 1 << 40),
            _ => {
                add_node(&mut map, "s", "r", &[1 << 40]);
                map.devices[1].state = DeviceState::Draining;
            }
        }
        let plan = rebalance(&map, seed);
        let end = after(&map, &plan.moves);
        let most = held(&end).into_iter().max().unwrap_or(0);
        let healthy = map.devices.iter().filter(|device| device.state == DeviceState::Healthy).count() as u64;
        assert_eq!(most, 6u64.div_ceil(healthy), "seed {seed}: {:?}", held(&end));
        assert_eq!(
            Some(plan.moves.len()),
            fewest_moves(&map, most).map(|fewest| fewest.max(lacking(&map))),
            "seed {seed}"
        );
        seen.insert(plan.moves.len());
    }
    assert!(seen.len() > 1, "{seen:?}");
}

/// Slots that devices lack to six slots shared out among the healthy.
fn lacking(map: &ClusterMap) -> usize {
    let healthy = |device: &usize| map.devices[*device].state == DeviceState::Healthy;
    let devices: Vec<usize> = (0..map.devices.len()).filter(healthy).collect();
    let least = 6 / devices.len() as u64;
    devices.iter().map(|device| least.saturating_sub(held(map)[*device]) as usize).sum()
}

#[test]
fn small_racks_lose_and_get_back_a_device() {
    for map in small_racks() {
        let mut map = grouped(map, 1).expect("enough devices");
        map.devices[0].state = DeviceState::Removed;
        let plan = rebalance(&map, 2);
        check_plan(&map, &plan).expect("a good plan");
        map = after(&map, &plan.moves);
        add_device(&mut map, 0, 1 << 40);
        let plan = rebalance(&map, 3);
        check_plan(&map, &plan).expect("a good plan");
        assert_eq!(plan.stuck, vec![]);
        map = after(&map, &plan.moves);
        assert_eq!((held(&map)[0], violations(&map)), (0, vec![]));
        assert!(unevenness(&map) <= 1.1, "{:?}", held(&map));
    }
}

#[test]
fn what_has_nowhere_to_go_is_said() {
    let mut map = grouped(rack(policy(4, 2, Level::Node, 1), 6, 3), 1).expect("enough nodes");
    map.nodes[2].state = NodeState::Removed;
    let plan = rebalance(&map, 1);
    assert_eq!((plan.moves.len(), plan.stuck.len()), (0, map.groups.len()));
    assert!(plan.stuck.iter().all(|stuck| map.devices[stuck.on as usize].node == 2));
    add_node(&mut map, "s", "r", &[1 << 40; 3]);
    let plan = rebalance(&map, 1);
    assert_eq!((plan.moves.len(), plan.stuck.len()), (map.groups.len(), 0));
}

#[test]
fn groups_that_have_lost_most_come_first() {
    let mut map = grouped(rack(policy(4, 2, Level::Node, 1), 12, 2), 1).expect("enough nodes");
    (map.devices[0].state, map.devices[2].state) = (DeviceState::Removed, DeviceState::Removed);
    map.devices[4].state = DeviceState::Draining;
    add_node(&mut map, "s", "r", &[1 << 40; 4]);
    let plan = rebalance(&map, 1);
    let lost = |group: u32| map.groups[group as usize].slots.iter().filter(|device| [0, 2].contains(*device)).count();
    let urgency = |step: &Move| (lost(step.group), [0, 2].contains(&step.from), step.from == 4);
    let order: Vec<_> = plan.moves.iter().map(urgency).collect();
    let forced = order.iter().take_while(|(_, gone, drains)| *gone || *drains).count();
    assert!(order[..forced].is_sorted_by(|one, other| one >= other), "{order:?}");
    assert!(order[forced..].iter().all(|(_, gone, drains)| !gone && !drains), "{order:?}");
    assert!(order.iter().any(|step| step.0 == 2) && forced < order.len(), "{order:?}");
}

#[test]
fn a_node_in_another_rack_is_put_right() {
    let mut map = racks::empty(policy(4, 2, Level::Rack, 1));
    for node in 0..16 {
        add_node(&mut map, "s", &format!("r{}", node % 8), &[1 << 40; 2]);
    }
    let mut map = grouped(map, 1).expect("enough racks");
    map.nodes[0].rack = "r1".into();
    let wrong = violations(&map).len();
    let plan = rebalance(&map, 1);
    check_plan(&map, &plan).expect("a good plan");
    assert!(wrong > 0);
    assert_eq!(violations(&after(&map, &plan.moves)), vec![]);
}

#[test]
fn a_device_that_fills_gives_slots_away_once() {
    let mut map = grouped(rack(policy(4, 2, Level::Node, 1), 12, 2), 1).expect("enough nodes");
    let per_slot = |device: usize| if device == 5 { 90 << 30 } else { 60 << 30 };
    let used = |map: &ClusterMap| -> Vec<u64> {
        held(map).iter().enumerate().map(|(device, slots)| slots * per_slot(device)).collect()
    };
    let before = held(&map)[5];
    assert!(used(&map)[5] > 800 << 30);
    for round in 0..3 {
        let weights = by_fill(&map, &used(&map));
        let plan = rebalance_by(&map, &weights, round);
        assert!(plan.moves.iter().all(|step| step.from == 5), "{plan:?}");
        assert_eq!(plan.moves.is_empty(), round > 0, "{plan:?}");
        map = after(&map, &plan.moves);
    }
    assert!(used(&map)[5] < 720 << 30 && held(&map)[5] * 2 >= before, "{:?}", held(&map));
    // An emptier cluster is left alone.
    let little: Vec<u64> = used(&map).iter().map(|used| used / 10).collect();
    assert_eq!(by_fill(&map, &little), by_capacity(&map));
}

#[test]
fn a_node_that_is_down_keeps_its_slots_and_gets_none() {
    let mut map = grouped(rack(policy(4, 2, Level::Node, 1), 9, 2), 1).expect("enough nodes");
    let before = held(&map);
    map.nodes[3].state = NodeState::Down;
    assert_eq!(rebalance(&map, 1), Plan::default());
    add_node(&mut map, "s", "r", &[1 << 40; 2]);
    let plan = rebalance(&map, 1);
    assert!(!plan.moves.is_empty());
    assert_eq!(held(&after(&map, &plan.moves))[6..8], before[6..8]);
}

#[test]
fn a_rack_that_grows_one_node_at_a_time_stays_even() {
    let mut map = grouped(rack(policy(4, 2, Level::Node, 1), 6, 4), 1).expect("enough nodes");
    for node in 6..60 {
        add_node(&mut map, "s", "r", &[1 << 40; 4]);
        let plan = rebalance(&map, node);
        let fair = (map.groups.len() * 6) as f64 / (node + 1) as f64;
        assert!(plan.moves.len() as f64 <= 1.2 * fair, "{node}: {} of {fair}", plan.moves.len());
        map = after(&map, &plan.moves);
        let more = placement::groups::grow(&map, &Limits { scatter_width: 10 }, node).expect("enough nodes");
        map.groups.extend(more);
        assert!(map.groups.iter().all(|group| is_valid(&map, group)));
        assert!(unevenness(&map) <= 1.1, "{node}: {}", unevenness(&map));
    }
}
