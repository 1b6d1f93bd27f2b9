//! Measurements of the real thing: programs that print figures as ratios, each naming the sentence
//! in `docs/` that it backs. What they share is here.
//!
//! - `s3bench`: an S3 endpoint, from a client's side;
//! - `bench`: a server of our own on a temporary directory, beside what fio says the disk can do;
//! - `storebench`: the store of one device alone, beside fio and in memory;
//! - `coding-compare`, `md5-compare`: libraries side by side, behind features.
#![forbid(unsafe_code)]

pub mod client;
pub mod fio;
pub mod load;
pub mod observe;
pub mod payload;
pub mod s3bench;
pub mod server;
pub mod sigv4;
pub mod size;
pub mod store;
pub mod table;
