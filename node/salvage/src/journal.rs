//! The journal's copies on several devices: which record belongs at each position.

use std::collections::BTreeMap;

use base::{Lsn, PartitionId};
use bytes::Bytes;
use format::{JOURNAL_HEADER_BYTES, JournalHeader, ShardKey, Space};
use serde::Serialize;
use shards::StoreHandle;

use crate::walk::Pages;

/// One record of a journal, and the devices that hold it.
#[derive(Debug, Clone)]
pub(crate) struct Position {
    pub(crate) partition: PartitionId,
    pub(crate) lsn: Lsn,
    pub(crate) devices: Vec<u16>,
}

/// What comparing the copies found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct JournalFindings {
    /// Partition.
    pub partition: u32,
    /// First and last position that any device holds.
    pub first: u64,
    /// See `first`.
    pub last: u64,
    /// Positions that some device holds.
    pub positions: u64,
    /// Copies, all positions together.
    pub copies: u64,
    /// Positions between the first and the last that no device can give.
    pub absent: u64,
    /// Positions at which devices hold different records.
    pub conflicts: u64,
    /// Copies whose header cannot be read or is no record of this place.
    pub unreadable: u64,
}

/// The journals that a set of devices holds.
#[derive(Debug, Default)]
pub struct JournalCopies {
    pub(crate) positions: Vec<Position>,
    /// One for each partition.
    pub findings: Vec<JournalFindings>,
}

#[derive(Default)]
struct Copies {
    /// Candidates by their link word; usually one.
    by_link: BTreeMap<u32, (Ancestry, Vec<u16>)>,
    unreadable: u64,
}

#[derive(Clone, Copy)]
struct Ancestry {
    epoch: u64,
    previous: u32,
}

impl JournalCopies {
    /// Reads the headers of every copy and decides, position by position.
    pub async fn read(stores: &[StoreHandle]) -> Self {
        let mut found: BTreeMap<u32, BTreeMap<u64, Copies>> = BTreeMap::new();
        for (device, store) in (0u16..).zip(stores) {
            let mut pages = Pages::of(Space::Journal);
            while let Ok(Some(info)) = pages.peek(store).await {
                pages.pop();
                let copies = found.entry(info.key.owner).or_default().entry(info.key.id).or_default();
                let (partition, lsn) = (PartitionId(info.key.owner), Lsn(info.key.id));
                let header = match store.get(info.key, 0..JOURNAL_HEADER_BYTES as u32).await {
                    Ok(bytes) => JournalHeader::parse(&bytes, partition, lsn).ok(),
                    Err(_) => None,
                };
                match header {
                    Some(header) => {
                        let about = Ancestry { epoch: header.epoch.get(), previous: header.previous.get() };
                        let entry = copies.by_link.entry(header.header_crc.get()).or_insert((about, Vec::new()));
                        entry.1.push(device);
                    }
                    None => copies.unreadable += 1,
                }
            }
        }
        let mut this = Self::default();
        for (partition, positions) in found {
            this.decide(PartitionId(partition), &positions);
        }
        this
    }

    /// From the newest position down: a record names its predecessor; where none does, the highest epoch
    /// and then the most copies win.
    fn decide(&mut self, partition: PartitionId, positions: &BTreeMap<u64, Copies>) {
        let mut chosen: Vec<Position> = Vec::new();
        let mut findings = JournalFindings { partition: partition.0, ..JournalFindings::default() };
        let mut after: Option<(u64, u32)> = None;
        for (lsn, copies) in positions.iter().rev() {
            findings.copies += copies.by_link.values().map(|(_, devices)| devices.len() as u64).sum::<u64>();
            findings.unreadable += copies.unreadable;
            findings.conflicts += u64::from(copies.by_link.len() > 1);
            let named = after.filter(|(next, _)| Some(*next) == lsn.checked_add(1)).map(|(_, previous)| previous);
            let best = match named {
                Some(link) if copies.by_link.contains_key(&link) => copies.by_link.get(&link),
                _ => copies.by_link.values().max_by_key(|(header, devices)| (header.epoch, devices.len())),
            };
            let Some((header, devices)) = best else { continue };
            if named.is_some_and(|link| !copies.by_link.contains_key(&link)) {
                findings.conflicts += 1;
            }
            after = Some((*lsn, header.previous));
            chosen.push(Position { partition, lsn: Lsn(*lsn), devices: devices.clone() });
        }
        chosen.reverse();
        if let (Some(first), Some(last)) = (chosen.first(), chosen.last()) {
            (findings.first, findings.last) = (first.lsn.0, last.lsn.0);
            findings.positions = chosen.len() as u64;
            // Positions are distinct, so the difference has room for all but one of them.
            findings.absent = last.lsn.0 - first.lsn.0 - (findings.positions - 1);
        }
        self.findings.push(findings);
        self.positions.extend(chosen);
    }

    /// Whether every position between the first and the last is there.
    pub(crate) fn is_contiguous(&self) -> bool {
        self.findings.iter().all(|findings| findings.absent == 0)
    }
}

/// Bytes of a record's payload from the first device that can give them whole.
pub(crate) async fn read_record(
    stores: &[StoreHandle],
    at: &Position,
    range: std::ops::Range<u32>,
) -> Result<Bytes, String> {
    let mut last = "no device holds it".to_owned();
    for device in &at.devices {
        match stores[usize::from(*device)].get(ShardKey::journal(at.partition, at.lsn), range.clone()).await {
            Ok(bytes) if range.end == u32::MAX || bytes.len() == range.len() => return Ok(bytes),
            Ok(_) => last = "it is shorter than its commands say".to_owned(),
            Err(error) => last = error.to_string(),
        }
    }
    Err(format!("journal position {}: {last}", at.lsn.0))
}
