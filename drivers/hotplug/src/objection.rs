//! Reasons not to take a device, in words for the operator.

use std::fmt;
use std::path::PathBuf;

use crate::Signature;

/// One reason not to take a device. `Display` completes the sentence "the device ...".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Objection {
    /// It, or a partition of it, is mounted.
    Mounted {
        /// The device or partition that is mounted, by its kernel name.
        name: String,
        /// Where.
        mount_point: PathBuf,
    },
    /// It, or a partition of it, is used as swap.
    SwapInUse {
        /// The device or partition, by its kernel name.
        name: String,
    },
    /// Another device of the kernel (device mapper, RAID, loop) stands on it.
    Held {
        /// The device or partition, by its kernel name.
        name: String,
        /// Who holds it, by its kernel name.
        holder: String,
    },
    /// The kernel sees partitions on it.
    Partitions {
        /// Their kernel names.
        names: Vec<String>,
    },
    /// Some process has it open for itself alone.
    OpenElsewhere,
    /// It refuses writes.
    ReadOnly,
    /// Its first or last bytes say that something lives there.
    Holds(Signature),
}

impl Objection {
    /// Whether somebody uses the device now (as against having left something on it).
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Mounted { .. } | Self::SwapInUse { .. } | Self::Held { .. } | Self::OpenElsewhere)
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mounted { name, mount_point } => write!(f, "is mounted at {} ({name})", mount_point.display()),
            Self::SwapInUse { name } => write!(f, "is in use as swap ({name})"),
            Self::Held { name, holder } => write!(f, "is held by {holder} ({name})"),
            Self::Partitions { names } => write!(f, "has partitions ({})", names.join(", ")),
            Self::OpenElsewhere => f.write_str("is open elsewhere for exclusive use"),
            Self::ReadOnly => f.write_str("is read-only"),
            Self::Holds(signature) => write!(f, "{signature}"),
        }
    }
}
