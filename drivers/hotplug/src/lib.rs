//! Which block devices there are, and what is on one before we claim it.
//!
//! [`inspect`] changes nothing on the device and answers with every reason not to take it; an empty list means that
//! neither the kernel nor the bytes at the device's ends know of anything. Signatures are decoded by a pure function
//! over those bytes ([`signatures`]).
//!
//! Left out on purpose: our own label (the store's business), anything that writes, and file systems inside
//! partitions: a partition table is reason enough.

mod error;
mod inspect;
mod list;
mod objection;
mod signature;
mod usage;

pub use error::HotplugError;
pub use inspect::{Inspection, inspect};
pub use list::{ListedDevice, list_block_devices};
pub use objection::Objection;
pub use signature::{HEAD_BYTES, Signature, TAIL_BYTES, signatures};
