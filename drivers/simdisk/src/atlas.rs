//! The faults a simulated disk may inject, how often, and how often it did.

/// How often each fault strikes: "one in n operations of that sort", 0 for never. All off by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultAtlas {
    /// A read fails once with EIO.
    pub read_error_one_in: u64,
    /// A write fails once with EIO, after any subset of its sectors was written.
    pub write_error_one_in: u64,
    /// After a write, one of its sectors goes bad for good: every later read or write of it fails.
    pub bad_sector_one_in: u64,
    /// After a write, one bit flips in a page somewhere on the medium.
    pub bit_rot_one_in: u64,
    /// A read gives the bytes of another place.
    pub misdirected_read_one_in: u64,
    /// A write lands in another place, and not where it should.
    pub misdirected_write_one_in: u64,
    /// A write is acknowledged and never happens.
    pub lost_write_one_in: u64,
    /// A flush is acknowledged and makes nothing durable.
    pub lying_flush_one_in: u64,
    /// A flush fails, and what it should have covered is lost in part.
    pub failing_flush_one_in: u64,
    /// An operation takes [`Self::slow_polls`] polls more.
    pub slow_one_in: u64,
    /// Polls a slow operation takes beyond its own.
    pub slow_polls: u32,
    /// The device dies for good before an operation.
    pub death_one_in: u64,
    /// Faults injected at most, slow operations aside; then the device behaves.
    pub faults_max: u64,
}

impl Default for FaultAtlas {
    fn default() -> Self {
        Self {
            read_error_one_in: 0,
            write_error_one_in: 0,
            bad_sector_one_in: 0,
            bit_rot_one_in: 0,
            misdirected_read_one_in: 0,
            misdirected_write_one_in: 0,
            lost_write_one_in: 0,
            lying_flush_one_in: 0,
            failing_flush_one_in: 0,
            slow_one_in: 0,
            slow_polls: 100,
            death_one_in: 0,
            faults_max: u64::MAX,
        }
    }
}

/// How often each fault was injected, by the atlas or by a test's hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Reads failed by a passing error.
    pub read_errors: u64,
    /// Writes failed by a passing error.
    pub write_errors: u64,
    /// Sectors gone bad.
    pub bad_sectors: u64,
    /// Reads and writes refused because of a bad sector.
    pub bad_sector_hits: u64,
    /// Bits flipped.
    pub bit_flips: u64,
    /// Reads that gave another place's bytes.
    pub misdirected_reads: u64,
    /// Writes that landed elsewhere.
    pub misdirected_writes: u64,
    /// Writes that never happened.
    pub lost_writes: u64,
    /// Flushes that lied.
    pub lying_flushes: u64,
    /// Flushes that failed.
    pub failed_flushes: u64,
    /// Operations slowed down.
    pub slow_ops: u64,
    /// Deaths of the device.
    pub deaths: u64,
    /// Crashes and power cuts.
    pub crashes: u64,
}

impl FaultCounts {
    /// Faults in all; crashes, slow operations and hits on sectors already bad aside.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.read_errors
            + self.write_errors
            + self.bad_sectors
            + self.bit_flips
            + self.misdirected_reads
            + self.misdirected_writes
            + self.lost_writes
            + self.lying_flushes
            + self.failed_flushes
            + self.deaths
    }
}
