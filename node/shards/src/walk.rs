//! Walking an extent from end to end, in the order of the medium: what reclaim and the auditor read.
//!
//! The walk goes from record to record by lengths that a checksum has confirmed and asks the index whether
//! the record is the live one. It ends early where it meets damage; whoever walks counts live units and looks
//! the missing ones up in the index, so that nothing is overlooked. Large dead records are passed over.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::Range;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use disk::{BlockDevice, IO_ALIGN};
use format::{RecordHead, ShardKey, UNIT_BYTES};
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesOrdered;

use crate::core::Core;
use crate::extent::Location;
use crate::{StoreError, StoreResult};

const IO_UNITS: u32 = (IO_ALIGN / UNIT_BYTES) as u32;
/// Units of one read: 1 MiB.
const CHUNK_UNITS: u32 = ((1 << 20) / UNIT_BYTES) as u32;
/// Units gone over in one turn: 128 KiB, a few dozen microseconds of checksums; a quarter of that while requests
/// are under way.
const TURN_UNITS: u32 = ((128 << 10) / UNIT_BYTES) as u32;
const TURN_UNITS_SHARED: u32 = TURN_UNITS / 4;
/// Units of one read while requests are under way: what a request may find in front of itself on the device.
const CHUNK_UNITS_SHARED: u32 = CHUNK_UNITS / 4;
/// Largest head.
const HEAD_MAX_BYTES: usize = 16 << 10;

/// A live record met on the way.
pub(crate) struct Met {
    pub(crate) key: ShardKey,
    pub(crate) location: Location,
    pub(crate) head: RecordHead,
    /// Its payload, when every block verified.
    pub(crate) payload: StoreResult<Bytes>,
}

/// What one read gave: its units of the extent, and their bytes.
type Chunk = (Range<u32>, StoreResult<Bytes>);

/// See the file's header.
pub(crate) struct Walk<D> {
    core: Rc<Core<D>>,
    extent: u32,
    generation: u64,
    at: u32,
    end: u32,
    /// Reads kept under way.
    ahead: usize,
    /// What has been read, in units from the start of the extent.
    chunks: VecDeque<Chunk>,
    under_way: FuturesOrdered<LocalBoxFuture<'static, Chunk>>,
    next_read: u32,
    /// Units gone over since others were last let in.
    spent_units: u32,
}

impl<D: BlockDevice> Walk<D> {
    /// A walk through `extent` from `from_units` on, with `ahead` reads under way.
    pub(crate) fn new(core: &Rc<Core<D>>, extent: u32, from_units: u32, ahead: usize) -> Self {
        let state = core.state.borrow();
        let entry = &state.extents[extent as usize];
        Self {
            core: Rc::clone(core),
            extent,
            generation: entry.generation,
            at: from_units,
            end: entry.durable_units.min(state.extent_units()),
            ahead,
            chunks: VecDeque::new(),
            under_way: FuturesOrdered::new(),
            next_read: from_units - from_units % IO_UNITS,
            spent_units: 0,
        }
    }

    /// Where the next record would start.
    pub(crate) fn at(&self) -> u32 {
        self.at
    }

    /// Whether damage ended the walk before the end.
    pub(crate) fn was_cut_short(&self) -> bool {
        self.at < self.end && self.is_current()
    }

    /// Whether the extent is still what it was when the walk began.
    pub(crate) fn is_current(&self) -> bool {
        self.core.state.borrow().extents[self.extent as usize].generation == self.generation
    }

    /// The next live record; nothing at the end, or where damage ends the walk.
    pub(crate) async fn next(&mut self) -> Option<Met> {
        while self.at < self.end && self.is_current() {
            let place = self.core.state.borrow().place(self.extent, self.at);
            let bytes = self.bytes(self.at, HEAD_MAX_BYTES).await.ok()?;
            let Ok((head, proof)) = RecordHead::decode(&bytes, &place) else {
                // Between two writes the rest of a page is empty; anything else there is damage.
                let next = self.at.next_multiple_of(IO_UNITS);
                let gap = bytes.get(..(next.min(self.end) - self.at) as usize * UNIT_BYTES);
                if self.at == next || !gap.is_some_and(|gap| gap.iter().all(|byte| *byte == 0)) {
                    return None;
                }
                self.at = next;
                continue;
            };
            let layout = head.layout();
            let (at, record_units) = (self.at, (layout.record_bytes / UNIT_BYTES) as u32);
            if at + record_units > self.end {
                return None;
            }
            self.at += record_units;
            self.let_others_in(record_units).await;
            let Some(key) = head.key else { continue };
            let payload_bytes = head.payload_bytes;
            let location = Location { extent: self.extent, offset_units: at, record_units, payload_bytes, proof };
            if self.core.state.borrow().index.get(&key) != Some(location) {
                continue;
            }
            let offset = self.core.state.borrow().offset(self.extent, at);
            let payload = self.bytes(at, layout.record_bytes).await.and_then(|record| {
                let payload = record.slice(layout.payload_at..layout.payload_at + payload_bytes as usize);
                let what = "a block does not verify";
                if head.payload_fits(&payload) { Ok(payload) } else { Err(StoreError::Corrupt { offset, what }) }
            });
            return Some(Met { key, location, head, payload });
        }
        None
    }

    /// The thread is shared with every request of the device: after each turn's worth of checksums they come first.
    async fn let_others_in(&mut self, units: u32) {
        self.spent_units += units;
        let turn = if self.core.has_foreground() { TURN_UNITS_SHARED } else { TURN_UNITS };
        if self.spent_units >= turn {
            self.spent_units = 0;
            let mut waited = false;
            poll_fn(|cx| {
                if std::mem::replace(&mut waited, true) {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
    }

    /// Up to `len` bytes from `at` on; fewer at the end of what was written.
    async fn bytes(&mut self, at: u32, len: usize) -> StoreResult<Bytes> {
        let units = (len.div_ceil(UNIT_BYTES) as u32).min(self.end - at);
        self.forget_before(at);
        let mut pieces: Vec<Bytes> = Vec::new();
        let (mut from, to) = (at, at + units);
        let mut number = 0;
        while from < to {
            while self.chunks.len() <= number {
                self.fetch(at).await;
            }
            let (Range { start, end }, chunk) = &self.chunks[number];
            let chunk = chunk.as_ref().map_err(StoreError::clone)?;
            let until = to.min(*end);
            pieces.push(chunk.slice((from - start) as usize * UNIT_BYTES..(until - start) as usize * UNIT_BYTES));
            from = until;
            number += 1;
        }
        Ok(if pieces.len() == 1 { pieces.swap_remove(0) } else { pieces.concat().into() })
    }

    /// Lets go of chunks that end before `at`, and of reads that a large dead record made useless.
    fn forget_before(&mut self, at: u32) {
        while self.chunks.front().is_some_and(|(units, _)| units.end <= at) {
            self.chunks.pop_front();
        }
        if self.chunks.is_empty() && self.next_read <= at {
            self.under_way = FuturesOrdered::new();
            self.next_read = at - at % IO_UNITS;
        }
    }

    /// Takes the next chunk in that reaches beyond `at`, and keeps reads under way behind it.
    async fn fetch(&mut self, at: u32) {
        loop {
            // Requests come first: beside them a walk keeps one short read under way.
            let (ahead, most) = match self.core.has_foreground() {
                true => (1, CHUNK_UNITS_SHARED),
                false => (self.ahead.max(1), CHUNK_UNITS),
            };
            while self.under_way.len() < ahead && self.next_read < self.end {
                let start = self.next_read;
                let units = most.min(self.end.next_multiple_of(IO_UNITS) - start);
                let (core, offset) = (Rc::clone(&self.core), self.core.state.borrow().offset(self.extent, start));
                self.under_way.push_back(Box::pin(async move {
                    let len = units as usize * UNIT_BYTES;
                    let read = core.read_span(offset, len).await;
                    (start..start + units, read.map(|(buf, _)| buf.freeze().to_bytes(0..len)))
                }));
                self.next_read += units;
            }
            let (units, chunk) = self.under_way.next().await.expect("what is asked for lies before the end");
            if units.end > at {
                self.chunks.push_back((units, chunk));
                return;
            }
        }
    }
}
