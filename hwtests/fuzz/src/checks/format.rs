//! The structs of `node/format`. Option 1 makes the checksums right.
//!
//! What was decoded must give its bytes back. The padding before a record's payload is not looked at.

use base::{Lsn, PartitionId};
use format::{
    Anchor, CheckpointExtent, CheckpointHead, CheckpointRun, CheckpointShard, Descriptor, JournalFact, JournalHeader,
    Label, Place, RecordHead, decode_fact, decode_pack_directory, decode_tombstone, encode_fact, encode_pack_directory,
    encode_tombstone,
};
use zerocopy::IntoBytes;

use crate::image::{DEVICE, SALT, seal_head, seal_page};
use crate::{bounded, options};

/// Where the fuzzed record lies.
pub(crate) fn place() -> Place {
    Place { device: DEVICE, salt: SALT, extent: 3, generation: 9, offset_units: 8 }
}

pub(crate) fn label(data: &[u8]) {
    let Some((options, bytes)) = options(data) else { return };
    let mut bytes = bytes.to_vec();
    if options & 1 != 0 {
        seal_page(&mut bytes, 0);
    }
    if let Ok(label) = bounded(0, 0, 1 << 10, || Label::decode(&bytes)) {
        assert_eq!(label.encode(), bytes[..4096], "a label has one form");
        let geometry = label.geometry;
        let end = geometry.extent_offset(geometry.extents - 1) + u64::from(geometry.extent_bytes);
        assert!(end <= geometry.label_offsets()[1], "extents end before the second label");
    }
}

pub(crate) fn anchor(data: &[u8]) {
    let Some((options, bytes)) = options(data) else { return };
    let mut bytes = bytes.to_vec();
    if options & 1 != 0 {
        seal_page(&mut bytes, SALT);
    }
    if let Ok(anchor) = bounded(bytes.len(), 2, 1 << 10, || Anchor::decode(&bytes, DEVICE, SALT)) {
        assert_eq!(anchor.encode(DEVICE, SALT), bytes[..4096], "an anchor page has one form");
    }
}

pub(crate) fn record(data: &[u8]) {
    let Some((options, bytes)) = options(data) else { return };
    let mut bytes = bytes.to_vec();
    if options & 1 != 0 {
        seal_head(&mut bytes, SALT, options & 2 != 0);
    }
    let place = place();
    let decoded = bounded(bytes.len(), 4, 1 << 10, || RecordHead::decode(&bytes, &place));
    if let Ok(layout) = RecordHead::record_bytes(&bytes, &place) {
        assert!(layout.payload_at <= layout.record_bytes, "a payload lies in its record");
    }
    let _ = RecordHead::durable_units(&bytes, &place);
    let _ = RecordHead::probe_generation(&bytes, &place);
    let Ok((head, proof)) = decoded else { return };
    let layout = head.layout();
    assert_eq!(RecordHead::record_bytes(&bytes, &place), Ok(layout));
    let mut again = vec![0; layout.payload_at];
    let proof_again = head.encode_into(&place, &mut again);
    let (descriptor_end, tables) = (128 + head.descriptor.len(), 4 * head.block_crcs.len());
    let tables_at = descriptor_end.next_multiple_of(8);
    if bytes[descriptor_end..tables_at].iter().all(|byte| *byte == 0) {
        assert_eq!(proof_again, proof, "a head has one proof");
    }
    assert_eq!(again[..80], bytes[..80], "a header has one form");
    assert_eq!(again[128..descriptor_end], bytes[128..descriptor_end], "a descriptor is given as it is");
    assert_eq!(again[tables_at..tables_at + tables], bytes[tables_at..tables_at + tables], "so are the checksums");
    let payload = bytes.get(layout.payload_at..).unwrap_or_default();
    let payload = &payload[..payload.len().min(head.payload_bytes as usize)];
    let _ = head.payload_fits(payload);
    let _ = head.block_fits(usize::MAX, payload);
}

pub(crate) fn checkpoint(data: &[u8]) {
    let total = data.len() as u64;
    bounded(0, 0, 0, || {
        let Ok((head, mut rest)) = CheckpointHead::decode(data, total) else { return };
        assert_eq!(head.total_bytes(), Some(total));
        for _ in 0..head.extents {
            let Ok((_, after)) = CheckpointExtent::decode(rest) else { return };
            rest = after;
        }
        for _ in 0..head.runs {
            let Ok((run, mut after)) = CheckpointRun::decode(rest) else { return };
            for _ in 0..run.records {
                let Ok((shard, next)) = CheckpointShard::decode(after, &run) else { return };
                assert!(shard.place_units < 1 << 40);
                after = next;
            }
            rest = after;
        }
    });
    let mut again = Vec::new();
    let Ok((head, mut rest)) = CheckpointHead::decode(data, total) else { return };
    head.encode_to(&mut again);
    for _ in 0..head.extents {
        let Ok((entry, after)) = CheckpointExtent::decode(rest) else { return };
        entry.encode_to(&mut again);
        rest = after;
    }
    for _ in 0..head.runs {
        let Ok((run, after)) = CheckpointRun::decode(rest) else { return };
        run.encode_to(&mut again);
        rest = after;
        for _ in 0..run.records {
            let Ok((shard, after)) = CheckpointShard::decode(rest, &run) else { return };
            shard.encode_to(&mut again);
            rest = after;
        }
    }
    assert_eq!(again, data[..data.len() - rest.len()], "a checkpoint has one form");
}

pub(crate) fn descriptor(data: &[u8]) {
    if let Ok(descriptor) = bounded(data.len(), 2, 1 << 10, || Descriptor::decode(data))
        && descriptor.bucket.len() <= 63
        && descriptor.key.len() <= 1024
    {
        assert_eq!(descriptor.encode(), data, "a descriptor has one form");
    }
}

pub(crate) fn pack(data: &[u8]) {
    // An entry takes at least 24 bytes here and about 80 in memory; a growing list is there twice.
    let Ok(mut entries) = bounded(data.len(), 16, 1 << 10, || decode_pack_directory(data)) else { return };
    let names: usize = entries.iter().map(|entry| entry.bucket.len() + entry.key.len()).sum();
    let directory_bytes = (16 + 24 * entries.len() + names) as u32;
    for entry in &entries {
        assert!(u64::from(entry.offset) + u64::from(entry.len) <= data.len() as u64, "objects lie in their pack");
    }
    // Offsets into the directory are allowed, and have no form on the way back.
    if entries.iter().all(|entry| entry.offset >= directory_bytes) {
        entries.iter_mut().for_each(|entry| entry.offset -= directory_bytes);
        let again = [&encode_pack_directory(&entries)[..], &data[directory_bytes as usize..]].concat();
        assert_eq!(again, data, "a directory has one form");
    }
}

pub(crate) fn tombstone(data: &[u8]) {
    if let Ok(keys) = bounded(data.len(), 8, 1 << 10, || decode_tombstone(data)) {
        assert_eq!(encode_tombstone(&keys), data, "a tombstone has one form");
    }
}

/// A journal record's header, or a fact (option 2).
pub(crate) fn journal(data: &[u8]) {
    let Some((options, bytes)) = options(data) else { return };
    let (partition, lsn) = (PartitionId(7), Lsn(3));
    let mut bytes = bytes.to_vec();
    if options & 2 == 0 {
        if options & 1 != 0 && bytes.len() >= 64 {
            let sum = crc32fast::hash(&bytes[..60]);
            bytes[60..64].copy_from_slice(&sum.to_le_bytes());
        }
        if let Ok(header) = bounded(0, 0, 256, || JournalHeader::parse(&bytes, partition, lsn)) {
            let word = |word: zerocopy::byteorder::little_endian::U32| word.get();
            let (previous, bytes_of, crc) = (word(header.previous), word(header.body_bytes), word(header.body_crc));
            let again = JournalHeader::new(partition, header.epoch.get(), lsn, previous, bytes_of, crc);
            assert_eq!(again.as_bytes(), &bytes[..64], "a journal header has one form");
        }
        return;
    }
    if options & 1 != 0 && bytes.len() >= 40 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[..36]);
        crc.update(&bytes[40..]);
        let sum = crc.finalize();
        bytes[36..40].copy_from_slice(&sum.to_le_bytes());
    }
    for fact in [JournalFact::Epoch, JournalFact::Floor, JournalFact::Run] {
        if let Ok(body) = bounded(bytes.len(), 2, 1 << 10, || decode_fact(fact, partition, &bytes)) {
            assert_eq!(encode_fact(fact, partition, &body), bytes, "a fact has one form");
        }
    }
}
