//! The gateway as clients see it: the real server on a loopback port over an object layer in memory.

mod client;
mod memory;
mod server;

mod authentication;
mod bodies;
mod buckets;
mod by_hand;
mod copies;
mod guards;
mod limits;
mod lists;
mod multipart;
mod objects;
mod speed;
