//! Draining and removing: what is allowed, and what is refused by name.

use membership::{Input, Reason};
use placement::map::{DeviceState, Level, NodeState};

use crate::world::{World, device_id, node_id, policy, refusals};

fn six() -> World {
    World::formed(policy(4, 2, Level::Node, 1), 6, 3)
}

fn not_head(world: &World) -> impl Iterator<Item = usize> + use<> {
    let head = world.map().partitions[0].chain[0] as usize;
    (0..world.hosts.len()).filter(move |n| *n != head)
}

#[test]
fn so_many_are_drained_at_once_as_redundancy_allows() {
    let mut world = six();
    let mut nodes = not_head(&world);
    let (one, two) = (nodes.next().expect("a node"), nodes.next().expect("a node"));
    assert_eq!(refusals(&world.step(Input::DrainNode(node_id(one)))), []);
    assert_eq!(world.node_state(one), NodeState::Draining);
    // Every group has a slot on every node: a second one would stop all writes.
    assert_eq!(refusals(&world.step(Input::DrainNode(node_id(two)))), [Reason::NoGroupForWrites]);
    world.step(Input::UndrainNode(node_id(one)));
    assert_eq!(world.node_state(one), NodeState::Up);
    assert_eq!(refusals(&world.step(Input::DrainNode(node_id(two)))), []);
}

#[test]
fn a_node_that_is_down_counts_against_draining() {
    let mut world = six();
    let mut nodes = not_head(&world);
    let (one, two) = (nodes.next().expect("a node"), nodes.next().expect("a node"));
    world.hosts[one].alive = false;
    world.run_s(12);
    assert!(!refusals(&world.step(Input::DrainNode(node_id(two)))).is_empty());
    assert_eq!(refusals(&world.step(Input::DrainNode(node_id(one)))), [], "what is away anyhow may be emptied");
    world.hosts[one].alive = true;
    world.run_s(1);
    assert_eq!(world.node_state(one), NodeState::Draining, "the wish outlives the silence");
}

#[test]
fn a_groups_tolerance_is_the_bound_where_others_take_the_writes() {
    let mut world = World::formed(policy(2, 1, Level::Node, 1), 9, 2);
    let mut refused = Vec::new();
    for n in 0..18 {
        refused.extend(refusals(&world.step(Input::DrainDevice(device_id(n)))));
    }
    assert!(refused.iter().any(|reason| matches!(reason, Reason::TooManyDraining { tolerated: 1, .. })), "{refused:?}");
    assert!(world.map().devices.iter().any(|device| device.state == DeviceState::Draining));
}

#[test]
fn what_holds_data_is_not_removed() {
    let mut world = six();
    let node = not_head(&world).next().expect("a node");
    let removal = |force| Input::RemoveNode { node: node_id(node), force };
    assert!(matches!(refusals(&world.step(removal(false)))[..], [Reason::HoldsSlots { slots } ] if slots > 0));
    let device = world.device(3 * node).id;
    let outputs = world.step(Input::RemoveDevice { device, force: false });
    assert!(matches!(refusals(&outputs)[..], [Reason::HoldsSlots { .. }]));
    let head = world.map().partitions[0].chain[0];
    let head = world.map().nodes[head as usize].id;
    let partition = world.map().partitions[0].id;
    for force in [false, true] {
        let outputs = world.step(Input::RemoveNode { node: head, force });
        assert_eq!(refusals(&outputs), [Reason::HoldsPartition(partition)]);
    }
    let unknown = Input::RemoveNode { node: node_id(77), force: true };
    assert_eq!(refusals(&world.step(unknown)), [Reason::UnknownNode(node_id(77))]);
}

#[test]
fn force_gives_up_what_can_be_rebuilt_and_never_readable_data() {
    let mut world = six();
    let nodes: Vec<usize> = not_head(&world).collect();
    for n in &nodes[..2] {
        assert_eq!(refusals(&world.step(Input::RemoveNode { node: node_id(*n), force: true })), []);
        assert_eq!(world.node_state(*n), NodeState::Removed);
    }
    let third = Input::RemoveNode { node: node_id(nodes[2]), force: true };
    assert!(matches!(refusals(&world.step(third.clone()))[..], [Reason::BelowK { left: 3, k: 4, .. }]));
    // It dies, and takes the data with it: now removing it costs nothing more.
    world.hosts[nodes[2]].alive = false;
    world.run_s(12);
    assert_eq!(refusals(&world.step(third)), []);
    assert!(world.risks()[0].ends_with("misses 3 slots and tolerates 2: it cannot be read"), "{:?}", world.risks());
    // A removed node is refused; its disks come back in another.
    let outputs = world.step(Input::NodeReported(world.hosts[nodes[0]].report(world.now)));
    assert_eq!(refusals(&outputs), [Reason::NodeRemoved(node_id(nodes[0]))]);
    let mut disks = world.hosts[nodes[0]].disks.clone();
    disks.extend(world.hosts[nodes[1]].disks.clone());
    for n in &nodes[..2] {
        world.hosts[*n].alive = false;
    }
    world.join(6, []);
    world.hosts[6].disks = disks;
    world.run_s(2);
    assert!(world.risks().iter().all(|risk| !risk.contains("cannot be read")), "{:?}", world.risks());
}

#[test]
fn an_empty_node_goes_with_its_devices() {
    let mut world = World::formed(policy(2, 1, Level::Node, 1), 3, 2);
    world.join(3, [100]);
    world.hosts[3].disks[0].failed = true;
    world.run_s(4);
    assert_eq!(refusals(&world.step(Input::RemoveNode { node: node_id(3), force: false })), []);
    world.join(4, [101]);
    world.run_s(2);
    assert_eq!(world.device_state(101), DeviceState::Healthy);
    assert!(world.map().groups.iter().all(|group| !group.slots.contains(&world.device(101).place)));
    assert_eq!(refusals(&world.step(Input::DrainNode(node_id(4)))), []);
    assert_eq!(refusals(&world.step(Input::RemoveNode { node: node_id(4), force: false })), []);
    assert_eq!(world.doing(), Vec::<String>::new());
    assert_eq!(world.device_state(101), DeviceState::Removed);
    // For ever: in whatever node it is seen again.
    let disk = world.hosts[4].disks[0].clone();
    world.hosts[0].disks.push(disk);
    world.run_s(5);
    assert_eq!(world.device_state(101), DeviceState::Removed);
    assert_eq!(world.heard("device-refused"), 1);
}

#[test]
fn a_journals_node_keeps_devices_for_its_copies() {
    let mut world = World::formed(policy(2, 1, Level::Node, 1), 4, 2);
    let head = world.map().partitions[0].chain[0] as usize;
    let partition = world.map().partitions[0].id;
    let device = device_id(2 * head);
    let forced = |device| Input::RemoveDevice { device, force: true };
    assert_eq!(refusals(&world.step(forced(device))), []);
    let last = device_id(2 * head + 1);
    let outputs = world.step(forced(last));
    assert!(
        matches!(refusals(&outputs)[..], [Reason::JournalDevices { partition: p, left: 0, needed: 1 }] if p == partition)
            || matches!(refusals(&outputs)[..], [Reason::BelowK { .. }]),
        "{outputs:?}"
    );
}

#[test]
fn verbs_done_twice_are_done_once() {
    let mut world = six();
    let node = not_head(&world).next().expect("a node");
    for verb in [
        Input::DrainNode(node_id(node)),
        Input::UndrainNode(node_id(node)),
        Input::DrainDevice(device_id(3 * node)),
        Input::UndrainDevice(device_id(3 * node)),
        Input::RemoveDevice { device: device_id(3 * node), force: true },
        Input::RemoveNode { node: node_id(node), force: true },
    ] {
        assert_eq!(refusals(&world.step(verb.clone())), [], "{verb:?}");
        let machine = world.machine.clone();
        assert_eq!(world.step(verb.clone()), [], "{verb:?}");
        assert_eq!(world.machine, machine, "{verb:?}");
    }
}
