//! Recovery: the newest anchor names a checkpoint and the extents opened since; their records are rolled
//! forward in the order of their sequence numbers. Nothing is written while this runs.
//!
//! A damaged checkpoint falls back to the one before it; with no usable checkpoint, or with a damaged
//! anchor page, every extent is probed. (Only then may records deleted since come back: their owners find
//! them unreferenced and delete them again.)
//!
//! In an extent, the scan advances only by lengths that a checksum has confirmed. Where it meets a record
//! that does not verify, it looks for a later proven header that says "everything before me was durable":
//! with one, the damage is a corrupt middle and is reported; without one it is the torn tail of writes
//! that were never acknowledged, and the extent ends there.

use std::collections::BTreeSet;
use std::rc::Rc;

use disk::{AlignedBuf, BlockDevice, IO_ALIGN};
use format::{
    Anchor, ExtentState, FormatError, OpenedExtent, Place, RecordHead, RecordKind, RecordLayout, Stream, UNIT_BYTES,
    decode_tombstone,
};

use crate::StoreResult;
use crate::core::Core;
use crate::extent::{Effect, Extent, Location};
use crate::mutant::{self, Mutant};
use crate::place::UNFLUSHED_CEILING_BYTES;

const IO_UNITS: u32 = (IO_ALIGN / UNIT_BYTES) as u32;
/// Bytes read ahead while scanning.
const WINDOW_BYTES: usize = 4 << 20;
/// Largest head and largest record, in bytes; what one decode may need.
const HEAD_MAX_BYTES: usize = 16 << 10;

/// What recovery found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Records taken from the checkpoint.
    pub from_checkpoint: u64,
    /// Records and tombstones rolled forward.
    pub rolled_forward: u64,
    /// Extents scanned.
    pub extents_scanned: u32,
    /// Bytes beyond the last acknowledged record of an extent that were dropped (torn tails).
    pub torn_bytes: u64,
    /// Places (bytes on the device) where acknowledged records are damaged, and what is wrong there.
    pub damage: Vec<(u64, String)>,
    /// The newest checkpoint could not be used.
    pub fell_back: bool,
    /// Every extent was probed.
    pub probed: bool,
    /// No anchor page, or no checkpoint where there was one: what was found may be old or partial.
    pub lost: Option<String>,
}

/// What is known of sequence numbers before an extent is scanned.
#[derive(Clone, Copy)]
struct Sequences {
    /// Up to here the checkpoint has everything.
    floor: u64,
    /// Up to here everything was durable.
    proven: u64,
}

struct Start {
    anchor: Anchor,
    /// Extents to scan: number, generation, stream.
    opened: Vec<OpenedExtent>,
    probe: bool,
    /// What a probe adopts is of this life of the device or a later one. Extents of earlier lives that no page
    /// names were decided against by the recoveries since: what is in them must not come back.
    probe_from_boot: u32,
    /// Records up to this sequence number were durable: a checkpoint that can no longer be read covered them.
    proven: u64,
}

impl<D: BlockDevice> Core<D> {
    /// Rebuilds the state from the medium.
    pub(crate) async fn recover(self: &Rc<Self>) -> StoreResult<RecoveryReport> {
        let mut report = RecoveryReport::default();
        let start = self.find_start(&mut report).await?;
        {
            let mut state = self.state.borrow_mut();
            state.anchor_sequence = start.anchor.sequence;
            state.boot = start.anchor.boot;
            state.checkpoint = start.anchor.checkpoint.clone();
        }
        let floor = self.state.borrow().sequence;
        let mut to_scan = self.adopt_opened(&start.opened);
        if start.probe {
            report.probed = true;
            let found = self.probe(start.probe_from_boot).await?;
            to_scan.retain(|(extent, _)| found.iter().all(|(again, _)| again != extent));
            to_scan.extend(found);
        }
        let named = self.named(&to_scan);
        self.state.borrow_mut().opened = named;
        let mut found = Vec::new();
        for (extent, from_units) in to_scan {
            report.extents_scanned += 1;
            let range = Sequences { floor, proven: start.proven };
            self.scan_extent(extent, from_units, range, &mut found, &mut report).await?;
        }
        if !mutant::on(Mutant::RollForwardUnordered) {
            found.sort_by_key(|(sequence, _)| *sequence);
        }
        report.rolled_forward = found.len() as u64;
        let mut state = self.state.borrow_mut();
        for (sequence, effect) in found {
            if !mutant::on(Mutant::SequenceReused) {
                state.sequence = state.sequence.max(sequence);
            }
            match effect {
                Effect::Put(key, location) | Effect::Move(key, _, location) => _ = state.index.insert(key, location),
                Effect::Remove(keys) => keys.iter().for_each(|key| _ = state.index.remove(key)),
            }
        }
        state.recount();
        if state.sequence < start.proven {
            report.damage.push((0, "records that a damaged checkpoint covered are gone".into()));
        }
        // Numbers of records that are gone are not given out again.
        state.sequence = state.sequence.max(start.proven);
        Ok(report)
    }

    async fn find_start(self: &Rc<Self>, report: &mut RecoveryReport) -> StoreResult<Start> {
        let (mut anchors, suspect) = self.read_anchors(report).await?;
        let mut start = Start {
            anchor: anchors.last().cloned().unwrap_or(Anchor {
                sequence: 0,
                boot: 0,
                checkpoint: None,
                opened: Vec::new(),
                partial: false,
            }),
            opened: Vec::new(),
            probe: suspect || anchors.is_empty(),
            probe_from_boot: 0,
            proven: 0,
        };
        if anchors.is_empty() {
            report.lost = Some("no anchor page is left".into());
        }
        let newest = start.anchor.clone();
        // Nothing has been overwritten in the ring: it tells the whole life of the device.
        let whole_history = anchors.first().is_some_and(|oldest| oldest.sequence == 1);
        let mut later: Vec<OpenedExtent> = Vec::new();
        let mut broken_checkpoints = 0;
        while let Some(anchor) = anchors.pop() {
            add_opened(&mut later, &anchor);
            let Some(checkpoint) = &anchor.checkpoint else {
                anchors.push(anchor);
                break;
            };
            match self.load_checkpoint(checkpoint).await {
                Ok(records) => {
                    report.from_checkpoint = records;
                    start.anchor.checkpoint = Some(checkpoint.clone());
                    // Older pages of the same checkpoint name a subset of what this one names.
                    later.sort_by_key(|opened| opened.generation);
                    start.opened = later;
                    start.probe_from_boot = newest.boot;
                    return Ok(start);
                }
                Err(error) => {
                    report
                        .damage
                        .push((0, format!("the checkpoint of anchor {} is unusable: {error}", anchor.sequence)));
                    report.fell_back = true;
                    broken_checkpoints += 1;
                    start.proven = start.proven.max(checkpoint.sequence);
                    let broken = anchor.checkpoint.clone();
                    while anchors.last().is_some_and(|older| older.checkpoint == broken) {
                        add_opened(&mut later, &anchors.pop().expect("just seen"));
                    }
                }
            }
        }
        // Only the first checkpoint ever is broken: it freed no tombstones, and before it there is none to miss.
        let only_the_first = broken_checkpoints == 1 && anchors.iter().all(|older| older.checkpoint.is_none());
        if whole_history && only_the_first {
            start.probe_from_boot = newest.boot;
            anchors.iter().for_each(|older| add_opened(&mut later, older));
            start.anchor.checkpoint = None;
            later.sort_by_key(|opened| opened.generation);
            start.opened = later;
            return Ok(start);
        }
        if newest.checkpoint.is_some() {
            report.lost = Some("no checkpoint can be read any more".into());
        }
        // Without any checkpoint the newest page names every extent in use, unless it says that it cannot.
        start.probe |= newest.checkpoint.is_some() || newest.partial;
        if newest.checkpoint.is_none() && !newest.partial {
            start.probe_from_boot = newest.boot;
        }
        start.anchor.checkpoint = None;
        later.sort_by_key(|opened| opened.generation);
        start.opened = later;
        Ok(start)
    }

    /// Takes the extents opened since the checkpoint over; gives those to scan, and from where.
    fn adopt_opened(&self, opened: &[OpenedExtent]) -> Vec<(u32, u32)> {
        let mut state = self.state.borrow_mut();
        if mutant::on(Mutant::ReturnForgetsOpenExtents) {
            let open = |l: &Location| matches!(state.extents[l.extent as usize].state, ExtentState::Open(_));
            let gone: Vec<_> = state.index.after(None).filter(|(_, l)| open(l)).map(|(key, _)| key).collect();
            gone.iter().for_each(|key| _ = state.index.remove(key));
        }
        let mut reused = BTreeSet::new();
        let mut to_scan: Vec<(u32, u32)> = Vec::new();
        for opened in opened {
            let Some(extent) = state.extents.get_mut(opened.extent as usize) else { continue };
            let from = if extent.generation == opened.generation {
                extent.written_units
            } else if extent.generation < opened.generation {
                reused.insert(opened.extent);
                0
            } else {
                continue;
            };
            let fresh = Extent { generation: opened.generation, ..Extent::UNUSED };
            *extent = Extent { state: ExtentState::Sealed(opened.stream), written_units: from, ..fresh };
            to_scan.retain(|(number, _)| *number != opened.extent);
            to_scan.push((opened.extent, from));
        }
        // Extents that were open at the checkpoint are in the anchor's list; none is left open.
        for extent in &mut state.extents {
            if let ExtentState::Open(stream) = extent.state {
                extent.state = ExtentState::Sealed(stream);
            }
        }
        state.index.retain(|_, location| !reused.contains(&location.extent));
        to_scan
    }

    /// The scanned extents as an anchor names them.
    fn named(&self, scanned: &[(u32, u32)]) -> Vec<OpenedExtent> {
        let state = self.state.borrow();
        let name = |(extent, _): &(u32, u32)| {
            let entry = &state.extents[*extent as usize];
            let stream = match entry.state {
                ExtentState::Sealed(stream) => stream,
                _ => Stream::Data,
            };
            OpenedExtent { extent: *extent, generation: entry.generation, stream }
        };
        scanned.iter().map(name).collect()
    }

    /// Looks at the start of every extent for one that was opened later than what is known of it.
    async fn probe(&self, from_boot: u32) -> StoreResult<Vec<(u32, u32)>> {
        let extents = self.state.borrow().label.geometry.extents;
        let mut found = Vec::new();
        for extent in 0..extents {
            if self.readable_units(extent).await == 0 {
                continue;
            }
            let offset = self.state.borrow().offset(extent, 0);
            let Ok((buf, _)) = self.read_span(offset, UNIT_BYTES).await else { continue };
            let mut state = self.state.borrow_mut();
            let Some(generation) = RecordHead::probe_generation(&buf, &state.place(extent, 0)) else { continue };
            let entry = &mut state.extents[extent as usize];
            if generation > entry.generation && (generation >> 32) as u32 >= from_boot {
                // Of unknown stream: it is treated as one that may hold tombstones.
                let state = ExtentState::Sealed(Stream::Meta);
                *entry = Extent { state, generation, ..Extent::UNUSED };
                found.push((extent, 0));
            }
        }
        let reused: BTreeSet<u32> = found.iter().map(|(extent, _)| *extent).collect();
        self.state.borrow_mut().index.retain(|_, location| !reused.contains(&location.extent));
        // Generations order the openings; later readers of this list rely on nothing more.
        found.sort_by_key(|(extent, _)| self.state.borrow().extents[*extent as usize].generation);
        if let Some((extent, _)) = found.last() {
            let mut state = self.state.borrow_mut();
            let boot = (state.extents[*extent as usize].generation >> 32) as u32;
            state.boot = state.boot.max(boot);
        }
        Ok(found)
    }

    async fn scan_extent(
        &self,
        extent: u32,
        from_units: u32,
        range: Sequences,
        found: &mut Vec<(u64, Effect)>,
        report: &mut RecoveryReport,
    ) -> StoreResult<()> {
        let end = self.readable_units(extent).await;
        let mut window = Window { core: self, extent, start: 0, buf: None };
        let mut at = from_units;
        while at < end {
            let place = self.state.borrow().place(extent, at);
            let offset = self.state.borrow().offset(extent, at);
            match window.record(at, end, &place).await {
                Scanned::Whole(head, proof, removes, layout) => {
                    if head.sequence > range.floor {
                        note(&head, proof, removes, layout, extent, at, found);
                    }
                    at += (layout.record_bytes / UNIT_BYTES) as u32;
                    self.state.borrow_mut().extents[extent as usize].written_units = at;
                }
                Scanned::Nothing if !at.is_multiple_of(IO_UNITS) => at = at.next_multiple_of(IO_UNITS),
                damaged => {
                    let (known_len, what) = match &damaged {
                        Scanned::Damaged(Some((_, _, layout)), what) => (layout.record_bytes / UNIT_BYTES, *what),
                        Scanned::Damaged(None, what) => (0, *what),
                        _ => (0, "nothing readable"),
                    };
                    let from = at + (known_len as u32).max(1);
                    let covered = |head: &RecordHead| head.sequence <= range.proven;
                    let next = match &damaged {
                        Scanned::Damaged(Some((head, ..)), _) if covered(head) => Some(from),
                        _ => window.proof_of_durability(at, from, end).await,
                    };
                    let Some(next) = next else { break };
                    report.damage.push((offset, format!("a damaged record before durable ones: {what}")));
                    // The key is known when the head is: reads of it then fail by name instead of finding nothing.
                    if let Scanned::Damaged(Some((head, proof, layout)), _) = damaged
                        && head.sequence > range.floor
                    {
                        note(&head, proof, None, layout, extent, at, found);
                    }
                    at = next;
                }
            }
        }
        let mut state = self.state.borrow_mut();
        let entry = &mut state.extents[extent as usize];
        report.torn_bytes += u64::from(at.saturating_sub(entry.written_units)) * UNIT_BYTES as u64;
        entry.written_units = at.min(end);
        entry.durable_units = entry.written_units;
        Ok(())
    }
}

fn add_opened(known: &mut Vec<OpenedExtent>, anchor: &Anchor) {
    for opened in &anchor.opened {
        if !known.contains(opened) {
            known.push(*opened);
        }
    }
}

fn note(
    head: &RecordHead,
    proof: u32,
    removes: Option<Vec<format::ShardKey>>,
    layout: RecordLayout,
    extent: u32,
    at: u32,
    found: &mut Vec<(u64, Effect)>,
) {
    let location = Location {
        extent,
        offset_units: at,
        record_units: (layout.record_bytes / UNIT_BYTES) as u32,
        payload_bytes: head.payload_bytes,
        proof,
    };
    match (head.key, removes) {
        (Some(key), _) => found.push((head.sequence, Effect::Put(key, location))),
        (None, Some(keys)) => found.push((head.sequence, Effect::Remove(keys))),
        (None, None) => {}
    }
}

enum Scanned {
    Whole(RecordHead, u32, Option<Vec<format::ShardKey>>, RecordLayout),
    /// No header of this place and generation.
    Nothing,
    /// Something is there and does not verify; its head, when that does.
    Damaged(Option<(RecordHead, u32, RecordLayout)>, &'static str),
}

/// A piece of an extent in memory while it is being scanned.
struct Window<'a, D> {
    core: &'a Core<D>,
    extent: u32,
    start: u32,
    buf: Option<AlignedBuf>,
}

impl<D: BlockDevice> Window<'_, D> {
    /// Up to `len` bytes from `at` on, fewer at the extent's end; nothing when they cannot be read.
    async fn bytes(&mut self, at: u32, len: usize, end: u32) -> Option<&[u8]> {
        let len = len.min((end - at) as usize * UNIT_BYTES);
        let held = |start: u32, buf: &AlignedBuf| at >= start && (at - start) as usize * UNIT_BYTES + len <= buf.len();
        if !self.buf.as_ref().is_some_and(|buf| held(self.start, buf)) {
            let start = at - at % IO_UNITS;
            let room = (end - start) as usize * UNIT_BYTES;
            let lead = (at - start) as usize * UNIT_BYTES;
            let offset = self.core.state.borrow().offset(self.extent, start);
            let wide = self.core.read_span(offset, (lead + len).max(WINDOW_BYTES).min(room)).await;
            // A bad sector ahead must not hide what lies before it.
            let read = match wide {
                Err(_) => self.core.read_span(offset, lead + len).await,
                good => good,
            };
            self.buf = read.ok().map(|(buf, _)| buf);
            self.start = start;
        }
        let from = (at - self.start) as usize * UNIT_BYTES;
        self.buf.as_ref().map(|buf| &buf[from..from + len])
    }

    async fn record(&mut self, at: u32, end: u32, place: &Place) -> Scanned {
        let Some(bytes) = self.bytes(at, HEAD_MAX_BYTES, end).await else {
            return Scanned::Damaged(None, "the medium cannot be read");
        };
        let (head, proof) = match RecordHead::decode(bytes, place) {
            Ok(decoded) => decoded,
            Err(FormatError::Absent(_)) if mutant::on(Mutant::StaleGenerationAccepted) => {
                let generation = RecordHead::probe_generation(bytes, place).unwrap_or(place.generation);
                match RecordHead::decode(bytes, &Place { generation, ..*place }) {
                    Ok(decoded) => decoded,
                    Err(_) => return Scanned::Nothing,
                }
            }
            Err(FormatError::Absent(_)) => return Scanned::Nothing,
            Err(_) => return Scanned::Damaged(None, "the head does not verify"),
        };
        let layout = head.layout();
        if layout.record_bytes > (end - at) as usize * UNIT_BYTES {
            return Scanned::Damaged(None, "the record crosses its extent's end");
        }
        let Some(bytes) = self.bytes(at, layout.record_bytes, end).await else {
            return Scanned::Damaged(Some((head, proof, layout)), "the medium cannot be read");
        };
        let payload = &bytes[layout.payload_at..layout.payload_at + head.payload_bytes as usize];
        if !head.payload_fits(payload) && !mutant::on(Mutant::TornPayloadAccepted) {
            return Scanned::Damaged(Some((head, proof, layout)), "the payload does not verify");
        }
        if head.kind != RecordKind::Tombstone {
            return Scanned::Whole(head, proof, None, layout);
        }
        match decode_tombstone(payload) {
            Ok(keys) => Scanned::Whole(head, proof, Some(keys), layout),
            Err(_) => Scanned::Damaged(None, "a tombstone names no keys"),
        }
    }

    /// The next proven header at or after `from` that says that everything up to beyond `damaged` was durable.
    async fn proof_of_durability(&mut self, damaged: u32, from: u32, end: u32) -> Option<u32> {
        let reach = damaged + ((UNFLUSHED_CEILING_BYTES + format::PAYLOAD_MAX_BYTES) / UNIT_BYTES) as u32;
        let mut at = from;
        while at < end.min(reach) {
            let place = self.core.state.borrow().place(self.extent, at);
            let bytes = self.bytes(at, UNIT_BYTES, end).await;
            if let Some(bytes) = bytes
                && RecordHead::durable_units(bytes, &place).is_ok_and(|durable| durable > damaged)
            {
                return Some(at);
            }
            at += 1;
        }
        None
    }
}
