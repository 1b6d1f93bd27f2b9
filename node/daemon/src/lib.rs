//! One node's daemon: configuration, doors, wiring; the composition root.

#![forbid(unsafe_code)]

pub mod admin;
pub mod metrics;
