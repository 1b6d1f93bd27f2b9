//! Following what is below a prefix, by asking from time to time.
//!
//! Invariant: after a poll, what the follower knows is what the store held at one moment not before the poll's start;
//! the events of the poll lead there from what it knew before. A key that changed several times is told once.

use std::collections::BTreeMap;

use crate::facts::{Fact, Facts, FactsResult};

/// What a poll found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Put, anew or again.
    Put(Fact),
    /// Deleted.
    Deleted(String),
}

/// Knows what is below a prefix.
#[derive(Debug, Clone, Default)]
pub struct Follower {
    prefix: String,
    revision: u64,
    known: BTreeMap<String, Fact>,
}

impl Follower {
    /// Knows nothing yet: the first poll tells everything as put.
    #[must_use]
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }

    /// What it follows.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What it knows.
    #[must_use]
    pub fn known(&self) -> &BTreeMap<String, Fact> {
        &self.known
    }

    /// The store's revision as of the last poll.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Asks what is new. Without news that is one read that gives nothing.
    ///
    /// # Errors
    /// As [`Facts::changed`]; then nothing was learned and nothing is forgotten.
    pub async fn poll(&mut self, facts: &dyn Facts) -> FactsResult<Vec<Event>> {
        let news = facts.changed(&self.prefix, self.revision).await?;
        let came = news.facts.iter().filter(|fact| !self.known.contains_key(&fact.key)).count();
        if (self.known.len() + came) as u64 == news.count {
            self.revision = news.revision;
            return Ok(news.facts.into_iter().map(|fact| self.take_in(fact)).collect());
        }
        // Something is gone, and only the whole list tells what.
        let all = facts.list(&self.prefix).await?;
        self.revision = all.revision;
        let there: BTreeMap<_, _> = all.facts.into_iter().map(|fact| (fact.key.clone(), fact)).collect();
        let gone: Vec<_> = self.known.keys().filter(|key| !there.contains_key(*key)).cloned().collect();
        self.known.retain(|key, _| there.contains_key(key));
        let mut events: Vec<_> = gone.into_iter().map(Event::Deleted).collect();
        for (key, fact) in there {
            if self.known.get(&key).is_none_or(|old| old.revision != fact.revision) {
                events.push(self.take_in(fact));
            }
        }
        Ok(events)
    }

    fn take_in(&mut self, fact: Fact) -> Event {
        self.known.insert(fact.key.clone(), fact.clone());
        Event::Put(fact)
    }
}
