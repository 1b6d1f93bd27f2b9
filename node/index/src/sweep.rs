//! Every run of stripes that a row refers to, page by page, over as many snapshots as there are pages.
//!
//! Rows change between pages. Runs only ever move forward in the order in which the tables are read here: a part's
//! become an object's, an object's and a pack's become garbage. So each run that had a row when the first page was
//! read, and has one still, is met at least once (some are met twice).

use std::ops::Bound;

use base::StripeId;
use redb::ReadTransaction;
use serde::{Deserialize, Serialize};

use crate::error::{IndexError, ViewError, ViewResult};
use crate::model::{PartRow, StripeRun};
use crate::snapshot::{Snapshot, runs_of};
use crate::tables::{GARBAGE, LAYOUTS, OBJECTS, PACKS, PARTS, StoredObject, StoredPack, decode};

/// Rows looked at for one page, however few runs they have.
const ROWS_MAX: usize = 16_384;

/// Where a walk over the runs goes on: behind a row of one of the tables, in the order in which they are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunsFrom {
    /// In the packs.
    Packs(Option<u64>),
    /// In the parts of uploads under way.
    Parts(Option<(u128, u32)>),
    /// In the objects.
    Objects(Option<Vec<u8>>),
    /// In what waits to be freed.
    Garbage(Option<u64>),
}

impl Default for RunsFrom {
    /// The start.
    fn default() -> Self {
        Self::Packs(None)
    }
}

/// One page of runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunsPage {
    /// The runs.
    pub runs: Vec<StripeRun>,
    /// Where to go on; `None` at the end.
    pub next: Option<RunsFrom>,
}

struct Page {
    runs: Vec<StripeRun>,
    rows: usize,
    limit: usize,
}

impl Page {
    /// One more row was looked at; whether the page is full.
    fn row(&mut self) -> bool {
        self.rows += 1;
        self.rows >= ROWS_MAX || self.runs.len() >= self.limit
    }
}

fn after<K>(key: Option<K>) -> Bound<K> {
    key.map_or(Bound::Unbounded, Bound::Excluded)
}

impl Snapshot {
    /// The runs of some rows from a place on: about `limit`, or those of one row where it alone has more.
    ///
    /// # Errors
    /// [`IndexError::View`].
    pub fn stripe_runs_page(&self, from: &RunsFrom, limit: usize) -> Result<RunsPage, IndexError> {
        self.read(|txn| {
            let mut page = Page { runs: Vec::new(), rows: 0, limit };
            let mut from = from.clone();
            loop {
                if let Some(next) = walk(txn, &from, &mut page)? {
                    return Ok(RunsPage { runs: page.runs, next: Some(next) });
                }
                from = match from {
                    RunsFrom::Packs(_) => RunsFrom::Parts(None),
                    RunsFrom::Parts(_) => RunsFrom::Objects(None),
                    RunsFrom::Objects(_) => RunsFrom::Garbage(None),
                    RunsFrom::Garbage(_) => return Ok(RunsPage { runs: page.runs, next: None }),
                };
            }
        })
    }
}

/// Reads on in one table; where to go on in it when the page is full.
fn walk(txn: &ReadTransaction, from: &RunsFrom, page: &mut Page) -> ViewResult<Option<RunsFrom>> {
    match from {
        RunsFrom::Packs(at) => {
            for row in txn.open_table(PACKS)?.range::<u64>((after(*at), Bound::Unbounded))? {
                let (stripe, row) = row?;
                let pack: StoredPack = decode("packs", row.value())?;
                page.runs.push(crate::apply::pack_run(StripeId(stripe.value()), pack.group, pack.pack_bytes));
                if page.row() {
                    return Ok(Some(RunsFrom::Packs(Some(stripe.value()))));
                }
            }
        }
        RunsFrom::Parts(at) => {
            for row in txn.open_table(PARTS)?.range::<(u128, u32)>((after(*at), Bound::Unbounded))? {
                let (key, row) = row?;
                runs_of(&decode::<PartRow>("parts", row.value())?.layout, &mut |run| page.runs.push(run));
                if page.row() {
                    return Ok(Some(RunsFrom::Parts(Some(key.value()))));
                }
            }
        }
        RunsFrom::Objects(at) => return objects(txn, at.as_deref(), page),
        RunsFrom::Garbage(at) => {
            for row in txn.open_table(GARBAGE)?.range::<u64>((after(*at), Bound::Unbounded))? {
                let (id, row) = row?;
                page.runs.extend(decode::<Vec<StripeRun>>("garbage", row.value())?);
                if page.row() {
                    return Ok(Some(RunsFrom::Garbage(Some(id.value()))));
                }
            }
        }
    }
    Ok(None)
}

/// A long layout is read with its object: between two snapshots it may become a short one.
fn objects(txn: &ReadTransaction, at: Option<&[u8]>, page: &mut Page) -> ViewResult<Option<RunsFrom>> {
    let layouts = txn.open_table(LAYOUTS)?;
    for row in txn.open_table(OBJECTS)?.range::<&[u8]>((after(at), Bound::Unbounded))? {
        let (name, row) = row?;
        let stored: StoredObject = decode("objects", row.value())?;
        let mut take = |run| page.runs.push(run);
        match &stored.layout {
            Some(layout) => runs_of(layout, &mut take),
            None => {
                let layout = layouts.get(name.value())?;
                let layout = layout.ok_or(ViewError::Disagreement("an object has no layout"))?;
                runs_of(&decode("layouts", layout.value())?, &mut take);
            }
        }
        if page.row() {
            return Ok(Some(RunsFrom::Objects(Some(name.value().to_vec()))));
        }
    }
    Ok(None)
}
