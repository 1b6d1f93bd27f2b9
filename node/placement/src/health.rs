//! How far groups are from losing data.
//!
//! Counts go by the map: a slot is readable when its device and node are there. What a device cannot read of what it
//! holds is the auditor's.

use crate::map::ClusterMap;
use crate::standing::Standing;

/// Groups by how many of their slots cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// k.
    pub data_shards: usize,
    /// m.
    pub parity_shards: usize,
    /// Groups with 0, 1, 2 ... k+m slots that cannot be read.
    pub groups: Vec<u64>,
}

impl Health {
    /// Groups with every slot readable.
    #[must_use]
    pub fn whole(&self) -> u64 {
        self.groups[0]
    }

    /// Groups that can be read, but not if one more slot goes.
    #[must_use]
    pub fn on_the_edge(&self) -> u64 {
        self.groups[self.parity_shards]
    }

    /// Groups that cannot be read until devices come back.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.groups[self.parity_shards + 1..].iter().sum()
    }
}

/// The groups of a map by slots that cannot be read.
///
/// # Panics
/// When [`ClusterMap::check`] fails.
#[must_use]
pub fn health(map: &ClusterMap) -> Health {
    let missing: Vec<bool> = Standing::all(map).iter().map(|standing| !standing.readable).collect();
    let (data_shards, parity_shards) = (map.policy.data_shards.into(), map.policy.parity_shards.into());
    let mut groups = vec![0; map.policy.width() + 1];
    lost_slots(map, &missing).for_each(|lost| groups[lost] += 1);
    Health { data_shards, parity_shards, groups }
}

/// Whether every group still has k readable slots when these devices, by place, are gone too. Places that the map does
/// not have change nothing.
///
/// # Panics
/// When [`ClusterMap::check`] fails.
#[must_use]
pub fn can_lose(map: &ClusterMap, devices: &[u32]) -> bool {
    let mut missing: Vec<bool> = Standing::all(map).iter().map(|standing| !standing.readable).collect();
    for device in devices {
        if let Some(missing) = missing.get_mut(*device as usize) {
            *missing = true;
        }
    }
    lost_slots(map, &missing).all(|lost| lost <= usize::from(map.policy.parity_shards))
}

fn lost_slots(map: &ClusterMap, missing: &[bool]) -> impl Iterator<Item = usize> {
    map.groups.iter().map(|group| group.slots.iter().filter(|device| missing[**device as usize]).count())
}
