//! Which devices hold what: pure.
//!
//! [`map`] is the picture of a cluster; [`groups`] makes its placement groups and the moves that keep them even;
//! [`choose`] says which group takes new data; [`health`] how far groups are from losing any. [`Groups`] is the one
//! host's: groups over a fixed list of devices, by rule instead of by map.
//!
//! Everything is decided by its input and a seed, in every process alike.

#![forbid(unsafe_code)]

pub mod choose;
mod dice;
pub mod groups;
pub mod health;
pub mod map;
mod shares;
mod standing;
mod topology;

pub use standing::Standing;

/// The groups over a fixed list of devices: rotations of one order, with the device as the fault domain. Every device
/// is in as many groups as any other and holds every slot equally often.
///
/// Group numbers and what they mean are kept in rows on devices: for a given number of devices they never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    devices: u32,
    width: u32,
}

impl Groups {
    /// Groups of `width` slots over `devices` devices; `None` when there are too few.
    #[must_use]
    pub fn new(devices: usize, width: usize) -> Option<Self> {
        let groups = Self { devices: u32::try_from(devices).ok()?, width: u32::try_from(width).ok()? };
        (groups.width > 0 && groups.width <= groups.devices).then_some(groups)
    }

    /// How many groups there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.devices
    }

    /// Slots in a group.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width as usize
    }

    /// The device, by its place in the list, of a slot of a group; `None` when there is no such group or slot.
    #[must_use]
    pub fn device(&self, group: u32, slot: usize) -> Option<usize> {
        let slot = u32::try_from(slot).ok().filter(|slot| *slot < self.width)?;
        (group < self.devices).then(|| ((u64::from(group) + u64::from(slot)) % u64::from(self.devices)) as usize)
    }

    /// The group for new data, from a number that counts up: one after the other.
    #[must_use]
    pub fn spread(&self, number: u64) -> u32 {
        (number % u64::from(self.devices)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_a_group_are_on_distinct_devices_and_evenly_spread() {
        for (devices, width) in [(6, 6), (7, 6), (24, 11), (1, 1)] {
            let groups = Groups::new(devices, width).expect("enough devices");
            let mut held = vec![vec![0; width]; devices];
            for group in 0..groups.count() {
                let mut members: Vec<_> =
                    (0..width).map(|slot| groups.device(group, slot).expect("a device")).collect();
                members.iter().enumerate().for_each(|(slot, device)| held[*device][slot] += 1);
                members.sort_unstable();
                members.dedup();
                assert_eq!(members.len(), width, "group {group}");
            }
            assert!(held.iter().flatten().all(|n| *n == 1), "{held:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_none() {
        assert_eq!(Groups::new(5, 6), None);
        assert_eq!(Groups::new(0, 0), None);
        let groups = Groups::new(6, 6).expect("enough devices");
        assert_eq!((groups.device(6, 0), groups.device(0, 6)), (None, None));
        assert_eq!(groups.spread(13), 1);
    }
}
