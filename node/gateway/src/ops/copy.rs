//! Copies: an object opened and put again, or a range of one put as a part.
//!
//! The source is read from one moment's state, so a copy onto itself, or one that races with a change of
//! its source, stores what was there when it began.

use std::ops::Range;

use object::api::{ChecksumAlgorithm, ObjectApi, ObjectInfo, Reader};
use s3s::dto::{CopySource, *};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::Face;
use crate::condition::{self, ReadConditions, Verdict};
use crate::convert::{self, check_version, named_algorithm, parse_upload, set_checksum, timestamp};
use crate::declared::PUT_BYTES_MAX;
use crate::errors::{self, object_error};
use crate::upload::CopyBody;

/// Bucket and key of a source.
fn source(source: &CopySource) -> S3Result<(&str, &str)> {
    match source {
        CopySource::Bucket { bucket, key, version_id } => {
            check_version(version_id.as_deref())?;
            Ok((bucket, key))
        }
        _ => Err(errors::not_implemented("A copy source that is not a bucket and a key")),
    }
}

/// `bytes=first-last`, both inside the source.
fn source_range(text: Option<&str>, size: u64) -> S3Result<Range<u64>> {
    let Some(text) = text else { return Ok(0..size) };
    let refused = || {
        s3_error!(
            InvalidArgument,
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the \
             zero-based offsets of the first and last bytes to copy"
        )
    };
    let (first, last) = text.strip_prefix("bytes=").and_then(|t| t.split_once('-')).ok_or_else(refused)?;
    let first: u64 = first.parse().map_err(|_| refused())?;
    let last: u64 = last.parse().map_err(|_| refused())?;
    if first > last {
        return Err(refused());
    }
    if last >= size {
        return Err(s3_error!(InvalidRange, "Range specified is not valid for source object of size: {size}"));
    }
    Ok(first..last + 1)
}

fn replaces(directive: Option<&MetadataDirective>) -> S3Result<bool> {
    match directive.map(MetadataDirective::as_str) {
        None | Some(MetadataDirective::COPY) => Ok(false),
        Some(MetadataDirective::REPLACE) => Ok(true),
        Some(_) => Err(s3_error!(InvalidArgument, "Unknown metadata directive.")),
    }
}

impl<O: ObjectApi> Face<O> {
    /// Opens a source whose conditions hold.
    async fn open_source(
        &self,
        bucket: &str,
        key: &str,
        conditions: &ReadConditions<'_>,
    ) -> S3Result<(ObjectInfo, O::Reader)> {
        let (info, reader) = self.api.open(bucket, key).await.map_err(object_error)?;
        if conditions.judge(&info) != Verdict::Go {
            return Err(errors::precondition_failed());
        }
        Ok((info, reader))
    }

    pub(super) async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = &request.input;
        let (source_bucket, source_key) = source(&input.copy_source)?;
        let replace = replaces(input.metadata_directive.as_ref())?;
        let algorithm = named_algorithm(input.checksum_algorithm.as_ref())?;
        let onto_itself = (source_bucket, source_key) == (input.bucket.as_str(), input.key.as_str());
        if onto_itself && !replace && algorithm.is_none() {
            return Err(s3_error!(
                InvalidRequest,
                "This copy request is illegal because it is trying to copy an object to itself without changing the \
                 object's metadata, storage class, website redirect location or encryption attributes."
            ));
        }
        let condition = condition::of_write_headers(&request.headers)?;
        let conditions = ReadConditions {
            if_match: input.copy_source_if_match.as_ref(),
            if_none_match: input.copy_source_if_none_match.as_ref(),
            if_modified_since: input.copy_source_if_modified_since.as_ref(),
            if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
        };
        let (info, reader) = self.open_source(source_bucket, source_key, &conditions).await?;
        if info.size > PUT_BYTES_MAX {
            return Err(s3_error!(
                InvalidRequest,
                "The specified copy source is larger than the maximum allowable size."
            ));
        }
        let mut meta = if replace { convert::meta(&request.headers)? } else { info.meta.clone() };
        // A redirect belongs to the request, never to the source.
        meta.website_redirect_location = convert::meta(&request.headers)?.website_redirect_location;
        let keep = algorithm.or(info.checksum.as_ref().map(|c| c.algorithm)).unwrap_or(ChecksumAlgorithm::Crc64Nvme);
        let mut body = CopyBody::new(reader.read(0..info.size), info.size, &self.lanes, keep);
        let stored = self.api.put(&input.bucket, &input.key, meta, condition, &mut body).await;
        let stored = stored.map_err(|error| object_error(body.explain(error)))?;
        let mut result = CopyObjectResult {
            e_tag: Some(convert::etag(stored.etag)),
            last_modified: Some(timestamp(stored.modified_ms)),
            checksum_type: convert::checksum_kind(stored.checksum.as_ref()),
            ..Default::default()
        };
        set_checksum!(result, stored.checksum.as_ref());
        Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() }))
    }

    pub(super) async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let input = &request.input;
        let (source_bucket, source_key) = source(&input.copy_source)?;
        let number = super::parts::part_number(input.part_number)?;
        let upload = parse_upload(&input.upload_id)?;
        let target = self.api.head_upload(&input.bucket, &input.key, upload).await.map_err(object_error)?;
        let conditions = ReadConditions {
            if_match: input.copy_source_if_match.as_ref(),
            if_none_match: input.copy_source_if_none_match.as_ref(),
            if_modified_since: input.copy_source_if_modified_since.as_ref(),
            if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
        };
        let (info, reader) = self.open_source(source_bucket, source_key, &conditions).await?;
        let range = source_range(input.copy_source_range.as_deref(), info.size)?;
        let bytes = range.end - range.start;
        if bytes > PUT_BYTES_MAX {
            return Err(errors::too_large());
        }
        let keep = target.checksum.map_or(ChecksumAlgorithm::Crc64Nvme, |(algorithm, _)| algorithm);
        let mut body = CopyBody::new(reader.read(range), bytes, &self.lanes, keep);
        let part = self.api.put_part(&input.bucket, &input.key, upload, number, &mut body).await;
        let part = part.map_err(|error| object_error(body.explain(error)))?;
        let mut result = CopyPartResult {
            e_tag: Some(convert::etag(object::api::ETag::Whole(part.md5))),
            last_modified: Some(timestamp(part.modified_ms)),
            ..Default::default()
        };
        set_checksum!(result, part.checksum.as_ref());
        Ok(S3Response::new(UploadPartCopyOutput { copy_part_result: Some(result), ..Default::default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_range_lies_inside_the_source() {
        assert_eq!(source_range(None, 10).unwrap(), 0..10);
        assert_eq!(source_range(Some("bytes=2-9"), 10).unwrap(), 2..10);
        for (text, code) in [
            ("bytes=2-10", "InvalidRange"),
            ("bytes=5-2", "InvalidArgument"),
            ("bytes=-5", "InvalidArgument"),
            ("bytes=5-", "InvalidArgument"),
            ("2-3", "InvalidArgument"),
        ] {
            assert_eq!(source_range(Some(text), 10).unwrap_err().code().as_str(), code, "{text}");
        }
    }
}
