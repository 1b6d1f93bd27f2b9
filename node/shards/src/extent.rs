//! Extents and what is on its way into them.

use std::collections::VecDeque;

use format::{ExtentState, ShardKey, Stream};
use tokio::sync::oneshot;

use crate::StoreResult;

/// Where a live record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) extent: u32,
    pub(crate) offset_units: u32,
    pub(crate) record_units: u32,
    pub(crate) payload_bytes: u32,
    /// The header's checksum: proves that what is read is what was written last.
    pub(crate) proof: u32,
}

/// One extent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) state: ExtentState,
    pub(crate) generation: u64,
    /// Units given to records, durable or on their way.
    pub(crate) written_units: u32,
    /// Everything below is on the medium.
    pub(crate) durable_units: u32,
    /// Units of live records.
    pub(crate) live_units: u32,
    /// Holds live records that could not be read: never chosen for reclaim again.
    pub(crate) unreadable: bool,
    /// Live units that reclaim left because they were being replaced; not tried again before some are gone.
    pub(crate) left_units: u32,
}

impl Extent {
    pub(crate) const UNUSED: Self = Self {
        state: ExtentState::Free,
        generation: 0,
        written_units: 0,
        durable_units: 0,
        live_units: 0,
        unreadable: false,
        left_units: 0,
    };

    pub(crate) fn is_sealed_data(&self) -> bool {
        matches!(self.state, ExtentState::Sealed(stream) if stream != Stream::Checkpoint)
    }
}

/// What a record is written for.
#[derive(Debug)]
pub(crate) enum Change {
    /// A keyed payload, new or replacing an older one.
    Put(ShardKey),
    /// The record that lies at this place, written again elsewhere: void when the key has changed meanwhile.
    Move(ShardKey, Location),
    /// A tombstone for these keys.
    Remove(Vec<ShardKey>),
}

/// What a record does to the index once it is durable.
#[derive(Debug)]
pub(crate) enum Effect {
    /// The key is at this place now.
    Put(ShardKey, Location),
    /// The key is at the second place now, if it still is at the first.
    Move(ShardKey, Location, Location),
    /// The keys are gone.
    Remove(Vec<ShardKey>),
}

impl Effect {
    /// Whether it changes what the key stands for.
    pub(crate) fn concerns(&self, key: &ShardKey) -> bool {
        match self {
            Self::Put(put, _) => put == key,
            Self::Move(..) => false,
            Self::Remove(keys) => keys.contains(key),
        }
    }
}

/// A record on its way to the medium.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) effect: Effect,
    pub(crate) reply: oneshot::Sender<StoreResult<()>>,
}

/// Consecutive records written by one device write.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: u64,
    pub(crate) end_units: u32,
    pub(crate) bytes: usize,
    pub(crate) small: bool,
    pub(crate) written: bool,
    pub(crate) records: Vec<Placed>,
}

/// An open extent's segments that are not durable yet, in order of place.
#[derive(Debug, Default)]
pub(crate) struct Track {
    pub(crate) segments: VecDeque<Segment>,
    /// The anchor page that names this extent has been written (the next flush makes it durable).
    pub(crate) anchored: bool,
}

impl Track {
    /// End of the leading run of written segments, when there is one that a flush would acknowledge.
    pub(crate) fn written_prefix(&self) -> Option<u32> {
        if !self.anchored {
            return None;
        }
        self.segments.iter().take_while(|segment| segment.written).last().map(|segment| segment.end_units)
    }
}
