//! Everything a store knows in memory, and the rules by which it changes. No I/O here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use disk::ZoneFacts;
use format::{
    ANCHOR_MAX_OPENED, Anchor, CheckpointRef, ExtentState, Label, OpenedExtent, Place, ShardKey, Space, Stream,
    UNIT_BYTES,
};
use tokio::sync::oneshot;

use crate::extent::{Effect, Extent, Track};
use crate::fault::Faults;
use crate::index::Index;
use crate::mutant::{self, Mutant};
use crate::place::WriteItem;
use crate::{Limits, StoreError, StoreResult, StoreStats};

pub(crate) struct State {
    pub(crate) label: Label,
    pub(crate) read_only: bool,
    pub(crate) limits: Limits,
    pub(crate) extents: Vec<Extent>,
    pub(crate) free: BTreeSet<u32>,
    pub(crate) index: Index,
    /// Sealed extents of records by live units: those with few are worth reclaiming, those with none are dead.
    pub(crate) sealed: BTreeSet<(u32, u32)>,
    /// Extents that become free by the next checkpoint whatever happens.
    pub(crate) quarantined: u32,
    /// Extents that hold checkpoints, the one being written included.
    pub(crate) checkpoint_extents: u32,
    /// Reclaim found no room for what it moves; not tried again before something has changed.
    pub(crate) reclaim_stuck: bool,
    /// Reclaim gains nothing any more; it rests until records die other than by being moved.
    pub(crate) reclaim_futile: bool,
    /// Extents that reclaim emptied, and opened for what it moved, since something else last changed.
    pub(crate) moves_emptied: u32,
    pub(crate) moves_opened: u32,
    /// Units of records that died since reclaim last had reason to try again.
    pub(crate) died_units: u32,
    /// A checkpoint failed; not tried again for the sake of space before something was written.
    pub(crate) checkpoint_stuck: bool,
    /// The open extent of each stream but `Checkpoint`.
    pub(crate) open: BTreeMap<Stream, u32>,
    pub(crate) tracks: BTreeMap<u32, Track>,
    /// The zones of a zoned device.
    pub(crate) zones: Option<ZoneFacts>,
    /// The extent of each stream that was sealed before its zone was full, until that is finished: the stream opens no
    /// other before, and the extent does not become free.
    pub(crate) unfinished: BTreeMap<Stream, u32>,
    /// Streams whose zones are to be finished now.
    pub(crate) finish_due: Vec<Stream>,
    pub(crate) queues: BTreeMap<Stream, VecDeque<WriteItem>>,
    /// The newest sequence number given out.
    pub(crate) sequence: u64,
    pub(crate) boot: u32,
    pub(crate) generations: u32,
    pub(crate) next_segment: u64,
    // Anchor and checkpoint.
    pub(crate) anchor_sequence: u64,
    pub(crate) anchor_dirty: bool,
    pub(crate) anchor_busy: bool,
    pub(crate) checkpoint: Option<CheckpointRef>,
    pub(crate) opened: Vec<OpenedExtent>,
    /// `opened` names not all, and there is no checkpoint yet.
    pub(crate) opened_partial: bool,
    /// While a checkpoint is being written: extents opened since its snapshot.
    pub(crate) opened_next: Option<Vec<OpenedExtent>>,
    /// The anchor page that names a new checkpoint is on its way: the medium may still name the one before it.
    pub(crate) anchor_turning: bool,
    /// Anchor pages written since the newest checkpoint.
    pub(crate) pages_since_checkpoint: u64,
    pub(crate) checkpoint_busy: bool,
    pub(crate) checkpoint_wanted: bool,
    /// Told when the checkpoint under way, or the one after it, is durable.
    pub(crate) checkpoint_waiters: Vec<oneshot::Sender<StoreResult<()>>>,
    pub(crate) checkpoint_waiters_next: Vec<oneshot::Sender<StoreResult<()>>>,
    pub(crate) anchor_waiters: Vec<oneshot::Sender<()>>,
    pub(crate) bytes_since_checkpoint: u64,
    /// No record is placed while a checkpoint takes its snapshot.
    pub(crate) paused: bool,
    pub(crate) quiet_waiters: Vec<oneshot::Sender<()>>,
    // Flush.
    pub(crate) flush_busy: bool,
    pub(crate) flush_waiters: Vec<oneshot::Sender<StoreResult<()>>>,
    pub(crate) reclaim_busy: bool,
    /// Told when the reclaim under way has ended: whether there was anything to reclaim.
    pub(crate) reclaim_waiters: Vec<oneshot::Sender<StoreResult<bool>>>,
    pub(crate) faults: Faults,
    pub(crate) poison: Option<String>,
    pub(crate) stats: StoreStats,
}

impl State {
    pub(crate) fn new(label: Label, read_only: bool, limits: Limits) -> Self {
        let extents = label.geometry.extents;
        Self {
            label,
            read_only,
            limits: limits.sane(),
            extents: vec![Extent::UNUSED; extents as usize],
            free: (0..extents).collect(),
            index: Index::new(label.geometry.extent_bytes / UNIT_BYTES as u32),
            sealed: BTreeSet::new(),
            quarantined: 0,
            checkpoint_extents: 0,
            reclaim_stuck: false,
            checkpoint_stuck: false,
            reclaim_futile: false,
            moves_emptied: 0,
            moves_opened: 0,
            died_units: 0,
            open: BTreeMap::new(),
            tracks: BTreeMap::new(),
            zones: None,
            unfinished: BTreeMap::new(),
            finish_due: Vec::new(),
            queues: Stream::ALL.into_iter().map(|stream| (stream, VecDeque::new())).collect(),
            sequence: 0,
            boot: 0,
            generations: 0,
            next_segment: 0,
            anchor_sequence: 0,
            anchor_dirty: false,
            anchor_busy: false,
            checkpoint: None,
            opened: Vec::new(),
            opened_partial: false,
            opened_next: None,
            anchor_turning: false,
            pages_since_checkpoint: 0,
            checkpoint_busy: false,
            checkpoint_wanted: false,
            checkpoint_waiters: Vec::new(),
            checkpoint_waiters_next: Vec::new(),
            anchor_waiters: Vec::new(),
            bytes_since_checkpoint: 0,
            paused: false,
            quiet_waiters: Vec::new(),
            flush_busy: false,
            flush_waiters: Vec::new(),
            reclaim_busy: false,
            reclaim_waiters: Vec::new(),
            faults: Faults::default(),
            poison: None,
            stats: StoreStats::default(),
        }
    }

    pub(crate) fn extent_units(&self) -> u32 {
        self.label.geometry.extent_bytes / UNIT_BYTES as u32
    }

    pub(crate) fn place(&self, extent: u32, offset_units: u32) -> Place {
        Place {
            device: self.label.device,
            salt: self.label.salt,
            extent,
            generation: self.extents[extent as usize].generation,
            offset_units,
        }
    }

    /// Byte offset on the device.
    pub(crate) fn offset(&self, extent: u32, offset_units: u32) -> u64 {
        self.label.geometry.extent_offset(extent) + u64::from(offset_units) * UNIT_BYTES as u64
    }

    pub(crate) fn check_writable(&self) -> StoreResult<()> {
        match &self.poison {
            _ if self.read_only => Err(StoreError::ReadOnly),
            Some(_) if mutant::on(Mutant::PoisonForgotten) => Ok(()),
            Some(reason) => Err(StoreError::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Takes a free extent for `stream`, for a tombstone if so; `None` when the reserve forbids it or there is none.
    pub(crate) fn take_extent(&mut self, stream: Stream, tombstone: bool) -> Option<u32> {
        let reserve = match stream {
            Stream::Meta if tombstone && mutant::on(Mutant::FullRefusesDeletes) => self.reserve_extents(Stream::Data),
            Stream::Meta if tombstone => self.reserve_for_tombstones(),
            stream => self.reserve_extents(stream),
        };
        if self.free.len() <= reserve {
            return None;
        }
        let extent = self.free.pop_first()?;
        self.generations = self.generations.checked_add(1).expect("fewer than 2^32 extents are opened in one life");
        let fresh = u64::from(self.boot) << 32 | u64::from(self.generations);
        let entry = &mut self.extents[extent as usize];
        assert_eq!((entry.state, entry.live_units), (ExtentState::Free, 0), "extent {extent} is not free");
        let keeps_generation = entry.generation > 0 && mutant::on(Mutant::GenerationNotBumped);
        let keeps_pointer = mutant::on(Mutant::PointerNotReset) && stream != Stream::Checkpoint;
        *entry = Extent {
            state: ExtentState::Open(stream),
            generation: if keeps_generation { entry.generation } else { fresh },
            written_units: if keeps_pointer { entry.written_units } else { 0 },
            ..Extent::UNUSED
        };
        Some(extent)
    }

    /// Opens an extent for records; the anchor that names it is due.
    pub(crate) fn open_extent(&mut self, stream: Stream, tombstone: bool) -> Option<u32> {
        if self.opened.len().max(self.opened_next.as_ref().map_or(0, Vec::len)) >= ANCHOR_MAX_OPENED {
            // Had a checkpoint just failed, another would fail too; the caller is told that the device is full.
            self.checkpoint_wanted |= !self.checkpoint_stuck;
            return None;
        }
        let extent = self.take_extent(stream, tombstone)?;
        self.moves_opened += u32::from(stream == Stream::Moved);
        let opened = OpenedExtent { extent, generation: self.extents[extent as usize].generation, stream };
        self.opened.push(opened);
        if let Some(next) = &mut self.opened_next {
            next.push(opened);
        }
        self.anchor_dirty = true;
        let anchored = self.boot > 1 && mutant::on(Mutant::AckBeforeAnchor);
        self.tracks.insert(extent, Track { anchored, ..Track::default() });
        self.open.insert(stream, extent);
        Some(extent)
    }

    /// Ends appending to the stream's open extent.
    pub(crate) fn seal(&mut self, stream: Stream) {
        if let Some(extent) = self.open.remove(&stream) {
            let entry = &mut self.extents[extent as usize];
            assert_eq!(entry.state, ExtentState::Open(stream));
            entry.state = ExtentState::Sealed(stream);
            let live = entry.live_units;
            self.sealed.insert((live, extent));
            if self.must_finish(extent) {
                let before = self.unfinished.insert(stream, extent);
                assert_eq!(before, None, "an extent is not opened before its predecessor is finished");
                self.finish_due.push(stream);
            }
        }
    }

    pub(crate) fn next_sequence(&mut self) -> u64 {
        self.sequence = self.sequence.checked_add(1).expect("a device sees fewer than 2^64 records");
        self.sequence
    }

    /// A durable record takes effect.
    pub(crate) fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Put(key, location) => {
                self.add_live(location.extent, location.record_units);
                if let Some(old) = self.index.insert(key, location) {
                    self.sub_live(&old);
                    self.died(old.record_units);
                }
            }
            Effect::Move(key, from, to) => {
                if self.index.get(&key) == Some(from) || mutant::on(Mutant::MoveWithoutRecheck) {
                    self.add_live(to.extent, to.record_units);
                    if let Some(old) = self.index.insert(key, to) {
                        self.sub_live(&old);
                    }
                }
            }
            Effect::Remove(keys) => {
                for key in keys {
                    if let Some(old) = self.index.remove(&key) {
                        self.sub_live(&old);
                        self.died(old.record_units);
                    }
                }
            }
        }
    }

    /// Refuses everything on its way, and everything to come.
    pub(crate) fn poison(&mut self, reason: &str) {
        let reason = self.poison.get_or_insert_with(|| reason.to_owned()).clone();
        let error = || StoreError::Poisoned { reason: reason.clone() };
        for queue in self.queues.values_mut() {
            queue.drain(..).for_each(|item| drop(item.reply.send(Err(error()))));
        }
        for (_, track) in std::mem::take(&mut self.tracks) {
            let records = track.segments.into_iter().flat_map(|segment| segment.records);
            records.for_each(|record| drop(record.reply.send(Err(error()))));
        }
        self.flush_waiters.drain(..).for_each(|waiter| drop(waiter.send(Err(error()))));
        self.quiet_waiters.clear();
        self.reclaim_waiters.drain(..).for_each(|waiter| drop(waiter.send(Err(error()))));
        self.anchor_waiters.clear();
        let waiting = self.checkpoint_waiters.drain(..).chain(self.checkpoint_waiters_next.drain(..));
        waiting.for_each(|waiter| drop(waiter.send(Err(error()))));
    }

    /// Nothing placed is still on its way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.tracks.values().all(|track| track.segments.is_empty()) && !self.anchor_busy && self.unfinished.is_empty()
    }

    pub(crate) fn anchor(&mut self) -> Anchor {
        self.anchor_sequence += 1;
        self.pages_since_checkpoint += 1;
        Anchor {
            sequence: self.anchor_sequence,
            boot: self.boot,
            checkpoint: self.checkpoint.clone(),
            opened: self.opened.clone(),
            partial: self.opened_partial,
        }
    }

    pub(crate) fn counted(&self) -> StoreStats {
        let extent_bytes = u64::from(self.label.geometry.extent_bytes);
        let live_bytes = self.extents.iter().map(|e| u64::from(e.live_units) * UNIT_BYTES as u64).sum();
        let reserve = self.reserve_extents(Stream::Data) as u64 * extent_bytes;
        let capacity_bytes = u64::from(self.label.geometry.extents) * extent_bytes;
        StoreStats {
            capacity_bytes,
            live_bytes,
            available_bytes: capacity_bytes.saturating_sub(live_bytes + reserve),
            records: self.index.len(),
            poisoned: self.poison.is_some(),
            ..self.stats
        }
    }
}

/// The stream that a key's records go to.
pub(crate) fn stream_of(key: &ShardKey) -> Stream {
    match key.space {
        Space::Stripe => Stream::Data,
        Space::Journal => Stream::Journal,
        Space::Region | Space::Fact => Stream::Meta,
    }
}
