//! Metadata partitions: ordered rows over a journal.
//!
//! The journal (`replica`) is the truth. Each of its mirrors carries a view: the rows that follow from
//! applying the journal's commands in order, in a redb database whose storage is records of the same
//! store. Reads come from one view; any view can be thrown away and made anew. [`client`] is the face to callers here
//! and on other hosts.

#![forbid(unsafe_code)]

mod apply;
mod batch;
mod block;
pub mod client;
mod error;
mod list;
mod message;
pub mod model;
mod opening;
mod packing;
mod partition;
mod question;
mod region;
mod resting;
mod snapshot;
mod sweep;
mod tables;
mod view;
mod writer;

pub use batch::{DATA_BYTES_MAX, LoggedCommand, WITH_COMMAND, decode_batch};
pub use client::PartitionClient;
pub use error::{IndexError, Nature};
pub use list::{ListPage, ListRequest};
pub use message::{ANSWER_BYTES_MAX, COMMAND_BYTES_MAX, Malformed};
pub use packing::PackWish;
pub use partition::{Partition, PartitionConfig, PartitionStatus, ViewStatus};
pub use question::{Answer, PAGE_NUMBERS_MAX, PAGE_ROWS_MAX, PAGE_RUNS_MAX, Question, answer};
pub use replica::{Mirror, MirrorStore, Policy, mirrors};
pub use resting::RestingView;
pub use snapshot::{Counters, ObjectHead, PackInfo, SmallObject, Snapshot};
pub use sweep::{RunsFrom, RunsPage};
