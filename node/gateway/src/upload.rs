//! Bodies for the object layer: what a client uploads, and what a copy reads.
//!
//! Bytes are hashed as they pass and never copied; `finish` compares everything the client declared. An
//! upload that is short, long, altered or unsigned fails there at the latest, and the object layer makes
//! nothing visible.

use bytes::Bytes;
use etag::Md5Lanes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object::api::{Body, BodyDigest, BodyError, Checksum, ChecksumAlgorithm, ObjectError, ObjectResult};

use crate::declared::{CONTENT_SHA256, Declared};
use crate::digest::{self, Digested, Digests};
use crate::incoming::RawBody;

/// Bytes hashed at one go before other tasks of the worker get their turn (about half a millisecond of MD5).
const HASH_BYTES_MAX: usize = 256 * 1024;

/// A client's upload.
pub(crate) struct UploadBody {
    raw: RawBody,
    declared: Declared,
    /// While bytes come; then `digested`.
    digests: Option<Digests>,
    digested: Option<Digested>,
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

/// Ends the hashing when the last byte has passed.
async fn settle(digests: &mut Option<Digests>, digested: &mut Option<Digested>) {
    if let Some(digests) = digests.take() {
        *digested = Some(digests.finish().await);
    }
}

fn unfinished() -> BodyError {
    BodyError::Source("a body is finished once, after its end".to_owned())
}

impl UploadBody {
    /// `keep` is the algorithm of the checksum that is stored.
    pub(crate) fn new(raw: RawBody, declared: Declared, lanes: &Md5Lanes, keep: ChecksumAlgorithm) -> Self {
        let digests = Digests::new(lanes, keep, declared.algorithm(), declared.content_sha256.is_some());
        Self {
            raw,
            declared,
            digests: Some(digests),
            digested: None,
            input: Bytes::new(),
            passed: 0,
            turn: Turn::default(),
        }
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
        let bytes = match self.take().await {
            Some(Ok(bytes)) => bytes,
            Some(Err(error)) => return Some(Err(error)),
            None => {
                settle(&mut self.digests, &mut self.digested).await;
                return None;
            }
        };
        self.passed += bytes.len() as u64;
        if self.passed > self.declared.bytes {
            return Some(Err(BodyError::TooLarge));
        }
        if let Some(digests) = &mut self.digests {
            digests.update(&bytes).await;
        }
        self.turn.took(bytes.len()).await;
        Some(Ok(bytes))
    }

    fn size_hint(&self) -> Option<u64> {
        Some(self.declared.bytes)
    }

    fn finish(&mut self) -> Result<BodyDigest, BodyError> {
        let digested = self.digested.take().ok_or_else(unfinished)?;
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
    digested: Option<Digested>,
    turn: Turn,
    failure: Option<ObjectError>,
}

impl CopyBody {
    /// A copy of `bytes` bytes of `stream`; its checksum is computed with `keep`.
    pub(crate) fn new(
        stream: BoxStream<'static, ObjectResult<Bytes>>,
        bytes: u64,
        lanes: &Md5Lanes,
        keep: ChecksumAlgorithm,
    ) -> Self {
        let digests = Some(Digests::new(lanes, keep, None, false));
        Self { stream, bytes, passed: 0, digests, digested: None, turn: Turn::default(), failure: None }
    }

    /// What a copy failed of: the source's own error when it was that.
    pub(crate) fn explain(&mut self, error: ObjectError) -> ObjectError {
        self.failure.take().unwrap_or(error)
    }
}

impl Body for CopyBody {
    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        let bytes = match self.stream.next().await {
            Some(Ok(bytes)) => bytes,
            Some(Err(error)) => {
                let told = BodyError::Source(error.to_string());
                self.failure = Some(error);
                return Some(Err(told));
            }
            None => {
                settle(&mut self.digests, &mut self.digested).await;
                return None;
            }
        };
        self.passed += bytes.len() as u64;
        if let Some(digests) = &mut self.digests {
            digests.update(&bytes).await;
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
        let digested = self.digested.take().ok_or_else(unfinished)?;
        Ok(BodyDigest { md5: digested.md5, checksum: Some(digested.kept) })
    }
}
