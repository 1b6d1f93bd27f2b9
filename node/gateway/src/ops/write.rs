//! Writing and removing single objects, and removing many.

use futures::StreamExt;
use object::api::{ChecksumAlgorithm, ObjectApi};
use s3s::dto::*;
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};

use super::Face;
use crate::condition;
use crate::context::take_body;
use crate::convert::{self, check_version, set_checksum};
use crate::declared::Declared;
use crate::errors::object_error;
use crate::upload::UploadBody;

/// Keys of one DeleteObjects at most, as on AWS.
const DELETE_KEYS_MAX: usize = 1000;
/// Deletes of one DeleteObjects that run side by side.
const DELETES_AT_ONCE: usize = 16;
/// Bytes of a key at most, as on AWS; s3s checks keys in paths, not those in bodies.
const KEY_BYTES_MAX: usize = 1024;

impl<O: ObjectApi> Face<O> {
    pub(super) async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let declared = Declared::read(&request.headers, request.credentials.as_ref())?;
        let meta = convert::meta(&request.headers)?;
        let input = &request.input;
        let condition = condition::of_write(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let keep = declared.algorithm().unwrap_or(ChecksumAlgorithm::Crc64Nvme);
        let mut body = UploadBody::new(take_body(&request)?, declared, &self.lanes, keep);
        let info = self.api.put(&input.bucket, &input.key, meta, condition, &mut body).await.map_err(object_error)?;
        let mut output = PutObjectOutput {
            e_tag: Some(convert::etag(info.etag)),
            checksum_type: convert::checksum_kind(info.checksum.as_ref()),
            ..Default::default()
        };
        set_checksum!(output, info.checksum.as_ref());
        Ok(S3Response::new(output))
    }

    pub(super) async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = &request.input;
        check_version(input.version_id.as_deref())?;
        let condition = condition::of_delete(
            input.if_match.as_ref(),
            input.if_match_size,
            input.if_match_last_modified_time.as_ref(),
        )?;
        self.api.delete(&input.bucket, &input.key, condition).await.map_err(object_error)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    pub(super) async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let DeleteObjectsInput { bucket, delete, .. } = request.input;
        if delete.objects.is_empty() || delete.objects.len() > DELETE_KEYS_MAX {
            return Err(s3_error!(MalformedXML, "A request deletes between 1 and {DELETE_KEYS_MAX} keys."));
        }
        // One answer for the whole when the bucket is not there, rather than one for every key.
        self.api.head_bucket(&bucket).await.map_err(object_error)?;
        let bucket = bucket.as_str();
        let results: Vec<(String, S3Result<()>)> = futures::stream::iter(delete.objects)
            .map(|object| async move {
                let result = self.delete_one(bucket, &object).await;
                (object.key, result)
            })
            .buffered(DELETES_AT_ONCE)
            .collect()
            .await;
        let quiet = delete.quiet.unwrap_or(false);
        let (mut deleted, mut failed) = (Vec::new(), Vec::new());
        for (key, result) in results {
            match result {
                Ok(()) if quiet => {}
                Ok(()) => deleted.push(DeletedObject { key: Some(key), ..Default::default() }),
                Err(error) => failed.push(describe(key, &error)),
            }
        }
        Ok(S3Response::new(DeleteObjectsOutput { deleted: Some(deleted), errors: Some(failed), request_charged: None }))
    }

    async fn delete_one(&self, bucket: &str, object: &ObjectIdentifier) -> S3Result<()> {
        if object.key.is_empty() {
            return Err(s3_error!(UserKeyMustBeSpecified, "A key is empty."));
        }
        if object.key.len() > KEY_BYTES_MAX {
            return Err(s3_error!(KeyTooLongError, "Your key is too long."));
        }
        check_version(object.version_id.as_deref())?;
        let tag = object.e_tag.clone().map(|tag| match tag.value() {
            "*" => ETagCondition::Any,
            _ => ETagCondition::ETag(tag),
        });
        let condition = condition::of_delete(tag.as_ref(), object.size, object.last_modified_time.as_ref())?;
        self.api.delete(bucket, &object.key, condition).await.map_err(object_error)?;
        Ok(())
    }
}

fn describe(key: String, error: &S3Error) -> Error {
    Error {
        code: Some(error.code().as_str().to_owned()),
        key: Some(key),
        message: error.message().map(str::to_owned),
        version_id: None,
    }
}
