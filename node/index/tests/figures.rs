//! Figures, printed; not part of the ordinary run: `cargo test -p index --release --test figures -- --ignored --nocapture`.

use std::sync::Arc;
use std::time::Instant;

use base::PartitionId;
use bytes::Bytes;
use format::Space;
use index::model::{BucketRow, Command, Condition, ETag, ObjectMeta, ObjectRow};
use index::{ListRequest, Mirror, Partition, PartitionConfig, Policy, WITH_COMMAND};
use replica::testing::MemoryStore;

fn object(key: String) -> Command {
    let row = ObjectRow {
        size: 4096,
        etag: ETag::Whole([7; 16]),
        modified_ms: 5,
        meta: ObjectMeta { content_type: Some("application/octet-stream".into()), ..ObjectMeta::default() },
        checksum: None,
        layout: WITH_COMMAND,
    };
    Command::PutObject { bucket: "b".into(), key, row, condition: Condition::default(), missing: vec![] }
}

#[test]
#[ignore = "prints figures"]
fn what_the_index_costs_over_stores_in_memory() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let stores: Vec<_> = (1..=6).map(MemoryStore::new).collect();
        let mirrors = stores.iter().map(|s| Arc::clone(s) as Mirror).collect();
        let policy = Policy::for_tolerance(6, 2);
        let config = PartitionConfig { partition: PartitionId(1), policy, view_cache_bytes: 64 << 20 };
        let partition = Partition::open(config.clone(), mirrors, 0).await.unwrap();
        let row = BucketRow { owner: "me".into(), created_ms: 1, region: String::new() };
        partition.submit(Command::CreateBucket { name: "b".into(), row }, vec![]).await.unwrap();
        let data = Bytes::from(vec![1; 4096]);
        for clients in [1usize, 16, 64] {
            let count = if clients == 1 { 3_000 } else { 30_000 };
            let before = partition.status().journal.acked.0;
            let start = Instant::now();
            let tasks: Vec<_> = (0..clients)
                .map(|c| {
                    let (partition, data) = (partition.clone(), data.clone());
                    tokio::spawn(async move {
                        for i in 0..count / clients {
                            let key =
                                format!("{clients:03}/{:08x}/{c}/{i}", (i * 2_654_435_761 + c * 97) % 0xffff_ffff);
                            partition.submit(object(key), vec![data.clone()]).await.unwrap();
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            let seconds = start.elapsed().as_secs_f64();
            let batches = partition.status().journal.acked.0 - before;
            println!(
                "put 4 KiB, {clients} at once: {:.0}/s, {:.1} a batch",
                count as f64 / seconds,
                count as f64 / batches as f64
            );
        }
        let region = |s: &Arc<MemoryStore>| s.keys().iter().filter(|k| k.space == Space::Region).count();
        let start = Instant::now();
        partition.checkpoint().await.unwrap();
        println!("checkpoint: {:.0} ms, {} blocks a view", start.elapsed().as_secs_f64() * 1e3, region(&stores[0]));
        let snapshot = partition.snapshot().unwrap();
        let start = Instant::now();
        let mut found = 0;
        for i in 0..20_000usize {
            let key = format!("064/{:08x}/0/{i}", (i * 2_654_435_761) % 0xffff_ffff);
            found += usize::from(snapshot.head("b", &key).unwrap().is_some());
        }
        println!("head: {:.1} us ({found} found)", start.elapsed().as_secs_f64() * 1e6 / 20_000.0);
        let start = Instant::now();
        let page = snapshot.list("b", &ListRequest { limit: 1000, ..ListRequest::default() }).unwrap();
        println!("list of {}: {:.2} ms", page.objects.len(), start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        let rolled = ListRequest { delimiter: Some("/"), limit: 1000, ..ListRequest::default() };
        println!(
            "{} prefixes over {} keys: {:.2} ms",
            snapshot.list("b", &rolled).unwrap().prefixes.len(),
            snapshot.counters().unwrap().objects,
            start.elapsed().as_secs_f64() * 1e3
        );
        let images: Vec<_> = stores.iter().map(|s| s.image() as Mirror).collect();
        let start = Instant::now();
        let after = Partition::open(config.clone(), images, 0).await.unwrap();
        println!("opening after a checkpoint: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
        drop(after);
        let images: Vec<_> = stores[2..].iter().map(|s| s.image() as Mirror).collect();
        let start = Instant::now();
        drop(Partition::open(config, images, 2).await.unwrap());
        println!("opening with two mirrors lost, recruits filled: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    });
}
