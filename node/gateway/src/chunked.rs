//! aws-chunked bodies taken apart: `size[;chunk-signature=..]\r\n data \r\n ... 0 ... trailers`.
//!
//! A plain state machine: bytes in, slices of the same bytes out, no copy of data. Every chunk of a signed
//! body is hashed as it passes and its signature is compared when it ends; the caller must not make
//! anything visible before [`ChunkDecoder::end`] agreed. Nothing is buffered but one line (bounded).
//!
//! Source: "Signature Calculations: Transferring Payload in Multiple Chunks", Amazon S3 API reference.

use bytes::{Buf, Bytes};
use hmac::{Hmac, KeyInit, Mac};
use object::api::BodyError;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Longest chunk line: a size, the signature extension, room for a stray extension.
const LINE_BYTES_MAX: usize = 512;
/// Most bytes of all trailers together.
const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// Hexadecimal SHA-256 of nothing.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

type HmacSha256 = Hmac<Sha256>;

/// What signs the chunks of one request: made from the verified `Authorization` header.
pub(crate) struct ChunkSigner {
    key: Zeroizing<[u8; 32]>,
    /// `<x-amz-date>\n<scope>\n`
    stamp: String,
    previous: String,
}

fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut mac = HmacSha256::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(data);
    mac.finalize().into_bytes().into()
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

impl ChunkSigner {
    /// `scope` is `date/region/service/aws4_request`; `seed` the signature of the request itself.
    pub(crate) fn new(secret: &str, amz_date: &str, scope: &str, seed: &str) -> Self {
        let first = Zeroizing::new(format!("AWS4{secret}"));
        let mut parts = scope.split('/');
        let mut key = Zeroizing::new(hmac(first.as_bytes(), parts.next().unwrap_or_default().as_bytes()));
        for part in parts {
            key = Zeroizing::new(hmac(key.as_slice(), part.as_bytes()));
        }
        Self { key, stamp: format!("{amz_date}\n{scope}\n"), previous: seed.to_owned() }
    }

    fn chunk(&mut self, data_sha256: &[u8]) -> &str {
        let text =
            format!("AWS4-HMAC-SHA256-PAYLOAD\n{}{}\n{EMPTY_SHA256}\n{}", self.stamp, self.previous, hex(data_sha256));
        self.previous = hex(&hmac(self.key.as_slice(), text.as_bytes()));
        &self.previous
    }

    fn trailer(&self, canonical: &[u8]) -> String {
        let text =
            format!("AWS4-HMAC-SHA256-TRAILER\n{}{}\n{}", self.stamp, self.previous, hex(&Sha256::digest(canonical)));
        hex(&hmac(self.key.as_slice(), text.as_bytes()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Reading a chunk's line.
    Line,
    /// Inside a chunk's data; so many bytes are left.
    Data(u64),
    /// The line break after a chunk's data.
    DataEnd,
    /// Lines after the last chunk.
    Trailers,
    /// All read.
    Done,
}

/// Takes one aws-chunked body apart.
pub(crate) struct ChunkDecoder {
    state: State,
    line: Vec<u8>,
    signer: Option<ChunkSigner>,
    chunk_hash: Sha256,
    chunk_signature: [u8; 64],
    /// Decoded bytes that may still come.
    left: u64,
    wants_trailers: bool,
    trailers: Vec<(String, String)>,
    trailer_bytes: usize,
}

fn malformed(what: &'static str) -> BodyError {
    BodyError::Malformed(what.to_owned())
}

impl ChunkDecoder {
    /// `decoded_bytes` is `x-amz-decoded-content-length`; without a signer the chunks are unsigned.
    pub(crate) fn new(signer: Option<ChunkSigner>, decoded_bytes: u64, wants_trailers: bool) -> Self {
        Self {
            state: State::Line,
            line: Vec::new(),
            signer,
            chunk_hash: Sha256::new(),
            chunk_signature: [0; 64],
            left: decoded_bytes,
            wants_trailers,
            trailers: Vec::new(),
            trailer_bytes: 0,
        }
    }

    /// Takes bytes off `input` until there is data to give or `input` is empty (`None`).
    pub(crate) fn step(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, BodyError> {
        while !input.is_empty() {
            match self.state {
                State::Line => {
                    if self.take_line(input, LINE_BYTES_MAX)? {
                        self.begin_chunk()?;
                    }
                }
                State::Data(left) => {
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let data = input.split_to(take);
                    self.pass_data(left, &data)?;
                    return Ok(Some(data));
                }
                State::DataEnd => {
                    if self.take_line(input, 2)? {
                        if !self.line.is_empty() {
                            return Err(malformed("a chunk is longer than its size"));
                        }
                        self.state = State::Line;
                    }
                }
                State::Trailers => {
                    if self.take_line(input, TRAILER_BYTES_MAX)? {
                        self.take_trailer()?;
                    }
                }
                State::Done => return Err(malformed("bytes after the last chunk")),
            }
        }
        Ok(None)
    }

    /// The input has ended: checks that it was whole, and the trailer's signature.
    pub(crate) fn end(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done => {}
            // The last line break may be absent when there are trailers or nothing follows.
            State::Trailers if self.line.is_empty() => self.finish_trailers()?,
            _ => return Err(BodyError::Incomplete),
        }
        if self.left != 0 {
            return Err(BodyError::Incomplete);
        }
        Ok(())
    }

    /// A trailer's value, by lower-case name.
    pub(crate) fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Moves bytes up to a line feed into `self.line`; true when the line (without its end) is whole.
    fn take_line(&mut self, input: &mut Bytes, max: usize) -> Result<bool, BodyError> {
        let end = input.iter().position(|b| *b == b'\n');
        let take = end.map_or(input.len(), |at| at + 1);
        if self.line.len() + take > max.max(2) {
            return Err(malformed("a line is too long"));
        }
        self.line.extend_from_slice(&input[..take]);
        input.advance(take);
        if end.is_none() {
            return Ok(false);
        }
        self.line.pop();
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Ok(true)
    }

    fn begin_chunk(&mut self) -> Result<(), BodyError> {
        let line = std::mem::take(&mut self.line);
        let text = std::str::from_utf8(&line).map_err(|_| malformed("a chunk line is not text"))?;
        let (size, extension) = text.split_once(';').map_or((text, None), |(s, e)| (s, Some(e)));
        if size.is_empty() || size.len() > 16 || !size.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(malformed("a chunk size is not hexadecimal"));
        }
        let size = u64::from_str_radix(size, 16).map_err(|_| malformed("a chunk size is too large"))?;
        if size > self.left {
            return Err(malformed("more bytes than x-amz-decoded-content-length"));
        }
        if self.signer.is_some() {
            let signature = extension.and_then(|e| e.strip_prefix("chunk-signature="));
            let signature = signature.ok_or_else(|| malformed("a chunk has no signature"))?;
            self.chunk_signature =
                signature.as_bytes().try_into().map_err(|_| malformed("a chunk signature has the wrong length"))?;
        }
        if size == 0 {
            self.check_chunk()?;
            self.state = State::Trailers;
        } else {
            self.state = State::Data(size);
        }
        Ok(())
    }

    fn pass_data(&mut self, left: u64, data: &Bytes) -> Result<(), BodyError> {
        if self.signer.is_some() {
            self.chunk_hash.update(data);
        }
        let passed = data.len() as u64;
        assert!(passed <= left && left <= self.left, "a chunk gives no more than it has");
        self.left -= passed;
        if passed < left {
            self.state = State::Data(left - passed);
            return Ok(());
        }
        self.check_chunk()?;
        self.state = State::DataEnd;
        Ok(())
    }

    /// Compares the signature of the chunk that has just ended.
    fn check_chunk(&mut self) -> Result<(), BodyError> {
        let Some(signer) = &mut self.signer else { return Ok(()) };
        let hash = std::mem::take(&mut self.chunk_hash).finalize();
        let expected = signer.chunk(&hash);
        if bool::from(expected.as_bytes().ct_eq(&self.chunk_signature)) {
            Ok(())
        } else {
            Err(BodyError::SignatureMismatch)
        }
    }

    fn take_trailer(&mut self) -> Result<(), BodyError> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return self.finish_trailers();
        }
        self.trailer_bytes += line.len();
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(malformed("the trailers are too long"));
        }
        let text = String::from_utf8(line).map_err(|_| malformed("a trailer is not text"))?;
        let (name, value) = text.split_once(':').ok_or_else(|| malformed("a trailer has no colon"))?;
        self.trailers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        Ok(())
    }

    fn finish_trailers(&mut self) -> Result<(), BodyError> {
        self.state = State::Done;
        if !self.wants_trailers {
            return if self.trailers.is_empty() { Ok(()) } else { Err(malformed("trailers that were not announced")) };
        }
        let Some(signer) = &self.signer else { return Ok(()) };
        let mut lines: Vec<String> = self
            .trailers
            .iter()
            .filter(|(name, _)| name != "x-amz-trailer-signature")
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect();
        lines.sort();
        let given =
            self.trailer("x-amz-trailer-signature").ok_or_else(|| malformed("the trailers have no signature"))?;
        let expected = signer.trailer(lines.concat().as_bytes());
        if bool::from(expected.as_bytes().ct_eq(given.as_bytes())) { Ok(()) } else { Err(BodyError::SignatureMismatch) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// AWS's own example: "Signature Calculations: Transferring Payload in Multiple Chunks".
    fn example() -> (ChunkSigner, Vec<u8>) {
        let signer = ChunkSigner::new(
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "20130524T000000Z",
            "20130524/us-east-1/s3/aws4_request",
            "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
        );
        let chunks = [
            (65_536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
            (1024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
            (0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
        ];
        let mut body = Vec::new();
        for (size, signature) in chunks {
            body.extend(format!("{size:x};chunk-signature={signature}\r\n").bytes());
            body.extend(std::iter::repeat_n(b'a', size));
            body.extend_from_slice(b"\r\n");
        }
        (signer, body)
    }

    fn decode(decoder: &mut ChunkDecoder, pieces: impl Iterator<Item = Bytes>) -> Result<Vec<u8>, BodyError> {
        let mut out = Vec::new();
        for mut piece in pieces {
            while let Some(data) = decoder.step(&mut piece)? {
                out.extend_from_slice(&data);
            }
        }
        decoder.end()?;
        Ok(out)
    }

    fn cut(body: &[u8], size: usize) -> impl Iterator<Item = Bytes> {
        body.chunks(size).map(Bytes::copy_from_slice)
    }

    #[test]
    fn awss_example_is_decoded_however_it_is_cut() {
        for size in [1, 7, 4096, 1 << 20] {
            let (signer, body) = example();
            let mut decoder = ChunkDecoder::new(Some(signer), 66_560, false);
            assert_eq!(decode(&mut decoder, cut(&body, size)).unwrap(), vec![b'a'; 66_560], "pieces of {size}");
        }
    }

    #[test]
    fn one_altered_byte_is_noticed_wherever_it_is() {
        let (_, body) = example();
        for at in (0..body.len()).step_by(997).chain(0..100).chain(body.len() - 90..body.len() - 4) {
            let (signer, mut altered) = example();
            altered[at] ^= 1;
            let mut decoder = ChunkDecoder::new(Some(signer), 66_560, false);
            assert!(decode(&mut decoder, cut(&altered, 4096)).is_err(), "byte {at}");
        }
    }

    #[test]
    fn trailers_are_kept_and_bounded() {
        let mut decoder = ChunkDecoder::new(None, 2, true);
        let out = decode(&mut decoder, cut(b"2\r\nab\r\n0\r\nX-Amz-Checksum-CRC32: v\r\n\r\n", 3)).unwrap();
        assert_eq!((out.as_slice(), decoder.trailer("x-amz-checksum-crc32")), (&b"ab"[..], Some("v")));
        let long = format!("0\r\n{}", "a:b\r\n".repeat(4000));
        assert!(decode(&mut ChunkDecoder::new(None, 0, true), cut(long.as_bytes(), 100)).is_err());
        let endless = "1".repeat(100_000);
        assert!(decode(&mut ChunkDecoder::new(None, 9, true), cut(endless.as_bytes(), 100)).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_decoded_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = ChunkDecoder::new(None, 1000, true);
            let _ = decode(&mut decoder, cut(&body, 10));
        }

        #[test]
        fn what_was_framed_comes_back(
            data in prop::collection::vec(any::<u8>(), 0..3000),
            chunk in 1usize..1000,
            piece in 1usize..1000,
        ) {
            let mut body = Vec::new();
            for part in data.chunks(chunk) {
                body.extend(format!("{:X}\r\n", part.len()).bytes());
                body.extend_from_slice(part);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n\r\n");
            let mut decoder = ChunkDecoder::new(None, data.len() as u64, true);
            prop_assert_eq!(decode(&mut decoder, cut(&body, piece)).unwrap(), data);
        }
    }
}
