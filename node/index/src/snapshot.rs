//! Reads of one moment's rows. Cheap when the pages are in memory; otherwise a page is read from the
//! device on the calling thread (see `block.rs`).

use std::ops::Bound;
use std::sync::Arc;

use base::{Lsn, StripeId};
use redb::{ReadTransaction, ReadableDatabase, ReadableTable};
use serde::{Deserialize, Serialize};

use crate::error::{IndexError, ViewError, ViewResult};
use crate::model::{
    BucketRow, Checksum, ETag, GarbageRow, Layout, MissingShard, ObjectMeta, ObjectRow, PartRow, StripeRun, UploadRow,
    leaf_layout,
};
use crate::tables::{
    BUCKETS, GARBAGE, Held, LAYOUTS, META, MISSING, OBJECTS, Owner, PACK_MEMBERS, PACKS, PARTS, StoredObject,
    StoredPack, StoredUpload, UNPACKED, UPLOADS, UPLOADS_BY_KEY, after_prefix, decode, key_of, meta, object_key,
};
use crate::view::View;

/// An object without its layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectHead {
    /// Its key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Entity tag.
    pub etag: ETag,
    /// Milliseconds since 1970.
    pub modified_ms: u64,
    /// Headers and user metadata.
    pub meta: ObjectMeta,
    /// The checksum kept with it.
    pub checksum: Option<Checksum>,
}

/// Bytes in the journal, or in a pack, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmallObject {
    /// Where the bytes are; goes into [`crate::model::PackMove::from`].
    #[serde(deserialize_with = "leaf_layout")]
    pub from: Layout,
    /// Bytes.
    pub size: u32,
    /// Bucket.
    pub bucket: String,
    /// Object key.
    pub key: String,
    /// Part number, when it is a part.
    pub part: Option<u32>,
}

/// A pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackInfo {
    /// Its stripe.
    pub stripe: StripeId,
    /// Its placement group.
    pub group: u32,
    /// Data bytes in the stripe.
    pub pack_bytes: u32,
    /// Bytes that objects still use.
    pub live_bytes: u64,
    /// Objects and parts in it.
    pub live_count: u32,
}

/// Numbers of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// The newest journal position these rows contain.
    pub applied: Lsn,
    /// No stripe id at or above this was given out.
    pub stripes_below: u64,
    /// No row brings a stripe with an id below this any more.
    pub stripes_fence: u64,
    /// Objects.
    pub objects: u64,
    /// Bytes of all objects.
    pub object_bytes: u64,
}

/// One moment's rows.
pub struct Snapshot {
    pub(crate) txn: ReadTransaction,
    view: Arc<View>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("view", &self.view.device()).finish_non_exhaustive()
    }
}

impl Snapshot {
    pub(crate) fn of(view: &Arc<View>) -> Result<Self, IndexError> {
        match view.begin_read() {
            Ok(txn) => Ok(Self { txn, view: Arc::clone(view) }),
            Err(error) => Err(view.fail(&error)),
        }
    }

    /// Runs a read; a view that cannot answer is out of use from then on.
    pub(crate) fn read<T>(&self, f: impl FnOnce(&ReadTransaction) -> ViewResult<T>) -> Result<T, IndexError> {
        f(&self.txn).map_err(|error| self.view.fail(&error))
    }

    /// A bucket.
    ///
    /// # Errors
    /// [`IndexError::View`], as all reads of a snapshot.
    pub fn bucket(&self, name: &str) -> Result<Option<BucketRow>, IndexError> {
        self.read(|txn| txn.open_table(BUCKETS)?.get(name)?.map(|row| decode("buckets", row.value())).transpose())
    }

    /// All buckets, by name.
    ///
    /// # Errors
    /// [`IndexError::View`].
    pub fn buckets(&self) -> Result<Vec<(String, BucketRow)>, IndexError> {
        self.read(|txn| {
            let table = txn.open_table(BUCKETS)?;
            let rows = table.iter()?.map(|row| {
                let (name, row) = row?;
                Ok((name.value().to_owned(), decode("buckets", row.value())?))
            });
            rows.collect()
        })
    }

    /// Buckets with names after `after`, by name, at most `limit`; true when there are more.
    ///
    /// # Errors
    /// [`IndexError::View`].
    pub fn buckets_page(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<(String, BucketRow)>, bool), IndexError> {
        self.read(|txn| {
            let table = txn.open_table(BUCKETS)?;
            let start = after.map_or(Bound::Unbounded, Bound::Excluded);
            let mut page = Vec::new();
            for row in table.range::<&str>((start, Bound::Unbounded))? {
                let (name, row) = row?;
                if page.len() == limit {
                    return Ok((page, true));
                }
                page.push((name.value().to_owned(), decode("buckets", row.value())?));
            }
            Ok((page, false))
        })
    }

    /// An object with its layout.
    ///
    /// # Errors
    /// [`IndexError::View`].
    pub fn object(&self, bucket: &str, key: &str) -> Result<Option<ObjectRow>, IndexError> {
        self.read(|txn| {
            let name = object_key(bucket, key);
            let Some(row) = txn.open_table(OBJECTS)?.get(name.as_slice())? else { return Ok(None) };
            let mut stored: StoredObject = decode("objects", row.value())?;
            let layout = match stored.layout.take() {
                Some(layout) => layout,
                None => {
                    let row = txn.open_table(LAYOUTS)?.get(name.as_slice())?;
                    decode("layouts", row.ok_or(ViewError::Disagreement("an object has no layout"))?.value())?
                }
            };
            Ok(Some(stored.into_row(layout)))
        })
    }

    /// An object without its layout.
    ///
    /// # Errors
    /// [`IndexError::View`].
    pub fn head(&self, bucket: &str, key: &str) -> Result<Option<ObjectHead>, IndexError> {
        self.read(|txn| {
            let name = object_key(bucket, key);
            let row = txn.open_table(OBJECTS)?.get(name.as_slice())?;
            row.map(|row| head_of(key, row.value())).transpose()
        })
    }

    /// An upload under way, with its bucket.
    ///
    /// # Errors
    /// [`IndexError::View`].
    pub fn upload(&self, upload: u128) -> Result<Option<(String, UploadRow)>, IndexError> {
        self.read(|txn| {
            let row = txn.open_table(UPLOADS)?.get(upload)?;
            let stored = row.map(|row| decode::<StoredUpload>("uploads", row.value())).transpose()?;
            Ok(stored.map(|s| (s.bucket, s.row)))
        })
    }

    /// Uploads under way in a bucket whose key starts with `prefix`, ordered by key and upload, after
    /// (key, upload); true when there are more than `limit`.
    ///
    /// # Errors
    /// [`IndexError::View`].
    pub fn uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<(&str, u128)>,
        limit: usize,
    ) -> Result<(Vec<(u128, UploadRow)>, bool), IndexError> {
        self.read(|txn| {
            let (names, table) = (txn.open_table(UPLOADS_BY_KEY)?, txn.open_table(UPLOADS)?);
            let first = object_key(bucket, prefix);
            let end = after_prefix(&first);
            let after = after.map(|(key, upload)| (object_key(bucket, key), upload)).filter(|(key, _)| *key >= first);
            let start = match &after {
                Some((key, upload)) => Bound::Excluded((key.as_slice(), *upload)),
                None => Bound::Included((first.as_slice(), 0)),
            };
            let mut page = Vec::new();
            for row in names.range::<(&[u8], u128)>((start, Bound::Excluded((end.as_slice(), 0))))? {
                let upload = row?.0.value().1;
                if page.len() == limit {
                    return Ok((page, true));
                }
                let row = table.get(upload)?.ok_or(ViewError::Disagreement("an upload has no row"))?;
                page.push((upload, decode::<StoredUpload>("uploads", row.value())?.row));
            }
            Ok((page, false))
        })
    }

    /// One part.
    ///
    /// # Errors
    /// [`IndexError::View`].
    pub fn part(&self, upload: u128, number: u32) -> Result<Option<PartRow>, IndexError> {
        self.read(|txn| {
            let row = txn.open_table(PARTS)?.get((upload, number))?;
            row.map(|row| decode("parts", row.value())).transpose()
        })
    }

    /// Parts with numbers above `after`; true when there are more than `limit`.
    ///
    /// # Errors
    /// [`IndexError::View`].
    pub fn parts(&self, upload: u128, after: u32, limit: usize) -> Result<(Vec<(u32, PartRow)>, bool), IndexError> {
        self.read(|txn| {
            let table = txn.open_table(PARTS)?;
            let start = Bound::Excluded((upload, after));
            let mut page = Vec::new();
            for row in table.range((start, Bound::Included((upload, u32::MAX))))? {
                let (key, row) = row?;
                if page.len() == limit {
                    return Ok((page, true));
                }
                page.push((key.value().1, decode("parts", row.value())?));
            }
            Ok((page, false))
        })
    }

    /// Garbage rows with ids from `from` on, at most `limit`, oldest first.
    ///
    /// # Errors
    /// [`IndexError::View`].
    pub fn garbage(&self, from: u64, limit: usize) -> Result<Vec<GarbageRow>, IndexError> {
        self.read(|txn| {
            let table = txn.open_table(GARBAGE)?;
            let rows = table.range(from..)?.take(limit).map(|row| {
                let (id, runs) = row?;
                Ok(GarbageRow { id: id.value(), runs: decode("garbage", runs.value())? })
            });
            rows.collect()
        })
    }

    /// Data that lives in the journal only, oldest first, after a place (position, offset).
    ///
    /// # Errors
    /// [`IndexError::View`].
    pub fn unpacked(&self, after: Option<(Lsn, u32)>, limit: usize) -> Result<Vec<SmallObject>, IndexError> {
        self.read(|txn| {
            let table = txn.open_table(UNPACKED)?;
            let start = after.map_or(Bound::Unbounded, |(lsn, offset)| Bound::Excluded((lsn.0, offset)));
            let mut page = Vec::new();
            for row in table.range::<(u64, u32)>((start, Bound::Unbounded))?.take(limit) {
                let (place, held) = row?;
                let (lsn, offset) = place.value();
                let from = Layout::Journal { lsn: Lsn(lsn), offset };
                page.push(small_object(txn, from, decode("unpacked", held.value())?)?);
            }
            Ok(page)
        })
    }

    /// The oldest journal position that holds data not yet packed.
    ///
    /// # Errors
    /// [`IndexError::View`].
    pub fn oldest_unpacked(&self) -> Result<Option<Lsn>, IndexError> {
        self.read(|txn| Ok(txn.open_table(UNPACKED)?.first()?.map(|(place, _)| Lsn(place.value().0))))
    }

    /// Packs after stripe `after` that use at most `percent` of their bytes, at most `limit`.
    ///
    /// # Errors
    /// [`IndexError::View`].
    pub fn packs_below(
        &self,
        percent: u32,
        after: Option<StripeId>,
        limit: usize,
    ) -> Result<Vec<PackInfo>, IndexError> {
        self.read(|txn| {
            let table = txn.open_table(PACKS)?;
            let start = after.map_or(Bound::Unbounded, |stripe| Bound::Excluded(stripe.0));
            let mut page = Vec::new();
            for row in table.range::<u64>((start, Bound::Unbounded))? {
                let (stripe, row) = row?;
                let StoredPack { group, pack_bytes, live_bytes, live_count } = decode("packs", row.value())?;
                if page.len() == limit {
                    break;
                }
                if live_bytes * 100 <= u64::from(pack_bytes) * u64::from(percent) {
                    page.push(PackInfo { stripe: StripeId(stripe.value()), group, pack_bytes, live_bytes, live_count });
                }
            }
            Ok(page)
        })
    }

    /// What is alive in a pack, by place.
    ///
    /// # Errors
    /// [`IndexError::View`].
    pub fn pack_members(&self, stripe: StripeId) -> Result<Vec<SmallObject>, IndexError> {
        self.read(|txn| {
            let Some(row) = txn.open_table(PACKS)?.get(stripe.0)? else { return Ok(Vec::new()) };
            let pack: StoredPack = decode("packs", row.value())?;
            let table = txn.open_table(PACK_MEMBERS)?;
            let mut members = Vec::new();
            for row in table.range((stripe.0, 0)..=(stripe.0, u32::MAX))? {
                let (place, held) = row?;
                let offset = place.value().1;
                let from = Layout::Packed { stripe, group: pack.group, pack_bytes: pack.pack_bytes, offset };
                members.push(small_object(txn, from, decode("pack members", held.value())?)?);
            }
            Ok(members)
        })
    }

    /// Shards that repair owes, after (stripe, slot), at most `limit`.
    ///
    /// # Errors
    /// [`IndexError::View`].
    pub fn missing_shards(&self, after: Option<(StripeId, u8)>, limit: usize) -> Result<Vec<MissingShard>, IndexError> {
        self.read(|txn| {
            let table = txn.open_table(MISSING)?;
            let start = after.map_or(Bound::Unbounded, |(stripe, slot)| Bound::Excluded((stripe.0, slot)));
            let rows = table.range::<(u64, u8)>((start, Bound::Unbounded))?.take(limit).map(|row| {
                let (key, value) = row?;
                let ((stripe, slot), (group, stripe_bytes)) = (key.value(), value.value());
                Ok(MissingShard { stripe: StripeId(stripe), slot, group, stripe_bytes })
            });
            rows.collect()
        })
    }

    /// The partition's numbers.
    ///
    /// # Errors
    /// [`IndexError::View`].
    pub fn counters(&self) -> Result<Counters, IndexError> {
        self.read(|txn| {
            let table = txn.open_table(META)?;
            let number = |name: &str| -> ViewResult<u64> { Ok(table.get(name)?.map_or(0, |v| v.value())) };
            Ok(Counters {
                applied: Lsn(number(meta::APPLIED)?),
                stripes_below: number(meta::STRIPES_BELOW)?,
                stripes_fence: number(meta::STRIPES_FENCE)?,
                objects: number(meta::OBJECTS)?,
                object_bytes: number(meta::OBJECT_BYTES)?,
            })
        })
    }

    /// Gives every run of stripes that any row refers to (objects, parts, packs, garbage) to `take`,
    /// in no stated order, each once.
    ///
    /// # Errors
    /// [`IndexError::View`].
    pub fn stripe_runs(&self, mut take: impl FnMut(StripeRun)) -> Result<(), IndexError> {
        self.read(|txn| {
            for row in txn.open_table(OBJECTS)?.iter()? {
                let stored: StoredObject = decode("objects", row?.1.value())?;
                stored.layout.iter().for_each(|layout| runs_of(layout, &mut take));
            }
            for row in txn.open_table(LAYOUTS)?.iter()? {
                runs_of(&decode("layouts", row?.1.value())?, &mut take);
            }
            for row in txn.open_table(PARTS)?.iter()? {
                runs_of(&decode::<PartRow>("parts", row?.1.value())?.layout, &mut take);
            }
            for row in txn.open_table(GARBAGE)?.iter()? {
                decode::<Vec<StripeRun>>("garbage", row?.1.value())?.into_iter().for_each(&mut take);
            }
            for row in txn.open_table(PACKS)?.iter()? {
                let (stripe, row) = row?;
                let pack: StoredPack = decode("packs", row.value())?;
                take(crate::apply::pack_run(StripeId(stripe.value()), pack.group, pack.pack_bytes));
            }
            Ok(())
        })
    }
}

pub(crate) fn runs_of(layout: &Layout, take: &mut impl FnMut(StripeRun)) {
    match layout {
        Layout::Stripes(runs) => runs.iter().copied().for_each(take),
        Layout::Parts(parts) => parts.iter().for_each(|part| {
            if let Layout::Stripes(runs) = &part.layout {
                runs.iter().copied().for_each(&mut *take);
            }
        }),
        Layout::Journal { .. } | Layout::Packed { .. } => {}
    }
}

pub(crate) fn head_of(key: &str, row: &[u8]) -> ViewResult<ObjectHead> {
    let StoredObject { size, etag, modified_ms, meta, checksum, .. } = decode("objects", row)?;
    Ok(ObjectHead { key: key.to_owned(), size, etag, modified_ms, meta, checksum })
}

/// The key of a row of objects, when it is one of `bucket`'s.
pub(crate) fn listed_key<'a>(row: &'a [u8], bucket: &str) -> ViewResult<&'a str> {
    key_of("objects", row, bucket)
}

fn small_object(txn: &ReadTransaction, from: Layout, held: Held) -> ViewResult<SmallObject> {
    let Held { owner, size } = held;
    Ok(match owner {
        Owner::Object { bucket, key, part } => SmallObject { from, size, bucket, key, part },
        Owner::Upload { upload, number } => {
            let row = txn.open_table(UPLOADS)?.get(upload)?;
            let row = row.ok_or(ViewError::Disagreement("a part belongs to no upload"))?;
            let stored: StoredUpload = decode("uploads", row.value())?;
            SmallObject { from, size, bucket: stored.bucket, key: stored.row.key, part: Some(number) }
        }
    })
}

impl View {
    fn begin_read(&self) -> ViewResult<ReadTransaction> {
        Ok(self.database()?.begin_read()?)
    }
}
