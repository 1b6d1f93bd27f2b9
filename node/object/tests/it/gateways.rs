//! Several nodes over one partition and one set of devices: each gives the same answers, and none undoes another's
//! work.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use object::api::{Condition, ObjectApi, ObjectError, ObjectMeta};
use tokio::time::sleep;

use crate::fake::{MS, Mood, Rig, collect_all_garbage, get, put};
use crate::rack::{collect, pattern};
use crate::views::Sent;

const LEN: usize = 300_000;

#[tokio::test(start_paused = true)]
async fn any_node_gives_the_same_answers() {
    let rig = Rig::new(9).await;
    let mut nodes = vec![rig.objects.clone()];
    for _ in 0..3 {
        nodes.push(rig.another().await.0);
    }
    for n in 0..40u64 {
        let writer = &nodes[n as usize % 4];
        put(writer, &format!("k{}", n % 25), &pattern(n, 1000 + n as usize * 9000)).await.expect("put");
    }
    for (at, node) in nodes.iter().enumerate() {
        for k in 0..25u64 {
            let n = if k < 15 { k + 25 } else { k };
            let got = get(node, &format!("k{k}")).await.expect("get");
            assert!(got == pattern(n, 1000 + n as usize * 9000), "k{k} at node {at}");
        }
    }
    // No id was given out twice: what was overwritten is freed, and what is there stays whole.
    for node in &nodes {
        collect_all_garbage(node).await;
    }
    assert!(nodes[0].stats().stripes_freed.load(Ordering::Relaxed) > 0);
    while nodes[0].pack(true).await.expect("pack").is_some() {}
    assert_eq!(nodes[1].pack(true).await, Ok(None), "only the node beside the rows packs");
    for k in 0..25u64 {
        let n = if k < 15 { k + 25 } else { k };
        assert!(get(&nodes[3], &format!("k{k}")).await.expect("get") == pattern(n, 1000 + n as usize * 9000), "k{k}");
    }
    assert_eq!(rig.objects.sweep_orphans().await.expect("sweep"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_takes_nothing_that_a_slow_upload_elsewhere_will_need() {
    let rig = Rig::new(6).await;
    let (node, _) = rig.another().await;
    put(&node, "k", &pattern(1, LEN)).await.expect("put");
    // A crash left shards that nothing refers to.
    rig.stores[0].records.lock().unwrap().insert(format::ShardKey::stripe(base::StripeId(9999), 0), Default::default());
    let (tx, mut body) = Sent::new();
    let slow = node.clone();
    let under_way = tokio::spawn(async move {
        slow.put("bucket", "slow", ObjectMeta::default(), Condition::default(), &mut body).await
    });
    let bytes = pattern(2, 5_000_000);
    tx.send(Bytes::copy_from_slice(&bytes[..4_500_000])).await.expect("taken");
    sleep(100 * MS).await;
    assert!(rig.shards() > 7, "a stripe of it is written");
    // The partition's node starts again, twice, and sweeps: the upload's stripes are older than either start.
    for swept in [7, 0] {
        let owner = rig.restarted(Duration::ZERO).await;
        assert_eq!(owner.sweep_orphans().await.expect("sweep"), swept);
    }
    tx.send(Bytes::copy_from_slice(&bytes[4_500_000..])).await.expect("taken");
    drop(tx);
    let refused = under_way.await.expect("ends").expect_err("its stripes are behind the fence");
    assert_eq!(refused, ObjectError::SlowDown, "and the client may send it again");
    put(&node, "slow", &bytes).await.expect("again");
    assert!(get(&rig.objects, "slow").await.expect("get") == bytes);
    assert!(get(&node, "k").await.expect("get") == pattern(1, LEN));
    // What the refused upload still wrote is garbage, and no more.
    let owner = rig.restarted(Duration::ZERO).await;
    collect_all_garbage(&owner).await;
    collect_all_garbage(&node).await;
    assert_eq!(rig.shards(), 6 + 12);
}

#[tokio::test(start_paused = true)]
async fn readers_on_other_hosts_have_the_time_that_they_are_given() {
    let rig = Rig::new(6).await;
    let owner = rig.restarted(Duration::from_secs(300)).await;
    let (node, _) = rig.another().await;
    put(&node, "k", &pattern(1, LEN)).await.expect("put");
    let (_, reader) = node.open("bucket", "k").await.expect("open");
    put(&owner, "k", &pattern(2, LEN)).await.expect("overwrites");
    collect_all_garbage(&owner).await;
    sleep(Duration::from_secs(290)).await;
    collect_all_garbage(&owner).await;
    assert!(collect(reader, 0..LEN as u64).await.expect("the old one, whole") == pattern(1, LEN));
    sleep(Duration::from_secs(11)).await;
    collect_all_garbage(&owner).await;
    assert_eq!(rig.shards(), 6, "and then it is freed");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_cannot_be_swept_does_not_keep_the_others_from_it() {
    let rig = Rig::new(6).await;
    put(&rig.objects, "k", &pattern(1, LEN)).await.expect("put");
    let owner = rig.restarted(Duration::ZERO).await;
    for store in &rig.stores {
        store.records.lock().unwrap().insert(format::ShardKey::stripe(base::StripeId(7777), 0), Default::default());
    }
    rig.stores[0].is(Mood::Dead);
    assert!(owner.sweep_orphans().await.is_err());
    rig.stores[0].is(Mood::Well);
    assert_eq!(rig.shards(), 7);
    assert_eq!(owner.sweep_orphans().await, Ok(1));
    assert!(get(&owner, "k").await.expect("get") == pattern(1, LEN));
}
