//! Every interleaving of a small world: persists that complete in any order, devices that fail at any
//! moment, a crash at any moment, devices that are away at the next opening, twice over.
//!
//! Laws, checked in every state:
//! - acknowledgements come in order, each position once;
//! - when a position is acknowledged it is durable on every live member, and these are enough;
//! - whatever devices are away at an opening (as many as may be, those counted whose failure no later
//!   opening has made good), every acknowledged entry is found, at its position, on every member, and no position is
//!   found to hold two entries.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use base::{DeviceId, Lsn};
use journal::{Chain, EpochRecord, Found, Input, Output, Plan, Policy, plan};

/// What is on one device's medium.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Medium {
    run: u32,
    record: Option<EpochRecord>,
    floor: Option<Lsn>,
    log: BTreeMap<Lsn, u64>,
}

/// A write on its way to a device.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Write {
    Log(Lsn, u64),
    Epoch(u64),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    media: BTreeMap<DeviceId, Medium>,
    chain: Chain,
    pending: BTreeSet<(DeviceId, Write)>,
    records: BTreeMap<u64, EpochRecord>,
    acked: BTreeMap<Lsn, u64>,
    /// Found at the opening; counts as acknowledged once the opening's epoch is established.
    recovered: BTreeMap<Lsn, u64>,
    /// Devices whose failure an established epoch of a later opening has not made good.
    failed: BTreeSet<DeviceId>,
    /// Those among them that failed since the opening.
    failed_now: BTreeSet<DeviceId>,
    /// Devices to be emptied once the opening's epoch is established.
    leftovers: BTreeSet<DeviceId>,
    entries_left: u64,
    failures_left: u32,
    crashes_left: u32,
    trims_left: u32,
}

struct Scenario {
    devices: u8,
    policy: Policy,
    entries: u64,
    failures: u32,
    crashes: u32,
    trims: u32,
}

fn device(n: u8) -> DeviceId {
    DeviceId([n; 16])
}

fn found(media: &BTreeMap<DeviceId, Medium>, away: &BTreeSet<DeviceId>) -> Vec<Found> {
    let present = media.iter().filter(|(device, _)| !away.contains(device));
    let found = present.map(|(device, m)| Found {
        device: *device,
        run: m.run,
        record: m.record.clone(),
        floor: m.floor,
        lsns: m.log.keys().copied().collect(),
    });
    found.collect()
}

/// Opens the journal with `away` missing: what the shell does, all at once.
fn open(scenario: &Scenario, media: &mut BTreeMap<DeviceId, Medium>, away: &BTreeSet<DeviceId>) -> Plan {
    let plan = plan(&scenario.policy, &found(media, away), away.len()).expect("few enough are away");
    let present: Vec<DeviceId> = media.keys().copied().filter(|d| !away.contains(d)).collect();
    for device in &present {
        media.get_mut(device).unwrap().run = plan.run;
    }
    for task in &plan.copies {
        let entries: BTreeSet<u64> = task.from.iter().map(|d| media[d].log[&task.lsn]).collect();
        assert_eq!(entries.len(), 1, "position {:?} holds different entries on {:?}", task.lsn, task.from);
        for to in &task.to {
            media.get_mut(to).unwrap().log.insert(task.lsn, *entries.first().unwrap());
        }
    }
    for member in &plan.record.members {
        media.get_mut(member).unwrap().floor = Some(plan.floor);
    }
    for (device, lsns) in &plan.drops {
        media.get_mut(device).unwrap().log.retain(|lsn, _| !lsns.contains(lsn));
    }
    plan
}

impl World {
    fn perform(&mut self, scenario: &Scenario, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Persist { device, lsn, entry } => drop(self.pending.insert((device, Write::Log(lsn, entry)))),
                Output::PersistEpoch { device, record } => {
                    let name = record.epoch.to_u64();
                    self.pending.insert((device, Write::Epoch(name)));
                    self.records.insert(name, record);
                }
                Output::Acked { lsn, entry } => {
                    let newest = self.acked.keys().next_back().copied().unwrap_or_default();
                    assert!(lsn > newest, "{lsn:?} is acknowledged after {newest:?}");
                    let live: Vec<DeviceId> = self.chain.live().collect();
                    assert!(live.len() >= scenario.policy.copies_min);
                    for member in live {
                        assert_eq!(self.media[&member].log.get(&lsn), Some(&entry), "{lsn:?} is not on {member}");
                    }
                    self.acked.insert(lsn, entry);
                }
                Output::Trim { device, below } => {
                    // Floor first, as the shell does; the removal may or may not happen before a crash: not here.
                    self.media.get_mut(&device).unwrap().floor = Some(below);
                }
                Output::Refused { entry, .. } => {
                    assert!(!self.media.values().any(|m| m.log.values().any(|e| *e == entry)))
                }
                Output::Abandoned { .. } | Output::EpochChanged { .. } => {}
            }
        }
    }

    fn step(&mut self, scenario: &Scenario, input: Input) {
        let mut out = Vec::new();
        self.chain.step(input, &mut out);
        if self.chain.is_established() {
            self.acked.append(&mut self.recovered);
            self.failed.retain(|device| self.failed_now.contains(device));
            for device in std::mem::take(&mut self.leftovers) {
                self.media.get_mut(&device).unwrap().log.clear();
            }
        }
        self.perform(scenario, out);
    }

    /// Every state that one event makes of this one.
    fn successors(&self, scenario: &Scenario) -> Vec<World> {
        let mut next = Vec::new();
        let mut push = |change: &dyn Fn(&mut World)| {
            let mut world = self.clone();
            change(&mut world);
            next.push(world);
        };
        if self.entries_left > 0 {
            push(&|w| {
                w.entries_left -= 1;
                // Names never repeat, so that a stale entry is told from a new one at the same position.
                let entry = 100 + w.entries_left;
                w.step(scenario, Input::Append { entry });
            });
        }
        if self.trims_left > 0
            && let Some(newest) = self.acked.keys().next_back().copied()
        {
            push(&|w| {
                w.trims_left -= 1;
                w.step(scenario, Input::TrimTo { below: newest });
            });
        }
        for (device, write) in &self.pending {
            push(&|w| {
                w.pending.remove(&(*device, write.clone()));
                let medium = w.media.get_mut(device).unwrap();
                match write {
                    Write::Log(lsn, entry) => {
                        medium.log.insert(*lsn, *entry);
                        w.step(scenario, Input::Persisted { device: *device, lsn: *lsn });
                    }
                    Write::Epoch(name) => {
                        let record = w.records[name].clone();
                        // Writes of one fact may overtake one another; the newest stays, as the store orders puts.
                        if medium.record.as_ref().is_none_or(|r| r.epoch < record.epoch) {
                            medium.record = Some(record.clone());
                        }
                        w.step(scenario, Input::EpochPersisted { device: *device, record });
                    }
                }
            });
        }
        if self.failures_left > 0 {
            for device in self.media.keys() {
                push(&|w| {
                    w.failures_left -= 1;
                    w.failed.insert(*device);
                    w.failed_now.insert(*device);
                    w.pending.retain(|(d, _)| d != device);
                    w.step(scenario, Input::Failed { device: *device });
                });
            }
        }
        next
    }

    /// The states after a crash here, one for every set of devices that may be away.
    fn after_crash(&self, scenario: &Scenario, check_only: bool) -> Vec<World> {
        let devices: Vec<DeviceId> = self.media.keys().copied().collect();
        let mut worlds = Vec::new();
        for mask in 0u32..1 << devices.len() {
            let away: BTreeSet<DeviceId> =
                devices.iter().enumerate().filter(|(i, _)| mask & (1 << i) != 0).map(|(_, d)| *d).collect();
            if away.union(&self.failed).count() > scenario.policy.missing_max {
                continue;
            }
            let mut media = self.media.clone();
            let opened = open(scenario, &mut media, &away);
            for (lsn, entry) in self.acked.range(opened.floor..) {
                assert!(*lsn < opened.next, "acknowledged {lsn:?} is lost with {away:?} away: {self:#?}");
                for member in &opened.record.members {
                    assert_eq!(media[member].log.get(lsn), Some(entry), "{lsn:?} on {member} with {away:?} away");
                }
            }
            if check_only {
                continue;
            }
            let mut out = Vec::new();
            let present = devices.iter().copied().filter(|d| !away.contains(d)).collect();
            let chain = Chain::open(scenario.policy, opened.record, present, opened.floor, opened.next, &mut out);
            let mut log = media[&chain.record().members[0]].log.clone();
            let recovered = log.split_off(&self.acked.keys().next_back().map_or(Lsn(1), |newest| newest.next()));
            let (pending, failed_now) = (BTreeSet::new(), BTreeSet::new());
            let leftovers = opened.leftovers.into_keys().collect();
            let mut world = World { media, chain, pending, recovered, failed_now, leftovers, ..self.clone() };
            world.crashes_left -= 1;
            world.perform(scenario, out);
            worlds.push(world);
        }
        worlds
    }
}

fn explore(scenario: &Scenario) -> usize {
    let mut media: BTreeMap<_, _> = (1..=scenario.devices).map(|n| (device(n), Medium::default())).collect();
    let opened = open(scenario, &mut media, &BTreeSet::new());
    let mut out = Vec::new();
    let devices = media.keys().copied().collect();
    let mut start = World {
        media,
        chain: Chain::open(scenario.policy, opened.record, devices, opened.floor, opened.next, &mut out),
        pending: BTreeSet::new(),
        records: BTreeMap::new(),
        acked: BTreeMap::new(),
        recovered: BTreeMap::new(),
        failed: BTreeSet::new(),
        failed_now: BTreeSet::new(),
        leftovers: BTreeSet::new(),
        entries_left: scenario.entries,
        failures_left: scenario.failures,
        crashes_left: scenario.crashes,
        trims_left: scenario.trims,
    };
    start.perform(scenario, out);
    let mut seen = HashSet::new();
    let mut todo = vec![start];
    while let Some(world) = todo.pop() {
        use std::hash::{BuildHasher, Hash, Hasher};
        // 128 bits of the state: a collision would hide a state, once in 2^80 runs of this size.
        let digest = |salt: u64| {
            let mut hasher = std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default().build_hasher();
            salt.hash(&mut hasher);
            world.hash(&mut hasher);
            hasher.finish()
        };
        if !seen.insert((digest(1), digest(2))) {
            continue;
        }
        todo.extend(world.after_crash(scenario, world.crashes_left == 0));
        todo.extend(world.successors(scenario));
    }
    seen.len()
}

#[test]
fn three_mirrors_on_five_devices_lose_any_two() {
    let mut policy = Policy::for_tolerance(5, 2);
    policy.window = 2;
    assert_eq!((policy.copies, policy.copies_min, policy.epoch_copies, policy.missing_max), (3, 2, 3, 2));
    let states = explore(&Scenario { devices: 5, policy, entries: 1, failures: 1, crashes: 0, trims: 0 });
    assert!(states > 1_000, "{states} states");
}

#[test]
fn two_mirrors_on_three_devices_through_two_crashes() {
    let mut policy = Policy::for_tolerance(3, 1);
    policy.window = 2;
    assert_eq!((policy.copies, policy.copies_min, policy.epoch_copies, policy.missing_max), (2, 1, 2, 1));
    let states = explore(&Scenario { devices: 3, policy, entries: 2, failures: 1, crashes: 2, trims: 0 });
    assert!(states > 10_000, "{states} states");
}

#[test]
fn three_entries_in_flight_and_a_trim() {
    let mut policy = Policy::for_tolerance(3, 1);
    policy.window = 3;
    let states = explore(&Scenario { devices: 3, policy, entries: 3, failures: 1, crashes: 0, trims: 1 });
    assert!(states > 4_000, "{states} states");
}
