//! Bodies for the object layer: what a client uploads, and what a copy reads.
//!
//! Bytes are hashed as they pass and never copied; `finish` compares everything the client declared. An
//! upload that is short, long, altered or unsigned fails there at the latest, and the object layer makes
//! nothing visible.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object::api::{Body, BodyDigest, BodyError, Checksum, ChecksumAlgorithm, ObjectResult};

use crate::declared::{CONTENT_SHA256, Declared};
use crate::digest::{self, Digested, Digests};
use crate::incoming::RawBody;

/// Bytes hashed at one go before other tasks of the worker get their turn (about half a millisecond of MD5).
const HASH_BYTES_MAX: usize = 256 * 1024;

/// A client's upload.
pub(crate) struct UploadBody {
    raw: RawBody,
    declared: Declared,
    digests: Option<Digests>,
    /// Raw bytes not yet taken apart.
    input: Bytes,
    passed: u64,
    turn: Turn,
}

/// Gives the worker up after enough hashing.
#[derive(Default)]
struct Turn {
    hashed: usize,
}

impl Turn {
    async fn took(&mut self, bytes: usize) {
        self.hashed += bytes;
        if self.hashed >= HASH_BYTES_MAX {
            self.hashed = 0;
            tokio::task::yield_now().await;
        }
    }
}

impl UploadBody {
    /// `keep` is the algorithm of the checksum that is stored.
    pub(crate) fn new(raw: RawBody, declared: Declared, keep: ChecksumAlgorithm) -> Self {
        let digests = Digests::new(keep, declared.algorithm(), declared.content_sha256.is_some());
        Self { raw, declared, digests: Some(digests), input: Bytes::new(), passed: 0, turn: Turn::default() }
    }

    async fn take(&mut self) -> Option<Result<Bytes, BodyError>> {
        loop {
            if let Some(chunks) = &mut self.declared.chunks {
                match chunks.step(&mut self.input) {
                    Ok(Some(data)) => return Some(Ok(data)),
                    Ok(None) => {}
                    Err(error) => return Some(Err(error)),
                }
            }
            match self.raw.next().await {
                Some(Ok(bytes)) if self.declared.chunks.is_some() => self.input = bytes,
                Some(other) => return Some(other),
                None => {
                    let end = self.declared.chunks.as_mut().map_or(Ok(()), |chunks| chunks.end());
                    return end.err().map(Err);
                }
            }
        }
    }

    fn verify(&self, digested: &Digested) -> Result<(), BodyError> {
        if self.passed != self.declared.bytes {
            return Err(BodyError::Incomplete);
        }
        if self.declared.md5.is_some_and(|md5| md5 != digested.md5) {
            return Err(BodyError::BadDigest);
        }
        if self.declared.content_sha256.is_some() && self.declared.content_sha256 != digested.content_sha256 {
            return Err(BodyError::BadChecksum(CONTENT_SHA256));
        }
        let computed = digested.verified.as_ref().unwrap_or(&digested.kept);
        if let Some(declared) = self.declared.checksum.as_ref()
            && (declared.algorithm, &declared.value) != (computed.algorithm, &computed.value)
        {
            return Err(BodyError::BadChecksum(digest::algorithm_name(declared.algorithm)));
        }
        if let Some(algorithm) = self.declared.trailer {
            self.verify_trailer(algorithm, computed)?;
        }
        Ok(())
    }

    fn verify_trailer(&self, algorithm: ChecksumAlgorithm, computed: &Checksum) -> Result<(), BodyError> {
        let chunks = self.declared.chunks.as_ref();
        let value = chunks.and_then(|chunks| chunks.trailer(digest::header_name(algorithm)));
        let value = value.ok_or_else(|| BodyError::Malformed("the trailer announced is missing".to_owned()))?;
        let value = digest::parse_value(algorithm, value)
            .ok_or_else(|| BodyError::Malformed("the checksum in the trailer is not valid".to_owned()))?;
        if algorithm == computed.algorithm && value == computed.value {
            Ok(())
        } else {
            Err(BodyError::BadChecksum(digest::algorithm_name(algorithm)))
        }
    }
}

impl Body for UploadBody {
    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        let bytes = match self.take().await? {
            Ok(bytes) => bytes,
            Err(error) => return Some(Err(error)),
        };
        self.passed += bytes.len() as u64;
        if self.passed > self.declared.bytes {
            return Some(Err(BodyError::TooLarge));
        }
        if let Some(digests) = &mut self.digests {
            digests.update(&bytes);
        }
        self.turn.took(bytes.len()).await;
        Some(Ok(bytes))
    }

    fn size_hint(&self) -> Option<u64> {
        Some(self.declared.bytes)
    }

    fn finish(&mut self) -> Result<BodyDigest, BodyError> {
        let digests = self.digests.take().ok_or_else(|| BodyError::Source("a body is finished once".to_owned()))?;
        let digested = digests.finish();
        self.verify(&digested)?;
        Ok(BodyDigest { md5: digested.md5, checksum: Some(digested.kept) })
    }
}

/// Bytes of a stored object on their way into another.
pub(crate) struct CopyBody {
    stream: BoxStream<'static, ObjectResult<Bytes>>,
    bytes: u64,
    passed: u64,
    digests: Option<Digests>,
    turn: Turn,
}

impl CopyBody {
    /// A copy of `bytes` bytes of `stream`; its checksum is computed with `keep`.
    pub(crate) fn new(stream: BoxStream<'static, ObjectResult<Bytes>>, bytes: u64, keep: ChecksumAlgorithm) -> Self {
        let digests = Some(Digests::new(keep, None, false));
        Self { stream, bytes, passed: 0, digests, turn: Turn::default() }
    }
}

impl Body for CopyBody {
    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        let bytes = match self.stream.next().await? {
            Ok(bytes) => bytes,
            Err(error) => return Some(Err(BodyError::Source(error.to_string()))),
        };
        self.passed += bytes.len() as u64;
        if let Some(digests) = &mut self.digests {
            digests.update(&bytes);
        }
        self.turn.took(bytes.len()).await;
        Some(Ok(bytes))
    }

    fn size_hint(&self) -> Option<u64> {
        Some(self.bytes)
    }

    fn finish(&mut self) -> Result<BodyDigest, BodyError> {
        if self.passed != self.bytes {
            return Err(BodyError::Source(format!("{} of {} bytes came", self.passed, self.bytes)));
        }
        let digests = self.digests.take().ok_or_else(|| BodyError::Source("a body is finished once".to_owned()))?;
        let digested = digests.finish();
        Ok(BodyDigest { md5: digested.md5, checksum: Some(digested.kept) })
    }
}
