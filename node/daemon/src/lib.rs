//! One node's daemon: configuration, doors, wiring; the composition root.

#![forbid(unsafe_code)]

pub mod admin;
pub mod agent;
mod background;
mod device;
pub mod metrics;
mod node;
mod observe;
mod offline;
mod rack_node;
mod report;

pub use device::{DeviceError, DeviceSpec};
pub use gateway::{Keys, Secret};
pub use node::{DevConfig, DevEvents, Doors, NodeError, run};
pub use offline::{OfflineDevice, OfflineError, open_offline};
pub use rack_node::{RackDoors, RackNodeConfig, RackNodeError, run_rack_node};
