//! Faults of the wire and errors of a store.

use disk::{DiskError, DiskOp};
use shards::StoreError;
use wire::Fault;

/// How a store's refusal travels.
#[must_use]
pub fn fault_of(error: StoreError) -> Fault {
    match error {
        StoreError::NotFound => Fault::NotFound,
        StoreError::Full => Fault::Full,
        StoreError::Corrupt { offset, what } => Fault::Corrupt { offset, what: what.to_owned() },
        StoreError::Poisoned { reason } => Fault::Poisoned(reason),
        StoreError::Closed => Fault::Closed,
        error @ StoreError::TooLarge { .. } => Fault::Invalid(error.to_string()),
        // A sector that cannot be read is the record's loss, not the device's.
        StoreError::Disk(DiskError::Medium { op: DiskOp::Read, offset, .. }) => {
            Fault::Corrupt { offset, what: "the medium cannot be read".into() }
        }
        other => Fault::Device(other.to_string()),
    }
}

/// What a fault means to whoever asked a store.
#[must_use]
pub fn store_error_of(fault: Fault) -> StoreError {
    match fault {
        Fault::NotFound => StoreError::NotFound,
        Fault::Full => StoreError::Full,
        Fault::Corrupt { offset, .. } => StoreError::Corrupt { offset, what: "found on the device's own node" },
        Fault::Poisoned(reason) | Fault::Device(reason) => StoreError::Poisoned { reason },
        // Everything else says nothing about the record: the device cannot be asked now.
        _ => StoreError::Closed,
    }
}
