//! Listings: keys in UTF-8 byte order, those that share a prefix up to the delimiter rolled up into it.
//! A rolled-up prefix is skipped by seeking behind it, however many keys it stands for.

use std::ops::Bound;

use redb::ReadableTable;
use serde::{Deserialize, Serialize};

use crate::error::{IndexError, ViewResult};
use crate::snapshot::{ObjectHead, Snapshot, head_of, listed_key};
use crate::tables::{OBJECTS, after_prefix, object_key};

/// What to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListRequest<'a> {
    /// Only keys that start so.
    pub prefix: &'a str,
    /// Keys that share a prefix up to and with this (looked for behind `prefix`) are rolled up. An empty
    /// one is none.
    pub delimiter: Option<&'a str>,
    /// Only keys and rolled-up prefixes that sort after this.
    pub after: Option<&'a str>,
    /// At most this many keys and rolled-up prefixes together.
    pub limit: usize,
}

/// One page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPage {
    /// Objects, in order.
    pub objects: Vec<ObjectHead>,
    /// Rolled-up prefixes, in order.
    pub prefixes: Vec<String>,
    /// The last key or prefix of the page, when there is more; goes into `after`.
    pub next: Option<String>,
}

/// What `key` is rolled up into.
fn rolled_up<'k>(key: &'k str, request: &ListRequest<'_>) -> Option<&'k str> {
    let delimiter = request.delimiter.filter(|d| !d.is_empty())?;
    let rest = key.strip_prefix(request.prefix)?;
    let at = rest.find(delimiter)?;
    Some(&key[..request.prefix.len() + at + delimiter.len()])
}

impl Snapshot {
    /// One page of a bucket's objects. A bucket that is not there has none.
    ///
    /// # Errors
    /// [`IndexError::View`].
    pub fn list(&self, bucket: &str, request: &ListRequest<'_>) -> Result<ListPage, IndexError> {
        self.read(|txn| {
            let table = txn.open_table(OBJECTS)?;
            list(&table, bucket, request)
        })
    }
}

fn list(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    bucket: &str,
    request: &ListRequest<'_>,
) -> ViewResult<ListPage> {
    let first = object_key(bucket, request.prefix);
    let end = after_prefix(&first);
    let mut page = ListPage::default();
    let mut last: Option<String> = None;
    let mut from = start(bucket, request, first);
    'seek: loop {
        let lower = match &from {
            Bound::Excluded(key) => Bound::Excluded(key.as_slice()),
            Bound::Included(key) => Bound::Included(key.as_slice()),
            Bound::Unbounded => unreachable!("a listing starts somewhere"),
        };
        if matches!(lower, Bound::Included(key) | Bound::Excluded(key) if key >= end.as_slice()) {
            return Ok(page);
        }
        for row in table.range::<&[u8]>((lower, Bound::Excluded(end.as_slice())))? {
            let (name, row) = row?;
            let key = listed_key(name.value(), bucket)?;
            if page.objects.len() + page.prefixes.len() == request.limit {
                page.next = last;
                return Ok(page);
            }
            if let Some(prefix) = rolled_up(key, request) {
                page.prefixes.push(prefix.to_owned());
                last = Some(prefix.to_owned());
                from = Bound::Included(after_prefix(&object_key(bucket, prefix)));
                continue 'seek;
            }
            page.objects.push(head_of(key, row.value())?);
            last = Some(key.to_owned());
        }
        return Ok(page);
    }
}

/// Where a listing starts.
fn start(bucket: &str, request: &ListRequest<'_>, first: Vec<u8>) -> Bound<Vec<u8>> {
    let Some(after) = request.after else { return Bound::Included(first) };
    // Everything rolled up with `after` sorts under a prefix that is not after it.
    let seek = match rolled_up(after, request) {
        Some(prefix) => Bound::Included(after_prefix(&object_key(bucket, prefix))),
        None => Bound::Excluded(object_key(bucket, after)),
    };
    match &seek {
        Bound::Included(key) | Bound::Excluded(key) if *key < first => Bound::Included(first),
        _ => seek,
    }
}
