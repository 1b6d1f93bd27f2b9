//! What clients send, as far as the gateway parses it itself.

use crate::{bounded, options};

/// An aws-chunked body. Options: 1 signed, 2 with trailers; then decoded bytes (2), piece (1). How the body
/// is cut must not matter.
pub(crate) fn chunked(data: &[u8]) {
    let Some((options, [low, high, piece, body @ ..])) = options(data) else { return };
    let decoded = u64::from(u16::from_le_bytes([*low, *high]));
    let decode = |piece: usize| {
        // The decoder holds a line and the trailers; the rest is the pieces and the data they come to.
        bounded(body.len(), 8, 64 << 10, || {
            face::decode_chunks(body, decoded, options & 1 != 0, options & 2 != 0, piece)
        })
    };
    assert_eq!(decode(body.len()), decode(usize::from(*piece)), "how a body is cut does not matter");
}

/// An XML body; the first bytes are its bound (2) and the piece (1).
pub(crate) fn xml(data: &[u8]) {
    let [low, high, piece, body @ ..] = data else { return };
    let max = usize::from(u16::from_le_bytes([*low, *high]));
    bounded(0, 0, 0, || {
        let whole = face::scan_xml(body, max, body.len());
        assert_eq!(whole, face::scan_xml(body, max, usize::from(*piece)), "how a body is cut does not matter");
        assert!(!whole || body.len() <= max, "a body is not longer than allowed");
    });
}

/// A request's head (option 0), or a word of a query: token, upload id, version (option 1).
pub(crate) fn head(data: &[u8]) {
    let Some((options, rest)) = options(data) else { return };
    if options & 1 == 0 {
        // A header map has a floor of its own, and every name and value is copied by it once or twice.
        bounded(rest.len(), 64, 64 << 10, || face::read_head(rest));
    } else if let Ok(text) = std::str::from_utf8(rest) {
        bounded(rest.len(), 16, 16 << 10, || face::read_words(text));
    }
}
