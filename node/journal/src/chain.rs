//! The chain while it serves: append, persist, acknowledge, lose a member.
//!
//! Invariants (asserted around every step): positions in flight are consecutive and end right before
//! `next`; nothing in flight lies below the acknowledged position; members are live, distinct and
//! ascending; a chain that may not write has nothing in flight.

use std::collections::{BTreeSet, VecDeque};

use base::{DeviceId, Lsn};

use crate::{EpochRecord, Policy};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input {
    /// Someone wants `entry` (the shell's name for some bytes) appended.
    Append {
        /// The shell's name.
        entry: u64,
    },
    /// A position is durable on a device.
    Persisted {
        /// The device.
        device: DeviceId,
        /// The position.
        lsn: Lsn,
    },
    /// An epoch's record is durable on a device.
    EpochPersisted {
        /// The device.
        device: DeviceId,
        /// Which record.
        record: EpochRecord,
    },
    /// A device failed, or could not persist what it was told to.
    Failed {
        /// The device.
        device: DeviceId,
    },
    /// Positions below this are needed no more.
    TrimTo {
        /// The first that is.
        below: Lsn,
    },
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Output {
    /// Make `entry` durable on a member as position `lsn`, then answer `Persisted` or `Failed`.
    Persist {
        /// The member.
        device: DeviceId,
        /// The position.
        lsn: Lsn,
        /// The shell's name for the bytes.
        entry: u64,
    },
    /// Make an epoch's record durable on a device, then answer `EpochPersisted` or `Failed`.
    PersistEpoch {
        /// The device.
        device: DeviceId,
        /// The record.
        record: EpochRecord,
    },
    /// The entry is durable as promised; in order of position.
    Acked {
        /// The position.
        lsn: Lsn,
        /// The shell's name.
        entry: u64,
    },
    /// The entry will not be acknowledged by this run. It may be on some members, and then a later
    /// opening may find it: its outcome is unknown.
    Abandoned {
        /// The position.
        lsn: Lsn,
        /// The shell's name.
        entry: u64,
    },
    /// The entry was not taken; it is nowhere.
    Refused {
        /// The shell's name.
        entry: u64,
        /// Why.
        reason: Refusal,
    },
    /// Another epoch began; its record is not established yet.
    EpochChanged {
        /// The new record.
        record: EpochRecord,
    },
    /// Remove positions below `below` from a member.
    Trim {
        /// The member.
        device: DeviceId,
        /// The first position to stay.
        below: Lsn,
    },
}

/// Why an append was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The epoch of the opening is not established yet; without this, a later opening could find records
    /// and no epoch, and could not tell that from lost facts.
    Opening,
    /// As many positions are in flight as may be.
    WindowFull,
    /// Too few live copies; until the journal is opened again with enough devices it can only be read.
    TooFewCopies {
        /// Live copies.
        live: usize,
        /// Copies needed.
        needed: usize,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Flight {
    lsn: Lsn,
    entry: u64,
    on: BTreeSet<DeviceId>,
}

/// One partition's chain on one host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Chain {
    policy: Policy,
    /// The newest configuration that is, or is being, made durable.
    record: EpochRecord,
    /// Members of `record` that have not failed.
    live: BTreeSet<DeviceId>,
    /// Devices, members or not, that have not failed.
    devices: BTreeSet<DeviceId>,
    /// Devices that hold `record`.
    holders: BTreeSet<DeviceId>,
    flight: VecDeque<Flight>,
    next: Lsn,
    /// First position kept.
    floor: Lsn,
    writable: bool,
    /// Whether an epoch of this run was established.
    opened: bool,
}

impl Chain {
    /// Opens a chain whose members all hold positions `floor..next` and nothing from `next` on.
    /// `record` is a new epoch: its record goes to all `devices`.
    ///
    /// # Panics
    /// When `record` has no member, names one that is not among `devices`, or `floor` lies above `next`.
    #[must_use]
    pub fn open(
        policy: Policy,
        record: EpochRecord,
        devices: BTreeSet<DeviceId>,
        floor: Lsn,
        next: Lsn,
        out: &mut Vec<Output>,
    ) -> Self {
        assert!(!record.members.is_empty(), "an epoch has a member");
        assert!(record.members.is_sorted(), "members ascend");
        assert!(record.members.iter().all(|m| devices.contains(m)), "members are among the devices");
        assert!(Lsn(0) < floor && floor <= next, "the floor {floor:?} lies above the end {next:?}");
        let live: BTreeSet<_> = record.members.iter().copied().collect();
        assert_eq!(live.len(), record.members.len(), "members are distinct");
        let mut chain = Self {
            policy,
            record,
            live,
            devices,
            holders: BTreeSet::new(),
            flight: VecDeque::new(),
            next,
            floor,
            writable: true,
            opened: false,
        };
        chain.writable = chain.enough();
        if chain.writable {
            chain.announce(out);
        }
        chain.check();
        chain
    }

    /// Takes one input; appends what is to be done to `out`.
    pub fn step(&mut self, input: Input, out: &mut Vec<Output>) {
        self.check();
        match input {
            Input::Append { entry } => self.append(entry, out),
            Input::Persisted { device, lsn } => self.persisted(device, lsn, out),
            Input::EpochPersisted { device, record } => {
                if record == self.record && self.devices.contains(&device) {
                    self.holders.insert(device);
                    self.opened |= self.is_established();
                    self.acknowledge(out);
                }
            }
            Input::Failed { device } => self.failed(device, out),
            Input::TrimTo { below } => self.trim(below, out),
        }
        self.check();
    }

    /// The position the next append gets.
    #[must_use]
    pub fn next(&self) -> Lsn {
        self.next
    }

    /// The first position kept.
    #[must_use]
    pub fn floor(&self) -> Lsn {
        self.floor
    }

    /// The first position that is not acknowledged.
    #[must_use]
    pub fn unacked(&self) -> Lsn {
        self.flight.front().map_or(self.next, |f| f.lsn)
    }

    /// The newest epoch's record.
    #[must_use]
    pub fn record(&self) -> &EpochRecord {
        &self.record
    }

    /// Members that have not failed, ascending.
    pub fn live(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.live.iter().copied()
    }

    /// Whether appends are taken.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Whether the newest epoch's record is where it must be before anything is acknowledged.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.holders.len() >= self.policy.epoch_copies && self.live.iter().all(|m| self.holders.contains(m))
    }

    fn enough(&self) -> bool {
        self.live.len() >= self.policy.copies_min && self.devices.len() >= self.policy.epoch_copies
    }

    fn append(&mut self, entry: u64, out: &mut Vec<Output>) {
        if !self.writable {
            let reason = Refusal::TooFewCopies { live: self.live.len(), needed: self.policy.copies_min };
            return out.push(Output::Refused { entry, reason });
        }
        if !self.opened {
            return out.push(Output::Refused { entry, reason: Refusal::Opening });
        }
        if self.flight.len() >= self.policy.window {
            return out.push(Output::Refused { entry, reason: Refusal::WindowFull });
        }
        let lsn = self.next;
        self.next = lsn.next();
        self.flight.push_back(Flight { lsn, entry, on: BTreeSet::new() });
        out.extend(self.live.iter().map(|&device| Output::Persist { device, lsn, entry }));
    }

    fn persisted(&mut self, device: DeviceId, lsn: Lsn, out: &mut Vec<Output>) {
        let Some(first) = self.flight.front().map(|f| f.lsn) else { return };
        // A word from a deposed member, or about a position that was settled meanwhile, counts for nothing.
        if lsn < first || lsn >= self.next || !self.live.contains(&device) {
            return;
        }
        let flight = &mut self.flight[(lsn.0 - first.0) as usize];
        assert_eq!(flight.lsn, lsn, "positions in flight are consecutive");
        flight.on.insert(device);
        self.acknowledge(out);
    }

    fn acknowledge(&mut self, out: &mut Vec<Output>) {
        if !self.writable || !self.is_established() {
            return;
        }
        while self.flight.front().is_some_and(|f| self.live.is_subset(&f.on)) {
            let flight = self.flight.pop_front().expect("looked at just now");
            assert!(self.live.len() >= self.policy.copies_min, "an acknowledged record has enough copies");
            out.push(Output::Acked { lsn: flight.lsn, entry: flight.entry });
        }
    }

    fn failed(&mut self, device: DeviceId, out: &mut Vec<Output>) {
        self.devices.remove(&device);
        let was_member = self.live.remove(&device);
        if !self.writable {
            return;
        }
        if !self.enough() {
            // No epoch is written: nothing will be acknowledged, and the old record leaves the next
            // opening all the members it may find.
            self.writable = false;
            out.extend(self.flight.drain(..).map(|f| Output::Abandoned { lsn: f.lsn, entry: f.entry }));
            return;
        }
        if was_member {
            self.record = EpochRecord {
                epoch: self.record.epoch.next_change(),
                members: self.live.iter().copied().collect(),
                first: self.unacked(),
            };
            self.holders.clear();
            self.announce(out);
        }
    }

    fn announce(&self, out: &mut Vec<Output>) {
        out.push(Output::EpochChanged { record: self.record.clone() });
        out.extend(self.devices.iter().map(|&device| Output::PersistEpoch { device, record: self.record.clone() }));
    }

    fn trim(&mut self, below: Lsn, out: &mut Vec<Output>) {
        // The newest acknowledged record always stays: it tells a later opening where the journal ends.
        let newest_acked = Lsn(self.unacked().0 - 1);
        let below = below.min(newest_acked);
        if below <= self.floor {
            return;
        }
        self.floor = below;
        out.extend(self.live.iter().map(|&device| Output::Trim { device, below }));
    }

    fn check(&self) {
        let end = self.unacked().0 + self.flight.len() as u64;
        assert_eq!(end, self.next.0, "positions in flight end right before the next");
        assert!(self.floor <= self.unacked(), "what is in flight is never trimmed");
        assert!(self.flight.len() <= self.policy.window, "the window bounds what is in flight");
        assert!(self.writable || self.flight.is_empty(), "a chain that may not write has nothing in flight");
        assert!(self.live.is_subset(&self.devices), "a live member is a live device");
        if self.writable {
            assert!(self.enough(), "a chain that writes has enough copies");
            assert!(self.record.members.iter().eq(self.live.iter()), "the epoch names the live members");
        }
    }
}
