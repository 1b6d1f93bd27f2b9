//! Metadata partitions: ordered rows over a journal.
//!
//! The journal (`replica`) is the truth. Each of its mirrors carries a view: the rows that follow from
//! applying the journal's commands in order, in a redb database whose storage is records of the same
//! store. Reads come from one view; any view can be thrown away and made anew.

#![forbid(unsafe_code)]

mod apply;
mod batch;
mod block;
mod error;
mod list;
pub mod model;
mod opening;
mod partition;
mod region;
mod resting;
mod snapshot;
mod tables;
mod view;
mod writer;

pub use batch::{DATA_BYTES_MAX, LoggedCommand, WITH_COMMAND, decode_batch};
pub use error::IndexError;
pub use list::{ListPage, ListRequest};
pub use partition::{Partition, PartitionConfig, PartitionStatus, ViewStatus};
pub use replica::{Mirror, MirrorStore, Policy, mirrors};
pub use resting::RestingView;
pub use snapshot::{Counters, ObjectHead, PackInfo, SmallObject, Snapshot};
