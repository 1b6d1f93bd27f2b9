//! A journal record: the header of `format`, then a body that the journal does not look into.

use base::{Lsn, PartitionId};
use bytes::Bytes;
use disk::{AlignedBuf, AlignedBytes};
use format::{JOURNAL_HEADER_BYTES, JournalHeader};
use zerocopy::IntoBytes;

/// Bytes of a record's payload before its body.
pub const BODY_OFFSET: u32 = JOURNAL_HEADER_BYTES as u32;

/// A record as read back, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its position.
    pub lsn: Lsn,
    /// The whole payload, header included.
    pub payload: Bytes,
    pub(crate) header: JournalHeader,
}

impl Record {
    /// What was appended.
    #[must_use]
    pub fn body(&self) -> Bytes {
        self.payload.slice(JOURNAL_HEADER_BYTES..)
    }

    /// Checks a payload against its place; not against its predecessor.
    pub(crate) fn parse(partition: PartitionId, lsn: Lsn, payload: Bytes) -> Result<Self, &'static str> {
        let header = JournalHeader::parse(&payload, partition, lsn)?;
        let body = &payload[JOURNAL_HEADER_BYTES..];
        if body.len() != header.body_bytes.get() as usize {
            return Err("the journal record has another length than its header says");
        }
        if crc32fast::hash(body) != header.body_crc.get() {
            return Err("the journal record's body does not fit its checksum");
        }
        Ok(Self { lsn, payload, header })
    }

    /// The word by which the next record names this one.
    pub(crate) fn link(&self) -> u32 {
        self.header.header_crc.get()
    }

    /// Whether `next` was written after this very record.
    pub(crate) fn is_followed_by(&self, next: &Self) -> bool {
        next.lsn == self.lsn.next()
            && next.header.previous.get() == self.link()
            && next.header.epoch.get() >= self.header.epoch.get()
    }
}

/// A record ready to be written, built with one copy and shared by all mirrors.
#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    pub(crate) bytes: AlignedBytes,
    pub(crate) len: usize,
    pub(crate) link: u32,
}

pub(crate) fn encode(partition: PartitionId, epoch: u64, lsn: Lsn, previous: u32, parts: &[Bytes]) -> Encoded {
    let body_bytes: usize = parts.iter().map(Bytes::len).sum();
    let len = JOURNAL_HEADER_BYTES + body_bytes;
    let mut buf = AlignedBuf::zeroed(len);
    let mut at = JOURNAL_HEADER_BYTES;
    for part in parts {
        buf[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    assert_eq!(at, len, "the parts fill the record");
    let crc = crc32fast::hash(&buf[JOURNAL_HEADER_BYTES..len]);
    let header = JournalHeader::new(partition, epoch, lsn, previous, body_bytes as u32, crc);
    buf[..JOURNAL_HEADER_BYTES].copy_from_slice(header.as_bytes());
    Encoded { bytes: buf.freeze(), len, link: header.header_crc.get() }
}
