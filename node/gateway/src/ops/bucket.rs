//! Buckets: create, look up, delete, list.

use object::api::{ObjectApi, ObjectError};
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::{Face, user};
use crate::convert::{owner, timestamp};
use crate::errors::object_error;
use crate::paging;

/// Where a bucket is when its maker names no place, and what S3 then leaves empty.
const DEFAULT_REGION: &str = "us-east-1";
/// Longest region name; AWS's have at most 14 characters.
const REGION_BYTES_MAX: usize = 64;
/// Endings and beginnings AWS keeps for itself, beyond what s3s refuses in every path.
const RESERVED_PREFIXES: [&str; 2] = ["sthree-", "amzn-s3-demo-"];
const RESERVED_SUFFIXES: [&str; 5] = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];

fn check_new_name(name: &str) -> S3Result<()> {
    let reserved = RESERVED_PREFIXES.iter().any(|p| name.starts_with(p))
        || RESERVED_SUFFIXES.iter().any(|s| name.ends_with(s))
        || name.contains(".-")
        || name.contains("-.");
    if reserved {
        return Err(s3_error!(InvalidBucketName, "The specified bucket is not valid."));
    }
    Ok(())
}

fn region(configuration: Option<&CreateBucketConfiguration>) -> S3Result<String> {
    let given = configuration.and_then(|c| c.location_constraint.as_ref()).map(BucketLocationConstraint::as_str);
    match given {
        None | Some("") => Ok(DEFAULT_REGION.to_owned()),
        Some(text) => {
            let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            if text.len() > REGION_BYTES_MAX || !plain {
                return Err(s3_error!(InvalidLocationConstraint, "The specified location constraint is not valid."));
            }
            Ok(text.to_owned())
        }
    }
}

impl<O: ObjectApi> Face<O> {
    pub(super) async fn create_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let input = &request.input;
        check_new_name(&input.bucket)?;
        let region = region(input.create_bucket_configuration.as_ref())?;
        let maker = user(&request);
        self.api.create_bucket(&input.bucket, maker, &region).await.map_err(|error| match error {
            ObjectError::BucketExists { owner } if owner == maker => {
                s3_error!(BucketAlreadyOwnedByYou, "You already own the bucket you tried to create.")
            }
            other => object_error(other),
        })?;
        Ok(S3Response::new(CreateBucketOutput { location: Some(format!("/{}", input.bucket)) }))
    }

    pub(super) async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        let info = self.api.head_bucket(&request.input.bucket).await.map_err(object_error)?;
        Ok(S3Response::new(HeadBucketOutput { bucket_region: Some(info.region), ..Default::default() }))
    }

    pub(super) async fn delete_bucket(
        &self,
        request: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.api.delete_bucket(&request.input.bucket).await.map_err(object_error)?;
        Ok(S3Response::new(DeleteBucketOutput {}))
    }

    pub(super) async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        let info = self.api.head_bucket(&request.input.bucket).await.map_err(object_error)?;
        let elsewhere = info.region != DEFAULT_REGION;
        let location_constraint = elsewhere.then(|| BucketLocationConstraint::from(info.region));
        Ok(S3Response::new(GetBucketLocationOutput { location_constraint }))
    }

    pub(super) async fn list_buckets(
        &self,
        request: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let input = &request.input;
        let limit = match input.max_buckets {
            None => usize::MAX,
            Some(n) => usize::try_from(n)
                .ok()
                .filter(|n| (1..=10_000).contains(n))
                .ok_or_else(|| s3_error!(InvalidArgument, "max-buckets must be between 1 and 10000."))?,
        };
        let after = input.continuation_token.as_deref().map(paging::parse_token).transpose()?.unwrap_or_default();
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let all = self.api.list_buckets().await.map_err(object_error)?;
        let mut wanted = all.into_iter().filter(|b| {
            b.name.starts_with(prefix)
                && b.name.as_str() > after.as_str()
                && input.bucket_region.as_ref().is_none_or(|region| b.region == *region)
        });
        let buckets: Vec<Bucket> = wanted
            .by_ref()
            .take(limit)
            .map(|info| Bucket {
                bucket_region: Some(info.region),
                creation_date: Some(timestamp(info.created_ms)),
                name: Some(info.name),
            })
            .collect();
        let more = wanted.next().is_some();
        let last = buckets.last().and_then(|b| b.name.as_deref());
        Ok(S3Response::new(ListBucketsOutput {
            continuation_token: last.filter(|_| more).map(paging::token),
            owner: Some(owner(user(&request))),
            prefix: input.prefix.clone(),
            buckets: Some(buckets),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_aws_keeps_for_itself_are_refused() {
        for name in ["sthree-x", "x-s3alias", "x--ol-s3", "a.-b", "a-.b", "x--x-s3"] {
            assert!(check_new_name(name).is_err(), "{name}");
        }
        for name in ["abc", "a.b-c", "0a1"] {
            assert!(check_new_name(name).is_ok(), "{name}");
        }
    }
}
