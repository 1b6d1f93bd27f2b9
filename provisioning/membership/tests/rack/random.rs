//! Random histories against the laws of `world`, and two of their own: the order in which nodes report does not
//! matter, and a change of leader at any moment loses nothing that was stored.

use membership::{Input, Limits, Row};
use placement::map::Level;
use proptest::prelude::*;

use crate::world::{Host, World, device_id, disk, node_id, policy};

/// What happens to the rack, with numbers that are taken modulo what there is.
#[derive(Debug, Clone)]
enum Deed {
    Seconds(u8),
    /// All report in this order, then a tick.
    Round(u64),
    Join,
    Kill(usize),
    Revive(usize),
    Restart(usize),
    Clock(usize, i64),
    Protocol(usize, u32),
    AddDisk(usize),
    Pull(usize, usize),
    /// A disk goes from one host to another, or a copy of it does.
    Carry(usize, usize, usize, bool),
    Spoil(usize, usize, Spoil),
    Rename(usize),
    DrainNode(usize),
    UndrainNode(usize),
    RemoveNode(usize, bool),
    DrainDevice(usize),
    UndrainDevice(usize),
    RemoveDevice(usize, bool),
    Claim(usize, usize),
    Pause(u32),
    Leader,
}

#[derive(Debug, Clone)]
enum Spoil {
    Failed(bool),
    Slow(bool),
    Errors(u64),
    Available(u64),
    Capacity(u64),
    Foreign,
}

fn spoil() -> impl Strategy<Value = Spoil> {
    prop_oneof![
        any::<bool>().prop_map(Spoil::Failed),
        any::<bool>().prop_map(Spoil::Slow),
        (0..40u64).prop_map(Spoil::Errors),
        (0..100u64).prop_map(Spoil::Available),
        (1..4u64).prop_map(Spoil::Capacity),
        Just(Spoil::Foreign),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    let n = 0..64usize;
    prop_oneof![
        6 => (1..40u8).prop_map(Deed::Seconds),
        4 => any::<u64>().prop_map(Deed::Round),
        2 => Just(Deed::Join),
        2 => n.clone().prop_map(Deed::Kill),
        3 => n.clone().prop_map(Deed::Revive),
        1 => n.clone().prop_map(Deed::Restart),
        1 => (n.clone(), -5_000..5_000i64).prop_map(|(n, ahead)| Deed::Clock(n, ahead)),
        1 => (n.clone(), 0..3u32).prop_map(|(n, spoken)| Deed::Protocol(n, spoken)),
        2 => n.clone().prop_map(Deed::AddDisk),
        1 => (n.clone(), n.clone()).prop_map(|(n, d)| Deed::Pull(n, d)),
        2 => (n.clone(), n.clone(), n.clone(), any::<bool>()).prop_map(|(a, d, b, copy)| Deed::Carry(a, d, b, copy)),
        3 => (n.clone(), n.clone(), spoil()).prop_map(|(n, d, spoil)| Deed::Spoil(n, d, spoil)),
        1 => n.clone().prop_map(Deed::Rename),
        2 => n.clone().prop_map(Deed::DrainNode),
        2 => n.clone().prop_map(Deed::UndrainNode),
        1 => (n.clone(), any::<bool>()).prop_map(|(n, force)| Deed::RemoveNode(n, force)),
        3 => n.clone().prop_map(Deed::DrainDevice),
        2 => n.clone().prop_map(Deed::UndrainDevice),
        2 => (n.clone(), any::<bool>()).prop_map(|(d, force)| Deed::RemoveDevice(d, force)),
        2 => (n.clone(), n).prop_map(|(d, n)| Deed::Claim(d, n)),
        1 => (0..100_000u32).prop_map(Deed::Pause),
        1 => Just(Deed::Leader),
    ]
}

fn act(world: &mut World, deed: Deed) {
    let hosts = world.hosts.len();
    let known = |world: &World, d: usize| {
        let devices = &world.map().devices;
        devices.get(d % devices.len().max(1)).map_or(device_id(d), |device| device.id)
    };
    match deed {
        Deed::Seconds(n) => world.run_s(u64::from(n)),
        Deed::Round(seed) => round(world, seed),
        Deed::Join => {
            let disks: Vec<usize> = (0..2).map(|at| 3_000 + hosts * 10 + at).collect();
            world.join(hosts, disks);
        }
        Deed::Kill(n) => world.hosts[n % hosts].alive = false,
        Deed::Revive(n) => {
            let host = &mut world.hosts[n % hosts];
            (host.alive, host.clock_ahead_ms, host.protocol) = (true, 0, 1);
        }
        Deed::Restart(n) => world.hosts[n % hosts].started_ms = world.now,
        Deed::Clock(n, ahead) => world.hosts[n % hosts].clock_ahead_ms = ahead,
        Deed::Protocol(n, spoken) => world.hosts[n % hosts].protocol = spoken,
        Deed::AddDisk(n) => {
            let new = 5_000 + world.now as usize % 1_000_000;
            world.hosts[n % hosts].disks.push(disk(new));
        }
        Deed::Pull(n, d) => {
            let disks = &mut world.hosts[n % hosts].disks;
            if !disks.is_empty() {
                disks.remove(d % disks.len());
            }
        }
        Deed::Carry(from, d, to, copy) => carry(world, from % hosts, d, to % hosts, copy),
        Deed::Spoil(n, d, spoil) => {
            let disks = &mut world.hosts[n % hosts].disks;
            if !disks.is_empty() {
                let at = d % disks.len();
                apply(&mut disks[at], spoil);
            }
        }
        Deed::Rename(n) => world.hosts[n % hosts].facts.rack = "elsewhere".into(),
        Deed::DrainNode(n) => drop(world.step(Input::DrainNode(node_id(n % hosts)))),
        Deed::UndrainNode(n) => drop(world.step(Input::UndrainNode(node_id(n % hosts)))),
        Deed::RemoveNode(n, force) => drop(world.step(Input::RemoveNode { node: node_id(n % hosts), force })),
        Deed::DrainDevice(d) => drop(world.step(Input::DrainDevice(known(world, d)))),
        Deed::UndrainDevice(d) => drop(world.step(Input::UndrainDevice(known(world, d)))),
        Deed::RemoveDevice(d, force) => drop(world.step(Input::RemoveDevice { device: known(world, d), force })),
        Deed::Claim(d, n) => {
            drop(world.step(Input::ClaimDevice { device: known(world, d), node: node_id(n % hosts) }));
        }
        Deed::Pause(ms) => world.now += u64::from(ms),
        Deed::Leader => world.change_leader(),
    }
}

fn carry(world: &mut World, from: usize, d: usize, to: usize, copy: bool) {
    let disks = &mut world.hosts[from].disks;
    if !disks.is_empty() {
        let at = d % disks.len();
        let moved = if copy { disks[at].clone() } else { disks.remove(at) };
        world.hosts[to].disks.push(moved);
    }
}

fn apply(disk: &mut membership::DeviceFacts, spoil: Spoil) {
    match spoil {
        Spoil::Failed(failed) => disk.failed = failed,
        Spoil::Slow(slow) => disk.slow = slow,
        Spoil::Errors(errors) => disk.device_errors = errors,
        Spoil::Available(percent) => disk.available_bytes = disk.capacity_bytes / 100 * percent,
        Spoil::Capacity(times) => disk.capacity_bytes = times << 40,
        Spoil::Foreign => disk.cluster = base::ClusterId([0xee; 16]),
    }
}

/// All report, in this order and in the order of their numbers: the machines are the same after it.
fn round(world: &mut World, seed: u64) {
    world.now += 500;
    let mut order: Vec<Host> = world.hosts.iter().filter(|host| host.alive).cloned().collect();
    let mut other = world.clone();
    let mut state = seed | 1;
    for at in (1..order.len()).rev() {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        order.swap(at, (state >> 33) as usize % (at + 1));
    }
    for host in &order {
        world.step(Input::NodeReported(host.report(world.now)));
    }
    other.report_all();
    assert_eq!(world.machine, other.machine, "the order of reports matters");
    world.step(Input::Tick);
    other.step(Input::Tick);
    assert_eq!(world.machine, other.machine, "the order of reports matters");
}

/// Rows in place of rows: what the store lost or mixed up is noticed.
fn check_store(world: &World) {
    let rows = world.machine.rows();
    for at in 0..rows.len() {
        let mut fewer = rows.clone();
        fewer.remove(at);
        assert!(membership::Membership::load(fewer, world.now).is_err(), "{:?} is missing", rows[at].key());
    }
    for row in &rows {
        let bytes = row.encode();
        assert_eq!(Row::decode(&row.key().path(), &bytes).as_ref(), Ok(row));
        assert!(Row::decode("node/ffffffff", &bytes).is_err());
        assert!((0..bytes.len()).all(|cut| Row::decode(&row.key().path(), &bytes[..cut]).is_err()));
    }
    let loaded = membership::Membership::load(rows.clone(), world.now).expect("its own rows");
    assert_eq!(loaded.rows(), rows);
    assert_eq!(loaded.map(), world.machine.map());
}

/// Short ones, so that much happens in a history.
fn limits() -> Limits {
    Limits { evacuate_ms: 60_000, recover_ms: 8_000, ..Limits::default() }
}

fn history(k: u8, m: u8, level: Level, spread: u8, hosts: usize, deeds: Vec<Deed>) {
    let mut world = World::created(policy(k, m, level, spread), limits());
    (0..hosts).for_each(|n| world.join(n, [4 * n, 4 * n + 1, 4 * n + 2]));
    world.run_s(6);
    for deed in deeds {
        act(&mut world, deed);
        let status = world.status();
        assert_eq!(status.groups_missing.iter().sum::<u32>(), status.groups);
    }
    check_store(&world);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, max_shrink_iters: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rack_over_nodes_keeps_the_laws(deeds in proptest::collection::vec(deed(), 1..60)) {
        history(2, 1, Level::Node, 1, 4, deeds);
    }

    #[test]
    fn a_small_rack_with_two_slots_on_a_node_keeps_the_laws(deeds in proptest::collection::vec(deed(), 1..60)) {
        history(4, 2, Level::Node, 2, 3, deeds);
    }

    #[test]
    fn a_rack_over_racks_keeps_the_laws(deeds in proptest::collection::vec(deed(), 1..40)) {
        history(3, 2, Level::Rack, 1, 6, deeds);
    }
}

/// The histories reach what they are for: every kind of event comes up in a fixed lot of them.
#[test]
fn random_histories_reach_the_rare_paths() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    use std::collections::BTreeSet;

    let mut runner = TestRunner::deterministic();
    let mut kinds = BTreeSet::new();
    for _ in 0..40 {
        let deeds = proptest::collection::vec(deed(), 40..60).new_tree(&mut runner).expect("deeds").current();
        let mut world = World::created(policy(2, 1, Level::Node, 1), limits());
        (0..4).for_each(|n| world.join(n, [4 * n, 4 * n + 1, 4 * n + 2]));
        world.run_s(6);
        deeds.into_iter().for_each(|deed| act(&mut world, deed));
        kinds.extend(world.events.iter().map(|event| event.kind));
    }
    let rare = [
        "device-admitted",
        "device-claimed",
        "device-copied",
        "device-draining",
        "device-moved",
        "device-refused",
        "device-removed",
        "device-suspect",
        "device-trusted",
        "device-undrained",
        "device-unfit",
        "formed",
        "growing",
        "moves-planned",
        "moves-stuck",
        "node-down",
        "node-draining",
        "node-refused",
        "node-removed",
        "node-undrained",
        "node-up",
        "partition-back",
        "partition-stays",
        "partition-waits",
    ];
    let missed: Vec<_> = rare.iter().filter(|kind| !kinds.contains(*kind)).collect();
    assert!(missed.is_empty(), "{missed:?}");
}
