//! Multipart uploads.

use md5::{Digest, Md5};
use redb::ReadableTable;

use super::judge_put;
use super::object::present;
use super::store::Rows;
use crate::error::{ViewError, ViewResult};
use crate::model::{
    Checksum, Condition, ETag, Layout, MissingShard, ObjectRow, Outcome, PartLayout, PartRow, Refusal, UploadRow,
};
use crate::tables::{Completed, Owner, StoredObject, StoredUpload, decode, encode, object_key};

/// AWS's smallest part, the last excepted, in bytes.
pub(crate) const PART_BYTES_MIN: u64 = 5 << 20;
/// AWS's largest object, in bytes.
pub(crate) const OBJECT_BYTES_MAX: u64 = 5 << 40;
/// Completions that can be repeated: enough for any client's retries, and a few MiB of rows.
pub(crate) const COMPLETED_KEPT: u64 = 10_000;

/// What a completion says besides where.
pub(super) struct Completion<'a> {
    pub(super) parts: &'a [(u32, [u8; 16])],
    pub(super) modified_ms: u64,
    pub(super) checksum: &'a Option<Checksum>,
    pub(super) condition: &'a Condition,
}

impl Rows<'_> {
    fn upload(&self, upload: u128) -> ViewResult<Option<StoredUpload>> {
        self.uploads.get(upload)?.map(|row| decode("uploads", row.value())).transpose()
    }

    pub(super) fn create_upload(&mut self, bucket: &str, upload: u128, row: &UploadRow) -> ViewResult<Outcome> {
        if !self.has_bucket(bucket)? {
            return Ok(Outcome::Refused(Refusal::NoSuchBucket));
        }
        // Ids are drawn at random, 128 bits: one that is there is the same command once more.
        if self.upload(upload)?.is_none() {
            let stored = StoredUpload { bucket: bucket.to_owned(), row: row.clone() };
            self.uploads.insert(upload, encode(&stored).as_slice())?;
            self.uploads_by_key.insert((object_key(bucket, &row.key).as_slice(), upload), ())?;
        }
        Ok(Outcome::Done)
    }

    pub(super) fn put_part(
        &mut self,
        bucket: &str,
        upload: u128,
        number: u32,
        row: PartRow,
        missing: &[MissingShard],
    ) -> ViewResult<Outcome> {
        if self.is_stale(&row.layout) {
            return self.refuse(&row.layout, Refusal::StaleStripes);
        }
        if self.upload(upload)?.is_none_or(|stored| stored.bucket != bucket) {
            return self.refuse(&row.layout, Refusal::NoSuchUpload);
        }
        let mut runs = Vec::new();
        if let Some(old) = self.part(upload, number)? {
            self.release(&old.layout, &mut runs)?;
        }
        self.discard(&runs)?;
        self.parts.insert((upload, number), encode(&row).as_slice())?;
        self.hold(&row.layout, row.size, Owner::Upload { upload, number })?;
        self.owe(missing)?;
        Ok(Outcome::Done)
    }

    pub(super) fn part(&self, upload: u128, number: u32) -> ViewResult<Option<PartRow>> {
        self.parts.get((upload, number))?.map(|row| decode("parts", row.value())).transpose()
    }

    pub(super) fn abort_upload(&mut self, bucket: &str, key: &str, upload: u128) -> ViewResult<Outcome> {
        match self.upload(upload)? {
            Some(stored) if stored.bucket == bucket && stored.row.key == key => {
                self.drop_upload(upload)?;
                Ok(Outcome::Done)
            }
            _ => Ok(Outcome::Refused(Refusal::NoSuchUpload)),
        }
    }

    /// Removes an upload and frees all its parts.
    pub(super) fn drop_upload(&mut self, upload: u128) -> ViewResult<()> {
        let mut runs = Vec::new();
        for (_, row) in self.take_parts(upload)? {
            self.release(&row.layout, &mut runs)?;
        }
        self.discard(&runs)?;
        self.remove_upload(upload)
    }

    fn remove_upload(&mut self, upload: u128) -> ViewResult<()> {
        let stored = self.upload(upload)?.ok_or(ViewError::Disagreement("an upload has no row"))?;
        self.uploads.remove(upload)?;
        self.uploads_by_key.remove((object_key(&stored.bucket, &stored.row.key).as_slice(), upload))?;
        Ok(())
    }

    /// Removes and gives all parts, ascending.
    fn take_parts(&mut self, upload: u128) -> ViewResult<Vec<(u32, PartRow)>> {
        let mut taken = Vec::new();
        for row in self.parts.extract_from_if((upload, 0)..=(upload, u32::MAX), |_, _| true)? {
            let (key, value) = row?;
            taken.push((key.value().1, decode("parts", value.value())?));
        }
        Ok(taken)
    }

    pub(super) fn complete_upload(
        &mut self,
        bucket: &str,
        key: &str,
        upload: u128,
        completion: &Completion<'_>,
    ) -> ViewResult<Outcome> {
        if let Some(again) = self.completed_before(bucket, key, upload)? {
            return Ok(again);
        }
        if !self.has_bucket(bucket)? {
            return Ok(Outcome::Refused(Refusal::NoSuchBucket));
        }
        let stored = match self.upload(upload)? {
            Some(stored) if stored.bucket == bucket && stored.row.key == key => stored,
            _ => return Ok(Outcome::Refused(Refusal::NoSuchUpload)),
        };
        let name = object_key(bucket, key);
        let there = self.object(&name)?;
        if let Some(refusal) = judge_put(completion.condition, there.as_ref().map(|(s, _)| present(s)).as_ref()) {
            return Ok(Outcome::Refused(refusal));
        }
        let row = match self.assemble(upload, &stored.row, completion)? {
            Ok(row) => row,
            Err(refusal) => return Ok(Outcome::Refused(refusal)),
        };
        self.settle_parts(bucket, key, upload, &row)?;
        self.remove_upload(upload)?;
        self.replace(&name, there, &row)?;
        self.remember_completion(bucket, key, upload, &row)?;
        Ok(Outcome::Put(Box::new(row)))
    }

    /// The object to be, when the parts named make one.
    fn assemble(
        &self,
        upload: u128,
        begun: &UploadRow,
        completion: &Completion<'_>,
    ) -> ViewResult<Result<ObjectRow, Refusal>> {
        if let (Some(given), Some((algorithm, kind))) = (completion.checksum, begun.checksum)
            && (given.algorithm != algorithm || given.kind != kind)
        {
            return Ok(Err(Refusal::ChecksumMismatch));
        }
        let Some(&(last, _)) = completion.parts.last() else { return Ok(Err(Refusal::InvalidPart { number: 0 })) };
        if !completion.parts.is_sorted_by(|a, b| a.0 < b.0) {
            return Ok(Err(Refusal::InvalidPartOrder));
        }
        let mut layouts = Vec::with_capacity(completion.parts.len());
        let mut size = 0u64;
        let mut md5 = Md5::new();
        for &(number, tag) in completion.parts {
            let part = match self.part(upload, number)? {
                Some(part) if part.md5 == tag => part,
                _ => return Ok(Err(Refusal::InvalidPart { number })),
            };
            if number != last && part.size < PART_BYTES_MIN {
                return Ok(Err(Refusal::PartTooSmall { number, size: part.size }));
            }
            size = size.saturating_add(part.size);
            md5.update(part.md5);
            layouts.push(PartLayout { number, size: part.size, layout: part.layout, checksum: part.checksum });
        }
        if size > OBJECT_BYTES_MAX {
            return Ok(Err(Refusal::TooLarge));
        }
        Ok(Ok(ObjectRow {
            size,
            etag: ETag::Parts(md5.finalize().into(), layouts.len() as u32),
            modified_ms: completion.modified_ms,
            meta: begun.meta.clone(),
            checksum: completion.checksum.clone(),
            layout: Layout::Parts(layouts),
        }))
    }

    /// Parts in `row` belong to the object from now on; the others are freed.
    fn settle_parts(&mut self, bucket: &str, key: &str, upload: u128, row: &ObjectRow) -> ViewResult<()> {
        let Layout::Parts(used) = &row.layout else { unreachable!("a completed upload is made of parts") };
        let mut used = used.iter().peekable();
        let mut runs = Vec::new();
        for (number, part) in self.take_parts(upload)? {
            if used.next_if(|u| u.number == number).is_some() {
                let owner = Owner::Object { bucket: bucket.to_owned(), key: key.to_owned(), part: Some(number) };
                self.change_owner(&part.layout, owner)?;
            } else {
                self.release(&part.layout, &mut runs)?;
            }
        }
        assert!(used.next().is_none(), "every part of the object was a part of the upload");
        self.discard(&runs)
    }

    fn remember_completion(&mut self, bucket: &str, key: &str, upload: u128, row: &ObjectRow) -> ViewResult<()> {
        let object = StoredObject::of(row, None);
        let completed = Completed { bucket: bucket.to_owned(), key: key.to_owned(), object };
        let number = self.counters.completed_next;
        self.completed.insert(upload, encode(&completed).as_slice())?;
        self.completed_order.insert(number, upload)?;
        self.counters.completed_next += 1;
        if let Some(old) = number.checked_sub(COMPLETED_KEPT) {
            let forgotten = self.completed_order.remove(old)?.map(|v| v.value());
            let forgotten = forgotten.ok_or(ViewError::Disagreement("a completion is not in its order"))?;
            self.completed.remove(forgotten)?;
        }
        Ok(())
    }

    /// The answer to a completion that took effect before. Its layout is the object's while that is
    /// still there, and empty afterwards.
    fn completed_before(&self, bucket: &str, key: &str, upload: u128) -> ViewResult<Option<Outcome>> {
        let Some(bytes) = self.completed.get(upload)? else { return Ok(None) };
        let completed: Completed = decode("completed", bytes.value())?;
        if completed.bucket != bucket || completed.key != key {
            return Ok(None);
        }
        let same =
            |now: &StoredObject| now.etag == completed.object.etag && now.modified_ms == completed.object.modified_ms;
        let layout = match self.object(&object_key(bucket, key))? {
            Some((now, layout)) if same(&now) => layout,
            _ => Layout::Parts(Vec::new()),
        };
        Ok(Some(Outcome::Put(Box::new(completed.object.into_row(layout)))))
    }
}
