//! Random histories against a map in memory, with reopening in between and a follower that polls now and then.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::SeededEntropy;

use super::facts::FactsHome;
use crate::facts::{Change, Check, Commit, Fact, Facts, Outcome};
use crate::follow::{Event, Follower};

const STEPS: u64 = 80;
/// Keys that begin one another, that sort behind all ASCII, and that end with the largest letter.
const KEYS: [&str; 9] = ["a", "a/", "a/b", "a/b/c", "a0", "b", "é/1", "é/2", "a/\u{10ffff}"];
const PREFIXES: [&str; 6] = ["", "a", "a/", "a/b/", "é", "none"];

struct World {
    seed: u64,
    /// Absent while it is opened again.
    open: Option<Arc<dyn Facts>>,
    draw: SeededEntropy,
    model: BTreeMap<String, Fact>,
    /// The newest revision that was told.
    last: u64,
    /// Some revisions of the past, to ask from.
    past: Vec<u64>,
    follower: Follower,
    /// What the follower's events lead to.
    shadow: BTreeMap<String, Fact>,
    conflicts: u64,
}

pub(super) async fn agree_with_a_map(home: &impl FactsHome, seed: u64) {
    let draw = SeededEntropy::new(seed);
    let follower = Follower::new(PREFIXES[draw.below(3) as usize]);
    let mut world = World {
        seed,
        open: Some(home.open().await),
        draw,
        model: BTreeMap::new(),
        last: 0,
        past: vec![0],
        follower,
        shadow: BTreeMap::new(),
        conflicts: 0,
    };
    for step in 0..STEPS {
        world.commit(step).await;
        world.look(step).await;
        if world.draw.one_in(4) {
            world.poll(step).await;
        }
        if world.draw.one_in(16) {
            // The old handle lets go before the new one takes hold.
            world.open = None;
            world.open = Some(home.open().await);
        }
    }
    world.poll(STEPS).await;
    assert!(world.conflicts > 0, "seed {seed}: no conflict was met");
}

impl World {
    fn facts(&self) -> &dyn Facts {
        &**self.open.as_ref().expect("the store is open")
    }

    fn key(&self) -> String {
        KEYS[self.draw.below(KEYS.len() as u64) as usize].to_owned()
    }

    async fn commit(&mut self, step: u64) {
        let mut commit = Commit::new();
        for _ in 0..self.draw.below(3) {
            let key = self.key();
            let right = self.model.get(&key).map_or(0, |fact| fact.revision);
            let revision = match self.draw.below(8) {
                0 => 0,
                1 => right + 1,
                2 => self.past[self.draw.below(self.past.len() as u64) as usize],
                _ => right,
            };
            commit = commit.check(key, revision);
        }
        for n in 0..self.draw.below(4) {
            let key = self.key();
            if commit.changes.iter().any(|change| change.key() == key) {
                continue;
            }
            let value = format!("{step}.{n}.").repeat(self.draw.below(40) as usize);
            commit = if self.draw.one_in(3) { commit.delete(key) } else { commit.put(key, value) };
        }
        let answer = self.facts().commit(commit.clone()).await;
        let answer = answer.unwrap_or_else(|error| panic!("seed {}, step {step}: {error}", self.seed));
        self.judge(step, &commit, answer);
    }

    fn judge(&mut self, step: u64, commit: &Commit, answer: Outcome) {
        let at = format!("seed {}, step {step}: {commit:?}", self.seed);
        let revision_of = |model: &BTreeMap<String, Fact>, key: &str| model.get(key).map_or(0, |fact| fact.revision);
        let broken = commit.checks.iter().find(|check| revision_of(&self.model, &check.key) != check.revision);
        if let Some(Check { key, .. }) = broken {
            let expected = Outcome::Conflict { key: key.clone(), revision: revision_of(&self.model, key) };
            assert_eq!(answer, expected, "{at}");
            self.conflicts += 1;
            return;
        }
        let Outcome::Committed { revision } = answer else { panic!("{at}: {answer:?}") };
        let mut changed = false;
        for change in &commit.changes {
            let key = change.key().to_owned();
            if let Change::Put { value, .. } = change {
                self.model.insert(key.clone(), Fact { key, revision, value: value.clone() });
                changed = true;
            } else {
                changed |= self.model.remove(&key).is_some();
            }
        }
        assert!(if changed { revision > self.last } else { revision >= self.last }, "{at}: {revision}, {}", self.last);
        self.last = revision;
        self.past.push(revision);
    }

    async fn look(&self, step: u64) {
        let at = format!("seed {}, step {step}", self.seed);
        let key = self.key();
        assert_eq!(self.facts().get(&key).await.unwrap().as_ref(), self.model.get(&key), "{at}: {key}");
        let prefix = PREFIXES[self.draw.below(PREFIXES.len() as u64) as usize];
        let after = self.past[self.draw.below(self.past.len() as u64) as usize];
        let below: Vec<_> = self.model.values().filter(|fact| fact.key.starts_with(prefix)).cloned().collect();
        let listing = self.facts().changed(prefix, after).await.unwrap();
        let newer: Vec<_> = below.iter().filter(|fact| fact.revision > after).cloned().collect();
        assert_eq!((listing.facts, listing.count), (newer, below.len() as u64), "{at}: {prefix} after {after}");
        assert!(listing.revision >= self.last, "{at}");
        let keys: Vec<_> = below.into_iter().map(|fact| Check { key: fact.key, revision: fact.revision }).collect();
        assert_eq!(self.facts().keys(prefix).await.unwrap(), keys, "{at}: {prefix}");
    }

    async fn poll(&mut self, step: u64) {
        for event in self.follower.poll(&**self.open.as_ref().expect("the store is open")).await.unwrap() {
            match event {
                Event::Put(fact) => self.shadow.insert(fact.key.clone(), fact),
                Event::Deleted(key) => self.shadow.remove(&key),
            };
        }
        let prefix = self.follower.prefix();
        let expected: BTreeMap<_, _> =
            self.model.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(k, f)| (k.clone(), f.clone())).collect();
        let at = format!("seed {}, step {step}: below {prefix}", self.seed);
        assert_eq!(self.follower.known(), &expected, "{at}");
        assert_eq!(self.shadow, expected, "{at}");
    }
}
