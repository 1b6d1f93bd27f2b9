//! The bytes of a simulated disk: what reads see, what is durable, and the writes in between.
//!
//! Invariants: `finished` is in the order in which the writes finished; a page that no write has touched since
//! the last honest flush is the same in both images. Pages are shared, never copied, between images and writes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use base::{Entropy, SeededEntropy};
use disk::AlignedBytes;

use crate::zoned::Zones;

/// Bytes in a page, the unit of storage here and of requests at the door.
pub(crate) const PAGE_BYTES: u64 = disk::IO_ALIGN as u64;
/// Bytes in a sector, the unit that a crash keeps or loses whole.
pub(crate) const SECTOR_BYTES: u64 = 512;

pub(crate) type Page = [u8; PAGE_BYTES as usize];
pub(crate) type Image = BTreeMap<u64, Rc<Page>>;

/// A write that no flush has covered. Pages are consecutive from `first_page` on.
struct Write {
    /// Position in the order of finishing; meaningless while in flight.
    finish_seq: u64,
    first_page: u64,
    pages: Vec<Rc<Page>>,
}

/// See the file's header.
pub(crate) struct Medium {
    size_bytes: u64,
    current: Image,
    durable: Image,
    in_flight: BTreeMap<u64, Write>,
    finished: Vec<Write>,
    next_id: u64,
    next_finish_seq: u64,
    bad: BTreeSet<u64>,
    /// The sequential zones, of a disk that has some; their writes are there instead of in the maps above.
    pub(crate) zones: Option<Zones>,
}

impl Medium {
    pub(crate) fn new(size_bytes: u64, zones: Option<Zones>) -> Self {
        assert!(size_bytes.is_multiple_of(PAGE_BYTES) && size_bytes > 0, "a device is a whole number of pages");
        Self {
            size_bytes,
            current: Image::new(),
            durable: Image::new(),
            in_flight: BTreeMap::new(),
            finished: Vec::new(),
            next_id: 0,
            next_finish_seq: 0,
            bad: BTreeSet::new(),
            zones,
        }
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Begins a write; it shows only once finished, but a crash may already keep some of it.
    pub(crate) fn begin(&mut self, offset: u64, parts: &[AlignedBytes]) -> u64 {
        let pages = parts.iter().flat_map(|part| part.chunks_exact(PAGE_BYTES as usize));
        let pages: Vec<Rc<Page>> = pages.map(|p| Rc::new(p.try_into().expect("a chunk is one page"))).collect();
        assert!(offset + pages.len() as u64 * PAGE_BYTES <= self.size_bytes, "bounds are checked at the door");
        let id = self.next_id;
        self.next_id += 1;
        self.in_flight.insert(id, Write { finish_seq: 0, first_page: offset / PAGE_BYTES, pages });
        id
    }

    /// Finishes write `id`: reads see it, and a flush started from now on covers it.
    pub(crate) fn finish(&mut self, id: u64) {
        let Some(mut write) = self.in_flight.remove(&id) else { return };
        write.finish_seq = self.next_finish_seq;
        self.next_finish_seq += 1;
        for (page, bytes) in (write.first_page..).zip(&write.pages) {
            self.current.insert(page, Rc::clone(bytes));
        }
        self.finished.push(write);
    }

    /// Finishes write `id` as a failed one: any subset of its sectors, and reads see what came of it.
    pub(crate) fn finish_torn(&mut self, id: u64, entropy: &SeededEntropy) {
        if let Some(write) = self.in_flight.get_mut(&id) {
            let mut torn = Image::new();
            for page in write.first_page..write.first_page + write.pages.len() as u64 {
                torn.insert(page, self.current.get(&page).cloned().unwrap_or_else(zero_page));
            }
            keep_some_sectors(&mut torn, write, entropy);
            write.pages = torn.into_values().collect();
            self.finish(id);
        }
    }

    /// Finishes operation `id` of a sequential zone.
    pub(crate) fn finish_in_zone(&mut self, id: u64) {
        if let Some(zones) = &mut self.zones {
            zones.finish(id, self.next_finish_seq, &mut self.current);
            self.next_finish_seq += 1;
        }
    }

    /// Drops write `id` as if it had never been.
    pub(crate) fn forget(&mut self, id: u64) {
        self.in_flight.remove(&id);
    }

    /// What a flush that starts now has to cover.
    pub(crate) fn flush_mark(&self) -> u64 {
        self.next_finish_seq
    }

    /// Makes the writes before `mark` durable.
    pub(crate) fn flush(&mut self, mark: u64) {
        for write in self.take_before(mark) {
            for (page, bytes) in (write.first_page..).zip(&write.pages) {
                self.durable.insert(page, Rc::clone(bytes));
            }
        }
        if let Some(zones) = &mut self.zones {
            zones.flush(mark, &mut self.durable);
        }
    }

    /// A flush that failed: of the writes before `mark` some sectors are durable, the rest never will be.
    pub(crate) fn flush_failing(&mut self, mark: u64, entropy: &SeededEntropy) {
        for write in self.take_before(mark) {
            keep_some_sectors(&mut self.durable, &write, entropy);
        }
        if let Some(zones) = &mut self.zones {
            zones.flush_failing(mark, &mut self.durable, entropy);
        }
    }

    fn take_before(&mut self, mark: u64) -> Vec<Write> {
        let split = self.finished.partition_point(|w| w.finish_seq < mark);
        self.finished.drain(..split).collect()
    }

    /// Loss of power: the durable image and any subset of the sectors not yet durable.
    pub(crate) fn crash(&mut self, entropy: &SeededEntropy) {
        let unflushed = std::mem::take(&mut self.finished).into_iter();
        for write in unflushed.chain(std::mem::take(&mut self.in_flight).into_values()) {
            keep_some_sectors(&mut self.durable, &write, entropy);
        }
        if let Some(zones) = &mut self.zones {
            zones.crash(&mut self.durable, entropy);
        }
        self.current = self.durable.clone();
    }

    /// Death of the process alone: the device goes on and finishes what it was given.
    pub(crate) fn finish_all(&mut self) {
        let ids: Vec<u64> = self.in_flight.keys().copied().collect();
        ids.into_iter().for_each(|id| self.finish(id));
        let in_zones = self.zones.as_ref().map(Zones::ids_under_way).unwrap_or_default();
        in_zones.into_iter().for_each(|id| self.finish_in_zone(id));
    }

    /// What a read sees.
    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) {
        let mut at = offset;
        let mut out = out;
        while !out.is_empty() {
            let within = (at % PAGE_BYTES) as usize;
            let n = out.len().min(PAGE_BYTES as usize - within);
            let (piece, rest) = out.split_at_mut(n);
            match self.current.get(&(at / PAGE_BYTES)) {
                Some(page) => piece.copy_from_slice(&page[within..within + n]),
                None => piece.fill(0),
            }
            at += n as u64;
            out = rest;
        }
    }

    /// Changes the medium under everything: what reads see, what is durable, and what waits for a flush.
    pub(crate) fn alter(&mut self, offset: u64, bytes: &[u8]) {
        for (at, byte) in (offset..).zip(bytes) {
            self.alter_byte(at, |b| *b = *byte);
        }
    }

    /// As [`Self::alter`], one bit (0-7) of one byte.
    pub(crate) fn flip_bit(&mut self, offset: u64, bit: u8) {
        assert!(bit < 8, "a byte has bits 0 to 7");
        self.alter_byte(offset, |b| *b ^= 1 << bit);
    }

    fn alter_byte(&mut self, offset: u64, change: impl Fn(&mut u8)) {
        assert!(offset < self.size_bytes, "byte {offset} is outside the device");
        let (number, within) = (offset / PAGE_BYTES, (offset % PAGE_BYTES) as usize);
        for image in [&mut self.current, &mut self.durable] {
            change(&mut Rc::make_mut(image.entry(number).or_insert_with(zero_page))[within]);
        }
        for write in self.finished.iter_mut().chain(self.in_flight.values_mut()) {
            let index = number.checked_sub(write.first_page);
            if let Some(page) = index.and_then(|i| write.pages.get_mut(i as usize)) {
                change(&mut Rc::make_mut(page)[within]);
            }
        }
        for page in self.zones.iter_mut().flat_map(|zones| zones.pages_of(number)) {
            change(&mut Rc::make_mut(page)[within]);
        }
    }

    /// Flips a bit in a stored page, if any page is stored.
    pub(crate) fn rot(&mut self, entropy: &SeededEntropy) -> bool {
        let from = entropy.below(self.size_bytes / PAGE_BYTES);
        let page = self.current.range(from..).next().or_else(|| self.current.iter().next()).map(|(n, _)| *n);
        let Some(page) = page else { return false };
        self.flip_bit(page * PAGE_BYTES + entropy.below(PAGE_BYTES), entropy.below(8) as u8);
        true
    }

    /// Frees a range at once and for good; each page then reads as zeros or as before.
    pub(crate) fn discard(&mut self, offset: u64, len_bytes: u64, entropy: &SeededEntropy) {
        for page in offset / PAGE_BYTES..(offset + len_bytes) / PAGE_BYTES {
            if entropy.one_in(4) {
                continue;
            }
            self.current.remove(&page);
            self.durable.remove(&page);
        }
    }

    /// Marks every sector that `range` (bytes) touches as bad; returns how many are newly so.
    pub(crate) fn set_bad(&mut self, range: Range<u64>) -> u64 {
        let sectors = range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES);
        sectors.filter(|s| self.bad.insert(*s)).count() as u64
    }

    /// Makes every sector that `range` (bytes) touches good again.
    pub(crate) fn set_good(&mut self, range: Range<u64>) {
        for sector in range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES) {
            self.bad.remove(&sector);
        }
    }

    /// Whether a bad sector lies in `len` bytes from `offset` on.
    pub(crate) fn is_bad(&self, offset: u64, len: u64) -> bool {
        self.bad.range(offset / SECTOR_BYTES..(offset + len).div_ceil(SECTOR_BYTES)).next().is_some()
    }
}

pub(crate) fn zero_page() -> Rc<Page> {
    Rc::new([0; PAGE_BYTES as usize])
}

/// Applies none, all, or a random half of a write's sectors. The two extremes are drawn often, since a uniform
/// subset would hardly ever try them on a long write.
fn keep_some_sectors(image: &mut Image, write: &Write, entropy: &SeededEntropy) {
    let mode = entropy.below(4);
    for (number, bytes) in (write.first_page..).zip(&write.pages) {
        let kept = match mode {
            0 => 0,
            1 => u64::MAX,
            _ => entropy.next_u64(),
        };
        let page = Rc::make_mut(image.entry(number).or_insert_with(zero_page));
        let sector = SECTOR_BYTES as usize;
        for (i, (to, from)) in page.chunks_mut(sector).zip(bytes.chunks(sector)).enumerate() {
            if kept >> i & 1 == 1 {
                to.copy_from_slice(from);
            }
        }
    }
}
