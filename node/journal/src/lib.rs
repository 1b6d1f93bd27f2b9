//! The journal of one partition as a plain state machine: what may be acknowledged, and when.
//!
//! A chain has one member per local copy ("mirror"), each on a device of its own. Rules that hold always:
//! - a position is acknowledged only when it is durable on every live member of the current epoch, when
//!   these are at least [`Policy::copies_min`], and when the epoch's record is itself established;
//! - acknowledgements come in order of position;
//! - a failed member is left behind by a new epoch, whose record is durable on [`Policy::epoch_copies`]
//!   devices (all members among them) before anything is acknowledged under it;
//! - epochs of a later run are newer than all epochs of earlier runs, so that a record which reached too
//!   few devices before a crash can never come back and win.
//!
//! No I/O, no clock, no task, no randomness: the shell (`replica`) does what [`Output`] says and reports
//! back with [`Input`]. Left out: members on other hosts, leases, members that join while serving.

#![forbid(unsafe_code)]

mod chain;
mod recovery;

use base::{DeviceId, Lsn};

pub use chain::{Chain, Input, Output, Refusal};
pub use recovery::{CopyTask, Found, Plan, RecoveryError, plan};

/// The version of a chain's configuration. Ordered by run, then by change within the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// The opening of the journal that made it; promised on the devices before the run's first epoch.
    pub run: u32,
    /// Changes of members since, the opening itself being 0.
    pub change: u32,
}

impl Epoch {
    /// The epoch as one number of the same order.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        u64::from(self.run) << 32 | u64::from(self.change)
    }

    /// The epoch of such a number.
    #[must_use]
    pub fn from_u64(number: u64) -> Self {
        Self { run: (number >> 32) as u32, change: number as u32 }
    }

    fn next_change(self) -> Self {
        Self { run: self.run, change: self.change.checked_add(1).expect("a run loses fewer than 2^32 members") }
    }
}

/// Who keeps the journal since when.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EpochRecord {
    /// Which configuration.
    pub epoch: Epoch,
    /// Devices that keep a copy of every record, ascending, at least one.
    pub members: Vec<DeviceId>,
    /// The first position not yet acknowledged when the epoch began.
    pub first: Lsn,
}

/// What must agree for the whole life of a journal, and its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Copies of every record while all devices are well.
    pub copies: usize,
    /// Fewer live copies than this and appends are refused.
    pub copies_min: usize,
    /// Devices that must hold an epoch's record before it counts.
    pub epoch_copies: usize,
    /// Devices that may be missing when the journal is opened.
    pub missing_max: usize,
    /// Positions that may be in flight at once; bounds memory, and what recovery must roll forward.
    pub window: usize,
}

impl Policy {
    /// The policy that keeps every acknowledged record through the loss of any `tolerated` of `devices`.
    ///
    /// Two openings must meet on one device, so fewer than half may be missing even where `tolerated`
    /// is larger.
    ///
    /// # Panics
    /// When there is no device.
    #[must_use]
    pub fn for_tolerance(devices: usize, tolerated: usize) -> Self {
        assert!(devices > 0, "a journal needs a device");
        let copies = (tolerated + 1).min(devices);
        let missing_max = tolerated.min((devices - 1) / 2);
        Self { copies, copies_min: (copies - 1).max(1), epoch_copies: missing_max + 1, missing_max, window: 64 }
    }
}
