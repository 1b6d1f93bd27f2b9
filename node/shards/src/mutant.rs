//! Deliberate mistakes, one at a time, by which the checks of the store are checked.
//!
//! Compiled in only with the feature `mutants`, which nothing that is shipped turns on; without it every
//! question is a constant "no". The first sixteen transpose the issues that the authors of ShardStore (SOSP
//! 2021, figure 5) report to have prevented; number 9 there is a mistake of the reference model and is kept
//! with the model.

/// One mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "`what` says it")]
pub enum Mutant {
    ReclaimOffByOne,
    CacheNotDrained,
    ShutdownForgetsAfterReset,
    ReturnForgetsOpenExtents,
    ReclaimForgetsAfterReadError,
    AckBeforeAnchor,
    PointerNotReset,
    FlushCoversLaterWrites,
    WalkTrustedBlindly,
    IndexBeforeWrite,
    BackgroundNeedsSlot,
    ListByPosition,
    MoveWithoutRecheck,
    SequenceReused,
    BulkDeleteWithoutLocks,
    AckBeforeFlush,
    GenerationNotBumped,
    ChecksumSkipped,
    ProofUnchecked,
    TornPayloadAccepted,
    StaleGenerationAccepted,
    ReleaseBeforeAnchor,
    CheckpointNamedEarly,
    FlushErrorRetried,
    WriteErrorIgnored,
    PoisonForgotten,
    QuarantineSkipped,
    RollForwardUnordered,
    FullRefusesDeletes,
    KeyLockLeaked,
    FreedWhileNamed,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 31] = [
        Self::ReclaimOffByOne,
        Self::CacheNotDrained,
        Self::ShutdownForgetsAfterReset,
        Self::ReturnForgetsOpenExtents,
        Self::ReclaimForgetsAfterReadError,
        Self::AckBeforeAnchor,
        Self::PointerNotReset,
        Self::FlushCoversLaterWrites,
        Self::WalkTrustedBlindly,
        Self::IndexBeforeWrite,
        Self::BackgroundNeedsSlot,
        Self::ListByPosition,
        Self::MoveWithoutRecheck,
        Self::SequenceReused,
        Self::BulkDeleteWithoutLocks,
        Self::AckBeforeFlush,
        Self::GenerationNotBumped,
        Self::ChecksumSkipped,
        Self::ProofUnchecked,
        Self::TornPayloadAccepted,
        Self::StaleGenerationAccepted,
        Self::ReleaseBeforeAnchor,
        Self::CheckpointNamedEarly,
        Self::FlushErrorRetried,
        Self::WriteErrorIgnored,
        Self::PoisonForgotten,
        Self::QuarantineSkipped,
        Self::RollForwardUnordered,
        Self::FullRefusesDeletes,
        Self::KeyLockLeaked,
        Self::FreedWhileNamed,
    ];

    /// The number of the issue in ShardStore's table that this one transposes; none for our own.
    #[must_use]
    pub const fn shardstore_issue(self) -> Option<u8> {
        Some(match self {
            Self::ReclaimOffByOne => 1,
            Self::CacheNotDrained => 2,
            Self::ShutdownForgetsAfterReset => 3,
            Self::ReturnForgetsOpenExtents => 4,
            Self::ReclaimForgetsAfterReadError => 5,
            Self::AckBeforeAnchor => 6,
            Self::PointerNotReset => 7,
            Self::FlushCoversLaterWrites => 8,
            Self::WalkTrustedBlindly => 10,
            Self::IndexBeforeWrite => 11,
            Self::BackgroundNeedsSlot => 12,
            Self::ListByPosition => 13,
            Self::MoveWithoutRecheck => 14,
            Self::SequenceReused => 15,
            Self::BulkDeleteWithoutLocks => 16,
            _ => return None,
        })
    }

    /// What is wrong, in a sentence.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::ReclaimOffByOne => "reclaim drops the last byte of records one byte longer than whole blocks",
            Self::CacheNotDrained => "reads are cached by place and the cache outlives the extent's reuse",
            Self::ShutdownForgetsAfterReset => {
                "an orderly close after extents were freed forgets what was opened since"
            }
            Self::ReturnForgetsOpenExtents => "a returning device loses the extents that were open when it left",
            Self::ReclaimForgetsAfterReadError => "reclaim forgets records that it could not read",
            Self::AckBeforeAnchor => "after a restart, records are acknowledged before the anchor names their extent",
            Self::PointerNotReset => "an extent that is used again goes on where it ended before",
            Self::FlushCoversLaterWrites => "a flush acknowledges what was written while it ran",
            Self::WalkTrustedBlindly => "reclaim forgets the live records that its walk did not meet",
            Self::IndexBeforeWrite => "the index names a place before its bytes are written",
            Self::BackgroundNeedsSlot => "background work waits for a request's slot",
            Self::ListByPosition => "pages of a listing go on by position instead of by key",
            Self::MoveWithoutRecheck => "reclaim does not look whether a record was replaced while it waited",
            Self::SequenceReused => "sequence numbers seen while rolling forward are given out again",
            Self::BulkDeleteWithoutLocks => "a bulk delete takes no turn with other changes of its keys",
            Self::AckBeforeFlush => "a record is acknowledged when written, before the flush",
            Self::GenerationNotBumped => "an extent that is used again keeps its generation",
            Self::ChecksumSkipped => "blocks are not compared with their checksums on reading",
            Self::ProofUnchecked => "the header that is read need not be the one the index expects",
            Self::TornPayloadAccepted => "rolling forward does not check payloads",
            Self::StaleGenerationAccepted => "rolling forward goes on into records of an older generation",
            Self::ReleaseBeforeAnchor => "extents are freed before the anchor that allows it is durable",
            Self::CheckpointNamedEarly => "the anchor names a checkpoint whose bytes are not flushed yet",
            Self::FlushErrorRetried => "a failed flush is tried again and believed",
            Self::WriteErrorIgnored => "a failed write counts as written",
            Self::PoisonForgotten => "a device is written to again after a failure",
            Self::QuarantineSkipped => "extents with tombstones are freed one checkpoint early",
            Self::RollForwardUnordered => "records are rolled forward by extent instead of by sequence",
            Self::FullRefusesDeletes => "deletes have no reserve of their own on a full device",
            Self::KeyLockLeaked => "a failed put keeps its key",
            Self::FreedWhileNamed => "an extent is used again while an anchor page still asks for a scan of it",
        }
    }
}

#[cfg(not(feature = "mutants"))]
pub(crate) const fn on(_: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use switch::set_mutant;
#[cfg(feature = "mutants")]
pub(crate) use switch::{cached, on, position};

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use format::ShardKey;

    use super::Mutant;

    thread_local! {
        static ON: Cell<Option<Mutant>> = const { Cell::new(None) };
        static CACHE: RefCell<BTreeMap<(u64, usize, usize), Bytes>> = const { RefCell::new(BTreeMap::new()) };
        static LISTED: Cell<(Option<ShardKey>, usize)> = const { Cell::new((None, 0)) };
    }

    /// Turns one mistake on for stores of this thread, and every other off.
    pub fn set_mutant(mutant: Option<Mutant>) {
        ON.set(mutant);
        CACHE.take();
        LISTED.set((None, 0));
    }

    pub(crate) fn on(mutant: Mutant) -> bool {
        ON.get() == Some(mutant)
    }

    /// The cache that is not drained: what was first read from a place.
    pub(crate) fn cached(offset: u64, from: usize, bytes: Bytes) -> Bytes {
        CACHE.with_borrow_mut(|cache| cache.entry((offset, from, bytes.len())).or_insert(bytes).clone())
    }

    /// Where a listing that goes on by position would go on: how many records it passes over.
    pub(crate) fn position(after: Option<ShardKey>, last: Option<ShardKey>, count: usize) -> usize {
        let (key, at) = LISTED.get();
        let from = if after.is_some() && key == after { at } else { 0 };
        if last.is_some() {
            LISTED.set((last, from + count));
        }
        from
    }
}
