//! Faults with an address: finds structures on the raw device by the documented format, and strikes them.

use std::cell::Cell;
use std::collections::BTreeSet;

use base::SeededEntropy;
use format::{Anchor, Geometry, Label, Place, RecordHead, RecordKind, ShardKey, UNIT_BYTES, decode_tombstone};
use simdisk::{FaultAtlas, SimDisk};

use crate::plan::{Key, Op, Target};
use crate::shared::Shared;

/// Polls that a slow operation takes beyond its own.
const SLOW_POLLS: u32 = 40;

/// The faults that accompany a whole run: slow operations.
pub(crate) fn usual_faults(slow_one_in: u64) -> FaultAtlas {
    FaultAtlas { slow_one_in, slow_polls: SLOW_POLLS, ..FaultAtlas::default() }
}

/// Arms one fault of the atlas: the next operation of its sort is struck, and only that.
fn arm(shared: &Shared, what: impl FnOnce(&mut FaultAtlas)) {
    let disk = shared.disk.borrow();
    let mut atlas = usual_faults(shared.config.slow_one_in);
    what(&mut atlas);
    atlas.faults_max = disk.injected().total() + 1;
    disk.set_faults(atlas);
}

/// The next operations fail, or a read gives what it should not.
pub(crate) fn fail_next(shared: &Shared, op: Op) {
    let more = |count: &Cell<u64>, n: u64| count.set(count.get() + n);
    let (disk, armed, asked) = (shared.disk.borrow().clone(), &shared.armed, &shared.asked);
    match op {
        Op::FailReads(n) => {
            armed.reads.set(true);
            more(&asked.reads, n.into());
            (0..n).for_each(|_| disk.fail_next_read());
        }
        Op::FailWrite => {
            armed.writes.set(true);
            more(&asked.writes, 1);
            disk.fail_next_write();
        }
        Op::FailFlush => {
            armed.writes.set(true);
            more(&asked.flushes, 1);
            disk.fail_next_flush();
        }
        _ => {
            armed.misdirected_reads.set(true);
            arm(shared, |atlas| atlas.misdirected_read_one_in = 1);
        }
    }
}

/// The next write or flush is acknowledged and does not do what it says.
pub(crate) fn lie_next(shared: &Shared, op: Op) {
    shared.asked.lies.set(shared.asked.lies.get() + 1);
    match op {
        Op::LoseWrite => {
            shared.armed.wild.set(true);
            arm(shared, |atlas| atlas.lost_write_one_in = 1);
        }
        Op::MisdirectWrite => {
            shared.armed.wild.set(true);
            arm(shared, |atlas| atlas.misdirected_write_one_in = 1);
        }
        _ => {
            shared.armed.lied.set(true);
            arm(shared, |atlas| atlas.lying_flush_one_in = 1);
        }
    }
}

/// The next `n` writes are lost, until the disk is told otherwise.
pub(crate) fn lose_writes(shared: &Shared, n: u64) {
    shared.asked.lies.set(shared.asked.lies.get() + n);
    shared.armed.wild_for_good.set(true);
    let disk = shared.disk.borrow();
    let faults_max = disk.injected().total() + n;
    disk.set_faults(FaultAtlas { lost_write_one_in: 1, faults_max, ..usual_faults(shared.config.slow_one_in) });
}

/// A record as it lies on the raw device.
pub(crate) struct Found {
    pub(crate) extent: u32,
    pub(crate) offset: u64,
    pub(crate) head: RecordHead,
    /// The key, or those that a tombstone names.
    pub(crate) keys: Vec<ShardKey>,
}

/// Every record whose head verifies, of any generation.
pub(crate) fn records(disk: &SimDisk, label: &Label) -> Vec<Found> {
    let mut found = Vec::new();
    for extent in 0..label.geometry.extents {
        let start = label.geometry.extent_offset(extent);
        let raw = disk.raw_read(start, label.geometry.extent_bytes as usize);
        for (unit, bytes) in (0u32..).zip(raw.chunks(UNIT_BYTES)) {
            if !bytes.starts_with(b"HFrc") {
                continue;
            }
            let at = unit as usize * UNIT_BYTES;
            let mut place = Place { device: label.device, salt: label.salt, extent, generation: 0, offset_units: unit };
            let Some(generation) = RecordHead::probe_generation(bytes, &place) else { continue };
            place.generation = generation;
            let Ok((head, _)) = RecordHead::decode(&raw[at..], &place) else { continue };
            let payload =
                raw.get(at + head.layout().payload_at..).and_then(|rest| rest.get(..head.payload_bytes as usize));
            let keys = match (head.key, payload) {
                (Some(key), _) => vec![key],
                (None, Some(payload)) if head.kind == RecordKind::Tombstone => {
                    decode_tombstone(payload).unwrap_or_default()
                }
                _ => Vec::new(),
            };
            found.push(Found { extent, offset: start + at as u64, head, keys });
        }
    }
    found
}

/// What a strike does to what keys may hold.
#[derive(Debug, Default)]
pub(crate) struct Blast {
    /// The key whose record was hit.
    pub(crate) hit: Option<ShardKey>,
    /// Keys of the records in the same extent that recovery may take for part of a torn tail.
    pub(crate) beyond: BTreeSet<ShardKey>,
    /// The byte that was hit; `None` when there was nothing to hit.
    pub(crate) at: Option<u64>,
}

/// Chooses the byte to strike.
pub(crate) fn aim(disk: &SimDisk, label: &Label, target: Target, copy: u8, rng: &SeededEntropy) -> Blast {
    let copy = usize::from(copy);
    match target {
        Target::Label if label.geometry.zone_bytes.is_some() => {
            let zones = log_in_use(disk, label);
            let good = |zone: u64| Label::decode(&disk.raw_read(zone, Geometry::LABEL_BYTES)).is_ok();
            // One copy: the other must be good.
            let at = zones.get(copy).filter(|_| zones.iter().all(|(zone, _)| good(*zone)));
            let at = at.map(|(zone, _)| zone + rng.below(Geometry::LABEL_BYTES as u64));
            Blast { at, ..Blast::default() }
        }
        Target::Label => {
            let at = label.geometry.label_offsets()[copy] + rng.below(Geometry::LABEL_BYTES as u64);
            Blast { at: Some(at), ..Blast::default() }
        }
        Target::Anchor if label.geometry.zone_bytes.is_some() => {
            let at = log_in_use(disk, label).get(copy).map(|(_, page)| page + rng.below(Geometry::ANCHOR_BYTES as u64));
            Blast { at, ..Blast::default() }
        }
        Target::Anchor => {
            let page = |sequence| Geometry::anchor_offsets(sequence)[copy];
            let decode = |slot: u64| {
                let raw = disk.raw_read(page(slot), Geometry::ANCHOR_BYTES);
                Anchor::decode(&raw, label.device, label.salt).ok()
            };
            let newest = (0..Geometry::ANCHOR_SLOTS).filter_map(decode).map(|anchor| anchor.sequence).max();
            let at = newest.map(|sequence| page(sequence) + rng.below(Geometry::ANCHOR_BYTES as u64));
            Blast { at, ..Blast::default() }
        }
        Target::Checkpoint => {
            let all = records(disk, label);
            let pieces = all.iter().filter(|found| found.head.kind == RecordKind::Checkpoint);
            let newest = pieces.max_by_key(|found| found.head.sequence);
            let at = newest.map(|found| {
                found.offset + rng.below((found.head.layout().payload_at + found.head.payload_bytes as usize) as u64)
            });
            Blast { at, ..Blast::default() }
        }
        Target::Header(key) => aim_at_record(disk, label, key, false, rng),
        Target::Payload(key) => aim_at_record(disk, label, key, true, rng),
    }
}

/// The zones of the anchor log that hold the newest page: where each starts, and where the page is.
fn log_in_use(disk: &SimDisk, label: &Label) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    for start in label.geometry.log_offsets().into_iter().flatten() {
        let raw = disk.raw_read(start, label.geometry.extent_bytes as usize);
        let decode = |bytes: &[u8]| Anchor::decode(bytes, label.device, label.salt).ok().map(|anchor| anchor.sequence);
        let pages = (start..).step_by(Geometry::ANCHOR_BYTES).zip(raw.chunks(Geometry::ANCHOR_BYTES));
        let newest = pages.filter_map(|(at, bytes)| Some((decode(bytes)?, at))).max();
        found.extend(newest.map(|(sequence, at)| (sequence, start, at)));
    }
    let newest = found.iter().map(|(sequence, ..)| *sequence).max();
    let in_use = found.into_iter().filter(|(sequence, ..)| Some(*sequence) == newest);
    in_use.map(|(_, start, at)| (start, at)).collect()
}

fn aim_at_record(disk: &SimDisk, label: &Label, key: Key, payload: bool, rng: &SeededEntropy) -> Blast {
    let all = records(disk, label);
    let of_key = all.iter().filter(|found| found.head.key == Some(key.shard_key()));
    let Some(newest) = of_key.max_by_key(|found| found.head.sequence) else { return Blast::default() };
    let (layout, len) = (newest.head.layout(), u64::from(newest.head.payload_bytes));
    let at = match (payload, len) {
        (true, 0) => return Blast::default(),
        (true, len) => newest.offset + layout.payload_at as u64 + rng.below(len),
        // The header proper or its tables, seldom the padding between them and the payload.
        (false, _) => newest.offset + rng.below(if rng.one_in(2) { 128 } else { layout.payload_at as u64 }),
    };
    let beyond = all.iter().filter(|found| found.extent == newest.extent && found.offset >= newest.offset);
    Blast {
        hit: Some(key.shard_key()),
        beyond: beyond.flat_map(|found| found.keys.iter().copied()).collect(),
        at: Some(at),
    }
}
