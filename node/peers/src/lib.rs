//! Stores of other hosts, and our own stores for them.
//!
//! - [`LocalShards`] serves this node's devices to the others;
//! - [`Pool`] keeps one connection to each node of the map;
//! - faults of the wire and of the store are turned into one another here and nowhere else.

#![forbid(unsafe_code)]

mod convert;
mod host;
mod index_host;
mod pool;
mod remote_index;
mod remote_store;

pub use convert::{fault_of, store_error_of};
pub use host::{LocalShards, Served};
pub use index_host::LocalIndex;
pub use pool::{Dial, Pool};
pub use remote_index::{RemotePartition, Route, Routes};
pub use remote_store::RemoteStore;
