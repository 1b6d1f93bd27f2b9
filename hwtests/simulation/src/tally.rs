//! What runs did: counters by name, for the soak's table and for the proof that rare paths were reached.

use std::collections::BTreeMap;

use simdisk::FaultCounts;

/// Rare paths that a fixed budget of runs must have reached.
pub const PROBES: [&str; 13] = [
    "probe: reclaim moved records",
    "probe: checkpoint fell back",
    "probe: every extent probed",
    "probe: torn tail",
    "probe: damage reported",
    "probe: corrupt record refused",
    "probe: full device refused a put",
    "probe: full device came back",
    "probe: poisoned store refused a write",
    "probe: crash during recovery",
    "probe: crash with reclaim under way",
    "probe: crash with checkpoint under way",
    "probe: opening failed and was tried again",
];

/// Counters by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    counts: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Counts `n` more.
    pub fn add(&mut self, name: &'static str, n: u64) {
        if n > 0 {
            *self.counts.entry(name).or_default() += n;
        }
    }

    /// A counter.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// Adds another tally to this one.
    pub fn merge(&mut self, other: &Self) {
        other.counts.iter().for_each(|(name, n)| self.add(name, *n));
    }

    /// Every counter by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.counts.iter().map(|(name, n)| (*name, *n))
    }

    /// What the disk did to us.
    pub fn add_faults(&mut self, counts: &FaultCounts) {
        let named = [
            ("fault: read errors", counts.read_errors),
            ("fault: write errors", counts.write_errors),
            ("fault: failed flushes", counts.failed_flushes),
            ("fault: bad sectors", counts.bad_sectors),
            ("fault: bits flipped", counts.bit_flips),
            ("fault: misdirected reads", counts.misdirected_reads),
            ("fault: misdirected writes", counts.misdirected_writes),
            ("fault: lost writes", counts.lost_writes),
            ("fault: lying flushes", counts.lying_flushes),
            ("fault: slow operations", counts.slow_ops),
            ("crashes", counts.crashes),
        ];
        named.into_iter().for_each(|(name, n)| self.add(name, n));
    }
}
