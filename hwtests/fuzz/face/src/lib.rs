//! The gateway's parsers of what clients send, opened for fuzzing.
//!
//! They are private to `node/gateway`; here the very same files are compiled into a crate that exposes them,
//! so that the gateway need not. Nothing is copied: a change there is a change here.
//!
//! Left out: what s3s parses (query strings, XML, signatures), and the face's operations.

#![forbid(unsafe_code)]
#![allow(dead_code, unused_imports, unreachable_pub, unused_macros)]

#[path = "../../../../node/gateway/src/chunked.rs"]
mod chunked;
#[path = "../../../../node/gateway/src/condition.rs"]
mod condition;
#[path = "../../../../node/gateway/src/context.rs"]
mod context;
#[path = "../../../../node/gateway/src/convert.rs"]
mod convert;
#[path = "../../../../node/gateway/src/declared.rs"]
mod declared;
#[path = "../../../../node/gateway/src/digest.rs"]
mod digest;
#[path = "../../../../node/gateway/src/errors.rs"]
mod errors;
#[path = "../../../../node/gateway/src/guard.rs"]
mod guard;
#[path = "../../../../node/gateway/src/incoming.rs"]
mod incoming;
#[path = "../../../../node/gateway/src/paging.rs"]
mod paging;
#[path = "../../../../node/gateway/src/stats.rs"]
mod stats;
#[path = "../../../../node/gateway/src/xml.rs"]
mod xml;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};

/// The secret of [`signed_decoder`] and of the seeds made for it: AWS's own example.
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const DATE: &str = "20130524T000000Z";
const SCOPE: &str = "20130524/us-east-1/s3/aws4_request";
const SEED: &str = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";

/// Decodes an aws-chunked body given in pieces of `piece` bytes; the data, when all of it was acceptable.
pub fn decode_chunks(body: &[u8], decoded_bytes: u64, signed: bool, trailers: bool, piece: usize) -> Option<Vec<u8>> {
    let signer = signed.then(|| chunked::ChunkSigner::new(SECRET, DATE, SCOPE, SEED));
    let mut decoder = chunked::ChunkDecoder::new(signer, decoded_bytes, trailers);
    let mut out = Vec::new();
    for piece in body.chunks(piece.max(1)) {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(data) = decoder.step(&mut input).ok()? {
            assert!(!data.is_empty(), "a step that gives data gives some");
            out.extend_from_slice(&data);
        }
    }
    decoder.end().ok()?;
    let _ = decoder.trailer("x-amz-checksum-crc32");
    assert_eq!(out.len() as u64, decoded_bytes, "what was announced came");
    Some(out)
}

/// Whether an XML body of at most `bytes_max` bytes passes, given in pieces of `piece` bytes.
pub fn scan_xml(body: &[u8], bytes_max: usize, piece: usize) -> bool {
    let mut scanner = xml::Scanner::new(bytes_max);
    body.chunks(piece.max(1)).all(|piece| scanner.scan(piece).is_ok())
}

/// Reads a request's head through everything of ours that looks at one. `text` is
/// `METHOD target\n name:value\n ...`, without spaces around names. Whether it was a head at all.
pub fn read_head(text: &[u8]) -> bool {
    let mut lines = text.split(|byte| *byte == b'\n');
    let Some((method, target)) = lines.next().and_then(|line| std::str::from_utf8(line).ok()?.split_once(' ')) else {
        return false;
    };
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return false };
    let Ok(mut request) = Request::builder().method(method).uri(target).body(()) else { return false };
    for line in lines.take(100) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(&line[colon + 1..]);
        if let (Ok(name), Ok(value)) = (name, value) {
            request.headers_mut().append(name, value);
        }
    }
    let (parts, ()) = request.into_parts();
    let _ = guard::check(&parts);
    read_headers(&parts.headers);
    true
}

fn read_headers(headers: &HeaderMap) {
    let credentials = s3s::auth::Credentials { access_key: "AKIAIOSFODNN7EXAMPLE".into(), secret_key: SECRET.into() };
    if let Ok(declared) = declared::Declared::read(headers, Some(&credentials)) {
        assert!(declared.bytes <= declared::PUT_BYTES_MAX, "what is announced is bounded");
        let _ = declared.algorithm();
    }
    let _ = declared::content_sha256(headers);
    let _ = declared::body_checksum(headers);
    let _ = condition::of_write_headers(headers);
    if let Ok(meta) = convert::meta(headers) {
        let _ = meta.user.len();
    }
}

/// Reads a continuation token and an upload id; what they name is given back as it came.
pub fn read_words(text: &str) {
    if let Ok(key) = paging::parse_token(text) {
        assert_eq!(paging::parse_token(&paging::token(&key)).ok(), Some(key), "a token survives its text");
    }
    if let Ok(upload) = convert::parse_upload(text) {
        assert!(convert::upload_text(upload).eq_ignore_ascii_case(text), "an upload id has one text");
    }
    let _ = convert::url_encode(text);
    let _ = convert::check_version(Some(text));
}

/// A token for `key`, for seeds.
pub fn token(key: &str) -> String {
    paging::token(key)
}
