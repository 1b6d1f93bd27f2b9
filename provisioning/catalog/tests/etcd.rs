//! Facts on three real etcd servers: the law, and what happens when servers and controllers die.

#[path = "etcd/figures.rs"]
mod figures;
#[path = "etcd/proxy.rs"]
mod proxy;
#[path = "etcd/servers.rs"]
mod servers;
#[path = "etcd/tls.rs"]
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base::{OsClock, OsEntropy, SeededEntropy};
use catalog::contract::facts::{FactsHome, run};
use catalog::contract::writers::{count, read_counter};
use catalog::{
    Check, Commit, EtcdConfig, EtcdFacts, Fact, Facts, FactsError, FactsResult, Leadership, Listing, Outcome,
};
use catalog::{Follower, Writer, blob};
use futures::future::BoxFuture;
use proxy::Proxy;
use servers::{Servers, Setup, etcd_can_be_had};
use tokio::time::{sleep, timeout};

fn config(endpoints: Vec<String>) -> EtcdConfig {
    EtcdConfig {
        endpoints,
        prefix: "/holdfast/test/".to_owned(),
        tls: None,
        connect_timeout: Duration::from_millis(500),
        call_timeout: Duration::from_secs(1),
        lease_ttl: Duration::from_secs(1),
        compact_every: None,
    }
}

fn open(config: EtcdConfig) -> Arc<dyn Facts> {
    Arc::new(EtcdFacts::new(config, Arc::new(OsClock::new())).unwrap())
}

fn rest() -> BoxFuture<'static, ()> {
    Box::pin(sleep(Duration::from_millis(20)))
}

struct Prefix(EtcdConfig);

#[async_trait]
impl FactsHome for Prefix {
    async fn open(&self) -> Arc<dyn Facts> {
        open(self.0.clone())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_keep_the_law_of_facts() {
    if !etcd_can_be_had() {
        return;
    }
    // Patient on both sides: on a busy machine the law is tested, not the elections.
    let servers = Servers::start(3, Setup { election_ms: 2000, tls: None }).await;
    let homes = AtomicU64::new(0);
    let fresh = || {
        let prefix = format!("/holdfast/{}/", homes.fetch_add(1, Ordering::Relaxed));
        Prefix(EtcdConfig { prefix, call_timeout: Duration::from_secs(10), ..config(servers.endpoints()) })
    };
    run(fresh, &rest, 0..3).await;
}

/// Counts the answers that did not come.
struct Watched(Arc<dyn Facts>, Arc<AtomicU64>);

#[async_trait]
impl Facts for Watched {
    async fn get(&self, key: &str) -> FactsResult<Option<Fact>> {
        self.0.get(key).await
    }
    async fn changed(&self, prefix: &str, after: u64) -> FactsResult<Listing> {
        self.0.changed(prefix, after).await
    }
    async fn keys(&self, prefix: &str) -> FactsResult<Vec<Check>> {
        self.0.keys(prefix).await
    }
    async fn commit(&self, commit: Commit) -> FactsResult<Outcome> {
        let answer = self.0.commit(commit).await;
        self.1.fetch_add(u64::from(answer.as_ref().is_err_and(FactsError::is_outcome_unknown)), Ordering::Relaxed);
        answer
    }
    async fn lead(&self, name: &str, who: &str) -> FactsResult<Leadership> {
        self.0.lead(name, who).await
    }
}

/// Waits until the counter has moved on by `by`; gives what it was at then.
async fn moves_on(facts: &dyn Facts, from: u64, by: u64) -> u64 {
    let start = Instant::now();
    loop {
        let now: u64 = read_counter(facts, 3, &rest).await.1.iter().sum();
        if now >= from + by {
            return now;
        }
        assert!(start.elapsed() < Duration::from_secs(40), "the counter stands at {now}");
        rest().await;
    }
}

/// Waits until a read goes, and then for a commit that it did not see.
async fn next_commit(facts: &dyn Facts) -> u64 {
    let now = read_counter(facts, 3, &rest).await.1.iter().sum();
    moves_on(facts, now, 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_commit_is_lost_or_done_twice_while_servers_die() {
    if !etcd_can_be_had() {
        return;
    }
    let mut servers = Servers::start(3, Setup { election_ms: 500, tls: None }).await;
    let (stop, unheard) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..3)
        .map(|own| {
            // Each begins with another server.
            let mut endpoints = servers.endpoints();
            endpoints.rotate_left(own);
            let facts = Arc::new(Watched(open(config(endpoints)), unheard.clone()));
            let stop = stop.clone();
            let goes_on = move |_| !stop.load(Ordering::Relaxed);
            tokio::spawn(async move { count(facts, SeededEntropy::new(own as u64), (own, 3), &rest, goes_on).await })
        })
        .collect();
    let facts = open(config(servers.endpoints()));
    moves_on(&*facts, 0, 30).await;

    for round in 0..2 {
        let leader = servers.led().await;
        servers.kill(leader);
        let start = Instant::now();
        let at = next_commit(&*facts).await;
        println!("leader killed ({round}): the next commit seen after {} ms", start.elapsed().as_millis());
        moves_on(&*facts, at, 30).await;
        assert_ne!(servers.led().await, leader);
        servers.start_one(leader);
        servers.joined(leader).await;
    }

    let leader = servers.led().await;
    let other = (leader + 1) % 3;
    servers.kill(other);
    servers.kill(leader);
    let start = Instant::now();
    let refusal = facts.get("any").await.unwrap_err();
    assert!(matches!(refusal, FactsError::Unavailable(_)) && refusal.is_retryable(), "{refusal}");
    let unsure = facts.commit(Commit::new().put("without a quorum", "")).await.unwrap_err();
    assert!(unsure.is_outcome_unknown() || unsure.is_retryable(), "{unsure}");
    println!("without a quorum, after {} ms: {refusal}; {unsure}", start.elapsed().as_millis());
    servers.start_one(other);
    let start = Instant::now();
    let at = next_commit(&*facts).await;
    println!("quorum regained: the next commit seen after {} ms", start.elapsed().as_millis());
    servers.start_one(leader);
    servers.joined(leader).await;
    moves_on(&*facts, at, 30).await;

    (0..3).for_each(|n| servers.kill(n));
    (0..3).for_each(|n| servers.start_one(n));
    let start = Instant::now();
    let at = next_commit(&*facts).await;
    println!("all three restarted: the next commit seen after {} ms", start.elapsed().as_millis());
    moves_on(&*facts, at, 30).await;

    stop.store(true, Ordering::Relaxed);
    let mut added = Vec::new();
    for writer in writers {
        added.push(writer.await.expect("a writer's own checks hold"));
    }
    let (_, numbers) = read_counter(&*facts, 3, &rest).await;
    assert_eq!(numbers, added);
    let unheard = unheard.load(Ordering::Relaxed);
    assert!(unheard > 0, "no answer was lost: the servers died in vain");
    println!("{} commits, {unheard} answers lost", added.iter().sum::<u64>());
}

/// A controller: leads when it can, and commits under its fence while it does.
async fn controller(facts: Arc<dyn Facts>, who: String) {
    loop {
        let leadership = match facts.lead("rack", &who).await {
            Ok(leadership) => leadership,
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                rest().await;
                continue;
            }
        };
        let term = leadership.fence().revision();
        for n in 0_u64.. {
            // No check: only the fence keeps a deposed leader from putting the term back.
            let commit = Commit::new().fenced(leadership.fence()).put("term", format!("{term} {n} {who}"));
            match facts.commit(commit).await {
                Ok(_) => rest().await,
                Err(FactsError::NotLeader) => break,
                Err(error) => assert!(error.is_outcome_unknown() || error.is_retryable(), "{error}"),
            }
        }
    }
}

/// Follows the term until another than `not` leads, checking that it never goes back.
async fn next_leader(facts: &dyn Facts, follower: &mut Follower, last: &mut (u64, u64), not: &str) -> String {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < Duration::from_secs(30), "nobody leads after {last:?}");
        rest().await;
        let polled = follower.poll(facts).await;
        if let Err(error) = polled {
            assert!(error.is_retryable(), "{error}");
            continue;
        }
        let Some(fact) = follower.known().get("term") else { continue };
        let text = std::str::from_utf8(&fact.value).unwrap().to_owned();
        let mut words = text.split(' ');
        let mut number = || words.next().unwrap().parse().unwrap();
        let now = (number(), number());
        assert!(now >= *last, "{last:?}, then {text}");
        *last = now;
        let who = words.next().unwrap();
        if who != not {
            return who.to_owned();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_controllers_one_leads_and_any_may_die() {
    if !etcd_can_be_had() {
        return;
    }
    let mut servers = Servers::start(3, Setup { election_ms: 500, tls: None }).await;
    let start_one = |n: usize| {
        let mut endpoints = servers.endpoints();
        endpoints.rotate_left(n);
        let facts = open(EtcdConfig { compact_every: Some(Duration::from_millis(300)), ..config(endpoints) });
        tokio::spawn(controller(facts, format!("c{n}")))
    };
    let mut controllers: Vec<_> = (0..3).map(start_one).collect();
    let facts = open(config(servers.endpoints()));
    let (mut follower, mut last) = (Follower::new("term"), (0, 0));
    let mut leader = next_leader(&*facts, &mut follower, &mut last, "").await;
    let mut led = vec![leader.clone()];
    for _ in 0..3 {
        let n: usize = leader[1..].parse().unwrap();
        // It dies without a word: nothing is resigned, the lease runs out.
        controllers[n].abort();
        let start = Instant::now();
        leader = next_leader(&*facts, &mut follower, &mut last, &leader).await;
        println!("controller c{n} died: {leader} leads after {} ms", start.elapsed().as_millis());
        led.push(leader.clone());
        controllers[n] = start_one(n);
    }
    // etcd's own leader dies: the controllers' need not change, and the commits go on.
    let victim = servers.led().await;
    servers.kill(victim);
    let start = Instant::now();
    next_leader(&*facts, &mut follower, &mut last, "").await;
    let seen = last;
    while last == seen {
        next_leader(&*facts, &mut follower, &mut last, "").await;
        assert!(start.elapsed() < Duration::from_secs(30), "no commits after etcd's leader died");
    }
    println!("etcd's leader died: the controller commits on after {} ms", start.elapsed().as_millis());

    // The past was compacted while they led: etcd does not have its first revisions any more.
    let survivor = servers.led().await;
    let start = Instant::now();
    loop {
        let answer = servers.ask(survivor, "/v3/kv/range", r#"{"key":"AA==","revision":"2"}"#).await;
        if answer.is_some_and(|answer| answer["error"].as_str().is_some_and(|error| error.contains("compacted"))) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "nothing was compacted");
        rest().await;
    }
    for controller in controllers {
        controller.abort();
        // A controller that failed one of its own checks is no cancelled one.
        assert!(controller.await.is_err_and(|error| error.is_cancelled()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_cut_off_is_refused_however_late_its_commit_arrives() {
    if !etcd_can_be_had() {
        return;
    }
    let servers = Servers::start(3, Setup { election_ms: 500, tls: None }).await;
    let mut proxies = Vec::new();
    for n in 0..3 {
        proxies.push(Proxy::to(servers.port(n)).await);
    }
    let endpoints: Vec<_> = proxies.iter().map(Proxy::endpoint).collect();
    // It waits for its answers longer than its lease lasts.
    let cut_off = open(EtcdConfig { call_timeout: Duration::from_secs(30), ..config(endpoints) });
    let other = open(config(servers.endpoints()));
    let first = cut_off.lead("rack", "first").await.unwrap();
    cut_off.commit(Commit::new().fenced(first.fence()).put("map", "1")).await.unwrap();
    assert!(matches!(other.lead("rack", "second").await, Err(FactsError::Led { by }) if by == "first"));

    proxies.iter().for_each(|proxy| proxy.flow(false, false));
    let sender = |commit: Commit| {
        let facts = cut_off.clone();
        tokio::spawn(async move { facts.commit(commit).await })
    };
    let fenced = sender(Commit::new().fenced(first.fence()).put("map", "late"));
    let unfenced = sender(Commit::new().put("unfenced", "late"));
    let start = Instant::now();
    assert!(first.is_held(), "the lease has not run out yet");
    timeout(Duration::from_secs(10), first.lost()).await.expect("a leader without answers gives up");
    assert!(!first.is_held());
    let gave_up = start.elapsed();
    let second = loop {
        match other.lead("rack", "second").await {
            Ok(second) => break second,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        assert!(start.elapsed() < Duration::from_secs(20), "the lease does not run out");
        rest().await;
    };
    println!(
        "cut off: the first gave up after {} ms, the second leads after {} ms",
        gave_up.as_millis(),
        start.elapsed().as_millis()
    );
    other.commit(Commit::new().fenced(second.fence()).put("map", "2")).await.unwrap();
    assert_eq!(other.get("unfenced").await.unwrap(), None, "what was sent is still under way");

    proxies.iter().for_each(|proxy| proxy.flow(true, true));
    assert!(matches!(fenced.await.unwrap(), Err(FactsError::NotLeader)));
    // The one without a fence arrived as late, and was applied: it is the fence that refused the other.
    assert!(matches!(unfenced.await.unwrap(), Ok(Outcome::Committed { .. })));
    assert_eq!(other.get("unfenced").await.unwrap().unwrap().value, "late");
    assert_eq!(other.get("map").await.unwrap().unwrap().value, "2");
    let blob = vec![7; 2 << 20];
    let late = blob::write(&*cut_off, Some(first.fence()), &OsEntropy, "big", 0, &blob).await;
    assert!(matches!(late, Err(FactsError::NotLeader)), "{late:?}");
    assert!(!first.is_held());

    // A lease that is renewed outlives its term several times over.
    assert!(timeout(Duration::from_secs(4), second.lost()).await.is_err(), "the second lost the lead");
    assert!(second.is_held());
    other.commit(Commit::new().fenced(second.fence()).put("map", "3")).await.unwrap();
    // One silent server does not cost it: the renewals go to the next.
    drop(second);
    let endpoints = vec![proxies[0].endpoint(), servers.endpoints()[1].clone()];
    let detour = open(EtcdConfig { call_timeout: Duration::from_secs(30), ..config(endpoints) });
    let third = loop {
        match detour.lead("rack", "third").await {
            Ok(third) => break third,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        rest().await;
    };
    proxies[0].flow(false, false);
    assert!(timeout(Duration::from_secs(3), third.lost()).await.is_err(), "the third lost the lead");
    other.commit(Commit::new().fenced(third.fence()).put("map", "4")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_lost_on_the_way_is_an_unknown_outcome_that_a_writer_settles() {
    if !etcd_can_be_had() {
        return;
    }
    let servers = Servers::start(3, Setup { election_ms: 500, tls: None }).await;
    let proxy = Proxy::to(servers.port(0)).await;
    let endpoints = vec![proxy.endpoint(), servers.endpoints()[1].clone()];
    let direct = open(config(servers.endpoints()));
    for (answers_only, key) in [(true, "applied"), (false, "not sent on")] {
        proxy.flow(true, true);
        let facts = open(config(endpoints.clone()));
        let mut writer = Writer::claim(facts, &OsEntropy, "w").await.unwrap();
        proxy.flow(answers_only, false);
        let commit = Commit::new().check(key, 0).put(key, "1");
        let error = writer.commit(commit).await.unwrap_err();
        assert!(error.is_outcome_unknown() && !error.is_retryable(), "{error}");
        let before = direct.get(key).await.unwrap();
        assert_eq!(before.is_some(), answers_only, "{key}");
        let Ok(Outcome::Committed { revision }) = writer.settle().await else { panic!("{key}: the way is free now") };
        assert!(before.is_none_or(|before| before.revision == revision), "{key}");
        // What was held up arrives; it does nothing now.
        proxy.flow(true, true);
        sleep(Duration::from_millis(300)).await;
        assert_eq!(direct.get(key).await.unwrap().unwrap().revision, revision, "{key}");
    }
}
