//! What a store counts.

/// Counters and space of one store. Bytes unless named otherwise; counters since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes that extents hold in all.
    pub capacity_bytes: u64,
    /// Bytes that live records take.
    pub live_bytes: u64,
    /// Bytes that shards may still take before they are refused: free extents and dead space, less the
    /// reserve for journal, index, deletes and reclaim.
    pub available_bytes: u64,
    /// Live records.
    pub records: u64,
    /// Payload bytes accepted by puts and appends.
    pub accepted_bytes: u64,
    /// Bytes written to the device, everything included.
    pub written_bytes: u64,
    /// Bytes that reclaim moved.
    pub moved_bytes: u64,
    /// Bytes read from the device.
    pub read_bytes: u64,
    /// Writes sent to the device.
    pub writes: u64,
    /// Reads sent to the device.
    pub reads: u64,
    /// Flushes sent to the device.
    pub flushes: u64,
    /// Records put or appended.
    pub puts: u64,
    /// Range reads served.
    pub gets: u64,
    /// Records whose bytes did not verify.
    pub corrupt_found: u64,
    /// Device errors met.
    pub device_errors: u64,
    /// Extents emptied by reclaim.
    pub extents_reclaimed: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Whether the store refuses writes since a failure.
    pub poisoned: bool,
}

impl StoreStats {
    /// Device bytes written for each payload byte accepted; 0 before the first.
    #[must_use]
    pub fn write_amplification(&self) -> f64 {
        if self.accepted_bytes == 0 { 0.0 } else { self.written_bytes as f64 / self.accepted_bytes as f64 }
    }
}
