//! Which devices the slots of each group are on, and who answers for them: one epoch of the cluster's map as the
//! object layer needs it. A view never changes; a newer one takes its place as a whole.
//!
//! Who began with a view keeps it: a stripe's run is written under the view that chose its group, a piece is read
//! under one view and, when that fails, under the next.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::DeviceId;
use placement::Groups;
use placement::map::{ClusterMap, DeviceState, MapDevice, NodeState};

use crate::pace::{Kind, Pace};
use crate::stores::ShardStore;

/// Groups looked at for one choice, when the first two are not good: beyond it the best of them is taken.
const CHOICES_MAX: u64 = 64;
/// One choice in so many does not look at who is slow: a slow device must be able to show that it has recovered.
const UNBIASED_EVERY: u64 = 64;

/// One device of a view.
#[derive(Debug, Clone)]
pub struct Device {
    /// Which.
    pub id: DeviceId,
    /// Its store; `None` when nobody answers for it: it is not asked and not waited for.
    pub store: Option<Arc<dyn ShardStore>>,
    /// New data goes elsewhere while it can (draining, failing or full).
    pub avoid: bool,
    pub(crate) pace: Arc<Pace>,
}

impl Device {
    /// A device that nothing is known of yet.
    #[must_use]
    pub fn new(id: DeviceId, store: Option<Arc<dyn ShardStore>>, avoid: bool) -> Self {
        Self { id, store, avoid, pace: Arc::default() }
    }
}

/// One view.
#[derive(Debug)]
pub struct Topology {
    epoch: u64,
    width: usize,
    devices: Vec<Device>,
    /// Places in `devices`, group by group.
    slots: Vec<u32>,
}

/// How bad a group is for new data, first things first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    /// Devices without a store.
    absent: usize,
    /// Devices that should get no new data.
    avoided: usize,
    /// Devices slow beside the others.
    slow: usize,
    /// Requests under way on the busiest device.
    busy: u32,
}

impl Topology {
    /// A view of groups of `width` slots, as places in `devices`, one group after the other; `None` when they are
    /// not whole groups of devices that are there.
    #[must_use]
    pub fn new(epoch: u64, width: usize, devices: Vec<Device>, slots: Vec<u32>) -> Option<Self> {
        let whole = width > 0 && slots.len().is_multiple_of(width);
        let known = slots.iter().all(|device| (*device as usize) < devices.len());
        (whole && known).then_some(Self { epoch, width, devices, slots })
    }

    /// A view of nothing.
    pub(crate) fn empty(width: usize) -> Self {
        Self { epoch: 0, width, devices: Vec::new(), slots: Vec::new() }
    }

    /// The view of one host with a fixed list of devices: epoch 0, groups by rotation.
    #[must_use]
    pub fn of_groups(groups: &Groups, devices: Vec<Device>) -> Option<Self> {
        let slot = |group, slot| groups.device(group, slot).map(|device| device as u32);
        let slots = (0..groups.count()).flat_map(|group| (0..groups.width()).map(move |at| (group, at)));
        let slots: Option<Vec<u32>> = slots.map(|(group, at)| slot(group, at)).collect();
        Self::new(0, groups.width(), devices, slots?)
    }

    /// The view of a cluster's map; `store` gives the store of a device that is to be asked. Devices that are gone and
    /// those of nodes that are down have none.
    #[must_use]
    pub fn of_map(map: &ClusterMap, mut store: impl FnMut(&MapDevice) -> Option<Arc<dyn ShardStore>>) -> Option<Self> {
        let device = |device: &MapDevice| {
            let node = map.nodes.get(device.node as usize)?.state;
            let answers = device.state != DeviceState::Removed && matches!(node, NodeState::Up | NodeState::Draining);
            let avoid = device.state != DeviceState::Healthy || node != NodeState::Up;
            Some(Device::new(device.id, if answers { store(device) } else { None }, avoid))
        };
        let devices: Option<Vec<Device>> = map.devices.iter().map(device).collect();
        let slots = map.groups.iter().flat_map(|group| group.slots.iter().copied()).collect();
        Self::new(map.epoch, map.policy.width(), devices?, slots)
    }

    /// The map's version.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Slots of a group.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Groups.
    #[must_use]
    pub fn groups(&self) -> u32 {
        (self.slots.len() / self.width) as u32
    }

    /// All devices.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The devices of a group by slot; none when there is no such group.
    pub fn slots(&self, group: u32) -> impl Iterator<Item = &Device> {
        let start = (group as usize).saturating_mul(self.width);
        let slots = self.slots.get(start..start.saturating_add(self.width)).unwrap_or_default();
        slots.iter().map(|device| &self.devices[*device as usize])
    }

    /// The device of a slot of a group.
    #[must_use]
    pub fn slot(&self, group: u32, slot: usize) -> Option<&Device> {
        self.slots(group).nth(slot)
    }

    /// The group for new data, `number` counting up or random: the better of two, or the best of some more where
    /// neither has all its devices present and fast. None when `needed` devices answer in none of them.
    #[must_use]
    pub fn choose(&self, number: u64, needed: usize) -> Option<u32> {
        let count = u64::from(self.groups());
        if count == 0 {
            return None;
        }
        let other = mix(number);
        let group = |nth: u64| match nth {
            0 => (number % count) as u32,
            nth => (other.wrapping_add(nth) % count) as u32,
        };
        let unbiased = number % UNBIASED_EVERY == UNBIASED_EVERY - 1;
        let cost = |group| {
            let cost = self.cost(group);
            Cost { slow: if unbiased { 0 } else { cost.slow }, ..cost }
        };
        let (mut best, mut least) = (group(0), cost(group(0)));
        for nth in 1..CHOICES_MAX.min(count + 1) {
            if nth > 1 && least.absent + least.avoided + least.slow == 0 {
                break;
            }
            let other = cost(group(nth));
            if other < least {
                (best, least) = (group(nth), other);
            }
        }
        (self.width - least.absent >= needed).then_some(best)
    }

    fn cost(&self, group: u32) -> Cost {
        let mut cost = Cost { absent: 0, avoided: 0, slow: 0, busy: 0 };
        for device in self.slots(group) {
            cost.absent += usize::from(device.store.is_none());
            cost.avoided += usize::from(device.store.is_some() && device.avoid);
            cost.slow += usize::from(device.store.is_some() && device.pace.is_slow(Kind::Put));
            cost.busy = cost.busy.max(device.pace.busy());
        }
        cost
    }

    /// Takes over what was measured of the devices that an older view names too.
    pub(crate) fn adopt(&mut self, older: &Self) {
        let known: BTreeMap<DeviceId, &Arc<Pace>> =
            older.devices.iter().map(|device| (device.id, &device.pace)).collect();
        for device in &mut self.devices {
            if let Some(pace) = known.get(&device.id) {
                device.pace = Arc::clone(pace);
            }
        }
    }
}

/// SplitMix64's finish: numbers that count up are spread over all.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use bytes::Bytes;
    use format::ShardKey;
    use futures::future::BoxFuture;
    use shards::{Payload, ShardInfo, StoreStats};

    use super::*;
    use crate::stores::{ShardError, ShardResult};

    #[derive(Debug)]
    struct Nothing(DeviceId);

    impl ShardStore for Nothing {
        fn device(&self) -> DeviceId {
            self.0
        }
        fn is_local(&self) -> bool {
            false
        }
        fn put(&self, _: ShardKey, _: Bytes, _: Payload) -> BoxFuture<'_, ShardResult<()>> {
            Box::pin(async { Err(ShardError::Timeout) })
        }
        fn get(&self, _: ShardKey, _: Range<u32>) -> BoxFuture<'_, ShardResult<Bytes>> {
            Box::pin(async { Err(ShardError::Timeout) })
        }
        fn describe(&self, _: ShardKey) -> BoxFuture<'_, ShardResult<(u32, Bytes)>> {
            Box::pin(async { Err(ShardError::Timeout) })
        }
        fn delete(&self, _: Vec<ShardKey>) -> BoxFuture<'_, ShardResult<()>> {
            Box::pin(async { Err(ShardError::Timeout) })
        }
        fn list(&self, _: Option<ShardKey>, _: usize) -> BoxFuture<'_, ShardResult<Vec<ShardInfo>>> {
            Box::pin(async { Err(ShardError::Timeout) })
        }
        fn stats(&self) -> BoxFuture<'_, ShardResult<StoreStats>> {
            Box::pin(async { Err(ShardError::Timeout) })
        }
    }

    impl Device {
        pub(crate) fn for_tests(id: DeviceId) -> Self {
            Self::new(id, Some(Arc::new(Nothing(id))), false)
        }
    }

    fn devices(n: u8) -> Vec<Device> {
        (0..n).map(|n| Device::for_tests(DeviceId([n; 16]))).collect()
    }

    fn rotation(devices: Vec<Device>, width: usize) -> Topology {
        let groups = Groups::new(devices.len(), width).expect("enough devices");
        Topology::of_groups(&groups, devices).expect("whole groups")
    }

    #[test]
    fn one_hosts_groups_mean_what_they_always_meant() {
        let view = rotation(devices(7), 6);
        let groups = Groups::new(7, 6).expect("enough devices");
        assert_eq!((view.epoch(), view.groups(), view.width()), (0, 7, 6));
        for group in 0..7 {
            for slot in 0..6 {
                let device = groups.device(group, slot).expect("a slot") as u8;
                assert_eq!(view.slot(group, slot).map(|device| device.id), Some(DeviceId([device; 16])));
            }
        }
        assert!(view.slot(7, 0).is_none() && view.slot(0, 6).is_none() && view.slot(u32::MAX, 0).is_none());
    }

    #[test]
    fn new_data_is_spread_evenly_while_all_is_well() {
        let view = rotation(devices(12), 6);
        let mut chosen = [0; 12];
        (0..1200).for_each(|number| chosen[view.choose(number, 5).expect("a group") as usize] += 1);
        assert!(chosen.iter().all(|n| (60..=140).contains(n)), "{chosen:?}");
    }

    #[test]
    fn new_data_goes_around_absent_avoided_and_slow_devices() {
        let mut all = devices(24);
        all[3].store = None;
        all[11].avoid = true;
        let view = rotation(all, 6);
        let members = |group| view.slots(group).map(|device| device.id.0[0]).collect::<Vec<_>>();
        for number in 0..500 {
            let group = view.choose(number, 5).expect("a group");
            assert!(!members(group).contains(&3) && !members(group).contains(&11), "{number}: {:?}", members(group));
        }
        for device in view.devices() {
            let latency = std::time::Duration::from_millis(if device.id.0[0] == 18 { 100 } else { 1 });
            (0..20).for_each(|_| device.pace.begin(Kind::Put, std::time::Duration::ZERO).answered(latency));
        }
        crate::pace::judge(view.devices(), std::time::Duration::ZERO);
        let on_slow =
            (0..640).filter(|number| members(view.choose(*number, 5).expect("a group")).contains(&18)).count();
        assert!((1..=10).contains(&on_slow), "{on_slow} of 640: a slow device is tried now and then, no more");
    }

    #[test]
    fn what_cannot_be_chosen_is_none() {
        let mut all = devices(6);
        assert_eq!(rotation(all.clone(), 6).choose(5, 5), Some(5));
        all[0].store = None;
        assert!(rotation(all.clone(), 6).choose(5, 5).is_some());
        all[1].store = None;
        assert_eq!(rotation(all.clone(), 6).choose(5, 5), None);
        all[1].avoid = true;
        assert_eq!(Topology::new(1, 6, all.clone(), vec![]).expect("no group").choose(1, 5), None);
        assert!(Topology::new(1, 6, all.clone(), vec![0; 7]).is_none(), "half a group");
        assert!(Topology::new(1, 6, all, vec![6; 6]).is_none(), "a device that is not there");
    }

    #[test]
    fn what_was_measured_outlives_a_view() {
        let older = rotation(devices(6), 6);
        (0..20).for_each(|_| {
            older.devices()[2]
                .pace
                .begin(Kind::Get, std::time::Duration::ZERO)
                .answered(std::time::Duration::from_millis(7))
        });
        let mut newer = rotation(devices(7), 6);
        newer.adopt(&older);
        assert!(newer.devices()[2].pace.percentile(Kind::Get, 50).is_some());
        assert!(newer.devices()[6].pace.percentile(Kind::Get, 50).is_none());
    }
}
