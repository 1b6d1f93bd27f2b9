//! What the retained journal says of each key, in order.
//!
//! The rows before the first record are not known. A condition that depends on them is doubtful: such a
//! put counts only when nothing else is left of the key, such a delete does not count.

use std::collections::BTreeMap;
use std::ops::Range;

use format::JOURNAL_HEADER_BYTES;
use index::model::{Command, Condition, ETag, Layout, ObjectRow, PartRow, StripeRun};
use index::{LoggedCommand, WITH_COMMAND, decode_batch};
use md5::{Digest, Md5};
use shards::StoreHandle;

use crate::journal::{JournalCopies, Position, read_record};
use crate::survey::Name;

/// Time, in milliseconds, by which commands may be out of order in the journal.
const SLACK_MS: u64 = 5_000;

/// Where a body's bytes are, as the journal says.
#[derive(Debug, Clone)]
pub(crate) enum Bytes {
    Journal { at: Position, range: Range<u32> },
    Stripes(Vec<StripeRun>),
}

/// One thing that happened to a key.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Put { modified_ms: u64, size: u64, etag: String, bytes: Bytes, doubtful: bool },
    Completed { modified_ms: u64, etag: String, upload: u128, parts: Vec<(u32, [u8; 16])>, doubtful: bool },
    Deleted,
}

/// A part as the journal says.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) md5: [u8; 16],
    pub(crate) size: u64,
    pub(crate) bytes: Bytes,
}

/// An upload as the journal says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Upload {
    pub(crate) parts: BTreeMap<u32, Part>,
    pub(crate) name: Option<Name>,
    pub(crate) given_up: bool,
    pub(crate) completed: bool,
}

/// Everything the retained journal says.
#[derive(Debug, Default)]
pub struct Replay {
    pub(crate) events: BTreeMap<Name, Vec<Event>>,
    pub(crate) uploads: BTreeMap<u128, Upload>,
    /// Commands replayed.
    pub commands: u64,
    /// Records that cannot be read or are no batch of commands, and why.
    pub broken: Vec<String>,
    oldest_ms: Option<u64>,
    contiguous: bool,
}

impl Replay {
    /// Replays the records in order, one in memory at a time.
    pub async fn of(stores: &[StoreHandle], copies: &JournalCopies) -> Self {
        let mut replay = Self { contiguous: copies.is_contiguous(), ..Self::default() };
        for at in &copies.positions {
            let commands = match read_record(stores, at, 0..u32::MAX).await {
                Ok(payload) => match payload.get(JOURNAL_HEADER_BYTES..) {
                    Some(body) => decode_batch(body, JOURNAL_HEADER_BYTES as u32)
                        .map_err(|what| format!("journal position {}: {what}", at.lsn.0)),
                    None => Err(format!("journal position {}: shorter than its header", at.lsn.0)),
                },
                Err(error) => Err(error),
            };
            match commands {
                Ok(commands) => commands.into_iter().for_each(|command| replay.apply(at, command)),
                Err(why) => {
                    replay.contiguous = false;
                    replay.broken.push(why);
                }
            }
        }
        replay
    }

    /// Whether something begun at this time must be in the journal if it was ever completed.
    pub(crate) fn would_know(&self, begun_ms: u64) -> bool {
        self.contiguous && self.oldest_ms.is_some_and(|oldest| begun_ms > oldest + SLACK_MS)
    }

    fn saw(&mut self, ms: u64) {
        self.oldest_ms.get_or_insert(ms);
    }

    fn apply(&mut self, at: &Position, logged: LoggedCommand) {
        self.commands += 1;
        let LoggedCommand { command, data } = logged;
        match command {
            Command::PutObject { bucket, key, row, condition, .. } => {
                self.saw(row.modified_ms);
                self.put((bucket, key), &row, &condition, at, data);
            }
            Command::DeleteObject { bucket, key, condition } => {
                let events = self.events.entry((bucket, key)).or_default();
                if judge(&condition, events.last()) == Some(true) {
                    events.push(Event::Deleted);
                }
            }
            Command::CreateUpload { bucket, upload, row } => {
                self.saw(row.started_ms);
                self.uploads.entry(upload).or_default().name = Some((bucket, row.key));
            }
            Command::PutPart { upload, number, row, .. } => {
                self.saw(row.modified_ms);
                let part = part_of(row, at, data);
                let upload = self.uploads.entry(upload).or_default();
                if !upload.completed && !upload.given_up {
                    upload.parts.insert(number, part);
                }
            }
            Command::CompleteUpload { bucket, key, upload, parts, modified_ms, condition, .. } => {
                self.saw(modified_ms);
                self.complete((bucket, key), upload, parts, modified_ms, &condition);
            }
            Command::AbortUpload { upload, .. } => {
                let upload = self.uploads.entry(upload).or_default();
                upload.given_up |= !upload.completed;
            }
            _ => {}
        }
    }

    fn put(&mut self, name: Name, row: &ObjectRow, condition: &Condition, at: &Position, data: Range<u32>) {
        let events = self.events.entry(name).or_default();
        let Some(doubtful) = judge(condition, events.last()).map_or(Some(true), |holds| holds.then_some(false)) else {
            return;
        };
        events.push(Event::Put {
            modified_ms: row.modified_ms,
            size: row.size,
            etag: row.etag.to_string(),
            bytes: bytes_of(&row.layout, at, data),
            doubtful,
        });
    }

    fn complete(&mut self, name: Name, id: u128, parts: Vec<(u32, [u8; 16])>, modified_ms: u64, condition: &Condition) {
        let upload = self.uploads.entry(id).or_default();
        // Parts that the journal knows must be those that are named; the index would have refused.
        let contradicts = parts.iter().any(|(n, md5)| upload.parts.get(n).is_some_and(|part| part.md5 != *md5));
        let ascends = parts.is_sorted_by(|a, b| a.0 < b.0);
        let other = upload.name.as_ref().is_some_and(|known| *known != name);
        if parts.is_empty() || contradicts || !ascends || other || upload.completed || upload.given_up {
            return;
        }
        let events = self.events.entry(name).or_default();
        let Some(doubtful) = judge(condition, events.last()).map_or(Some(true), |holds| holds.then_some(false)) else {
            return;
        };
        // With every part in sight the index cannot have refused it for one; else it may be said again.
        upload.completed = !doubtful && parts.iter().all(|(n, _)| upload.parts.contains_key(n));
        let md5: [u8; 16] = Md5::digest(parts.iter().flat_map(|(_, md5)| *md5).collect::<Vec<u8>>()).into();
        let etag = ETag::Parts(md5, parts.len() as u32).to_string();
        events.push(Event::Completed { modified_ms, etag, upload: id, parts, doubtful });
    }

    /// The stripes that the journal names in objects and parts.
    pub(crate) fn runs(&self) -> Vec<StripeRun> {
        let of_parts = self.uploads.values().flat_map(|upload| upload.parts.values()).map(|part| &part.bytes);
        let of_puts = self.events.values().flatten().filter_map(|event| match event {
            Event::Put { bytes, .. } => Some(bytes),
            _ => None,
        });
        let runs = of_parts.chain(of_puts).filter_map(|bytes| match bytes {
            Bytes::Stripes(runs) => Some(runs),
            Bytes::Journal { .. } => None,
        });
        let mut runs: Vec<StripeRun> = runs.flatten().copied().collect();
        runs.sort_unstable_by_key(|run| run.first);
        runs
    }
}

fn bytes_of(layout: &Layout, at: &Position, data: Range<u32>) -> Bytes {
    match layout {
        Layout::Stripes(runs) => Bytes::Stripes(runs.clone()),
        layout => {
            debug_assert!(*layout == WITH_COMMAND, "a batch decodes only to these two");
            Bytes::Journal { at: at.clone(), range: data }
        }
    }
}

fn part_of(row: PartRow, at: &Position, data: Range<u32>) -> Part {
    Part { md5: row.md5, size: row.size, bytes: bytes_of(&row.layout, at, data) }
}

/// Whether a condition held; `None` when that depends on what the journal no longer tells.
fn judge(condition: &Condition, before: Option<&Event>) -> Option<bool> {
    if *condition == Condition::default() {
        return Some(true);
    }
    let (etag, size, modified_ms) = match before {
        Some(Event::Put { etag, size, modified_ms, doubtful: false, .. }) => (etag, Some(*size), *modified_ms),
        Some(Event::Completed { etag, modified_ms, doubtful: false, .. }) => (etag, None, *modified_ms),
        Some(Event::Deleted) => return Some(condition.must_match.is_none()),
        _ => return None,
    };
    if condition.must_not_exist {
        return Some(false);
    }
    let tags = condition.must_match.as_ref();
    let matches = tags.is_none_or(|tags| tags.iter().any(|tag| tag == "*" || tag == etag));
    let modified = condition.must_be_modified_at_s.is_none_or(|seconds| seconds == modified_ms / 1000);
    match (condition.must_have_size, size) {
        (Some(_), None) => None,
        (wanted, size) => Some(matches && modified && wanted.is_none_or(|wanted| Some(wanted) == size)),
    }
}
