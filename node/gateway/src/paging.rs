//! Continuation tokens and page sizes.

use base64_simd::URL_SAFE_NO_PAD as BASE64;
use s3s::{S3Result, s3_error};

/// Most entries of a page, as on AWS.
pub(crate) const PAGE_MAX: usize = 1000;
/// First byte of a token; another one if what follows ever changes.
const TOKEN_VERSION: u8 = 1;

/// A token that continues a listing after `last`. Opaque: a version, a CRC-32 of the rest, the key.
pub(crate) fn token(last: &str) -> String {
    let crc = crc_fast::crc32_iso_hdlc(last.as_bytes());
    let mut bytes = Vec::with_capacity(last.len() + 5);
    bytes.push(TOKEN_VERSION);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes.extend_from_slice(last.as_bytes());
    BASE64.encode_to_string(bytes)
}

/// Where a token continues.
///
/// # Errors
/// `InvalidArgument` when this store did not make it.
pub(crate) fn parse_token(text: &str) -> S3Result<String> {
    let refused = || s3_error!(InvalidArgument, "The continuation token provided is incorrect.");
    let bytes = BASE64.decode_to_vec(text.as_bytes()).map_err(|_| refused())?;
    let [TOKEN_VERSION, a, b, c, d, last @ ..] = bytes.as_slice() else { return Err(refused()) };
    if crc_fast::crc32_iso_hdlc(last) != u32::from_be_bytes([*a, *b, *c, *d]) {
        return Err(refused());
    }
    String::from_utf8(last.to_vec()).map_err(|_| refused())
}

/// The page size a client asks for; more than a page's maximum is that.
pub(crate) fn page(name: &str, given: Option<i32>) -> S3Result<usize> {
    let Some(given) = given else { return Ok(PAGE_MAX) };
    let size = usize::try_from(given).map_err(|_| s3_error!(InvalidArgument, "{name} must not be negative."))?;
    Ok(size.min(PAGE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_continues_where_it_was_made_and_no_other_does() {
        for key in ["", "a/b", "ü\n"] {
            assert_eq!(parse_token(&token(key)).unwrap(), key);
        }
        let mut altered = token("abc").into_bytes();
        let last = altered.len() - 1;
        altered[last] = if altered[last] == b'A' { b'Q' } else { b'A' };
        for bad in ["", "x", "AAAA", std::str::from_utf8(&altered).unwrap()] {
            assert_eq!(parse_token(bad).unwrap_err().code().as_str(), "InvalidArgument", "{bad}");
        }
    }

    #[test]
    fn a_page_is_bounded() {
        assert_eq!(page("max-keys", None).unwrap(), 1000);
        assert_eq!(page("max-keys", Some(0)).unwrap(), 0);
        assert_eq!(page("max-keys", Some(5000)).unwrap(), 1000);
        assert!(page("max-keys", Some(-1)).is_err());
    }
}
