//! Listing objects: both versions of the operation, and objects as their only versions.

use object::api::{ListPage, ListQuery, ObjectApi, ObjectInfo};
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::Face;
use crate::convert::{self, algorithm, etag, owner, size, timestamp, url_encode};
use crate::errors::object_error;
use crate::paging;

/// What AWS calls the version of an object that has no versions.
const ONLY_VERSION: &str = "null";

/// How keys are written in a response.
#[derive(Clone, Copy)]
pub(super) struct Encoding {
    url: bool,
}

impl Encoding {
    pub(super) fn of(given: Option<&EncodingType>) -> S3Result<Self> {
        match given.map(EncodingType::as_str) {
            None => Ok(Self { url: false }),
            Some(EncodingType::URL) => Ok(Self { url: true }),
            Some(_) => Err(s3_error!(InvalidArgument, "Invalid Encoding Method specified in Request")),
        }
    }

    pub(super) fn write(self, text: String) -> String {
        if self.url { url_encode(&text) } else { text }
    }

    pub(super) fn write_opt(self, text: Option<String>) -> Option<String> {
        text.map(|text| self.write(text))
    }
}

/// An empty delimiter is none.
pub(super) fn delimiter(given: Option<&String>) -> Option<String> {
    given.filter(|text| !text.is_empty()).cloned()
}

fn entry(info: ObjectInfo, encoding: Encoding, bucket_owner: Option<&str>) -> Object {
    let checksum = info.checksum.as_ref();
    Object {
        checksum_algorithm: checksum.map(|c| vec![algorithm(c.algorithm)]),
        checksum_type: convert::checksum_kind(checksum),
        e_tag: Some(etag(info.etag)),
        last_modified: Some(timestamp(info.modified_ms)),
        owner: bucket_owner.map(owner),
        restore_status: None,
        size: Some(size(info.size)),
        storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
        key: Some(encoding.write(info.key)),
    }
}

fn entries(page: ListPage, encoding: Encoding, bucket_owner: Option<&str>) -> (Vec<Object>, Vec<CommonPrefix>) {
    let objects = page.objects.into_iter().map(|info| entry(info, encoding, bucket_owner)).collect();
    let prefixes =
        page.prefixes.into_iter().map(|prefix| CommonPrefix { prefix: Some(encoding.write(prefix)) }).collect();
    (objects, prefixes)
}

impl<O: ObjectApi> Face<O> {
    /// One page; an empty one costs only the proof that the bucket is there.
    async fn page(&self, bucket: &str, query: &ListQuery) -> S3Result<ListPage> {
        if query.limit == 0 {
            self.api.head_bucket(bucket).await.map_err(object_error)?;
            return Ok(ListPage::default());
        }
        self.api.list(bucket, query).await.map_err(object_error)
    }

    /// The owner of everything in a bucket, when the client wants to see it.
    async fn bucket_owner(&self, bucket: &str, wanted: bool) -> S3Result<Option<String>> {
        if !wanted {
            return Ok(None);
        }
        Ok(Some(self.api.head_bucket(bucket).await.map_err(object_error)?.owner))
    }

    pub(super) async fn list_objects(
        &self,
        request: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = request.input;
        let encoding = Encoding::of(input.encoding_type.as_ref())?;
        let limit = paging::page("max-keys", input.max_keys)?;
        let query = ListQuery {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: delimiter(input.delimiter.as_ref()),
            after: input.marker.clone().filter(|marker| !marker.is_empty()),
            limit,
        };
        let page = self.page(&input.bucket, &query).await?;
        let owner = self.bucket_owner(&input.bucket, limit > 0).await?;
        let next = page.next.clone();
        let (contents, common_prefixes) = entries(page, encoding, owner.as_deref());
        Ok(S3Response::new(ListObjectsOutput {
            common_prefixes: Some(common_prefixes),
            contents: Some(contents),
            delimiter: encoding.write_opt(input.delimiter),
            encoding_type: input.encoding_type,
            is_truncated: Some(next.is_some()),
            marker: Some(encoding.write(input.marker.unwrap_or_default())),
            max_keys: i32::try_from(limit).ok(),
            name: Some(input.bucket),
            // Without a delimiter the last key says as much, and AWS leaves it out.
            next_marker: encoding.write_opt(next.filter(|_| query.delimiter.is_some())),
            prefix: Some(encoding.write(query.prefix)),
            request_charged: None,
        }))
    }

    pub(super) async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let encoding = Encoding::of(input.encoding_type.as_ref())?;
        let limit = paging::page("max-keys", input.max_keys)?;
        let continued = input.continuation_token.as_deref().map(paging::parse_token).transpose()?;
        let query = ListQuery {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: delimiter(input.delimiter.as_ref()),
            after: continued.or_else(|| input.start_after.clone()).filter(|after| !after.is_empty()),
            limit,
        };
        let page = self.page(&input.bucket, &query).await?;
        let owner = self.bucket_owner(&input.bucket, limit > 0 && input.fetch_owner.unwrap_or(false)).await?;
        let next = page.next.as_deref().map(paging::token);
        let key_count = i32::try_from(page.objects.len() + page.prefixes.len()).ok();
        let (contents, common_prefixes) = entries(page, encoding, owner.as_deref());
        Ok(S3Response::new(ListObjectsV2Output {
            common_prefixes: Some(common_prefixes),
            contents: Some(contents),
            continuation_token: input.continuation_token,
            delimiter: encoding.write_opt(input.delimiter),
            encoding_type: input.encoding_type,
            is_truncated: Some(next.is_some()),
            key_count,
            max_keys: i32::try_from(limit).ok(),
            name: Some(input.bucket),
            next_continuation_token: next,
            prefix: Some(encoding.write(query.prefix)),
            request_charged: None,
            start_after: encoding.write_opt(input.start_after),
        }))
    }

    /// Every object as its only version, `null`, as on a bucket of AWS's without versioning: clients empty
    /// buckets this way.
    pub(super) async fn list_object_versions(
        &self,
        request: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let input = request.input;
        let encoding = Encoding::of(input.encoding_type.as_ref())?;
        let limit = paging::page("max-keys", input.max_keys)?;
        let query = ListQuery {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: delimiter(input.delimiter.as_ref()),
            after: input.key_marker.clone().filter(|marker| !marker.is_empty()),
            limit,
        };
        let page = self.page(&input.bucket, &query).await?;
        let owner = self.bucket_owner(&input.bucket, limit > 0).await?;
        let next = page.next.clone();
        let (objects, common_prefixes) = entries(page, encoding, owner.as_deref());
        Ok(S3Response::new(ListObjectVersionsOutput {
            common_prefixes: Some(common_prefixes),
            delete_markers: None,
            delimiter: encoding.write_opt(input.delimiter),
            encoding_type: input.encoding_type,
            is_truncated: Some(next.is_some()),
            key_marker: Some(encoding.write(input.key_marker.unwrap_or_default())),
            max_keys: i32::try_from(limit).ok(),
            name: Some(input.bucket),
            next_version_id_marker: next.as_ref().map(|_| ONLY_VERSION.to_owned()),
            next_key_marker: encoding.write_opt(next),
            prefix: Some(encoding.write(query.prefix)),
            request_charged: None,
            version_id_marker: input.version_id_marker,
            versions: Some(objects.into_iter().map(version).collect()),
        }))
    }
}

fn version(object: Object) -> ObjectVersion {
    ObjectVersion {
        checksum_algorithm: object.checksum_algorithm,
        checksum_type: object.checksum_type,
        e_tag: object.e_tag,
        is_latest: Some(true),
        key: object.key,
        last_modified: object.last_modified,
        owner: object.owner,
        restore_status: None,
        size: object.size,
        storage_class: Some(ObjectVersionStorageClass::from_static(ObjectVersionStorageClass::STANDARD)),
        version_id: Some(ONLY_VERSION.to_owned()),
    }
}
