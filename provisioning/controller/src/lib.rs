//! The rack controller.

#![forbid(unsafe_code)]
