//! The sequential zones of a simulated disk: their write pointers, and what of them a crash leaves.
//!
//! The fault model of a sequential zone, where it differs from the rest of the disk:
//! - the operations on it that no flush has covered are lost at a crash from some point on, not in any subset: writes
//!   keep a prefix in whole sectors, and a reset or a finish behind the point has not happened;
//! - a failed write, too, keeps a prefix, and the pointer is behind it;
//! - after a failed flush nothing of the zone becomes durable any more until a later reset does;
//! - a read beyond the pointer fails, or gives zeros or ones there;
//! - an acknowledged write that never happened, or that landed elsewhere, leaves zeros: the pointer moves all the same.
//!
//! Invariants: at most one operation of a zone is under way; `log` is in the order in which operations finished; what
//! lies beyond a pointer is zero in both images.

use std::rc::Rc;

use base::SeededEntropy;
use disk::{AlignedBytes, DiskError, DiskOp, DiskResult, IO_ALIGN, ZoneFacts, ZoneFault};

use crate::medium::{Image, PAGE_BYTES, Page, zero_page};

/// A change to a zone. A write begins at byte `at`, where the pointer was, and the last page may be kept in part.
enum Change {
    Write { at: u64, pages: Vec<Rc<Page>>, len_bytes: u64 },
    Reset,
    Finish,
}

/// A change that no flush has covered.
struct Logged {
    finish_seq: u64,
    change: Change,
    /// A flush failed on it: it will never be durable.
    lost: bool,
}

/// A zone as one of the images has it. Places are bytes from the start of the device.
#[derive(Clone, Copy)]
struct Place {
    start: u64,
    /// The end of the capacity.
    end: u64,
    pointer: u64,
}

struct Zone {
    current: Place,
    durable: Place,
    /// What is lost stands before the next change to become durable.
    stuck: bool,
    under_way: Option<(u64, Change)>,
    log: Vec<Logged>,
}

/// See the file's header.
pub(crate) struct Zones {
    facts: ZoneFacts,
    sector_bytes: u64,
    zones: Vec<Zone>,
    next_id: u64,
}

impl Place {
    fn is_open(&self) -> bool {
        self.start < self.pointer && self.pointer < self.end
    }

    /// Applies `change` to the zone in `image`.
    fn apply(&mut self, image: &mut Image, change: &Change) {
        match change {
            Change::Write { at, pages, len_bytes } => self.append(image, *at, pages, *len_bytes),
            Change::Finish => self.pointer = self.end,
            Change::Reset => {
                for page in self.start / PAGE_BYTES..self.end / PAGE_BYTES {
                    image.remove(&page);
                }
                self.pointer = self.start;
            }
        }
    }

    /// Zeroes what a test may have altered beyond the pointer.
    fn clear_beyond(self, image: &mut Image) {
        let within = (self.pointer % PAGE_BYTES) as usize;
        if let Some(page) = image.get_mut(&(self.pointer / PAGE_BYTES)).filter(|_| within > 0) {
            Rc::make_mut(page)[within..].fill(0);
        }
        let beyond = image.range(self.pointer.div_ceil(PAGE_BYTES)..self.end / PAGE_BYTES);
        for page in beyond.map(|(number, _)| *number).collect::<Vec<_>>() {
            image.remove(&page);
        }
    }

    /// Writes the first `len_bytes` of `pages` at byte `at`.
    fn append(&mut self, image: &mut Image, at: u64, pages: &[Rc<Page>], len_bytes: u64) {
        assert!(self.pointer == at && at.is_multiple_of(PAGE_BYTES), "a write begins at the pointer");
        for (i, page) in pages.iter().enumerate() {
            let kept = len_bytes.saturating_sub(i as u64 * PAGE_BYTES).min(PAGE_BYTES) as usize;
            let page = match kept {
                0 => break,
                IO_ALIGN => Rc::clone(page),
                _ => {
                    let mut part = zero_page();
                    Rc::make_mut(&mut part)[..kept].copy_from_slice(&page[..kept]);
                    part
                }
            };
            image.insert(at / PAGE_BYTES + i as u64, page);
        }
        self.pointer += len_bytes;
        assert!(self.pointer <= self.end, "a zone is not written beyond its capacity");
    }
}

impl Zone {
    /// Makes the first `count` changes of the log durable, as far as nothing lost stands before them.
    fn settle(&mut self, image: &mut Image, count: usize) {
        for logged in self.log.drain(..count) {
            let clears = matches!(logged.change, Change::Reset);
            self.stuck = logged.lost || self.stuck && !clears;
            if !self.stuck {
                self.durable.apply(image, &logged.change);
            }
        }
    }

    /// Keeps some sectors of the log's first change, when that is a write that can become durable.
    fn keep_part_of_next(&mut self, image: &mut Image, sector_bytes: u64, entropy: &SeededEntropy) {
        let Some(Logged { change: Change::Write { at, pages, len_bytes }, lost: false, .. }) = self.log.first() else {
            return;
        };
        if !self.stuck {
            self.durable.append(image, *at, pages, some_sectors(*len_bytes, sector_bytes, entropy));
        }
    }

    fn before(&self, mark: u64) -> usize {
        self.log.partition_point(|logged| logged.finish_seq < mark)
    }
}

impl Zones {
    pub(crate) fn new(size_bytes: u64, facts: ZoneFacts, sector_bytes: u64) -> Self {
        let page = PAGE_BYTES;
        assert!(facts.zone_bytes.is_multiple_of(page) && facts.capacity_bytes.is_multiple_of(page), "zones are pages");
        assert!((1..=facts.zone_bytes).contains(&facts.capacity_bytes), "a zone holds no more than its size");
        assert!(size_bytes.is_multiple_of(facts.zone_bytes), "a device is a whole number of zones");
        assert!(facts.max_open != Some(0), "no zone could be written");
        let starts =
            (u64::from(facts.conventional_zones) * facts.zone_bytes..size_bytes).step_by(facts.zone_bytes as usize);
        let zone = |start| {
            let place = Place { start, end: start + facts.capacity_bytes, pointer: start };
            Zone { current: place, durable: place, stuck: false, under_way: None, log: Vec::new() }
        };
        Self { facts, sector_bytes, zones: starts.map(zone).collect(), next_id: 0 }
    }

    /// The number in `zones` of the sequential zone that holds the byte at `offset`.
    fn find(&self, op: DiskOp, offset: u64) -> DiskResult<usize> {
        if !self.facts.is_sequential(offset) {
            return Err(DiskError::Zone { op, offset, fault: ZoneFault::Conventional });
        }
        let index = self.facts.zone_of(offset) - u64::from(self.facts.conventional_zones);
        if index < self.zones.len() as u64 {
            Ok(index as usize)
        } else {
            Err(DiskError::Invalid { op, offset, len: 0 })
        }
    }

    pub(crate) fn is_sequential(&self, offset: u64) -> bool {
        self.facts.is_sequential(offset)
    }

    pub(crate) fn pointer(&self, offset: u64) -> DiskResult<u64> {
        Ok(self.zones[self.find(DiskOp::ReportZone, offset)?].current.pointer)
    }

    /// Whether a byte of the range lies in a sequential zone and has not been written since its reset.
    pub(crate) fn is_unwritten(&self, offset: u64, len: u64) -> bool {
        self.zones.iter().any(|zone| {
            let zone_end = zone.current.start + self.facts.zone_bytes;
            offset.max(zone.current.pointer) < (offset + len).min(zone_end)
        })
    }

    /// Overwrites what a read from `offset` on has got from beyond pointers with ones.
    pub(crate) fn fill_unwritten(&self, offset: u64, bytes: &mut [u8]) {
        let end = offset + bytes.len() as u64;
        for zone in &self.zones {
            let from = offset.max(zone.current.pointer);
            let to = end.min(zone.current.start + self.facts.zone_bytes);
            if from < to {
                bytes[(from - offset) as usize..(to - offset) as usize].fill(0xff);
            }
        }
    }

    /// Whether the zones let a write of `len` bytes begin at `offset` now.
    pub(crate) fn check_write(&self, offset: u64, len: u64) -> DiskResult<()> {
        let op = DiskOp::Write;
        let refused = |fault| Err(DiskError::Zone { op, offset, fault });
        if !self.facts.holds(offset, len) {
            return refused(ZoneFault::Crosses);
        }
        if !self.facts.is_sequential(offset) {
            return Ok(());
        }
        let zone = &self.zones[self.find(op, offset)?];
        if zone.under_way.is_some() {
            return refused(ZoneFault::Busy);
        }
        if zone.current.pointer != offset {
            return refused(ZoneFault::NotAtPointer { pointer: zone.current.pointer });
        }
        let opens = !zone.current.is_open();
        let open = self.zones.iter().filter(|zone| zone.current.is_open() || Self::is_opening(zone)).count();
        if opens && self.facts.max_open.is_some_and(|max| open >= max as usize) {
            return refused(ZoneFault::TooManyOpen);
        }
        Ok(())
    }

    fn is_opening(zone: &Zone) -> bool {
        matches!(zone.under_way, Some((_, Change::Write { .. })))
    }

    /// Begins a write that [`Self::check_write`] has let pass.
    pub(crate) fn begin_write(&mut self, offset: u64, parts: &[AlignedBytes]) -> u64 {
        let pages = parts.iter().flat_map(|part| part.chunks_exact(IO_ALIGN));
        let pages: Vec<Rc<Page>> = pages.map(|p| Rc::new(p.try_into().expect("a chunk is one page"))).collect();
        let len_bytes = pages.len() as u64 * PAGE_BYTES;
        self.begin(DiskOp::Write, offset, Change::Write { at: offset, pages, len_bytes }).expect("checked before")
    }

    /// Begins a reset or a finish (`op`) of the zone that holds the byte at `offset`.
    pub(crate) fn begin_change(&mut self, op: DiskOp, offset: u64) -> DiskResult<u64> {
        let change = if op == DiskOp::ResetZone { Change::Reset } else { Change::Finish };
        self.begin(op, offset, change)
    }

    fn begin(&mut self, op: DiskOp, offset: u64, change: Change) -> DiskResult<u64> {
        let index = self.find(op, offset)?;
        let zone = &mut self.zones[index];
        if zone.under_way.is_some() {
            return Err(DiskError::Zone { op, offset, fault: ZoneFault::Busy });
        }
        let id = self.next_id;
        self.next_id += 1;
        zone.under_way = Some((id, change));
        Ok(id)
    }

    /// The write under way in the zone will leave zeros instead of its bytes.
    pub(crate) fn blank(&mut self, id: u64) {
        if let Some((_, Change::Write { pages, .. })) = self.under_way(id) {
            pages.iter_mut().for_each(|page| *page = zero_page());
        }
    }

    /// The write under way in the zone will keep a prefix alone.
    pub(crate) fn cut(&mut self, id: u64, entropy: &SeededEntropy) {
        let sector = self.sector_bytes;
        if let Some((_, Change::Write { len_bytes, .. })) = self.under_way(id) {
            *len_bytes = some_sectors(*len_bytes, sector, entropy);
        }
    }

    fn under_way(&mut self, id: u64) -> Option<&mut (u64, Change)> {
        self.zones.iter_mut().filter_map(|zone| zone.under_way.as_mut()).find(|(of, _)| *of == id)
    }

    /// Finishes operation `id` as the `finish_seq`th of the disk, if it is still under way.
    pub(crate) fn finish(&mut self, id: u64, finish_seq: u64, current: &mut Image) {
        let is_it = |zone: &&mut Zone| zone.under_way.as_ref().is_some_and(|(of, _)| *of == id);
        let Some(zone) = self.zones.iter_mut().find(is_it) else { return };
        let Some((_, change)) = zone.under_way.take() else { return };
        zone.current.apply(current, &change);
        zone.log.push(Logged { finish_seq, change, lost: false });
    }

    /// Identifies what is under way, in the order of the calls.
    pub(crate) fn ids_under_way(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.zones.iter().filter_map(|zone| Some(zone.under_way.as_ref()?.0)).collect();
        ids.sort_unstable();
        ids
    }

    /// Makes what finished before `mark` durable.
    pub(crate) fn flush(&mut self, mark: u64, durable: &mut Image) {
        for zone in &mut self.zones {
            let count = zone.before(mark);
            zone.settle(durable, count);
        }
    }

    /// A flush that failed: some of what finished before `mark` is durable, the rest never will be.
    pub(crate) fn flush_failing(&mut self, mark: u64, durable: &mut Image, entropy: &SeededEntropy) {
        for zone in self.zones.iter_mut().filter(|zone| zone.before(mark) > 0) {
            let count = zone.before(mark);
            let kept = entropy.below(count as u64 + 1) as usize;
            zone.log[kept..count].iter_mut().for_each(|logged| logged.lost = true);
            zone.settle(durable, kept);
        }
    }

    /// Loss of power: the changes not yet durable are kept up to some point in the middle of them.
    pub(crate) fn crash(&mut self, durable: &mut Image, entropy: &SeededEntropy) {
        for zone in self.zones.iter_mut() {
            if let Some((_, change)) = zone.under_way.take() {
                zone.log.push(Logged { finish_seq: u64::MAX, change, lost: false });
            }
            let count = zone.log.len();
            if count > 0 {
                // The two extremes are drawn often, since long logs would hardly ever show them.
                match entropy.below(4) {
                    0 => {}
                    1 => zone.settle(durable, count),
                    _ => {
                        zone.settle(durable, entropy.below(count as u64) as usize);
                        zone.keep_part_of_next(durable, self.sector_bytes, entropy);
                    }
                }
                zone.log.clear();
                zone.durable.clear_beyond(durable);
            }
            zone.stuck = false;
            zone.current = zone.durable;
        }
    }

    /// The pages of writes not yet durable that hold page `number` of the device.
    pub(crate) fn pages_of(&mut self, number: u64) -> impl Iterator<Item = &mut Rc<Page>> {
        let changes = self.zones.iter_mut().flat_map(|zone| {
            let under_way = zone.under_way.as_mut().map(|(_, change)| change);
            zone.log.iter_mut().map(|logged| &mut logged.change).chain(under_way)
        });
        changes.filter_map(move |change| match change {
            Change::Write { at, pages, .. } => pages.get_mut(number.checked_sub(*at / PAGE_BYTES)? as usize),
            Change::Reset | Change::Finish => None,
        })
    }
}

/// Some whole sectors of `len_bytes`, or none, but never all.
fn some_sectors(len_bytes: u64, sector_bytes: u64, entropy: &SeededEntropy) -> u64 {
    entropy.below((len_bytes / sector_bytes).max(1)) * sector_bytes
}
