//! What to do with the pieces of a journal found on the devices that are there.
//!
//! The newest epoch among enough devices names the members; every acknowledged record is on each of
//! them. The log is what they hold together from the floor on without a gap: whatever lies behind a gap
//! was never acknowledged and is removed before anything new is written, lest it be taken for new later.

use std::collections::{BTreeMap, BTreeSet};

use base::{DeviceId, Lsn};
use thiserror::Error;

use crate::{Epoch, EpochRecord, Policy};

/// What one present device holds of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The device.
    pub device: DeviceId,
    /// The newest run promised on it; 0 for none.
    pub run: u32,
    /// Its epoch record.
    pub record: Option<EpochRecord>,
    /// The first position kept, as it knows.
    pub floor: Option<Lsn>,
    /// Positions whose records it holds.
    pub lsns: BTreeSet<Lsn>,
}

/// A record to be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyTask {
    /// Its position.
    pub lsn: Lsn,
    /// Members that hold it.
    pub from: Vec<DeviceId>,
    /// Devices that are to.
    pub to: Vec<DeviceId>,
}

/// How to make the members agree. In this order: promise `run` on all present devices; copy; drop; open
/// the chain with `record`; once that epoch is established, remove the leftovers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The run that opens now.
    pub run: u32,
    /// The epoch it opens with.
    pub record: EpochRecord,
    /// Members that were so before; the others are recruits.
    pub veterans: Vec<DeviceId>,
    /// First position kept.
    pub floor: Lsn,
    /// The first free position.
    pub next: Lsn,
    /// Records to be copied, by position.
    pub copies: Vec<CopyTask>,
    /// Records outside the log to be removed from members before the chain is opened.
    pub drops: BTreeMap<DeviceId, Vec<Lsn>>,
    /// Records on devices that are members no more. Until the new epoch is established they may still be
    /// the only copies that another opening would find.
    pub leftovers: BTreeMap<DeviceId, Vec<Lsn>>,
}

/// Why a journal cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecoveryError {
    /// Too many devices are missing to know which configuration is the newest.
    #[error("{missing} devices are missing; the journal can be opened with at most {tolerated} missing")]
    TooManyMissing {
        /// How many.
        missing: usize,
        /// How many may be.
        tolerated: usize,
    },
    /// None of the newest epoch's members is there.
    #[error("no member of the newest epoch is present; one of {members:?} is needed")]
    NoMember {
        /// The members.
        members: Vec<DeviceId>,
    },
    /// Two devices hold different records of one epoch.
    #[error("devices disagree about epoch {}.{}", epoch.run, epoch.change)]
    Disagreement {
        /// The epoch.
        epoch: Epoch,
    },
    /// An acknowledged record is on no member.
    #[error("acknowledged position {} is on no member", lsn.0)]
    Lost {
        /// The position.
        lsn: Lsn,
    },
    /// There are records, but no device knows an epoch.
    #[error("journal records without an epoch on device {device}")]
    NoEpoch {
        /// Where.
        device: DeviceId,
    },
}

/// Decides how to open a journal from what `found` holds while `missing` devices are away. Recruits are
/// taken in the order of `found`.
///
/// # Errors
/// [`RecoveryError`]; nothing may be changed then.
///
/// # Panics
/// When nothing was found at all.
pub fn plan(policy: &Policy, found: &[Found], missing: usize) -> Result<Plan, RecoveryError> {
    if missing > policy.missing_max {
        return Err(RecoveryError::TooManyMissing { missing, tolerated: policy.missing_max });
    }
    assert!(!found.is_empty(), "at most half of the devices are missing, so one is there");
    let newest = newest_record(found)?;
    let seen = found.iter().map(|f| f.run.max(f.record.as_ref().map_or(0, |r| r.epoch.run))).max().unwrap_or(0);
    let run = seen.checked_add(1).expect("a journal is opened fewer than 2^32 times");
    let veterans: Vec<&Found> = match &newest {
        Some(record) => found.iter().filter(|f| record.members.contains(&f.device)).collect(),
        None => Vec::new(),
    };
    if let (Some(record), true) = (&newest, veterans.is_empty()) {
        return Err(RecoveryError::NoMember { members: record.members.clone() });
    }
    let floor = found.iter().filter_map(|f| f.floor).max().unwrap_or(Lsn(1));
    let next = end_of_log(&veterans, floor, newest.as_ref())?;
    let veteran_ids: Vec<DeviceId> = veterans.iter().map(|f| f.device).collect();
    let members = recruit(policy, found, &veteran_ids);
    let copies = copies(&veterans, &members, &veteran_ids, floor, next);
    let (drops, leftovers) = drops(found, &members, floor, next);
    let record = EpochRecord { epoch: Epoch { run, change: 0 }, members, first: next };
    Ok(Plan { run, record, veterans: veteran_ids, floor, next, copies, drops, leftovers })
}

fn newest_record(found: &[Found]) -> Result<Option<EpochRecord>, RecoveryError> {
    let mut newest: Option<&EpochRecord> = None;
    for record in found.iter().filter_map(|f| f.record.as_ref()) {
        match newest {
            Some(n) if n.epoch > record.epoch => {}
            Some(n) if n.epoch == record.epoch && n != record => {
                return Err(RecoveryError::Disagreement { epoch: n.epoch });
            }
            _ => newest = Some(record),
        }
    }
    match (newest, found.iter().find(|f| !f.lsns.is_empty())) {
        (None, Some(f)) => Err(RecoveryError::NoEpoch { device: f.device }),
        (newest, _) => Ok(newest.cloned()),
    }
}

/// The position after the last of the log.
fn end_of_log(veterans: &[&Found], floor: Lsn, newest: Option<&EpochRecord>) -> Result<Lsn, RecoveryError> {
    let mut next = floor;
    while veterans.iter().any(|f| f.lsns.contains(&next)) {
        next = next.next();
    }
    // What was acknowledged when the epoch began must be there, and so must the record at a floor that was
    // ever raised: it is only raised to an acknowledged position.
    let acked_end = newest.map_or(Lsn(1), |r| r.first).max(if floor > Lsn(1) { floor.next() } else { floor });
    if next < acked_end { Err(RecoveryError::Lost { lsn: next }) } else { Ok(next) }
}

fn recruit(policy: &Policy, found: &[Found], veterans: &[DeviceId]) -> Vec<DeviceId> {
    let mut members = veterans.to_vec();
    let free = found.iter().map(|f| f.device).filter(|d| !veterans.contains(d));
    members.extend(free.take(policy.copies.saturating_sub(veterans.len())));
    members.sort_unstable();
    members
}

fn copies(veterans: &[&Found], members: &[DeviceId], ids: &[DeviceId], floor: Lsn, next: Lsn) -> Vec<CopyTask> {
    let mut copies = Vec::new();
    let mut lsn = floor;
    while lsn < next {
        let from: Vec<_> = veterans.iter().filter(|f| f.lsns.contains(&lsn)).map(|f| f.device).collect();
        assert!(!from.is_empty(), "the log has no gap");
        // What a recruit holds under that position may be of a past it did not share: always replaced.
        let to: Vec<_> = members.iter().copied().filter(|m| !(ids.contains(m) && from.contains(m))).collect();
        if !to.is_empty() {
            copies.push(CopyTask { lsn, from, to });
        }
        lsn = lsn.next();
    }
    copies
}

type ByDevice = BTreeMap<DeviceId, Vec<Lsn>>;

fn drops(found: &[Found], members: &[DeviceId], floor: Lsn, next: Lsn) -> (ByDevice, ByDevice) {
    let (mut drops, mut leftovers) = (ByDevice::new(), ByDevice::new());
    for f in found.iter().filter(|f| !f.lsns.is_empty()) {
        if members.contains(&f.device) {
            let extra: Vec<Lsn> = f.lsns.iter().copied().filter(|l| *l < floor || *l >= next).collect();
            if !extra.is_empty() {
                drops.insert(f.device, extra);
            }
        } else {
            leftovers.insert(f.device, f.lsns.iter().copied().collect());
        }
    }
    (drops, leftovers)
}
