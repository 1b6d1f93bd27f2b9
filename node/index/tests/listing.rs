//! Listings against a filter over all keys, for every small request.

use std::collections::BTreeSet;

use base::{PartitionId, SeededEntropy};
use bytes::Bytes;
use index::model::{BucketRow, Command, Condition, ETag, ObjectMeta, ObjectRow};
use index::{ListPage, ListRequest, Mirror, Partition, PartitionConfig, Policy, WITH_COMMAND};
use replica::testing::MemoryStore;

async fn partition() -> Partition {
    let stores = (1..=3).map(|n| MemoryStore::new(n) as Mirror).collect();
    let config =
        PartitionConfig { partition: PartitionId(0), policy: Policy::for_tolerance(3, 1), view_cache_bytes: 1 << 20 };
    Partition::open(config, stores, 0).await.unwrap()
}

async fn fill(partition: &Partition, bucket: &str, keys: &BTreeSet<String>) {
    let row = BucketRow { owner: "me".into(), created_ms: 1, region: String::new() };
    partition.submit(Command::CreateBucket { name: bucket.into(), row }, vec![]).await.unwrap();
    let puts = keys.iter().map(|key| {
        let row = ObjectRow {
            size: 1,
            etag: ETag::Whole([0; 16]),
            modified_ms: 1,
            meta: ObjectMeta::default(),
            checksum: None,
            layout: WITH_COMMAND,
        };
        let (bucket, key, condition) = (bucket.to_owned(), key.clone(), Condition::default());
        let command = Command::PutObject { bucket, key, row, condition, missing: vec![] };
        partition.submit(command, vec![Bytes::from_static(b"x")])
    });
    for outcome in futures::future::join_all(puts).await {
        outcome.unwrap();
    }
}

/// What the words of the interface say, over all keys.
fn naive(keys: &BTreeSet<String>, request: &ListRequest<'_>) -> (Vec<String>, Vec<String>, Option<String>) {
    let mut items = BTreeSet::new();
    for key in keys.iter().filter(|key| key.starts_with(request.prefix)) {
        let rest = &key[request.prefix.len()..];
        let rolled = request.delimiter.filter(|d| !d.is_empty()).and_then(|d| rest.find(d).map(|at| at + d.len()));
        let item = rolled.map_or(key.clone(), |len| key[..request.prefix.len() + len].to_owned());
        if request.after.is_none_or(|after| item.as_str() > after) {
            items.insert((item, rolled.is_some()));
        }
    }
    let page: Vec<_> = items.iter().take(request.limit).cloned().collect();
    let next = if items.len() > request.limit { page.last().map(|(item, _)| item.clone()) } else { None };
    let (prefixes, objects): (Vec<_>, Vec<_>) = page.into_iter().partition(|(_, rolled)| *rolled);
    let names = |items: Vec<(String, bool)>| items.into_iter().map(|(item, _)| item).collect();
    (names(objects), names(prefixes), next)
}

fn parts(page: ListPage) -> (Vec<String>, Vec<String>, Option<String>) {
    (page.objects.into_iter().map(|o| o.key).collect(), page.prefixes, page.next)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_small_request_agrees_with_a_filter() {
    let partition = partition().await;
    let entropy = SeededEntropy::new(5);
    let letters = ["a", "b", "/", "//", "é", "\u{10ffff}", "ab"];
    let mut keys = BTreeSet::new();
    while keys.len() < 120 {
        let len = 1 + entropy.below(5);
        keys.insert((0..len).map(|_| letters[entropy.below(letters.len() as u64) as usize]).collect::<String>());
    }
    fill(&partition, "b", &keys).await;
    // Neighbours in the table that no listing of `b` may show.
    fill(&partition, "a", &["a", "zz", "\u{10ffff}"].map(String::from).into()).await;
    fill(&partition, "b-", &["", "a/a", "\u{10ffff}"].map(String::from).into()).await;
    let snapshot = partition.snapshot().unwrap();
    let texts = ["", "a", "a/", "b", "/", "//", "é", "ab", "a/b", "\u{10ffff}", "\u{10ffff}/", "zz"];
    let mut requests = 0;
    for prefix in texts {
        for delimiter in [None, Some(""), Some("/"), Some("//"), Some("a"), Some("\u{10ffff}")] {
            for after in texts.iter().map(|t| Some(*t)).chain([None]) {
                for limit in [0, 1, 2, 7, 1000] {
                    let request = ListRequest { prefix, delimiter, after, limit };
                    let page = snapshot.list("b", &request).unwrap();
                    assert_eq!(parts(page), naive(&keys, &request), "{request:?}");
                    requests += 1;
                }
            }
        }
    }
    assert_eq!(requests, 12 * 6 * 13 * 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_put_together_are_the_whole() {
    let partition = partition().await;
    let keys: BTreeSet<String> = (0..40)
        .flat_map(|i| (0..3).map(move |j| format!("{}/{i:02}/{j}", if i % 2 == 0 { "x" } else { "y" })))
        .collect();
    fill(&partition, "b", &keys).await;
    for (prefix, delimiter) in [("", None), ("", Some("/")), ("x/", Some("/")), ("x/0", None), ("y", Some("/"))] {
        let all = ListRequest { prefix, delimiter, after: None, limit: 10_000 };
        let whole = parts(partition.read(|s| s.list("b", &all)).unwrap());
        for limit in 1..8 {
            let (mut objects, mut prefixes, mut after) = (Vec::new(), Vec::new(), None);
            loop {
                let request = ListRequest { after: after.as_deref(), limit, ..all };
                let (o, p, next) = parts(partition.read(|s| s.list("b", &request)).unwrap());
                assert!(o.len() + p.len() == limit || next.is_none());
                objects.extend(o);
                prefixes.extend(p);
                match next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
            assert_eq!((&objects, &prefixes), (&whole.0, &whole.1), "{prefix:?} {delimiter:?} by {limit}");
        }
    }
}
