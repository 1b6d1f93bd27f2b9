//! The seeds of every target: a few true encodings each, so that a fuzzer starts where the format is.

pub(crate) mod content;

use base::{DeviceId, Lsn, PartitionId};
use catalog::{AccessKey, ClusterFacts, DeviceEntry, DomainLevel, Secret};
use format::{
    Anchor, CheckpointPart, CheckpointRef, JournalHeader, OpenedExtent, RecordHead, RecordKind, ShardKey, Stream,
};
use zerocopy::IntoBytes;

use crate::checks::format::place;
use crate::image::{DEVICE, RecordAt, SALT, bytes_at, golden, label};

/// A seed: its target, its name, its bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// Every seed.
#[must_use]
pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |target: &'static str, name: &str, bytes: Vec<u8>| seeds.push((target, name.to_owned(), bytes));
    pages(&mut add);
    records(&mut add);
    commands(&mut add);
    texts(&mut add);
    devices(&mut add);
    seeds
}

fn with(options: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    [&[options], bytes.as_ref()].concat()
}

fn pages(add: &mut impl FnMut(&'static str, &str, Vec<u8>)) {
    add("label", "plain", with(0, label().encode()));
    add("label", "sealed", with(1, label().encode()));
    let parts = vec![CheckpointPart { extent: 3, generation: 1 << 32 }];
    let checkpoint = CheckpointRef { sequence: 9, bytes: 500, crc: 7, parts };
    let opened = |extent| OpenedExtent { extent, generation: 1 << 32 | 5, stream: Stream::Journal };
    let first = Anchor { sequence: 1, boot: 0, checkpoint: None, opened: vec![], partial: false };
    let later = Anchor { sequence: 77, boot: 3, checkpoint: Some(checkpoint), opened: vec![opened(4), opened(5)], partial: false };
    for (name, anchor) in [("first", first), ("later", later)] {
        add("anchor", name, with(0, anchor.encode(DEVICE, SALT)));
        add("anchor", &format!("{name}-sealed"), with(1, anchor.encode(DEVICE, SALT)));
    }
}

fn records(add: &mut impl FnMut(&'static str, &str, Vec<u8>)) {
    let about = content::descriptor(1, 2, 1000, Some("striped"));
    for (name, kind, key, payload, descriptor) in [
        ("put", RecordKind::Put, Some(ShardKey::stripe(about.stripe, 2)), 300, about.encode()),
        ("blocks", RecordKind::Put, Some(ShardKey::region(0, 5)), 10_000, vec![]),
        ("tombstone", RecordKind::Tombstone, None, 48, vec![]),
        ("checkpoint", RecordKind::Checkpoint, None, 600, vec![]),
    ] {
        let bytes = content::body(name, payload);
        let block_crcs = format::block_checksums(&bytes);
        let payload_bytes = payload as u32;
        let head = RecordHead { kind, sequence: 42, key, payload_bytes, durable_units: 8, descriptor, block_crcs };
        let mut out = vec![0; head.layout().payload_at];
        head.encode_into(&place(), &mut out);
        add("record", name, with(0, &out));
        add("record", &format!("{name}-sealed"), with(3, &out));
    }
    add("descriptor", "shard", about.encode());
    add("descriptor", "pack", content::descriptor(3, 0, 500, None).encode());
    add("pack", "two", content::pack());
    let keys = [ShardKey::stripe(about.stripe, 2), ShardKey::journal(PartitionId(0), Lsn(9)), ShardKey::region(0, 5)];
    add("tombstone", "three", format::encode_tombstone(&keys));
    let checkpoints = golden().records.iter().filter(|record| record.head.kind == RecordKind::Checkpoint);
    for (number, record) in checkpoints.enumerate() {
        let at = record.at + record.head.layout().payload_at;
        add("checkpoint", &format!("store-{number}"), bytes_at(at, record.head.payload_bytes as usize).to_vec());
    }
}

fn commands(add: &mut impl FnMut(&'static str, &str, Vec<u8>)) {
    for (number, commands) in content::batches().iter().enumerate() {
        let body = content::batch(commands);
        add("batch", &format!("whole-{number}"), with(0, &body));
        let encoded: Vec<u8> = commands
            .iter()
            .filter(|(_, data)| data.is_empty())
            .flat_map(|(command, _)| postcard::to_stdvec(&(command, 0u32)).expect("commands encode"))
            .collect();
        let count = commands.iter().filter(|(_, data)| data.is_empty()).count() as u8;
        add("batch", &format!("framed-{number}"), [&[1, count], &encoded[..]].concat());
    }
    let body = content::batch(&content::batches()[0]);
    let header = JournalHeader::new(PartitionId(7), 1 << 32, Lsn(3), 5, body.len() as u32, crc32fast::hash(&body));
    add("journal", "header", with(0, header.as_bytes()));
    add("journal", "header-sealed", with(1, header.as_bytes()));
    add("journal", "fact", with(2, content::fact(PartitionId(7))));
    add("journal", "fact-sealed", with(3, content::fact(PartitionId(7))));
}

fn texts(add: &mut impl FnMut(&'static str, &str, Vec<u8>)) {
    let key = AccessKey {
        access_key_id: "HFROOT".into(),
        secret: Secret::new("not-a-secret-at-all".into()),
        name: "root".into(),
        created_ms: 1_000,
    };
    add("catalog", "key", serde_json::to_vec(&key).expect("keys encode"));
    let device = |n| DeviceEntry { device_id: DeviceId([n; 16]), path: "/dev/sda".into(), size_bytes: 1 << 40 };
    let facts = ClusterFacts {
        revision: 3,
        cluster_id: label().cluster,
        data_shards: 4,
        parity_shards: 2,
        domain_level: DomainLevel::Device,
        devices: vec![device(1), device(2)],
    };
    add("catalog", "facts", serde_json::to_vec(&facts).expect("facts encode"));
    let chunked = |options: u8, decoded: u16, piece: u8, body: &str| {
        [&[options][..], &decoded.to_le_bytes(), &[piece], body.as_bytes()].concat()
    };
    add("chunked", "unsigned", chunked(0, 5, 3, "5\r\nhello\r\n0\r\n\r\n"));
    let trailers = "2\r\nab\r\n3\r\ncde\r\n0\r\nx-amz-checksum-crc32:sOO8/Q==\r\n\r\n";
    add("chunked", "trailers", chunked(2, 5, 200, trailers));
    let signature = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
    let signed = format!("5;chunk-signature={signature}\r\nhello\r\n0;chunk-signature={signature}\r\n\r\n");
    add("chunked", "signed", chunked(1, 5, 40, &signed));
    let xml = |max: u16, piece: u8, body: &str| [&max.to_le_bytes()[..], &[piece], body.as_bytes()].concat();
    let delete =
        "<?xml version=\"1.0\"?>\n<Delete xmlns=\"x\"><Object><Key>a&amp;b&#10;</Key></Object><Quiet/></Delete>";
    add("xml", "delete", xml(1000, 7, delete));
    add("xml", "refused", xml(1000, 1, "<!DOCTYPE x [<!ENTITY e 'x'>]><a>&e;</a>"));
    heads(add);
}

fn heads(add: &mut impl FnMut(&'static str, &str, Vec<u8>)) {
    let authorization = "AWS4-HMAC-SHA256 Credential=HFROOT/20130524/us-east-1/s3/aws4_request, \
                         SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=00ff";
    let put = format!(
        "PUT /bucket/key?partNumber=1&uploadId=00\nhost:localhost\nauthorization:{authorization}\n\
         x-amz-date:20130524T000000Z\nx-amz-content-sha256:STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER\n\
         x-amz-decoded-content-length:66560\nx-amz-trailer:x-amz-checksum-crc32\ncontent-encoding:aws-chunked,gzip\n\
         x-amz-meta-colour:blue\nexpires:never\nif-match:\"00\"\n"
    );
    add("head", "put", with(0, put));
    let plain = format!(
        "PUT /b/a%20b\nhost:localhost\nauthorization:{authorization}\ncontent-length:5\n\
         content-md5:XUFAKrxLKna5cZ2REBfFkg==\nx-amz-checksum-crc32:NhCmhg==\nx-amz-sdk-checksum-algorithm:CRC32\n\
         x-amz-content-sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\nif-none-match:*\n"
    );
    add("head", "plain", with(0, plain));
    let presigned = "GET /b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=HFROOT%2F20130524%2Fus-east-1%2Fs3%2F\
                     aws4_request&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=00\nhost:localhost\n";
    add("head", "presigned", with(0, presigned));
    add("head", "token", with(1, face::token("a/key/ü")));
    add("head", "upload", with(1, format!("{:032x}", 77)));
}

/// Changes of the image: see `image::damaged`.
fn devices(add: &mut impl FnMut(&'static str, &str, Vec<u8>)) {
    let tombstone = golden().records.iter().position(|r| r.head.kind == RecordKind::Tombstone).expect("one") as u8;
    let is_checkpoint = |(_, record): &(usize, &RecordAt)| record.head.kind == RecordKind::Checkpoint;
    let newest = golden().records.iter().enumerate().filter(is_checkpoint).max_by_key(|(_, r)| r.head.sequence);
    let checkpoint = newest.expect("one").0 as u8;
    let payload = |record: u8| golden().records[usize::from(record)].head.layout().payload_at as u16;
    let patch = |what: u8, record: u8, at: u16, bytes: &[u8]| [&[what, record][..], &at.to_be_bytes(), bytes].concat();
    // Behind the facts of head, extents and run: entries of 24 bytes; the fourth is of a large record.
    let first_shard = payload(checkpoint) + 32 + 28 * 24 + 8;
    let large_shard = first_shard + 3 * 24;
    for (name, bytes) in [
        ("untouched", vec![]),
        ("torn-header", with(0, patch(0, 3, 100, &[1]))),
        ("torn-payload", with(0, patch(0, 5, payload(5) + 3, &[1]))),
        ("lost-record", with(0, patch(4, 6, 0, &[]))),
        ("stale-record", with(0, [2, 4, 9])),
        ("forged-record", with(7, [10, 4, 9])),
        ("forged-tombstone", with(7, patch(0, tombstone, payload(tombstone) + 8, &[1]))),
        ("forged-head-length", with(31, patch(0, checkpoint, first_shard + 14, &[0]))),
        ("forged-large-head-length", with(31, patch(0, checkpoint, large_shard + 14, &[1]))),
        ("forged-place", with(31, patch(16, checkpoint, large_shard + 8, &[1, 1]))),
        ("forged-payload-length", with(31, patch(16, checkpoint, large_shard + 16, &[1, 1]))),
        ("broken-checkpoint", with(0, patch(0, checkpoint, first_shard, &[9]))),
        ("label-copy", with(0, patch(1, 0, 50, &[1]))),
        ("anchor-copies", with(0, patch(11, 1, 30, &[1]))),
        ("forged-anchor", with(16, patch(11, 2, 32, &[255]))),
        ("anywhere", with(0, [3, 0, 17, 0, 9, 1])),
    ] {
        add("device", name, bytes.clone());
        add("salvage", name, bytes);
    }
}
