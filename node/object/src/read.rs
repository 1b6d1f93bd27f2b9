//! Reading: the shards that hold the bytes, or any k others when some of those cannot be read.

use std::ops::Range;
use std::sync::Arc;

use base::StripeId;
use bytes::Bytes;
use format::ShardKey;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::{self, BoxStream};
use index::model::{Layout, StripeRun};
use shards::{StoreError, StoreResult};

use crate::api::{ObjectError, ObjectResult, Reader};
use crate::inner::{Inner, ReadGuard, count, index_error};

/// Stripes that are read ahead of the one being given out.
const STRIPES_AHEAD: usize = 2;

/// Bytes of one stripe.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    stripe: StripeId,
    group: u32,
    /// Data bytes in the stripe.
    stripe_bytes: usize,
    /// Which of them.
    range: Range<usize>,
}

/// One contiguous place of an object's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Stripe(Piece),
    Journal { lsn: base::Lsn, range: Range<u32> },
}

/// Where bytes `range` of something of `size` bytes lie, in order.
fn places(layout: &Layout, size: u64, range: Range<u64>) -> Vec<Place> {
    let mut out = Vec::new();
    match layout {
        Layout::Journal { lsn, offset } => {
            let at = |byte: u64| offset + byte as u32;
            out.push(Place::Journal { lsn: *lsn, range: at(range.start)..at(range.end) });
        }
        Layout::Packed { stripe, group, pack_bytes, offset } => {
            let start = *offset as usize + range.start as usize;
            let end = *offset as usize + range.end as usize;
            out.push(Place::Stripe(Piece {
                stripe: *stripe,
                group: *group,
                stripe_bytes: *pack_bytes as usize,
                range: start..end,
            }));
        }
        Layout::Stripes(runs) => {
            let mut start = 0;
            for run in runs {
                pieces(run, start, &range, &mut out);
                start += run.bytes;
            }
        }
        Layout::Parts(parts) => {
            let mut start = 0;
            for part in parts {
                let end = start + part.size;
                let (from, to) = (range.start.max(start), range.end.min(end));
                if from < to {
                    out.extend(places(&part.layout, part.size, from - start..to - start));
                }
                start = end;
            }
            debug_assert_eq!(start, size);
        }
    }
    out
}

fn pieces(run: &StripeRun, run_start: u64, range: &Range<u64>, out: &mut Vec<Place>) {
    let full = u64::from(run.stripe_bytes);
    let (from, to) = (range.start.max(run_start), range.end.min(run_start + run.bytes));
    if from >= to || full == 0 {
        return;
    }
    for number in (from - run_start) / full..=(to - 1 - run_start) / full {
        let start = run_start + number * full;
        let stripe_bytes = full.min(run_start + run.bytes - start);
        out.push(Place::Stripe(Piece {
            stripe: StripeId(run.first.0 + number),
            group: run.group,
            stripe_bytes: stripe_bytes as usize,
            range: (from.max(start) - start) as usize..(to.min(start + stripe_bytes) - start) as usize,
        }));
    }
}

/// Reads one object as it was when it was opened.
pub struct ObjectReader {
    pub(crate) inner: Arc<Inner>,
    pub(crate) guard: ReadGuard,
    pub(crate) layout: Layout,
    pub(crate) size: u64,
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) modified_ms: u64,
}

impl Reader for ObjectReader {
    fn read(self, range: Range<u64>) -> BoxStream<'static, ObjectResult<Bytes>> {
        assert!(range.start <= range.end && range.end <= self.size, "{range:?} lies outside {} bytes", self.size);
        if range.is_empty() {
            return stream::empty().boxed();
        }
        let places = places(&self.layout, self.size, range.clone());
        if let [Place::Journal { .. }] = places[..] {
            return stream::once(self.read_small(range)).boxed();
        }
        let reader = Arc::new(self);
        stream::iter(places)
            .map(move |place| {
                let reader = Arc::clone(&reader);
                async move { reader.read_place(place).await }
            })
            .buffered(STRIPES_AHEAD)
            .flat_map(|bytes| match bytes {
                Ok(bytes) => stream::iter(bytes.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(error) => stream::iter(vec![Err(error)]),
            })
            .boxed()
    }
}

impl ObjectReader {
    /// A small object may move from the journal into a pack between the look-up and the read.
    async fn read_small(mut self, range: Range<u64>) -> ObjectResult<Bytes> {
        loop {
            let place = places(&self.layout, self.size, range.clone()).pop().expect("the range is not empty");
            let error = match self.read_place(place).await {
                Ok(mut bytes) if bytes.len() == 1 => return Ok(bytes.pop().expect("one piece")),
                Ok(bytes) => return Ok(bytes.concat().into()),
                Err(error) => error,
            };
            let row = self.inner.partition.read(|rows| rows.object(&self.bucket, &self.key));
            match row.map_err(|error| index_error(&error))? {
                Some(row)
                    if row.modified_ms == self.modified_ms && row.size == self.size && row.layout != self.layout =>
                {
                    self.layout = row.layout;
                }
                _ => return Err(error),
            }
        }
    }

    async fn read_place(&self, place: Place) -> ObjectResult<Vec<Bytes>> {
        let _held = &self.guard;
        match place {
            Place::Stripe(piece) => read_piece(&self.inner, &piece).await,
            Place::Journal { lsn, range } => {
                let bytes = self.inner.partition.read_data(lsn, range).await;
                bytes.map(|bytes| vec![bytes]).map_err(|error| index_error(&error))
            }
        }
    }
}

/// Bytes of a whole stripe or pack member, for the packer.
pub(crate) async fn read_layout(inner: &Arc<Inner>, layout: &Layout, size: u64) -> ObjectResult<Bytes> {
    let mut out = Vec::new();
    for place in places(layout, size, 0..size) {
        match place {
            Place::Stripe(piece) => out.extend(read_piece(inner, &piece).await?),
            Place::Journal { lsn, range } => {
                out.push(inner.partition.read_data(lsn, range).await.map_err(|error| index_error(&error))?);
            }
        }
    }
    if out.len() == 1 { Ok(out.remove(0)) } else { Ok(out.concat().into()) }
}

async fn read_shard(inner: &Inner, piece: &Piece, slot: usize, range: &Range<usize>) -> StoreResult<Bytes> {
    let store = inner.store(piece.group, slot).ok_or(StoreError::Closed)?;
    let bytes = store.get(ShardKey::stripe(piece.stripe, slot as u8), range.start as u32..range.end as u32).await?;
    // The shard's length follows from the stripe's: a shorter one is not this shard.
    if bytes.len() == range.len() {
        Ok(bytes)
    } else {
        Err(StoreError::Corrupt { offset: 0, what: "a shard is shorter than its stripe says" })
    }
}

async fn read_piece(inner: &Arc<Inner>, piece: &Piece) -> ObjectResult<Vec<Bytes>> {
    let shard_len = inner.code.shard_len(piece.stripe_bytes);
    let slots = piece.range.start / shard_len..piece.range.end.div_ceil(shard_len);
    let wanted: Vec<(usize, Range<usize>)> = slots
        .map(|slot| {
            let base = slot * shard_len;
            (slot, piece.range.start.max(base) - base..piece.range.end.min(base + shard_len) - base)
        })
        .collect();
    let read = join_all(wanted.iter().map(|(slot, range)| read_shard(inner, piece, *slot, range))).await;
    if read.iter().all(Result::is_ok) {
        return Ok(read.into_iter().flatten().collect());
    }
    for ((slot, _), error) in wanted.iter().zip(&read).filter_map(|(w, r)| Some((w, r.as_ref().err()?))) {
        count(&inner.stats.shards_unreadable);
        tracing::debug!(stripe = %piece.stripe, slot, %error, "a shard cannot be read; computing it from others");
    }
    rebuild(inner, piece, &wanted, read).await
}

/// Computes the pieces that could not be read from the same bytes of k other shards.
async fn rebuild(
    inner: &Arc<Inner>,
    piece: &Piece,
    wanted: &[(usize, Range<usize>)],
    read: Vec<StoreResult<Bytes>>,
) -> ObjectResult<Vec<Bytes>> {
    let lost: Vec<usize> = wanted.iter().zip(&read).filter(|(_, r)| r.is_err()).map(|((slot, _), _)| *slot).collect();
    let spans = wanted.iter().filter(|(slot, _)| lost.contains(slot)).map(|(_, range)| range.clone());
    let span = spans.reduce(|all, range| all.start.min(range.start)..all.end.max(range.end));
    let span = span.expect("something could not be read");
    let mut candidates = (0..inner.code.total()).filter(|slot| !lost.contains(slot));
    let mut have: Vec<(usize, Bytes)> = Vec::new();
    let mut last_error = None;
    while have.len() < inner.code.k() {
        let next: Vec<usize> = candidates.by_ref().take(inner.code.k() - have.len()).collect();
        if next.is_empty() {
            let error = last_error.map_or_else(String::new, |error: StoreError| format!("; the last: {error}"));
            tracing::error!(stripe = %piece.stripe, have = have.len(), "a stripe cannot be read");
            return Err(ObjectError::Unavailable(format!(
                "{} of the {} shards needed of stripe {} can be read{error}",
                have.len(),
                inner.code.k(),
                piece.stripe
            )));
        }
        let got = join_all(next.iter().map(|slot| read_shard(inner, piece, *slot, &span))).await;
        for (slot, bytes) in next.into_iter().zip(got) {
            match bytes {
                Ok(bytes) => have.push((slot, bytes)),
                Err(error) => last_error = Some(error),
            }
        }
    }
    count(&inner.stats.reads_degraded);
    let mut built: Vec<Vec<u8>> = lost.iter().map(|_| vec![0; span.len()]).collect();
    let present: Vec<(usize, &[u8])> = have.iter().map(|(slot, bytes)| (*slot, &bytes[..])).collect();
    let mut want: Vec<(usize, &mut [u8])> = lost.iter().copied().zip(built.iter_mut().map(Vec::as_mut_slice)).collect();
    inner.code.reconstruct(&present, &mut want).map_err(|error| ObjectError::Internal(error.to_string()))?;
    let built: Vec<Bytes> = built.into_iter().map(Bytes::from).collect();
    Ok(wanted
        .iter()
        .zip(read)
        .map(|((slot, range), bytes)| match (bytes, lost.iter().position(|l| l == slot)) {
            (Ok(bytes), _) => bytes,
            (Err(_), Some(at)) => built[at].slice(range.start - span.start..range.end - span.start),
            (Err(_), None) => unreachable!("what could not be read is in the list of the lost"),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u64, bytes: u64) -> StripeRun {
        let count = bytes.div_ceil(100) as u32;
        StripeRun { first: StripeId(first), count, group: 0, stripe_bytes: 100, bytes }
    }

    #[test]
    fn ranges_are_cut_at_stripes_and_runs() {
        let layout = Layout::Stripes(vec![run(10, 200), run(50, 130)]);
        let piece = |stripe, stripe_bytes, range| {
            Place::Stripe(Piece { stripe: StripeId(stripe), group: 0, stripe_bytes, range })
        };
        assert_eq!(
            places(&layout, 330, 0..330),
            [piece(10, 100, 0..100), piece(11, 100, 0..100), piece(50, 100, 0..100), piece(51, 30, 0..30),]
        );
        assert_eq!(places(&layout, 330, 150..210), [piece(11, 100, 50..100), piece(50, 100, 0..10)]);
        assert_eq!(places(&layout, 330, 329..330), [piece(51, 30, 29..30)]);
    }

    #[test]
    fn parts_are_read_in_order() {
        let part = |number, first, size| index::model::PartLayout {
            number,
            size,
            layout: Layout::Stripes(vec![run(first, size)]),
            checksum: None,
        };
        let layout = Layout::Parts(vec![part(1, 10, 150), part(7, 20, 60)]);
        let got = places(&layout, 210, 140..160);
        let piece = |stripe, stripe_bytes, range| {
            Place::Stripe(Piece { stripe: StripeId(stripe), group: 0, stripe_bytes, range })
        };
        assert_eq!(got, [piece(11, 50, 40..50), piece(20, 60, 0..10)]);
    }
}
