//! Checkpoints: the index and the extent table, dumped so that recovery need not read the device.
//!
//! Order: pause placing until everything placed is durable; take the snapshot; go on placing; write the
//! dump into extents of its own and flush; then name it in an anchor page and flush. Only after that are
//! extents freed: those that held nothing live at the snapshot are quarantined, those quarantined by the
//! checkpoint before become free.

use std::rc::Rc;

use bytes::Bytes;
use disk::{AlignedBuf, BlockDevice, IO_ALIGN};
use format::{
    ANCHOR_MAX_PARTS, CheckpointExtent, CheckpointHead, CheckpointPart, CheckpointRef, CheckpointShard, ExtentState,
    Geometry, OpenedExtent, RecordHead, RecordKind, Stream, UNIT_BYTES, block_checksums,
};
use tokio::sync::oneshot;

use crate::core::Core;
use crate::state::State;
use crate::{StoreError, StoreResult};

/// Payload bytes of one checkpoint record; half an extent where that is less.
const CHUNK_MAX_BYTES: usize = 1 << 20;

struct Snapshot {
    bytes: Vec<u8>,
    sequence: u64,
    /// Extents that become free and quarantined once the checkpoint is durable.
    freed: Vec<u32>,
    quarantined: Vec<u32>,
}

impl State {
    fn snapshot(&mut self) -> Snapshot {
        assert!(self.is_quiet(), "a snapshot is taken when nothing is on its way");
        let previous: Vec<u32> = self.checkpoint.iter().flat_map(|c| c.parts.iter().map(|part| part.extent)).collect();
        let (mut freed, mut quarantined) = (Vec::new(), Vec::new());
        for (number, extent) in (0u32..).zip(&self.extents) {
            match extent.state {
                ExtentState::Quarantined => freed.push(number),
                ExtentState::Sealed(Stream::Checkpoint) if !previous.contains(&number) => quarantined.push(number),
                _ if extent.is_sealed_data() && extent.live_units == 0 => quarantined.push(number),
                _ => {}
            }
        }
        let head = CheckpointHead {
            extents: self.extents.len() as u32,
            shards: self.index.len() as u64,
            sequence: self.sequence,
        };
        let total = head.total_bytes().expect("the index fits in memory, so its dump does") as usize;
        let mut bytes = Vec::with_capacity(total);
        head.encode_to(&mut bytes);
        for (number, extent) in (0u32..).zip(&self.extents) {
            let state = if freed.binary_search(&number).is_ok() {
                ExtentState::Free
            } else if quarantined.binary_search(&number).is_ok() {
                ExtentState::Quarantined
            } else {
                extent.state
            };
            let entry = CheckpointExtent { state, generation: extent.generation, written_units: extent.written_units };
            entry.encode_to(&mut bytes);
        }
        for (key, location) in &self.index {
            let shard = CheckpointShard {
                key: *key,
                extent: location.extent,
                offset_units: location.offset_units,
                record_units: location.record_units,
                payload_bytes: location.payload_bytes,
                proof: location.proof,
            };
            shard.encode_to(&mut bytes);
        }
        assert_eq!(bytes.len(), total);
        let still_open = self.open.iter().map(|(stream, extent)| OpenedExtent {
            extent: *extent,
            generation: self.extents[*extent as usize].generation,
            stream: *stream,
        });
        self.opened_next = Some(still_open.collect());
        self.bytes_since_checkpoint = 0;
        self.checkpoint_wanted = false;
        self.checkpoint_waiters = std::mem::take(&mut self.checkpoint_waiters_next);
        Snapshot { bytes, sequence: self.sequence, freed, quarantined }
    }

    fn release(&mut self, snapshot: &Snapshot) {
        for number in &snapshot.freed {
            let extent = &mut self.extents[*number as usize];
            assert_eq!((extent.state, extent.live_units), (ExtentState::Quarantined, 0));
            extent.state = ExtentState::Free;
            extent.written_units = 0;
            self.free.insert(*number);
        }
        for number in &snapshot.quarantined {
            let extent = &mut self.extents[*number as usize];
            assert_eq!(extent.live_units, 0, "nothing comes to life in a sealed extent");
            extent.state = ExtentState::Quarantined;
        }
    }

    /// So few free extents that dead space should be turned into free space now.
    pub(crate) fn space_is_low(&self) -> bool {
        self.free.len() <= self.reserve_extents(Stream::Data) + 4.max(self.extents.len() / 16)
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
        let parts = self.write_dump(&snapshot).await?;
        self.flush().await?;
        {
            let mut state = self.state.borrow_mut();
            state.checkpoint = Some(CheckpointRef {
                sequence: snapshot.sequence,
                bytes: snapshot.bytes.len() as u64,
                crc: crc32fast::hash(&snapshot.bytes),
                parts,
            });
            state.opened = state.opened_next.take().expect("set by the snapshot, taken once");
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

    async fn write_dump(&self, snapshot: &Snapshot) -> StoreResult<Vec<CheckpointPart>> {
        let mut parts: Vec<CheckpointPart> = Vec::new();
        let chunk_bytes = CHUNK_MAX_BYTES.min(self.state.borrow().label.geometry.extent_bytes as usize / 2);
        let mut chunks = snapshot.bytes.chunks(chunk_bytes).peekable();
        while chunks.peek().is_some() {
            if parts.len() == ANCHOR_MAX_PARTS {
                return Err(StoreError::Full);
            }
            let extent = {
                let mut state = self.state.borrow_mut();
                let extent = state.take_extent(Stream::Checkpoint).ok_or(StoreError::Full)?;
                state.extents[extent as usize].state = ExtentState::Sealed(Stream::Checkpoint);
                parts.push(CheckpointPart { extent, generation: state.extents[extent as usize].generation });
                extent
            };
            let mut at = 0;
            while let Some(chunk) = chunks.peek() {
                let Some(next) = self.write_chunk(extent, at, chunk).await? else { break };
                at = next;
                chunks.next();
            }
        }
        Ok(parts)
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
        if let Err(error) = self.device.write(offset, vec![buf.freeze()]).await {
            self.fail(&error);
            return Err(error.into());
        }
        let mut state = self.state.borrow_mut();
        state.stats.writes += 1;
        state.stats.written_bytes += bytes;
        Ok(Some(end))
    }

    /// Reads a checkpoint back, whole and verified.
    pub(crate) async fn read_checkpoint(&self, checkpoint: &CheckpointRef) -> StoreResult<Bytes> {
        let corrupt = |offset, what| StoreError::Corrupt { offset, what };
        let extents = self.state.borrow().label.geometry.extents;
        let mut bytes = Vec::new();
        for part in &checkpoint.parts {
            if part.extent >= extents {
                return Err(corrupt(0, "a checkpoint names an extent that is not there"));
            }
            let place = {
                let state = self.state.borrow();
                format::Place { generation: part.generation, ..state.place(part.extent, 0) }
            };
            let mut at = 0;
            while (bytes.len() as u64) < checkpoint.bytes && at < self.state.borrow().extent_units() {
                let offset = self.state.borrow().offset(part.extent, at);
                let place = format::Place { offset_units: at, ..place };
                let room = (self.state.borrow().extent_units() - at) as usize * UNIT_BYTES;
                let (buf, _) = self.read_span(offset, (CHUNK_MAX_BYTES + 2 * Geometry::ANCHOR_BYTES).min(room)).await?;
                let Ok((head, _)) = RecordHead::decode(&buf, &place) else { break };
                let layout = head.layout();
                let payload = buf.get(layout.payload_at..layout.payload_at + head.payload_bytes as usize);
                let payload = payload.filter(|payload| head.payload_fits(payload));
                let payload = payload.ok_or(corrupt(offset, "a piece of a checkpoint does not verify"))?;
                bytes.extend_from_slice(payload);
                at += (layout.record_bytes.next_multiple_of(IO_ALIGN) / UNIT_BYTES) as u32;
            }
        }
        if bytes.len() as u64 != checkpoint.bytes || crc32fast::hash(&bytes) != checkpoint.crc {
            return Err(corrupt(0, "a checkpoint is not whole"));
        }
        Ok(bytes.into())
    }
}
