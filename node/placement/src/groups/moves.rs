//! Which slots go where when devices come, go or fill.
//!
//! Invariants of a plan: every group keeps the policy when any of its moves are made, in any order, and the others not
//! (or not yet): a slot counts against a domain where it was and where it goes. Slots go to healthy devices that lack
//! some; to a suspect one only what cannot be read where it is and has no other place. Slots on nodes that are down
//! stay: they may come back. No slot moves that neither has to nor evens out: a plan for a map that is even is empty.
//!
//! Urgent moves come first: groups with most slots that cannot be read, then what must go, then what evens out. A plan
//! is for the map it was made from; after some of its moves (or any other change) make a new one.
//!
//! Left out: how much is moved at a time, which is for those who move it.

use crate::dice::Dice;
use crate::groups::receivers::Receivers;
use crate::groups::{by_capacity, check};
use crate::map::{ClusterMap, Group};
use crate::shares::Shares;
use crate::standing::Standing;
use crate::topology::Topology;

/// Devices looked at for each slot that must go: the best of them takes it.
const CHOICE: usize = 8;
/// Devices looked at for a slot that a device lacks; one in `width` slots fits at worst where domains are few.
const SOURCES_MAX: usize = 4096;
/// Detours looked for in one plan: they help small clusters, where one more draw is cheap and rarely in vain.
const DETOURS_MAX: usize = 20_000;

/// One slot goes from one device to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Move {
    /// The group, by number.
    pub group: u32,
    /// The slot of it.
    pub slot: u8,
    /// The device it is on, by place; it may be gone.
    pub from: u32,
    /// The device it goes to, by place.
    pub to: u32,
}

/// A slot that must go and has no place to go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stuck {
    /// The group, by number.
    pub group: u32,
    /// The slot of it.
    pub slot: u8,
    /// The device it is on, by place.
    pub on: u32,
}

/// What is to be moved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Moves, most urgent first; each slot at most once.
    pub moves: Vec<Move>,
    /// What must go and cannot until devices or domains are added.
    pub stuck: Vec<Stuck>,
}

/// Makes a move in the groups it was planned for.
///
/// # Panics
/// When the slot is not where the move takes it from.
pub fn apply(groups: &mut [Group], step: &Move) {
    let slot = &mut groups[step.group as usize].slots[usize::from(step.slot)];
    assert_eq!(*slot, step.from, "the move is of another map");
    *slot = step.to;
}

/// The moves that empty devices that leave and bring every other to its share by capacity.
///
/// # Panics
/// When [`ClusterMap::check`] fails.
#[must_use]
pub fn rebalance(map: &ClusterMap, seed: u64) -> Plan {
    rebalance_by(map, &by_capacity(map), seed)
}

/// [`rebalance`] to shares by other weights, one for each device by place: [`super::by_fill`], or an operator's.
///
/// # Panics
/// When [`ClusterMap::check`] fails or there are not as many weights as devices.
#[must_use]
pub fn rebalance_by(map: &ClusterMap, weights: &[u64], seed: u64) -> Plan {
    let mut mover = Mover::new(map, weights, Standing::all(map), seed);
    let leaving = mover.leaving();
    let stuck = mover.evacuate(&leaving);
    mover.even_out();
    mover.plan(&leaving, stuck)
}

/// The moves that empty one device, whatever the map says of it: to all that lack slots, so that many rebuild it
/// together. A blank device in its place takes part, with the share that it is due.
///
/// # Panics
/// When [`ClusterMap::check`] fails or there is no such device.
#[must_use]
pub fn replace(map: &ClusterMap, device: u32, seed: u64) -> Plan {
    let mut standing = Standing::all(map);
    let own = &mut standing[device as usize];
    *own = Standing { writable: false, healthy: false, leaving: true, away: false, ..*own };
    let weights = by_capacity(map);
    let mut mover = Mover::new(map, &weights, standing, seed);
    let leaving: Vec<u32> = mover.held[device as usize].clone();
    let stuck = mover.evacuate(&leaving);
    mover.plan(&leaving, stuck)
}

/// Slots are numbered through: group x width + slot.
struct Mover<'a> {
    map: &'a ClusterMap,
    topology: Topology,
    standing: Vec<Standing>,
    weights: &'a [u64],
    dice: Dice,
    /// Detours that may still be looked for.
    detours: usize,
    /// The device of each slot, as planned so far.
    now: Vec<u32>,
    /// Slots of each device, as planned so far.
    held: Vec<Vec<u32>>,
    /// Slots that each device should have.
    share: Vec<u32>,
    /// Healthy devices with fewer.
    lacking: Receivers,
    /// Healthy devices.
    healthy: Receivers,
    /// Devices that take slots if nobody else does.
    suspect: Receivers,
}

impl<'a> Mover<'a> {
    fn new(map: &'a ClusterMap, weights: &'a [u64], standing: Vec<Standing>, seed: u64) -> Self {
        assert_eq!(weights.len(), map.devices.len(), "one weight for each device");
        let topology = Topology::of(map);
        let now: Vec<u32> = map.groups.iter().flat_map(|group| &group.slots).copied().collect();
        let mut held = vec![Vec::new(); map.devices.len()];
        (0u32..).zip(&now).for_each(|(slot, device)| held[*device as usize].push(slot));
        let share = shares(map, &topology, &standing, weights, &held, seed);
        let set = || Receivers::new(topology.domains, map.devices.len());
        let (lacking, healthy, suspect) = (set(), set(), set());
        let dice = Dice::new(seed);
        let mut mover = Self {
            map,
            topology,
            standing,
            weights,
            dice,
            detours: DETOURS_MAX,
            now,
            held,
            share,
            lacking,
            healthy,
            suspect,
        };
        for device in (0..map.devices.len()).filter(|device| weights[*device] > 0) {
            let domain = mover.topology.domain[device];
            let Standing { healthy, writable, .. } = mover.standing[device];
            mover.healthy.set(device as u32, domain, healthy && !mover.standing[device].leaving);
            mover.suspect.set(device as u32, domain, !healthy && writable);
            mover.noted(device as u32);
        }
        mover
    }

    fn group_of(&self, slot: u32) -> &[u32] {
        let width = self.topology.width;
        &self.now[slot as usize / width * width..][..width]
    }

    /// Whether no order of moves puts too many of a group's slots in a domain when this slot goes there.
    fn domain_fits(&self, slot: u32, domain: u32) -> bool {
        let (before, now, own) = self.around(slot);
        let inside = |device: u32| self.topology.domain[device as usize] == domain;
        let others = (0..now.len()).filter(|at| *at != own && (inside(before[*at]) || inside(now[*at]))).count();
        others < self.topology.per_domain
    }

    /// Whether no order of moves puts two of a group's slots on a device when this slot goes there.
    fn device_fits(&self, slot: u32, device: u32) -> bool {
        let (before, now, own) = self.around(slot);
        now[own] != device && (0..now.len()).all(|at| at == own || (before[at] != device && now[at] != device))
    }

    fn around(&self, slot: u32) -> (&[u32], &[u32], usize) {
        let (group, own) = (slot as usize / self.topology.width, slot as usize % self.topology.width);
        (&self.map.groups[group].slots, self.group_of(slot), own)
    }

    fn fits(&self, slot: u32, device: u32) -> bool {
        self.device_fits(slot, device) && self.domain_fits(slot, self.topology.domain[device as usize])
    }

    /// How little a device suits a slot that fits: it holds that slot number already, it stands near the group's others.
    fn unease(&self, slot: u32, device: u32) -> (usize, u64) {
        let width = self.topology.width as u32;
        let alike = self.held[device as usize].iter().filter(|held| **held % width == slot % width).count();
        let others = (0..).zip(self.group_of(slot)).filter(|(at, _)| *at != slot % width);
        (alike, others.map(|(_, other)| self.topology.nearness(*other, device)).sum())
    }

    fn put(&mut self, slot: u32, to: u32) {
        let from = std::mem::replace(&mut self.now[slot as usize], to);
        let place = self.held[from as usize].iter().position(|held| *held == slot).expect("a slot is on its device");
        self.held[from as usize].swap_remove(place);
        self.held[to as usize].push(slot);
        self.noted(from);
        self.noted(to);
    }

    /// A device holds more or fewer slots than before.
    fn noted(&mut self, device: u32) {
        let at = device as usize;
        let Standing { healthy, leaving, .. } = self.standing[at];
        let lacks = healthy && !leaving && self.held[at].len() < self.share[at] as usize;
        self.lacking.set(device, self.topology.domain[at], lacks);
    }

    /// Whether a device that stays has slots to give. On a node that is down it never has: its share is what it holds.
    fn surplus(&self, device: u32) -> bool {
        !self.standing[device as usize].leaving
            && self.held[device as usize].len() > self.share[device as usize] as usize
    }

    /// Slots that must go, the most urgent first.
    fn leaving(&self) -> Vec<u32> {
        let width = self.topology.width as u32;
        let mut leaving = Vec::new();
        for (group, members) in (0u32..).zip(self.now.chunks(width as usize)) {
            let unreadable = members.iter().filter(|d| !self.standing[**d as usize].readable).count();
            let mut wrong = vec![false; members.len()];
            check::wrong(&self.topology, members).for_each(|(slot, _)| wrong[slot] = true);
            for (slot, device) in (0u32..).zip(members) {
                let Standing { leaving: goes, readable, away, .. } = self.standing[*device as usize];
                if goes || (wrong[slot as usize] && !away) {
                    leaving.push((std::cmp::Reverse(unreadable), readable, group * width + slot));
                }
            }
        }
        leaving.sort_unstable();
        leaving.into_iter().map(|(_, _, slot)| slot).collect()
    }

    /// Finds each of these slots a place; those without one are left.
    fn evacuate(&mut self, leaving: &[u32]) -> Vec<u32> {
        let mut stuck = Vec::new();
        for slot in leaving {
            match self.place_for(*slot) {
                Some(device) => self.put(*slot, device),
                None => stuck.push(*slot),
            }
        }
        stuck
    }

    fn place_for(&mut self, slot: u32) -> Option<u32> {
        let lacking = self.drawn(slot, |mover| &mover.lacking);
        if !lacking.is_empty() {
            return lacking.into_iter().min_by_key(|device| self.unease(slot, *device));
        }
        let healthy = self.drawn(slot, |mover| &mover.healthy);
        if let Some((device, other, instead)) = self.make_room(&healthy) {
            self.put(other, instead);
            return Some(device);
        }
        if !healthy.is_empty() || self.standing[self.now[slot as usize] as usize].readable {
            return self.emptiest(&healthy);
        }
        let suspect = self.drawn(slot, |mover| &mover.suspect);
        self.emptiest(&suspect)
    }

    /// A few devices of a set that a slot may go to.
    fn drawn(&mut self, slot: u32, set: impl Fn(&Self) -> &Receivers) -> Vec<u32> {
        let mut dice = self.dice.clone();
        let domain_fits = |domain: u32| self.domain_fits(slot, domain);
        let drawn = set(self).draw(&mut dice, CHOICE, domain_fits, |device| self.device_fits(slot, device));
        self.dice = dice;
        drawn
    }

    /// One of these devices, a slot that it is to be given, and a device that lacks slots and can take that slot
    /// instead: it costs no move more.
    fn make_room(&mut self, devices: &[u32]) -> Option<(u32, u32, u32)> {
        let lacking: Vec<u32> = self.lacking.all().take(SOURCES_MAX / CHOICE).collect();
        let coming =
            |slot: &u32| self.around(*slot).0[*slot as usize % self.topology.width] != self.now[*slot as usize];
        devices.iter().find_map(|device| {
            let coming = self.held[*device as usize].iter().filter(|slot| coming(slot));
            let elsewhere = |slot: &u32| Some((*device, *slot, *lacking.iter().find(|at| self.fits(*slot, **at))?));
            coming.filter_map(elsewhere).next()
        })
    }

    /// The one with the fewest slots for its weight.
    fn emptiest(&self, devices: &[u32]) -> Option<u32> {
        let load =
            |device: u32| (self.held[device as usize].len() as u128 + 1, u128::from(self.weights[device as usize]));
        devices.iter().copied().min_by(|one, other| {
            let ((slots, weight), (other_slots, other_weight)) = (load(*one), load(*other));
            (slots * other_weight).cmp(&(other_slots * weight))
        })
    }

    /// Brings devices that lack slots to their share, from those with more.
    fn even_out(&mut self) {
        let mut receivers: Vec<u32> = self.lacking.all().collect();
        receivers.sort_unstable();
        self.dice.shuffle(&mut receivers);
        let mut rich: Vec<u32> = (0..self.held.len() as u32).filter(|device| self.surplus(*device)).collect();
        for device in receivers {
            let lacks = |mover: &Self| mover.held[device as usize].len() < mover.share[device as usize] as usize;
            while lacks(self) && (self.pull(device, &mut rich) || self.pull_by_detour(device, &rich)) {}
        }
    }

    /// One slot more for a device, straight from one that has too many.
    fn pull(&mut self, to: u32, rich: &mut Vec<u32>) -> bool {
        let mut at = if rich.is_empty() { 0 } else { self.dice.below(rich.len()) };
        let mut looked = 0;
        while looked < rich.len().min(SOURCES_MAX) {
            at %= rich.len();
            let from = rich[at];
            if !self.surplus(from) {
                rich.swap_remove(at);
                continue;
            }
            let fitting = self.held[from as usize].iter().copied().filter(|slot| self.fits(*slot, to));
            if let Some(slot) = fitting.min_by_key(|slot| (self.unease(*slot, to), *slot)) {
                self.put(slot, to);
                return true;
            }
            (at, looked) = (at + 1, looked + 1);
        }
        false
    }

    /// One slot more for a device, by way of a third: it takes one that does not fit here and gives one that does.
    fn pull_by_detour(&mut self, to: u32, rich: &[u32]) -> bool {
        for from in rich.iter().copied().filter(|from| self.surplus(*from)).collect::<Vec<_>>() {
            for slot in self.held[from as usize].clone() {
                if self.detours == 0 {
                    return false;
                }
                self.detours -= 1;
                let by = self.drawn(slot, |mover| &mover.healthy);
                let swap = by.into_iter().filter(|by| *by != to).find_map(|by| {
                    self.held[by as usize].iter().find(|other| self.fits(**other, to)).map(|other| (by, *other))
                });
                if let Some((by, other)) = swap {
                    self.put(slot, by);
                    self.put(other, to);
                    return true;
                }
            }
        }
        false
    }

    fn plan(self, leaving: &[u32], stuck: Vec<u32>) -> Plan {
        let width = self.topology.width as u32;
        let mut first = vec![false; self.now.len()];
        leaving.iter().for_each(|slot| first[*slot as usize] = true);
        let others = (0..self.now.len() as u32).filter(|slot| !first[*slot as usize]);
        let step = |slot: u32| {
            let (group, at) = (slot / width, slot % width);
            let (from, to) = (self.map.groups[group as usize].slots[at as usize], self.now[slot as usize]);
            (from != to).then_some(Move { group, slot: at as u8, from, to })
        };
        let moves: Vec<Move> = leaving.iter().copied().chain(others).filter_map(step).collect();
        for step in &moves {
            let members = self.group_of(step.group * width);
            let was = &self.map.groups[step.group as usize].slots;
            let wrong = |members| check::wrong(&self.topology, members).count();
            assert!(wrong(members) <= wrong(was), "group {} loses the policy by moving", step.group);
        }
        let stuck = stuck.into_iter().map(|slot| Stuck {
            group: slot / width,
            slot: (slot % width) as u8,
            on: self.now[slot as usize],
        });
        Plan { moves, stuck: stuck.collect() }
    }
}

/// Slots that each device should have, as the policy and the states of devices allow.
fn shares(
    map: &ClusterMap,
    topology: &Topology,
    standing: &[Standing],
    weights: &[u64],
    held: &[Vec<u32>],
    seed: u64,
) -> Vec<u32> {
    let groups = map.groups.len() as u32;
    let held: Vec<u32> = held.iter().map(|slots| slots.len() as u32).collect();
    let mut domain_caps = vec![u64::from(groups) * topology.per_domain as u64; topology.domains];
    let mut total = held.iter().map(|n| u64::from(*n)).sum::<u64>();
    let mut caps = vec![0; held.len()];
    for (device, standing) in standing.iter().enumerate() {
        caps[device] = match standing {
            Standing { away: true, .. } => {
                let domain = &mut domain_caps[topology.domain[device] as usize];
                *domain = domain.saturating_sub(u64::from(held[device]));
                total -= u64::from(held[device]);
                0
            }
            Standing { writable: false, .. } => 0,
            _ if weights[device] == 0 => 0,
            Standing { healthy: true, .. } => groups,
            _ => held[device].min(groups),
        };
    }
    let mut shares = Shares {
        total,
        weights,
        base: &vec![0; held.len()],
        caps: &caps,
        domain: &topology.domain,
        domain_caps: &domain_caps,
        held: &held,
        seed,
    }
    .hand_out();
    (0..held.len()).filter(|device| standing[*device].away).for_each(|device| shares[device] = held[device]);
    shares
}
