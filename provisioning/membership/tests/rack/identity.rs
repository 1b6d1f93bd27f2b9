//! Who is who: clocks, protocols, copied identities, devices that move, copies and strangers.

use base::ClusterId;
use membership::{Input, Limits, Reason, Severity};
use placement::map::{DeviceState, Level, NodeState};

use crate::world::{CLUSTER, Host, World, device_id, disk, node_id, policy, refusals};

fn four() -> World {
    World::formed(policy(2, 1, Level::Node, 1), 4, 2)
}

#[test]
fn a_wrong_clock_and_an_unknown_protocol_are_refused_by_name() {
    let mut world = four();
    world.hosts[1].clock_ahead_ms = -2_001;
    let refused = world.step(Input::NodeReported(world.hosts[1].report(world.now)));
    assert_eq!(refusals(&refused), [Reason::Clock { node: node_id(1), offset_ms: -2_001, bound_ms: 2_000 }]);
    let before = world.heard("node-refused");
    world.run_s(20);
    assert_eq!(world.heard("node-refused"), before, "said once");
    assert_eq!(world.node_state(1), NodeState::Down, "a refused report is no sign of life");
    assert!(world.risks().iter().any(|risk| risk.contains("-2001 ms away")), "{:?}", world.risks());
    world.hosts[1].clock_ahead_ms = 2_000;
    world.run_s(1);
    assert_eq!(world.node_state(1), NodeState::Up);

    let (facts, clock_ms) = (world.hosts[0].facts.clone(), world.now);
    let join = Input::NodeJoined { node: node_id(9), facts, clock_ms, protocol: 2 };
    let reason = Reason::Protocol { node: node_id(9), spoken: 2, oldest: 1, newest: 1 };
    assert_eq!(refusals(&world.step(join)), [reason]);
    assert!(world.map().node(node_id(9)).is_none());
    let stranger = Host::new(9, [99], world.now);
    let refused = world.step(Input::NodeReported(stranger.report(world.now)));
    assert_eq!(refusals(&refused), [Reason::UnknownNode(node_id(9))]);
}

#[test]
fn a_join_said_twice_is_a_join() {
    let mut world = four();
    let epoch = world.map().epoch;
    let (facts, clock_ms) = (world.hosts[0].facts.clone(), world.now);
    let again = Input::NodeJoined { node: node_id(0), facts, clock_ms, protocol: 1 };
    assert_eq!(refusals(&world.step(again)), []);
    assert_eq!(world.map().epoch, epoch);
}

#[test]
fn two_hosts_with_one_identity_are_both_named() {
    let mut world = four();
    let mut copy = world.hosts[1].clone();
    copy.started_ms = world.now + 6_000;
    copy.facts.peer_addr = "10.9.9.9:7000".into();
    world.run_s(10);
    world.hosts.push(copy);
    world.run_s(1);
    assert_eq!(world.heard("node-refused"), 0, "a restart looks like this");
    let refused = world.step(Input::NodeReported(world.hosts[1].report(world.now)));
    let (here, there) = ("10.9.9.9:7000".to_owned(), "10.0.0.1:7000".to_owned());
    assert_eq!(refusals(&refused), [Reason::CopiedIdentity { node: node_id(1), here, there }]);
    world.run_s(5);
    let said: Vec<_> = world.events.iter().filter(|event| event.kind == "node-refused").collect();
    assert_eq!((said.len(), said[0].severity), (1, Severity::Critical));
    // The copy is switched off: after an expiry the true one counts again.
    world.hosts.pop();
    world.run_s(12);
    assert_eq!(world.node_state(1), NodeState::Up);
    world.run_s(60);
    assert_eq!(world.risks(), Vec::<String>::new());
}

#[test]
fn a_device_that_is_carried_to_another_node_is_known_there() {
    let mut world = four();
    let (epoch, groups) = (world.map().epoch, world.map().groups.clone());
    // The new node sees it before the old one misses it.
    let carried = world.hosts[0].disks[0].clone();
    world.hosts[1].disks.push(carried);
    world.now += 100;
    let report = world.hosts[1].report(world.now);
    world.step(Input::NodeReported(report));
    world.step(Input::Tick);
    assert_eq!(world.map().device(device_id(0)).expect("known").1.node, 0);
    world.hosts[0].disks.remove(0);
    world.run_s(1);
    assert_eq!(world.map().device(device_id(0)).expect("known").1.node, 1);
    assert_eq!(world.map().epoch, epoch + 1);
    assert_eq!(world.map().groups, groups);
    assert_eq!((world.heard("device-moved"), world.heard("device-copied")), (1, 0));
}

#[test]
fn the_disks_of_a_dead_node_are_known_in_another() {
    let mut world = four();
    let disks = world.hosts[2].disks.clone();
    world.hosts[2].alive = false;
    world.run_s(12);
    world.join(4, []);
    world.hosts[4].disks = disks;
    world.run_s(2);
    for n in [4, 5] {
        assert_eq!(world.map().device(device_id(n)).expect("known").1.node, 4);
        assert_eq!(world.device_state(n), DeviceState::Healthy);
    }
    assert!(world.status().groups_missing[1..].iter().all(|groups| *groups == 0));
}

#[test]
fn the_disks_of_a_node_that_died_while_it_was_held_back_are_known_in_another() {
    let mut world = four();
    for _ in 0..3 {
        world.hosts[2].alive = false;
        world.run_s(11);
        world.hosts[2].alive = true;
        world.run_s(3);
    }
    assert_eq!(world.node_state(2), NodeState::Down, "held back");
    world.hosts[2].alive = false;
    let disks = world.hosts[2].disks.clone();
    world.hosts[3].disks.extend(disks);
    world.run_s(11);
    assert_eq!(world.map().device(device_id(4)).expect("known").1.node, 3);
    assert_eq!(world.risks().iter().filter(|risk| risk.contains("copy")).count(), 0);
}

#[test]
fn a_copied_label_changes_nothing_and_both_are_named() {
    let mut world = four();
    let epoch = world.map().epoch;
    let copy = world.hosts[0].disks[0].clone();
    world.hosts[1].disks.push(copy);
    world.run_s(30);
    assert_eq!(world.map().epoch, epoch);
    assert_eq!(world.heard("device-copied"), 1);
    let risk = format!(
        "device {} is a copy, for 28 s: its label is in node n0 ({}) and node n1 ({})",
        device_id(0),
        node_id(0),
        node_id(1)
    );
    assert_eq!(world.risks(), [risk]);
    // Neither changes: not even when one says that it failed.
    world.hosts[0].disk(device_id(0)).failed = true;
    world.run_s(5);
    assert_eq!(world.device_state(0), DeviceState::Healthy);
    world.hosts[0].disk(device_id(0)).failed = false;
    // An operator says which is the true one; the other is ignored until it is gone.
    assert_eq!(refusals(&world.step(Input::ClaimDevice { device: device_id(0), node: node_id(1) })), []);
    world.run_s(5);
    assert_eq!(world.map().device(device_id(0)).expect("known").1.node, 1);
    assert!(world.device(0).pinned);
    assert_eq!(world.risks(), Vec::<String>::new());
    world.change_leader();
    world.run_s(15);
    assert_eq!(world.map().device(device_id(0)).expect("known").1.node, 1);
    world.hosts[0].disks.remove(0);
    world.run_s(2);
    assert!(!world.device(0).pinned, "no copy, no pin");
}

#[test]
fn a_new_label_in_two_places_is_in_neither() {
    let mut world = four();
    world.hosts[0].disks.push(disk(50));
    world.hosts[1].disks.push(disk(50));
    world.hosts[2].disks.extend([disk(51), disk(51)]);
    world.run_s(10);
    assert!(world.map().device(device_id(50)).is_none());
    assert!(world.map().device(device_id(51)).is_none());
    assert_eq!(world.heard("device-copied"), 2);
    assert!(world.risks().iter().any(|risk| risk.contains("two slots of node n2")), "{:?}", world.risks());
    world.hosts[0].disks.pop();
    world.hosts[2].disks.pop();
    world.run_s(5);
    assert_eq!(world.map().device(device_id(50)).expect("in").1.node, 1);
    assert_eq!(world.map().device(device_id(51)).expect("in").1.node, 2);
}

#[test]
fn a_device_of_another_cluster_never_gets_in() {
    let mut world = four();
    let other = ClusterId([0xee; 16]);
    let mut foreign = disk(60);
    foreign.cluster = other;
    world.hosts[3].disks.push(foreign);
    world.run_s(10);
    assert!(world.map().device(device_id(60)).is_none());
    assert_eq!(world.heard("device-refused"), 1, "said once");
    let claim = world.step(Input::ClaimDevice { device: device_id(60), node: node_id(3) });
    assert_eq!(refusals(&claim), [Reason::NotThere { device: device_id(60), node: node_id(3) }]);
    let report = world.hosts[3].report(world.now);
    let refused = world.step(Input::NodeReported(report));
    assert_eq!(refusals(&refused), [Reason::ForeignDevice { device: device_id(60), cluster: other, node: node_id(3) }]);
    assert_ne!(other, CLUSTER);
}

#[test]
fn devices_wait_for_an_operator_where_that_is_the_rule() {
    let limits = Limits { auto_claim: false, ..Limits::default() };
    let mut world = World::created(policy(1, 1, Level::Device, 1), limits);
    world.join(0, [0, 1]);
    world.run_s(10);
    assert!(world.map().devices.is_empty());
    assert!(world.doing().contains(&"2 new devices wait to be claimed".to_owned()), "{:?}", world.doing());
    for n in [0, 1] {
        assert_eq!(refusals(&world.step(Input::ClaimDevice { device: device_id(n), node: node_id(0) })), []);
    }
    world.run_s(5);
    assert_eq!(world.map().devices.len(), 2);
    assert!(!world.map().groups.is_empty());
}

#[test]
fn a_new_leader_hears_the_owner_before_it_believes_a_copy() {
    let mut world = four();
    let copy = world.hosts[0].disks[0].clone();
    world.hosts[1].disks.push(copy);
    world.change_leader();
    world.hosts[0].alive = false;
    world.run_s(3);
    assert_eq!(world.map().device(device_id(0)).expect("known").1.node, 0, "the owner has not spoken yet");
    world.hosts[0].alive = true;
    world.run_s(3);
    assert_eq!(world.map().device(device_id(0)).expect("known").1.node, 0);
    assert_eq!(world.heard("device-copied"), 1);
    // Silent for good: then it is believed.
    world.change_leader();
    world.hosts[0].alive = false;
    world.run_s(12);
    assert_eq!(world.map().device(device_id(0)).expect("known").1.node, 1);
}
