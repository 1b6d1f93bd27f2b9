//! Why nothing can be said of a device.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a device could not be inspected or listed.
#[derive(Debug, Error)]
pub enum HotplugError {
    /// It is neither a block device nor a file.
    #[error("{} is neither a block device nor a file", path.display())]
    NotADevice {
        /// What was named.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{}: {doing}: {reason}", path.display())]
    Os {
        /// What was named.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// The system's answer.
        #[source]
        reason: io::Error,
    },
}

impl HotplugError {
    pub(crate) fn os(path: &std::path::Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |reason| Self::Os { path, doing, reason }
    }
}
