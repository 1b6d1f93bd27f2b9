//! What a run does: a configuration and a list of operations, drawn from a seed, printable, shrinkable.

use std::fmt;

use base::{Lsn, PartitionId, StripeId};
use format::ShardKey;
use shards::Limits;

/// A key, by number: few of them, in every space of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(pub u8);

impl Key {
    /// The key as the store knows it.
    #[must_use]
    pub fn shard_key(self) -> ShardKey {
        let id = u64::from(self.0);
        match self.0 % 8 {
            0..=3 => ShardKey::stripe(StripeId(id / 2), self.0 % 2),
            at @ (4 | 5) => ShardKey::journal(PartitionId(u32::from(at) - 4), Lsn(id)),
            6 => ShardKey::region(3, id),
            _ => ShardKey::fact(1, id),
        }
    }
}

/// Where a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// One of the label's copies.
    Label,
    /// One copy of the newest anchor page.
    Anchor,
    /// The newest checkpoint.
    Checkpoint,
    /// The header of the key's newest record.
    Header(Key),
    /// The payload of the key's newest record.
    Payload(Key),
}

/// One step of a run, simplest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Reads a whole record.
    Get(Key),
    /// Reads part of one: from, to.
    GetRange(Key, u32, u32),
    /// Reads a record's length and descriptor.
    Describe(Key),
    /// Stores (journal keys: appends) a value: its number, its length.
    Put(Key, u64, u32),
    /// Deletes a key.
    Delete(Key),
    /// Stores values of one length under keys that follow each other, side by side: first, how many, first number.
    BulkPut(Key, u8, u64, u32),
    /// Deletes keys that follow each other, in one request.
    BulkDelete(Key, u8),
    /// Lists everything, in pages of so many.
    List(u8),
    /// Trims a partition of the journal below a position.
    Trim(u32, u64),
    /// Waits for everything acknowledged to be durable.
    Sync,
    /// Writes a checkpoint.
    Checkpoint,
    /// Reclaims an extent.
    Reclaim,
    /// Verifies every record.
    Verify,
    /// Waits until nothing is under way, then looks at everything.
    Look,
    /// Closes the store in order, beside what is under way, and opens it again; `true`: the power goes in between.
    Retire(bool),
    /// The process dies alone; the store is opened again.
    Kill,
    /// The power goes, after so many more device writes and flushes of the operations before this one (or at their
    /// end); opening it again is cut short once after so many.
    Crash(u8, Option<u8>),
    /// The next reads fail.
    FailReads(u8),
    /// The next write fails.
    FailWrite,
    /// The next flush fails.
    FailFlush,
    /// A bit flips, when nothing is under way; `true`: right after a checkpoint.
    Flip(Target, bool),
    /// A sector goes bad, when nothing is under way; `true`: right after a checkpoint.
    BadSector(Target, bool),
    /// A read gives another place's bytes.
    MisdirectRead,
    /// The next write is acknowledged and never happens.
    LoseWrite,
    /// The next write lands elsewhere.
    MisdirectWrite,
    /// The next flush does nothing.
    LieFlush,
    /// The power goes, and both copies of the page that begins the next life are lost.
    LoseOpening,
}

impl Op {
    /// Whether the operations before this one end first.
    #[must_use]
    pub fn is_boundary(&self) -> bool {
        let ends_life = matches!(self, Self::Retire(_) | Self::Kill | Self::Crash(..) | Self::LoseOpening);
        ends_life || matches!(self, Self::Look | Self::Flip(..) | Self::BadSector(..))
    }

    /// The key (or the first) that it names.
    #[must_use]
    pub fn key(&self) -> Option<Key> {
        match self {
            Self::Get(key)
            | Self::GetRange(key, ..)
            | Self::Describe(key)
            | Self::Put(key, ..)
            | Self::Delete(key)
            | Self::BulkPut(key, ..)
            | Self::BulkDelete(key, _)
            | Self::Flip(Target::Header(key) | Target::Payload(key), _)
            | Self::BadSector(Target::Header(key) | Target::Payload(key), _) => Some(*key),
            _ => None,
        }
    }

    /// A simpler operation to try in its place, when there is one.
    #[must_use]
    pub fn simpler(&self) -> Vec<Self> {
        match *self {
            Self::Put(key, id, len) => smaller(len).map(|len| Self::Put(key, id, len)).collect(),
            Self::BulkPut(key, count, id, len) => smaller(len)
                .map(|len| Self::BulkPut(key, count, id, len))
                .chain((count > 1).then_some(Self::BulkPut(key, count - 1, id, len)))
                .chain([Self::Put(key, id, len)])
                .collect(),
            Self::BulkDelete(key, count) if count > 1 => vec![Self::Delete(key), Self::BulkDelete(key, count - 1)],
            Self::BulkDelete(key, _) => vec![Self::Delete(key)],
            Self::GetRange(key, ..) => vec![Self::Get(key)],
            Self::Retire(true) => vec![Self::Retire(false)],
            Self::Crash(after, Some(_)) => vec![Self::Crash(after, None)],
            Self::Crash(after, None) if after < u8::MAX => vec![Self::Crash(u8::MAX, None)],
            Self::FailReads(n) if n > 1 => vec![Self::FailReads(1)],
            _ => Vec::new(),
        }
    }
}

fn smaller(len: u32) -> impl Iterator<Item = u32> {
    [1, 9, 512, 4096, 40_000].into_iter().filter(move |smaller| *smaller < len)
}

/// The zones of a zoned device, beside what they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zones {
    /// Bytes of each that cannot be written.
    pub hole_bytes: u32,
    /// How many at the start can be written anywhere.
    pub conventional: u32,
    /// How many may be written in part at once.
    pub max_open: Option<u32>,
    /// Bytes of a sector.
    pub sector_bytes: u32,
}

/// What runs are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Extents of the device.
    pub extents: u32,
    /// Bytes of an extent; of a zone that can be written, on a zoned device.
    pub extent_bytes: u32,
    /// The device's zones.
    pub zones: Option<Zones>,
    /// Bounds of the store.
    pub limits: Limits,
    /// Clients side by side.
    pub clients: u8,
    /// Keys in use.
    pub keys: u8,
    /// One in so many device operations is slow; 0 for none.
    pub slow_one_in: u64,
    /// Which copy of label and anchors faults strike in this run.
    pub copy: u8,
    /// Turns of the store in the scheduler's draw, against 4 of each client.
    pub store_weight: u64,
    /// A cut that comes at this device write or flush, whatever the operations say.
    pub cut_at: Option<u64>,
    /// After that cut, the first opening is cut too, after so many device writes and flushes.
    pub recovery_cut: Option<u8>,
    /// As a cut ends a life, the process dies at once instead of hearing of it.
    pub sudden: bool,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Decides the scheduler, the disk, and (when drawn) everything else.
    pub seed: u64,
    /// Its surroundings.
    pub config: Config,
    /// Operations and the client of each.
    pub ops: Vec<(u8, Op)>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {:#x}, {:?}", self.seed, self.config)?;
        for (client, op) in &self.ops {
            if op.is_boundary() {
                writeln!(f, "  {op:?}")?;
            } else {
                writeln!(f, "  client {client}: {op:?}")?;
            }
        }
        Ok(())
    }
}
