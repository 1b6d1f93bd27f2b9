//! What went wrong on a device, kept for people and for the controller.

use std::collections::VecDeque;

/// Faults kept; older ones are forgotten first. 256: a dying device shows its pattern in far fewer.
const FAULTS_MAX: usize = 256;

/// What kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// A read failed.
    Read,
    /// A write failed; the device takes no more writes.
    Write,
    /// A flush failed; the device takes no more writes.
    Flush,
    /// Bytes are not those that were written.
    Corrupt,
    /// Damage was found while the device was opened.
    Recovery,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultRecord {
    /// Counts up from 1 since the store was opened.
    pub number: u64,
    /// What kind.
    pub kind: FaultKind,
    /// Where on the device, in bytes; `None` for what has no place.
    pub offset: Option<u64>,
    /// What was found.
    pub what: String,
}

/// The newest faults.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    newest: VecDeque<FaultRecord>,
    count: u64,
}

impl Faults {
    pub(crate) fn note(&mut self, kind: FaultKind, offset: Option<u64>, what: String) {
        if self.newest.len() == FAULTS_MAX {
            self.newest.pop_front();
        }
        self.count += 1;
        self.newest.push_back(FaultRecord { number: self.count, kind, offset, what });
    }

    /// Oldest first.
    pub(crate) fn list(&self) -> Vec<FaultRecord> {
        self.newest.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_faults_are_kept() {
        let mut faults = Faults::default();
        for n in 0..300u64 {
            faults.note(FaultKind::Read, Some(n), String::new());
        }
        let list = faults.list();
        assert_eq!((list.len(), list[0].number, list[255].number), (FAULTS_MAX, 45, 300));
    }
}
