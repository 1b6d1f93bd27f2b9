//! What became of each key, for the manifest and the summary.

use serde::Serialize;

/// What became of a key or version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Every byte is there, verified; the newest version there is.
    Whole,
    /// Every byte of this version is there, but a newer one is not whole.
    Older,
    /// The journal says that it was deleted; nothing was written.
    Deleted,
    /// Every byte is there; that it was ever completed cannot be proven.
    Uncertain,
    /// Bytes are missing; holes are zero.
    Incomplete,
}

/// One line of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ManifestEntry {
    /// Bucket.
    pub bucket: String,
    /// Key.
    pub key: String,
    /// What became of it.
    pub state: State,
    /// Where it lies below the directory; `None` when nothing was written.
    pub path: Option<String>,
    /// Bytes written, holes included.
    pub size: u64,
    /// `stripes`, `pack`, `journal` or `multipart`.
    pub source: &'static str,
    /// When it was put; milliseconds since 1970.
    pub modified_ms: u64,
    /// What is missing, or why it is uncertain.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What a salvage gave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SalvageSummary {
    /// Objects written whole, and their bytes.
    pub whole: u64,
    /// Bytes of whole objects, older and uncertain ones included.
    pub bytes: u64,
    /// Objects of which only an older version is whole.
    pub older: u64,
    /// Keys that the journal says were deleted.
    pub deleted: u64,
    /// Uploads and puts of which no completion is known.
    pub uncertain: u64,
    /// Objects with missing bytes.
    pub incomplete: u64,
    /// Stripes found.
    pub stripes: u64,
    /// Stripes none of whose shards tells what it is.
    pub undescribed_stripes: u64,
    /// Commands replayed from the journal.
    pub journal_commands: u64,
    /// Positions of the journal between its ends that no device can give.
    pub journal_gaps: u64,
    /// Journal position of the index view that helped, when one could be read.
    pub index_position: Option<u64>,
    /// Packs, journal records and devices that could not be read, and why.
    pub trouble: Vec<String>,
}

impl SalvageSummary {
    /// Whether something that was there is not whole now.
    #[must_use]
    pub fn has_losses(&self) -> bool {
        self.incomplete > 0
            || self.older > 0
            || self.undescribed_stripes > 0
            || self.journal_gaps > 0
            || !self.trouble.is_empty()
    }

    pub(crate) fn count(&mut self, state: State, bytes: u64) {
        *match state {
            State::Whole => &mut self.whole,
            State::Older => &mut self.older,
            State::Deleted => &mut self.deleted,
            State::Uncertain => &mut self.uncertain,
            State::Incomplete => &mut self.incomplete,
        } += 1;
        if !matches!(state, State::Deleted | State::Incomplete) {
            self.bytes += bytes;
        }
    }
}
