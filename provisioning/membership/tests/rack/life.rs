//! Forming, growing, silence and return, how devices do: in words.

use membership::{Cause, Drain, Input, Limits, Membership, Output, Reason, Severity};
use placement::map::{DeviceState, Level, NodeState};

use crate::world::{TIB, World, device_id, disk, node_id, policy, refusals};

fn two_plus_one() -> World {
    World::formed(policy(2, 1, Level::Node, 1), 4, 2)
}

#[test]
fn nothing_is_done_before_there_is_a_cluster() {
    let mut world = World::empty();
    assert_eq!(refusals(&world.step(Input::Tick)), [Reason::NoCluster]);
    let bad = Input::ClusterCreated {
        cluster: crate::world::CLUSTER,
        policy: policy(4, 2, Level::Node, 3),
        limits: Limits::default(),
    };
    assert!(matches!(refusals(&world.step(bad))[..], [Reason::Policy(_)]));
    assert_eq!(Membership::load([], 0), Ok(Membership::new()));
}

#[test]
fn a_cluster_says_what_it_waits_for_and_forms_when_it_is_there() {
    let mut world = World::created(policy(4, 2, Level::Node, 2), Limits::default());
    world.join(0, [0, 1]);
    world.join(1, [2, 3, 4]);
    world.run_s(8);
    assert_eq!(world.doing(), ["waiting to form: 5 of 6 devices in 2 of 3 nodes"]);
    world.hosts[0].disks.push(disk(5));
    world.run_s(8);
    assert_eq!(world.doing(), ["waiting to form: 6 of 6 devices in 2 of 3 nodes"]);
    world.join(2, [6]);
    world.run_s(2);
    assert_eq!(
        world.doing(),
        ["waiting to form: 6 of 6 devices in 3 of 3 nodes, with room for 5 of the 6 slots of a group"]
    );
    world.hosts[2].disks.push(disk(7));
    world.run_s(3);
    assert_eq!(world.doing(), ["waiting to form: devices may still be joining"]);
    world.run_s(5);
    assert_eq!(world.doing(), Vec::<String>::new());
    assert_eq!(world.map().partitions[0].chain.len(), 1);
    assert_eq!(world.heard("formed"), 1);
}

#[test]
fn a_cluster_waits_for_a_node_that_can_keep_a_journal() {
    let mut world = World::created(policy(2, 1, Level::Node, 1), Limits::default());
    (0..4).for_each(|n| world.join(n, [n]));
    world.run_s(8);
    let waits = "waiting to form: 3 of 3 devices in 3 of 3 nodes, no node with the 2 devices that a journal needs";
    assert_eq!(world.doing(), [waits]);
    world.hosts[3].disks.push(disk(9));
    world.run_s(8);
    assert_eq!(world.map().partitions[0].chain, [3]);
}

#[test]
fn a_partition_goes_where_the_room_is() {
    let mut world = World::created(policy(2, 1, Level::Node, 1), Limits::default());
    (0..4).for_each(|n| world.join(n, [2 * n, 2 * n + 1]));
    for disk in &mut world.hosts[2].disks {
        disk.capacity_bytes = 2 * TIB;
        disk.available_bytes = 2 * TIB;
    }
    world.run_s(8);
    assert_eq!(world.map().partitions[0].chain, [2]);
}

#[test]
fn a_silent_node_is_down_and_back_at_its_next_report() {
    let mut world = two_plus_one();
    let head = world.map().partitions[0].chain[0] as usize;
    let other = (head + 1) % 4;
    let epoch = world.map().epoch;
    world.hosts[other].alive = false;
    world.run_s(9);
    assert_eq!((world.node_state(other), world.map().epoch), (NodeState::Up, epoch));
    world.run_s(1);
    assert_eq!((world.node_state(other), world.map().epoch), (NodeState::Down, epoch + 1));
    assert_eq!(world.heard("partition-waits"), 0);
    assert!(
        world.risks().iter().any(|risk| risk.ends_with("misses 1 of its 1 tolerated slots")),
        "{:?}",
        world.risks()
    );
    let silent = format!("node n{other} ({}) is down: silent for 10 s", node_id(other));
    assert!(world.risks().contains(&silent), "{:?}", world.risks());
    world.hosts[other].alive = true;
    world.run_s(1);
    assert_eq!((world.node_state(other), world.map().epoch), (NodeState::Up, epoch + 2));
    assert_eq!(world.risks(), Vec::<String>::new());
}

#[test]
fn the_loss_of_a_partitions_only_node_is_said_aloud() {
    let mut world = two_plus_one();
    let head = world.map().partitions[0].chain[0] as usize;
    world.hosts[head].alive = false;
    world.run_s(20);
    let event = world.events.iter().find(|event| event.kind == "partition-waits").expect("said");
    assert_eq!((event.severity, event.node), (Severity::Critical, Some(node_id(head))));
    assert!(world.risks()[0].starts_with("partition 0 waits for node"), "{:?}", world.risks());
    world.hosts[head].alive = true;
    world.run_s(1);
    assert_eq!(world.heard("partition-back"), 1);
}

#[test]
fn a_node_that_flaps_makes_few_epochs() {
    let mut world = two_plus_one();
    let epoch = world.map().epoch;
    // Eleven seconds of silence, three of life: ten minutes of it.
    for _ in 0..43 {
        world.hosts[1].alive = false;
        world.run_s(11);
        world.hosts[1].alive = true;
        world.run_s(3);
    }
    assert!(world.map().epoch - epoch <= 4, "{} epochs", world.map().epoch - epoch);
    assert_eq!(world.node_state(1), NodeState::Down);
    assert!(world.doing().iter().any(|doing| doing.contains("held back")), "{:?}", world.doing());
    world.run_s(10);
    assert_eq!(world.node_state(1), NodeState::Up, "steady, it is trusted");
}

#[test]
fn our_own_silence_is_not_held_against_nodes() {
    let mut world = two_plus_one();
    let epoch = world.map().epoch;
    world.now += 3_600_000;
    world.step(Input::Tick);
    world.run_s(1);
    world.now += 60_000;
    world.change_leader();
    world.step(Input::Tick);
    assert_eq!(world.map().epoch, epoch);
    // Nor for ever: who stays silent after it is down.
    world.hosts[2].alive = false;
    world.run_s(12);
    assert_eq!(world.node_state(2), NodeState::Down);
}

#[test]
fn a_clock_that_is_set_back_stops_nothing() {
    let mut world = two_plus_one();
    world.now -= 3_600_000;
    world.hosts.iter_mut().for_each(|host| host.started_ms -= 3_600_000);
    world.hosts[2].alive = false;
    world.run_s(9);
    assert_eq!((world.node_state(2), world.heard("node-refused")), (NodeState::Up, 0));
    world.run_s(2);
    assert_eq!(world.node_state(2), NodeState::Down);
    assert_eq!([0, 1, 3].map(|n| world.node_state(n)), [NodeState::Up; 3]);
    assert_eq!(world.machine.nodes(world.now)[0].seen_ms_ago, 0);
}

#[test]
fn a_new_leader_knows_what_the_old_one_knew() {
    let mut world = two_plus_one();
    world.hosts[1].alive = false;
    world.hosts[2].disks[0].failed = true;
    world.step(Input::DrainDevice(device_id(7)));
    world.run_s(15);
    let risks = world.risks();
    world.change_leader();
    world.report_all();
    world.step(Input::Tick);
    assert_eq!(world.risks(), risks);
}

#[test]
fn new_devices_get_groups_at_once_and_moves_on_paper() {
    let mut world = two_plus_one();
    let before = world.map().groups.len();
    for n in 4..8 {
        world.join(n, [2 * n, 2 * n + 1]);
    }
    world.run_s(8);
    let map = world.map();
    assert!(map.groups.len() > before);
    for place in 8..16 {
        assert!(map.groups.iter().any(|group| group.slots.contains(&place)), "device {place} is unused");
    }
    let held =
        |place: u32| map.groups[..before].iter().flat_map(|group| &group.slots).filter(|slot| **slot == place).count();
    assert!((8..16).all(|place| held(place) == 0), "older groups stay as they are");
    world.run_s(2);
    let epoch = world.map().epoch;
    world.change_leader();
    world.run_s(20);
    assert_eq!(world.map().epoch, epoch, "a plan is made once");
}

#[test]
fn a_drained_devices_slots_are_planned_elsewhere() {
    let mut world = two_plus_one();
    let outputs = world.step(Input::DrainDevice(device_id(0)));
    assert_eq!(refusals(&outputs), []);
    world.run_s(2);
    let slots = world.machine.devices()[world.device(0).place as usize].groups;
    assert!(slots > 0);
    let doing = world.doing();
    assert!(
        doing.contains(&format!("no new data on device {}: {slots} slots are still on it", device_id(0))),
        "{doing:?}"
    );
    assert!(doing.iter().any(|doing| doing.ends_with("moves of slots are planned")), "{doing:?}");
    world.step(Input::UndrainDevice(device_id(0)));
    world.run_s(2);
    assert_eq!(world.doing(), Vec::<String>::new(), "and the plan is dropped when it is undone");
}

#[test]
fn a_failed_device_is_suspect_at_once_and_trusted_late() {
    let mut world = two_plus_one();
    world.hosts[1].disk(device_id(3)).failed = true;
    world.run_s(1);
    assert_eq!(world.device_state(3), DeviceState::Suspect);
    world.hosts[1].disk(device_id(3)).failed = false;
    world.run_s(29);
    assert_eq!(world.device_state(3), DeviceState::Suspect);
    world.run_s(2);
    assert_eq!(world.device_state(3), DeviceState::Healthy);
}

#[test]
fn a_missing_device_is_known_again_in_another_slot() {
    let mut world = two_plus_one();
    let pulled = world.hosts[1].disks.pop().expect("a disk");
    world.run_s(1);
    assert_eq!(world.device(3).suspicion.map(|suspicion| suspicion.cause), Some(Cause::Missing));
    let mut back = pulled;
    back.identity.path = "/dev/elsewhere".into();
    world.hosts[1].disks.insert(0, back);
    world.run_s(5);
    assert_eq!(world.device_state(3), DeviceState::Suspect);
    world.run_s(1);
    assert_eq!(world.device_state(3), DeviceState::Healthy);
    assert_eq!(world.device(3).identity.path, "/dev/elsewhere");
}

#[test]
fn slowness_must_last_and_errors_must_be_new() {
    let mut world = two_plus_one();
    let epoch = world.map().epoch;
    for _ in 0..10 {
        world.hosts[1].disk(device_id(3)).slow = true;
        world.run_s(5);
        world.hosts[1].disk(device_id(3)).slow = false;
        world.run_s(2);
    }
    assert_eq!(world.map().epoch, epoch, "bursts are no fault");
    world.hosts[1].disk(device_id(3)).slow = true;
    world.run_s(11);
    assert_eq!(world.device(3).suspicion.map(|suspicion| suspicion.cause), Some(Cause::Slow));
    world.hosts[2].disk(device_id(5)).device_errors = 9;
    world.run_s(2);
    assert_eq!(world.device_state(5), DeviceState::Healthy);
    world.hosts[2].disk(device_id(5)).corrupt_found = 1;
    world.run_s(1);
    assert_eq!(world.device(5).suspicion.map(|suspicion| suspicion.cause), Some(Cause::Errors));
    world.run_s(595);
    assert_eq!(world.device_state(5), DeviceState::Suspect);
    world.run_s(40);
    assert_eq!(world.device_state(5), DeviceState::Healthy);
    world.change_leader();
    world.run_s(5);
    assert_eq!(world.device_state(5), DeviceState::Healthy, "old errors are no news to a new leader");
}

#[test]
fn a_full_device_takes_no_writes_until_it_has_room() {
    let mut world = two_plus_one();
    world.hosts[1].disk(device_id(3)).available_bytes = TIB / 60;
    world.run_s(1);
    assert_eq!(world.device(3).suspicion.map(|suspicion| suspicion.cause), Some(Cause::Full));
    world.hosts[1].disk(device_id(3)).available_bytes = TIB / 30;
    world.run_s(40);
    assert_eq!(world.device_state(3), DeviceState::Suspect);
    world.hosts[1].disk(device_id(3)).available_bytes = TIB / 10;
    world.run_s(1);
    assert_eq!(world.device_state(3), DeviceState::Healthy);
}

#[test]
fn a_device_that_stays_unfit_is_drained_and_one_that_heals_is_not() {
    let mut world = two_plus_one();
    world.hosts[1].disk(device_id(3)).failed = true;
    world.run_s(1_795);
    assert_eq!(world.device_state(3), DeviceState::Suspect);
    world.run_s(10);
    assert_eq!((world.device_state(3), world.device(3).drain), (DeviceState::Draining, Some(Drain::Unfit)));
    world.hosts[1].disk(device_id(3)).failed = false;
    world.run_s(32);
    assert_eq!(world.device_state(3), DeviceState::Healthy);
    world.step(Input::DrainDevice(device_id(3)));
    world.hosts[1].disk(device_id(3)).failed = true;
    world.run_s(5);
    world.hosts[1].disk(device_id(3)).failed = false;
    world.run_s(40);
    assert_eq!(world.device_state(3), DeviceState::Draining, "what an operator asked stays");
}

#[test]
fn reports_come_often_until_there_are_groups() {
    let mut world = World::created(policy(2, 1, Level::Node, 1), Limits::default());
    (0..3).for_each(|n| world.join(n, [2 * n, 2 * n + 1]));
    let interval = |world: &mut World| {
        let report = world.hosts[0].report(world.now);
        let outputs = world.step(Input::NodeReported(report));
        outputs.iter().find_map(|output| match output {
            Output::SetReportInterval { ms, .. } => Some(*ms),
            _ => None,
        })
    };
    assert_eq!(interval(&mut world), Some(500));
    world.run_s(8);
    assert_eq!(interval(&mut world), Some(2_000));
    let limits = Limits::default();
    assert_eq!((limits.report_every_ms(10_000, true), limits.expires_after_ms(10_000)), (20_000, 80_000));
}
