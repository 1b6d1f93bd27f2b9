//! The bounds a store works within: they cap its memory and its recovery, and let tests make every pool tiny.

use crate::place::UNFLUSHED_CEILING_BYTES;

/// Bounds of one store. Every value works, down to 1: smaller pools cost speed, never progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests that may wait in front of the device. 512: enough to keep any device busy through a group
    /// commit; the rest waits with its sender, so that overload is felt where it is made.
    pub queue_len: usize,
    /// Requests under way at once. 1,024: covers the deepest group commit we expect.
    pub tasks_max: usize,
    /// Records that reclaim moves at once. 8: keeps a device busy without crowding out requests.
    pub moves_at_once: usize,
    /// Bytes of small records that one device write gathers. 1 MiB: beyond it writes gain nothing in size.
    pub batch_max_bytes: usize,
    /// Device writes of small records that may be without a finished flush in one extent. 2: while one is being
    /// flushed the next is written, and everything that comes meanwhile gathers for the one after.
    pub small_segments_max: usize,
    /// Bytes without a finished flush in one extent, at most 24 MiB: recovery looks that far beyond a damaged
    /// record for proof that it was acknowledged. A single larger record still passes.
    pub unflushed_max_bytes: usize,
    /// Bytes written since the last checkpoint that call for another. 512 MiB: bounds what recovery reads.
    pub checkpoint_interval_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_len: 512,
            tasks_max: 1024,
            moves_at_once: 8,
            batch_max_bytes: 1 << 20,
            small_segments_max: 2,
            unflushed_max_bytes: UNFLUSHED_CEILING_BYTES,
            checkpoint_interval_bytes: 512 << 20,
        }
    }
}

impl Limits {
    /// The same with nonsense made harmless: nothing is below 1, nothing above what recovery relies on.
    pub(crate) fn sane(self) -> Self {
        Self {
            queue_len: self.queue_len.max(1),
            tasks_max: self.tasks_max.max(1),
            moves_at_once: self.moves_at_once.max(1),
            batch_max_bytes: self.batch_max_bytes.max(1),
            small_segments_max: self.small_segments_max.max(1),
            unflushed_max_bytes: self.unflushed_max_bytes.clamp(1, UNFLUSHED_CEILING_BYTES),
            checkpoint_interval_bytes: self.checkpoint_interval_bytes.max(1),
        }
    }
}
