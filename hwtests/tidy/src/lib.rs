//! LAYOUT's and STYLE's laws as a test: who imports whom, who opens doors, how a file begins.
//!
//! It reads manifests and sources as text and builds nothing. Exceptions are tables with a reason each
//! ([`rooms`], [`sources::EXCEPTIONS`]); a law that only a reader can judge is left to the reader.

#![forbid(unsafe_code)]

pub mod crates;
pub mod lexer;
pub mod paths;
pub mod rooms;
pub mod sources;

use std::fmt;
use std::path::Path;

/// One broken law.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// File below the root.
    pub place: String,
    /// Line, 0 when the whole file is meant.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl Finding {
    /// A finding.
    #[must_use]
    pub fn new(place: &str, line: usize, what: &str) -> Self {
        Self { place: place.to_owned(), line, what: what.to_owned() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.place, self.what),
            line => write!(f, "{}:{line}: {}", self.place, self.what),
        }
    }
}

/// Checks the workspace at `root`.
#[must_use]
pub fn check(root: &Path) -> Vec<Finding> {
    let crates = match crates::read(root) {
        Ok(crates) => crates,
        Err(finding) => return vec![finding],
    };
    let ours: Vec<String> = crates.iter().map(|own| own.name.clone()).collect();
    let mut findings = rooms::check(&crates);
    findings.extend(crates.iter().flat_map(|own| sources::check(root, own, &ours)));
    findings
}
