//! What is refused before s3s sees a request: on its headers alone, without reading its body.
//!
//! s3s itself verifies SigV4 (constant time), the clock's skew (15 minutes), that a presigned URL has not
//! expired, and that paths are UTF-8, with no normalisation. It does not refuse: SigV2 (compared in variable
//! time, without a bound on age), other services' scopes, presigned URLs valid for more than seven days,
//! and `x-amz-*` headers that were added after signing; those are refused here.

use http::request::Parts;
use http::{HeaderMap, Method, Uri, header};
use s3s::{S3Error, S3Result, s3_error};

/// Longest validity of a presigned URL, as AWS has it: seven days.
const PRESIGNED_SECONDS_MAX: u64 = 7 * 24 * 3600;
/// Bytes of user metadata at most, names and values, as AWS counts them.
const METADATA_BYTES_MAX: usize = 2 * 1024;

/// The parts of a SigV4 `Authorization` header.
pub(crate) struct Authorization<'a> {
    /// `access-key/date/region/service/aws4_request`
    pub(crate) credential: &'a str,
    /// Names, separated by semicolons.
    pub(crate) signed_headers: &'a str,
    /// 64 hexadecimal digits.
    pub(crate) signature: &'a str,
}

impl<'a> Authorization<'a> {
    /// Takes the header's value apart; `None` when it is not of this form.
    pub(crate) fn parse(value: &'a str) -> Option<Self> {
        let fields = value.strip_prefix("AWS4-HMAC-SHA256")?;
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for field in fields.split(',').map(str::trim) {
            match field.split_once('=')? {
                ("Credential", value) => credential = Some(value),
                ("SignedHeaders", value) => signed_headers = Some(value),
                ("Signature", value) => signature = Some(value),
                _ => return None,
            }
        }
        Some(Self { credential: credential?, signed_headers: signed_headers?, signature: signature? })
    }

    /// `date/region/service/aws4_request`
    pub(crate) fn scope(&self) -> Option<&'a str> {
        let at = self.credential.rmatch_indices('/').nth(3)?.0;
        Some(&self.credential[at + 1..])
    }
}

/// Checks a request's head.
pub(crate) fn check(parts: &Parts) -> S3Result<()> {
    check_form(parts)?;
    check_metadata(&parts.headers)?;
    let query = parts.uri.query().unwrap_or_default();
    if has_word(query, "Signature") && !has_word(query, "X-Amz-Signature") {
        return Err(signature_version());
    }
    if has_word(query, "X-Amz-Signature") {
        if parts.headers.contains_key(header::AUTHORIZATION) {
            return Err(s3_error!(InvalidArgument, "Only one auth mechanism allowed."));
        }
        return check_presigned(query, &parts.headers);
    }
    let Some(value) = parts.headers.get(header::AUTHORIZATION) else {
        return Err(s3_error!(AccessDenied, "Anonymous access is forbidden."));
    };
    let value = value.to_str().map_err(|_| authorization_malformed())?;
    if !value.starts_with("AWS4-HMAC-SHA256") {
        return Err(signature_version());
    }
    let authorization = Authorization::parse(value).ok_or_else(authorization_malformed)?;
    check_scope(authorization.scope()).ok_or_else(authorization_malformed)?;
    check_signed_headers(authorization.signed_headers.split(';'), &parts.headers)
}

/// Browser forms have no place here, and paths are judged before any lookup.
fn check_form(parts: &Parts) -> S3Result<()> {
    let content_type = parts.headers.get(header::CONTENT_TYPE).map(|v| v.as_bytes()).unwrap_or_default();
    let form = b"multipart/form-data";
    if parts.method == Method::POST
        && content_type.get(..form.len()).is_some_and(|start| start.eq_ignore_ascii_case(form))
    {
        return Err(crate::errors::not_implemented("PostObject"));
    }
    check_percent(&parts.uri)
}

/// A percent sign that starts no byte is not a key character but a broken request.
fn check_percent(uri: &Uri) -> S3Result<()> {
    let path = uri.path().as_bytes();
    let broken = path.iter().enumerate().any(|(at, byte)| {
        let digit = |offset: usize| path.get(at + offset).is_some_and(u8::is_ascii_hexdigit);
        *byte == b'%' && !(digit(1) && digit(2))
    });
    if broken { Err(s3_error!(InvalidURI, "Couldn't parse the specified URI.")) } else { Ok(()) }
}

fn check_metadata(headers: &HeaderMap) -> S3Result<()> {
    let bytes: usize = headers
        .iter()
        .filter_map(|(name, value)| Some(name.as_str().strip_prefix("x-amz-meta-")?.len() + value.len()))
        .sum();
    if bytes > METADATA_BYTES_MAX {
        return Err(s3_error!(MetadataTooLarge, "Your metadata headers exceed the maximum allowed metadata size."));
    }
    Ok(())
}

fn check_presigned(query: &str, headers: &HeaderMap) -> S3Result<()> {
    let expires = word(query, "X-Amz-Expires").and_then(|value| value.parse::<u64>().ok());
    let refused = |what: &'static str| s3_error!(AuthorizationQueryParametersError, "{what}");
    match expires {
        None => return Err(refused("X-Amz-Expires must be a non-negative number.")),
        Some(seconds) if seconds > PRESIGNED_SECONDS_MAX => {
            return Err(refused("X-Amz-Expires must be less than a week (in seconds) that is 604800."));
        }
        Some(_) => {}
    }
    let credential = decode(word(query, "X-Amz-Credential").unwrap_or_default());
    let scope = credential.rmatch_indices('/').nth(3).map(|(at, _)| &credential[at + 1..]);
    check_scope(scope).ok_or_else(|| refused("Error parsing the X-Amz-Credential parameter."))?;
    let signed = decode(word(query, "X-Amz-SignedHeaders").unwrap_or_default());
    check_signed_headers(signed.split(';'), headers)
}

fn check_scope(scope: Option<&str>) -> Option<()> {
    let mut parts = scope?.split('/');
    let (date, region) = (parts.next()?, parts.next()?);
    let ours = !date.is_empty() && !region.is_empty() && parts.eq(["s3", "aws4_request"]);
    ours.then_some(())
}

/// The host and every `x-amz-*` header must be signed: an unsigned one may have been added on the way. The
/// payload's hash and the date are part of what is signed anyway.
fn check_signed_headers<'a>(signed: impl Iterator<Item = &'a str> + Clone, headers: &HeaderMap) -> S3Result<()> {
    let is_signed = |name: &str| signed.clone().any(|s| s.eq_ignore_ascii_case(name));
    if !is_signed("host") {
        return Err(s3_error!(AccessDenied, "The host header must be signed."));
    }
    for name in headers.keys().map(header::HeaderName::as_str) {
        let implied = matches!(name, "x-amz-content-sha256" | "x-amz-date");
        if name.starts_with("x-amz-") && !implied && !is_signed(name) {
            return Err(s3_error!(
                AccessDenied,
                "There were headers present in the request which were not signed: {name}"
            ));
        }
    }
    Ok(())
}

fn word<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(word, _)| *word == name).map(|(_, value)| value)
}

fn has_word(query: &str, name: &str) -> bool {
    query.split('&').any(|pair| pair.split('=').next() == Some(name))
}

/// Undoes percent encoding where it is well formed (query values; no `+`).
fn decode(value: &str) -> String {
    let bytes = value.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = value.get(at + 1..at + 3).filter(|_| bytes[at] == b'%').and_then(|h| u8::from_str_radix(h, 16).ok());
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn signature_version() -> S3Error {
    s3_error!(
        InvalidRequest,
        "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
    )
}

fn authorization_malformed() -> S3Error {
    s3_error!(AuthorizationHeaderMalformed, "The authorization header that you provided is not valid.")
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=AK/20260101/r/s3/aws4_request, \
        SignedHeaders=host;x-amz-date, Signature=ab";

    fn code(uri: &str, headers: &[(&str, &str)]) -> String {
        let mut request = http::Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        check(&parts).map_or_else(|e| e.code().as_str().to_owned(), |()| "ok".to_owned())
    }

    #[test]
    fn an_authorization_header_comes_apart() {
        let parsed = Authorization::parse(AUTHORIZATION).unwrap();
        assert_eq!(parsed.scope(), Some("20260101/r/s3/aws4_request"));
        assert_eq!((parsed.signed_headers, parsed.signature), ("host;x-amz-date", "ab"));
        assert!(Authorization::parse("AWS4-HMAC-SHA256 Credential=a").is_none());
    }

    #[test]
    fn other_ways_to_authenticate_are_refused() {
        assert_eq!(code("/b", &[]), "AccessDenied");
        assert_eq!(code("/b", &[("authorization", "AWS a:b")]), "InvalidRequest");
        assert_eq!(code("/b?Signature=x&AWSAccessKeyId=a&Expires=1", &[]), "InvalidRequest");
        assert_eq!(code("/b", &[("authorization", "AWS4-HMAC-SHA256 nonsense")]), "AuthorizationHeaderMalformed");
        let sts = AUTHORIZATION.replace("/s3/", "/sts/");
        assert_eq!(code("/b", &[("authorization", &sts)]), "AuthorizationHeaderMalformed");
        assert_eq!(code("/b", &[("authorization", AUTHORIZATION)]), "ok");
    }

    #[test]
    fn unsigned_amz_headers_are_refused() {
        let added = [("authorization", AUTHORIZATION), ("x-amz-copy-source", "/other/secret")];
        assert_eq!(code("/b/k", &added), "AccessDenied");
        let implied = [("authorization", AUTHORIZATION), ("x-amz-content-sha256", "UNSIGNED-PAYLOAD")];
        assert_eq!(code("/b/k", &implied), "ok");
    }

    #[test]
    fn a_presigned_url_lives_a_week_at_most() {
        let url = |seconds: &str| {
            format!(
                "/b/k?X-Amz-Signature=a&X-Amz-Expires={seconds}&X-Amz-SignedHeaders=host&X-Amz-Credential=AK%2F1%2Fr%2Fs3%2Faws4_request"
            )
        };
        assert_eq!(code(&url("604800"), &[]), "ok");
        assert_eq!(code(&url("604801"), &[]), "AuthorizationQueryParametersError");
        assert_eq!(code(&url("-1"), &[]), "AuthorizationQueryParametersError");
        assert_eq!(code(&url("60"), &[("authorization", AUTHORIZATION)]), "InvalidArgument");
    }

    #[test]
    fn broken_paths_forms_and_long_metadata_are_refused() {
        assert_eq!(code("/b/%zz", &[("authorization", AUTHORIZATION)]), "InvalidURI");
        let long = "x".repeat(2048);
        assert_eq!(code("/b/k", &[("x-amz-meta-a", &long)]), "MetadataTooLarge");
    }
}
