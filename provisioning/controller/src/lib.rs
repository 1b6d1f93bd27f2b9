//! The rack's controller: membership, enrolment and the store of small facts behind one gRPC service.
//!
//! It is on the path of change, never on the path of data: nodes keep the last map and the access keys themselves.

#![forbid(unsafe_code)]

mod admin_service;
mod authority;
mod convert;
mod create;
mod enrolment_service;
mod keys;
mod rack_service;
mod rows;
mod serve;
mod shared;
mod state;

pub use create::{CreateError, Created, create};
pub use serve::{ControllerConfig, ServeError, serve};
