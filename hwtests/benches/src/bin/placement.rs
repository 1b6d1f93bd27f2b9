//! `placement-scale`: groups of a large cluster. How long they take to make and to rebalance when a node joins and one
//! leaves, how even they are, what moves, how large the map is; and how likely lost nodes are to take data along, by
//! scatter width. One process, one thread, no I/O.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use base::{ClusterId, DeviceId, Entropy, NodeId, SeededEntropy};
use benches::table::aligned;
use clap::Parser;
use placement::choose::Chooser;
use placement::groups::{Limits, Move, PlacementError, apply, make, rebalance, violations};
use placement::health::health;
use placement::map::{ClusterMap, DeviceState, Level, MapDevice, MapNode, NodeState, Policy};

/// Nodes in one rack of the cluster that is made up.
const RACK_NODES: usize = 20;
/// Choices timed together.
const CHOICES: u64 = 1_000_000;
/// Stripes of a cluster without groups.
const STRIPES: f64 = 1e9;
/// Devices whose partners are counted.
const SAMPLE: usize = 1000;

/// Measures placement on a cluster that exists in memory alone.
#[derive(Parser)]
#[command(name = "placement-scale")]
struct Args {
    /// Nodes.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(20..))]
    nodes: u32,
    /// Devices in each.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..))]
    devices: u32,
    /// With how many others a device shares groups.
    #[arg(long, default_value_t = Limits::default().scatter_width)]
    scatter_width: u32,
    /// Devices of 8, 16 and 24 TB in turn, instead of one size.
    #[arg(long)]
    mixed: bool,
    /// How often nodes are lost, for each row of the second table; 0 leaves it out.
    #[arg(long, default_value_t = 1000)]
    losses: u32,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Args {
    /// How many nodes are lost together.
    fn lost(&self) -> Vec<u32> {
        [5, 10, 20, 50, 100].into_iter().filter(|nodes| *nodes <= self.nodes / 4).collect()
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("placement-scale: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), PlacementError> {
    let codes = [(8, 3), (4, 2)];
    println!("{} nodes x {} devices, level node, seed {}\n", args.nodes, args.devices, args.seed);
    let rows = codes.iter().map(|code| scale(args, *code)).collect::<Result<Vec<_>, _>>()?;
    let heads: Vec<&str> = rows[0].iter().map(|(head, _)| *head).collect();
    // One column for each code: there are more figures than fit side by side.
    let lines: Vec<Vec<String>> = (1..heads.len())
        .map(|at| [heads[at].to_owned()].into_iter().chain(rows.iter().map(|row| row[at].1.clone())).collect())
        .collect();
    let top: Vec<&str> = [heads[0]].into_iter().chain(rows.iter().map(|row| row[0].1.as_str())).collect();
    println!("{}", aligned(&top, &lines));
    if args.losses > 0 {
        let mut rows = Vec::new();
        for (code, widths) in [((8, 3), [100, 200, 400]), ((4, 2), [50, 100, 200])] {
            for scatter_width in widths {
                rows.push(blast(args, code, scatter_width)?);
            }
            rows.push(without_groups(args, code));
        }
        let lost: Vec<String> = args.lost().iter().map(|nodes| format!("{nodes} nodes")).collect();
        let heads: Vec<&str> =
            ["code", "scatter", "groups"].into_iter().chain(lost.iter().map(String::as_str)).collect();
        println!("{} times each, so many nodes never come back: share of times that any data is lost\n", args.losses);
        println!("{}", aligned(&heads, &rows));
    }
    Ok(())
}

/// Seconds that something took, and what it gave.
fn timed<T>(what: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = what();
    (start.elapsed().as_secs_f64(), result)
}

fn scale(args: &Args, (k, m): (u8, u8)) -> Result<Vec<(&'static str, String)>, PlacementError> {
    let mut map = cluster(args, k, m);
    let (making, groups) = timed(|| make(&map, &Limits { scatter_width: args.scatter_width }, args.seed));
    map.groups = groups?;
    let (encoding, bytes) = timed(|| map.encode());
    let (decoding, decoded) = timed(|| ClusterMap::decode(&bytes));
    assert_eq!(decoded.as_ref(), Ok(&map), "the map comes back");
    let made = evenness(&map);
    let (preparing, chooser) = timed(|| Chooser::new(&map, m - 1));
    let (choosing, ()) = timed(|| {
        for random in 0..CHOICES {
            black_box(chooser.choose(random, |device| Some(u64::from(device & 0xff)))).expect("all is healthy");
        }
    });
    let (counting, _) = timed(|| black_box(health(&map)));
    let slots = (map.groups.len() * map.policy.width()) as f64;

    add_node(&mut map, args);
    let (joining, plan) = timed(|| rebalance(&map, args.seed));
    let fair = slots * weight(&map, |node| node == args.nodes) / weight(&map, |_| true);
    let join = plan.moves.len() as f64 / fair;
    let joined = moved(&mut map, &plan.moves);
    map.nodes[0].state = NodeState::Draining;
    let on_it =
        map.groups.iter().flat_map(|group| &group.slots).filter(|d| map.devices[**d as usize].node == 0).count();
    let (leaving, plan) = timed(|| rebalance(&map, args.seed));
    assert_eq!(plan.stuck, vec![], "there is room");
    let leave = plan.moves.len() as f64 / on_it as f64;
    let left = moved(&mut map, &plan.moves);
    Ok(vec![
        ("", format!("{k}+{m}")),
        ("groups", map.groups.len().to_string()),
        ("make, s", format!("{making:.2}")),
        ("rebalance when a node joins, s", format!("{joining:.2}")),
        ("rebalance when a node leaves, s", format!("{leaving:.2}")),
        ("encoded map, MiB", format!("{:.1}", bytes.len() as f64 / f64::from(1 << 20))),
        ("encode and decode, s", format!("{:.2}, {:.2}", encoding, decoding)),
        ("max/mean slots per device: made, joined, left", format!("{made:.3}, {joined:.3}, {left:.3}")),
        ("moved/fair share: joins, leaves", format!("{join:.3}, {leave:.3}")),
        ("partners of a device: min, mean", partners(&map)),
        ("prepare the choice, s", format!("{preparing:.3}")),
        ("one choice, ns", format!("{:.0}", choosing * 1e9 / CHOICES as f64)),
        ("health, s", format!("{counting:.3}")),
    ])
}

fn cluster(args: &Args, data_shards: u8, parity_shards: u8) -> ClusterMap {
    let mut map = ClusterMap {
        epoch: 1,
        cluster: ClusterId([1; 16]),
        policy: Policy { data_shards, parity_shards, level: Level::Node, slots_per_domain: 1 },
        nodes: vec![],
        devices: vec![],
        groups: vec![],
        partitions: vec![],
    };
    (0..args.nodes).for_each(|_| add_node(&mut map, args));
    map
}

fn add_node(map: &mut ClusterMap, args: &Args) {
    let node = map.nodes.len();
    // Ids as random as they are in life: they do not compress.
    let id = |kind: u64, number: usize| {
        let mut id = [0; 16];
        SeededEntropy::new(kind << 32 | number as u64).fill(&mut id);
        id
    };
    map.nodes.push(MapNode {
        id: NodeId(id(1, node)),
        name: format!("node-{node:05}"),
        site: "site".into(),
        rack: format!("rack-{:03}", node / RACK_NODES),
        peer_addr: format!("10.0.{}.{}:7443", node / 256, node % 256),
        state: NodeState::Up,
    });
    for device in 0..args.devices {
        map.devices.push(MapDevice {
            id: DeviceId(id(2, map.devices.len())),
            node: node as u32,
            capacity_bytes: if args.mixed { (1 + u64::from(device % 3)) * (8 << 40) } else { 20 << 40 },
            state: DeviceState::Healthy,
        });
    }
}

fn weight(map: &ClusterMap, of: impl Fn(u32) -> bool) -> f64 {
    map.devices.iter().filter(|device| of(device.node)).map(|device| device.capacity_bytes as f64).sum()
}

/// Makes the moves; how even devices are after it.
fn moved(map: &mut ClusterMap, moves: &[Move]) -> f64 {
    moves.iter().for_each(|step| apply(&mut map.groups, step));
    assert_eq!(violations(map), vec![], "the policy is kept");
    evenness(map)
}

/// The greatest slots / weight against the mean, over devices of nodes that are up.
fn evenness(map: &ClusterMap) -> f64 {
    let mut held = vec![0u32; map.devices.len()];
    map.groups.iter().flat_map(|group| &group.slots).for_each(|device| held[*device as usize] += 1);
    let up = |node: u32| map.nodes[node as usize].state == NodeState::Up;
    let each = map.devices.iter().zip(&held).filter(|(device, _)| up(device.node));
    let most = each.map(|(device, held)| f64::from(*held) / device.capacity_bytes as f64).fold(0.0, f64::max);
    most * weight(map, up) / (map.groups.len() * map.policy.width()) as f64
}

fn partners(map: &ClusterMap) -> String {
    let step = map.devices.len().div_ceil(SAMPLE);
    let mut partners = vec![BTreeSet::new(); map.devices.len().div_ceil(step)];
    for group in &map.groups {
        for device in group.slots.iter().filter(|device| (**device as usize).is_multiple_of(step)) {
            partners[*device as usize / step].extend(&group.slots);
        }
    }
    let counts = || partners.iter().filter(|others| !others.is_empty()).map(|others: &BTreeSet<u32>| others.len() - 1);
    let mean = counts().sum::<usize>() as f64 / counts().count() as f64;
    format!("{}, {mean:.1}", counts().min().unwrap_or(0))
}

/// How often lost nodes take data along.
fn blast(args: &Args, (k, m): (u8, u8), scatter_width: u32) -> Result<Vec<String>, PlacementError> {
    let mut map = cluster(args, k, m);
    map.groups = make(&map, &Limits { scatter_width }, args.seed)?;
    let mut groups_of = vec![Vec::new(); map.nodes.len()];
    for (number, group) in (0u32..).zip(&map.groups) {
        group.slots.iter().for_each(|device| groups_of[map.devices[*device as usize].node as usize].push(number));
    }
    let mut hits = vec![0u8; map.groups.len()];
    let mut row = vec![format!("{k}+{m}"), scatter_width.to_string(), map.groups.len().to_string()];
    for lost in args.lost() {
        let entropy = SeededEntropy::new(args.seed);
        let mut times = 0;
        for _ in 0..args.losses {
            let mut gone = BTreeSet::new();
            while gone.len() < lost as usize {
                gone.insert(entropy.below(args.nodes.into()) as usize);
            }
            let slots = || gone.iter().flat_map(|node| &groups_of[*node]);
            slots().for_each(|group| hits[*group as usize] += 1);
            times += u32::from(slots().any(|group| hits[*group as usize] > m));
            slots().for_each(|group| hits[*group as usize] = 0);
        }
        row.push(format!("{:.1} %", 100.0 * f64::from(times) / f64::from(args.losses)));
    }
    Ok(row)
}

/// The same for stripes that each have a random set of nodes for themselves, computed.
fn without_groups(args: &Args, (k, m): (u8, u8)) -> Vec<String> {
    let choose = |n: u32, of: u32| (0..of).map(|i| f64::from(n - i) / f64::from(of - i)).product::<f64>();
    let width = u32::from(k + m);
    let mut row = vec![format!("{k}+{m}"), "random".to_owned(), format!("{STRIPES:.0e}")];
    for lost in args.lost() {
        // Of the nodes lost, so many are in a stripe of `width` out of all.
        let hit = |n: u32| choose(width, n) * choose(args.nodes - width, lost - n) / choose(args.nodes, lost);
        let one: f64 = (u32::from(m) + 1..=width.min(lost)).map(hit).sum();
        row.push(format!("{:.1} %", -100.0 * (STRIPES * (-one).ln_1p()).exp_m1()));
    }
    row
}
