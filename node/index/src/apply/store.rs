//! The tables inside one write transaction, and the bookkeeping shared by all commands: who holds which
//! bytes, and what becomes of stripes that nobody holds any more.

use base::{Lsn, StripeId};
use redb::{ReadableTable, Table, WriteTransaction};

use super::pack_run;
use crate::error::{ViewError, ViewResult};
use crate::model::{Layout, MissingShard, Outcome, Refusal, StripeRun};
use crate::tables::{
    BUCKETS, COMPLETED, COMPLETED_ORDER, GARBAGE, Held, INLINE_LAYOUT_BYTES, LAYOUTS, META, MISSING, OBJECTS, Owner,
    PACK_MEMBERS, PACKS, PARTS, SCHEMA_VERSION, StoredObject, StoredPack, UNPACKED, UPLOADS, UPLOADS_BY_KEY, decode,
    encode, meta,
};

/// Stripe runs in one garbage row at most: a row is freed whole, and by one command.
const RUNS_PER_GARBAGE_ROW: usize = 1000;

/// Numbers that commands count on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) applied: u64,
    pub(crate) garbage_next: u64,
    pub(crate) completed_next: u64,
    pub(crate) stripes_below: u64,
    pub(crate) stripes_fence: u64,
    pub(crate) objects: u64,
    pub(crate) object_bytes: u64,
}

/// The tables, open for writing.
pub(crate) struct Rows<'t> {
    meta: Table<'t, &'static str, u64>,
    pub(super) buckets: Table<'t, &'static str, &'static [u8]>,
    pub(super) objects: Table<'t, &'static [u8], &'static [u8]>,
    pub(super) layouts: Table<'t, &'static [u8], &'static [u8]>,
    pub(super) uploads: Table<'t, u128, &'static [u8]>,
    pub(super) uploads_by_key: Table<'t, (&'static [u8], u128), ()>,
    pub(super) parts: Table<'t, (u128, u32), &'static [u8]>,
    pub(super) completed: Table<'t, u128, &'static [u8]>,
    pub(super) completed_order: Table<'t, u64, u128>,
    garbage: Table<'t, u64, &'static [u8]>,
    missing: Table<'t, (u64, u8), (u32, u32)>,
    pub(super) unpacked: Table<'t, (u64, u32), &'static [u8]>,
    pub(super) packs: Table<'t, u64, &'static [u8]>,
    pub(super) pack_members: Table<'t, (u64, u32), &'static [u8]>,
    pub(super) counters: Tally,
}

/// Makes all tables, in a view that has none.
pub(crate) fn create_tables(txn: &WriteTransaction) -> ViewResult<()> {
    txn.open_table(META)?.insert(meta::SCHEMA, SCHEMA_VERSION)?;
    Rows::open(txn)?.finish(Lsn(0))
}

impl<'t> Rows<'t> {
    pub(crate) fn open(txn: &'t WriteTransaction) -> ViewResult<Self> {
        let table = txn.open_table(META)?;
        let number = |name: &str| -> ViewResult<u64> { Ok(table.get(name)?.map_or(0, |v| v.value())) };
        let counters = Tally {
            applied: number(meta::APPLIED)?,
            garbage_next: number(meta::GARBAGE_NEXT)?,
            completed_next: number(meta::COMPLETED_NEXT)?,
            stripes_below: number(meta::STRIPES_BELOW)?,
            stripes_fence: number(meta::STRIPES_FENCE)?,
            objects: number(meta::OBJECTS)?,
            object_bytes: number(meta::OBJECT_BYTES)?,
        };
        Ok(Self {
            meta: table,
            buckets: txn.open_table(BUCKETS)?,
            objects: txn.open_table(OBJECTS)?,
            layouts: txn.open_table(LAYOUTS)?,
            uploads: txn.open_table(UPLOADS)?,
            uploads_by_key: txn.open_table(UPLOADS_BY_KEY)?,
            parts: txn.open_table(PARTS)?,
            completed: txn.open_table(COMPLETED)?,
            completed_order: txn.open_table(COMPLETED_ORDER)?,
            garbage: txn.open_table(GARBAGE)?,
            missing: txn.open_table(MISSING)?,
            unpacked: txn.open_table(UNPACKED)?,
            packs: txn.open_table(PACKS)?,
            pack_members: txn.open_table(PACK_MEMBERS)?,
            counters,
        })
    }

    pub(crate) fn finish(mut self, lsn: Lsn) -> ViewResult<()> {
        assert!(lsn.0 == 0 || lsn.0 == self.counters.applied + 1, "batches are applied in order");
        self.counters.applied = lsn.0;
        let Tally { applied, garbage_next, completed_next, stripes_below, stripes_fence, objects, object_bytes } =
            self.counters;
        for (name, value) in [
            (meta::APPLIED, applied),
            (meta::GARBAGE_NEXT, garbage_next),
            (meta::COMPLETED_NEXT, completed_next),
            (meta::STRIPES_BELOW, stripes_below),
            (meta::STRIPES_FENCE, stripes_fence),
            (meta::OBJECTS, objects),
            (meta::OBJECT_BYTES, object_bytes),
        ] {
            self.meta.insert(name, value)?;
        }
        Ok(())
    }

    pub(super) fn has_bucket(&self, name: &str) -> ViewResult<bool> {
        Ok(self.buckets.get(name)?.is_some())
    }

    /// An object's row and whole layout.
    pub(super) fn object(&self, key: &[u8]) -> ViewResult<Option<(StoredObject, Layout)>> {
        let Some(bytes) = self.objects.get(key)? else { return Ok(None) };
        let mut stored: StoredObject = decode("objects", bytes.value())?;
        let layout = match stored.layout.take() {
            Some(layout) => layout,
            None => {
                let bytes = self.layouts.get(key)?.ok_or(ViewError::Disagreement("an object has no layout"))?;
                decode("layouts", bytes.value())?
            }
        };
        Ok(Some((stored, layout)))
    }

    /// Writes an object's row over the one that is there, without any bookkeeping.
    pub(super) fn write_object(&mut self, key: &[u8], mut stored: StoredObject, layout: Layout) -> ViewResult<()> {
        let encoded = encode(&layout);
        if encoded.len() > INLINE_LAYOUT_BYTES {
            stored.layout = None;
            self.layouts.insert(key, encoded.as_slice())?;
        } else {
            stored.layout = Some(layout);
            self.layouts.remove(key)?;
        }
        self.objects.insert(key, encode(&stored).as_slice())?;
        Ok(())
    }

    /// Notes whose bytes lie in the journal. Bytes in stripes are held by their row alone.
    pub(super) fn hold(&mut self, layout: &Layout, size: u64, owner: Owner) -> ViewResult<()> {
        match layout {
            Layout::Journal { lsn, offset } => {
                let size =
                    u32::try_from(size).map_err(|_| ViewError::Disagreement("a journal holds 4 GiB in one row"))?;
                let held = encode(&Held { owner, size });
                let old = self.unpacked.insert((lsn.0, *offset), held.as_slice())?;
                if old.is_some() {
                    Err(ViewError::Disagreement("two rows claim one place in the journal"))
                } else {
                    Ok(())
                }
            }
            Layout::Stripes(_) => Ok(()),
            Layout::Packed { .. } | Layout::Parts(_) => {
                Err(ViewError::Disagreement("packed bytes and parts are held by other means"))
            }
        }
    }

    /// The same bytes belong to another row from now on.
    pub(super) fn change_owner(&mut self, layout: &Layout, owner: Owner) -> ViewResult<()> {
        const LOST: ViewError = ViewError::Disagreement("nobody is known to hold some bytes");
        match layout {
            Layout::Journal { lsn, offset } => {
                let place = (lsn.0, *offset);
                let mut held: Held = decode("unpacked", self.unpacked.get(place)?.ok_or(LOST)?.value())?;
                held.owner = owner;
                self.unpacked.insert(place, encode(&held).as_slice())?;
            }
            Layout::Packed { stripe, offset, .. } => {
                let place = (stripe.0, *offset);
                let mut held: Held = decode("pack members", self.pack_members.get(place)?.ok_or(LOST)?.value())?;
                held.owner = owner;
                self.pack_members.insert(place, encode(&held).as_slice())?;
            }
            Layout::Stripes(_) => {}
            Layout::Parts(_) => return Err(ViewError::Disagreement("parts of parts")),
        }
        Ok(())
    }

    /// Nobody needs the bytes of `layout` any more; stripes that are free now go to `runs`.
    pub(super) fn release(&mut self, layout: &Layout, runs: &mut Vec<StripeRun>) -> ViewResult<()> {
        match layout {
            Layout::Journal { lsn, offset } => {
                let was = self.unpacked.remove((lsn.0, *offset))?.is_some();
                if was { Ok(()) } else { Err(ViewError::Disagreement("nobody is known to hold bytes in the journal")) }
            }
            Layout::Stripes(stripes) => {
                runs.extend_from_slice(stripes);
                Ok(())
            }
            Layout::Packed { stripe, offset, .. } => self.release_packed(stripe.0, *offset, runs),
            Layout::Parts(parts) => parts.iter().try_for_each(|part| self.release(&part.layout, runs)),
        }
    }

    fn release_packed(&mut self, stripe: u64, offset: u32, runs: &mut Vec<StripeRun>) -> ViewResult<()> {
        const LOST: ViewError = ViewError::Disagreement("nobody is known to hold bytes in a pack");
        let held: Held = decode("pack members", self.pack_members.remove((stripe, offset))?.ok_or(LOST)?.value())?;
        let mut pack: StoredPack = decode("packs", self.packs.get(stripe)?.ok_or(LOST)?.value())?;
        pack.live_count = pack.live_count.checked_sub(1).ok_or(LOST)?;
        pack.live_bytes = pack.live_bytes.checked_sub(u64::from(held.size)).ok_or(LOST)?;
        if pack.live_count == 0 {
            assert_eq!(pack.live_bytes, 0, "a pack without members has no live bytes");
            self.packs.remove(stripe)?;
            runs.push(pack_run(StripeId(stripe), pack.group, pack.pack_bytes));
        } else {
            self.packs.insert(stripe, encode(&pack).as_slice())?;
        }
        Ok(())
    }

    /// Queues stripes to be freed. What repair owed them it owes no more.
    pub(super) fn discard(&mut self, runs: &[StripeRun]) -> ViewResult<()> {
        for run in runs {
            let last = run.first.0.saturating_add(u64::from(run.count.saturating_sub(1)));
            let owed: Vec<(u64, u8)> = self
                .missing
                .range((run.first.0, 0)..=(last, u8::MAX))?
                .map(|row| Ok(row?.0.value()))
                .collect::<ViewResult<_>>()?;
            for shard in owed {
                self.missing.remove(shard)?;
            }
        }
        for some in runs.chunks(RUNS_PER_GARBAGE_ROW) {
            self.garbage.insert(self.counters.garbage_next, encode(&some).as_slice())?;
            self.counters.garbage_next += 1;
        }
        Ok(())
    }

    /// Refuses a command that brought `layout`: its stripes are garbage; data in the journal just lies there.
    pub(super) fn refuse(&mut self, layout: &Layout, refusal: Refusal) -> ViewResult<Outcome> {
        if let Layout::Stripes(runs) = layout {
            self.discard(runs)?;
        }
        Ok(Outcome::Refused(refusal))
    }

    /// Whether new data lies in stripes that the sweep of orphans may have freed already.
    pub(super) fn is_stale(&self, layout: &Layout) -> bool {
        matches!(layout, Layout::Stripes(runs) if runs.iter().any(|run| run.first.0 < self.counters.stripes_fence))
    }

    pub(super) fn take_stripes(&mut self, count: u64) -> Outcome {
        let first = self.counters.stripes_below;
        match first.checked_add(count) {
            Some(below) => {
                self.counters.stripes_below = below;
                Outcome::Stripes { first: StripeId(first) }
            }
            None => Outcome::Refused(Refusal::TooLarge),
        }
    }

    /// The fence never goes back, and never beyond what was given out.
    pub(super) fn fence_stripes(&mut self, below: u64) -> Outcome {
        let Tally { stripes_fence, stripes_below, .. } = self.counters;
        self.counters.stripes_fence = stripes_fence.max(below.min(stripes_below));
        Outcome::Done
    }

    pub(super) fn owe(&mut self, shards: &[MissingShard]) -> ViewResult<()> {
        for shard in shards {
            self.missing.insert((shard.stripe.0, shard.slot), (shard.group, shard.stripe_bytes))?;
        }
        Ok(())
    }

    pub(super) fn shards_repaired(&mut self, shards: &[MissingShard]) -> ViewResult<Outcome> {
        for shard in shards {
            self.missing.remove((shard.stripe.0, shard.slot))?;
        }
        Ok(Outcome::Done)
    }

    pub(super) fn garbage_freed(&mut self, ids: &[u64]) -> ViewResult<Outcome> {
        for id in ids {
            self.garbage.remove(id)?;
        }
        Ok(Outcome::Done)
    }
}
