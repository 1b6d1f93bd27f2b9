//! Parts of multipart uploads: put one, list them.

use object::api::{ChecksumAlgorithm, ETag as ObjectETag, ObjectApi};
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::Face;
use crate::context::take_body;
use crate::convert::{self, owner, parse_upload, set_checksum, size, timestamp};
use crate::declared::Declared;
use crate::errors::object_error;
use crate::upload::UploadBody;
use crate::{digest, paging};

/// Parts of an upload at most, as on AWS.
pub(super) const PARTS_MAX: i32 = 10_000;

/// A part's number, as AWS bounds it.
pub(super) fn part_number(number: i32) -> S3Result<u32> {
    let number = u32::try_from(number).ok().filter(|n| (1..=PARTS_MAX.unsigned_abs()).contains(n));
    number.ok_or_else(|| s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive"))
}

/// The algorithm a part's stored checksum has, and whether the client's own fits the upload.
fn part_algorithm(upload: Option<ChecksumAlgorithm>, given: Option<ChecksumAlgorithm>) -> S3Result<ChecksumAlgorithm> {
    match (upload, given) {
        (Some(upload), Some(given)) if upload != given && upload != ChecksumAlgorithm::Crc64Nvme => Err(s3_error!(
            InvalidRequest,
            "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
            digest::algorithm_name(upload),
            digest::algorithm_name(given)
        )),
        // CRC64NVME is what uploads get whose client named none: such a client may verify as it likes.
        (Some(upload), _) => Ok(upload),
        (None, given) => Ok(given.unwrap_or(ChecksumAlgorithm::Crc64Nvme)),
    }
}

impl<O: ObjectApi> Face<O> {
    pub(super) async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let declared = Declared::read(&request.headers, request.credentials.as_ref())?;
        let input = &request.input;
        let number = part_number(input.part_number)?;
        let upload = parse_upload(&input.upload_id)?;
        let target = self.api.head_upload(&input.bucket, &input.key, upload).await.map_err(object_error)?;
        let keep = part_algorithm(target.checksum.map(|(algorithm, _)| algorithm), declared.algorithm())?;
        let shown = declared.algorithm().unwrap_or(keep);
        let given = declared.checksum.clone();
        let mut body = UploadBody::new(take_body(&request)?, declared, &self.lanes, keep);
        let part =
            self.api.put_part(&input.bucket, &input.key, upload, number, &mut body).await.map_err(object_error)?;
        let mut output =
            UploadPartOutput { e_tag: Some(convert::etag(ObjectETag::Whole(part.md5))), ..Default::default() };
        // A client that verified with another algorithm than the one kept gets its own value back.
        let verified = given.filter(|_| shown != keep);
        set_checksum!(output, verified.as_ref().or(part.checksum.as_ref()));
        Ok(S3Response::new(output))
    }

    pub(super) async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let input = request.input;
        let upload = parse_upload(&input.upload_id)?;
        let limit = paging::page("max-parts", input.max_parts)?;
        let marker = input.part_number_marker.unwrap_or(0);
        let after = u32::try_from(marker)
            .map_err(|_| s3_error!(InvalidArgument, "part-number-marker must not be negative."))?;
        let info = self.api.head_upload(&input.bucket, &input.key, upload).await.map_err(object_error)?;
        let (parts, more) = if limit == 0 {
            (Vec::new(), false)
        } else {
            self.api.list_parts(&input.bucket, &input.key, upload, after, limit).await.map_err(object_error)?
        };
        let parts: Vec<Part> = parts.iter().map(listed).collect();
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            checksum_algorithm: info.checksum.map(|(algorithm, _)| convert::algorithm(algorithm)),
            checksum_type: info.checksum.map(|(_, kind)| convert::kind(kind)),
            initiator: Some(Initiator { display_name: Some(info.owner.clone()), id: Some(info.owner.clone()) }),
            owner: Some(owner(&info.owner)),
            storage_class: Some(convert::standard()),
            is_truncated: Some(more),
            max_parts: i32::try_from(limit).ok(),
            part_number_marker: Some(marker),
            next_part_number_marker: parts.last().and_then(|part| part.part_number),
            parts: Some(parts),
            ..Default::default()
        }))
    }
}

fn listed(info: &object::api::PartInfo) -> Part {
    let mut part = Part {
        e_tag: Some(convert::etag(ObjectETag::Whole(info.md5))),
        last_modified: Some(timestamp(info.modified_ms)),
        part_number: i32::try_from(info.number).ok(),
        size: Some(size(info.size)),
        ..Default::default()
    };
    set_checksum!(part, info.checksum.as_ref());
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_keeps_the_uploads_algorithm_or_is_refused() {
        use ChecksumAlgorithm::{Crc32, Crc64Nvme, Sha1};
        assert_eq!(part_algorithm(Some(Crc32), None).unwrap(), Crc32);
        assert_eq!(part_algorithm(Some(Crc64Nvme), Some(Sha1)).unwrap(), Crc64Nvme);
        assert_eq!(part_algorithm(None, Some(Sha1)).unwrap(), Sha1);
        assert!(part_algorithm(Some(Crc32), Some(Sha1)).is_err());
    }

    #[test]
    fn part_numbers_are_bounded() {
        for bad in [0, -1, 10_001] {
            assert!(part_number(bad).is_err(), "{bad}");
        }
        assert_eq!(part_number(10_000).unwrap(), 10_000);
    }
}
