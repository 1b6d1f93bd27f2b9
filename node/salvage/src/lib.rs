//! What can be told and saved from devices at rest: no service, no metadata, no map; any subset of the
//! cluster's devices, or images of them.
//!
//! - [`fsck`] verifies and counts, [`dump`] shows, [`rescue`] rebuilds objects.
//! - Nothing here writes to a store; stores are meant to be open read-only.
//! - Memory: the bytes of one stripe or journal record at a time, and for the whole set the names of the
//!   objects and where their stripes are.
//!
//! The index's views help where one can be read (what was completed or deleted before the journal's first
//! record), and are needed by nothing: without them, completed multipart uploads of that time count as
//! uncertain, and what was deleted then may come back while its bytes last.

#![forbid(unsafe_code)]

pub mod dump;
mod events;
pub mod fsck;
mod journal;
mod names;
mod report;
mod rescue;
mod resolve;
mod stripes;
mod survey;
mod walk;

pub use events::Replay;
pub use journal::{JournalCopies, JournalFindings};
pub use names::{Names, Room, SafePath};
pub use report::{ManifestEntry, SalvageSummary, State};
pub use rescue::{Progress, SalvageError, Sink, rescue};
pub use walk::{Holder, StripeFound, StripeWalk};
