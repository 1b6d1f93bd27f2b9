//! Verifying devices one by one, and what they hold together. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use format::Space;
use futures::future::join_all;
use serde::Serialize;
use shards::{StoreError, StoreHandle};

use crate::dump::key_text;
use crate::events::Replay;
use crate::journal::{JournalCopies, JournalFindings};
use crate::stripes::{StripeRef, describe};
use crate::walk::{StripeFound, StripeWalk};

/// Bytes verified between two looks at the progress.
const STEP_BYTES: u64 = 8 << 20;
/// Findings named one by one; the rest is counted.
const NAMED_MAX: usize = 20;
/// Stripes described at once.
const DESCRIBE_AT_ONCE: usize = 64;

/// What verifying one device found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verified {
    /// Records that verified.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Records that did not verify.
    pub bad: u64,
    /// The first of those, and why.
    pub examples: Vec<String>,
    /// The device stopped answering.
    pub failed: Option<String>,
    #[serde(skip)]
    bad_shards: BTreeSet<(u64, u8)>,
}

impl Verified {
    /// Nothing could be verified.
    #[must_use]
    pub fn failed(why: String) -> Self {
        Self { failed: Some(why), ..Self::default() }
    }
}

/// Verifies every record of a device; `progress` hears the bytes of each step.
pub async fn verify(store: &StoreHandle, mut progress: impl FnMut(u64)) -> Verified {
    let mut found = Verified::default();
    let mut from = None;
    loop {
        let report = match store.verify(from, STEP_BYTES).await {
            Ok(report) => report,
            Err(error) => {
                found.failed = Some(error.to_string());
                return found;
            }
        };
        found.records += report.records;
        found.bytes += report.verified_bytes;
        found.bad += report.bad.len() as u64;
        for (key, error) in &report.bad {
            if found.examples.len() < NAMED_MAX {
                found.examples.push(format!("{}: {error}", key_text(key)));
            }
            if key.space == Space::Stripe && *error != StoreError::Closed {
                found.bad_shards.insert((key.id, key.slot));
            }
        }
        progress(report.verified_bytes);
        match report.next {
            Some(next) => from = Some(next),
            None => return found,
        }
    }
}

/// Stripes by how many shards the devices hold.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Census {
    /// All.
    pub stripes: u64,
    /// With every shard.
    pub complete: u64,
    /// By the number of shards missing or bad, readable all the same.
    pub missing: BTreeMap<usize, u64>,
    /// With fewer shards than are needed to read.
    pub unreadable: u64,
    /// Shards all of which fail to say what they are.
    pub undescribed: u64,
    /// Cut off before they were complete: begun within the journal's reach, and no record names them. No
    /// finding: the next start frees them.
    pub unfinished: u64,
    /// The first unreadable ones.
    pub examples: Vec<String>,
    /// The journals.
    pub journals: Vec<JournalFindings>,
    /// Journal records that cannot be read or decoded.
    pub broken_records: Vec<String>,
    /// Devices that stopped answering.
    pub failed: Vec<String>,
}

impl Census {
    /// Whether something is not as it should be.
    #[must_use]
    pub fn has_findings(&self) -> bool {
        let journals = |findings: &JournalFindings| findings.absent + findings.conflicts + findings.unreadable > 0;
        !self.missing.is_empty()
            || self.unreadable + self.undescribed > 0
            || self.journals.iter().any(journals)
            || !self.broken_records.is_empty()
            || !self.failed.is_empty()
    }
}

/// Counts the stripes of all devices together; `verified` (one for each store) tells which shards are bad.
pub async fn census(stores: &[StoreHandle], verified: &[Verified]) -> Census {
    assert_eq!(stores.len(), verified.len(), "every store was verified");
    let copies = JournalCopies::read(stores).await;
    let replay = Replay::of(stores, &copies).await;
    let named = replay.runs();
    let is_named = |id: u64| {
        let after = named.partition_point(|run| run.first.0 <= id);
        after > 0 && id - named[after - 1].first.0 < u64::from(named[after - 1].count)
    };
    let mut census = Census { journals: copies.findings, broken_records: replay.broken.clone(), ..Census::default() };
    let mut walk = StripeWalk::new(stores);
    loop {
        let mut some: Vec<StripeFound> = Vec::with_capacity(DESCRIBE_AT_ONCE);
        while some.len() < DESCRIBE_AT_ONCE
            && let Some(found) = walk.next().await
        {
            some.push(found);
        }
        if some.is_empty() {
            break;
        }
        for (found, described) in some.iter().zip(join_all(some.iter().map(|found| describe(stores, found))).await) {
            census.stripes += 1;
            let Some((mut stripe, about)) = described else {
                census.undescribed += 1;
                continue;
            };
            let is_bad = |holder: &crate::Holder| {
                verified[usize::from(holder.device)].bad_shards.contains(&(found.stripe.0, holder.slot))
            };
            stripe.holders.retain(|holder| !is_bad(holder));
            let unfinished = stripe.present() < stripe.total()
                && !about.pack
                && replay.would_know(about.modified_ms)
                && !is_named(found.stripe.0);
            census.count(&stripe, unfinished, || format!("{} of {}/{}", stripe.id, about.bucket, about.key));
        }
    }
    let name = |(device, error): &(u16, StoreError)| format!("{}: {error}", stores[usize::from(*device)].device());
    census.failed = walk.failed.iter().map(name).collect();
    census
}

impl Census {
    fn count(&mut self, stripe: &StripeRef, unfinished: bool, name: impl FnOnce() -> String) {
        let missing = stripe.total() - stripe.present();
        if missing == 0 {
            self.complete += 1;
        } else if unfinished {
            self.unfinished += 1;
        } else if stripe.is_readable() {
            *self.missing.entry(missing).or_default() += 1;
        } else {
            self.unreadable += 1;
            if self.examples.len() < NAMED_MAX {
                self.examples.push(name());
            }
        }
    }
}
