//! Values larger than a fact may be, such as an encoded map: cut in pieces behind one key, the head.
//!
//! Invariants:
//! - a reader gets one whole value that was the head's at some moment of the read, never a mix. Pieces are named by a
//!   token of their own writing and never changed; the head, put by one commit, names the token; length and checksum are
//!   in the head and are compared;
//! - a head never names a piece that is not there: the commit that puts it checks the revision of every piece, so pieces
//!   that were swept away meanwhile make it a conflict. A sweep in turn checks the head that it read;
//! - what a writer leaves behind when it dies is deleted by the next [`sweep`] of that blob.
//!
//! Pieces live below [`PIECES`], so that asking below the head's own prefix does not make a store look through them.
//! A value of up to [`INLINE_BYTES_MAX`] rides in the head: one commit, one read.
//!
//! Left out on purpose: reading a part. Whoever needs a map needs all of it.

use base::Entropy;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::facts::{CHANGES_MAX, CHECKS_MAX, Check, Commit, Facts, FactsError, FactsResult, Fence, Outcome};
use crate::facts::{VALUE_BYTES_MAX, check_key};

/// What the keys of pieces begin with; nothing else may.
pub const PIECES: &str = "pieces/";
/// Bytes of a blob at most: 64 pieces, so that their checks leave room for the caller's in one commit.
pub const BLOB_BYTES_MAX: usize = 64 * PIECE_BYTES;
/// Bytes up to which a value is kept in the head itself.
pub const INLINE_BYTES_MAX: usize = 256 << 10;
/// Bytes of a head's key at most: the keys of its pieces are longer.
pub const NAME_BYTES_MAX: usize = 128;

const PIECE_BYTES: usize = VALUE_BYTES_MAX;
const _: () = assert!(BLOB_BYTES_MAX / PIECE_BYTES <= CHECKS_MAX / 2 + 4);

/// Format 1: this header, then the value itself if there are no pieces.
const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 1 + 8 + 4 + 8 + 4;
/// Times that a reader starts over because the value was replaced under it: more is a writer that never rests.
const READS_MAX: usize = 16;

/// A blob as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Of its head: what a commit that replaces it checks.
    pub revision: u64,
    /// The value.
    pub bytes: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    token: u64,
    pieces: u32,
    len: u64,
    crc: u32,
}

/// A blob whose pieces are durable and that nobody sees yet.
#[derive(Debug, Clone)]
pub struct Staged {
    name: String,
    head: Bytes,
    pieces: Vec<Check>,
}

impl Staged {
    /// Adds to a commit what makes the blob seen. The caller adds the check of the head's revision, if it cares.
    #[must_use]
    pub fn add_to(&self, mut commit: Commit) -> Commit {
        commit.checks.extend(self.pieces.iter().cloned());
        commit.put(self.name.clone(), self.head.clone())
    }
}

/// Writes the pieces of a value.
///
/// # Errors
/// As [`Facts::commit`], but never [`FactsError::Unknown`]: pieces that may be there are [`FactsError::Unavailable`], and
/// staging again uses others.
pub async fn stage(
    facts: &dyn Facts,
    fence: Option<&Fence>,
    entropy: &dyn Entropy,
    name: &str,
    bytes: &[u8],
) -> FactsResult<Staged> {
    check_name(name)?;
    if bytes.len() > BLOB_BYTES_MAX {
        return Err(FactsError::Invalid { field: "a blob", rule: "has at most 64 MiB" });
    }
    let inline = bytes.len() <= INLINE_BYTES_MAX;
    let cut = if inline { 0 } else { bytes.len().div_ceil(PIECE_BYTES) };
    let token = entropy.next_u64();
    let head = Head { token, pieces: cut as u32, len: bytes.len() as u64, crc: crc32fast::hash(bytes) };
    let mut pieces = Vec::with_capacity(cut);
    for (n, piece) in bytes.chunks(PIECE_BYTES).take(cut).enumerate() {
        let key = piece_key(name, token, n as u32);
        let mut commit = Commit::new().check(key.clone(), 0).put(key.clone(), Bytes::copy_from_slice(piece));
        commit.fence = fence.cloned();
        match facts.commit(commit).await {
            Ok(Outcome::Committed { revision }) => pieces.push(Check { key, revision }),
            Ok(Outcome::Conflict { .. }) => return Err(FactsError::Unavailable("a token was drawn twice".to_owned())),
            Err(FactsError::Unknown(why)) => return Err(FactsError::Unavailable(why)),
            Err(other) => return Err(other),
        }
    }
    Ok(Staged { name: name.to_owned(), head: head.encode(if inline { bytes } else { &[] }), pieces })
}

/// Replaces the blob if its head still has this revision (0: there is none), and deletes the pieces of the one before.
///
/// # Errors
/// As [`Facts::commit`].
pub async fn write(
    facts: &dyn Facts,
    fence: Option<&Fence>,
    entropy: &dyn Entropy,
    name: &str,
    revision: u64,
    bytes: &[u8],
) -> FactsResult<Outcome> {
    let staged = stage(facts, fence, entropy, name, bytes).await?;
    let mut commit = staged.add_to(Commit::new().check(name, revision));
    commit.fence = fence.cloned();
    let outcome = facts.commit(commit).await?;
    // Leftovers cost room, not truth: whoever writes next sweeps them too.
    let _ = sweep(facts, fence, name).await;
    Ok(outcome)
}

/// Reads a blob; `None` when there is no head.
///
/// # Errors
/// [`FactsError::Corrupt`] when head and pieces do not fit; [`FactsError::Unavailable`] when it is replaced all the time;
/// as [`Facts::get`].
pub async fn read(facts: &dyn Facts, name: &str) -> FactsResult<Option<Blob>> {
    check_name(name)?;
    let mut last_seen = None;
    for _ in 0..READS_MAX {
        let Some(fact) = facts.get(name).await? else { return Ok(None) };
        let (head, inline) = Head::decode(&fact.value)?;
        if last_seen == Some(fact.revision) {
            // The head that lacked a piece is still the head.
            return Err(corrupt("a piece is missing"));
        }
        last_seen = Some(fact.revision);
        let bytes = if head.pieces == 0 { Some(inline) } else { gather(facts, name, head).await? };
        let Some(bytes) = bytes else { continue };
        if bytes.len() as u64 != head.len || crc32fast::hash(&bytes) != head.crc {
            return Err(corrupt("the checksum does not fit"));
        }
        return Ok(Some(Blob { revision: fact.revision, bytes }));
    }
    Err(FactsError::Unavailable(format!("{name} was replaced {READS_MAX} times while it was read")))
}

/// Deletes every piece that the head does not name; returns how many. A writer that has staged and not committed meets a
/// conflict then, so this is for the one who writes.
///
/// # Errors
/// As [`Facts::commit`]; repeating does no harm.
pub async fn sweep(facts: &dyn Facts, fence: Option<&Fence>, name: &str) -> FactsResult<usize> {
    check_name(name)?;
    let fact = facts.get(name).await?;
    let (revision, live) = match &fact {
        None => (0, None),
        Some(fact) => (fact.revision, Some(Head::decode(&fact.value)?.0)),
    };
    let kept: Vec<_> = live.iter().flat_map(|head| (0..head.pieces).map(|n| piece_key(name, head.token, n))).collect();
    let found = facts.keys(&format!("{PIECES}{name}/")).await?;
    // A name that is the beginning of another's has the other's pieces below it.
    let ours = |key: &str| key.len() == piece_key(name, 0, 0).len();
    let gone: Vec<_> =
        found.into_iter().map(|piece| piece.key).filter(|key| ours(key) && !kept.contains(key)).collect();
    let mut deleted = 0;
    for some in gone.chunks(CHANGES_MAX) {
        let mut commit =
            some.iter().fold(Commit::new().check(name, revision), |commit, key| commit.delete(key.clone()));
        commit.fence = fence.cloned();
        match facts.commit(commit).await? {
            Outcome::Committed { .. } => deleted += some.len(),
            Outcome::Conflict { .. } => break,
        }
    }
    Ok(deleted)
}

async fn gather(facts: &dyn Facts, name: &str, head: Head) -> FactsResult<Option<Bytes>> {
    let mut all = BytesMut::with_capacity(head.len as usize);
    for n in 0..head.pieces {
        match facts.get(&piece_key(name, head.token, n)).await? {
            Some(piece) if all.len() + piece.value.len() <= head.len as usize => all.put(piece.value),
            Some(_) => return Err(corrupt("a piece is too long")),
            None => return Ok(None),
        }
    }
    Ok(Some(all.freeze()))
}

impl Head {
    fn encode(self, inline: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(HEAD_BYTES + inline.len());
        out.put_u8(FORMAT);
        out.put_u64_le(self.token);
        out.put_u32_le(self.pieces);
        out.put_u64_le(self.len);
        out.put_u32_le(self.crc);
        out.put_slice(inline);
        out.freeze()
    }

    fn decode(bytes: &Bytes) -> FactsResult<(Self, Bytes)> {
        let mut rest = bytes.clone();
        match bytes.first() {
            Some(&FORMAT) if bytes.len() >= HEAD_BYTES => rest.advance(1),
            Some(&found) if found > FORMAT => {
                return Err(FactsError::NewerFormat { found: u64::from(found), known: u64::from(FORMAT) });
            }
            _ => return Err(corrupt("the head is cut off")),
        }
        let head = Self {
            token: rest.get_u64_le(),
            pieces: rest.get_u32_le(),
            len: rest.get_u64_le(),
            crc: rest.get_u32_le(),
        };
        let fits = if head.pieces == 0 {
            head.len == rest.len() as u64
        } else {
            head.len <= BLOB_BYTES_MAX as u64 && head.len.div_ceil(PIECE_BYTES as u64) == u64::from(head.pieces)
        };
        if fits { Ok((head, rest)) } else { Err(corrupt("the head's lengths do not fit")) }
    }
}

fn piece_key(name: &str, token: u64, n: u32) -> String {
    format!("{PIECES}{name}/{token:016x}/{n:02}")
}

fn check_name(name: &str) -> FactsResult<()> {
    check_key(name)?;
    if name.len() > NAME_BYTES_MAX {
        return Err(FactsError::Invalid { field: "a blob's key", rule: "has at most 128 bytes" });
    }
    if name.starts_with(PIECES) {
        return Err(FactsError::Invalid { field: "a blob's key", rule: "is not below `pieces/`" });
    }
    Ok(())
}

fn corrupt(reason: &str) -> FactsError {
    FactsError::Corrupt { what: "a blob", reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_these_bytes() {
        let head = Head { token: 0x0102, pieces: 0, len: 2, crc: 0xaabb };
        let bytes = head.encode(b"hi");
        assert_eq!(&bytes[..], b"\x01\x02\x01\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\xbb\xaa\0\0hi");
        assert_eq!(Head::decode(&bytes).unwrap(), (head, Bytes::from_static(b"hi")));
    }

    #[test]
    fn damaged_heads_are_refused() {
        let good = Head { token: 7, pieces: 3, len: 3 << 20, crc: 1 }.encode(&[]);
        Head::decode(&good).unwrap();
        for len in 0..HEAD_BYTES {
            assert!(matches!(Head::decode(&good.slice(..len)), Err(FactsError::Corrupt { .. })), "{len}");
        }
        let mut newer = good.to_vec();
        newer[0] = 2;
        assert!(matches!(Head::decode(&newer.into()), Err(FactsError::NewerFormat { found: 2, known: 1 })));
        for (pieces, len) in [(0, 1), (2, 3 << 20), (65, 65 << 20), (u32::MAX, u64::MAX)] {
            let bad = Head { token: 7, pieces, len, crc: 1 }.encode(&[]);
            assert!(matches!(Head::decode(&bad), Err(FactsError::Corrupt { .. })), "{pieces} {len}");
        }
    }
}
