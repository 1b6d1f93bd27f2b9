//! The shard store under every interleaving that a scheduler can be made to choose.
//!
//! A harness runs a store over the simulated disk, and clients against it, as tasks of `shuttle`: one OS thread on
//! which the scheduler decides who runs next. Scheduling points are the awaits: of a request's answer, of a device
//! operation, and a pause before every request. The device is a task of its own, so which operation completes next,
//! and when, is the scheduler's choice too; it never wakes itself, so a store that waits for nothing is a deadlock,
//! which `shuttle` reports. What every client saw is recorded and must be linearizable per key, through crashes and
//! reopenings ([`linear`]).
//!
//! Invariants: a run is decided by its seed alone, or by the schedule that a failure prints; values are unique, so
//! that a read names the write it saw.
//!
//! Left out on purpose: preemption inside a store's turn (one thread owns it, nothing else touches its state), and
//! inside tokio's channels, which are taken for the linearizable primitives that they are. Device faults other than
//! the loss of power belong to the fault harnesses.

#![forbid(unsafe_code)]

pub mod chance;
pub mod client;
pub mod explore;
pub mod gate;
pub mod harnesses;
pub mod history;
pub mod linear;
pub mod payload;
pub mod probe;
pub mod watch;
pub mod world;
