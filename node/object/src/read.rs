//! Reading: where an object's bytes lie, and giving them out in order (`gather.rs` reads each stripe).

use std::ops::Range;
use std::sync::Arc;

use base::StripeId;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use index::model::{Layout, StripeRun};

use crate::api::{ObjectResult, Reader};
use crate::gather::{Piece, read_piece};
use crate::inner::{Inner, ReadGuard, index_error};

/// Stripes that are read ahead of the one being given out.
const STRIPES_AHEAD: usize = 2;

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
            let found = self.inner.partition.object(&self.bucket, &self.key).await;
            match found.map_err(|error| index_error(&error))?.1 {
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
