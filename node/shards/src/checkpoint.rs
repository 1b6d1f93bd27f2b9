//! Checkpoints: the index and the extent table, dumped so that recovery need not read the device.
//!
//! Order: pause placing until everything placed is durable; take the snapshot (shared with the index, not
//! copied); go on placing; write the dump into extents of its own and flush; then name it in an anchor page
//! and flush. Only after that are extents freed that a checkpoint must free (space.rs tells which need none):
//! those that held nothing live at the snapshot. Extents of the stream that holds tombstones are quarantined
//! for one checkpoint more: should this one be damaged, the one before it is rolled forward, and without them
//! deleted records would be back. The checkpoint before it stays as well; older ones go.

use std::collections::BTreeSet;
use std::rc::Rc;

use disk::{AlignedBuf, BlockDevice, IO_ALIGN};
use format::{
    ANCHOR_MAX_PARTS, CheckpointExtent, CheckpointHead, CheckpointPart, CheckpointRef, CheckpointRun, ExtentState,
    OpenedExtent, RecordHead, RecordKind, Stream, UNIT_BYTES, block_checksums,
};
use tokio::sync::oneshot;

use crate::core::Core;
use crate::index::{Index, Runs};
use crate::mutant::{self, Mutant};
use crate::state::State;
use crate::{StoreError, StoreResult};

/// Most payload bytes of one checkpoint record.
pub(crate) const CHUNK_MAX_BYTES: usize = 1 << 20;
/// Payload bytes of those that are written: what one turn of the serving loop may take; half an extent where that
/// is less.
const CHUNK_BYTES: usize = 256 << 10;

struct Snapshot {
    head: CheckpointHead,
    extents: Vec<CheckpointExtent>,
    index: Index,
    /// Extents that become free and quarantined once the checkpoint is durable.
    freed: BTreeSet<u32>,
    quarantined: BTreeSet<u32>,
}

impl State {
    fn snapshot(&mut self) -> Snapshot {
        assert!(self.is_quiet(), "a snapshot is taken when nothing is on its way");
        let previous: Vec<u32> = self.checkpoint.iter().flat_map(|c| c.parts.iter().map(|part| part.extent)).collect();
        let (mut freed, mut quarantined) = (BTreeSet::new(), BTreeSet::new());
        for (number, extent) in (0u32..).zip(&self.extents) {
            let meta = matches!(extent.state, ExtentState::Sealed(Stream::Meta));
            let may_hold_tombstones = meta && !mutant::on(Mutant::QuarantineSkipped);
            let now = match extent.state {
                ExtentState::Quarantined => &mut freed,
                // Its successor is this one's predecessor, and durable.
                ExtentState::Sealed(Stream::Checkpoint) if !previous.contains(&number) => &mut freed,
                _ if extent.is_sealed_data() && extent.live_units == 0 && may_hold_tombstones => &mut quarantined,
                _ if extent.is_sealed_data() && extent.live_units == 0 => &mut freed,
                _ => continue,
            };
            now.insert(number);
        }
        let extents = (0u32..).zip(&self.extents).map(|(number, extent)| {
            let state = match extent.state {
                _ if freed.contains(&number) => ExtentState::Free,
                _ if quarantined.contains(&number) => ExtentState::Quarantined,
                state => state,
            };
            CheckpointExtent { state, generation: extent.generation, written_units: extent.written_units }
        });
        let extents: Vec<CheckpointExtent> = extents.collect();
        let head = CheckpointHead {
            extents: extents.len() as u32,
            runs: self.index.leaves() as u32,
            shards: self.index.len(),
            sequence: self.sequence,
        };
        let still_open = self.open.iter().map(|(stream, extent)| OpenedExtent {
            extent: *extent,
            generation: self.extents[*extent as usize].generation,
            stream: *stream,
        });
        self.opened_next = Some(still_open.collect());
        self.bytes_since_checkpoint = 0;
        self.checkpoint_wanted = false;
        self.checkpoint_waiters = std::mem::take(&mut self.checkpoint_waiters_next);
        Snapshot { head, extents, index: self.index.snapshot(), freed, quarantined }
    }

    fn release(&mut self, snapshot: &Snapshot) {
        for number in &snapshot.freed {
            let extent = &mut self.extents[*number as usize];
            assert_eq!(extent.live_units, 0, "nothing comes to life in a sealed extent");
            match extent.state {
                ExtentState::Quarantined => self.quarantined -= 1,
                ExtentState::Sealed(Stream::Checkpoint) => self.checkpoint_extents -= 1,
                _ => assert!(self.sealed.remove(&(0, *number)), "a dead extent is known as such"),
            }
            extent.state = ExtentState::Free;
            if !mutant::on(Mutant::PointerNotReset) {
                extent.written_units = 0;
            }
            self.free.insert(*number);
        }
        for number in &snapshot.quarantined {
            let extent = &mut self.extents[*number as usize];
            assert_eq!(extent.live_units, 0, "nothing comes to life in a sealed extent");
            assert!(self.sealed.remove(&(0, *number)), "a dead extent is known as such");
            extent.state = ExtentState::Quarantined;
            self.quarantined += 1;
        }
        (self.reclaim_stuck, self.checkpoint_stuck, self.anchor_turning) = (false, false, false);
        self.free_dead();
    }
}

/// The dump's bytes, in pieces.
struct Dump<'a> {
    runs: Runs<'a>,
    pending: Vec<u8>,
    crc: crc32fast::Hasher,
    bytes: u64,
}

impl<'a> Dump<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        let mut pending = Vec::new();
        snapshot.head.encode_to(&mut pending);
        snapshot.extents.iter().for_each(|extent| extent.encode_to(&mut pending));
        Self { runs: snapshot.index.runs(), pending, crc: crc32fast::Hasher::new(), bytes: 0 }
    }

    /// The next `len` bytes; fewer at the end, none after it.
    fn next(&mut self, len: usize) -> Vec<u8> {
        while self.pending.len() < len
            && let Some(run) = self.runs.next()
        {
            let key = run[0].key;
            CheckpointRun { space: key.space, owner: key.owner, records: run.len() as u16 }
                .encode_to(&mut self.pending);
            run.iter().for_each(|shard| shard.encode_to(&mut self.pending));
        }
        let rest = self.pending.split_off(len.min(self.pending.len()));
        let piece = std::mem::replace(&mut self.pending, rest);
        self.crc.update(&piece);
        self.bytes += piece.len() as u64;
        piece
    }
}

impl<D: BlockDevice> Core<D> {
    pub(crate) async fn background_checkpoint(self: Rc<Self>) {
        let done = self.write_checkpoint().await;
        let mut state = self.state.borrow_mut();
        (state.checkpoint_busy, state.paused, state.opened_next) = (false, false, None);
        match &done {
            Ok(()) => state.stats.checkpoints += 1,
            Err(error) => {
                // Not tried again before more has been written: a full device must not spin here.
                state.checkpoint_wanted = false;
                state.checkpoint_stuck = true;
                state.bytes_since_checkpoint = 0;
                tracing::warn!(device = %state.label.device, %error, "no checkpoint could be written");
            }
        }
        state.checkpoint_waiters.drain(..).for_each(|waiter| drop(waiter.send(done.clone())));
        drop(state);
        self.touch();
    }

    /// Writes a checkpoint that reflects everything acknowledged before this call.
    pub(crate) async fn checkpoint_now(&self) -> StoreResult<()> {
        let done = {
            let mut state = self.state.borrow_mut();
            state.check_writable()?;
            let (tell, done) = oneshot::channel();
            state.checkpoint_waiters_next.push(tell);
            state.checkpoint_wanted = true;
            done
        };
        self.touch();
        done.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn write_checkpoint(self: &Rc<Self>) -> StoreResult<()> {
        let quiet = {
            let mut state = self.state.borrow_mut();
            state.check_writable()?;
            state.paused = true;
            let (tell, quiet) = oneshot::channel();
            state.quiet_waiters.push(tell);
            quiet
        };
        self.touch();
        let poisoned = || StoreError::Poisoned { reason: "the device failed before the checkpoint".into() };
        quiet.await.map_err(|_| poisoned())?;
        let snapshot = {
            let mut state = self.state.borrow_mut();
            state.check_writable()?;
            let snapshot = state.snapshot();
            state.paused = false;
            snapshot
        };
        self.touch();
        let written = self.write_dump(&snapshot).await?;
        if !mutant::on(Mutant::CheckpointNamedEarly) {
            self.flush().await?;
        }
        {
            let mut state = self.state.borrow_mut();
            (state.checkpoint, state.opened_partial, state.anchor_turning) = (Some(written), false, true);
            state.pages_since_checkpoint = 0;
            state.opened = state.opened_next.take().expect("set by the snapshot, taken once");
        }
        if mutant::on(Mutant::ReleaseBeforeAnchor) {
            self.state.borrow_mut().release(&snapshot);
            self.touch();
            return self.write_anchor_durably().await;
        }
        self.write_anchor_durably().await?;
        self.state.borrow_mut().release(&snapshot);
        self.touch();
        Ok(())
    }

    /// Writes an anchor page and returns when it is on the medium.
    pub(crate) async fn write_anchor_durably(self: &Rc<Self>) -> StoreResult<()> {
        loop {
            let before = {
                let mut state = self.state.borrow_mut();
                state.check_writable()?;
                if !state.anchor_busy {
                    (state.anchor_dirty, state.anchor_busy) = (false, true);
                    break;
                }
                let (tell, before) = oneshot::channel();
                state.anchor_waiters.push(tell);
                before
            };
            let _ = before.await;
        }
        Rc::clone(self).write_anchor().await;
        self.flush().await
    }

    async fn write_dump(&self, snapshot: &Snapshot) -> StoreResult<CheckpointRef> {
        let mut dump = Dump::new(snapshot);
        let mut parts: Vec<CheckpointPart> = Vec::new();
        let chunk_bytes = CHUNK_BYTES.min(self.state.borrow().label.geometry.extent_bytes as usize / 2);
        let mut chunk = dump.next(chunk_bytes);
        while !chunk.is_empty() {
            if parts.len() == ANCHOR_MAX_PARTS {
                return Err(StoreError::Full);
            }
            let extent = {
                let mut state = self.state.borrow_mut();
                let extent = state.take_extent(Stream::Checkpoint, false).ok_or(StoreError::Full)?;
                state.extents[extent as usize].state = ExtentState::Sealed(Stream::Checkpoint);
                state.checkpoint_extents += 1;
                parts.push(CheckpointPart { extent, generation: state.extents[extent as usize].generation });
                extent
            };
            let mut at = 0;
            while !chunk.is_empty() {
                let Some(next) = self.write_chunk(extent, at, &chunk).await? else { break };
                at = next;
                chunk = dump.next(chunk_bytes);
            }
            let must_finish = self.state.borrow().must_finish(extent);
            if must_finish && let Err(error) = self.finish_extent(extent).await {
                self.fail(&error);
                return Err(error.into());
            }
        }
        assert_eq!(Some(dump.bytes), snapshot.head.total_bytes(), "the snapshot does not change");
        Ok(CheckpointRef { sequence: snapshot.head.sequence, bytes: dump.bytes, crc: dump.crc.finalize(), parts })
    }

    /// Writes one piece of a dump; gives where the next may start, or nothing when it does not fit.
    async fn write_chunk(&self, extent: u32, at: u32, chunk: &[u8]) -> StoreResult<Option<u32>> {
        let (offset, buf, end) = {
            let mut state = self.state.borrow_mut();
            let head = RecordHead {
                kind: RecordKind::Checkpoint,
                sequence: state.next_sequence(),
                key: None,
                payload_bytes: chunk.len() as u32,
                durable_units: 0,
                descriptor: Vec::new(),
                block_crcs: block_checksums(chunk),
            };
            let layout = head.layout();
            let end = at + (layout.record_bytes.next_multiple_of(IO_ALIGN) / UNIT_BYTES) as u32;
            if end > state.extent_units() {
                return Ok(None);
            }
            let mut buf = AlignedBuf::zeroed(layout.record_bytes);
            head.encode_into(&state.place(extent, at), &mut buf);
            buf[layout.payload_at..layout.payload_at + chunk.len()].copy_from_slice(chunk);
            state.extents[extent as usize].written_units = end;
            (state.offset(extent, at), buf, end)
        };
        let bytes = buf.len() as u64;
        let ready = if at == 0 { self.empty_extent(extent).await } else { Ok(()) };
        let done = match ready {
            Ok(()) => self.device.write(offset, vec![buf.freeze()]).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            self.fail(&error);
            return Err(error.into());
        }
        let mut state = self.state.borrow_mut();
        state.stats.writes += 1;
        state.stats.written_bytes += bytes;
        Ok(Some(end))
    }
}
