//! Why a verb did not do what was asked, and the exit code that goes with it.

use std::path::PathBuf;

use catalog::CatalogError;
use thiserror::Error;

/// Each prints as one line.
#[derive(Debug, Error)]
pub(crate) enum CliError {
    /// The command line or the config file asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// A file or directory of ours.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Another server owns the directory.
    #[error("{} belongs to a running server{}", dir.display(), owner(*pid))]
    DataInUse {
        /// The directory.
        dir: PathBuf,
        /// The server's process, when its lock file tells.
        pid: Option<u32>,
    },
    /// The catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The running server refused.
    #[error("{0}")]
    Refused(String),
    /// The running server did not answer as it should.
    #[error("the running server does not answer: {0}")]
    Server(String),
    /// There is no such key.
    #[error("there is no access key {0}")]
    NoSuchKey(String),
    /// The node could not start, or ended with an error.
    #[error("{0}")]
    Node(String),
    /// The work was done, and damage was found.
    #[error("{0}")]
    Damage(String),
}

impl CliError {
    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Damage(_) => 3,
            _ => 1,
        }
    }

    /// For `map_err` on an I/O call.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}
