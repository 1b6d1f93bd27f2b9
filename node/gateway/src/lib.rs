//! The S3 face: HTTP and S3's words on one side, the object layer's on the other.
//!
//! s3s parses requests, checks SigV4 and writes XML; this crate stands before it (guards, bodies, limits,
//! request identifiers) and behind it (the operations). s3s types stop here.
//!
//! Always: a refused request has no effect; a body that ends early, stalls or differs from what the client
//! declared never becomes visible; a response that cannot be finished breaks the connection instead of
//! looking complete; memory per connection is bounded whatever a client sends.
//!
//! Left out: TLS (a listener in front), policies and per-user rights (all users are equal), versioning,
//! tags, encryption and object lock: what asks for them is refused by name, never ignored.
//!
//! s3s logs on targets below `s3s`, and at debug level it logs signatures: the process must switch them
//! off with [`LOG_DIRECTIVE`]. This crate logs one line for every request instead.

#![forbid(unsafe_code)]

mod access;
mod chunked;
mod condition;
mod context;
mod convert;
mod declared;
mod digest;
mod errors;
mod front;
mod guard;
mod incoming;
mod keys;
mod ops;
mod paging;
mod serve;
mod socket;
mod stats;
mod upload;
mod xml;

pub use front::Gateway;
pub use keys::{Keys, Secret};
pub use serve::{Limits, Listener, ServeError, serve};
pub use stats::{GatewayStats, OperationCount, StatusClass};

/// What a log filter must contain beside this crate's own levels (see the crate's description).
pub const LOG_DIRECTIVE: &str = "s3s=off";
