//! A large rack: bounds on what one step changes hold while hundreds of hosts come, go and return.

use membership::{Input, Limits};
use placement::map::Level;

use crate::world::{TICK_MS, World, node_id, policy};

#[test]
fn hundreds_of_hosts_come_fail_and_return_in_bounded_steps() {
    let mut world = World::created(policy(8, 3, Level::Node, 1), Limits::default());
    (0..200).for_each(|n| world.join(n, n * 24..(n + 1) * 24));
    // The laws of every step are costly here; the machine's own bounds are what counts.
    let run = |world: &mut World, seconds: u64| {
        let (mut most, mut rows) = (0, 0);
        for _ in 0..seconds {
            world.now += TICK_MS;
            for host in world.hosts.iter().filter(|host| host.alive) {
                world.machine.step(world.now, Input::NodeReported(host.report(world.now)));
            }
            let outputs = world.machine.step(world.now, Input::Tick);
            if let Some(membership::Output::RowsChanged { rows: changed, .. }) = outputs.first() {
                most = most.max(changed.len());
                rows += changed.len();
            }
        }
        (most, rows)
    };
    let (most, rows) = run(&mut world, 90);
    assert!(most <= membership::limits::ROWS_PER_STEP_MAX, "{most}");
    assert!(rows > 4_800);
    let status = world.status();
    assert_eq!((status.devices, status.devices_healthy), (4_800, 4_800));
    assert_eq!(status.doing, []);
    let epoch = world.map().epoch;
    for host in &mut world.hosts[..100] {
        host.alive = false;
    }
    run(&mut world, 20);
    assert_eq!(world.status().nodes_up, 100);
    for host in &mut world.hosts[..100] {
        host.alive = true;
    }
    run(&mut world, 10);
    assert_eq!(world.status().nodes_up, 200);
    assert!(world.map().epoch - epoch <= 10, "a hundred hosts, few epochs: {}", world.map().epoch - epoch);
    let loaded = membership::Membership::load(world.machine.rows(), world.now).expect("rows");
    assert_eq!(loaded.map(), world.machine.map());
    assert_eq!(loaded.nodes(world.now)[7].node, node_id(7));
}
