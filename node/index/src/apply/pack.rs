//! Small objects move from the journal, or from a pack that is mostly dead, into a pack.

use base::StripeId;
use redb::ReadableTable;

use super::pack_run;
use super::store::Rows;
use crate::error::{ViewError, ViewResult};
use crate::model::{Layout, MissingShard, Outcome, PackMove};
use crate::tables::{Held, Owner, StoredPack, decode, encode, object_key};

impl Rows<'_> {
    pub(super) fn pack(
        &mut self,
        stripe: StripeId,
        group: u32,
        pack_bytes: u32,
        moves: &[PackMove],
        missing: &[MissingShard],
    ) -> ViewResult<Outcome> {
        let mut pack = StoredPack { group, pack_bytes, live_bytes: 0, live_count: 0 };
        let mut runs = Vec::new();
        let known = self.packs.get(stripe.0)?.is_some();
        let stale = stripe.0 < self.counters.stripes_fence;
        for m in moves {
            let inside = m.offset.checked_add(m.size).is_some_and(|end| end <= pack_bytes);
            // A second command for one stripe, a stripe below the fence, or a place outside the pack, moves nothing.
            if known || stale || !inside {
                continue;
            }
            let Some(held) = self.holder(&m.from)? else { continue };
            if held.size != m.size || self.pack_members.get((stripe.0, m.offset))?.is_some() {
                continue;
            }
            let to = Layout::Packed { stripe, group, pack_bytes, offset: m.offset };
            self.relocate(&held.owner, &m.from, to)?;
            self.release(&m.from, &mut runs)?;
            self.pack_members.insert((stripe.0, m.offset), encode(&held).as_slice())?;
            pack.live_bytes += u64::from(held.size);
            pack.live_count += 1;
        }
        if pack.live_count > 0 {
            self.packs.insert(stripe.0, encode(&pack).as_slice())?;
            self.owe(missing)?;
        } else if !known {
            runs.push(pack_run(stripe, group, pack_bytes));
        }
        self.discard(&runs)?;
        Ok(Outcome::Packed { moved: pack.live_count })
    }

    /// Whose bytes lie at `place` now.
    fn holder(&self, place: &Layout) -> ViewResult<Option<Held>> {
        let row = match place {
            Layout::Journal { lsn, offset } => self.unpacked.get((lsn.0, *offset))?,
            Layout::Packed { stripe, group, pack_bytes, offset } => {
                let pack =
                    self.packs.get(stripe.0)?.map(|row| decode::<StoredPack>("packs", row.value())).transpose()?;
                let same = pack.is_some_and(|p| p.group == *group && p.pack_bytes == *pack_bytes);
                if same { self.pack_members.get((stripe.0, *offset))? } else { None }
            }
            Layout::Stripes(_) | Layout::Parts(_) => None,
        };
        row.map(|row| decode("unpacked", row.value())).transpose()
    }

    /// Writes the new place into the owner's row.
    fn relocate(&mut self, owner: &Owner, from: &Layout, to: Layout) -> ViewResult<()> {
        const LOST: ViewError = ViewError::Disagreement("a holder of bytes does not say where they are");
        let swap = |layout: &mut Layout| {
            let was = *layout == *from;
            *layout = to.clone();
            if was { Ok(()) } else { Err(LOST) }
        };
        match owner {
            Owner::Upload { upload, number } => {
                let mut row = self.part(*upload, *number)?.ok_or(LOST)?;
                swap(&mut row.layout)?;
                self.parts.insert((*upload, *number), encode(&row).as_slice())?;
            }
            Owner::Object { bucket, key, part } => {
                let name = object_key(bucket, key);
                let (stored, mut layout) = self.object(&name)?.ok_or(LOST)?;
                match (part, &mut layout) {
                    (None, layout) => swap(layout)?,
                    (Some(number), Layout::Parts(parts)) => {
                        let at = parts.binary_search_by_key(number, |p| p.number).map_err(|_| LOST)?;
                        swap(&mut parts[at].layout)?;
                    }
                    (Some(_), _) => return Err(LOST),
                }
                self.write_object(&name, stored, layout)?;
            }
        }
        Ok(())
    }
}
