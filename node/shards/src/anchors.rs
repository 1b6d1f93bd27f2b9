//! Anchor pages: where they are written, and how they are found again.
//!
//! Most devices have two rings of pages, each rewritten in place. A zoned device has a log instead: two zones, each of
//! which begins with a copy of the label, hold every page one after the other. A zone that is full is left as it is, and a
//! third one is emptied and begun with the label and the pages of a ring; so at no time are there fewer than two whole
//! copies on the medium, and a crash costs at most what was being written. What opening does not find whole (a crash
//! cut it short, or it is damaged) is replaced in the same way, least valuable zones first.

use std::collections::{BTreeMap, VecDeque};

use disk::{AlignedBuf, AlignedBytes, BlockDevice, DiskError, DiskOp, DiskResult, IO_ALIGN};
use format::{Anchor, FormatError, Geometry, Label};

use crate::StoreResult;
use crate::core::Core;
use crate::recover::RecoveryReport;

/// Copies of each page.
const COPIES: usize = 2;
const PAGE_BYTES: u64 = Geometry::ANCHOR_BYTES as u64;
const LABEL_BYTES: u64 = Geometry::LABEL_BYTES as u64;
/// Why no page can be written any more.
const NONE_LEFT: &str = "too few zones of the anchor log are usable";
/// Pages of one ring, and those that a zone of the log begins with.
const SLOTS: usize = Geometry::ANCHOR_SLOTS as usize;

const _: () = assert!(Geometry::ANCHOR_BYTES == IO_ALIGN && Geometry::LABEL_BYTES == IO_ALIGN);

/// What is known of a zoned device's log. Zones are by number, 0 to 2.
#[derive(Debug)]
pub(crate) struct AnchorLog {
    /// The zones that take pages, and the byte of the device where the next goes.
    used: Vec<(usize, u64)>,
    /// The others, in the order in which they may be emptied.
    spare: VecDeque<usize>,
    /// The newest pages, oldest first.
    pages: VecDeque<AlignedBytes>,
}

impl Default for AnchorLog {
    fn default() -> Self {
        Self { used: Vec::new(), spare: (0..Geometry::LOG_ZONES).collect(), pages: VecDeque::new() }
    }
}

impl AnchorLog {
    /// Adds a page to both copies.
    pub(crate) async fn append<D: BlockDevice>(
        &mut self,
        device: &D,
        label: &Label,
        page: AlignedBytes,
    ) -> DiskResult<()> {
        let zones = label.geometry.log_offsets().expect("a zoned device has a log");
        if self.pages.len() == SLOTS {
            self.pages.pop_front();
        }
        self.pages.push_back(page.clone());
        for copy in 0..COPIES {
            let end = |zone: usize| zones[zone] + u64::from(label.geometry.extent_bytes);
            match self.used.get(copy).copied() {
                Some((zone, at)) if at + PAGE_BYTES <= end(zone) => {
                    device.write(at, vec![page.clone()]).await?;
                    self.used[copy].1 = at + PAGE_BYTES;
                }
                full => {
                    self.spare.extend(full.map(|(full, _)| full));
                    let none_left = || DiskError::Os { op: DiskOp::Write, reason: NONE_LEFT.to_owned() };
                    let zone = self.spare.pop_front().ok_or_else(none_left)?;
                    let next = self.begin(device, label, zones[zone]).await?;
                    match self.used.get_mut(copy) {
                        Some(used) => *used = (zone, next),
                        None => self.used.push((zone, next)),
                    }
                }
            }
        }
        Ok(())
    }

    /// Empties the zone at byte `start` and writes label and pages to it; gives where the next page goes.
    async fn begin<D: BlockDevice>(&self, device: &D, label: &Label, start: u64) -> DiskResult<u64> {
        // What the zone held must be on the medium elsewhere.
        device.flush().await?;
        device.reset_zone(start).await?;
        let mut bytes = label.encode();
        self.pages.iter().for_each(|page| bytes.extend_from_slice(page));
        let next = start + bytes.len() as u64;
        device.write(start, vec![AlignedBuf::from_bytes(&bytes).freeze()]).await?;
        Ok(next)
    }
}

/// Makes a zoned device's log that of an empty store.
pub(crate) async fn format_log<D: BlockDevice>(device: &D, label: &Label, first: AlignedBytes) -> DiskResult<()> {
    for start in label.geometry.log_offsets().expect("a zoned device has a log") {
        device.reset_zone(start).await?;
    }
    device.flush().await?;
    AnchorLog::default().append(device, label, first).await?;
    device.flush().await
}

/// A zone of the log as it was found.
struct Found {
    zone: usize,
    /// Where the write pointer is.
    pointer: u64,
    has_label: bool,
    /// The last pages; none in the place of one that does not verify.
    pages: Vec<Option<(Anchor, AlignedBytes)>>,
}

type Pages = BTreeMap<u64, (Anchor, AlignedBytes)>;

impl Found {
    /// Whether nothing of `pages` is missing, nothing is damaged, and more can follow.
    fn is_whole(&self, pages: &Pages) -> bool {
        let sound = self.has_label && self.pages.iter().all(Option::is_some);
        sound && self.pointer.is_multiple_of(PAGE_BYTES) && self.held(pages) == pages.len()
    }

    /// How many of `pages` it holds.
    fn held(&self, pages: &Pages) -> usize {
        pages.keys().filter(|sequence| self.sequences().any(|own| own == **sequence)).count()
    }

    fn sequences(&self) -> impl Iterator<Item = u64> + '_ {
        self.pages.iter().flatten().map(|(anchor, _)| anchor.sequence)
    }

    /// Whether a page that does not verify may be one that no zone has a copy of.
    fn lacks(&self, pages: &Pages) -> bool {
        let (mut before, mut damaged) = (0, 0);
        let after = self.pages.iter().map(|page| page.as_ref().map(|(anchor, _)| anchor.sequence));
        for page in after.chain([Some(u64::MAX)]) {
            let Some(sequence) = page else {
                damaged += 1;
                continue;
            };
            let between = pages.keys().filter(|known| before < **known && **known < sequence).count();
            if damaged > between {
                return true;
            }
            (before, damaged) = (sequence, 0);
        }
        false
    }
}

impl<D: BlockDevice> Core<D> {
    /// Writes both copies of an anchor page; one caller at a time.
    pub(crate) async fn put_anchor(&self, sequence: u64, page: AlignedBytes) -> DiskResult<()> {
        let label = self.state.borrow().label;
        if label.geometry.zone_bytes.is_none() {
            for offset in Geometry::anchor_offsets(sequence) {
                self.device.write(offset, vec![page.clone()]).await?;
            }
            return Ok(());
        }
        // An error poisons the store: what is half done then is not looked at again.
        let mut log = self.log.take();
        let done = log.append(&self.device, &label, page).await;
        self.log.replace(log);
        done
    }

    /// All valid anchor pages, oldest first; and whether a page is damaged that may have been the newest.
    pub(crate) async fn read_anchors(&self, report: &mut RecoveryReport) -> StoreResult<(Vec<Anchor>, bool)> {
        let label = self.state.borrow().label;
        match label.geometry.log_offsets() {
            Some(zones) => self.read_log(&label, zones, report).await,
            None => Ok(self.read_rings(&label, report).await),
        }
    }

    async fn read_rings(&self, label: &Label, report: &mut RecoveryReport) -> (Vec<Anchor>, bool) {
        let ring_bytes = Geometry::ANCHOR_BYTES * SLOTS;
        let mut rings = Vec::new();
        for ring in Geometry::ANCHOR_RINGS {
            match self.read_span(ring, ring_bytes).await {
                Ok((buf, _)) => rings.push(Some(buf)),
                Err(error) => {
                    report.damage.push((ring, format!("an anchor ring cannot be read: {error}")));
                    rings.push(None);
                }
            }
        }
        let (mut anchors, mut suspect): (Vec<Anchor>, bool) = (Vec::new(), false);
        for slot in 0..SLOTS {
            let at = slot * Geometry::ANCHOR_BYTES;
            let decode =
                |ring: &AlignedBuf| Anchor::decode(&ring[at..at + Geometry::ANCHOR_BYTES], label.device, label.salt);
            let copies: Vec<_> = rings.iter().map(|ring| ring.as_ref().map(decode)).collect();
            let best = copies.iter().flatten().filter_map(|copy| copy.as_ref().ok()).max_by_key(|a| a.sequence);
            match best {
                Some(anchor) => anchors.push(anchor.clone()),
                // An empty slot is Absent in both copies; anything else was once a page.
                None => suspect |= copies.iter().any(|copy| !matches!(copy, Some(Err(FormatError::Absent(_))))),
            }
        }
        anchors.sort_by_key(|anchor| anchor.sequence);
        (anchors, suspect)
    }

    /// Reads a zoned device's log and remembers where it goes on.
    async fn read_log(
        &self,
        label: &Label,
        zones: [u64; Geometry::LOG_ZONES],
        report: &mut RecoveryReport,
    ) -> StoreResult<(Vec<Anchor>, bool)> {
        let mut found = Vec::new();
        for (zone, start) in zones.into_iter().enumerate() {
            match self.device.write_pointer(start).await {
                Ok(pointer) => found.push(self.read_log_zone(label, (zone, start), pointer, report).await),
                // A zone that has gone offline: the others go on without it.
                Err(error) if error.is_media_fault() => {
                    report.damage.push((start, format!("a zone of the anchor log cannot be used: {error}")));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let all = found.iter().flat_map(|zone| zone.pages.iter().flatten());
        let mut pages: Pages = all.map(|(anchor, page)| (anchor.sequence, (anchor.clone(), page.clone()))).collect();
        let suspect = found.iter().any(|zone| zone.lacks(&pages));
        while pages.len() > SLOTS {
            pages.pop_first();
        }
        found.sort_by_key(|zone| (zone.is_whole(&pages), zone.held(&pages), zone.has_label));
        let whole = found.iter().rev().take_while(|zone| !pages.is_empty() && zone.is_whole(&pages)).take(COPIES);
        let used: Vec<(usize, u64)> = whole.map(|zone| (zone.zone, zone.pointer)).collect();
        let spare = found.iter().map(|zone| zone.zone).filter(|zone| used.iter().all(|(other, _)| other != zone));
        self.log.replace(AnchorLog {
            spare: spare.collect(),
            used,
            pages: pages.values().map(|(_, page)| page.clone()).collect(),
        });
        Ok((pages.into_values().map(|(anchor, _)| anchor).collect(), suspect))
    }

    async fn read_log_zone(
        &self,
        label: &Label,
        (zone, start): (usize, u64),
        pointer: u64,
        report: &mut RecoveryReport,
    ) -> Found {
        let end = pointer - pointer % PAGE_BYTES;
        let mut found = Found { zone, pointer, has_label: false, pages: Vec::new() };
        if end < start + LABEL_BYTES {
            return found;
        }
        let from = (start + LABEL_BYTES).max(end.saturating_sub(SLOTS as u64 * PAGE_BYTES));
        let copy = self.read_pages(start, start + LABEL_BYTES, report).await;
        found.has_label = copy.iter().flatten().any(|copy| Label::decode(copy).as_ref() == Ok(label));
        for page in self.read_pages(from, end, report).await {
            let anchor = page.as_ref().and_then(|page| Anchor::decode(page, label.device, label.salt).ok());
            found.pages.push(anchor.zip(page));
        }
        found
    }

    /// The pages from byte `from` to `end` of the device; none in the place of one that cannot be read.
    async fn read_pages(&self, from: u64, end: u64, report: &mut RecoveryReport) -> Vec<Option<AlignedBytes>> {
        if from == end {
            return Vec::new();
        }
        let page = |bytes: &[u8]| Some(AlignedBuf::from_bytes(bytes).freeze());
        if let Ok((buf, _)) = self.read_span(from, (end - from) as usize).await {
            return buf.chunks(IO_ALIGN).map(page).collect();
        }
        // A bad sector must not hide the pages around it.
        let mut pages = Vec::new();
        for at in (from..end).step_by(IO_ALIGN) {
            match self.read_span(at, IO_ALIGN).await {
                Ok((buf, _)) => pages.push(page(&buf)),
                Err(error) => {
                    report.damage.push((at, format!("a page of the anchor log cannot be read: {error}")));
                    pages.push(None);
                }
            }
        }
        pages
    }
}
