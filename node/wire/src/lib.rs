//! The messages between hosts: protobufs, TLS, and their conversion to plain types.

#![forbid(unsafe_code)]
