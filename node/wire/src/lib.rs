//! The messages between hosts: protobufs, TLS, and their conversion to plain types.

#![forbid(unsafe_code)]

pub mod controller;
pub mod dial;
mod fault;
pub mod identity;
pub mod identity_key;
pub mod identity_token;
pub mod index;
pub mod listen;
pub mod listen_count;
pub mod shards;
pub mod tls;
pub mod tls_conn;
pub mod tls_verify;

pub use fault::Fault;

/// What the protobufs become.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    unused_qualifications,
    unreachable_pub,
    reason = "generated from proto/, where the fields are explained"
)]
pub mod pb {
    pub mod shards {
        tonic::include_proto!("holdfast.shards.v1");
    }
    pub mod index {
        tonic::include_proto!("holdfast.index.v1");
    }
    pub mod controller {
        tonic::include_proto!("holdfast.controller.v1");
    }
}
