//! The simulation: the shard store on a seeded executor over a simulated disk that lies, against a reference model.
//!
//! A run is decided by its plan (a configuration, a list of operations, a seed); executions are concurrent *and*
//! crash. What clients see of a key must fit one order of their operations, across any number of crashes; see
//! docs/verification.md for the laws and for what is relaxed under which fault.
//!
//! Left out on purpose: time, threads, the network, more than one device.

#![forbid(unsafe_code)]

mod blank;
mod client;
pub mod content;
mod damage;
pub mod draw;
mod epilogue;
pub mod executor;
pub mod failure;
pub mod guard;
pub mod harness;
pub mod hunt;
mod look;
mod metered;
pub mod mock;
pub mod model;
pub mod plan;
pub mod register;
pub mod runner;
mod shared;
pub mod shrink;
pub mod tally;
