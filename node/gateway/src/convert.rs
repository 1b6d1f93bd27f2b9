//! Between the object layer's words and s3s's.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};
use object::api::{Checksum, ChecksumAlgorithm, ChecksumKind, ETag, ObjectInfo, ObjectMeta};
use s3s::dto::{ChecksumType, Metadata, Owner, StorageClass, Timestamp};
use s3s::{S3Result, s3_error};

use crate::{declared, digest};

/// The content type of an object put without one, as on AWS.
const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

/// Sets the checksum fields of an s3s structure from an `Option<&Checksum>`.
macro_rules! set_checksum {
    ($target:expr, $checksum:expr) => {
        if let Some(checksum) = $checksum {
            let text = Some($crate::digest::text(checksum));
            match checksum.algorithm {
                object::api::ChecksumAlgorithm::Crc32 => $target.checksum_crc32 = text,
                object::api::ChecksumAlgorithm::Crc32c => $target.checksum_crc32c = text,
                object::api::ChecksumAlgorithm::Crc64Nvme => $target.checksum_crc64nvme = text,
                object::api::ChecksumAlgorithm::Sha1 => $target.checksum_sha1 = text,
                object::api::ChecksumAlgorithm::Sha256 => $target.checksum_sha256 = text,
            }
        }
    };
}
pub(crate) use set_checksum;

pub(crate) fn timestamp(unix_ms: u64) -> Timestamp {
    Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms))
}

/// Whole seconds since 1970 of a time a client gave.
pub(crate) fn unix_seconds(timestamp: &Timestamp) -> i64 {
    time::OffsetDateTime::from(timestamp.clone()).unix_timestamp()
}

pub(crate) fn etag(tag: ETag) -> s3s::dto::ETag {
    s3s::dto::ETag::Strong(tag.to_string())
}

pub(crate) fn kind(kind: ChecksumKind) -> ChecksumType {
    ChecksumType::from_static(match kind {
        ChecksumKind::FullObject => ChecksumType::FULL_OBJECT,
        ChecksumKind::Composite => ChecksumType::COMPOSITE,
    })
}

pub(crate) fn checksum_kind(checksum: Option<&Checksum>) -> Option<ChecksumType> {
    checksum.map(|checksum| kind(checksum.kind))
}

pub(crate) fn algorithm(algorithm: ChecksumAlgorithm) -> s3s::dto::ChecksumAlgorithm {
    s3s::dto::ChecksumAlgorithm::from_static(digest::algorithm_name(algorithm))
}

/// The algorithm a client names in a header.
pub(crate) fn named_algorithm(given: Option<&s3s::dto::ChecksumAlgorithm>) -> S3Result<Option<ChecksumAlgorithm>> {
    let Some(given) = given else { return Ok(None) };
    let known = digest::algorithm_by_name(given.as_str());
    known.map(Some).ok_or_else(|| {
        s3_error!(
            InvalidRequest,
            "Checksum algorithm provided is unsupported. Please try again with any of the valid types."
        )
    })
}

pub(crate) fn owner(access_key: &str) -> Owner {
    Owner { display_name: Some(access_key.to_owned()), id: Some(access_key.to_owned()) }
}

pub(crate) fn standard() -> StorageClass {
    StorageClass::from_static(StorageClass::STANDARD)
}

/// Bytes as s3s counts them.
pub(crate) fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// What a client says of an object, from the request's headers, as it came.
pub(crate) fn meta(headers: &HeaderMap) -> S3Result<ObjectMeta> {
    let get = |name: &str| declared_text(headers, name);
    let mut user = BTreeMap::new();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("x-amz-meta-") else { continue };
        let value = std::str::from_utf8(value.as_bytes())
            .map_err(|_| s3_error!(InvalidArgument, "The header x-amz-meta-{name} is not text."))?;
        user.entry(name.to_owned())
            .and_modify(|before: &mut String| {
                before.push(',');
                before.push_str(value);
            })
            .or_insert_with(|| value.to_owned());
    }
    let encoding = get(header::CONTENT_ENCODING.as_str())?;
    Ok(ObjectMeta {
        content_type: get(header::CONTENT_TYPE.as_str())?.filter(|text| !text.is_empty()),
        cache_control: get(header::CACHE_CONTROL.as_str())?,
        content_disposition: get(header::CONTENT_DISPOSITION.as_str())?,
        content_encoding: encoding.and_then(|e| declared::content_encoding(&e).map(std::borrow::Cow::into_owned)),
        content_language: get(header::CONTENT_LANGUAGE.as_str())?,
        expires: get(header::EXPIRES.as_str())?,
        website_redirect_location: get("x-amz-website-redirect-location")?,
        user,
    })
}

/// A header that is given back to readers: UTF-8, so that it can be.
fn declared_text(headers: &HeaderMap, name: &str) -> S3Result<Option<String>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes());
    text.map(|text| Some(text.to_owned())).map_err(|_| s3_error!(InvalidArgument, "The header {name} is not text."))
}

pub(crate) fn user_metadata(info: &ObjectInfo) -> Option<Metadata> {
    if info.meta.user.is_empty() {
        return None;
    }
    Some(info.meta.user.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
}

pub(crate) fn content_type(info: &ObjectInfo) -> String {
    info.meta.content_type.clone().unwrap_or_else(|| DEFAULT_CONTENT_TYPE.to_owned())
}

/// Upload ids as text: 32 hexadecimal digits.
pub(crate) fn upload_text(upload: u128) -> String {
    format!("{upload:032x}")
}

/// An upload id a client gave; anything else names no upload.
pub(crate) fn parse_upload(text: &str) -> S3Result<u128> {
    let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let parsed = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
    parsed.ok_or_else(crate::errors::no_such_upload)
}

/// Versions do not exist here; `null` names the only one.
pub(crate) fn check_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null") => Ok(()),
        Some(_) => Err(s3_error!(NoSuchVersion, "The specified version does not exist.")),
    }
}

/// Percent-encodes a key for `encoding-type=url`: everything but unreserved characters and `/`.
pub(crate) fn url_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'/') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upload_ids_survive_their_text_and_other_text_names_none() {
        assert_eq!(parse_upload(&upload_text(77)).unwrap(), 77);
        for bad in ["", "77", "+0000000000000000000000000000001", "zz"] {
            assert_eq!(parse_upload(bad).unwrap_err().code().as_str(), "NoSuchUpload", "{bad}");
        }
    }

    #[test]
    fn keys_are_encoded_for_urls() {
        assert_eq!(url_encode("a b/ü+%\n"), "a%20b/%C3%BC%2B%25%0A");
    }

    #[test]
    fn the_transports_encoding_is_not_the_objects() {
        for (given, kept) in [("aws-chunked", None), ("aws-chunked,gzip", Some("gzip")), ("gzip", Some("gzip"))] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_ENCODING, given.parse().unwrap());
            assert_eq!(meta(&headers).unwrap().content_encoding.as_deref(), kept, "{given}");
        }
    }
}
