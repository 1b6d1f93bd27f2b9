//! Raw block devices, and files standing in for them, over io_uring.
//!
//! [`run`] opens a device on the current thread and drives one future with it: the device's whole executor. One code
//! path serves block devices and files; where the kernel refuses io_uring, blocking calls on the same thread stand
//! behind the same type, and [`disk::DeviceFacts::engine`] says which it is.
//!
//! Invariants:
//! - an operation begins at the call, not at the first poll, and is finished whether or not its future lives;
//! - the kernel never holds the address of memory that we may free: buffers belong to the operation's slot until its
//!   completion was seen, and `run` does not return (nor unwind) before the last one was;
//! - at most `queue_depth` operations are in the kernel; the rest wait in the order of their calls;
//! - one process owns a device at a time (`O_EXCL` on block devices, `flock` on files).
//!
//! Left out on purpose: retries, ordering and scheduling between operations; the store above knows better.

mod blocking;
mod core;
mod device;
mod errno;
mod executor;
mod facts;
mod open;
mod ring;
mod slab;
pub mod sysfs;
mod unpark;
mod zones;

pub use device::UringDevice;
pub use executor::run;
pub use open::{Engine, OpenOptions, create_file};
