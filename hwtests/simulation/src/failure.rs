//! What a run can find: the laws, by name.

use std::fmt;

use crate::executor::Stall;

/// The law that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    /// Bytes that were never stored under the key were given out.
    WrongBytes,
    /// What clients saw of a key fits no order of their operations.
    Linearizability,
    /// After a recovery a key holds something that no order of its operations explains.
    Persistence,
    /// A list page that is not one.
    Listing,
    /// An error without a cause.
    UnexpectedError,
    /// A request that must work was refused.
    ForwardProgress,
    /// A device that can be opened was not, or recovery reports damage where there is none.
    Recovery,
    /// Counters that do not fit what is stored.
    Accounting,
    /// Nothing moves, or moves for ever.
    Hang,
    /// The code gave up.
    Panic,
}

impl Law {
    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WrongBytes => "wrong bytes",
            Self::Linearizability => "linearizability",
            Self::Persistence => "persistence",
            Self::Listing => "listing",
            Self::UnexpectedError => "error without a cause",
            Self::ForwardProgress => "forward progress",
            Self::Recovery => "recovery",
            Self::Accounting => "accounting",
            Self::Hang => "hang",
            Self::Panic => "panic",
        }
    }
}

/// A broken law and how it showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub law: Law,
    /// What was seen.
    pub what: String,
}

impl Failure {
    /// A failure.
    #[must_use]
    pub fn new(law: Law, what: impl Into<String>) -> Self {
        Self { law, what: what.into() }
    }
}

impl Failure {
    /// Whether another failure is of the same sort: what a reduced run must keep.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let start = |what: &str| what.chars().take_while(|c| !c.is_ascii_digit()).take(12).collect::<String>();
        self.law == other.law && (self.law != Law::Hang || start(&self.what) == start(&other.what))
    }
}

impl From<Stall> for Failure {
    fn from(stall: Stall) -> Self {
        Self::new(Law::Hang, stall.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.law.name(), self.what)
    }
}
