//! Reading objects: get, head, attributes.
//!
//! The first piece of a body is read before the response begins, so that an object that cannot be read is
//! an error and not a broken response, and so that header and first bytes leave together.

use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use object::api::{Checksum, ObjectApi, ObjectInfo, ObjectResult, Reader};
use s3s::dto::{self, *};
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{Body, S3Request, S3Response, S3Result, StdError, s3_error};
use sync_wrapper::SyncWrapper;
use thiserror::Error;

use super::Face;
use crate::condition::{ReadConditions, Verdict};
use crate::convert::{self, check_version, content_type, set_checksum, size, timestamp, user_metadata};
use crate::errors::{self, object_error};
use crate::paging;

/// Why a response breaks off; the client sees only that it does.
#[derive(Debug, Error)]
enum Broken {
    #[error("the object could not be read to its end: {0}")]
    Read(String),
    #[error("{0} bytes of the object are missing")]
    Short(u64),
}

/// An object's bytes on their way out; fails rather than ending early or giving more.
struct ObjectStream {
    first: Option<Bytes>,
    rest: SyncWrapper<BoxStream<'static, ObjectResult<Bytes>>>,
    left: u64,
}

impl Stream for ObjectStream {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let next = match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => ready!(self.rest.get_mut().poll_next_unpin(cx)),
        };
        Poll::Ready(Some(match next {
            Some(Ok(bytes)) if bytes.len() as u64 <= self.left => {
                self.left -= bytes.len() as u64;
                Ok(bytes)
            }
            Some(Ok(bytes)) => Err(Box::new(Broken::Read(format!("{} bytes too many", bytes.len())))),
            Some(Err(error)) => {
                tracing::error!(%error, "a response breaks off: the object could not be read");
                Err(Box::new(Broken::Read(error.to_string())))
            }
            None => {
                tracing::error!(left = self.left, "a response breaks off: the object ended early");
                Err(Box::new(Broken::Short(self.left)))
            }
        }))
    }
}

impl ByteStream for ObjectStream {
    fn remaining_length(&self) -> RemainingLength {
        usize::try_from(self.left).map_or_else(|_| RemainingLength::unknown(), RemainingLength::new_exact)
    }
}

async fn body<R: Reader>(reader: R, range: Range<u64>) -> S3Result<StreamingBlob> {
    let left = range.end - range.start;
    if left == 0 {
        return Ok(StreamingBlob::from(Body::empty()));
    }
    let mut rest = reader.read(range);
    let first = match rest.next().await {
        Some(first) => first.map_err(object_error)?,
        None => return Err(s3_error!(InternalError, "The object could not be read.")),
    };
    if first.len() as u64 == left {
        return Ok(StreamingBlob::from(Body::from(first)));
    }
    Ok(StreamingBlob::new(ObjectStream { first: Some(first), rest: SyncWrapper::new(rest), left }))
}

/// Which bytes of an object a request asks for.
struct Slice {
    range: Range<u64>,
    /// `Content-Range`, when it is not simply the whole object.
    content_range: Option<String>,
    /// The checksum that belongs to exactly these bytes.
    checksum: Option<Checksum>,
    parts_count: Option<i32>,
}

fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end - 1)
}

fn slice(info: &ObjectInfo, range: Option<&dto::Range>, part: Option<i32>) -> S3Result<Slice> {
    match (range, part) {
        (Some(_), Some(_)) => Err(s3_error!(InvalidRequest, "Cannot specify both Range header and partNumber query.")),
        (Some(range), None) => {
            let range = range.check(info.size).ok().filter(|r| !r.is_empty());
            let range = range.ok_or_else(|| errors::invalid_range(info.size))?;
            let content_range = Some(content_range(&range, info.size));
            Ok(Slice { range, content_range, checksum: None, parts_count: None })
        }
        (None, Some(number)) => part_slice(info, number),
        (None, None) => {
            Ok(Slice { range: 0..info.size, content_range: None, checksum: info.checksum.clone(), parts_count: None })
        }
    }
}

fn part_slice(info: &ObjectInfo, number: i32) -> S3Result<Slice> {
    if !(1..=10_000).contains(&number) {
        return Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive."));
    }
    let mut start = 0;
    let whole = [(1, info.size, info.checksum.clone())];
    let parts = if info.parts.is_empty() { &whole[..] } else { &info.parts[..] };
    for (at, bytes, checksum) in parts {
        if i64::from(*at) == i64::from(number) {
            let range = start..start + bytes;
            return Ok(Slice {
                content_range: (*bytes > 0).then(|| content_range(&range, info.size)),
                range,
                checksum: checksum.clone(),
                parts_count: (!info.parts.is_empty()).then(|| i32::try_from(info.parts.len()).unwrap_or(i32::MAX)),
            });
        }
        start += bytes;
    }
    let mut error = s3_error!(InvalidRange, "The requested part number is not satisfiable.");
    error.set_code(s3s::S3ErrorCode::Custom("InvalidPartNumber".into()));
    error.set_status_code(http::StatusCode::RANGE_NOT_SATISFIABLE);
    Err(error)
}

/// Judges a reader's conditions; a copy that is still good (304) carries its validators.
fn judge(conditions: &ReadConditions<'_>, info: &ObjectInfo) -> S3Result<()> {
    match conditions.judge(info) {
        Verdict::Go => Ok(()),
        Verdict::Failed => Err(errors::precondition_failed()),
        Verdict::NotModified => {
            let mut headers = HeaderMap::with_capacity(2);
            insert(&mut headers, header::ETAG, &format!("\"{}\"", info.etag));
            let mut date = Vec::with_capacity(32);
            if timestamp(info.modified_ms).format(TimestampFormat::HttpDate, &mut date).is_ok()
                && let Ok(date) = HeaderValue::from_bytes(&date)
            {
                headers.insert(header::LAST_MODIFIED, date);
            }
            Err(errors::not_modified(headers))
        }
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // What came in as a header goes out as one; what cannot is left out rather than failing the read.
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(name, value);
    }
}

/// `Expires` goes out as it came in, valid date or not.
fn extra_headers(info: &ObjectInfo, overridden: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(expires) = info.meta.expires.as_deref().filter(|_| !overridden) {
        insert(&mut headers, header::EXPIRES, expires);
    }
    headers
}

fn wants_checksum(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED)
}

/// Fills the fields that GetObjectOutput and HeadObjectOutput share.
macro_rules! describe {
    ($target:expr, $info:expr, $slice:expr, $checksum_mode:expr) => {{
        let (target, info, slice) = (&mut $target, &$info, &$slice);
        target.accept_ranges = Some("bytes".to_owned());
        target.cache_control = info.meta.cache_control.clone();
        target.content_disposition = info.meta.content_disposition.clone();
        target.content_encoding = info.meta.content_encoding.clone();
        target.content_language = info.meta.content_language.clone();
        target.content_length = Some(size(slice.range.end - slice.range.start));
        target.content_range = slice.content_range.clone();
        target.content_type = content_type(info).parse().ok();
        target.e_tag = Some(convert::etag(info.etag));
        target.last_modified = Some(timestamp(info.modified_ms));
        target.metadata = user_metadata(info);
        target.parts_count = slice.parts_count;
        target.website_redirect_location = info.meta.website_redirect_location.clone();
        if wants_checksum($checksum_mode) {
            set_checksum!(target, slice.checksum.as_ref());
            target.checksum_type = convert::checksum_kind(info.checksum.as_ref().filter(|_| slice.checksum.is_some()));
        }
    }};
}

impl<O: ObjectApi> Face<O> {
    pub(super) async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        check_version(input.version_id.as_deref())?;
        let (info, reader) = self.api.open(&input.bucket, &input.key).await.map_err(object_error)?;
        let conditions = ReadConditions {
            if_match: input.if_match.as_ref(),
            if_none_match: input.if_none_match.as_ref(),
            if_modified_since: input.if_modified_since.as_ref(),
            if_unmodified_since: input.if_unmodified_since.as_ref(),
        };
        judge(&conditions, &info)?;
        let slice = slice(&info, input.range.as_ref(), input.part_number)?;
        let mut output = GetObjectOutput::default();
        describe!(output, info, slice, input.checksum_mode.as_ref());
        output.body = Some(body(reader, slice.range.clone()).await?);
        Ok(S3Response::with_headers(output, extra_headers(&info, input.response_expires.is_some())))
    }

    pub(super) async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        check_version(input.version_id.as_deref())?;
        let (info, _) = self.api.open(&input.bucket, &input.key).await.map_err(object_error)?;
        let conditions = ReadConditions {
            if_match: input.if_match.as_ref(),
            if_none_match: input.if_none_match.as_ref(),
            if_modified_since: input.if_modified_since.as_ref(),
            if_unmodified_since: input.if_unmodified_since.as_ref(),
        };
        judge(&conditions, &info)?;
        let slice = slice(&info, input.range.as_ref(), input.part_number)?;
        let mut output = HeadObjectOutput::default();
        describe!(output, info, slice, input.checksum_mode.as_ref());
        let mut headers = extra_headers(&info, input.response_expires.is_some());
        for (name, value) in [
            (header::CACHE_CONTROL, &input.response_cache_control),
            (header::CONTENT_DISPOSITION, &input.response_content_disposition),
            (header::CONTENT_ENCODING, &input.response_content_encoding),
            (header::CONTENT_LANGUAGE, &input.response_content_language),
            (header::CONTENT_TYPE, &input.response_content_type),
        ] {
            if let Some(value) = value {
                insert(&mut headers, name, value);
            }
        }
        Ok(S3Response::with_headers(output, headers))
    }

    pub(super) async fn get_object_attributes(
        &self,
        request: S3Request<GetObjectAttributesInput>,
    ) -> S3Result<S3Response<GetObjectAttributesOutput>> {
        let input = request.input;
        check_version(input.version_id.as_deref())?;
        let (info, _) = self.api.open(&input.bucket, &input.key).await.map_err(object_error)?;
        // One header with commas and several headers mean the same; s3s takes only the latter apart.
        let wants =
            |name: &str| input.object_attributes.iter().flat_map(|a| a.as_str().split(',')).any(|a| a.trim() == name);
        let mut output =
            GetObjectAttributesOutput { last_modified: Some(timestamp(info.modified_ms)), ..Default::default() };
        if wants(ObjectAttributes::ETAG) {
            output.e_tag = Some(convert::etag(info.etag));
        }
        if wants(ObjectAttributes::OBJECT_SIZE) {
            output.object_size = Some(size(info.size));
        }
        if wants(ObjectAttributes::STORAGE_CLASS) {
            output.storage_class = Some(convert::standard());
        }
        if wants(ObjectAttributes::CHECKSUM) && info.checksum.is_some() {
            let mut checksum = dto::Checksum::default();
            set_checksum!(checksum, info.checksum.as_ref());
            checksum.checksum_type = convert::checksum_kind(info.checksum.as_ref());
            output.checksum = Some(checksum);
        }
        if wants(ObjectAttributes::OBJECT_PARTS) && !info.parts.is_empty() {
            output.object_parts = Some(attribute_parts(&info, input.max_parts, input.part_number_marker)?);
        }
        Ok(S3Response::new(output))
    }
}

fn attribute_parts(
    info: &ObjectInfo,
    max_parts: Option<i32>,
    marker: Option<i32>,
) -> S3Result<GetObjectAttributesParts> {
    let limit = paging::page("max-parts", max_parts)?;
    let marker = marker.unwrap_or(0);
    let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let mut after = info.parts.iter().filter(|(n, _, _)| number(*n) > marker);
    let parts: Vec<ObjectPart> = after
        .by_ref()
        .take(limit)
        .map(|(n, bytes, checksum)| {
            let mut part = ObjectPart { part_number: Some(number(*n)), size: Some(size(*bytes)), ..Default::default() };
            set_checksum!(part, checksum.as_ref());
            part
        })
        .collect();
    let truncated = after.next().is_some();
    Ok(GetObjectAttributesParts {
        is_truncated: Some(truncated),
        max_parts: i32::try_from(limit).ok(),
        next_part_number_marker: parts.last().and_then(|part| part.part_number),
        part_number_marker: Some(marker),
        total_parts_count: i32::try_from(info.parts.len()).ok(),
        parts: Some(parts),
    })
}
