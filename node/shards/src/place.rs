//! Placing records: from the queues into extents, one device write for many small records.

use std::collections::VecDeque;

use bytes::Bytes;
use disk::{AlignedBuf, AlignedBytes, IO_ALIGN};
use format::{
    BLOCK_BYTES, DIRECT_MIN_BYTES, ExtentState, RecordHead, RecordKind, RecordLayout, ShardKey, Stream, UNIT_BYTES,
    block_checksums,
};
use tokio::sync::oneshot;

use crate::extent::{Change, Effect, Location, Placed, Segment};
use crate::handle::Payload;
use crate::mutant::{self, Mutant};
use crate::state::State;
use crate::{StoreError, StoreResult};

/// Most bytes without a finished flush in one extent. Recovery looks this far beyond a damaged record for
/// proof that it was acknowledged, so it bounds the time of recovery.
pub(crate) const UNFLUSHED_CEILING_BYTES: usize = 24 << 20;

/// A record to be written.
#[derive(Debug)]
pub(crate) struct WriteItem {
    pub(crate) change: Change,
    pub(crate) descriptor: Bytes,
    pub(crate) payload: Payload,
    pub(crate) reply: oneshot::Sender<StoreResult<()>>,
}

impl WriteItem {
    fn layout(&self) -> RecordLayout {
        RecordLayout::new(self.descriptor.len(), self.payload.len())
    }

    fn is_small(&self) -> bool {
        self.payload.len() < DIRECT_MIN_BYTES
    }

    fn key(&self) -> Option<ShardKey> {
        match self.change {
            Change::Put(key) | Change::Move(key, _) => Some(key),
            Change::Remove(_) => None,
        }
    }
}

/// One device write.
pub(crate) struct SegmentWrite {
    pub(crate) extent: u32,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// It is the extent's first.
    pub(crate) first: bool,
    pub(crate) parts: Vec<AlignedBytes>,
}

impl State {
    /// The next device write for `stream`, when one is due.
    pub(crate) fn plan_write(&mut self, stream: Stream) -> Option<SegmentWrite> {
        loop {
            if self.paused || self.poison.is_some() || self.is_zone_busy(stream) {
                return None;
            }
            let front = self.queues[&stream].front()?;
            if self.is_void(front) {
                self.answer_front(stream, Ok(()));
                continue;
            }
            let (small, record_bytes) = (front.is_small(), front.layout().record_bytes);
            let tombstone = matches!(front.change, Change::Remove(_));
            let Some(extent) = self.extent_with_room(stream, record_bytes, tombstone) else {
                if self.unfinished.contains_key(&stream) || self.space_may_come(stream) {
                    return None;
                }
                self.answer_front(stream, Err(StoreError::Full));
                continue;
            };
            let track = &self.tracks[&extent];
            let unflushed: usize = track.segments.iter().map(|s| s.bytes).sum();
            let small_segments = track.segments.iter().filter(|s| s.small).count();
            let crowded = unflushed > 0 && unflushed + record_bytes > self.limits.unflushed_max_bytes;
            if crowded || (small && small_segments >= self.limits.small_segments_max) {
                return None;
            }
            return Some(if small { self.place_batch(stream, extent) } else { self.place_one(stream, extent) });
        }
    }

    fn answer_front(&mut self, stream: Stream, answer: StoreResult<()>) {
        if let Some(item) = self.queues.get_mut(&stream).and_then(VecDeque::pop_front) {
            let _ = item.reply.send(answer);
        }
    }

    /// A move is void once its key has changed, or a record that will change it has been placed: what is placed
    /// later counts as newer, and a move must never pass for newer than what replaced the record it moves.
    fn is_void(&self, item: &WriteItem) -> bool {
        let Change::Move(key, from) = &item.change else { return false };
        if mutant::on(Mutant::MoveWithoutRecheck) {
            return false;
        }
        let placed = || self.tracks.values().flat_map(|track| &track.segments).flat_map(|segment| &segment.records);
        self.index.get(key) != Some(*from) || placed().any(|record| record.effect.concerns(key))
    }

    /// The stream's open extent, or a new one when the record does not fit.
    fn extent_with_room(&mut self, stream: Stream, record_bytes: usize, tombstone: bool) -> Option<u32> {
        if let Some(extent) = self.open.get(&stream).copied() {
            if self.room_bytes(extent) >= record_bytes {
                return Some(extent);
            }
            self.seal(stream);
            if self.unfinished.contains_key(&stream) {
                return None;
            }
        }
        self.open_extent(stream, tombstone)
    }

    fn segment_start(&self, extent: u32) -> u32 {
        self.extents[extent as usize].written_units.next_multiple_of((IO_ALIGN / UNIT_BYTES) as u32)
    }

    fn room_bytes(&self, extent: u32) -> usize {
        (self.extent_units() - self.segment_start(extent).min(self.extent_units())) as usize * UNIT_BYTES
    }

    /// Gathers small records from the front of the queue into one buffer.
    fn place_batch(&mut self, stream: Stream, extent: u32) -> SegmentWrite {
        let start = self.segment_start(extent);
        let room = self.room_bytes(extent);
        let most = room.min(self.limits.batch_max_bytes);
        let queue = self.queues.get_mut(&stream).expect("every stream has a queue");
        let (mut items, mut bytes) = (Vec::new(), 0);
        let mut taken = std::mem::take(queue);
        while let Some(item) = taken.front() {
            if self.is_void(item) {
                taken.pop_front().into_iter().for_each(|item| _ = item.reply.send(Ok(())));
                continue;
            }
            let record = item.layout().record_bytes;
            if !item.is_small() || bytes + record > room || (bytes > 0 && bytes + record > most) {
                break;
            }
            bytes += record;
            items.extend(taken.pop_front());
        }
        self.queues.insert(stream, taken);
        assert!(!items.is_empty(), "a batch holds at least the record it was made for");
        let mut buf = AlignedBuf::zeroed(bytes);
        let (mut at, mut records) = (0, Vec::with_capacity(items.len()));
        for item in items {
            let layout = item.layout();
            let offset_units = start + (at / UNIT_BYTES) as u32;
            let record = &mut buf[at..at + layout.record_bytes];
            let crcs = copy_payload(&item.payload, &mut record[layout.payload_at..]);
            records.push(self.place_record(item, extent, offset_units, crcs, record));
            at += layout.record_bytes;
        }
        self.push_segment(extent, start, true, records, vec![buf.freeze()], at)
    }

    /// Places one large record; its payload is written from where it lies.
    fn place_one(&mut self, stream: Stream, extent: u32) -> SegmentWrite {
        let item = self.queues.get_mut(&stream).and_then(|queue| queue.pop_front()).expect("the front was seen");
        let (start, layout) = (self.segment_start(extent), item.layout());
        let parts = match &item.payload {
            Payload::Aligned { bytes, .. } => {
                let bytes = bytes.clone();
                let crcs = block_checksums(&bytes[..item.payload.len()]);
                let mut head = AlignedBuf::zeroed(layout.payload_at);
                let record = self.place_record(item, extent, start, crcs, &mut head);
                return self.push_segment(
                    extent,
                    start,
                    false,
                    vec![record],
                    vec![head.freeze(), bytes],
                    layout.record_bytes,
                );
            }
            payload @ Payload::Parts(_) => {
                let mut buf = AlignedBuf::zeroed(layout.record_bytes);
                let crcs = copy_payload(payload, &mut buf[layout.payload_at..]);
                (buf, crcs)
            }
        };
        let (mut buf, crcs) = parts;
        let record = self.place_record(item, extent, start, crcs, &mut buf);
        self.push_segment(extent, start, false, vec![record], vec![buf.freeze()], layout.record_bytes)
    }

    /// Gives a record its sequence and writes its head to `out`, the start of the record.
    fn place_record(
        &mut self,
        item: WriteItem,
        extent: u32,
        offset_units: u32,
        block_crcs: Vec<u32>,
        out: &mut [u8],
    ) -> Placed {
        let layout = item.layout();
        let head = RecordHead {
            kind: if item.key().is_some() { RecordKind::Put } else { RecordKind::Tombstone },
            sequence: self.next_sequence(),
            key: item.key(),
            payload_bytes: item.payload.len() as u32,
            durable_units: self.extents[extent as usize].durable_units,
            descriptor: item.descriptor.to_vec(),
            block_crcs,
        };
        let proof = head.encode_into(&self.place(extent, offset_units), out);
        let location = Location {
            extent,
            offset_units,
            record_units: (layout.record_bytes / UNIT_BYTES) as u32,
            payload_bytes: head.payload_bytes,
            proof,
        };
        if let Change::Put(key) = item.change
            && mutant::on(Mutant::IndexBeforeWrite)
        {
            self.apply(Effect::Put(key, location));
        }
        let effect = match item.change {
            Change::Put(_) if mutant::on(Mutant::IndexBeforeWrite) => Effect::Remove(Vec::new()),
            Change::Put(key) => Effect::Put(key, location),
            Change::Move(key, from) => Effect::Move(key, from, location),
            Change::Remove(keys) => Effect::Remove(keys),
        };
        Placed { effect, reply: item.reply }
    }

    fn push_segment(
        &mut self,
        extent: u32,
        start: u32,
        small: bool,
        records: Vec<Placed>,
        parts: Vec<AlignedBytes>,
        bytes: usize,
    ) -> SegmentWrite {
        assert_eq!(parts.iter().map(|p| p.len()).sum::<usize>(), bytes.next_multiple_of(IO_ALIGN));
        let end_units = start + (bytes / UNIT_BYTES) as u32;
        assert!(end_units <= self.extent_units(), "a segment ends inside its extent");
        self.extents[extent as usize].written_units = end_units;
        self.bytes_since_checkpoint += bytes as u64;
        self.checkpoint_stuck = false;
        self.stats.puts += records.iter().filter(|r| matches!(r.effect, Effect::Put(..))).count() as u64;
        let id = self.next_segment;
        self.next_segment += 1;
        let track = self.tracks.get_mut(&extent).expect("an open extent is tracked");
        track.segments.push_back(Segment { id, end_units, bytes, small, written: false, records });
        SegmentWrite { extent, segment: id, offset: self.offset(extent, start), first: start == 0, parts }
    }

    /// A device write has finished well.
    pub(crate) fn segment_written(&mut self, extent: u32, segment: u64) {
        // A poisoned store has dropped its tracks.
        if let Some(track) = self.tracks.get_mut(&extent)
            && let Some(segment) = track.segments.iter_mut().find(|s| s.id == segment)
        {
            segment.written = true;
            if mutant::on(Mutant::AckBeforeFlush) {
                for record in std::mem::take(&mut segment.records) {
                    self.apply(record.effect);
                    let _ = record.reply.send(Ok(()));
                }
            }
        }
    }

    /// What a flush that starts now will make durable.
    pub(crate) fn flush_cover(&self) -> Vec<(u32, u32)> {
        self.tracks.iter().filter_map(|(extent, track)| Some((*extent, track.written_prefix()?))).collect()
    }

    /// A flush that started when `cover` was taken has finished well.
    pub(crate) fn flushed(&mut self, cover: &[(u32, u32)]) {
        for (extent, prefix) in cover {
            let Some(track) = self.tracks.get_mut(extent) else { continue };
            let mut records = Vec::new();
            while track.segments.front().is_some_and(|segment| segment.end_units <= *prefix) {
                records.extend(track.segments.pop_front().into_iter().flat_map(|segment| segment.records));
            }
            let entry = &mut self.extents[*extent as usize];
            assert!(entry.durable_units <= *prefix, "durability only grows");
            entry.durable_units = *prefix;
            for record in records {
                self.apply(record.effect);
                let _ = record.reply.send(Ok(()));
            }
        }
        let extents = &self.extents;
        self.tracks.retain(|extent, track| {
            !track.segments.is_empty() || matches!(extents[*extent as usize].state, ExtentState::Open(_))
        });
    }
}

/// Copies a payload to `out` and gives its block checksums.
fn copy_payload(payload: &Payload, out: &mut [u8]) -> Vec<u32> {
    let len = payload.len();
    match payload {
        Payload::Aligned { bytes, len } => out[..*len].copy_from_slice(&bytes[..*len]),
        Payload::Parts(parts) => {
            let mut at = 0;
            for part in parts {
                out[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
        }
    }
    out[..len].chunks(BLOCK_BYTES).map(crc32fast::hash).collect()
}
