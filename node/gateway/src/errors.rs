//! The object layer's errors as AWS's codes, and how an error becomes a response.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use object::api::{BodyError, ObjectError};
use s3s::{S3Error, S3ErrorCode, s3_error};

/// Code of a request that full devices refuse; AWS has no such state, so the name is the HTTP status's.
const INSUFFICIENT_STORAGE: &str = "InsufficientStorage";

/// The code for a payload hash that differs, as AWS spells it.
const CONTENT_SHA256_MISMATCH: &str = "XAmzContentSHA256Mismatch";

/// An error with a code that s3s does not list.
fn custom(code: &'static str, status: StatusCode, message: &'static str) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), message);
    error.set_status_code(status);
    error
}

/// Why a body was refused, in AWS's words.
pub(crate) fn body_error(error: &BodyError) -> S3Error {
    match error {
        BodyError::Incomplete => {
            s3_error!(IncompleteBody, "The body has fewer bytes than the request declares.")
        }
        BodyError::BadDigest => {
            s3_error!(BadDigest, "The Content-MD5 you specified did not match what we received.")
        }
        BodyError::BadChecksum(name) if *name == crate::declared::CONTENT_SHA256 => custom(
            CONTENT_SHA256_MISMATCH,
            StatusCode::BAD_REQUEST,
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        ),
        BodyError::BadChecksum(name) => {
            s3_error!(BadDigest, "The {name} you specified did not match the calculated checksum.")
        }
        BodyError::Malformed(what) => s3_error!(InvalidRequest, "The body is malformed: {what}."),
        BodyError::SignatureMismatch => {
            s3_error!(SignatureDoesNotMatch, "The signature of a chunk or trailer does not match.")
        }
        BodyError::TooLarge => too_large(),
        BodyError::TimedOut => s3_error!(
            RequestTimeout,
            "Your socket connection to the server was not read from or written to within the timeout period."
        ),
        BodyError::Source(what) => {
            tracing::error!(what, "the source of a copy could not be read");
            s3_error!(InternalError, "The source of the copy could not be read.")
        }
    }
}

/// An object or part beyond AWS's bounds.
pub(crate) fn too_large() -> S3Error {
    s3_error!(EntityTooLarge, "Your proposed upload exceeds the maximum allowed size.")
}

/// Why the object layer refused, in AWS's words.
pub(crate) fn object_error(error: ObjectError) -> S3Error {
    match error {
        ObjectError::NoSuchBucket => s3_error!(NoSuchBucket, "The specified bucket does not exist."),
        ObjectError::NoSuchKey => s3_error!(NoSuchKey, "The specified key does not exist."),
        ObjectError::NoSuchUpload => no_such_upload(),
        ObjectError::BucketExists { .. } => {
            s3_error!(BucketAlreadyExists, "The requested bucket name is not available.")
        }
        ObjectError::BucketNotEmpty => {
            s3_error!(BucketNotEmpty, "The bucket you tried to delete is not empty.")
        }
        ObjectError::PreconditionFailed => precondition_failed(),
        ObjectError::InvalidPart { number } => {
            s3_error!(InvalidPart, "Part {number} could not be found, or its entity tag or checksum does not match.")
        }
        ObjectError::InvalidPartOrder => {
            s3_error!(InvalidPartOrder, "The list of parts was not in ascending order.")
        }
        ObjectError::PartTooSmall { number, size } => {
            s3_error!(EntityTooSmall, "Part {number} has {size} bytes; every part but the last needs at least 5 MiB.")
        }
        ObjectError::TooLarge => too_large(),
        ObjectError::ChecksumMismatch => {
            s3_error!(InvalidRequest, "The checksum or its type differs from what the upload was begun with.")
        }
        ObjectError::Body(body) => body_error(&body),
        ObjectError::InsufficientStorage => custom(
            INSUFFICIENT_STORAGE,
            StatusCode::INSUFFICIENT_STORAGE,
            "The devices are full; reads and deletes go on.",
        ),
        ObjectError::SlowDown => slow_down(),
        ObjectError::Unavailable(why) => {
            tracing::warn!(why, "too few devices answer");
            s3_error!(ServiceUnavailable, "Too few devices answer; please try again.")
        }
        ObjectError::Internal(why) => {
            tracing::error!(why, "internal error of the object layer");
            s3_error!(InternalError, "We encountered an internal error. Please try again.")
        }
    }
}

/// No such multipart upload.
pub(crate) fn no_such_upload() -> S3Error {
    s3_error!(NoSuchUpload, "The specified multipart upload does not exist.")
}

/// A condition does not hold.
pub(crate) fn precondition_failed() -> S3Error {
    s3_error!(PreconditionFailed, "At least one of the preconditions you specified did not hold.")
}

/// Too much at once.
pub(crate) fn slow_down() -> S3Error {
    let mut error = s3_error!(SlowDown, "Please reduce your request rate.");
    error.set_status_code(StatusCode::SERVICE_UNAVAILABLE);
    error
}

/// The client's copy is still good (304).
pub(crate) fn not_modified(headers: HeaderMap) -> S3Error {
    let mut error = S3Error::new(S3ErrorCode::NotModified);
    error.set_status_code(StatusCode::NOT_MODIFIED);
    error.set_headers(headers);
    error
}

/// No byte of the range is in the object.
pub(crate) fn invalid_range(size: u64) -> S3Error {
    let mut error = s3_error!(InvalidRange, "The requested range is not satisfiable.");
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    if let Ok(value) = HeaderValue::try_from(format!("bytes */{size}")) {
        headers.insert(header::CONTENT_RANGE, value);
    }
    error.set_status_code(StatusCode::RANGE_NOT_SATISFIABLE);
    error.set_headers(headers);
    error
}

/// Something S3 has and this store has not.
pub(crate) fn not_implemented(what: &str) -> S3Error {
    s3_error!(NotImplemented, "{what} is not implemented.")
}
