//! Verified reads.

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use disk::{AlignedBuf, BlockDevice};
use format::{BLOCK_BYTES, Place, RecordHead, RecordLayout, ShardKey, UNIT_BYTES};

use crate::core::Core;
use crate::extent::Location;
use crate::fault::FaultKind;
use crate::mutant::{self, Mutant};
use crate::{StoreError, StoreResult};

/// Records up to this size are read whole whatever the range: one read beats two.
const WHOLE_READ_MAX_BYTES: usize = 64 << 10;

/// A record as read and proven: its head, and the buffer that holds its payload.
pub(crate) struct WholeRecord {
    pub(crate) head: RecordHead,
    pub(crate) buf: AlignedBuf,
    /// Where the payload starts in `buf`.
    pub(crate) payload_at: usize,
}

impl<D: BlockDevice> Core<D> {
    /// Bytes `range` of a record's payload.
    pub(crate) async fn get(self: &Rc<Self>, key: ShardKey, range: Range<u32>) -> StoreResult<Bytes> {
        loop {
            let location = self.locate(key)?;
            let range =
                (range.start.min(location.payload_bytes)) as usize..range.end.min(location.payload_bytes) as usize;
            #[cfg(feature = "mutants")]
            let (offset, from) = (self.place_of(&location).1, range.start);
            let result = self.get_at(&location, range).await;
            #[cfg(feature = "mutants")]
            let result = match result {
                Ok(bytes) if mutant::on(Mutant::CacheNotDrained) => Ok(mutant::cached(offset, from, bytes)),
                result => result,
            };
            match result {
                // Reclaim may have moved the record and its extent been used again while we read.
                Err(_) if self.locate(key)? != location => {}
                Err(error) => {
                    self.report(key, &location, &error);
                    return Err(error);
                }
                Ok(bytes) => {
                    self.state.borrow_mut().stats.gets += 1;
                    return Ok(bytes);
                }
            }
        }
    }

    /// A record's payload length and descriptor.
    pub(crate) async fn describe(self: &Rc<Self>, key: ShardKey) -> StoreResult<(u32, Bytes)> {
        loop {
            let location = self.locate(key)?;
            match self.read_head(&location).await {
                Ok(head) => return Ok((head.payload_bytes, head.descriptor.into())),
                Err(_) if self.locate(key)? != location => {}
                Err(error) => {
                    self.report(key, &location, &error);
                    return Err(error);
                }
            }
        }
    }

    fn locate(&self, key: ShardKey) -> StoreResult<Location> {
        self.state.borrow().index.get(&key).ok_or(StoreError::NotFound)
    }

    fn report(&self, key: ShardKey, location: &Location, error: &StoreError) {
        let mut state = self.state.borrow_mut();
        if let StoreError::Corrupt { offset, .. } = error {
            state.stats.corrupt_found += 1;
            state.faults.note(FaultKind::Corrupt, Some(*offset), error.to_string());
        }
        tracing::warn!(device = %state.label.device, ?key, extent = location.extent, %error, "a record cannot be read");
    }

    async fn get_at(&self, location: &Location, range: Range<usize>) -> StoreResult<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let record_bytes = location.record_units as usize * UNIT_BYTES;
        let payload_bytes = location.payload_bytes as usize;
        if payload_bytes <= BLOCK_BYTES {
            return self.get_block(location, range).await;
        }
        let blocks = range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES);
        let wanted = blocks.start * BLOCK_BYTES..(blocks.end * BLOCK_BYTES).min(payload_bytes);
        if record_bytes <= WHOLE_READ_MAX_BYTES || wanted.len() * 4 >= payload_bytes * 3 {
            let record = self.read_record_blocks(location, blocks).await?;
            let bytes = record.buf.freeze().to_bytes(record.payload_at + range.start..record.payload_at + range.end);
            return Ok(bytes);
        }
        let (_, offset) = self.place_of(location);
        let layout = RecordLayout::of_record(record_bytes, payload_bytes);
        let data = self.read_span(offset + (layout.payload_at + wanted.start) as u64, wanted.len());
        let (head, data) = futures::join!(self.read_head(location), data);
        let (head, (buf, lead)) = (head?, data?);
        let at = lead + range.start - wanted.start;
        check_blocks(&head, blocks, &buf[lead..lead + wanted.len()], offset)?;
        Ok(buf.freeze().to_bytes(at..at + range.len()))
    }

    /// Bytes of a record of one block: the index holds the block's own checksum, so its head is not needed.
    async fn get_block(&self, location: &Location, range: Range<usize>) -> StoreResult<Bytes> {
        let payload_bytes = location.payload_bytes as usize;
        let layout = RecordLayout::of_record(location.record_units as usize * UNIT_BYTES, payload_bytes);
        let (_, offset) = self.place_of(location);
        let (buf, lead) = self.read_span(offset + layout.payload_at as u64, payload_bytes).await?;
        let fits = crc32fast::hash(&buf[lead..lead + payload_bytes]) == location.proof;
        if !fits && !mutant::on(Mutant::ChecksumSkipped) {
            return Err(StoreError::Corrupt { offset, what: "the block does not verify" });
        }
        Ok(buf.freeze().to_bytes(lead + range.start..lead + range.end))
    }

    /// Reads a whole record and checks its head and every block.
    pub(crate) async fn read_record(&self, location: &Location) -> StoreResult<WholeRecord> {
        let blocks = 0..(location.payload_bytes as usize).div_ceil(BLOCK_BYTES);
        self.read_record_blocks(location, blocks).await
    }

    async fn read_record_blocks(&self, location: &Location, blocks: Range<usize>) -> StoreResult<WholeRecord> {
        let (place, offset) = self.place_of(location);
        let record_bytes = location.record_units as usize * UNIT_BYTES;
        let (buf, lead) = self.read_span(offset, record_bytes).await?;
        let head = proven_head(&buf[lead..], &place, location, offset)?;
        let payload_at = lead + head.layout().payload_at;
        let payload = &buf[payload_at..payload_at + location.payload_bytes as usize];
        let end = (blocks.end * BLOCK_BYTES).min(payload.len());
        check_blocks(&head, blocks.clone(), &payload[blocks.start * BLOCK_BYTES..end], offset)?;
        Ok(WholeRecord { head, buf, payload_at })
    }

    async fn read_head(&self, location: &Location) -> StoreResult<RecordHead> {
        let (place, offset) = self.place_of(location);
        let record_bytes = location.record_units as usize * UNIT_BYTES;
        let layout = RecordLayout::of_record(record_bytes, location.payload_bytes as usize);
        let (buf, lead) = self.read_span(offset, layout.payload_at).await?;
        proven_head(&buf[lead..], &place, location, offset)
    }

    fn place_of(&self, location: &Location) -> (Place, u64) {
        let state = self.state.borrow();
        (state.place(location.extent, location.offset_units), state.offset(location.extent, location.offset_units))
    }
}

fn proven_head(bytes: &[u8], place: &Place, location: &Location, offset: u64) -> StoreResult<RecordHead> {
    let corrupt = |what| StoreError::Corrupt { offset, what };
    let (head, proof) = RecordHead::decode(bytes, place).map_err(|error| match error {
        format::FormatError::Absent(_) => corrupt("another record, or none, lies there"),
        _ => corrupt("the header does not verify"),
    })?;
    let expected = proof == location.proof || mutant::on(Mutant::ProofUnchecked);
    if !expected || head.payload_bytes != location.payload_bytes {
        return Err(corrupt("an older record lies there"));
    }
    if head.layout().record_bytes != location.record_units as usize * UNIT_BYTES {
        return Err(corrupt("the record is not as long as the index says"));
    }
    Ok(head)
}

fn check_blocks(head: &RecordHead, blocks: Range<usize>, bytes: &[u8], offset: u64) -> StoreResult<()> {
    let fits = blocks.zip(bytes.chunks(BLOCK_BYTES)).all(|(block, bytes)| head.block_fits(block, bytes));
    if fits || mutant::on(Mutant::ChecksumSkipped) {
        Ok(())
    } else {
        Err(StoreError::Corrupt { offset, what: "a block does not verify" })
    }
}
