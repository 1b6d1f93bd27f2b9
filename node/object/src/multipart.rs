//! Multipart uploads: parts are taken in like objects and become visible together.

use std::sync::Arc;

use index::model::{
    Checksum, ChecksumAlgorithm, ChecksumKind, Command, Condition, ObjectMeta, Outcome, PartRow, UploadRow,
};

use crate::api::{Body, ObjectError, ObjectInfo, ObjectResult, PartInfo, UploadInfo};
use crate::inner::{Inner, index_error, refused, unexpected};
use crate::put::{submit, take_body};
use crate::store::info_of;
use crate::write::BodyInfo;

pub(crate) async fn create(
    inner: &Arc<Inner>,
    bucket: &str,
    key: &str,
    owner: &str,
    meta: ObjectMeta,
    checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
) -> ObjectResult<u128> {
    inner.require_room()?;
    let upload = inner.unique();
    let row =
        UploadRow { key: key.to_owned(), started_ms: inner.clock.unix_ms(), meta, checksum, owner: owner.to_owned() };
    simple(inner, Command::CreateUpload { bucket: bucket.to_owned(), upload, row }).await?;
    Ok(upload)
}

pub(crate) async fn head(inner: &Arc<Inner>, bucket: &str, key: &str, upload: u128) -> ObjectResult<UploadInfo> {
    let found = inner.partition.upload(upload).await.map_err(|error| index_error(&error))?;
    let (_, row) = found.filter(|(at, row)| at == bucket && row.key == key).ok_or(ObjectError::NoSuchUpload)?;
    Ok(upload_info(upload, row))
}

pub(crate) fn upload_info(upload: u128, row: UploadRow) -> UploadInfo {
    UploadInfo { key: row.key, upload, started_ms: row.started_ms, checksum: row.checksum, owner: row.owner }
}

pub(crate) fn part_info(number: u32, row: PartRow) -> PartInfo {
    PartInfo { number, size: row.size, md5: row.md5, modified_ms: row.modified_ms, checksum: row.checksum }
}

pub(crate) async fn put_part<B: Body>(
    inner: &Arc<Inner>,
    bucket: &str,
    key: &str,
    upload: u128,
    number: u32,
    body: &mut B,
) -> ObjectResult<PartInfo> {
    let started = head(inner, bucket, key, upload).await?.started_ms;
    inner.require_room()?;
    let info = BodyInfo {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        upload,
        part: number,
        // All parts of an upload carry its time: on a bench they are recognised as one version.
        modified_ms: started,
        pack: false,
    };
    let mut taken = take_body(inner, info, body).await?;
    let row = PartRow {
        size: taken.size,
        md5: taken.digest.md5,
        checksum: taken.digest.checksum.clone(),
        modified_ms: inner.clock.unix_ms(),
        layout: taken.layout.clone(),
    };
    let command =
        Command::PutPart { bucket: bucket.to_owned(), upload, number, row: row.clone(), missing: taken.missing() };
    let data = std::mem::take(&mut taken.data);
    match submit(inner, command, data, taken).await? {
        Outcome::Done => Ok(part_info(number, row)),
        other => Err(unexpected(&other)),
    }
}

pub(crate) async fn complete(
    inner: &Arc<Inner>,
    bucket: &str,
    key: &str,
    upload: u128,
    parts: Vec<(u32, [u8; 16])>,
    checksum: Option<Checksum>,
    condition: Condition,
) -> ObjectResult<ObjectInfo> {
    let command = Command::CompleteUpload {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        upload,
        parts,
        modified_ms: inner.clock.unix_ms(),
        checksum,
        condition,
    };
    match inner.partition.submit(command, Vec::new()).await.map_err(|error| index_error(&error))? {
        Outcome::Put(row) => Ok(info_of(key.to_owned(), *row)),
        Outcome::Refused(refusal) => Err(refused(refusal)),
        other => Err(unexpected(&other)),
    }
}

/// A command without data whose success says nothing more.
pub(crate) async fn simple(inner: &Arc<Inner>, command: Command) -> ObjectResult<()> {
    match inner.partition.submit(command, Vec::new()).await.map_err(|error| index_error(&error))? {
        Outcome::Done => Ok(()),
        Outcome::Refused(refusal) => Err(refused(refusal)),
        other => Err(unexpected(&other)),
    }
}
