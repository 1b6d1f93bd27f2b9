//! What a request says of its body: length, framing, digests. Read from the headers after the signature
//! was verified, so that every word here is the signer's (or, presigned, the bearer's).

use std::borrow::Cow;

use base64_simd::STANDARD as BASE64;
use http::{HeaderMap, header};
use object::api::{Checksum, ChecksumAlgorithm, ChecksumKind};
use s3s::auth::Credentials;
use s3s::{S3Result, s3_error};

use crate::chunked::{ChunkDecoder, ChunkSigner};
use crate::digest;

/// The header that carries the payload's SHA-256, or says how it is framed.
pub(crate) const CONTENT_SHA256: &str = "x-amz-content-sha256";
/// AWS's bound on an object put in one piece, and on a part: 5 GiB.
pub(crate) const PUT_BYTES_MAX: u64 = 5 * base::GIB;

/// What a client declared of a body.
pub(crate) struct Declared {
    /// Decoded bytes.
    pub(crate) bytes: u64,
    /// `Content-MD5`.
    pub(crate) md5: Option<[u8; 16]>,
    /// The checksum in a header.
    pub(crate) checksum: Option<Checksum>,
    /// The algorithm whose value comes in a trailer.
    pub(crate) trailer: Option<ChecksumAlgorithm>,
    /// `x-amz-content-sha256`, when it is a hash.
    pub(crate) content_sha256: Option<[u8; 32]>,
    /// The frames around the bytes, when there are any.
    pub(crate) chunks: Option<ChunkDecoder>,
}

impl Declared {
    /// Reads the headers of an upload.
    pub(crate) fn read(headers: &HeaderMap, credentials: Option<&Credentials>) -> S3Result<Self> {
        let payload = text(headers, CONTENT_SHA256)?.unwrap_or("UNSIGNED-PAYLOAD");
        let streaming = payload.starts_with("STREAMING-");
        let bytes = length(headers, streaming)?;
        if bytes > PUT_BYTES_MAX {
            return Err(crate::errors::too_large());
        }
        let checksum = checksum(headers)?;
        let trailer = trailer(headers)?;
        if checksum.is_some() && trailer.is_some() {
            return Err(s3_error!(InvalidRequest, "Expecting a single checksum, in a header or in a trailer."));
        }
        let algorithm = checksum.as_ref().map(|c| c.algorithm).or(trailer);
        check_sdk_algorithm(headers, algorithm)?;
        let wants_trailers = payload.ends_with("-TRAILER");
        if trailer.is_some() && !wants_trailers {
            return Err(s3_error!(InvalidRequest, "x-amz-trailer needs a payload with trailers."));
        }
        let chunks = match payload {
            _ if !streaming => None,
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Some(ChunkDecoder::new(None, bytes, true)),
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" | "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => {
                Some(ChunkDecoder::new(Some(signer(headers, credentials)?), bytes, wants_trailers))
            }
            _ => return Err(crate::errors::not_implemented("This payload signing algorithm")),
        };
        Ok(Self { bytes, md5: content_md5(headers)?, checksum, trailer, content_sha256: hex32(payload), chunks })
    }

    /// The algorithm the client verifies with.
    pub(crate) fn algorithm(&self) -> Option<ChecksumAlgorithm> {
        self.checksum.as_ref().map(|c| c.algorithm).or(self.trailer)
    }
}

/// A header as text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> S3Result<Option<&'a str>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    value.to_str().map(Some).map_err(|_| s3_error!(InvalidArgument, "The header {name} is not text."))
}

fn length(headers: &HeaderMap, streaming: bool) -> S3Result<u64> {
    let decoded = text(headers, "x-amz-decoded-content-length")?;
    let (name, value) = if streaming {
        ("x-amz-decoded-content-length", decoded)
    } else if decoded.is_some() {
        return Err(s3_error!(InvalidRequest, "x-amz-decoded-content-length needs an aws-chunked payload."));
    } else {
        ("content-length", text(headers, header::CONTENT_LENGTH.as_str())?)
    };
    let value = value.ok_or_else(|| s3_error!(MissingContentLength, "The header {name} is missing."))?;
    value.parse().map_err(|_| s3_error!(InvalidArgument, "The header {name} is not a number."))
}

/// `Content-MD5`, decoded.
pub(crate) fn content_md5(headers: &HeaderMap) -> S3Result<Option<[u8; 16]>> {
    let Some(value) = text(headers, "content-md5")? else { return Ok(None) };
    let digest = BASE64.decode_to_vec(value.as_bytes()).ok().and_then(|v| v.try_into().ok());
    digest.map(Some).ok_or_else(|| s3_error!(InvalidDigest, "The Content-MD5 you specified is not valid."))
}

/// The one checksum header there may be.
pub(crate) fn checksum(headers: &HeaderMap) -> S3Result<Option<Checksum>> {
    let mut found: Option<Checksum> = None;
    for algorithm in digest::ALGORITHMS {
        let name = digest::header_name(algorithm);
        let Some(value) = text(headers, name)? else { continue };
        if found.is_some() {
            return Err(s3_error!(InvalidRequest, "Expecting a single x-amz-checksum- header."));
        }
        let value = digest::parse_value(algorithm, value)
            .ok_or_else(|| s3_error!(InvalidRequest, "Value for {name} header is invalid."))?;
        found = Some(Checksum { algorithm, kind: ChecksumKind::FullObject, value, parts: None });
    }
    Ok(found)
}

fn trailer(headers: &HeaderMap) -> S3Result<Option<ChecksumAlgorithm>> {
    let Some(names) = text(headers, "x-amz-trailer")? else { return Ok(None) };
    let mut found = None;
    for name in names.split(',').map(str::trim) {
        let algorithm = digest::ALGORITHMS.into_iter().find(|a| digest::header_name(*a).eq_ignore_ascii_case(name));
        if algorithm.is_none() || found.is_some() {
            return Err(s3_error!(InvalidRequest, "The value specified in the x-amz-trailer header is not supported."));
        }
        found = algorithm;
    }
    Ok(found)
}

fn check_sdk_algorithm(headers: &HeaderMap, given: Option<ChecksumAlgorithm>) -> S3Result<()> {
    let Some(name) = text(headers, "x-amz-sdk-checksum-algorithm")? else { return Ok(()) };
    let named = digest::algorithm_by_name(name)
        .ok_or_else(|| s3_error!(InvalidRequest, "Value for x-amz-sdk-checksum-algorithm header is invalid."))?;
    match given {
        Some(given) if given == named => Ok(()),
        Some(_) => Err(s3_error!(InvalidRequest, "x-amz-sdk-checksum-algorithm differs from the checksum given.")),
        None => Err(s3_error!(
            InvalidRequest,
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found."
        )),
    }
}

fn hex32(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; 32];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(out)
}

/// The payload's SHA-256, when the header is one.
pub(crate) fn content_sha256(headers: &HeaderMap) -> Option<[u8; 32]> {
    headers.get(CONTENT_SHA256)?.to_str().ok().and_then(hex32)
}

/// The signer of the chunks, from the `Authorization` header that has been verified.
fn signer(headers: &HeaderMap, credentials: Option<&Credentials>) -> S3Result<ChunkSigner> {
    let refused = || s3_error!(InvalidRequest, "Signed chunks need a signed Authorization header.");
    let credentials = credentials.ok_or_else(refused)?;
    let authorization = text(headers, header::AUTHORIZATION.as_str())?.ok_or_else(refused)?;
    let date = text(headers, "x-amz-date")?.ok_or_else(refused)?;
    let parts = crate::guard::Authorization::parse(authorization).ok_or_else(refused)?;
    let scope = parts.scope().ok_or_else(refused)?;
    Ok(ChunkSigner::new(credentials.secret_key.expose(), date, scope, parts.signature))
}

/// `Content-Encoding` without the transport's `aws-chunked`; `None` when nothing is left.
pub(crate) fn content_encoding(value: &str) -> Option<Cow<'_, str>> {
    if !value.split(',').any(|part| part.trim().eq_ignore_ascii_case("aws-chunked")) {
        return Some(Cow::Borrowed(value));
    }
    let rest: Vec<&str> =
        value.split(',').map(str::trim).filter(|p| !p.is_empty() && !p.eq_ignore_ascii_case("aws-chunked")).collect();
    (!rest.is_empty()).then(|| Cow::Owned(rest.join(",")))
}

/// The checksum of a whole request body that is not an object (DeleteObjects).
pub(crate) fn body_checksum(headers: &HeaderMap) -> S3Result<Option<Checksum>> {
    // CompleteMultipartUpload uses the same headers for the object; `x-amz-sdk-checksum-algorithm` tells.
    if headers.contains_key("x-amz-sdk-checksum-algorithm") { checksum(headers) } else { Ok(None) }
}
