//! The messages between a partition and its callers on other hosts: what goes in comes out; whatever else comes in,
//! decoders neither panic nor allocate by an unchecked length. And every question is answered over the wire as on
//! the spot.

use std::alloc::System;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base::{Lsn, PartitionId, StripeId};
use bytes::Bytes;
use index::model::{
    BucketRow, Checksum, ChecksumAlgorithm, ChecksumKind, Command, Condition, ETag, GarbageRow, Layout, MissingShard,
    ObjectMeta, ObjectRow, Outcome, PartLayout, PartRow, Refusal, StripeRun, UploadRow,
};
use index::{
    ANSWER_BYTES_MAX, Answer, COMMAND_BYTES_MAX, Counters, IndexError, ListPage, Malformed, Mirror, ObjectHead,
    PackWish, Partition, PartitionClient, PartitionConfig, Policy, Question, RunsFrom, RunsPage, SmallObject,
    WITH_COMMAND, answer,
};
use proptest::prelude::*;
use replica::testing::MemoryStore;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// As for batches (`decoders.rs`): rows are up to 64 times their encoding, in lists that double.
const FACTOR: usize = 128;
/// Serde makes room for 1 MiB of a list before its first element, and lists nest three deep here.
const CONSTANT: usize = 6 << 20;

/// Allocations are counted for the whole process: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(first: u64) -> StripeRun {
    StripeRun { first: StripeId(first), count: 2, group: 1, stripe_bytes: 4 << 20, bytes: 5 << 20 }
}

fn checksum() -> Option<Checksum> {
    let (algorithm, kind) = (ChecksumAlgorithm::Crc64Nvme, ChecksumKind::FullObject);
    Some(Checksum { algorithm, kind, value: vec![7; 8], parts: Some(3) })
}

fn meta() -> ObjectMeta {
    let user = [("colour".to_owned(), "blue".to_owned())].into();
    ObjectMeta { content_type: Some("text/plain".into()), expires: Some("never".into()), user, ..ObjectMeta::default() }
}

fn row(layout: Layout) -> ObjectRow {
    let etag = ETag::Parts([7; 16], 3);
    ObjectRow { size: 5 << 20, etag, modified_ms: 1_000, meta: meta(), checksum: checksum(), layout }
}

fn parted() -> Layout {
    let part = |number, layout| PartLayout { number, size: 5, layout, checksum: checksum() };
    let packed = Layout::Packed { stripe: StripeId(9), group: 2, pack_bytes: 4096, offset: 77 };
    Layout::Parts(vec![part(1, Layout::Stripes(vec![run(5), run(90)])), part(2, packed)])
}

fn missing() -> MissingShard {
    MissingShard { stripe: StripeId(5), slot: 2, group: 1, stripe_bytes: 4 << 20 }
}

fn commands() -> Vec<Command> {
    let (bucket, key) = ("bucket".to_owned(), "a/key".to_owned());
    let condition = Condition { must_match: Some(vec!["*".into()]), ..Condition::default() };
    let put = Layout::Stripes(vec![run(5)]);
    let part = PartRow { size: 3, md5: [1; 16], checksum: checksum(), modified_ms: 5, layout: WITH_COMMAND };
    let parts = vec![(1, [1; 16]), (2, [2; 16])];
    vec![
        Command::PutObject {
            bucket: bucket.clone(),
            key: key.clone(),
            row: row(put),
            condition,
            missing: vec![missing()],
        },
        Command::PutPart { bucket: bucket.clone(), upload: 7, number: 1, row: part, missing: vec![] },
        Command::CompleteUpload {
            bucket,
            key,
            upload: 7,
            parts,
            modified_ms: 9,
            checksum: checksum(),
            condition: Condition::default(),
        },
        Command::TakeStripes { count: 1 << 20 },
        Command::FenceStripes { below: 99 },
    ]
}

fn outcomes() -> Vec<Outcome> {
    let refused = |refusal| Outcome::Refused(refusal);
    vec![
        Outcome::Done,
        Outcome::Put(Box::new(row(parted()))),
        Outcome::Deleted { existed: true },
        Outcome::Packed { moved: 9 },
        Outcome::Stripes { first: StripeId(77) },
        refused(Refusal::BucketExists { owner: "me".into() }),
        refused(Refusal::PartTooSmall { number: 3, size: 9 }),
        refused(Refusal::StaleStripes),
    ]
}

fn questions() -> Vec<Question> {
    let (bucket, key) = ("bucket".to_owned(), "a/key".to_owned());
    let wish = PackWish { room_bytes: 4 << 20, objects_max: 4096, lag_max: 8192, repack_percent: 50, now: true };
    vec![
        Question::Bucket { name: bucket.clone() },
        Question::Buckets { after: Some("a".into()), limit: 10 },
        Question::Buckets { after: None, limit: u32::MAX },
        Question::Head { bucket: bucket.clone(), key: key.clone() },
        Question::Object { bucket: bucket.clone(), key: key.clone() },
        Question::Object { bucket: "none".into(), key: key.clone() },
        Question::List {
            bucket: bucket.clone(),
            prefix: String::new(),
            delimiter: Some("/".into()),
            after: None,
            limit: 9,
        },
        Question::List {
            bucket: bucket.clone(),
            prefix: "k".into(),
            delimiter: None,
            after: Some("k2".into()),
            limit: 2,
        },
        Question::List { bucket: "none".into(), prefix: String::new(), delimiter: None, after: None, limit: 9 },
        Question::Upload { upload: 7 },
        Question::Upload { upload: 8 },
        Question::Uploads { bucket: bucket.clone(), prefix: "a".into(), after: Some((key, 1)), limit: 5 },
        Question::Parts { upload: 7, after: 0, limit: 1 },
        Question::Counters,
        Question::MissingShards { after: Some((StripeId(1), 200)), limit: u32::MAX },
        Question::Garbage { from: 0, limit: 99 },
        Question::ToPack(wish),
        Question::StripeRuns { from: RunsFrom::default(), limit: 2 },
        Question::StripeRuns { from: RunsFrom::Objects(Some(b"bucket\0k".to_vec())), limit: 99 },
    ]
}

fn answers() -> Vec<Answer> {
    let head = ObjectHead {
        key: "a/key".into(),
        size: 9,
        etag: ETag::Whole([3; 16]),
        modified_ms: 4,
        meta: meta(),
        checksum: checksum(),
    };
    let bucket = BucketRow { owner: "me".into(), created_ms: 1, region: "r".into() };
    let upload = UploadRow { key: "k".into(), started_ms: 3, meta: meta(), checksum: None, owner: "me".into() };
    let part = PartRow { size: 3, md5: [1; 16], checksum: None, modified_ms: 5, layout: Layout::Stripes(vec![run(3)]) };
    let from = Layout::Journal { lsn: Lsn(4), offset: 5 };
    let small = SmallObject { from, size: 9, bucket: "bucket".into(), key: "a/key".into(), part: Some(2) };
    vec![
        Answer::Bucket(Some(bucket.clone())),
        Answer::Buckets(vec![("b".into(), bucket)], true),
        Answer::Head { bucket: true, head: Some(head.clone()) },
        Answer::Object { bucket: true, row: Some(Box::new(row(parted()))) },
        Answer::List(Some(ListPage { objects: vec![head], prefixes: vec!["p/".into()], next: Some("p/".into()) })),
        Answer::Upload(Some(("bucket".into(), upload.clone()))),
        Answer::Uploads { bucket: true, uploads: vec![(1, upload)], more: false },
        Answer::Parts(vec![(1, part)], true),
        Answer::Counters(Counters { applied: Lsn(8), stripes_below: 3, stripes_fence: 2, objects: 1, object_bytes: 9 }),
        Answer::MissingShards(vec![missing()]),
        Answer::Garbage(vec![GarbageRow { id: 3, runs: vec![run(5), run(9)] }]),
        Answer::ToPack(vec![(small, 77)]),
        Answer::StripeRuns(RunsPage { runs: vec![run(1)], next: Some(RunsFrom::Parts(Some((7, 3)))) }),
    ]
}

/// Every message as bytes.
fn encoded() -> Vec<Vec<u8>> {
    let commands = commands().into_iter().map(|m| m.encode());
    let outcomes = outcomes().into_iter().map(|m| m.encode());
    let questions = questions().into_iter().map(|m| m.encode());
    commands.chain(outcomes).chain(questions).chain(answers().into_iter().map(|m| m.encode())).collect()
}

/// Decodes bytes as everything; what is accepted encodes to what decodes to the same again.
fn decode_all(bytes: &[u8]) {
    let region = Region::new(ALLOCATOR);
    let (command, outcome) = (Command::decode(bytes), Outcome::decode(bytes));
    let (question, answer) = (Question::decode(bytes), Answer::decode(bytes));
    let error = IndexError::decode(bytes);
    let allocated = region.change().bytes_allocated;
    assert!(allocated <= 5 * (FACTOR * bytes.len() + CONSTANT), "{allocated} bytes for {}", bytes.len());
    if let Ok(command) = command {
        assert_eq!(Command::decode(&command.encode()), Ok(command));
    }
    if let Ok(outcome) = outcome {
        assert_eq!(Outcome::decode(&outcome.encode()), Ok(outcome));
    }
    if let Ok(question) = question {
        assert_eq!(Question::decode(&question.encode()), Ok(question));
    }
    if let Ok(answer) = answer {
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    }
    assert!(matches!(error, IndexError::Remote { .. } | IndexError::Malformed(_)));
}

#[test]
fn what_goes_in_comes_out() {
    let _alone = alone();
    for command in commands() {
        assert_eq!(Command::decode(&command.encode()), Ok(command));
    }
    for outcome in outcomes() {
        assert_eq!(Outcome::decode(&outcome.encode()), Ok(outcome));
    }
    for question in questions() {
        assert_eq!(Question::decode(&question.encode()), Ok(question));
    }
    for answer in answers() {
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    }
}

#[test]
fn an_error_stays_what_it_is_to_the_caller() {
    let _alone = alone();
    let errors = [
        IndexError::Closed,
        IndexError::Invalid("no"),
        IndexError::NoView { reason: "é".repeat(5000) },
        IndexError::Journal(replica::JournalError::Busy),
        IndexError::Journal(replica::JournalError::Unknown),
        IndexError::Journal(replica::JournalError::TooFewCopies { live: 1, needed: 2 }),
        IndexError::Unreachable { reason: "down".into() },
        IndexError::Unanswered { reason: "cut".into() },
    ];
    for error in errors {
        let there = IndexError::decode(&error.encode());
        assert!(matches!(there, IndexError::Remote { .. }), "{there:?}");
        assert_eq!(there.nature(), error.nature(), "{error}");
        assert!(error.to_string().starts_with(&there.to_string()), "{error}");
        // And over one more host.
        assert_eq!(IndexError::decode(&there.encode()), there);
    }
    let lost = IndexError::Unanswered { reason: String::new() };
    assert!(lost.is_outcome_unknown() && lost.is_unavailable());
    let unsent = IndexError::Unreachable { reason: String::new() };
    assert!(!unsent.is_outcome_unknown() && unsent.is_unavailable());
}

#[test]
fn what_is_no_message_is_refused_by_name() {
    let _alone = alone();
    assert_eq!(Question::decode(&[]), Err(Malformed("it is empty")));
    assert_eq!(Question::decode(&[0, 8]), Err(Malformed("it has a retired format")));
    assert_eq!(Question::decode(&[2, 8]), Err(Malformed("it has a newer format")));
    let mut more = Question::Counters.encode();
    more.push(0);
    assert_eq!(Question::decode(&more), Err(Malformed("bytes after its end")));
    assert_eq!(Command::decode(&vec![1; COMMAND_BYTES_MAX + 1]), Err(Malformed("it is too long")));
    assert_eq!(Answer::decode(&vec![1; ANSWER_BYTES_MAX + 1]), Err(Malformed("it is too long")));
}

#[test]
fn arbitrary_bytes() {
    let _alone = alone();
    let bytes = prop::collection::vec(prop_oneof![0u8..16, any::<u8>()], 0..200);
    proptest!(ProptestConfig::with_cases(2000), |(mut bytes in bytes)| {
        decode_all(&bytes);
        bytes.insert(0, 1);
        decode_all(&bytes);
    });
}

#[test]
fn damaged_messages() {
    let _alone = alone();
    let all = encoded();
    let bits = prop::collection::vec(any::<usize>(), 0..4);
    let more = prop::collection::vec(any::<u8>(), 0..20);
    let damage = (0..all.len(), bits, any::<usize>(), more);
    proptest!(ProptestConfig::with_cases(3000), |((which, bits, cut, more) in damage)| {
        let mut bytes = all[which].clone();
        for bit in bits {
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        decode_all(&bytes);
        bytes.truncate(cut % (bytes.len() + 1));
        decode_all(&bytes);
        bytes.extend(more);
        decode_all(&bytes);
    });
}

/// A few bytes that promise a list of 2^32 elements, at every place where a list may stand.
#[test]
fn promised_lengths_are_not_believed() {
    let _alone = alone();
    for good in encoded() {
        for at in 1..good.len() {
            decode_all(&[&good[..at], &[0xff, 0xff, 0xff, 0xff, 0x0f], &good[at + 1..]].concat());
        }
    }
}

/// A partition with a bucket, small and large objects, an upload with parts, garbage and a missing shard.
async fn filled() -> Partition {
    let stores = (1..=3).map(|n| MemoryStore::new(n) as Mirror).collect();
    let policy = Policy::for_tolerance(3, 1);
    let config = PartitionConfig { partition: PartitionId(1), policy, view_cache_bytes: 1 << 20 };
    let partition = Partition::open(config, stores, 0).await.unwrap();
    let bucket = BucketRow { owner: "me".into(), created_ms: 1, region: "r".into() };
    let mut all = vec![(Command::CreateBucket { name: "bucket".into(), row: bucket }, Bytes::new())];
    let mut put = |key: &str, first: Option<u64>, missing| {
        let layout = first.map_or(WITH_COMMAND, |first| Layout::Stripes(vec![run(first)]));
        let row = ObjectRow { size: if first.is_some() { 5 << 20 } else { 5 }, ..row(layout) };
        let (bucket, key, condition) = ("bucket".to_owned(), key.to_owned(), Condition::default());
        let data = if first.is_some() { Bytes::new() } else { Bytes::from_static(b"small") };
        all.push((Command::PutObject { bucket, key, row, condition, missing }, data));
    };
    put("a/key", Some(10), vec![]);
    put("a/key", Some(20), vec![missing()]);
    for n in 0..5 {
        put(&format!("k{n}"), (n % 2 == 0).then_some(100 + n * 10), vec![]);
    }
    let upload = UploadRow { key: "a/z".into(), started_ms: 3, meta: meta(), checksum: None, owner: "me".into() };
    all.push((Command::CreateUpload { bucket: "bucket".into(), upload: 7, row: upload }, Bytes::new()));
    for number in 1..3 {
        let layout = Layout::Stripes(vec![run(200 + u64::from(number) * 10)]);
        let row = PartRow { size: 5 << 20, md5: [1; 16], checksum: None, modified_ms: 5, layout };
        let missing = vec![];
        all.push((Command::PutPart { bucket: "bucket".into(), upload: 7, number, row, missing }, Bytes::new()));
    }
    for (command, data) in all {
        let outcome = partition.submit(command.clone(), vec![data]).await.unwrap();
        assert!(!matches!(outcome, Outcome::Refused(_)), "{command:?}: {outcome:?}");
    }
    partition
}

#[tokio::test(flavor = "multi_thread")]
async fn every_question_is_answered_over_the_wire_as_on_the_spot() {
    let partition = filled().await;
    let client: &dyn PartitionClient = &partition;
    for question in questions() {
        let sent = Question::decode(&question.encode()).unwrap();
        let here = answer(&partition.snapshot().unwrap(), &question).unwrap();
        let there = Answer::decode(&client.ask(sent).await.unwrap().encode()).unwrap();
        assert_eq!(there, here, "{question:?}");
    }
    let (bucket, row) = client.object("bucket", "a/key").await.unwrap();
    assert!(bucket && row.is_some_and(|row| row.layout == Layout::Stripes(vec![run(20)])));
    assert_eq!(client.object("none", "a/key").await.unwrap(), (false, None));
    assert_eq!(client.missing_shards(None, 9).await.unwrap(), vec![missing()]);
    assert_eq!(client.garbage(0, 9).await.unwrap()[0].runs, vec![run(10)]);
    assert_eq!(client.upload(7).await.unwrap().unwrap().0, "bucket");
    assert_eq!(client.parts(7, 1, 9).await.unwrap().0.len(), 1);
    let wish = PackWish { room_bytes: 4 << 20, objects_max: 4096, lag_max: 8192, repack_percent: 50, now: false };
    assert_eq!(client.to_pack(wish).await.unwrap(), vec![], "too little");
    let small = client.to_pack(PackWish { now: true, ..wish }).await.unwrap();
    assert_eq!(small.iter().map(|(s, _)| s.key.as_str()).collect::<Vec<_>>(), ["k1", "k3"]);
}
