//! The messages between hosts: protobufs, TLS, and their conversion to plain types.

#![forbid(unsafe_code)]

pub mod controller;
mod fault;
pub mod index;
pub mod shards;

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
