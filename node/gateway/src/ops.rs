//! The operations: [`Face`] is what s3s calls; each file below holds one kind of operation.

mod bucket;
mod copy;
mod list;
mod multipart;
mod parts;
mod quiet;
mod read;
mod write;

use std::sync::Arc;

use etag::Md5Lanes;
use object::api::ObjectApi;
use s3s::dto::*;
use s3s::{S3, S3Error, S3Request, S3Response, S3Result};

use crate::context::RequestContext;

/// S3 over an object layer.
pub(crate) struct Face<O> {
    pub(crate) api: Arc<O>,
    /// Hashes all uploads under way together.
    pub(crate) lanes: Md5Lanes,
}

/// The access key of the user. The access check has refused requests without one.
fn user<T>(request: &S3Request<T>) -> &str {
    request.credentials.as_ref().map_or("", |credentials| &credentials.access_key)
}

/// Puts the request's identifier into an error, so that the client finds it in the XML too.
fn mark(context: Option<Arc<RequestContext>>) -> impl FnOnce(S3Error) -> S3Error {
    move |mut error| {
        if let Some(context) = context {
            error.set_request_id(context.id.as_str());
        }
        error
    }
}

macro_rules! delegate {
    ($($name:ident($input:ident) -> $output:ident;)*) => {
        #[async_trait::async_trait]
        impl<O: ObjectApi> S3 for Face<O> {
            $(
                async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                    let context = request.extensions.get::<Arc<RequestContext>>().cloned();
                    Self::$name(self, request).await.map_err(mark(context))
                }
            )*
        }
    };
}

delegate! {
    abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput;
    complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput;
    copy_object(CopyObjectInput) -> CopyObjectOutput;
    create_bucket(CreateBucketInput) -> CreateBucketOutput;
    create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput;
    delete_bucket(DeleteBucketInput) -> DeleteBucketOutput;
    delete_object(DeleteObjectInput) -> DeleteObjectOutput;
    delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput;
    get_bucket_acl(GetBucketAclInput) -> GetBucketAclOutput;
    get_bucket_cors(GetBucketCorsInput) -> GetBucketCorsOutput;
    get_bucket_encryption(GetBucketEncryptionInput) -> GetBucketEncryptionOutput;
    get_bucket_lifecycle_configuration(GetBucketLifecycleConfigurationInput) -> GetBucketLifecycleConfigurationOutput;
    get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput;
    get_bucket_ownership_controls(GetBucketOwnershipControlsInput) -> GetBucketOwnershipControlsOutput;
    get_bucket_policy(GetBucketPolicyInput) -> GetBucketPolicyOutput;
    get_bucket_request_payment(GetBucketRequestPaymentInput) -> GetBucketRequestPaymentOutput;
    get_bucket_tagging(GetBucketTaggingInput) -> GetBucketTaggingOutput;
    get_bucket_versioning(GetBucketVersioningInput) -> GetBucketVersioningOutput;
    get_bucket_website(GetBucketWebsiteInput) -> GetBucketWebsiteOutput;
    get_object(GetObjectInput) -> GetObjectOutput;
    get_object_acl(GetObjectAclInput) -> GetObjectAclOutput;
    get_object_attributes(GetObjectAttributesInput) -> GetObjectAttributesOutput;
    get_object_lock_configuration(GetObjectLockConfigurationInput) -> GetObjectLockConfigurationOutput;
    get_object_tagging(GetObjectTaggingInput) -> GetObjectTaggingOutput;
    head_bucket(HeadBucketInput) -> HeadBucketOutput;
    head_object(HeadObjectInput) -> HeadObjectOutput;
    list_buckets(ListBucketsInput) -> ListBucketsOutput;
    list_multipart_uploads(ListMultipartUploadsInput) -> ListMultipartUploadsOutput;
    list_object_versions(ListObjectVersionsInput) -> ListObjectVersionsOutput;
    list_objects(ListObjectsInput) -> ListObjectsOutput;
    list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output;
    list_parts(ListPartsInput) -> ListPartsOutput;
    put_object(PutObjectInput) -> PutObjectOutput;
    upload_part(UploadPartInput) -> UploadPartOutput;
    upload_part_copy(UploadPartCopyInput) -> UploadPartCopyOutput;
}
