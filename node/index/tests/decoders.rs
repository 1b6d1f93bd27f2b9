//! The decoder of a journal record's body: whatever it is given, it neither panics nor allocates by an
//! unchecked length, and data it names lies in the record.

use std::alloc::System;
use std::sync::{Mutex, MutexGuard, PoisonError};

use index::model::{
    BucketRow, Checksum, ChecksumAlgorithm, ChecksumKind, Command, Condition, ETag, Layout, ObjectMeta, ObjectRow,
    PartRow, StripeRun,
};
use index::{LoggedCommand, WITH_COMMAND, decode_batch};
use proptest::prelude::*;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes allocated in all for each byte of input: rows are up to 64 times their encoding, in lists that double.
const FACTOR: usize = 128;
/// And besides: serde makes room for 1 MiB of a list before its first element, and lists nest two deep.
const CONSTANT: usize = 4 << 20;

/// Where a body starts in its record.
const AT: u32 = 64;

/// Allocations are counted for the whole process: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn body(count: u32, commands: &[u8], data: &[u8]) -> Vec<u8> {
    let mut body = vec![1, 0, 0, 0];
    body.extend((commands.len() as u32).to_le_bytes());
    body.extend(count.to_le_bytes());
    body.extend([0; 4]);
    body.extend_from_slice(commands);
    body.extend_from_slice(data);
    body
}

fn encode(commands: &[(Command, Vec<u8>)]) -> Vec<u8> {
    let encoded: Vec<u8> = commands
        .iter()
        .flat_map(|(command, data)| postcard::to_stdvec(&(command, data.len() as u32)).expect("commands encode"))
        .collect();
    body(commands.len() as u32, &encoded, &commands.iter().flat_map(|(_, data)| data.clone()).collect::<Vec<_>>())
}

fn row(size: u64, layout: Layout) -> ObjectRow {
    let user = [("colour".to_owned(), "blue".to_owned())].into();
    let checksum = Some(Checksum {
        algorithm: ChecksumAlgorithm::Sha1,
        kind: ChecksumKind::Composite,
        value: vec![7; 20],
        parts: Some(3),
    });
    let meta = ObjectMeta { expires: Some("never".into()), user, ..ObjectMeta::default() };
    ObjectRow { size, etag: ETag::Parts([7; 16], 3), modified_ms: 1_000, meta, checksum, layout }
}

/// Commands of the kinds with the deepest contents, some with data.
fn commands(data: usize) -> Vec<(Command, Vec<u8>)> {
    let run = StripeRun { first: base::StripeId(5), count: 2, group: 1, stripe_bytes: 4 << 20, bytes: 5 << 20 };
    let (bucket, key) = ("bucket".to_owned(), "a/key".to_owned());
    let condition = Condition { must_match: Some(vec!["*".into()]), ..Condition::default() };
    let put = |layout, size| Command::PutObject {
        bucket: bucket.clone(),
        key: key.clone(),
        row: row(size, layout),
        condition: condition.clone(),
        missing: vec![],
    };
    let part = PartRow { size: 3, md5: [1; 16], checksum: None, modified_ms: 5, layout: WITH_COMMAND };
    let owner = BucketRow { owner: "HFROOT".into(), created_ms: 1, region: "r".into() };
    vec![
        (Command::CreateBucket { name: bucket.clone(), row: owner }, vec![]),
        (put(Layout::Stripes(vec![run]), 5 << 20), vec![]),
        (put(WITH_COMMAND, data as u64), vec![9; data]),
        (Command::PutPart { bucket: bucket.clone(), upload: 7, number: 1, row: part, missing: vec![] }, vec![1, 2, 3]),
        (
            Command::CompleteUpload {
                bucket: bucket.clone(),
                key: key.clone(),
                upload: 7,
                parts: vec![(1, [1; 16]), (2, [2; 16])],
                modified_ms: 9,
                checksum: None,
                condition: condition.clone(),
            },
            vec![],
        ),
    ]
}

/// The laws; whether the body was accepted.
fn check(body: &[u8]) -> bool {
    let region = Region::new(ALLOCATOR);
    let decoded = decode_batch(body, AT);
    let allocated = region.change().bytes_allocated;
    assert!(allocated <= FACTOR * body.len() + CONSTANT, "{allocated} bytes for {}", body.len());
    let Ok(commands) = decoded else { return false };
    let end = AT + body.len() as u32;
    let mut at = commands.first().map_or(end, |first| first.data.start);
    for LoggedCommand { data, .. } in &commands {
        assert!(data.start == at && data.start <= data.end, "data lies in the commands' order");
        at = data.end;
    }
    assert!(at == end, "data ends with its record");
    true
}

#[test]
fn true_batches_are_accepted() {
    let _alone = alone();
    for data in [0, 1, 100_000] {
        assert!(check(&encode(&commands(data))), "{data} bytes");
    }
    assert!(check(&body(0, &[], &[])), "an empty batch");
}

#[test]
fn arbitrary_commands_in_a_right_frame() {
    let _alone = alone();
    let commands = prop::collection::vec(prop_oneof![0u8..16, any::<u8>()], 0..300);
    proptest!(ProptestConfig::with_cases(2000), |(count in 0u32..6, commands in commands)| {
        check(&body(count, &commands, &[]));
    });
}

#[test]
fn damaged_batches() {
    let _alone = alone();
    let bits = prop::collection::vec(any::<usize>(), 0..4);
    let more = prop::collection::vec(any::<u8>(), 0..20);
    let damage = (0usize..50, bits, any::<usize>(), more);
    proptest!(ProptestConfig::with_cases(2000), |((data, bits, cut, more) in damage)| {
        let mut bytes = encode(&commands(data));
        for bit in bits {
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        check(&bytes);
        bytes.truncate(cut % (bytes.len() + 1));
        check(&bytes);
        bytes.extend(more);
        check(&bytes);
    });
}

/// A few bytes that promise a list of 2^32 elements, at every place where a list may stand.
#[test]
fn promised_lengths_are_not_believed() {
    let _alone = alone();
    let good = encode(&commands(3));
    let frame = 16;
    let commands_bytes = u32::from_le_bytes([good[4], good[5], good[6], good[7]]) as usize;
    for at in frame..frame + commands_bytes {
        let forged = [&good[frame..at], &[0xff, 0xff, 0xff, 0xff, 0x0f], &good[at + 1..]].concat();
        check(&body(5, &forged, &[]));
    }
}
