//! What common clients ask before they work: a bucket's or object's settings that this store does not have,
//! answered as AWS answers for one on which nothing was set. Nothing can be set (`NotImplemented`).

use http::StatusCode;
use object::api::ObjectApi;
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::Face;
use crate::convert::{check_version, owner};
use crate::errors::object_error;

/// The owner may do everything, and so may every other user; ACLs cannot say the latter.
fn full_control(access_key: &str) -> Vec<Grant> {
    let grantee = Grantee {
        display_name: Some(access_key.to_owned()),
        email_address: None,
        id: Some(access_key.to_owned()),
        type_: Type::from_static(Type::CANONICAL_USER),
        uri: None,
    };
    vec![Grant { grantee: Some(grantee), permission: Some(Permission::from_static(Permission::FULL_CONTROL)) }]
}

/// AWS answers all of these with 404.
fn unset(code: S3ErrorCode) -> S3Error {
    let mut error = S3Error::with_message(code, "The bucket has no such configuration.");
    error.set_status_code(StatusCode::NOT_FOUND);
    error
}

/// Answers "nothing was set" once the bucket is known to be there.
macro_rules! not_set {
    ($($name:ident($input:ident) -> $output:ident: $code:ident;)*) => {
        impl<O: ObjectApi> Face<O> {
            $(
                pub(super) async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                    self.api.head_bucket(&request.input.bucket).await.map_err(object_error)?;
                    Err(unset(S3ErrorCode::$code))
                }
            )*
        }
    };
}

not_set! {
    get_bucket_cors(GetBucketCorsInput) -> GetBucketCorsOutput: NoSuchCORSConfiguration;
    get_bucket_encryption(GetBucketEncryptionInput) -> GetBucketEncryptionOutput:
        ServerSideEncryptionConfigurationNotFoundError;
    get_bucket_lifecycle_configuration(GetBucketLifecycleConfigurationInput)
        -> GetBucketLifecycleConfigurationOutput: NoSuchLifecycleConfiguration;
    get_bucket_policy(GetBucketPolicyInput) -> GetBucketPolicyOutput: NoSuchBucketPolicy;
    get_bucket_tagging(GetBucketTaggingInput) -> GetBucketTaggingOutput: NoSuchTagSet;
    get_bucket_website(GetBucketWebsiteInput) -> GetBucketWebsiteOutput: NoSuchWebsiteConfiguration;
    get_object_lock_configuration(GetObjectLockConfigurationInput)
        -> GetObjectLockConfigurationOutput: ObjectLockConfigurationNotFoundError;
}

impl<O: ObjectApi> Face<O> {
    pub(super) async fn get_bucket_acl(
        &self,
        request: S3Request<GetBucketAclInput>,
    ) -> S3Result<S3Response<GetBucketAclOutput>> {
        let info = self.api.head_bucket(&request.input.bucket).await.map_err(object_error)?;
        let output = GetBucketAclOutput { grants: Some(full_control(&info.owner)), owner: Some(owner(&info.owner)) };
        Ok(S3Response::new(output))
    }

    pub(super) async fn get_object_acl(
        &self,
        request: S3Request<GetObjectAclInput>,
    ) -> S3Result<S3Response<GetObjectAclOutput>> {
        let input = &request.input;
        check_version(input.version_id.as_deref())?;
        self.api.open(&input.bucket, &input.key).await.map_err(object_error)?;
        let info = self.api.head_bucket(&input.bucket).await.map_err(object_error)?;
        Ok(S3Response::new(GetObjectAclOutput {
            grants: Some(full_control(&info.owner)),
            owner: Some(owner(&info.owner)),
            request_charged: None,
        }))
    }

    pub(super) async fn get_object_tagging(
        &self,
        request: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let input = &request.input;
        check_version(input.version_id.as_deref())?;
        self.api.open(&input.bucket, &input.key).await.map_err(object_error)?;
        Ok(S3Response::new(GetObjectTaggingOutput { tag_set: Vec::new(), version_id: None }))
    }

    pub(super) async fn get_bucket_versioning(
        &self,
        request: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        self.api.head_bucket(&request.input.bucket).await.map_err(object_error)?;
        Ok(S3Response::new(GetBucketVersioningOutput::default()))
    }

    pub(super) async fn get_bucket_request_payment(
        &self,
        request: S3Request<GetBucketRequestPaymentInput>,
    ) -> S3Result<S3Response<GetBucketRequestPaymentOutput>> {
        self.api.head_bucket(&request.input.bucket).await.map_err(object_error)?;
        let payer = Some(Payer::from_static(Payer::BUCKET_OWNER));
        Ok(S3Response::new(GetBucketRequestPaymentOutput { payer }))
    }

    pub(super) async fn get_bucket_ownership_controls(
        &self,
        request: S3Request<GetBucketOwnershipControlsInput>,
    ) -> S3Result<S3Response<GetBucketOwnershipControlsOutput>> {
        self.api.head_bucket(&request.input.bucket).await.map_err(object_error)?;
        let rule = OwnershipControlsRule {
            object_ownership: ObjectOwnership::from_static(ObjectOwnership::BUCKET_OWNER_ENFORCED),
        };
        let ownership_controls = Some(OwnershipControls { rules: vec![rule] });
        Ok(S3Response::new(GetBucketOwnershipControlsOutput { ownership_controls }))
    }
}
