//! One device of six is slow, or some are dead: how long puts and gets take on a clock that only devices move.

use std::sync::atomic::Ordering;
use std::time::Duration;

use object::ObjectStore;
use object::api::{Condition, ObjectApi, ObjectError};
use tokio::time::{Instant, sleep};

use crate::fake::{MS, Mood, Rig, collect_all_garbage, get, get_range, put, timed};
use crate::rack::pattern;

/// One stripe.
const LEN: usize = 300_000;
/// Every timer is up to a millisecond late, a put or get meets a few.
const TICKS: Duration = Duration::from_millis(3);
/// What a device usually takes.
const USUAL: Duration = Duration::from_millis(5);

/// Looks at the devices as the daemon's timer does.
struct Daemon {
    looked: Instant,
}

impl Daemon {
    async fn step(&mut self, objects: &ObjectStore) {
        if self.looked.elapsed() >= 250 * MS {
            self.looked = Instant::now();
            objects.look_at_devices().await;
        }
    }
}

fn counted(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn slow_devices(objects: &ObjectStore) -> Vec<(u8, bool, bool)> {
    let slow = objects.paces().into_iter().filter(|pace| pace.slow_puts || pace.slow_gets);
    slow.map(|pace| (pace.device.0[0] - 1, pace.slow_puts, pace.slow_gets)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_device_at_a_hundred_times_the_latency_stretches_no_put() {
    let rig = Rig::new(6).await;
    let mut daemon = Daemon { looked: Instant::now() };
    let mut number = 0;
    let mut puts = async |count: usize| {
        let mut took = Vec::new();
        for _ in 0..count {
            number += 1;
            let (done, time) = timed(put(&rig.objects, &format!("k{number}"), &pattern(number, LEN))).await;
            done.expect("put");
            took.push(time);
            daemon.step(&rig.objects).await;
        }
        took
    };
    let healthy = puts(100).await.into_iter().max().unwrap();
    assert!(healthy <= USUAL + TICKS, "{healthy:?} while all is well");
    assert_eq!(counted(&rig.objects.stats().stripes_degraded), 0);
    rig.stores[3].takes(100 * USUAL, USUAL);
    let mut took = puts(600).await;
    // The bound of one put: what the others took, and at most the grace on top (20 ms, or three times their p95).
    let bound = healthy + (3 * healthy).max(20 * MS) + TICKS;
    assert!(took.iter().all(|time| *time <= bound), "{:?} beyond {bound:?}", took.iter().max());
    let settled = took[300..].iter().copied().max().unwrap();
    assert!(settled * 10 <= healthy * 13, "{settled:?} once it is known to be slow, {healthy:?} before");
    took.sort_unstable();
    let p99 = took[took.len() * 99 / 100];
    let stats = rig.objects.stats();
    println!(
        "put: healthy {healthy:?}, p99 {p99:?}, worst {:?}, settled {settled:?}, grace expired {}, late {}, not sent {}",
        took.last().unwrap(),
        counted(&stats.grace_expired),
        counted(&stats.late_shards),
        counted(&stats.shards_not_sent)
    );
    assert_eq!(slow_devices(&rig.objects), [(3, true, false)]);
    assert!(rig.objects.paces()[3].late <= 4, "{:?}", rig.objects.paces()[3]);
    assert!(counted(&stats.grace_expired) > 0 && counted(&stats.late_shards) > 8);
    // Well again: it is found out, and stripes are whole again.
    rig.stores[3].takes(USUAL, USUAL);
    sleep(Duration::from_secs(2)).await;
    puts(200).await;
    assert_eq!(slow_devices(&rig.objects), []);
    let degraded = counted(&stats.stripes_degraded);
    puts(100).await;
    assert_eq!(counted(&stats.stripes_degraded), degraded);
    // What arrived late is owed no more; what was never sent is.
    while rig.objects.settle_late_shards().await.expect("settles") > 0 {}
    let owed = rig.objects.missing_shards(10_000).await.expect("rows") as u64;
    assert_eq!(owed, counted(&stats.shards_not_sent));
    assert_eq!(rig.shards() as u64, 6 * number - owed);
    for n in 1..=number {
        assert!(get(&rig.objects, &format!("k{n}")).await.expect("get") == pattern(n, LEN), "{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_at_a_hundred_times_the_latency_stretches_no_get() {
    let rig = Rig::new(6).await;
    for n in 0..20 {
        put(&rig.objects, &format!("k{n}"), &pattern(n, LEN)).await.expect("put");
    }
    let mut daemon = Daemon { looked: Instant::now() };
    let mut number = 0;
    let mut gets = async |count: usize| {
        let mut took = Vec::new();
        for _ in 0..count {
            number += 1;
            let n = number % 20;
            // Whole stripes, and a few bytes.
            let start = (number * 7919) % (LEN as u64 - 100);
            let range = if number.is_multiple_of(2) { 0..LEN as u64 } else { start..start + 100 };
            let expected = &pattern(n, LEN)[range.start as usize..range.end as usize];
            let (done, time) = timed(get_range(&rig.objects, &format!("k{n}"), range)).await;
            assert!(done.expect("get") == expected, "get {number}");
            took.push(time);
            daemon.step(&rig.objects).await;
        }
        took
    };
    let healthy = gets(100).await.into_iter().max().unwrap();
    assert!(healthy <= USUAL + TICKS, "{healthy:?} while all is well");
    rig.stores[1].takes(USUAL, 100 * USUAL);
    let mut took = gets(1000).await;
    let worst = took.iter().copied().max().unwrap();
    // The bound of one get: until the others usually have answered, and then what they take.
    let bound = 2 * healthy + TICKS;
    let stats = rig.objects.stats();
    let settled = took[500..].iter().copied().max().unwrap();
    took.sort_unstable();
    let p99 = took[took.len() * 99 / 100];
    println!(
        "get: healthy {healthy:?}, p99 {p99:?}, worst {worst:?}, settled {settled:?}, hedges {} won {} denied {}",
        counted(&stats.hedges_begun),
        counted(&stats.hedges_won),
        counted(&stats.hedges_denied)
    );
    assert!(worst <= bound, "{worst:?} beyond {bound:?}");
    assert!(settled * 10 <= healthy * 13, "{settled:?} once it is known to be slow, {healthy:?} before");
    assert_eq!(slow_devices(&rig.objects), [(1, false, true)]);
    assert!(counted(&stats.hedges_won) > 0 && counted(&stats.hedges_won) <= counted(&stats.hedges_begun));
    // Well again: probes find it out.
    rig.calm();
    sleep(Duration::from_secs(2)).await;
    gets(1500).await;
    assert_eq!(slow_devices(&rig.objects), []);
    let degraded = counted(&stats.reads_degraded);
    gets(100).await;
    assert_eq!(counted(&stats.reads_degraded), degraded, "it is read from again");
}

#[tokio::test(start_paused = true)]
async fn hedging_adds_no_more_than_its_budget() {
    let rig = Rig::new(6).await;
    put(&rig.objects, "k", &pattern(1, LEN)).await.expect("put");
    for _ in 0..50 {
        get(&rig.objects, "k").await.expect("get");
    }
    let stats = rig.objects.stats();
    assert_eq!(counted(&stats.hedges_begun), 0);
    // All become slow at once, too little to be stuck: hedging helps nobody and must not double the load.
    rig.stores.iter().for_each(|store| store.takes(USUAL, 40 * USUAL));
    let before: u64 = rig.stores.iter().map(|store| counted(&store.gets)).sum();
    let reads = async {
        for round in 0..100u64 {
            let all = (0..10).map(|n| get_range(&rig.objects, "k", (round * 10 + n) * 290..(round * 10 + n) * 290 + 9));
            let all = futures::future::join_all(all).await;
            assert!(all.iter().all(Result::is_ok));
        }
    };
    reads.await;
    let sent = rig.stores.iter().map(|store| counted(&store.gets)).sum::<u64>() - before;
    println!("1000 reads sent {sent}; denied {}", counted(&stats.hedges_denied));
    assert!((1000..=1000 + 256 + 60).contains(&sent), "{sent} reads of shards for 1000 that were wanted");
    assert!(counted(&stats.hedges_denied) > 100);
}

#[tokio::test(start_paused = true)]
async fn dead_devices_are_not_waited_for() {
    let rig = Rig::new(6).await;
    for n in 0..30 {
        put(&rig.objects, &format!("k{n}"), &pattern(n, LEN)).await.expect("put");
    }
    rig.stores[0].is(Mood::Dead);
    let (done, time) = timed(put(&rig.objects, "one dead", &pattern(90, LEN))).await;
    done.expect("within the tolerance");
    assert!(time <= USUAL + TICKS, "{time:?}");
    assert_eq!(rig.objects.missing_shards(10).await.expect("rows"), 1);
    rig.stores[4].is(Mood::Dead);
    let (refused, time) = timed(put(&rig.objects, "two dead", &pattern(91, LEN))).await;
    assert!(matches!(refused, Err(ObjectError::Unavailable(_))), "{refused:?}");
    assert!(time <= USUAL + TICKS, "{time:?}");
    for n in 0..30 {
        let (read, time) = timed(get(&rig.objects, &format!("k{n}"))).await;
        assert!(read.expect("m dead devices are computed around") == pattern(n, LEN));
        // One round to find out, one for the others.
        assert!(time <= 2 * USUAL + 2 * TICKS, "{time:?}");
    }
    rig.stores[2].is(Mood::Dead);
    let (refused, time) = timed(get(&rig.objects, "k1")).await;
    assert!(matches!(refused, Err(ObjectError::Unavailable(_))), "{refused:?}");
    assert!(time <= 2 * USUAL + 2 * TICKS, "{time:?}");
    // What the refused put left is freed when its devices answer again.
    rig.stores.iter().for_each(|store| store.is(Mood::Well));
    collect_all_garbage(&rig.objects).await;
    assert_eq!(rig.shards(), 31 * 6 - 1);
}

#[tokio::test(start_paused = true)]
async fn devices_that_hang_hold_nobody_and_little_memory() {
    let rig = Rig::new(6).await;
    for n in 0..30 {
        put(&rig.objects, &format!("k{n}"), &pattern(n, LEN)).await.expect("put");
        get(&rig.objects, &format!("k{n}")).await.expect("get");
    }
    rig.stores[5].is(Mood::Hung);
    for n in 30..60 {
        let (done, time) = timed(put(&rig.objects, &format!("k{n}"), &pattern(n, LEN))).await;
        done.expect("put");
        let bound = if n < 34 { 30 * MS + TICKS } else { USUAL + TICKS };
        assert!(time <= bound, "put {n} took {time:?}");
    }
    assert_eq!(rig.objects.paces()[5].late, 4, "no more are sent to who owes so many");
    // Two that hang: reads are hedged, and soon both are known.
    rig.stores[1].is(Mood::Hung);
    for n in 0..60 {
        let (read, time) = timed(get(&rig.objects, &format!("k{n}"))).await;
        assert!(read.expect("get") == pattern(n, LEN));
        assert!(time <= 2 * (USUAL + TICKS) + TICKS, "get {n} took {time:?}");
        sleep(20 * MS).await;
        rig.objects.look_at_devices().await;
    }
    let slow: Vec<u8> = slow_devices(&rig.objects).into_iter().map(|(device, ..)| device).collect();
    assert_eq!(slow, [1, 5]);
    // Two are more than the tolerance: a put is refused, in the time that it is given.
    let (refused, time) = timed(put(&rig.objects, "refused", &pattern(1, LEN))).await;
    assert!(matches!(refused, Err(ObjectError::Unavailable(_))), "{refused:?}");
    assert!(time <= Duration::from_secs(30) + TICKS, "{time:?}");
    rig.stores[0].is(Mood::Hung);
    let (refused, time) = timed(get(&rig.objects, "k1")).await;
    assert!(matches!(refused, Err(ObjectError::Unavailable(_))), "{refused:?}");
    assert!(time <= Duration::from_secs(31), "{time:?}");
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_arrives_after_its_object_was_deleted_does_not_stay() {
    let rig = Rig::new(6).await;
    for n in 0..20 {
        put(&rig.objects, &format!("k{n}"), &pattern(n, LEN)).await.expect("put");
    }
    let before = rig.shards();
    rig.stores[2].takes(Duration::from_secs(60), USUAL);
    put(&rig.objects, "deleted", &pattern(50, LEN)).await.expect("put");
    put(&rig.objects, "kept", &pattern(51, LEN)).await.expect("put");
    assert_eq!(rig.objects.missing_shards(10).await.expect("rows"), 2);
    assert!(rig.objects.delete("bucket", "deleted", Condition::default()).await.expect("delete"));
    collect_all_garbage(&rig.objects).await;
    assert_eq!(rig.objects.missing_shards(10).await.expect("rows"), 1);
    assert_eq!(rig.shards(), before + 5, "the deleted object's shards are gone, but the one under way");
    assert_eq!(rig.objects.settle_late_shards().await.expect("settles"), 0);
    sleep(Duration::from_secs(61)).await;
    assert_eq!(counted(&rig.objects.stats().late_shards), 2);
    assert_eq!(rig.shards(), before + 6, "of the two that arrived late one is deleted again");
    assert_eq!(rig.objects.settle_late_shards().await.expect("settles"), 1);
    assert_eq!(rig.objects.missing_shards(10).await.expect("rows"), 0);
    assert!(get(&rig.objects, "kept").await.expect("get") == pattern(51, LEN));
    assert_eq!(get(&rig.objects, "deleted").await, Err(ObjectError::NoSuchKey));
    assert_eq!(rig.objects.sweep_orphans().await.expect("sweep"), 0);
}
