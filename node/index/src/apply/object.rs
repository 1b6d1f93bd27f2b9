//! Buckets and objects.

use redb::ReadableTable;

use super::store::Rows;
use super::{Present, holds, judge_put};
use crate::error::ViewResult;
use crate::model::{BucketRow, Condition, Layout, MissingShard, ObjectRow, Outcome, Refusal};
use crate::tables::{Owner, StoredObject, after_prefix, decode, encode, object_key};

impl Rows<'_> {
    pub(super) fn create_bucket(&mut self, name: &str, row: &BucketRow) -> ViewResult<Outcome> {
        if let Some(there) = self.buckets.get(name)? {
            let there: BucketRow = decode("buckets", there.value())?;
            return Ok(Outcome::Refused(Refusal::BucketExists { owner: there.owner }));
        }
        self.buckets.insert(name, encode(row).as_slice())?;
        Ok(Outcome::Done)
    }

    pub(super) fn delete_bucket(&mut self, name: &str) -> ViewResult<Outcome> {
        if !self.has_bucket(name)? {
            return Ok(Outcome::Refused(Refusal::NoSuchBucket));
        }
        let start = object_key(name, "");
        let end = after_prefix(&start);
        if self.objects.range(start.as_slice()..end.as_slice())?.next().is_some() {
            return Ok(Outcome::Refused(Refusal::BucketNotEmpty));
        }
        let uploads: Vec<u128> = self
            .uploads_by_key
            .range((start.as_slice(), 0)..(end.as_slice(), 0))?
            .map(|row| Ok(row?.0.value().1))
            .collect::<ViewResult<_>>()?;
        for upload in uploads {
            self.drop_upload(upload)?;
        }
        self.buckets.remove(name)?;
        Ok(Outcome::Done)
    }

    pub(super) fn put_object(
        &mut self,
        bucket: &str,
        key: &str,
        row: ObjectRow,
        condition: &Condition,
        missing: &[MissingShard],
    ) -> ViewResult<Outcome> {
        if self.is_stale(&row.layout) {
            return self.refuse(&row.layout, Refusal::StaleStripes);
        }
        if !self.has_bucket(bucket)? {
            return self.refuse(&row.layout, Refusal::NoSuchBucket);
        }
        let name = object_key(bucket, key);
        let there = self.object(&name)?;
        if let Some(refusal) = judge_put(condition, there.as_ref().map(|(s, _)| present(s)).as_ref()) {
            return self.refuse(&row.layout, refusal);
        }
        self.replace(&name, there, &row)?;
        self.hold(&row.layout, row.size, Owner::Object { bucket: bucket.to_owned(), key: key.to_owned(), part: None })?;
        self.owe(missing)?;
        Ok(Outcome::Put(Box::new(row)))
    }

    pub(super) fn delete_object(&mut self, bucket: &str, key: &str, condition: &Condition) -> ViewResult<Outcome> {
        if !self.has_bucket(bucket)? {
            return Ok(Outcome::Refused(Refusal::NoSuchBucket));
        }
        let name = object_key(bucket, key);
        let Some((stored, layout)) = self.object(&name)? else {
            // As AWS has it: `If-Match: *` asks whether there is one; every other condition is about the one
            // that is there, and deleting none succeeds.
            let asks = condition.must_match.as_ref().is_some_and(|tags| tags.iter().any(|tag| tag == "*"));
            return Ok(if asks {
                Outcome::Refused(Refusal::PreconditionFailed)
            } else {
                Outcome::Deleted { existed: false }
            });
        };
        if let Some(refusal) = holds(condition, &present(&stored)) {
            return Ok(Outcome::Refused(refusal));
        }
        self.forget(&stored, &layout)?;
        self.objects.remove(name.as_slice())?;
        self.layouts.remove(name.as_slice())?;
        Ok(Outcome::Deleted { existed: true })
    }

    /// Writes `row` in the place of what is there.
    pub(super) fn replace(
        &mut self,
        name: &[u8],
        there: Option<(StoredObject, Layout)>,
        row: &ObjectRow,
    ) -> ViewResult<()> {
        if let Some((stored, layout)) = there {
            self.forget(&stored, &layout)?;
        }
        self.counters.objects += 1;
        self.counters.object_bytes += row.size;
        self.write_object(name, StoredObject::of(row, None), row.layout.clone())
    }

    /// An object's bytes are needed no more.
    fn forget(&mut self, stored: &StoredObject, layout: &Layout) -> ViewResult<()> {
        let mut runs = Vec::new();
        self.release(layout, &mut runs)?;
        self.discard(&runs)?;
        self.counters.objects -= 1;
        self.counters.object_bytes -= stored.size;
        Ok(())
    }
}

pub(super) fn present(stored: &StoredObject) -> Present {
    Present { etag: stored.etag, size: stored.size, modified_ms: stored.modified_ms }
}
