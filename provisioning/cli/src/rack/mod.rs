//! A rack: asking its controller, running its parts, and running one on this machine.

pub(crate) mod admin;
pub(crate) mod cluster;
pub(crate) mod connect;
mod join;
pub(crate) mod launch;
pub(crate) mod node;
mod show;
mod table;
