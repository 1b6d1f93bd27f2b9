//! Whether groups keep the policy.

use crate::map::ClusterMap;
use crate::topology::Topology;

/// What is wrong with a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ViolationKind {
    /// An earlier slot of the group is on the same device.
    SameDevice,
    /// Earlier slots of the group fill the domain.
    DomainFull,
}

/// A slot that the policy does not allow where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Its group, by number.
    pub group: u32,
    /// Which slot.
    pub slot: u8,
    /// Why.
    pub kind: ViolationKind,
}

/// Every slot that the policy does not allow where it is, whatever the states of devices; none at rest. A node that is
/// put into another rack, or a stricter policy, makes some; [`super::rebalance`] moves them.
#[must_use]
pub fn violations(map: &ClusterMap) -> Vec<Violation> {
    let topology = Topology::of(map);
    let found = |(group, members): (u32, &[u32])| {
        wrong(&topology, members)
            .map(move |(slot, kind)| Violation { group, slot: slot as u8, kind })
            .collect::<Vec<_>>()
    };
    (0..).zip(map.groups.iter().map(|group| &group.slots[..])).flat_map(found).collect()
}

/// The slots of one group that have to go for the others to be allowed.
pub(super) fn wrong(topology: &Topology, members: &[u32]) -> impl Iterator<Item = (usize, ViolationKind)> {
    members.iter().enumerate().filter_map(|(slot, device)| {
        let before = &members[..slot];
        let domain = topology.domain[*device as usize];
        if before.contains(device) {
            return Some((slot, ViolationKind::SameDevice));
        }
        let in_domain = before.iter().filter(|other| topology.domain[**other as usize] == domain).count();
        (in_domain >= topology.per_domain).then_some((slot, ViolationKind::DomainFull))
    })
}
