//! Every order of a small world: three nodes that join, report, fall silent, are drained, removed and kept, under the
//! laws of `world` at every step.
//!
//! A third law at the end of every path: when the members report again for a while, all that was not removed is up and
//! trusted, and what an operator asked stands.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use membership::{Input, Limits, Row};
use placement::map::{DeviceState, Level, NodeState};

use crate::world::{Host, TICK_MS, World, device_id, node_id, policy};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Join(usize),
    Report(usize),
    Tick,
    Drain(usize),
    Undrain(usize),
    Remove(usize, bool),
    DrainDevice(usize),
    UndrainDevice(usize),
    RemoveDevice(usize, bool),
    Leader,
}

/// Two silent ticks take a node down; one good one brings a device back.
fn limits() -> Limits {
    Limits {
        report_ms: 500,
        expiry_ms: 2_000,
        admit_ms: 0,
        settle_ms: 0,
        recover_ms: TICK_MS,
        return_ms: TICK_MS,
        flap_ms: 3 * TICK_MS,
        ..Limits::default()
    }
}

/// The first has the two disks that a journal needs.
fn hosts(now: u64) -> Vec<Host> {
    vec![Host::new(0, [0, 1], now), Host::new(1, [2], now), Host::new(2, [3], now)]
}

fn acts(world: &World, joins_only: bool) -> Vec<Act> {
    let map = world.map();
    let mut acts = vec![Act::Tick];
    for n in 0..world.hosts.len() {
        let Some((_, node)) = map.node(node_id(n)) else {
            acts.push(Act::Join(n));
            continue;
        };
        if node.state == NodeState::Removed {
            continue;
        }
        acts.push(Act::Report(n));
        if joins_only {
            continue;
        }
        acts.extend([Act::Drain(n), Act::Undrain(n), Act::Remove(n, false), Act::Remove(n, true)]);
        let device = [0, 2, 3][n];
        if map.device(device_id(device)).is_some_and(|(_, device)| device.state != DeviceState::Removed) {
            acts.extend([Act::DrainDevice(device), Act::UndrainDevice(device)]);
            acts.extend([Act::RemoveDevice(device, false), Act::RemoveDevice(device, true)]);
        }
    }
    acts.push(Act::Leader);
    acts
}

fn act(world: &mut World, act: Act) {
    let input = match act {
        Act::Join(n) => {
            let (facts, clock_ms) = (world.hosts[n].facts.clone(), world.now);
            Input::NodeJoined { node: node_id(n), facts, clock_ms, protocol: 1 }
        }
        Act::Report(n) => Input::NodeReported(world.hosts[n].report(world.now)),
        Act::Tick => {
            world.now += TICK_MS;
            Input::Tick
        }
        Act::Drain(n) => Input::DrainNode(node_id(n)),
        Act::Undrain(n) => Input::UndrainNode(node_id(n)),
        Act::Remove(n, force) => Input::RemoveNode { node: node_id(n), force },
        Act::DrainDevice(n) => Input::DrainDevice(device_id(n)),
        Act::UndrainDevice(n) => Input::UndrainDevice(device_id(n)),
        Act::RemoveDevice(n, force) => Input::RemoveDevice { device: device_id(n), force },
        Act::Leader => return world.change_leader(),
    };
    world.step(input);
    world.events.clear();
}

fn mark(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{:?}", world.machine).hash(&mut hasher);
    hasher.finish()
}

/// All members report for ten seconds.
fn calm(world: &World, path: &[Act]) {
    let mut world = world.clone();
    let drained = |world: &World| {
        let rows = world.machine.rows().into_iter();
        let asked = rows.filter_map(|row| match row {
            Row::Node(row) => Some((row.id.0, row.draining)),
            Row::Device(row) => Some((row.id.0, row.drain.is_some())),
            _ => None,
        });
        asked.collect::<Vec<_>>()
    };
    let before = drained(&world);
    for host in 0..world.hosts.len() {
        world.hosts[host].alive =
            world.map().node(node_id(host)).is_some_and(|(_, node)| node.state != NodeState::Removed);
    }
    world.run_s(10);
    let map = world.map();
    for node in &map.nodes {
        assert!(node.state != NodeState::Down, "{path:?}: {node:?}");
    }
    for device in &map.devices {
        let member = map.nodes[device.node as usize].state != NodeState::Removed;
        assert!(!member || device.state != DeviceState::Suspect, "{path:?}: {device:?}");
    }
    let after = drained(&world);
    assert!(before.iter().all(|asked| after.contains(asked)), "{path:?}: {before:?} {after:?}");
}

/// Breadth first to a depth; gives the number of states.
fn walk(start: World, depth: usize, joins_only: bool) -> usize {
    let mut seen = HashSet::from([mark(&start)]);
    let mut front = vec![(start, Vec::new())];
    for _ in 0..depth {
        let mut next = Vec::new();
        for (world, path) in front {
            for choice in acts(&world, joins_only) {
                let mut path: Vec<Act> = path.clone();
                path.push(choice);
                let before = &world.machine;
                let mut world = world.clone();
                let stepped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(&mut world, choice)));
                assert!(stepped.is_ok(), "after {path:?}");
                if world.machine != *before && seen.insert(mark(&world)) {
                    next.push((world, path));
                }
            }
        }
        front = next;
    }
    front.iter().step_by(29).for_each(|(world, path)| calm(world, path));
    seen.len()
}

#[test]
fn every_order_of_joins_and_reports() {
    let mut world = World::created(policy(1, 1, Level::Node, 1), limits());
    world.hosts = hosts(world.now);
    let states = walk(world, 7, true);
    println!("{states} states");
    assert!(states > 1_000, "{states}");
}

#[test]
fn every_order_of_reports_silence_and_verbs() {
    let mut world = World::created(policy(1, 1, Level::Node, 1), limits());
    world.hosts = hosts(world.now);
    (0..3).for_each(|n| act(&mut world, Act::Join(n)));
    world.run_s(4);
    assert!(!world.map().groups.is_empty(), "{:?}", world.status().doing);
    let states = walk(world, 5, false);
    println!("{states} states");
    assert!(states > 1_000, "{states}");
}
