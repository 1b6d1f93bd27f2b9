//! Placement groups: made, checked, added to, moved.
//!
//! A group is k+m devices, by slot; a stripe lies on the devices of one group. Every distinct set of devices that
//! holds a stripe is one more way to lose data, and every partner of a device is one more source when it is rebuilt:
//! [`Limits::scatter_width`] chooses between them (docs/placement.md).
//!
//! Invariants of what is made here: a group's slots lie on distinct devices, at most `slots_per_domain` of them in one
//! domain of the policy's level; slots are shared out by capacity (`shares`); each device holds every slot number
//! equally often, give or take one; the same map, limits and seed give the same groups.
//!
//! Nodes never compute groups, they read them in the map: the making may change from one release to the next.
//!
//! Left out: heat and how full devices are, beyond the weights that a caller gives.

mod check;
mod moves;
mod receivers;
mod rounds;
mod slots;

use std::fmt;

use crate::map::{ClusterMap, Group, Level, Policy};
use crate::shares::Shares;
use crate::standing::Standing;
use crate::topology::Topology;

pub use check::{Violation, ViolationKind, violations};
pub use moves::{Move, Plan, Stuck, apply, rebalance, rebalance_by, replace};

/// Slots of a device of mean weight at least: shares are whole slots, so that one device has at most 1 + 1/10 of what
/// its weight is worth.
pub const SLOTS_PER_DEVICE_MIN: u64 = 10;
/// Slots of all groups at most: four bytes each in the map are 48 of its 64 MiB.
pub const SLOTS_MAX: u64 = 12 << 20;

/// What a cluster chooses about its groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// With how many others a device of mean weight shares groups. Fewer: fewer combinations of devices whose loss
    /// loses data. More: more devices to rebuild from. [`SLOTS_PER_DEVICE_MIN`] sets a floor.
    pub scatter_width: u32,
}

impl Default for Limits {
    /// A hundred: a device is rebuilt from a hundred others, and 8+3 has the fewest combinations that still share
    /// out evenly.
    fn default() -> Self {
        Self { scatter_width: 100 }
    }
}

/// Why there can be no groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlacementError {
    /// No such way to keep stripes.
    Policy(&'static str),
    /// The policy needs more domains than there are with usable devices.
    TooFewDomains {
        /// What it asks for.
        policy: Policy,
        /// Domains needed, when those that are added have a usable device for every slot that they may hold.
        needed: usize,
        /// Domains with a usable device.
        there: usize,
        /// Slots of one group that the domains have room for.
        room: usize,
    },
    /// More slots than a map holds.
    TooManySlots {
        /// Slots that the limits ask for.
        wanted: u64,
    },
}

impl fmt::Display for PlacementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(what) => write!(f, "no such policy: {what}"),
            Self::TooFewDomains { policy, needed, there, room } => {
                let Policy { data_shards: k, parity_shards: m, level, slots_per_domain } = policy;
                let level = match level {
                    Level::Device => "device",
                    Level::Node => "node",
                    Level::Rack => "rack",
                    Level::Site => "site",
                };
                write!(
                    f,
                    "{k}+{m} with {slots_per_domain} of a group's slots at most on one {level} needs {needed} \
                     {level}s; there are {there}, with room for {room} of {} slots",
                    policy.width()
                )
            }
            Self::TooManySlots { wanted } => {
                write!(f, "the scatter width asks for {wanted} slots; a map holds {SLOTS_MAX}")
            }
        }
    }
}

impl std::error::Error for PlacementError {}

/// Makes the groups of a map that has none; groups that it has are not looked at. Devices that are not healthy get no
/// slots; they get their share from [`rebalance`] once they are.
///
/// # Errors
/// [`PlacementError`].
///
/// # Panics
/// When [`ClusterMap::check`] fails.
pub fn make(map: &ClusterMap, limits: &Limits, seed: u64) -> Result<Vec<Group>, PlacementError> {
    let ground = Ground::of(map)?;
    let count = ground.groups_wanted(limits)?;
    Ok(ground.groups(map, count, &vec![0; map.devices.len()], seed))
}

/// More groups for a map that has grown, to go behind those it has; none when it has enough. They level out what
/// devices hold as far as they can without a move. New groups hold no data yet: rebalance first, so that a new device
/// gets its share of the data and not only of the room for more.
///
/// # Errors
/// [`PlacementError`].
///
/// # Panics
/// When [`ClusterMap::check`] fails.
pub fn grow(map: &ClusterMap, limits: &Limits, seed: u64) -> Result<Vec<Group>, PlacementError> {
    let ground = Ground::of(map)?;
    let count = ground.groups_wanted(limits)?.saturating_sub(map.groups.len());
    let mut held = vec![0; map.devices.len()];
    map.groups.iter().flat_map(|group| &group.slots).for_each(|device| held[*device as usize] += 1);
    Ok(ground.groups(map, count, &held, seed ^ map.groups.len() as u64))
}

/// Weights of devices by what they hold: what [`rebalance`] goes by.
#[must_use]
pub fn by_capacity(map: &ClusterMap) -> Vec<u64> {
    map.devices.iter().map(|device| device.capacity_bytes).collect()
}

/// Weights for [`rebalance_by`] that take slots off devices that fill faster than others, from the bytes used on each
/// device by place.
///
/// What counts is how much a device's slots hold against the mean, which moving some of them does not change: the same
/// devices keep the same weights from one call to the next. Devices not yet half full, or within a seventh of the
/// mean, weigh what their capacity is.
#[must_use]
pub fn by_fill(map: &ClusterMap, used_bytes: &[u64]) -> Vec<u64> {
    let mut held = vec![0u64; map.devices.len()];
    map.groups.iter().flat_map(|group| &group.slots).for_each(|device| held[*device as usize] += 1);
    let slots = u128::from(held.iter().sum::<u64>());
    let used = |device: usize| used_bytes.get(device).copied().unwrap_or(0);
    let all: u128 = (0..held.len()).filter(|d| held[*d] > 0).map(|d| u128::from(used(d))).sum();
    let weigh = |(place, capacity): (usize, u64)| {
        let (own, fair) = (u128::from(used(place)) * slots, all * u128::from(held[place]));
        let fuller = own * 7 > fair * 8 && u128::from(used(place)) * 2 > u128::from(capacity);
        // Never below half: slots differ in what they hold, not that much.
        if fuller { ((u128::from(capacity) * fair / own) as u64).max(capacity / 2) } else { capacity }
    };
    by_capacity(map).into_iter().enumerate().map(weigh).collect()
}

/// Where groups can be made: a policy that makes sense, and enough usable domains for it.
struct Ground {
    topology: Topology,
    /// Devices that take slots, by place.
    usable: Vec<bool>,
}

impl Ground {
    fn of(map: &ClusterMap) -> Result<Self, PlacementError> {
        let policy = map.policy;
        if policy.data_shards == 0 || policy.width() > 64 {
            return Err(PlacementError::Policy("1 to 64 slots, at least one of them data"));
        }
        if policy.slots_per_domain == 0 || policy.slots_per_domain > policy.parity_shards.max(1) {
            return Err(PlacementError::Policy("one domain holds at least 1 and at most m slots of a group"));
        }
        let topology = Topology::of(map);
        let standing = Standing::all(map);
        let usable: Vec<bool> =
            standing.iter().zip(&map.devices).map(|(s, device)| s.healthy && device.capacity_bytes > 0).collect();
        let mut in_domain = vec![0; topology.domains];
        (0..usable.len()).filter(|d| usable[*d]).for_each(|d| in_domain[topology.domain[d] as usize] += 1);
        let room: usize = in_domain.iter().map(|devices: &usize| (*devices).min(topology.per_domain)).sum();
        let there = in_domain.iter().filter(|devices| **devices > 0).count();
        if room < policy.width() {
            let needed = there + (policy.width() - room).div_ceil(topology.per_domain);
            return Err(PlacementError::TooFewDomains { policy, needed, there, room });
        }
        Ok(Self { topology, usable })
    }

    fn groups_wanted(&self, limits: &Limits) -> Result<usize, PlacementError> {
        let width = self.topology.width as u64;
        let devices = self.usable.iter().filter(|usable| **usable).count() as u64;
        let partners = u64::from(limits.scatter_width).min(devices - 1);
        let slots_per_device = partners.div_ceil((width - 1).max(1)).max(SLOTS_PER_DEVICE_MIN);
        let groups = (devices * slots_per_device).div_ceil(width);
        if groups * width > SLOTS_MAX {
            return Err(PlacementError::TooManySlots { wanted: groups * width });
        }
        Ok(groups as usize)
    }

    /// So many groups more, for devices that hold so many slots already.
    fn groups(&self, map: &ClusterMap, count: usize, held: &[u32], seed: u64) -> Vec<Group> {
        let caps: Vec<u32> = self.usable.iter().map(|usable| if *usable { count as u32 } else { 0 }).collect();
        let shares = Shares {
            total: (count * self.topology.width) as u64,
            weights: &by_capacity(map),
            base: held,
            caps: &caps,
            domain: &self.topology.domain,
            domain_caps: &vec![(self.topology.per_domain * count) as u64; self.topology.domains],
            held: &vec![0; held.len()],
            seed,
        };
        let given = shares.hand_out();
        let sets = rounds::fill(&self.topology, given, count, seed);
        let slots = slots::order(&sets, self.topology.width, map.devices.len());
        slots.chunks(self.topology.width).map(|group| Group { slots: group.to_vec() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_in_words() {
        let policy = Policy { data_shards: 4, parity_shards: 2, level: Level::Node, slots_per_domain: 1 };
        let error = PlacementError::TooFewDomains { policy, needed: 6, there: 5, room: 5 };
        assert_eq!(
            error.to_string(),
            "4+2 with 1 of a group's slots at most on one node needs 6 nodes; there are 5, with room for 5 of 6 slots"
        );
    }
}
