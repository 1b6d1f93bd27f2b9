//! A small formatted device with everything on it that a store may hold, what was written to it, and ways
//! to damage or forge it.
//!
//! The image is made by the store itself, when a target starts: 28 extents of 256 KiB, a checkpoint, records
//! after it, tombstones; shards of three stripes (2+1) of which one is a pack, a journal of a dozen commands,
//! facts, blocks of a region that is no database.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use base::{ClusterId, DeviceId};
use format::{Anchor, BLOCK_BYTES, Geometry, Label, Place, RecordHead, RecordKind, RecordLayout, ShardKey, UNIT_BYTES};
use futures::executor::block_on;
use shards::{FormatOptions, Store, StoreHandle};

use crate::memdisk::MemDisk;
use crate::seeds::content;

pub(crate) const DEVICE: DeviceId = DeviceId([2; 16]);
pub(crate) const SALT: u32 = 77;
const CLUSTER: ClusterId = ClusterId([1; 16]);
const EXTENT_BYTES: usize = 256 << 10;
const EXTENTS: usize = 28;
const DEVICE_BYTES: usize = (1 << 20) + EXTENTS * EXTENT_BYTES + 4096;
/// Changes made to an image at most: more make a fuzzer slow and no wiser.
const CHANGES_MAX: usize = 24;

/// Options of [`damaged`].
const SEAL_RECORDS: u8 = 1;
const SEAL_LENGTHS: u8 = 2;
const SEAL_PAYLOADS: u8 = 4;
const SEAL_CHECKPOINTS: u8 = 8;
const SEAL_PAGES: u8 = 16;

/// A record on the image.
#[derive(Debug, Clone)]
pub(crate) struct RecordAt {
    /// Bytes from the start of the device.
    pub(crate) at: usize,
    pub(crate) bytes: usize,
    pub(crate) head: RecordHead,
    place: Place,
}

/// An anchor page, and the records that its checkpoint is made of.
struct PageAt {
    copies: [usize; 2],
    checkpoint: Option<Vec<usize>>,
}

/// See the file's header.
pub(crate) struct Golden {
    bytes: &'static [u8],
    pub(crate) records: Vec<RecordAt>,
    pages: Vec<PageAt>,
    /// Every payload that was ever put, by key.
    pub(crate) written: BTreeMap<ShardKey, Vec<Vec<u8>>>,
}

/// The image, made once.
pub(crate) fn golden() -> &'static Golden {
    static GOLDEN: OnceLock<Golden> = OnceLock::new();
    GOLDEN.get_or_init(build)
}

fn build() -> Golden {
    static BLANK: [u8; DEVICE_BYTES] = [0; DEVICE_BYTES];
    let disk = MemDisk::over(&BLANK);
    let options = FormatOptions {
        cluster: CLUSTER,
        device: DEVICE,
        salt: SALT,
        now_ms: 1_000,
        extent_bytes: Some(EXTENT_BYTES as u32),
    };
    let mut written: BTreeMap<ShardKey, Vec<Vec<u8>>> = BTreeMap::new();
    let bytes = block_on(async {
        Store::format(&disk, &options).await.expect("a blank device can be formatted");
        let store = Store::open(disk.clone(), false).await.expect("a new device opens");
        let (tell, handle) = futures::channel::oneshot::channel();
        let work = async {
            let handle: StoreHandle = handle.await.expect("the store passes its handle");
            content::fill(&handle, &mut written).await;
            // Before the store is closed: then there is something to roll forward.
            disk.bytes()
        };
        futures::join!(store.serve(|handle| drop(tell.send(handle))), work).1
    });
    let bytes: &'static [u8] = Box::leak(bytes.into_boxed_slice());
    let records = find_records(bytes);
    let pages = find_pages(bytes, &records);
    assert!(pages.iter().any(|page| page.checkpoint.is_some()), "the image has a checkpoint");
    assert!(records.iter().any(|record| record.head.kind == RecordKind::Tombstone), "the image has a tombstone");
    Golden { bytes, records, pages, written }
}

fn find_records(bytes: &[u8]) -> Vec<RecordAt> {
    let mut found = Vec::new();
    for (extent, offset_units) in
        (0..EXTENTS as u32).flat_map(|e| (0..(EXTENT_BYTES / UNIT_BYTES) as u32).map(move |u| (e, u)))
    {
        let at = (1 << 20) + extent as usize * EXTENT_BYTES + offset_units as usize * UNIT_BYTES;
        let place = Place { device: DEVICE, salt: SALT, extent, generation: 0, offset_units };
        let here = &bytes[at..at + (EXTENT_BYTES - offset_units as usize * UNIT_BYTES)];
        let Some(generation) = RecordHead::probe_generation(here, &place) else { continue };
        let place = Place { generation, ..place };
        let (head, _) = RecordHead::decode(here, &place).expect("a proven header has its tables");
        found.push(RecordAt { at, bytes: head.layout().record_bytes, head, place });
    }
    found
}

fn find_pages(bytes: &[u8], records: &[RecordAt]) -> Vec<PageAt> {
    let slots = (0..Geometry::ANCHOR_SLOTS).map(|slot| Geometry::anchor_offsets(slot).map(|at| at as usize));
    slots
        .filter_map(|copies| {
            let anchor = Anchor::decode(&bytes[copies[0]..][..4096], DEVICE, SALT).ok()?;
            let checkpoint = anchor.checkpoint.map(|checkpoint| {
                let of = |part: &format::CheckpointPart| {
                    let (extent, generation) = (part.extent, part.generation);
                    let in_part = move |r: &&RecordAt| r.place.extent == extent && r.place.generation == generation;
                    records.iter().filter(in_part).map(|record| record.at).collect::<Vec<_>>()
                };
                checkpoint.parts.iter().flat_map(of).collect()
            });
            Some(PageAt { copies, checkpoint })
        })
        .collect()
}

/// The image, changed as `data` says; and whether checksums were made right again after a change.
///
/// `options, then changes: what (1), where, bytes`. Every input is a valid list of changes.
pub(crate) fn damaged(data: &[u8]) -> (MemDisk, bool) {
    let golden = golden();
    let disk = MemDisk::over(golden.bytes);
    let mut input = Input(data);
    let options = input.byte().unwrap_or(0);
    let mut touched = Vec::new();
    for _ in 0..CHANGES_MAX {
        let Some(what) = input.byte() else { break };
        change(&disk, what, &mut input, &mut touched);
    }
    touched.sort_unstable();
    touched.dedup();
    if options & SEAL_RECORDS != 0 {
        for record in &touched {
            seal_record_on(&disk, &golden.records[*record], options);
        }
    }
    if options & SEAL_CHECKPOINTS != 0 {
        golden.pages.iter().for_each(|page| name_checkpoint(&disk, page));
    }
    if options & (SEAL_CHECKPOINTS | SEAL_PAGES) != 0 {
        let labels = [0, DEVICE_BYTES - 4096].map(|at| (at, 0));
        let anchors = golden.pages.iter().flat_map(|page| page.copies).map(|at| (at, SALT));
        for (at, salt) in labels.into_iter().chain(anchors) {
            rewrite(&disk, at, 4096, |page| seal_page(page, salt));
        }
    }
    (disk, options & (SEAL_RECORDS | SEAL_CHECKPOINTS | SEAL_PAGES) != 0)
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self, bytes: usize) -> usize {
        (0..bytes).fold(0, |number, _| number << 8 | usize::from(self.byte().unwrap_or(0)))
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

fn change(disk: &MemDisk, what: u8, input: &mut Input<'_>, touched: &mut Vec<usize>) {
    let golden = golden();
    let len = 1 + usize::from(what >> 4);
    let record = |input: &mut Input<'_>| input.number(1) % golden.records.len();
    match what % 5 {
        // Bytes of a record.
        0 => {
            let number = record(input);
            let at = input.number(2) % golden.records[number].bytes;
            disk.store(golden.records[number].at + at, input.take(len.min(golden.records[number].bytes - at)));
            touched.push(number);
        }
        // Bytes of a label or anchor page; of one copy or of both.
        1 => {
            let labels = [[0, DEVICE_BYTES - 4096]];
            let mut pages = labels.into_iter().chain(golden.pages.iter().map(|page| page.copies));
            let page = pages.nth(input.number(1) % (1 + golden.pages.len())).expect("one of them");
            let at = input.number(2) % 4096;
            let bytes = input.take(len.min(4096 - at));
            disk.store(page[0] + at, bytes);
            if what & 8 != 0 {
                disk.store(page[1] + at, bytes);
            }
        }
        // A record over another; with its new place in its header, unless it is to be a stale one.
        2 => {
            let (from, to) = (record(input), record(input));
            let (from, into) = (&golden.records[from], &golden.records[to]);
            let room = EXTENT_BYTES - into.place.offset_units as usize * UNIT_BYTES;
            let mut bytes = vec![0; from.bytes.min(room)];
            disk.load(from.at, &mut bytes);
            if what & 8 != 0 {
                bytes[24..28].copy_from_slice(&into.place.extent.to_le_bytes());
                bytes[28..32].copy_from_slice(&into.place.offset_units.to_le_bytes());
                bytes[32..40].copy_from_slice(&into.place.generation.to_le_bytes());
            }
            disk.store(into.at, &bytes);
            touched.push(to);
        }
        // Bytes anywhere.
        3 => {
            let at = input.number(4) % DEVICE_BYTES;
            disk.store(at, input.take(len.min(DEVICE_BYTES - at)));
        }
        // A record lost from a sector on.
        _ => {
            let number = record(input);
            let at = input.number(2) % golden.records[number].bytes / UNIT_BYTES * UNIT_BYTES;
            disk.store(golden.records[number].at + at, &vec![0; golden.records[number].bytes - at]);
            touched.push(number);
        }
    }
}

fn rewrite(disk: &MemDisk, at: usize, len: usize, with: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = vec![0; len];
    disk.load(at, &mut bytes);
    with(&mut bytes);
    disk.store(at, &bytes);
}

fn seal_record_on(disk: &MemDisk, record: &RecordAt, options: u8) {
    // As much as the longest record that its extent has room for: a forged length may reach further.
    let room = EXTENT_BYTES - record.place.offset_units as usize * UNIT_BYTES;
    rewrite(disk, record.at, room, |bytes| {
        if options & SEAL_PAYLOADS != 0 {
            seal_payload(bytes);
        }
        seal_head(bytes, SALT, options & SEAL_LENGTHS != 0);
    });
}

/// Puts length and checksum of a page's checkpoint, as it lies there now, into the page.
fn name_checkpoint(disk: &MemDisk, page: &PageAt) {
    let Some(records) = &page.checkpoint else { return };
    let (mut crc, mut total) = (crc32fast::Hasher::new(), 0u64);
    for at in records {
        let mut head = vec![0; 128];
        disk.load(*at, &mut head);
        let (descriptor, payload) = lengths(&head);
        let layout = RecordLayout::new(descriptor, payload);
        if at + layout.payload_at + payload <= DEVICE_BYTES {
            let mut bytes = vec![0; payload];
            disk.load(at + layout.payload_at, &mut bytes);
            crc.update(&bytes);
            total += payload as u64;
        }
    }
    let crc = crc.finalize();
    for copy in page.copies {
        disk.store(copy + 48, &total.to_le_bytes());
        disk.store(copy + 56, &crc.to_le_bytes());
    }
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

fn salted(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

/// Descriptor and payload bytes in a header, cut to what a reader would accept.
fn lengths(header: &[u8]) -> (usize, usize) {
    (number(&header[76..78]).min(2048), number(&header[64..68]).min(8 << 20))
}

/// Makes the checksum of a label (salt 0) or an anchor page right.
pub(crate) fn seal_page(page: &mut [u8], salt: u32) {
    if page.len() >= 4096 {
        let sum = salted(salt, &page[..4092]);
        page[4092..4096].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Makes a record's header right: its checksums, and with `record_length` that length too.
pub(crate) fn seal_head(bytes: &mut [u8], salt: u32, record_length: bool) {
    if bytes.len() < 128 {
        return;
    }
    let (descriptor, payload) = lengths(bytes);
    if record_length {
        let units = RecordLayout::new(descriptor, payload).record_bytes / UNIT_BYTES;
        bytes[68..72].copy_from_slice(&(units as u32).to_le_bytes());
    }
    let tables_end = (128 + descriptor).next_multiple_of(8) + 4 * payload.div_ceil(BLOCK_BYTES);
    if let Some(tables) = bytes.get(128..tables_end) {
        let sum = crc32fast::hash(tables);
        bytes[80..84].copy_from_slice(&sum.to_le_bytes());
    }
    let sum = salted(salt, &bytes[..124]);
    bytes[124..128].copy_from_slice(&sum.to_le_bytes());
}

/// Makes a record's block checksums those of its payload.
fn seal_payload(bytes: &mut [u8]) {
    let (descriptor, payload) = lengths(bytes);
    let layout = RecordLayout::new(descriptor, payload);
    let tables = (128 + descriptor).next_multiple_of(8);
    let Some(payload) = bytes.get(layout.payload_at..layout.payload_at + payload) else { return };
    let sums: Vec<u8> = format::block_checksums(payload).iter().flat_map(|sum| sum.to_le_bytes()).collect();
    bytes[tables..tables + sums.len()].copy_from_slice(&sums);
}

/// A label as the image has it, for seeds.
pub(crate) fn label() -> Label {
    let geometry = Geometry::new(DEVICE_BYTES as u64, EXTENT_BYTES as u32).expect("it fits");
    Label { cluster: CLUSTER, device: DEVICE, geometry, salt: SALT, created_ms: 1_000 }
}

/// Bytes of the image, for seeds.
pub(crate) fn bytes_at(at: usize, len: usize) -> &'static [u8] {
    &golden().bytes[at..at + len]
}
