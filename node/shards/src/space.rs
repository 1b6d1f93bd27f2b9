//! Space: which extents are live, dead or free, what stays in reserve, and when to make more.
//!
//! Invariant: `sealed` holds every sealed extent of records with its live units, and no other extent.
//!
//! An extent whose last live record dies is free at once, without a checkpoint, when
//! - it holds no tombstones: what replaced or removed its records lies elsewhere and is durable; whatever checkpoint
//!   recovery starts from, rolling forward meets that, so the extent's old bytes are not needed; and
//! - no anchor page on the medium asks recovery to scan it: a scan that met newer bytes there would take them for
//!   damage.
//!
//! The others wait for the next checkpoint. Where a checkpoint still points to such an extent and what replaced the
//! record is damaged, a read fails by name: it never gives the record from before.

use format::{CheckpointExtent, CheckpointRun, CheckpointShard, ExtentState, Geometry, OpenedExtent, Stream};

use crate::extent::{Extent, Location};
use crate::mutant::{self, Mutant};
use crate::state::State;

/// Extents with more than this share of live units, in percent, are not worth moving.
const LIVE_MAX_PERCENT: u64 = 90;
/// Extents that reclaim empties before its gain is looked at. 24: with at most 90 % live each, small records leave
/// two whole extents free by then; one may be luck at the start.
const GAIN_WINDOW: u32 = 24;
/// Reclaim that rests tries again when this part of an extent has died.
const DIED_SHARE: u32 = 8;
/// A checkpoint for the sake of space frees at least so many times its own size, unless space runs out; any
/// other is written after so many times its own size has been.
const CHECKPOINT_GAIN: usize = 6;
/// Anchor pages after which a checkpoint is due: the ring must keep a page that names the checkpoint before it.
const PAGES_MAX: u64 = Geometry::ANCHOR_SLOTS * 3 / 4;
/// Free extents beyond the reserve that reclaim keeps ready.
const READY_EXTENTS: usize = 2;
/// Largest part of the reserve that does not follow from the index, in extents: a large device needs no more than a
/// middling one.
const RESERVE_MAX_EXTENTS: usize = 96;

impl State {
    pub(crate) fn add_live(&mut self, extent: u32, units: u32) {
        let entry = &mut self.extents[extent as usize];
        let before = entry.live_units;
        entry.live_units += units;
        self.resort(extent, before);
    }

    pub(crate) fn sub_live(&mut self, old: &Location) {
        let entry = &mut self.extents[old.extent as usize];
        let before = entry.live_units;
        entry.live_units = before.checked_sub(old.record_units).expect("an extent's live units cover its live records");
        self.resort(old.extent, before);
        if self.extents[old.extent as usize].live_units == 0 {
            self.free_if_dead(old.extent);
        }
    }

    /// Whether an anchor page that recovery may start from asks for a scan of this extent.
    fn is_named(&self, extent: u32) -> bool {
        let named = |list: &[OpenedExtent]| list.iter().any(|opened| opened.extent == extent);
        !mutant::on(Mutant::FreedWhileNamed) && (named(&self.opened) || self.opened_next.as_deref().is_some_and(named))
    }

    /// Frees an extent that needs no checkpoint for it; see the file's header.
    fn free_if_dead(&mut self, extent: u32) {
        let entry = &self.extents[extent as usize];
        let holds_no_tombstones =
            matches!(entry.state, ExtentState::Sealed(Stream::Data | Stream::Journal | Stream::Moved));
        let unfinished = self.unfinished.values().any(|unfinished| *unfinished == extent);
        let idle = !unfinished && !self.tracks.contains_key(&extent);
        let dead = holds_no_tombstones && entry.live_units == 0 && idle;
        let known = self.checkpoint.is_some() && !self.anchor_turning;
        if !dead || !known || self.read_only || self.poison.is_some() || self.is_named(extent) {
            return;
        }
        assert!(self.sealed.remove(&(0, extent)), "a dead extent is known as such");
        let entry = &mut self.extents[extent as usize];
        entry.state = ExtentState::Free;
        if !mutant::on(Mutant::PointerNotReset) {
            entry.written_units = 0;
        }
        self.free.insert(extent);
        self.reclaim_stuck = false;
    }

    /// Frees every dead extent that needs no checkpoint for it.
    pub(crate) fn free_dead(&mut self) {
        let dead: Vec<u32> = self.sealed.range(..(1, 0)).map(|(_, extent)| *extent).collect();
        dead.into_iter().for_each(|extent| self.free_if_dead(extent));
    }

    /// Enough has been written, or opened, since the last checkpoint.
    pub(crate) fn checkpoint_is_due(&self) -> bool {
        let interval = self.limits.checkpoint_interval_bytes.max((CHECKPOINT_GAIN * self.dump_bytes()) as u64);
        let pages = self.checkpoint.is_some() && self.pages_since_checkpoint >= PAGES_MAX;
        self.bytes_since_checkpoint >= interval || (pages && !self.checkpoint_stuck)
    }

    /// A record died other than by being moved. With enough of them reclaim may gain again; a few do not make
    /// room, and to try after each would be to move everything for every small change of a full device.
    pub(crate) fn died(&mut self, units: u32) {
        self.died_units += units;
        if self.died_units >= self.extent_units() / DIED_SHARE {
            (self.reclaim_stuck, self.reclaim_futile) = (false, false);
            (self.moves_emptied, self.moves_opened, self.died_units) = (0, 0, 0);
        }
    }

    /// Reclaim has emptied an extent. Where records are large beside extents it may need as many for what it
    /// moves, for ever: it rests then, until records die otherwise.
    pub(crate) fn note_emptied(&mut self) {
        self.moves_emptied += 1;
        if self.moves_emptied >= GAIN_WINDOW {
            self.reclaim_futile = self.moves_opened + 1 >= self.moves_emptied;
            (self.moves_emptied, self.moves_opened) = (0, 0);
        }
    }

    /// Whether reclaim has something to do that may gain.
    pub(crate) fn can_reclaim(&self) -> bool {
        !self.reclaim_stuck && !self.reclaim_futile && self.victim().is_some()
    }

    fn resort(&mut self, extent: u32, before: u32) {
        let entry = &self.extents[extent as usize];
        if entry.is_sealed_data() {
            let was_there = self.sealed.remove(&(before, extent));
            assert!(was_there, "sealed extents are known by their live units");
            self.sealed.insert((entry.live_units, extent));
        }
    }

    /// Live units of every extent and what follows from them, from the index alone.
    pub(crate) fn recount(&mut self) {
        self.extents.iter_mut().for_each(|extent| extent.live_units = 0);
        for (_, location) in self.index.after(None) {
            self.extents[location.extent as usize].live_units += location.record_units;
        }
        let numbered = || (0u32..).zip(&self.extents);
        self.sealed = numbered().filter(|(_, e)| e.is_sealed_data()).map(|(n, e)| (e.live_units, n)).collect();
        self.free = numbered().filter(|(_, e)| e.state == ExtentState::Free).map(|(n, _)| n).collect();
        let of_checkpoint = |e: &Extent| e.state == ExtentState::Sealed(Stream::Checkpoint);
        self.checkpoint_extents = numbered().filter(|(_, e)| of_checkpoint(e)).count() as u32;
        self.quarantined = numbered().filter(|(_, e)| e.state == ExtentState::Quarantined).count() as u32;
    }

    /// Bytes of a checkpoint of the index as it is.
    pub(crate) fn dump_bytes(&self) -> usize {
        let records = self.index.len() as usize * CheckpointShard::BYTES;
        records + self.index.leaves() * CheckpointRun::BYTES + self.extents.len() * CheckpointExtent::BYTES
    }

    /// Extents that must stay free for records of this stream to open another one.
    ///
    /// Checkpoints may use the last: they are what makes space. Tombstones come next, then moved records: deletes always work. Index and journal
    /// keep going long after shards are refused.
    pub(crate) fn reserve_extents(&self, stream: Stream) -> usize {
        let extents = self.extents.len();
        let above = match stream {
            Stream::Checkpoint => return 0,
            Stream::Moved => 1,
            Stream::Meta => (extents / 128).clamp(3, RESERVE_MAX_EXTENTS / 2),
            Stream::Journal => (extents / 96).clamp(4, RESERVE_MAX_EXTENTS * 2 / 3),
            Stream::Data => (extents / 64).clamp(8, RESERVE_MAX_EXTENTS),
        };
        self.reserve_for_tombstones() + above
    }

    /// As [`Self::reserve_extents`], for tombstones: what the next checkpoint may take. Up to three are there at a
    /// time, the one being written among them; afterwards the oldest goes.
    pub(crate) fn reserve_for_tombstones(&self) -> usize {
        let one_checkpoint = self.dump_bytes().div_ceil(self.label.geometry.extent_bytes as usize);
        (3 * one_checkpoint).saturating_sub(self.checkpoint_extents as usize).max(one_checkpoint)
    }

    /// Dead extents that make a checkpoint worth its bytes.
    fn batch_extents(&self) -> usize {
        let worth = (CHECKPOINT_GAIN * self.dump_bytes()).div_ceil(self.label.geometry.extent_bytes as usize);
        worth.clamp(2, 2.max(self.extents.len() / 16))
    }

    fn dead_extents(&self) -> usize {
        self.sealed.range(..(1, 0)).count()
    }

    /// Extents that hold no live record but are not free yet: a checkpoint or two will free them.
    pub(crate) fn has_dead_extents(&self) -> bool {
        self.quarantined > 0 || self.sealed.first().is_some_and(|(live, _)| *live == 0)
    }

    /// So little space is free, or will be by the next checkpoints, that reclaim should make more.
    pub(crate) fn space_is_low(&self) -> bool {
        let wanted = self.reserve_extents(Stream::Data) + READY_EXTENTS;
        self.free.len() <= wanted && self.free.len() + self.dead_extents() + self.quarantined as usize <= wanted
    }

    /// A checkpoint is due for the extents it would free.
    pub(crate) fn checkpoint_makes_space(&self) -> bool {
        let reserve = self.reserve_extents(Stream::Data);
        if self.free.len() > reserve + self.batch_extents() + 1 {
            return false;
        }
        self.dead_extents() >= self.batch_extents() || (self.free.len() <= reserve + 1 && self.has_dead_extents())
    }

    /// The extent whose reclaim gains most, when one gains enough.
    pub(crate) fn victim(&self) -> Option<u32> {
        let units = u64::from(self.extent_units());
        let worth = |live: u32| u64::from(live) * 100 <= units * LIVE_MAX_PERCENT;
        let mut candidates = self.sealed.range((1, 0)..).take_while(|(live, _)| worth(*live));
        let fit = |live: u32, number: u32| {
            let extent = &self.extents[number as usize];
            !extent.unreadable && extent.left_units != live && !self.tracks.contains_key(&number)
        };
        candidates.find(|(live, number)| fit(*live, *number)).map(|(_, number)| *number)
    }

    /// Whether a record of `stream` that finds no extent may find one later.
    pub(crate) fn space_may_come(&self, stream: Stream) -> bool {
        let dead = self.has_dead_extents() && !self.checkpoint_stuck;
        let freed = self.checkpoint_busy || self.checkpoint_wanted || dead;
        // What reclaim moves must not wait for reclaim.
        let moved = stream != Stream::Moved && (self.reclaim_busy || self.can_reclaim());
        freed || moved
    }
}
