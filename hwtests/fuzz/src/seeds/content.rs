//! What lies on the image, as the parts of a node would have written it.

use std::collections::BTreeMap;

use base::{Lsn, PartitionId, StripeId};
use bytes::Bytes;
use coding::Code;
use format::{
    Descriptor, FactBody, JournalFact, JournalHeader, PackEntry, ShardKey, encode_fact, encode_pack_directory,
};
use index::WITH_COMMAND;
use index::model::{
    BucketRow, Checksum, ChecksumAlgorithm, ChecksumKind, Command, Condition, ETag, Layout, ObjectMeta, ObjectRow,
    PartRow, StripeRun, UploadRow,
};
use shards::{Payload, StoreHandle};
use zerocopy::IntoBytes;

use crate::checks::index::frame;

const PARTITION: PartitionId = PartitionId(0);
const UPLOAD: u128 = 0x77;

/// Bytes that depend on their name.
pub(crate) fn body(name: &str, len: usize) -> Vec<u8> {
    let mut x = u64::from(crc32fast::hash(name.as_bytes())) | 1 << 40;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        })
        .collect()
}

/// Every object that was ever put: bucket, key, bytes.
pub(crate) fn objects() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    vec![
        ("bucket", "striped", body("striped", 1000)),
        ("bucket", "a/large", body("large", 80_000)),
        ("bucket", "inline", body("inline", 300)),
        ("bucket", "inline", body("newer", 200)),
        ("bucket", "gone", body("gone", 9)),
        ("bucket", "packed/1", body("packed/1", 100)),
        ("bucket", "packed/2", body("packed/2", 50)),
        ("bucket", "multi", [body("part 1", 700), body("part 2", 30)].concat()),
    ]
}

fn object(key: &str) -> Vec<u8> {
    objects().into_iter().find(|(_, name, _)| *name == key).expect("one of them").2
}

fn row(size: usize, layout: Layout, modified_ms: u64) -> ObjectRow {
    let checksum = Checksum {
        algorithm: ChecksumAlgorithm::Crc32,
        kind: ChecksumKind::FullObject,
        value: vec![1, 2, 3, 4],
        parts: None,
    };
    let user = [("colour".to_owned(), "blue".to_owned())].into();
    let meta = ObjectMeta { content_type: Some("text/plain".into()), user, ..ObjectMeta::default() };
    ObjectRow { size: size as u64, etag: ETag::Whole([7; 16]), modified_ms, meta, checksum: Some(checksum), layout }
}

fn put(key: &str, size: usize, layout: Layout, modified_ms: u64) -> Command {
    Command::PutObject {
        bucket: "bucket".into(),
        key: key.into(),
        row: row(size, layout, modified_ms),
        condition: Condition::default(),
        missing: vec![],
    }
}

fn stripes(first: u64, bytes: usize) -> Layout {
    let run = StripeRun { first: StripeId(first), count: 1, group: 0, stripe_bytes: bytes as u32, bytes: bytes as u64 };
    Layout::Stripes(vec![run])
}

fn part(number: u32, bytes: &[u8]) -> Command {
    let row = PartRow {
        size: bytes.len() as u64,
        md5: [number as u8; 16],
        checksum: None,
        modified_ms: 2_100,
        layout: WITH_COMMAND,
    };
    Command::PutPart { bucket: "bucket".into(), upload: UPLOAD, number, row, missing: vec![] }
}

/// The journal's batches, in order; each command with its data.
pub(crate) fn batches() -> Vec<Vec<(Command, Vec<u8>)>> {
    let bare = |command| (command, Vec::new());
    let owner = BucketRow { owner: "HFROOT".into(), created_ms: 1_000, region: "us-east-1".into() };
    let upload = UploadRow {
        key: "multi".into(),
        started_ms: 2_000,
        meta: ObjectMeta::default(),
        checksum: Some((ChecksumAlgorithm::Crc64Nvme, ChecksumKind::FullObject)),
        owner: "HFROOT".into(),
    };
    let condition = Condition { must_match: Some(vec!["*".into()]), ..Condition::default() };
    let (one, two) = (body("part 1", 700), body("part 2", 30));
    vec![
        vec![
            bare(Command::CreateBucket { name: "bucket".into(), row: owner }),
            bare(Command::ReserveStripes { below: 1 << 20 }),
        ],
        vec![
            bare(put("striped", 1000, stripes(1, 1000), 1_100)),
            (put("inline", 300, WITH_COMMAND, 1_200), body("inline", 300)),
            (put("gone", 9, WITH_COMMAND, 1_300), body("gone", 9)),
        ],
        vec![
            bare(Command::CreateUpload { bucket: "bucket".into(), upload: UPLOAD, row: upload }),
            (part(1, &one), one),
        ],
        vec![
            (part(2, &two), two),
            bare(Command::DeleteObject { bucket: "bucket".into(), key: "gone".into(), condition }),
            (put("inline", 200, WITH_COMMAND, 2_200), body("newer", 200)),
        ],
        vec![
            bare(put("a/large", 80_000, stripes(2, 80_000), 2_300)),
            bare(Command::CompleteUpload {
                bucket: "bucket".into(),
                key: "multi".into(),
                upload: UPLOAD,
                parts: vec![(1, [1; 16]), (2, [2; 16])],
                modified_ms: 2_400,
                checksum: None,
                condition: Condition::default(),
            }),
            bare(Command::GarbageFreed { ids: vec![1, 2] }),
        ],
    ]
}

/// A batch's body.
pub(crate) fn batch(commands: &[(Command, Vec<u8>)]) -> Vec<u8> {
    let encode = |(command, data): &(Command, Vec<u8>)| {
        postcard::to_stdvec(&(command, data.len() as u32)).expect("commands encode")
    };
    let encoded: Vec<u8> = commands.iter().flat_map(encode).collect();
    let data: Vec<u8> = commands.iter().flat_map(|(_, data)| data.clone()).collect();
    frame(commands.len() as u32, &encoded, &data)
}

/// What lies in the pack: its directory, then its objects.
pub(crate) fn pack() -> Vec<u8> {
    let entry = |key: &str, offset, len| PackEntry {
        bucket: "bucket".into(),
        key: key.into(),
        part: 0,
        modified_ms: 1_500,
        offset,
        len,
    };
    let directory = encode_pack_directory(&[entry("packed/1", 0, 100), entry("packed/2", 100, 50)]);
    [directory, object("packed/1"), object("packed/2")].concat()
}

/// A shard's descriptor.
pub(crate) fn descriptor(stripe: u64, slot: u8, bytes: usize, key: Option<&str>) -> Descriptor {
    Descriptor {
        stripe: StripeId(stripe),
        data_shards: 2,
        parity_shards: 1,
        slot,
        stripe_bytes: bytes as u32,
        stripe_number: 0,
        stripe_offset: 0,
        last: true,
        pack: key.is_none(),
        upload: u128::from(stripe) << 64 | 5,
        part: 0,
        modified_ms: 1_050,
        bucket: key.map_or("", |_| "bucket").into(),
        key: key.unwrap_or_default().into(),
    }
}

/// The journal fact of an epoch.
pub(crate) fn fact(partition: PartitionId) -> Vec<u8> {
    let body = FactBody { number: 1 << 32, lsn: Lsn(1), members: vec![crate::image::DEVICE] };
    encode_fact(JournalFact::Epoch, partition, &body)
}

struct Writer<'a> {
    handle: &'a StoreHandle,
    written: &'a mut BTreeMap<ShardKey, Vec<Vec<u8>>>,
}

impl Writer<'_> {
    async fn put(&mut self, key: ShardKey, descriptor: Vec<u8>, payload: Vec<u8>) {
        self.written.entry(key).or_default().push(payload.clone());
        let put = self.handle.put(key, descriptor.into(), Payload::Parts(vec![Bytes::from(payload)])).await;
        put.expect("a fresh store takes records");
    }

    async fn stripe(&mut self, stripe: u64, data: &[u8], key: Option<&str>) {
        let code = Code::new(2, 1).expect("a code");
        let len = code.shard_len(data.len());
        let mut padded = data.to_vec();
        padded.resize(2 * len, 0);
        let mut parity = vec![0; len];
        code.encode(&[&padded[..len], &padded[len..]], &mut [&mut parity]).expect("it encodes");
        for (slot, shard) in (0u8..).zip([&padded[..len], &padded[len..], &parity]) {
            let about = descriptor(stripe, slot, data.len(), key).encode();
            self.put(ShardKey::stripe(StripeId(stripe), slot), about, shard.to_vec()).await;
        }
    }
}

/// Fills a new store: half of it before a checkpoint, half behind it.
pub(crate) async fn fill(handle: &StoreHandle, written: &mut BTreeMap<ShardKey, Vec<Vec<u8>>>) {
    let mut writer = Writer { handle, written };
    writer.put(ShardKey::fact(JournalFact::Epoch.kind(), 0), vec![], fact(PARTITION)).await;
    writer.stripe(1, &object("striped"), Some("striped")).await;
    writer.stripe(2, &object("a/large"), Some("a/large")).await;
    writer.stripe(9, b"an object that was given up", Some("given up")).await;
    let mut head = b"HFRG\x01\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    head.extend(8192u64.to_le_bytes());
    writer.put(ShardKey::region(0, 0), vec![], head).await;
    writer.put(ShardKey::region(0, 1), vec![], body("no database", 4096)).await;
    let mut previous = 0;
    for (lsn, commands) in (1..).zip(batches()) {
        if lsn == 4 {
            handle.checkpoint().await.expect("a checkpoint is written");
        }
        let body = batch(&commands);
        let (bytes, crc) = (body.len() as u32, crc32fast::hash(&body));
        let header = JournalHeader::new(PARTITION, 1 << 32, Lsn(lsn), previous, bytes, crc);
        previous = header.header_crc.get();
        writer.put(ShardKey::journal(PARTITION, Lsn(lsn)), vec![], [header.as_bytes(), &body].concat()).await;
    }
    writer.stripe(3, &pack(), None).await;
    writer.put(ShardKey::region(0, 2), vec![], body("nor this", 4096)).await;
    writer.put(ShardKey::region(0, 1), vec![], body("replaced", 4096)).await;
    let gone = (0..3).map(|slot| ShardKey::stripe(StripeId(9), slot)).collect();
    handle.delete(gone).await.expect("deletes work");
    handle.checkpoint().await.expect("a checkpoint is written");
    writer.stripe(4, &body("never completed", 500), Some("uncertain")).await;
    writer.put(ShardKey::fact(JournalFact::Epoch.kind(), 0), vec![], fact(PARTITION)).await;
    handle.delete(vec![ShardKey::region(0, 2)]).await.expect("deletes work");
}
