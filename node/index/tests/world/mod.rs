//! The system under test, the model beside it, and the comparison.

mod commands;
mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{Entropy, Lsn, PartitionId, SeededEntropy, StripeId};
use bytes::Bytes;
use index::model::{Command, GarbageRow, Layout, Outcome, StripeRun};
use index::{ListRequest, Mirror, Partition, PartitionConfig, Policy, RunsFrom};
use replica::testing::MemoryStore;

use model::{Content, Model};

const DEVICES: u8 = 6;

pub(crate) struct World {
    pub(crate) partition: Partition,
    pub(crate) probes: BTreeMap<&'static str, usize>,
    entropy: SeededEntropy,
    stores: Vec<Arc<MemoryStore>>,
    model: Model,
    /// What packs hold.
    packs: BTreeMap<StripeId, Vec<u8>>,
    /// Stripes brought by commands and not freed.
    stripes: BTreeSet<u64>,
    next_stripe: u64,
    /// Stripes whose ids were taken and that no command has brought yet.
    held_back: Vec<StripeRun>,
    /// Garbage rows that a command has freed, or will.
    freed: BTreeSet<u64>,
}

async fn open(stores: &[Arc<MemoryStore>]) -> Partition {
    let config = PartitionConfig {
        partition: PartitionId(3),
        policy: Policy::for_tolerance(usize::from(DEVICES), 2),
        view_cache_bytes: 1 << 20,
    };
    let mirrors = stores.iter().map(|s| Arc::clone(s) as Mirror).collect();
    Partition::open(config, mirrors, usize::from(DEVICES) - stores.len()).await.expect("the partition opens")
}

impl World {
    pub(crate) async fn new(entropy: SeededEntropy) -> Self {
        let stores: Vec<_> = (1..=DEVICES).map(MemoryStore::new).collect();
        let names = [
            "put",
            "deleted",
            "packed",
            "PreconditionFailed",
            "NoSuchBucket",
            "NoSuchUpload",
            "BucketNotEmpty",
            "InvalidPart",
            "InvalidPartOrder",
            "PartTooSmall",
            "NoSuchKey",
            "BucketExists",
            "completed again",
            "repacked",
            "StaleStripes",
        ];
        Self {
            partition: open(&stores).await,
            probes: names.into_iter().map(|name| (name, 0)).collect(),
            entropy,
            stores,
            model: Model::default(),
            packs: BTreeMap::new(),
            stripes: BTreeSet::new(),
            next_stripe: 1,
            held_back: Vec::new(),
            freed: BTreeSet::new(),
        }
    }

    fn pick<T: Clone>(&self, from: &[T]) -> T {
        from[self.entropy.below(from.len() as u64) as usize].clone()
    }

    fn probe(&mut self, name: &str) {
        if let Some(count) = self.probes.get_mut(name) {
            *count += 1;
        }
    }

    /// Submits a few commands at once; they take effect in this order.
    pub(crate) async fn submit_some(&mut self, context: &str) {
        let mut commands = Vec::new();
        for _ in 0..1 + self.entropy.below(6) {
            let next = self.draw().await;
            commands.push(next);
        }
        let answers = futures::future::join_all(
            commands
                .iter()
                .map(|(command, data)| self.partition.submit(command.clone(), vec![Bytes::from(data.clone())])),
        )
        .await;
        for ((command, data), answer) in commands.into_iter().zip(answers) {
            let outcome = answer.unwrap_or_else(|e| panic!("{context}: {command:?}: {e}"));
            assert_eq!(Command::decode(&command.encode()).as_ref(), Ok(&command), "{context}");
            assert_eq!(Outcome::decode(&outcome.encode()).as_ref(), Ok(&outcome), "{context}");
            self.note(&command, &outcome);
            let expected = self.model.apply(&command, &data);
            expected.compare(&outcome, &format!("{context}: {command:?}"));
        }
    }

    fn note(&mut self, command: &Command, outcome: &Outcome) {
        match (command, outcome) {
            (Command::Pack { moves, .. }, Outcome::Packed { moved }) if *moved > 0 => {
                let again = moves.iter().any(|m| matches!(m.from, Layout::Packed { .. }));
                self.probe(if again { "repacked" } else { "packed" });
            }
            (Command::CompleteUpload { upload, .. }, Outcome::Put(_)) => {
                let again = self.model.completed.contains_key(upload);
                self.probe(if again { "completed again" } else { "put" });
            }
            (_, Outcome::Put(_)) => self.probe("put"),
            (_, Outcome::Deleted { existed: true }) => self.probe("deleted"),
            (_, Outcome::Refused(refusal)) => {
                let name = format!("{refusal:?}");
                let name = name.split([' ', '{']).next().unwrap_or_default().to_owned();
                self.probe(&name);
            }
            _ => {}
        }
    }

    /// Drops everything that is not durable; up to two devices are away afterwards, back next time.
    pub(crate) async fn crash(&mut self, context: &str) {
        let images: Vec<_> = self.stores.iter().map(|s| s.image()).collect();
        self.stores.iter().for_each(|s| s.fail());
        let (a, b) = (self.entropy.below(9) as usize, self.entropy.below(9) as usize);
        let present: Vec<_> =
            images.iter().enumerate().filter(|(i, _)| *i != a && *i != b).map(|(_, s)| s.clone()).collect();
        self.partition = open(&present).await;
        self.stores = images;
        let status = self.partition.status();
        assert!(
            status.views.iter().all(|v| v.failure.is_none() && v.applied == status.journal.acked),
            "{context}: {status:?}"
        );
        assert_eq!(status.views.len(), 3, "{context}");
    }

    async fn bytes_at(&self, layout: &Layout, size: u64) -> Vec<u8> {
        match layout {
            Layout::Journal { lsn, offset } => self
                .partition
                .read_data(*lsn, *offset..*offset + size as u32)
                .await
                .expect("data in the journal is kept")
                .to_vec(),
            Layout::Packed { stripe, offset, pack_bytes, .. } => {
                let pack = &self.packs[stripe];
                assert_eq!(pack.len(), *pack_bytes as usize);
                pack[*offset as usize..][..size as usize].to_vec()
            }
            other => panic!("{other:?} holds no small data"),
        }
    }

    async fn check_content(&self, layout: &Layout, size: u64, content: &Content, context: &str) {
        match (layout, content) {
            (Layout::Stripes(runs), Content::Runs(expected)) => assert_eq!(runs, expected, "{context}"),
            (Layout::Parts(parts), Content::Parts(expected)) => {
                assert_eq!(parts.len(), expected.len(), "{context}");
                for (part, (number, content)) in parts.iter().zip(expected) {
                    assert_eq!(part.number, *number, "{context}");
                    Box::pin(self.check_content(&part.layout, part.size, content, context)).await;
                }
            }
            (layout, Content::Bytes(expected)) => {
                assert_eq!(self.bytes_at(layout, size).await, *expected, "{context}: {layout:?}");
            }
            (layout, content) => panic!("{context}: {layout:?} for {content:?}"),
        }
    }

    /// Compares everything.
    pub(crate) async fn check(&self, context: &str) {
        let snapshot = self.partition.snapshot().unwrap();
        let buckets: Vec<_> = self.model.buckets.iter().map(|(n, r)| (n.clone(), r.clone())).collect();
        assert_eq!(snapshot.buckets().unwrap(), buckets, "{context}");
        let mut small = 0;
        for ((bucket, key), expected) in &self.model.objects {
            let row = snapshot.object(bucket, key).unwrap().unwrap_or_else(|| panic!("{context}: no {bucket}/{key}"));
            assert_eq!(
                (row.size, row.etag, row.modified_ms),
                (expected.size, expected.etag, expected.modified_ms),
                "{context}"
            );
            self.check_content(&row.layout, row.size, &expected.content, context).await;
            small += expected.content.small_pieces();
        }
        for (upload, (bucket, row)) in &self.model.uploads {
            assert_eq!(snapshot.upload(*upload).unwrap().as_ref(), Some(&(bucket.clone(), row.clone())), "{context}");
        }
        for ((upload, number), expected) in &self.model.parts {
            let row = snapshot.part(*upload, *number).unwrap().unwrap_or_else(|| panic!("{context}: no part"));
            assert_eq!((row.size, row.md5), (expected.size, expected.md5), "{context}");
            self.check_content(&row.layout, row.size, &expected.content, context).await;
            small += expected.content.small_pieces();
        }
        for name in self.model.buckets.keys() {
            self.check_listings(&snapshot, name, context);
        }
        self.check_places(&snapshot, small, context);
    }

    fn check_listings(&self, snapshot: &index::Snapshot, bucket: &str, context: &str) {
        let keys: Vec<&str> =
            self.model.objects.keys().filter(|(b, _)| b == bucket).map(|(_, key)| key.as_str()).collect();
        let listed = snapshot.list(bucket, &ListRequest { limit: 10_000, ..ListRequest::default() }).unwrap();
        assert_eq!(listed.objects.iter().map(|o| o.key.as_str()).collect::<Vec<_>>(), keys, "{context}");
        let uploads: Vec<(String, u128)> = {
            let mut all: Vec<_> = self
                .model
                .uploads
                .iter()
                .filter(|(_, (b, _))| b == bucket)
                .map(|(u, (_, r))| (r.key.clone(), *u))
                .collect();
            all.sort();
            all
        };
        let mut paged = Vec::new();
        loop {
            let after = paged.last().map(|(key, upload): &(String, u128)| (key.as_str(), *upload));
            let (page, more) = snapshot.uploads(bucket, "", after, 2).unwrap();
            paged.extend(page.into_iter().map(|(upload, row)| (row.key, upload)));
            if !more {
                break;
            }
        }
        assert_eq!(paged, uploads, "{context}");
    }

    /// Every stripe once; every small piece held at one place; counters right.
    fn check_places(&self, snapshot: &index::Snapshot, small: usize, context: &str) {
        let mut referred = Vec::new();
        snapshot.stripe_runs(|run| referred.extend(run.first.0..run.first.0 + u64::from(run.count))).unwrap();
        referred.sort_unstable();
        assert_eq!(referred, self.stripes.iter().copied().collect::<Vec<_>>(), "{context}: stripes lost or doubled");
        let mut paged = Vec::new();
        let mut from = Some(RunsFrom::default());
        while let Some(at) = from {
            let page = snapshot.stripe_runs_page(&at, 3).unwrap();
            paged.extend(page.runs.iter().flat_map(|run| run.first.0..run.first.0 + u64::from(run.count)));
            from = page.next;
        }
        paged.sort_unstable();
        assert_eq!(paged, referred, "{context}: page by page");
        let unpacked = snapshot.unpacked(None, usize::MAX).unwrap();
        let packs = snapshot.packs_below(100, None, usize::MAX).unwrap();
        let packed: usize = packs.iter().map(|p| p.live_count as usize).sum();
        assert_eq!(unpacked.len() + packed, small, "{context}");
        for pack in &packs {
            let members = snapshot.pack_members(pack.stripe).unwrap();
            assert_eq!(members.len(), pack.live_count as usize, "{context}");
            assert_eq!(members.iter().map(|m| u64::from(m.size)).sum::<u64>(), pack.live_bytes, "{context}");
        }
        let counters = snapshot.counters().unwrap();
        let bytes: u64 = self.model.objects.values().map(|o| o.size).sum();
        assert_eq!((counters.objects, counters.object_bytes), (self.model.objects.len() as u64, bytes), "{context}");
        let model = (self.model.stripes_below, self.model.stripes_fence);
        assert_eq!((counters.stripes_below, counters.stripes_fence), model, "{context}");
        let owed = snapshot.missing_shards(None, usize::MAX).unwrap();
        assert!(
            owed.iter().all(|shard| self.stripes.contains(&shard.stripe.0)),
            "{context}: a shard of a freed stripe is owed"
        );
        let floor = self.partition.status().journal.floor;
        assert!(unpacked.iter().all(|u| matches!(u.from, Layout::Journal { lsn, .. } if lsn >= floor)), "{context}");
    }

    fn new_run(&mut self, bytes: u64, stripe_bytes: u32) -> StripeRun {
        let run = self.take_run(bytes, stripe_bytes);
        self.stripes.extend(run.first.0..self.next_stripe);
        run
    }

    fn take_run(&mut self, bytes: u64, stripe_bytes: u32) -> StripeRun {
        let count = bytes.div_ceil(u64::from(stripe_bytes)) as u32;
        let first = StripeId(self.next_stripe);
        self.next_stripe += u64::from(count);
        StripeRun { first, count, group: self.entropy.below(4) as u32, stripe_bytes, bytes }
    }

    fn free(&mut self, mut rows: Vec<GarbageRow>) -> Command {
        rows.retain(|row| self.freed.insert(row.id));
        for run in rows.iter().flat_map(|row| &row.runs) {
            for stripe in run.first.0..run.first.0 + u64::from(run.count) {
                assert!(self.stripes.remove(&stripe), "stripe {stripe} is garbage twice");
            }
        }
        Command::GarbageFreed { ids: rows.iter().map(|row| row.id).collect() }
    }

    fn data(&self, max: u64) -> Vec<u8> {
        let mut data = vec![0; self.entropy.below(max) as usize];
        self.entropy.fill(&mut data);
        data
    }

    fn oldest_place(&self) -> Option<Lsn> {
        self.partition.read(index::Snapshot::oldest_unpacked).unwrap()
    }
}
