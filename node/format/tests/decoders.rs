//! Decoders of outside bytes: whatever they are given, they neither panic nor allocate by an unchecked length.
//!
//! Two kinds of bytes: arbitrary ones behind the right first bytes, and true encodings that were damaged
//! (bits flipped, cut short, prolonged), with and without their checksums made right again afterwards: those
//! pass every checksum and are what a forger, or a bug, would have written.
//!
//! What is accepted must encode to the bytes it came from; where a reader lets bytes that ought to be zero be
//! anything ([`LOOSE`]), to bytes that say the same. The unit tests hold golden bytes and single flips.

use std::alloc::System;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base::{ClusterId, DeviceId, Lsn, PartitionId, StripeId};
use format::{
    Anchor, CheckpointExtent, CheckpointHead, CheckpointPart, CheckpointRef, CheckpointRun, CheckpointShard,
    Descriptor, ExtentState, FactBody, Geometry, JournalFact, JournalHeader, Label, OpenedExtent, PackEntry, Place,
    RecordHead, RecordKind, ShardKey, Space, Stream, block_checksums, decode_fact, decode_pack_directory,
    decode_tombstone, encode_fact, encode_pack_directory, encode_tombstone,
};
use proptest::prelude::*;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use zerocopy::IntoBytes;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that a decoder may allocate in all for each byte of input. A pack's entry grows most: 24 bytes here
/// are 80 in memory, in a list that doubles.
const FACTOR: usize = 16;
/// And besides.
const CONSTANT: usize = 4096;

const DEVICE: DeviceId = DeviceId([7; 16]);
const SALT: u32 = 5;
const PARTITION: PartitionId = PartitionId(7);

/// Allocations are counted for the whole process: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn place() -> Place {
    Place { device: DEVICE, salt: SALT, extent: 3, generation: 9, offset_units: 8 }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Label,
    Anchor,
    Record,
    Checkpoint,
    Descriptor,
    Pack,
    Tombstone,
    JournalHeader,
    Fact,
}

const KINDS: [Kind; 9] = [
    Kind::Label,
    Kind::Anchor,
    Kind::Record,
    Kind::Checkpoint,
    Kind::Descriptor,
    Kind::Pack,
    Kind::Tombstone,
    Kind::JournalHeader,
    Kind::Fact,
];

/// Of a record the padding before its payload is not looked at: a flip there costs nobody anything.
const LOOSE: [Kind; 1] = [Kind::Record];

#[derive(Debug, PartialEq)]
enum Decoded {
    Label(Label),
    Anchor(Anchor),
    Record(RecordHead),
    Checkpoint(CheckpointHead, Option<(CheckpointExtent, CheckpointRun, CheckpointShard)>),
    Descriptor(Descriptor),
    Pack(Vec<PackEntry>),
    Tombstone(Vec<ShardKey>),
    JournalHeader(JournalHeader),
    Fact(FactBody),
}

fn decode(kind: Kind, bytes: &[u8]) -> Option<Decoded> {
    Some(match kind {
        Kind::Label => Decoded::Label(Label::decode(bytes).ok()?),
        Kind::Anchor => Decoded::Anchor(Anchor::decode(bytes, DEVICE, SALT).ok()?),
        Kind::Record => {
            let _ = RecordHead::probe_generation(bytes, &place());
            let _ = RecordHead::durable_units(bytes, &place());
            Decoded::Record(RecordHead::decode(bytes, &place()).ok()?.0)
        }
        Kind::Checkpoint => {
            let (head, rest) = CheckpointHead::decode(bytes, bytes.len() as u64).ok()?;
            Decoded::Checkpoint(head, entries(&head, rest))
        }
        Kind::Descriptor => Decoded::Descriptor(Descriptor::decode(bytes).ok()?),
        Kind::Pack => Decoded::Pack(decode_pack_directory(bytes).ok()?),
        Kind::Tombstone => Decoded::Tombstone(decode_tombstone(bytes).ok()?),
        Kind::JournalHeader => Decoded::JournalHeader(JournalHeader::parse(bytes, PARTITION, Lsn(3)).ok()?),
        Kind::Fact => Decoded::Fact(decode_fact(JournalFact::Epoch, PARTITION, bytes).ok()?),
    })
}

/// The entries of a checkpoint of one extent and one record.
fn entries(head: &CheckpointHead, rest: &[u8]) -> Option<(CheckpointExtent, CheckpointRun, CheckpointShard)> {
    let (extent, rest) = CheckpointExtent::decode(rest).ok()?;
    let (run, rest) = CheckpointRun::decode(rest).ok()?;
    let (shard, _) = CheckpointShard::decode(rest, &run).ok()?;
    ((head.extents, head.runs, head.shards) == (1, 1, 1)).then_some((extent, run, shard))
}

/// The bytes that stand for what was decoded: all of those that mean something. `None` for what a writer
/// would refuse to write: names that S3 does not allow, objects that lie inside their pack's directory.
fn encode(decoded: &Decoded) -> Option<Vec<u8>> {
    Some(match decoded {
        Decoded::Label(label) => label.encode(),
        Decoded::Anchor(anchor) => anchor.encode(DEVICE, SALT),
        Decoded::Record(head) => {
            let mut out = vec![0; head.layout().payload_at];
            head.encode_into(&place(), &mut out);
            out.truncate((128 + head.descriptor.len()).next_multiple_of(8) + 4 * head.block_crcs.len());
            out
        }
        Decoded::Checkpoint(head, entries) => {
            let mut out = Vec::new();
            head.encode_to(&mut out);
            if let Some((extent, run, shard)) = entries {
                extent.encode_to(&mut out);
                run.encode_to(&mut out);
                shard.encode_to(&mut out);
            }
            out
        }
        Decoded::Descriptor(descriptor) => {
            let fits = descriptor.bucket.len() <= 63 && descriptor.key.len() <= 1024;
            return fits.then(|| descriptor.encode());
        }
        Decoded::Pack(entries) => {
            let names: usize = entries.iter().map(|entry| entry.bucket.len() + entry.key.len()).sum();
            let directory = (16 + 24 * entries.len() + names) as u32;
            let from_its_end = |entry: &PackEntry| {
                let offset = entry.offset.checked_sub(directory)?;
                Some(PackEntry { offset, ..entry.clone() })
            };
            return entries.iter().map(from_its_end).collect::<Option<Vec<_>>>().map(|e| encode_pack_directory(&e));
        }
        Decoded::Tombstone(keys) => encode_tombstone(keys),
        Decoded::JournalHeader(header) => {
            let (previous, bytes, crc) = (header.previous.get(), header.body_bytes.get(), header.body_crc.get());
            JournalHeader::new(PARTITION, header.epoch.get(), Lsn(3), previous, bytes, crc).as_bytes().to_vec()
        }
        Decoded::Fact(body) => encode_fact(JournalFact::Epoch, PARTITION, body),
    })
}

fn key(id: u64) -> ShardKey {
    ShardKey::stripe(StripeId(id), 2)
}

/// A true encoding; `size` makes it larger.
fn sample(kind: Kind, size: usize) -> Vec<u8> {
    let decoded = match kind {
        Kind::Label => {
            let geometry = Geometry::new((4 + size as u64) << 30, 16 << 20).expect("it fits");
            let created_ms = 1_700_000_000_000;
            Decoded::Label(Label { cluster: ClusterId([1; 16]), device: DEVICE, geometry, salt: SALT, created_ms })
        }
        Kind::Anchor => {
            let parts = (0..size as u32 % 40).map(|extent| CheckpointPart { extent, generation: 1 << 32 }).collect();
            let opened = |extent| OpenedExtent { extent, generation: 1 << 32 | 5, stream: Stream::Journal };
            let opened = (0..size as u32 % 180).map(opened).collect();
            let checkpoint = Some(CheckpointRef { sequence: 9, bytes: 500, crc: 7, parts });
            Decoded::Anchor(Anchor { sequence: 77, boot: 3, checkpoint, opened, partial: false })
        }
        Kind::Record => {
            let payload = vec![3; size * 200];
            Decoded::Record(RecordHead {
                kind: RecordKind::Put,
                sequence: 42,
                key: Some(key(77)),
                payload_bytes: payload.len() as u32,
                durable_units: 8,
                descriptor: vec![b'd'; size],
                block_crcs: block_checksums(&payload),
            })
        }
        Kind::Checkpoint => Decoded::Checkpoint(
            CheckpointHead { extents: 1, runs: 1, shards: 1, sequence: 9 },
            Some((
                CheckpointExtent { state: ExtentState::Sealed(Stream::Data), generation: 3, written_units: 17 },
                CheckpointRun { space: Space::Stripe, owner: 0, records: 1 },
                CheckpointShard { key: key(5), place_units: 0x12_3456, head_units: 8, payload_bytes: 4096, proof: 77 },
            )),
        ),
        Kind::Descriptor => Decoded::Descriptor(Descriptor {
            stripe: StripeId(77),
            data_shards: 4,
            parity_shards: 2,
            slot: 5,
            stripe_bytes: 100,
            stripe_number: 3,
            stripe_offset: 12 << 20,
            last: true,
            pack: false,
            upload: 99,
            part: 7,
            modified_ms: 1234,
            bucket: "b-1".into(),
            key: "k/é".repeat(size),
        }),
        Kind::Pack => {
            let entry = |n: usize| PackEntry {
                bucket: "b".into(),
                key: "k".repeat(n),
                part: 0,
                modified_ms: 5,
                offset: 10 * n as u32,
                len: 10,
            };
            let mut pack = encode_pack_directory(&(0..size).map(entry).collect::<Vec<_>>());
            pack.extend(vec![9; 10 * size]);
            return pack;
        }
        Kind::Tombstone => Decoded::Tombstone((0..size as u64).map(key).collect()),
        Kind::JournalHeader => Decoded::JournalHeader(JournalHeader::new(PARTITION, 9, Lsn(3), 4, size as u32, 6)),
        Kind::Fact => {
            let members = (0..size as u8 % 64).map(|n| DeviceId([n; 16])).collect();
            Decoded::Fact(FactBody { number: 1 << 32, lsn: Lsn(9), members })
        }
    };
    encode(&decoded).expect("a sample can be written")
}

/// What was done to bytes on their way.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Vec<usize>),
    Set(usize, u8),
    Cut(usize),
    Add(Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        // Most bits that matter lie in the first bytes.
        prop::collection::vec(prop_oneof![0usize..2048, any::<usize>()], 0..4).prop_map(Damage::Flip),
        (0usize..256, any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        any::<usize>().prop_map(Damage::Cut),
        prop::collection::vec(any::<u8>(), 1..40).prop_map(Damage::Add),
    ]
}

fn damaged(mut bytes: Vec<u8>, damage: &Damage) -> Vec<u8> {
    if bytes.is_empty() {
        return bytes;
    }
    match damage {
        Damage::Flip(bits) => {
            for bit in bits {
                let bit = bit % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
        Damage::Set(at, byte) => {
            let at = at % bytes.len();
            bytes[at] = *byte;
        }
        Damage::Cut(len) => bytes.truncate(len % bytes.len()),
        Damage::Add(more) => bytes.extend(more),
    }
    bytes
}

fn crc(seed: u32, parts: &[&[u8]]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().to_le_bytes()
}

/// Makes the checksums right for what the bytes say now.
fn seal(kind: Kind, bytes: &mut [u8]) {
    match kind {
        Kind::Label | Kind::Anchor if bytes.len() >= 4096 => {
            let sum = crc(if kind == Kind::Label { 0 } else { SALT }, &[&bytes[..4092]]);
            bytes[4092..4096].copy_from_slice(&sum);
        }
        Kind::Record if bytes.len() >= 128 => {
            let descriptor = usize::from(u16::from_le_bytes([bytes[76], bytes[77]]));
            let payload = u32::from_le_bytes([bytes[64], bytes[65], bytes[66], bytes[67]]) as usize;
            let end = (128 + descriptor).next_multiple_of(8) + 4 * payload.div_ceil(4096);
            if let Some(tables) = bytes.get(128..end) {
                let sum = crc(0, &[tables]);
                bytes[80..84].copy_from_slice(&sum);
            }
            let sum = crc(SALT, &[&bytes[..124]]);
            bytes[124..128].copy_from_slice(&sum);
        }
        Kind::JournalHeader if bytes.len() >= 64 => {
            let sum = crc(0, &[&bytes[..60]]);
            bytes[60..64].copy_from_slice(&sum);
        }
        Kind::Fact if bytes.len() >= 40 => {
            let sum = crc(0, &[&bytes[..36], &bytes[40..]]);
            bytes[36..40].copy_from_slice(&sum);
        }
        _ => {}
    }
}

/// The laws, for one decoder and some bytes; whether they were accepted.
fn check(kind: Kind, bytes: &[u8]) -> bool {
    let region = Region::new(ALLOCATOR);
    let decoded = decode(kind, bytes);
    let allocated = region.change().bytes_allocated;
    assert!(allocated <= FACTOR * bytes.len() + CONSTANT, "{kind:?}: {allocated} bytes for {}", bytes.len());
    let Some(decoded) = decoded else { return false };
    let Some(mut again) = encode(&decoded) else { return true };
    if LOOSE.contains(&kind) {
        again.extend_from_slice(&bytes[again.len()..]);
        assert_eq!(decode(kind, &again), Some(decoded), "{kind:?} says the same again");
    } else {
        assert_eq!(again, bytes[..again.len()], "{kind:?} has one form");
    }
    true
}

#[test]
fn true_encodings_are_accepted() {
    let _alone = alone();
    for kind in KINDS {
        for size in [0, 1, 7, 50] {
            assert!(check(kind, &sample(kind, size)), "{kind:?} of size {size}");
        }
    }
}

#[test]
fn arbitrary_bytes_behind_the_right_beginning() {
    let _alone = alone();
    let some = prop::collection::vec(any::<u8>(), 0..5000);
    proptest!(ProptestConfig::with_cases(200), |(bytes in some, kept in 0usize..140, sealed: bool)| {
        for kind in KINDS {
            let mut bytes = bytes.clone();
            let start = sample(kind, 3);
            let kept = kept.min(bytes.len()).min(start.len());
            bytes[..kept].copy_from_slice(&start[..kept]);
            if sealed {
                seal(kind, &mut bytes);
            }
            check(kind, &bytes);
        }
    });
}

#[test]
fn damaged_encodings_whose_checksums_are_right_again() {
    let _alone = alone();
    let each = (0usize..60, prop::collection::vec(damage(), 1..3));
    proptest!(ProptestConfig::with_cases(400), |((size, damages) in each, sealed in prop::bool::weighted(0.8))| {
        for kind in KINDS {
            let mut bytes = damages.iter().fold(sample(kind, size), damaged);
            if sealed {
                seal(kind, &mut bytes);
            }
            check(kind, &bytes);
        }
    });
}

/// Lengths that promise far more than there is: nothing is allocated for the promise.
#[test]
fn promised_lengths_are_not_believed() {
    let _alone = alone();
    let mut pack = sample(Kind::Pack, 1);
    pack[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(!check(Kind::Pack, &pack), "entries");
    let mut checkpoint = sample(Kind::Checkpoint, 0);
    checkpoint[8..24].fill(0xff);
    assert!(!check(Kind::Checkpoint, &checkpoint), "extents, runs and records");
    let mut record = sample(Kind::Record, 1);
    for payload in [8u32 << 20, u32::MAX] {
        record[64..68].copy_from_slice(&payload.to_le_bytes());
        seal(Kind::Record, &mut record);
        assert!(!check(Kind::Record, &record), "a payload of {payload} bytes");
    }
    let mut fact = sample(Kind::Fact, 1);
    fact[6..8].copy_from_slice(&u16::MAX.to_le_bytes());
    seal(Kind::Fact, &mut fact);
    assert!(!check(Kind::Fact, &fact), "members");
}
