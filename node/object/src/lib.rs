//! Objects as the node understands them: put, get, list.

#![forbid(unsafe_code)]

pub mod api;
