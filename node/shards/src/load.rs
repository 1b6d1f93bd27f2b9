//! Reading a checkpoint back, piece by piece: memory stays near the size of the index it becomes.
//!
//! Nothing of it is used before the last piece has come and lengths, checksum and order all fit.

use disk::{BlockDevice, IO_ALIGN};
use format::{
    CheckpointExtent, CheckpointHead, CheckpointRef, CheckpointRun, CheckpointShard, ExtentState, FormatError,
    PAYLOAD_MAX_BYTES, Place, RecordHead, Stream, UNIT_BYTES,
};

use crate::checkpoint::CHUNK_MAX_BYTES;
use crate::core::Core;
use crate::extent::Extent;
use crate::index::Index;
use crate::{StoreError, StoreResult};

/// Bytes that a piece's head may take.
const HEAD_ROOM_BYTES: usize = 2 * IO_ALIGN;

/// A checkpoint as far as it has been read.
struct Loading<'a> {
    wanted: &'a CheckpointRef,
    head: Option<CheckpointHead>,
    extents: Vec<Extent>,
    index: Index,
    run: Option<(CheckpointRun, u16)>,
    runs: u32,
    /// Bytes of an entry that the next piece completes.
    carried: Vec<u8>,
    crc: crc32fast::Hasher,
    bytes: u64,
}

fn invalid(field: &'static str) -> StoreError {
    StoreError::Unusable(FormatError::Invalid { what: "checkpoint", field })
}

impl<'a> Loading<'a> {
    fn new(wanted: &'a CheckpointRef, extent_units: u32) -> Self {
        Self {
            wanted,
            head: None,
            extents: Vec::new(),
            index: Index::new(extent_units),
            run: None,
            runs: 0,
            carried: Vec::new(),
            crc: crc32fast::Hasher::new(),
            bytes: 0,
        }
    }

    fn take(&mut self, piece: &[u8], extents: usize, extent_units: u32) -> StoreResult<()> {
        self.crc.update(piece);
        self.bytes += piece.len() as u64;
        let mut all = std::mem::take(&mut self.carried);
        all.extend_from_slice(piece);
        let mut rest = &all[..];
        while let Some(after) = self.entry(rest, extents, extent_units)? {
            rest = after;
        }
        self.carried = rest.to_vec();
        Ok(())
    }

    /// Takes the entry at the start of `bytes`; gives what follows, or nothing when it is not whole yet.
    fn entry<'b>(&mut self, bytes: &'b [u8], extents: usize, extent_units: u32) -> StoreResult<Option<&'b [u8]>> {
        let Some(head) = self.head else {
            if bytes.len() < CheckpointHead::BYTES {
                return Ok(None);
            }
            let (head, rest) = CheckpointHead::decode(bytes, self.wanted.bytes)?;
            if head.extents as usize != extents || head.sequence != self.wanted.sequence {
                return Err(invalid("extents or sequence"));
            }
            self.head = Some(head);
            return Ok(Some(rest));
        };
        if self.extents.len() < extents {
            if bytes.len() < CheckpointExtent::BYTES {
                return Ok(None);
            }
            let (entry, rest) = CheckpointExtent::decode(bytes)?;
            if entry.written_units > extent_units {
                return Err(invalid("written units"));
            }
            self.extents.push(Extent {
                state: entry.state,
                generation: entry.generation,
                written_units: entry.written_units,
                durable_units: entry.written_units,
                ..Extent::UNUSED
            });
            return Ok(Some(rest));
        }
        let Some((run, left)) = self.run else {
            if bytes.len() < CheckpointRun::BYTES {
                return Ok(None);
            }
            let (run, rest) = CheckpointRun::decode(bytes)?;
            self.runs += 1;
            self.run = Some((run, run.records));
            return if self.runs > head.runs { Err(invalid("runs")) } else { Ok(Some(rest)) };
        };
        if bytes.len() < CheckpointShard::BYTES {
            return Ok(None);
        }
        let (shard, rest) = CheckpointShard::decode(bytes, &run)?;
        let location = self.index.locate(shard.place_units, shard.head_units, shard.payload_bytes, shard.proof);
        let end = u64::from(location.offset_units) + u64::from(location.record_units);
        let fits = (location.extent as usize) < extents && end <= u64::from(extent_units);
        if !fits || shard.payload_bytes as usize > PAYLOAD_MAX_BYTES || shard.place_units >= 1 << 40 {
            return Err(invalid("shard place"));
        }
        if self.index.insert(shard.key, location).is_some() {
            return Err(invalid("a key twice"));
        }
        self.run = if left > 1 { Some((run, left - 1)) } else { None };
        Ok(Some(rest))
    }

    /// The extents and the index, when all of it was there.
    fn finish(self) -> StoreResult<(CheckpointHead, Vec<Extent>, Index)> {
        let whole = self.bytes == self.wanted.bytes && self.crc.finalize() == self.wanted.crc;
        let ended = self.run.is_none() && self.carried.is_empty();
        match self.head {
            Some(head) if whole && ended && head.runs == self.runs && head.shards == self.index.len() => {
                Ok((head, self.extents, self.index))
            }
            _ => Err(StoreError::Corrupt { offset: 0, what: "a checkpoint is not whole" }),
        }
    }
}

impl<D: BlockDevice> Core<D> {
    /// Makes a checkpoint the store's state; gives its number of records.
    pub(crate) async fn load_checkpoint(&self, checkpoint: &CheckpointRef) -> StoreResult<u64> {
        let (count, extent_units) = {
            let state = self.state.borrow();
            (state.extents.len(), state.extent_units())
        };
        let mut loading = Loading::new(checkpoint, extent_units);
        for part in &checkpoint.parts {
            if part.extent as usize >= count {
                return Err(StoreError::Corrupt { offset: 0, what: "a checkpoint names an extent that is not there" });
            }
            let end = self.readable_units(part.extent).await;
            let mut at = 0;
            while loading.bytes < checkpoint.bytes && at < end {
                let place = Place { generation: part.generation, ..self.state.borrow().place(part.extent, at) };
                let Some(units) = self.load_piece(&place, end, &mut loading, count).await? else { break };
                at += units;
            }
        }
        let (head, mut extents, index) = loading.finish()?;
        for part in &checkpoint.parts {
            extents[part.extent as usize] = Extent {
                state: ExtentState::Sealed(Stream::Checkpoint),
                generation: part.generation,
                ..Extent::UNUSED
            };
        }
        let mut state = self.state.borrow_mut();
        (state.extents, state.index, state.sequence) = (extents, index, head.sequence);
        Ok(head.shards)
    }

    /// Reads the piece at `place`, in an extent that can be read up to `end` (units); gives the units it takes, or nothing
    /// when none is there.
    async fn load_piece(
        &self,
        place: &Place,
        end: u32,
        loading: &mut Loading<'_>,
        extents: usize,
    ) -> StoreResult<Option<u32>> {
        let (offset, extent_units) = {
            let state = self.state.borrow();
            (state.offset(place.extent, place.offset_units), state.extent_units())
        };
        let room = (end - place.offset_units) as usize * UNIT_BYTES;
        let (buf, _) = self.read_span(offset, (CHUNK_MAX_BYTES + HEAD_ROOM_BYTES).min(room)).await?;
        let Ok((head, _)) = RecordHead::decode(&buf, place) else { return Ok(None) };
        let layout = head.layout();
        let payload = buf.get(layout.payload_at..layout.payload_at + head.payload_bytes as usize);
        let payload = payload.filter(|payload| head.payload_fits(payload));
        let what = "a piece of a checkpoint does not verify";
        loading.take(payload.ok_or(StoreError::Corrupt { offset, what })?, extents, extent_units)?;
        Ok(Some((layout.record_bytes.next_multiple_of(IO_ALIGN) / UNIT_BYTES) as u32))
    }
}
