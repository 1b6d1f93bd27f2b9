//! Metadata partitions: ordered rows over a journal.

#![forbid(unsafe_code)]

pub mod model;
