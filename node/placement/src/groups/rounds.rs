//! Which devices make a group: so many slots of each device, dealt out in rounds.
//!
//! With R groups still to be made, all slots still to be dealt lie on a line of length width x R, the slots of a device
//! side by side, so also those of a node, a rack, a site. Group u gets what lies at u, u + R, u + 2R ...: a device with
//! at most R slots is met at most once, a domain with at most `per_domain` x R slots at most `per_domain` times. What
//! is left fits again for R less the groups taken, whichever were taken, so every slot is dealt and no group needs
//! mending. And what is equal at the policy's level is as even as it can be at every other: a group's slots spread
//! over racks and sites as far as there are any, and in a domain that holds two they lie on two nodes.
//!
//! Every round shuffles the line (sites, racks, nodes, devices) and takes groups evenly along it, so that a device
//! meets new partners in each: copysets, one permutation a round. In one round the devices of a node meet the devices
//! of few other nodes, so node failures have fewer combinations than device failures.
//! A. Cidon et al., *Copysets*, USENIX ATC 2013. W. Madow, systematic sampling with unequal probabilities, 1949.

use std::collections::BTreeMap;

use crate::dice::Dice;
use crate::topology::Topology;

/// Rounds for each slot of a mean device at most: one device of great weight must not cost a pass over all devices
/// for each of its slots.
const ROUNDS_PER_MEAN_SLOT: usize = 4;

/// Devices of `count` groups, one group after the other, from the slots of each device.
pub(super) fn fill(topology: &Topology, mut left: Vec<u32>, count: usize, seed: u64) -> Vec<u32> {
    let mut sets = Vec::with_capacity(count * topology.width);
    let holders = left.iter().filter(|slots| **slots > 0).count();
    let Some(most) = left.iter().max().map(|most| *most as usize).filter(|_| count > 0) else { return sets };
    assert_eq!(left.iter().map(|n| *n as usize).sum::<usize>(), count * topology.width, "every slot has a device");
    let mean = (count * topology.width).div_ceil(holders);
    let rounds = most.min(mean * ROUNDS_PER_MEAN_SLOT).clamp(1, count);
    let mut dice = Dice::new(seed);
    let mut stands = Stands::new(topology, &left);
    let mut open = count;
    for round in 0..rounds {
        let take = open.div_ceil(rounds - round);
        stands.shuffle(&mut dice);
        deal(topology, &stands, &mut left, (open, take), dice.below(open), &mut sets);
        open -= take;
    }
    // Groups of one round lie along one line: numbers in a row should not be neighbours.
    let mut order: Vec<usize> = (0..count).collect();
    dice.shuffle(&mut order);
    order.iter().flat_map(|group| sets[group * topology.width..][..topology.width].iter().copied()).collect()
}

/// Takes `take` of `open` groups off the line, evenly along it.
fn deal(
    topology: &Topology,
    stands: &Stands,
    left: &mut [u32],
    (open, take): (usize, usize),
    phase: usize,
    sets: &mut Vec<u32>,
) {
    let mut taken: Vec<usize> = (0..take).map(|n| (phase + n * open / take) % open).collect();
    taken.sort_unstable();
    let first = sets.len();
    sets.resize(first + take * topology.width, 0);
    let mut devices = stands.devices();
    let (mut device, mut end) = (0, 0);
    for slot in 0..topology.width {
        for (group, at) in taken.iter().enumerate() {
            while slot * open + at >= end {
                device = devices.next().expect("the line is width x open slots long");
                end += left[device as usize] as usize;
            }
            sets[first + group * topology.width + slot] = device;
            left[device as usize] -= 1;
        }
    }
}

/// Devices by node, nodes by rack, racks by site.
struct Stands(Vec<Vec<Vec<Vec<u32>>>>);

impl Stands {
    fn new(topology: &Topology, slots: &[u32]) -> Self {
        let mut sites = BTreeMap::<u32, BTreeMap<u32, BTreeMap<u32, Vec<u32>>>>::new();
        for place in (0..slots.len()).filter(|place| slots[*place] > 0) {
            let racks = sites.entry(topology.site[place]).or_default();
            let nodes = racks.entry(topology.rack[place]).or_default();
            nodes.entry(topology.node[place]).or_default().push(place as u32);
        }
        let racks = |racks: BTreeMap<u32, BTreeMap<u32, Vec<u32>>>| {
            racks.into_values().map(|nodes| nodes.into_values().collect()).collect()
        };
        Self(sites.into_values().map(racks).collect())
    }

    fn shuffle(&mut self, dice: &mut Dice) {
        dice.shuffle(&mut self.0);
        for racks in &mut self.0 {
            dice.shuffle(racks);
            for nodes in racks {
                dice.shuffle(nodes);
                nodes.iter_mut().for_each(|devices| dice.shuffle(devices));
            }
        }
    }

    fn devices(&self) -> impl Iterator<Item = u32> {
        self.0.iter().flatten().flatten().flatten().copied()
    }
}
