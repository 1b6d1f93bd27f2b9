//! What an authenticated request may ask for.
//!
//! s3s asks here after it has verified the signature and before it reads anything else of the request.
//! All users are equal. Operations, headers and query words that this store does not have are refused by
//! name: s3s would call an operation by its nearest known neighbour, or pass over a header that promises
//! the client something.

use std::sync::Arc;

use http::HeaderMap;
use s3s::access::{S3Access, S3AccessContext};
use s3s::{S3Result, s3_error};

use crate::context::RequestContext;
use crate::errors::not_implemented;
use crate::stats::Operation;

/// Headers (by beginning) that promise something this store does not have.
const REFUSED_HEADERS: &[&str] = &[
    "x-amz-server-side-encryption",
    "x-amz-copy-source-server-side-encryption",
    "x-amz-object-lock-",
    "x-amz-bypass-governance-retention",
    "x-amz-grant-",
    "x-amz-write-offset-bytes",
    "x-amz-expected-bucket-owner",
    "x-amz-source-expected-bucket-owner",
    "x-amz-mfa",
    "x-amz-if-match-initiated-time",
];

/// The access check of every request.
pub(crate) struct Access;

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        if cx.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "Anonymous access is forbidden."));
        }
        let name = cx.s3_op().name();
        let Some(operation) = Operation::by_name(name) else {
            return Err(not_implemented(name));
        };
        if let Some(context) = cx.extensions_mut().get::<Arc<RequestContext>>() {
            context.set_operation(operation);
        }
        check_headers(cx.headers())?;
        check_query(operation, cx.uri().query())
    }
}

fn check_headers(headers: &HeaderMap) -> S3Result<()> {
    for (name, value) in headers {
        let name = name.as_str();
        if !name.starts_with("x-amz-") {
            continue;
        }
        if let Some(refused) = REFUSED_HEADERS.iter().find(|refused| name.starts_with(**refused)) {
            return Err(not_implemented(&format!("The header {refused}")));
        }
        match (name, value.as_bytes()) {
            ("x-amz-tagging", value) if !value.is_empty() => return Err(not_implemented("The header x-amz-tagging")),
            ("x-amz-acl", value) if !matches!(value, b"private" | b"bucket-owner-full-control") => {
                return Err(s3_error!(AccessControlListNotSupported, "The bucket does not allow ACLs."));
            }
            ("x-amz-storage-class", value) if value != b"STANDARD" => {
                return Err(s3_error!(InvalidStorageClass, "The storage class you specified is not valid."));
            }
            ("x-amz-bucket-object-lock-enabled", value) if !value.eq_ignore_ascii_case(b"false") => {
                return Err(not_implemented("Object lock"));
            }
            ("x-amz-object-ownership", value) if value != b"BucketOwnerEnforced" => {
                return Err(not_implemented("Object ownership other than BucketOwnerEnforced"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Query words an operation that changes something may carry. Reading ones may carry any: what they do not
/// know does no harm, as on AWS.
fn allowed_words(operation: Operation) -> &'static [&'static str] {
    match operation.name() {
        "UploadPart" | "UploadPartCopy" => &["partNumber", "uploadId"],
        "CompleteMultipartUpload" | "AbortMultipartUpload" => &["uploadId"],
        "CreateMultipartUpload" => &["uploads"],
        "DeleteObjects" => &["delete"],
        "DeleteObject" => &["versionId"],
        _ => &[],
    }
}

fn check_query(operation: Operation, query: Option<&str>) -> S3Result<()> {
    let Some(query) = query.filter(|_| operation.changes()) else { return Ok(()) };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let word = pair.split_once('=').map_or(pair, |(word, _)| word);
        let ours = word == "x-id" || word.get(..6).is_some_and(|w| w.eq_ignore_ascii_case("x-amz-"));
        if !ours && !allowed_words(operation).contains(&word) {
            return Err(not_implemented(&format!("{} with the query {word}", operation.name())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn headers_that_promise_what_is_not_there_are_refused() {
        for (name, value, code) in [
            ("x-amz-tagging", "a=b", "NotImplemented"),
            ("x-amz-server-side-encryption-customer-key", "k", "NotImplemented"),
            ("x-amz-object-lock-mode", "GOVERNANCE", "NotImplemented"),
            ("x-amz-acl", "public-read", "AccessControlListNotSupported"),
            ("x-amz-storage-class", "GLACIER", "InvalidStorageClass"),
        ] {
            assert_eq!(check_headers(&headers(name, value)).unwrap_err().code().as_str(), code, "{name}");
        }
        for (name, value) in [("x-amz-acl", "private"), ("x-amz-storage-class", "STANDARD"), ("x-amz-meta-a", "b")] {
            assert!(check_headers(&headers(name, value)).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_change_with_an_unknown_query_word_is_refused() {
        let operation = |name| Operation::by_name(name).unwrap();
        assert!(check_query(operation("DeleteBucket"), Some("metadataConfiguration")).is_err());
        assert!(check_query(operation("PutObject"), Some("partNumber=1")).is_err());
        assert!(check_query(operation("PutObject"), Some("x-id=PutObject&X-Amz-Signature=a")).is_ok());
        assert!(check_query(operation("GetObject"), Some("anything")).is_ok());
    }
}
