//! Rebuilding objects: survey, replay, then key by key the newest whole version, one stripe at a time.

use std::io;

use base::PartitionId;
use index::RestingView;
use serde::Serialize;
use shards::StoreHandle;
use thiserror::Error;

use crate::events::Replay;
use crate::journal::{JournalCopies, read_record};
use crate::names::{Names, Room, SafePath};
use crate::report::{ManifestEntry, SalvageSummary, State};
use crate::resolve::{Piece, Resolution, Resolver, Version};
use crate::stripes::StripeReader;
use crate::survey::{Name, Survey};

/// The partition of a host that has one.
const PARTITION: PartitionId = PartitionId(0);
/// Memory for the pages of one view.
const VIEW_CACHE_BYTES: usize = 32 << 20;
/// Notes kept of one version; a long object that lost a device has a hole in every stripe.
const NOTES_MAX: usize = 100;
/// Most bytes that a hole is made wide: a damaged description must not make a file of exabytes.
const HOLE_MAX_BYTES: u64 = 5 << 40;

/// Where rescued bytes go. One file at a time.
pub trait Sink {
    /// Begins a file; its directories are made.
    ///
    /// # Errors
    /// The system's.
    fn begin(&mut self, path: &SafePath) -> io::Result<()>;
    /// Appends bytes.
    ///
    /// # Errors
    /// The system's.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Leaves a hole of zeros.
    ///
    /// # Errors
    /// The system's.
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
    /// Ends the file.
    ///
    /// # Errors
    /// The system's.
    fn finish(&mut self) -> io::Result<()>;
    /// Removes the file that was begun.
    ///
    /// # Errors
    /// The system's.
    fn discard(&mut self) -> io::Result<()>;
    /// One more line of the manifest.
    ///
    /// # Errors
    /// The system's.
    fn entry(&mut self, entry: &ManifestEntry) -> io::Result<()>;
}

/// Why a salvage stopped.
#[derive(Debug, Error)]
pub enum SalvageError {
    /// What was rescued cannot be kept.
    #[error("cannot write: {0}")]
    Sink(#[from] io::Error),
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Keys looked at.
    pub keys: u64,
    /// Keys there are.
    pub keys_total: u64,
    /// Bytes written.
    pub bytes: u64,
}

struct Rescue<'a, S> {
    reader: StripeReader<'a>,
    names: Names,
    sink: &'a mut S,
    summary: SalvageSummary,
    written: u64,
}

enum Written {
    Whole(u64),
    /// Bytes, and what is missing.
    Holes(u64, Vec<String>),
}

/// Rebuilds every object that the stores together still hold.
///
/// # Errors
/// [`SalvageError`]: the sink's; what cannot be read is in the summary and the manifest.
pub async fn rescue<S: Sink>(
    stores: &[StoreHandle],
    sink: &mut S,
    mut progress: impl FnMut(Progress),
) -> Result<SalvageSummary, SalvageError> {
    let copies = JournalCopies::read(stores).await;
    let replay = Replay::of(stores, &copies).await;
    let mut reader = StripeReader::new(stores);
    let survey = Survey::of(stores, &mut reader).await;
    let view = best_view(stores, &copies);
    let rows = view.as_ref().and_then(|view| view.rows().ok());
    let resolver = Resolver::new(&survey, &replay, rows.as_ref(), &copies.positions);
    let keys: Vec<Name> = resolver.names().into_iter().collect();
    let mut rescue = Rescue {
        reader,
        names: Names::new(keys.iter().cloned()),
        sink,
        summary: begun(&survey, &replay, &copies),
        written: 0,
    };
    rescue.summary.index_position = rows.as_ref().and(view.as_ref()).map(|view| view.applied().0);
    let mut done = Progress { keys_total: keys.len() as u64, ..Progress::default() };
    // Small objects last and pack by pack, so that each pack is decoded once.
    let mut packed = Vec::new();
    for (at, name) in keys.iter().enumerate() {
        let resolution = resolver.resolve(name, &mut rescue.reader).await;
        match resolution.versions.first().and_then(Version::pack) {
            Some(pack) => packed.push((pack, at)),
            None => rescue.key(name, resolution).await?,
        }
        done = Progress { keys: at as u64 + 1 - packed.len() as u64, bytes: rescue.written, ..done };
        progress(done);
    }
    packed.sort_unstable();
    for (_, at) in packed {
        let resolution = resolver.resolve(&keys[at], &mut rescue.reader).await;
        rescue.key(&keys[at], resolution).await?;
        done = Progress { keys: done.keys + 1, bytes: rescue.written, ..done };
        progress(done);
    }
    Ok(rescue.summary)
}

/// The newest view of the index that leaves no gap to the journal's first record.
fn best_view(stores: &[StoreHandle], copies: &JournalCopies) -> Option<RestingView> {
    let journal = copies.findings.iter().find(|findings| findings.partition == PARTITION.0);
    if journal.is_some_and(|findings| findings.absent > 0) {
        return None;
    }
    let first = journal.map_or(0, |findings| findings.first);
    let views = index::mirrors(stores).into_iter().filter_map(|store| {
        let view = RestingView::open(&store, PARTITION, VIEW_CACHE_BYTES).ok()??;
        (view.applied().next().0 >= first).then_some(view)
    });
    views.max_by_key(RestingView::applied)
}

fn begun(survey: &Survey, replay: &Replay, copies: &JournalCopies) -> SalvageSummary {
    let mut trouble = survey.failed.clone();
    trouble.extend(survey.broken_packs.iter().chain(&replay.broken).take(NOTES_MAX).cloned());
    SalvageSummary {
        stripes: survey.stripes,
        undescribed_stripes: survey.undescribed,
        journal_commands: replay.commands,
        journal_gaps: copies.findings.iter().map(|findings| findings.absent).sum(),
        trouble,
        ..SalvageSummary::default()
    }
}

impl<S: Sink> Rescue<'_, S> {
    async fn key(&mut self, name: &Name, resolution: Resolution) -> Result<(), SalvageError> {
        let Resolution { versions, uncertain, deleted } = resolution;
        if deleted {
            self.note(name, State::Deleted, None, 0, "journal", 0, vec!["deleted, as the journal says".into()])?;
        }
        self.newest_whole(name, versions).await?;
        for version in uncertain {
            let state = if version.looks_whole() { State::Uncertain } else { State::Incomplete };
            self.keep_aside(name, version, state).await?;
        }
        Ok(())
    }

    /// Writes the newest whole version to the key's place; a newer one that is not whole, aside.
    async fn newest_whole(&mut self, name: &Name, versions: Vec<Version>) -> Result<(), SalvageError> {
        let path = self.names.path(Room::Objects, &name.0, &name.1, None);
        let mut broken: Option<Version> = None;
        let mut versions = versions.into_iter();
        let whole = loop {
            let Some(version) = versions.next() else { break None };
            if version.looks_whole() {
                self.sink.begin(&path)?;
                if let Written::Whole(size) = self.pieces(&version, true).await? {
                    self.sink.finish()?;
                    break Some((version, size));
                }
                self.sink.discard()?;
            }
            // A pack may hold the very bytes that the journal has lost.
            broken.get_or_insert(version);
        };
        if let Some((version, size)) = &whole {
            let lost = broken.take_if(|broken| broken.modified_ms != version.modified_ms);
            let state = if lost.is_some() { State::Older } else { State::Whole };
            let notes = if lost.is_some() { vec!["a newer version is not whole".into()] } else { Vec::new() };
            self.note(name, state, Some(&path), *size, version.source, version.modified_ms, notes)?;
            broken = lost;
        }
        match broken {
            Some(version) => self.keep_aside(name, version, State::Incomplete).await,
            None => Ok(()),
        }
    }

    /// Writes a version that is not the key's, as far as it can be read.
    async fn keep_aside(&mut self, name: &Name, version: Version, state: State) -> Result<(), SalvageError> {
        let room = |state| if state == State::Uncertain { Room::Uncertain } else { Room::Incomplete };
        let mut state = state;
        let mut path = self.names.path(room(state), &name.0, &name.1, Some(version.number));
        self.sink.begin(&path)?;
        let mut written = self.pieces(&version, state == State::Uncertain).await?;
        if state == State::Uncertain && matches!(written, Written::Holes(..)) {
            self.sink.discard()?;
            state = State::Incomplete;
            path = self.names.path(room(state), &name.0, &name.1, Some(version.number));
            self.sink.begin(&path)?;
            written = self.pieces(&version, false).await?;
        }
        self.sink.finish()?;
        let mut notes = version.notes.clone();
        let size = match written {
            Written::Whole(size) => size,
            Written::Holes(size, missing) => {
                notes.extend(missing);
                size
            }
        };
        self.note(name, state, Some(&path), size, version.source, version.modified_ms, notes)
    }

    /// Writes a version's bytes to the file begun; with `whole_only`, stops at the first that cannot be had.
    async fn pieces(&mut self, version: &Version, whole_only: bool) -> Result<Written, SalvageError> {
        let (mut size, mut missing) = (0u64, Vec::new());
        for piece in &version.pieces {
            let lost = match piece {
                Piece::Stripe { stripe, range } => match self.reader.read(stripe).await {
                    Ok(bytes) => match bytes.get(range.clone()) {
                        Some(bytes) => {
                            self.sink.write(bytes)?;
                            size += bytes.len() as u64;
                            self.written += bytes.len() as u64;
                            continue;
                        }
                        None => (Some(range.len() as u64), "the pack is shorter than its directory says".to_owned()),
                    },
                    Err(why) => (Some(range.len() as u64), why),
                },
                Piece::Journal { at, range } => match read_record(self.reader.stores(), at, range.clone()).await {
                    Ok(bytes) => {
                        self.sink.write(&bytes)?;
                        size += bytes.len() as u64;
                        self.written += bytes.len() as u64;
                        continue;
                    }
                    Err(why) => (Some(range.len() as u64), why),
                },
                Piece::Hole { bytes, what } => (*bytes, what.clone()),
            };
            let (bytes, why) = lost;
            let bytes = bytes.filter(|bytes| size.saturating_add(*bytes) <= HOLE_MAX_BYTES);
            let text = bytes
                .map_or_else(|| format!("from byte {size}: {why}"), |n| format!("bytes {size}..{}: {why}", size + n));
            if missing.len() < NOTES_MAX {
                missing.push(text);
            }
            if whole_only {
                return Ok(Written::Holes(size, missing));
            }
            if let Some(bytes) = bytes {
                self.sink.skip(bytes)?;
                size += bytes;
            }
        }
        Ok(if missing.is_empty() { Written::Whole(size) } else { Written::Holes(size, missing) })
    }

    #[allow(clippy::too_many_arguments)] // One line of the manifest.
    fn note(
        &mut self,
        name: &Name,
        state: State,
        path: Option<&SafePath>,
        size: u64,
        source: &'static str,
        modified_ms: u64,
        notes: Vec<String>,
    ) -> Result<(), SalvageError> {
        self.summary.count(state, size);
        let entry = ManifestEntry {
            bucket: name.0.clone(),
            key: name.1.clone(),
            state,
            path: path.map(ToString::to_string),
            size,
            source,
            modified_ms,
            notes,
        };
        Ok(self.sink.entry(&entry)?)
    }
}
