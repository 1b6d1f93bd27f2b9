//! Which versions of a key there are, newest first, and where their bytes lie.
//!
//! The journal has the last word as far as it reaches. What it does not name was completed before its
//! first record, or never: what was begun later than that is unproven. Where a view of the index that
//! reaches up to the journal can be read, its rows tell what was completed and deleted before.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use base::StripeId;
use index::Snapshot;
use index::model::{Layout, ObjectRow, StripeRun};
use md5::{Digest, Md5};

use crate::events::{Bytes, Event, Replay};
use crate::journal::Position;
use crate::stripes::{StripeReader, StripeRef};
use crate::survey::{BodyStripe, Name, Packed, Survey};

/// Contiguous bytes of a version.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    Stripe {
        stripe: StripeRef,
        range: Range<usize>,
    },
    Journal {
        at: Position,
        range: Range<u32>,
    },
    /// Nothing tells where these are; `None` when not even how many.
    Hole {
        bytes: Option<u64>,
        what: String,
    },
}

impl Piece {
    fn whole(stripe: &StripeRef) -> Self {
        Self::Stripe { stripe: stripe.clone(), range: 0..stripe.bytes as usize }
    }
}

/// One version of a key.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    /// Tells versions of a key apart in file names.
    pub(crate) number: u128,
    pub(crate) modified_ms: u64,
    pub(crate) source: &'static str,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) notes: Vec<String>,
}

impl Version {
    /// Whether its parts are all accounted for (they may still turn out unreadable).
    pub(crate) fn looks_whole(&self) -> bool {
        self.pieces.iter().all(|piece| match piece {
            Piece::Stripe { stripe, .. } => stripe.is_readable(),
            Piece::Journal { .. } => true,
            Piece::Hole { .. } => false,
        })
    }

    fn shares_stripes(&self, other: &Self) -> bool {
        let ids = |version: &Self| -> BTreeSet<StripeId> {
            let pieces = version.pieces.iter();
            pieces
                .filter_map(|piece| match piece {
                    Piece::Stripe { stripe, .. } => Some(stripe.id),
                    Piece::Journal { .. } | Piece::Hole { .. } => None,
                })
                .collect()
        };
        !ids(self).is_disjoint(&ids(other))
    }

    /// The pack it lies in, when it lies in one.
    pub(crate) fn pack(&self) -> Option<StripeId> {
        match &self.pieces[..] {
            [Piece::Stripe { stripe, .. }] if self.source == "pack" => Some(stripe.id),
            _ => None,
        }
    }
}

/// All that is known of a key.
#[derive(Debug, Default)]
pub(crate) struct Resolution {
    /// Newest first.
    pub(crate) versions: Vec<Version>,
    /// Of these no completion is known.
    pub(crate) uncertain: Vec<Version>,
    pub(crate) deleted: bool,
}

/// Resolves keys.
pub(crate) struct Resolver<'a> {
    survey: &'a Survey,
    replay: &'a Replay,
    /// Runs that the journal names, by first stripe.
    named: Vec<StripeRun>,
    /// Uploads of each key that the journal knows.
    uploads: BTreeMap<&'a Name, Vec<u128>>,
    rows: Option<&'a Snapshot>,
    positions: &'a [Position],
}

/// What the index says of a key on which the journal is silent.
enum Row {
    Unknown,
    Absent,
    There(Version),
}

/// A key while it is looked at.
struct Key<'a> {
    name: &'a Name,
    events: &'a [Event],
    stripes: BTreeMap<StripeId, &'a StripeRef>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(
        survey: &'a Survey,
        replay: &'a Replay,
        rows: Option<&'a Snapshot>,
        positions: &'a [Position],
    ) -> Self {
        let mut uploads: BTreeMap<&Name, Vec<u128>> = BTreeMap::new();
        for (id, upload) in &replay.uploads {
            if let Some(name) = &upload.name {
                uploads.entry(name).or_default().push(*id);
            }
        }
        Self { survey, replay, named: replay.runs(), uploads, rows, positions }
    }

    /// Every key that anything speaks of.
    pub(crate) fn names(&self) -> BTreeSet<Name> {
        let events = self.replay.events.keys().chain(self.uploads.keys().copied());
        self.survey.bodies.keys().chain(self.survey.packed.keys()).chain(events).cloned().collect()
    }

    /// The versions of a key.
    pub(crate) async fn resolve(&self, name: &'a Name, reader: &mut StripeReader<'_>) -> Resolution {
        let bodies = self.survey.bodies.get(name);
        let stripes = bodies.into_iter().flat_map(BTreeMap::values).flat_map(|body| &body.stripes);
        let key = Key {
            name,
            events: self.replay.events.get(name).map_or(&[], Vec::as_slice),
            stripes: stripes.map(|s| (s.stripe.id, &s.stripe)).collect(),
        };
        let deleted_at = key.events.iter().rposition(|event| matches!(event, Event::Deleted));
        let live = &key.events[deleted_at.map_or(0, |at| at + 1)..];
        let mut resolution = Resolution { deleted: deleted_at.is_some() && live.is_empty(), ..Resolution::default() };
        let mut older = Vec::new();
        for event in live.iter().rev() {
            if let Some((version, doubtful)) = self.version_of(&key, event, reader).await {
                let twins = self.packed(name, 0).filter(|packed| packed.modified_ms == version.modified_ms);
                let twins: Vec<Version> = twins.filter_map(|packed| self.packed_version(packed)).collect();
                let list = if doubtful { &mut older } else { &mut resolution.versions };
                list.push(version);
                list.extend(twins);
            }
        }
        let row = self.row_of(&key);
        let mut outside = Vec::new();
        self.outside(&key, deleted_at.is_some(), &mut outside, &mut resolution.uncertain);
        match row {
            Row::Absent => resolution.uncertain.extend(outside.into_iter().map(|mut version| {
                version.notes.push("the index does not list it: deleted, or never completed".into());
                version
            })),
            _ => older.extend(outside),
        }
        older.sort_by_key(|version| std::cmp::Reverse((version.modified_ms, version.pack())));
        resolution.versions.extend(older);
        self.unproven_uploads(&key, deleted_at.is_some(), &mut resolution.uncertain);
        if let Row::There(version) = row {
            // The upload that the row was made of is proven by it.
            resolution.uncertain.retain(|other| !other.shares_stripes(&version));
            resolution.versions.insert(0, version);
        }
        resolution
    }

    /// What the index says, when the journal says nothing for certain.
    fn row_of(&self, key: &Key<'_>) -> Row {
        let is_certain = |event: &Event| match event {
            Event::Put { doubtful, .. } | Event::Completed { doubtful, .. } => !doubtful,
            Event::Deleted => true,
        };
        let Some(rows) = self.rows.filter(|_| !key.events.iter().any(is_certain)) else { return Row::Unknown };
        match rows.object(&key.name.0, &key.name.1) {
            Ok(Some(row)) => Row::There(self.version_of_row(key, row)),
            Ok(None) => Row::Absent,
            Err(_) => Row::Unknown,
        }
    }

    fn version_of_row(&self, key: &Key<'_>, row: ObjectRow) -> Version {
        let source = match row.layout {
            Layout::Journal { .. } => "journal",
            Layout::Stripes(_) => "stripes",
            Layout::Packed { .. } => "pack",
            Layout::Parts(_) => "multipart",
        };
        let mut pieces = Vec::new();
        self.pieces_of_layout(key, &row.layout, row.size, &mut pieces);
        let number = (u128::from(row.modified_ms) << 64) | u128::from(row.size);
        Version { number, modified_ms: row.modified_ms, source, pieces, notes: Vec::new() }
    }

    fn pieces_of_layout(&self, key: &Key<'_>, layout: &Layout, size: u64, pieces: &mut Vec<Piece>) {
        let lost = |what: String| Piece::Hole { bytes: Some(size), what };
        match layout {
            Layout::Stripes(runs) => pieces.extend(pieces_of(key, &Bytes::Stripes(runs.clone()), size)),
            Layout::Journal { lsn, offset } => {
                let at = self.positions.iter().find(|at| at.lsn == *lsn);
                let end = u32::try_from(size).ok().and_then(|size| offset.checked_add(size));
                pieces.push(match at.zip(end) {
                    Some((at, end)) => Piece::Journal { at: at.clone(), range: *offset..end },
                    None => lost(format!("journal position {} is not there", lsn.0)),
                });
            }
            Layout::Packed { stripe, offset, .. } => {
                let start = *offset as usize;
                pieces.push(match self.survey.packs.get(stripe) {
                    Some(pack) => Piece::Stripe { stripe: pack.clone(), range: start..start + size as usize },
                    None => lost(format!("pack {stripe} is not there")),
                });
            }
            Layout::Parts(parts) => {
                parts.iter().for_each(|part| self.pieces_of_layout(key, &part.layout, part.size, pieces));
            }
        }
    }

    /// What an event made, and whether that is doubtful.
    async fn version_of(&self, key: &Key<'_>, event: &Event, reader: &mut StripeReader<'_>) -> Option<(Version, bool)> {
        match event {
            Event::Put { modified_ms, size, bytes, doubtful, .. } => {
                let source = if matches!(bytes, Bytes::Journal { .. }) { "journal" } else { "stripes" };
                let pieces = pieces_of(key, bytes, *size);
                let number = (u128::from(*modified_ms) << 64) | u128::from(*size);
                let version = Version { number, modified_ms: *modified_ms, source, pieces, notes: Vec::new() };
                Some((version, *doubtful))
            }
            Event::Completed { modified_ms, upload, parts, doubtful, .. } => {
                let mut pieces = Vec::new();
                for (number, md5) in parts {
                    pieces.extend(self.part(key, *upload, *number, md5, reader).await);
                }
                let source = "multipart";
                let version = Version { number: *upload, modified_ms: *modified_ms, source, pieces, notes: Vec::new() };
                Some((version, *doubtful))
            }
            Event::Deleted => None,
        }
    }

    /// A part of a completed upload: as the journal says, or as its stripes say, or from a pack.
    async fn part(
        &self,
        key: &Key<'_>,
        upload: u128,
        number: u32,
        md5: &[u8; 16],
        reader: &mut StripeReader<'_>,
    ) -> Vec<Piece> {
        let known = self.replay.uploads.get(&upload).and_then(|upload| upload.parts.get(&number));
        if let Some(part) = known.filter(|part| part.md5 == *md5) {
            let pieces = pieces_of(key, &part.bytes, part.size);
            if !pieces.iter().any(|piece| matches!(piece, Piece::Hole { .. })) {
                return pieces;
            }
        }
        let mut best = self.part_stripes(key, upload, number);
        if best.is_empty() {
            for packed in self.packed(key.name, number) {
                let Some(pack) = self.survey.packs.get(&packed.pack) else { continue };
                let range = packed.offset as usize..packed.offset as usize + packed.len as usize;
                let bytes = reader.read(pack).await.ok().and_then(|bytes| bytes.get(range.clone()));
                if bytes.is_some_and(|bytes| <[u8; 16]>::from(Md5::digest(bytes)) == *md5) {
                    return vec![Piece::Stripe { stripe: pack.clone(), range }];
                }
            }
            best.push(Piece::Hole { bytes: known.map(|part| part.size), what: format!("part {number} is not there") });
        }
        best
    }

    /// The newest whole attempt at a part, or else the newest.
    fn part_stripes(&self, key: &Key<'_>, upload: u128, number: u32) -> Vec<Piece> {
        let body = self.survey.bodies.get(key.name).and_then(|bodies| bodies.get(&(upload, number)));
        let attempts: Vec<Vec<Piece>> =
            body.map_or_else(Vec::new, |body| body.attempts().into_iter().map(pieces_of_attempt).collect());
        let whole = attempts.iter().rev().find(|pieces| !pieces.iter().any(|p| matches!(p, Piece::Hole { .. })));
        whole.or(attempts.last()).cloned().unwrap_or_default()
    }

    /// Versions that the journal does not name.
    fn outside(&self, key: &Key<'_>, was_deleted: bool, older: &mut Vec<Version>, uncertain: &mut Vec<Version>) {
        let bodies = self.survey.bodies.get(key.name);
        for ((upload, _), body) in bodies.into_iter().flatten().filter(|((_, part), _)| *part == 0) {
            for attempt in body.attempts() {
                let first = attempt.first().expect("an attempt has a stripe").stripe.id;
                if self.is_named(first) {
                    continue;
                }
                let pieces = pieces_of_attempt(attempt);
                let (modified_ms, source) = (body.modified_ms, "stripes");
                let mut version = Version { number: *upload, modified_ms, source, pieces, notes: Vec::new() };
                if self.replay.would_know(modified_ms) {
                    version.notes.push("the journal does not say that this put was completed".into());
                    uncertain.push(version);
                } else if !was_deleted {
                    older.push(version);
                }
            }
        }
        if !was_deleted {
            older.extend(self.packed(key.name, 0).filter_map(|packed| self.packed_version(packed)));
        }
    }

    /// Uploads that were neither completed nor given up, as far as is known.
    fn unproven_uploads(&self, key: &Key<'_>, was_deleted: bool, uncertain: &mut Vec<Version>) {
        let completed =
            |id: u128| key.events.iter().any(|event| matches!(event, Event::Completed { upload, .. } if *upload == id));
        let mut uploads: BTreeMap<u128, (u64, BTreeSet<u32>)> = BTreeMap::new();
        for ((upload, part), body) in
            self.survey.bodies.get(key.name).into_iter().flatten().filter(|((_, p), _)| *p > 0)
        {
            let entry = uploads.entry(*upload).or_insert_with(|| (body.modified_ms, BTreeSet::new()));
            entry.1.insert(*part);
        }
        for id in self.uploads.get(key.name).into_iter().flatten() {
            let parts = self.replay.uploads[id].parts.keys().copied();
            uploads.entry(*id).or_default().1.extend(parts);
        }
        let packed: BTreeSet<u32> =
            self.survey.packed.get(key.name).into_iter().flatten().map(|p| p.part).filter(|part| *part > 0).collect();
        let is_multipart = key.events.iter().any(|event| matches!(event, Event::Completed { .. }));
        if uploads.is_empty() && !packed.is_empty() && !is_multipart && !was_deleted {
            uploads.insert(0, (0, BTreeSet::new()));
        }
        let alone = uploads.len() == 1;
        for (id, (started_ms, mut parts)) in uploads {
            let known = self.replay.uploads.get(&id);
            let over = known.is_some_and(|upload| upload.given_up || upload.completed) || completed(id);
            if over || (was_deleted && !self.replay.would_know(started_ms)) {
                continue;
            }
            if alone {
                parts.extend(&packed);
            }
            let pieces: Vec<Piece> = parts.iter().flat_map(|part| self.unproven_part(key, id, *part)).collect();
            if pieces.is_empty() {
                continue;
            }
            let notes = vec![
                "no completion of this upload is known".to_owned(),
                format!("parts: {}", parts.iter().map(u32::to_string).collect::<Vec<_>>().join(",")),
            ];
            uncertain.push(Version { number: id, modified_ms: started_ms, source: "multipart", pieces, notes });
        }
    }

    fn unproven_part(&self, key: &Key<'_>, upload: u128, number: u32) -> Vec<Piece> {
        if let Some(part) = self.replay.uploads.get(&upload).and_then(|upload| upload.parts.get(&number)) {
            return pieces_of(key, &part.bytes, part.size);
        }
        let stripes = self.part_stripes(key, upload, number);
        if !stripes.is_empty() {
            return stripes;
        }
        let newest = self.packed(key.name, number).max_by_key(|packed| packed.pack);
        newest.and_then(|packed| self.packed_version(packed)).map_or_else(Vec::new, |version| version.pieces)
    }

    fn packed(&self, name: &Name, part: u32) -> impl Iterator<Item = &'a Packed> {
        self.survey.packed.get(name).into_iter().flatten().filter(move |packed| packed.part == part)
    }

    fn packed_version(&self, packed: &Packed) -> Option<Version> {
        let stripe = self.survey.packs.get(&packed.pack)?.clone();
        let range = packed.offset as usize..packed.offset as usize + packed.len as usize;
        let pieces = vec![Piece::Stripe { stripe, range }];
        let number = (u128::from(packed.pack.0) << 64) | u128::from(packed.offset);
        Some(Version { number, modified_ms: packed.modified_ms, source: "pack", pieces, notes: Vec::new() })
    }

    fn is_named(&self, stripe: StripeId) -> bool {
        let after = self.named.partition_point(|run| run.first <= stripe);
        after > 0 && stripe.0 - self.named[after - 1].first.0 < u64::from(self.named[after - 1].count)
    }
}

/// Where the bytes lie that the journal speaks of.
fn pieces_of(key: &Key<'_>, bytes: &Bytes, size: u64) -> Vec<Piece> {
    let runs = match bytes {
        Bytes::Journal { at, range } => return vec![Piece::Journal { at: at.clone(), range: range.clone() }],
        Bytes::Stripes(runs) => runs,
    };
    let mut pieces = Vec::new();
    let mut described = 0u64;
    for run in runs {
        let mut left = run.bytes;
        for number in 0..u64::from(run.count) {
            let id = StripeId(run.first.0.saturating_add(number));
            let bytes = left.min(run.stripe_bytes.into());
            left -= bytes;
            described += bytes;
            match key.stripes.get(&id) {
                Some(stripe) if u64::from(stripe.bytes) == bytes => pieces.push(Piece::whole(stripe)),
                Some(_) => {
                    pieces.push(Piece::Hole { bytes: Some(bytes), what: format!("stripe {id} has another size") });
                }
                None => pieces.push(Piece::Hole { bytes: Some(bytes), what: format!("stripe {id} is not there") }),
            }
        }
    }
    if described != size {
        pieces.push(Piece::Hole { bytes: None, what: "its stripes do not make up its size".into() });
    }
    pieces
}

/// Where the bytes of an attempt lie, as its stripes say.
fn pieces_of_attempt(attempt: &[BodyStripe]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut number, mut at) = (0u32, 0u64);
    for stripe in attempt {
        if stripe.number != number || stripe.offset != at {
            let bytes = stripe.offset.checked_sub(at);
            let what = format!("stripes {number} to {} are not there", stripe.number.saturating_sub(1));
            pieces.push(Piece::Hole { bytes, what });
        }
        pieces.push(Piece::whole(&stripe.stripe));
        (number, at) = (stripe.number.saturating_add(1), stripe.offset.saturating_add(stripe.stripe.bytes.into()));
    }
    if attempt.last().is_none_or(|stripe| !stripe.last) {
        pieces.push(Piece::Hole { bytes: None, what: format!("the end, from byte {at} on, is not there") });
    }
    pieces
}
