//! The simulated disk behind the door, and the hooks by which a test drives it.

use std::cell::{RefCell, RefMut};
use std::fmt;
use std::future::{Future, ready};
use std::ops::Range;
use std::rc::Rc;

use base::SeededEntropy;
use disk::{
    AlignedBuf, AlignedBytes, BlockDevice, DeviceFacts, DeviceKind, DiskError, DiskOp, DiskResult, IO_ALIGN,
    MAX_WRITE_PARTS, ZoneFacts, ZoneFault,
};

use crate::medium::{Medium, PAGE_BYTES, SECTOR_BYTES};
use crate::op::Op;
use crate::zoned::Zones;
use crate::{FaultAtlas, FaultCounts};

/// Polls an ordinary operation takes at most before it finishes.
const POLLS_MAX: u64 = 6;
/// What a failing medium says (EIO).
const EIO: i32 = 5;

/// What a write does when it finishes.
#[derive(Clone, Copy)]
enum Fate {
    Done,
    Torn,
    Lost,
}

/// What a write is known by until it has finished.
#[derive(Clone, Copy)]
enum Ticket {
    Plain(u64),
    InZone(u64),
}

/// What a flush does when it finishes.
#[derive(Clone, Copy)]
enum FlushFate {
    Done,
    Lied,
    Failed,
}

/// What a simulated disk is like, faults aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Logical sector in bytes, 512 or 4096: the grain of reads. A crash tears at 512 bytes all the same.
    pub sector_bytes: u32,
    /// Its zones; none for a disk without. The disk is then a whole number of them.
    pub zones: Option<ZoneFacts>,
}

impl Default for Shape {
    fn default() -> Self {
        Self { sector_bytes: SECTOR_BYTES as u32, zones: None }
    }
}

struct State {
    medium: Medium,
    entropy: SeededEntropy,
    atlas: FaultAtlas,
    counts: FaultCounts,
    /// Handles of an earlier generation are gone.
    generation: u64,
    /// Power is off until the next `reopen`.
    off: bool,
    /// The device will never answer again.
    dead: bool,
    ops: u64,
    /// Writes, flushes and changes of zones still accepted before the power goes.
    cut_after: Option<u64>,
    fail_reads: u32,
    fail_writes: u32,
    fail_flushes: u32,
}

impl State {
    /// Draws whether a fault strikes.
    fn strikes(&self, one_in: u64) -> bool {
        one_in != 0 && self.counts.total() < self.atlas.faults_max && self.entropy.one_in(one_in)
    }

    fn polls(&mut self) -> u32 {
        let polls = self.entropy.below(POLLS_MAX) as u32;
        if self.entropy.one_in(self.atlas.slow_one_in) {
            self.counts.slow_ops += 1;
            return polls + self.atlas.slow_polls;
        }
        polls
    }

    fn is_gone(&self, generation: u64) -> bool {
        self.dead || self.off || self.generation != generation
    }

    /// Whether an operation of this handle is accepted at all.
    fn admit(&mut self, op: DiskOp, generation: u64) -> DiskResult<()> {
        if !self.is_gone(generation) && self.strikes(self.atlas.death_one_in) {
            self.die();
        }
        if self.is_gone(generation) { Err(DiskError::Gone { op }) } else { Ok(()) }
    }

    fn die(&mut self) {
        if !self.dead {
            self.dead = true;
            self.counts.deaths += 1;
        }
    }

    /// Counts a write, flush or change of a zone; false when the power goes instead of finishing it.
    fn tick(&mut self) -> bool {
        if self.cut_after == Some(0) {
            self.crash();
            return false;
        }
        self.cut_after = self.cut_after.map(|n| n - 1);
        self.ops += 1;
        true
    }

    fn crash(&mut self) {
        if !self.off {
            self.off = true;
            self.cut_after = None;
            self.counts.crashes += 1;
            self.medium.crash(&self.entropy);
        }
    }

    /// Another place for `len` bytes that were meant for `offset`, as finely placed as those.
    fn random_place(&self, offset: u64, len: usize) -> u64 {
        let unit = if (offset | len as u64).is_multiple_of(PAGE_BYTES) { PAGE_BYTES } else { SECTOR_BYTES };
        self.entropy.below((self.medium.size_bytes() - len as u64) / unit + 1) * unit
    }
}

/// A simulated disk. Clones are handles of the same one, so a test can keep a handle while a store owns another.
#[derive(Clone)]
pub struct SimDisk {
    state: Rc<RefCell<State>>,
    generation: u64,
    facts: Rc<DeviceFacts>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDisk({} bytes, generation {})", self.facts.size_bytes, self.generation)
    }
}

impl SimDisk {
    /// An honest, zeroed disk of `size_bytes` (rounded down to whole pages); it still loses unflushed writes at a crash.
    ///
    /// # Panics
    /// When `size_bytes` is less than one page.
    #[must_use]
    pub fn new(size_bytes: u64, seed: u64) -> Self {
        Self::with_faults(size_bytes, seed, FaultAtlas::default())
    }

    /// A zeroed disk that injects faults as `atlas` says.
    ///
    /// # Panics
    /// When `size_bytes` is less than one page.
    #[must_use]
    pub fn with_faults(size_bytes: u64, seed: u64, atlas: FaultAtlas) -> Self {
        Self::with_shape(size_bytes, seed, atlas, Shape::default())
    }

    /// A zeroed disk of another shape than the usual.
    ///
    /// # Panics
    /// When `size_bytes` is less than one page, or the shape is none that a disk can have.
    #[must_use]
    pub fn with_shape(size_bytes: u64, seed: u64, atlas: FaultAtlas, shape: Shape) -> Self {
        assert!(
            [SECTOR_BYTES, PAGE_BYTES].contains(&u64::from(shape.sector_bytes)),
            "sectors of {} bytes",
            shape.sector_bytes
        );
        let unit = shape.zones.map_or(PAGE_BYTES, |zones| zones.zone_bytes);
        let size_bytes = size_bytes / unit * unit;
        let zones = shape.zones.map(|zones| Zones::new(size_bytes, zones, u64::from(shape.sector_bytes)));
        let state = State {
            medium: Medium::new(size_bytes, zones),
            entropy: SeededEntropy::new(seed),
            atlas,
            counts: FaultCounts::default(),
            generation: 0,
            off: false,
            dead: false,
            ops: 0,
            cut_after: None,
            fail_reads: 0,
            fail_writes: 0,
            fail_flushes: 0,
        };
        let facts = DeviceFacts {
            kind: DeviceKind::Simulated,
            path: format!("sim:{seed:#x}"),
            size_bytes,
            sector_bytes: shape.sector_bytes,
            read_align_bytes: shape.sector_bytes,
            rotational: false,
            zoned: shape.zones.is_some(),
            zones: shape.zones,
            volatile_cache: Some(true),
            fua: Some(false),
            atomic_write_bytes: None,
            polled: Some(false),
            discard: true,
            discard_granularity_bytes: None,
            passthrough: None,
            model: Some("simulated disk".to_owned()),
            serial: Some(format!("{seed:016x}")),
            wwn: None,
            engine: "simulated",
        };
        Self { state: Rc::new(RefCell::new(state)), generation: 0, facts: Rc::new(facts) }
    }

    fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// Cuts the power now: unflushed writes keep any subset of their sectors, and every handle is gone.
    pub fn crash(&self) {
        self.state().crash();
    }

    /// Cuts the power at the write, flush or change of a zone that follows the next `n`: that one is still under way (so a write
    /// may leave some sectors), and from then on everything answers [`DiskError::Gone`].
    pub fn power_cut_after(&self, n: u64) {
        self.state().cut_after = Some(n);
    }

    /// A fresh handle on the same bytes; all earlier handles are gone. After a crash, the bytes are what
    /// the crash left; without one this is a process that died alone: what it wrote is seen, but not yet durable.
    /// A pending power cut is called off, a dead device stays dead.
    #[must_use]
    pub fn reopen(&self) -> Self {
        let mut state = self.state();
        if state.dead {
            state.crash();
        }
        state.off = false;
        state.cut_after = None;
        state.medium.finish_all();
        state.generation += 1;
        Self { state: Rc::clone(&self.state), generation: state.generation, facts: Rc::clone(&self.facts) }
    }

    /// Whether this handle has lost its device: by a crash, a power cut, a reopening or the device's death.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.state().is_gone(self.generation)
    }

    /// Writes, flushes and changes of zones accepted so far, over all handles.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.state().ops
    }

    /// What was injected so far.
    #[must_use]
    pub fn injected(&self) -> FaultCounts {
        self.state().counts
    }

    /// Replaces the atlas from the next operation on.
    pub fn set_faults(&self, atlas: FaultAtlas) {
        self.state().atlas = atlas;
    }

    /// Flips bit `bit` (0-7) of the byte at `offset`, beneath every cache.
    ///
    /// # Panics
    /// When the place is outside the device, or `bit` above 7.
    pub fn flip_bit(&self, offset: u64, bit: u8) {
        let mut state = self.state();
        state.medium.flip_bit(offset, bit);
        state.counts.bit_flips += 1;
    }

    /// The next read fails with EIO.
    pub fn fail_next_read(&self) {
        self.state().fail_reads += 1;
    }

    /// The next write fails with EIO, after any subset of its sectors was written.
    pub fn fail_next_write(&self) {
        self.state().fail_writes += 1;
    }

    /// Writes that were to fail by [`Self::fail_next_write`] and have not come yet work after all.
    pub fn call_off_failing_writes(&self) {
        self.state().fail_writes = 0;
    }

    /// The next flush fails, and what it should have covered is lost in part.
    pub fn fail_next_flush(&self) {
        self.state().fail_flushes += 1;
    }

    /// Every sector that `range` (bytes) touches fails from now on.
    pub fn set_bad(&self, range: Range<u64>) {
        let mut state = self.state();
        let new = state.medium.set_bad(range);
        state.counts.bad_sectors += new;
    }

    /// Every sector that `range` (bytes) touches works again, with the bytes it last held.
    pub fn set_good(&self, range: Range<u64>) {
        self.state().medium.set_good(range);
    }

    /// The device dies for good.
    pub fn kill(&self) {
        self.state().die();
    }

    /// The bytes that an honest read would see now, at any offset and length; works on a dead device too.
    #[must_use]
    pub fn raw_read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        self.state().medium.read(offset, &mut out);
        out
    }

    /// Changes bytes beneath every cache, at any offset and length; durable at once.
    ///
    /// # Panics
    /// When the place is outside the device.
    pub fn raw_write(&self, offset: u64, bytes: &[u8]) {
        self.state().medium.alter(offset, bytes);
    }

    fn check(&self, op: DiskOp, offset: u64, len: usize) -> DiskResult<()> {
        let align = if op == DiskOp::Read { u64::from(self.facts.read_align_bytes) } else { PAGE_BYTES };
        let aligned = offset.is_multiple_of(align) && (len as u64).is_multiple_of(align) && len > 0;
        let end = offset.checked_add(len as u64);
        if aligned && end.is_some_and(|end| end <= self.facts.size_bytes) {
            return Ok(());
        }
        Err(DiskError::Invalid { op, offset, len })
    }

    /// Gives the polls, the place, and whether what was never written of a zone reads as ones.
    fn begin_read(&self, offset: u64, len: usize) -> DiskResult<(u32, u64, bool)> {
        let op = DiskOp::Read;
        self.check(op, offset, len)?;
        let mut state = self.state();
        state.admit(op, self.generation)?;
        let polls = state.polls();
        let failed = DiskError::Medium { op, offset, len, errno: EIO };
        if state.medium.is_bad(offset, len as u64) {
            state.counts.bad_sector_hits += 1;
            return Err(failed);
        }
        let unwritten = state.medium.zones.as_ref().is_some_and(|zones| zones.is_unwritten(offset, len as u64));
        // Devices give one of three answers.
        let answer = if unwritten { state.entropy.below(3) } else { 0 };
        if answer == 1 {
            return Err(failed);
        }
        if state.fail_reads > 0 || state.strikes(state.atlas.read_error_one_in) {
            state.fail_reads = state.fail_reads.saturating_sub(1);
            state.counts.read_errors += 1;
            return Err(failed);
        }
        if state.strikes(state.atlas.misdirected_read_one_in) {
            state.counts.misdirected_reads += 1;
            return Ok((polls, state.random_place(offset, len), false));
        }
        Ok((polls, offset, answer == 2))
    }

    fn begin_write(&self, offset: u64, parts: &[AlignedBytes]) -> DiskResult<(u32, Ticket, Fate)> {
        let op = DiskOp::Write;
        let len = parts.iter().map(|p| p.len()).sum();
        self.check(op, offset, len)?;
        if parts.len() > MAX_WRITE_PARTS || parts.iter().any(|p| p.is_empty() || !p.len().is_multiple_of(IO_ALIGN)) {
            return Err(DiskError::Invalid { op, offset, len });
        }
        let mut state = self.state();
        state.admit(op, self.generation)?;
        if let Some(zones) = &state.medium.zones {
            zones.check_write(offset, len as u64)?;
        }
        let polls = state.polls();
        let mut place = offset;
        let mut fate = Fate::Done;
        if state.medium.is_bad(offset, len as u64) {
            state.counts.bad_sector_hits += 1;
            fate = Fate::Torn;
        } else if state.fail_writes > 0 || state.strikes(state.atlas.write_error_one_in) {
            state.fail_writes = state.fail_writes.saturating_sub(1);
            state.counts.write_errors += 1;
            fate = Fate::Torn;
        } else if state.strikes(state.atlas.lost_write_one_in) {
            state.counts.lost_writes += 1;
            fate = Fate::Lost;
        } else if state.strikes(state.atlas.misdirected_write_one_in) {
            state.counts.misdirected_writes += 1;
            // Where zones have pointers it can land in no other place.
            match state.medium.zones {
                Some(_) => fate = Fate::Lost,
                None => place = state.random_place(offset, len),
            }
        }
        let ticket = match &mut state.medium.zones {
            Some(zones) if zones.is_sequential(offset) => Ticket::InZone(zones.begin_write(offset, parts)),
            _ => Ticket::Plain(state.medium.begin(place, parts)),
        };
        if !state.tick() {
            return Err(DiskError::Gone { op });
        }
        self.age(&mut state, offset, len);
        Ok((polls, ticket, fate))
    }

    /// The damage that time does, drawn at each write since there is no clock.
    fn age(&self, state: &mut State, offset: u64, len: usize) {
        if state.strikes(state.atlas.bad_sector_one_in) {
            let sector = offset + state.entropy.below(len as u64 / SECTOR_BYTES) * SECTOR_BYTES;
            let new = state.medium.set_bad(sector..sector + SECTOR_BYTES);
            state.counts.bad_sectors += new;
        }
        if state.strikes(state.atlas.bit_rot_one_in) {
            let entropy = state.entropy.clone();
            state.counts.bit_flips += u64::from(state.medium.rot(&entropy));
        }
    }

    fn finish_write(&self, ticket: Ticket, fate: Fate, offset: u64, len: usize) -> DiskResult<()> {
        let op = DiskOp::Write;
        let mut state = self.state();
        if state.is_gone(self.generation) {
            return Err(DiskError::Gone { op });
        }
        let entropy = state.entropy.clone();
        match (ticket, fate) {
            (Ticket::Plain(id), Fate::Done) => state.medium.finish(id),
            (Ticket::Plain(id), Fate::Lost) => state.medium.forget(id),
            (Ticket::Plain(id), Fate::Torn) => state.medium.finish_torn(id, &entropy),
            (Ticket::InZone(id), fate) => {
                let zones = state.medium.zones.as_mut().expect("the write is in a zone");
                match fate {
                    Fate::Done => {}
                    Fate::Lost => zones.blank(id),
                    Fate::Torn => zones.cut(id, &entropy),
                }
                state.medium.finish_in_zone(id);
            }
        }
        if matches!(fate, Fate::Torn) { Err(DiskError::Medium { op, offset, len, errno: EIO }) } else { Ok(()) }
    }

    /// Begins a reset or a finish of a zone.
    fn begin_change(&self, op: DiskOp, offset: u64) -> DiskResult<(u32, u64)> {
        let mut state = self.state();
        state.admit(op, self.generation)?;
        let polls = state.polls();
        let zones = state.medium.zones.as_mut();
        let id = zones.ok_or(DiskError::Zone { op, offset, fault: ZoneFault::NotZoned })?.begin_change(op, offset)?;
        if state.tick() { Ok((polls, id)) } else { Err(DiskError::Gone { op }) }
    }

    fn change_zone(&self, op: DiskOp, offset: u64) -> impl Future<Output = DiskResult<()>> {
        let begun = self.begin_change(op, offset);
        let polls = begun.as_ref().map_or(0, |(polls, _)| *polls);
        Op::new(polls, move || {
            let (_, id) = begun?;
            let mut state = self.state();
            if state.is_gone(self.generation) {
                return Err(DiskError::Gone { op });
            }
            state.medium.finish_in_zone(id);
            Ok(())
        })
    }

    fn begin_flush(&self) -> DiskResult<(u32, u64, FlushFate)> {
        let op = DiskOp::Flush;
        let mut state = self.state();
        state.admit(op, self.generation)?;
        let polls = state.polls();
        let mut fate = FlushFate::Done;
        if state.fail_flushes > 0 || state.strikes(state.atlas.failing_flush_one_in) {
            state.fail_flushes = state.fail_flushes.saturating_sub(1);
            state.counts.failed_flushes += 1;
            fate = FlushFate::Failed;
        } else if state.strikes(state.atlas.lying_flush_one_in) {
            state.counts.lying_flushes += 1;
            fate = FlushFate::Lied;
        }
        if !state.tick() {
            return Err(DiskError::Gone { op });
        }
        Ok((polls, state.medium.flush_mark(), fate))
    }

    fn finish_flush(&self, mark: u64, fate: FlushFate) -> DiskResult<()> {
        let op = DiskOp::Flush;
        let mut state = self.state();
        if state.is_gone(self.generation) {
            return Err(DiskError::Gone { op });
        }
        match fate {
            FlushFate::Done => state.medium.flush(mark),
            FlushFate::Lied => {}
            FlushFate::Failed => {
                let entropy = state.entropy.clone();
                state.medium.flush_failing(mark, &entropy);
                return Err(DiskError::Medium { op, offset: 0, len: 0, errno: EIO });
            }
        }
        Ok(())
    }
}

impl BlockDevice for SimDisk {
    fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    fn read(&self, offset: u64, mut buf: AlignedBuf) -> impl Future<Output = DiskResult<AlignedBuf>> {
        let begun = self.begin_read(offset, buf.len());
        let polls = begun.as_ref().map_or(0, |(polls, ..)| *polls);
        Op::new(polls, move || {
            let (_, place, ones) = begun?;
            let state = self.state();
            if state.is_gone(self.generation) {
                return Err(DiskError::Gone { op: DiskOp::Read });
            }
            state.medium.read(place, &mut buf);
            if let Some(zones) = state.medium.zones.as_ref().filter(|_| ones) {
                zones.fill_unwritten(place, &mut buf);
            }
            Ok(buf)
        })
    }

    fn write(&self, offset: u64, parts: Vec<AlignedBytes>) -> impl Future<Output = DiskResult<()>> {
        let begun = self.begin_write(offset, &parts);
        let len = parts.iter().map(|p| p.len()).sum();
        let polls = begun.as_ref().map_or(0, |(polls, ..)| *polls);
        Op::new(polls, move || {
            let (_, id, fate) = begun?;
            self.finish_write(id, fate, offset, len)
        })
    }

    fn flush(&self) -> impl Future<Output = DiskResult<()>> {
        let begun = self.begin_flush();
        let polls = begun.as_ref().map_or(0, |(polls, ..)| *polls);
        Op::new(polls, move || {
            let (_, mark, fate) = begun?;
            self.finish_flush(mark, fate)
        })
    }

    fn discard(&self, offset: u64, len_bytes: u64) -> impl Future<Output = DiskResult<()>> {
        let op = DiskOp::Discard;
        let len = usize::try_from(len_bytes).unwrap_or(usize::MAX);
        let mut begun = self.check(op, offset, len);
        let mut polls = 0;
        if begun.is_ok() {
            let mut state = self.state();
            begun = state.admit(op, self.generation);
            if begun.is_ok() {
                polls = state.polls();
                let entropy = state.entropy.clone();
                match self.facts.zones {
                    // What it holds is freed by its reset.
                    Some(zones) if zones.is_sequential(offset) => {}
                    Some(zones) if !zones.holds(offset, len_bytes) => {
                        begun = Err(DiskError::Zone { op, offset, fault: ZoneFault::Crosses });
                    }
                    _ => state.medium.discard(offset, len_bytes, &entropy),
                }
            }
        }
        Op::new(polls, move || begun)
    }

    fn write_pointer(&self, offset: u64) -> impl Future<Output = DiskResult<u64>> {
        let op = DiskOp::ReportZone;
        let mut state = self.state();
        let admitted = state.admit(op, self.generation);
        ready(admitted.and_then(|()| match &state.medium.zones {
            Some(zones) => zones.pointer(offset),
            None => Err(DiskError::Zone { op, offset, fault: ZoneFault::NotZoned }),
        }))
    }

    fn reset_zone(&self, offset: u64) -> impl Future<Output = DiskResult<()>> {
        self.change_zone(DiskOp::ResetZone, offset)
    }

    fn finish_zone(&self, offset: u64) -> impl Future<Output = DiskResult<()>> {
        self.change_zone(DiskOp::FinishZone, offset)
    }
}
