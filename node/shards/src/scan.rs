//! The auditor's reads: every live record, extent by extent in the order of the medium, each read whole and
//! verified. What a walk does not meet because of damage is looked up in the index and read alone.

use std::collections::BTreeSet;
use std::rc::Rc;

use disk::BlockDevice;
use format::{ShardKey, UNIT_BYTES};

use crate::core::Core;
use crate::extent::Location;
use crate::fault::FaultKind;
use crate::handle::{ScanPosition, VerifyReport};
use crate::walk::Walk;
use crate::{StoreError, StoreResult};

/// Reads under way while an extent is walked: as many as keep a device streaming.
const READS_AHEAD: usize = 6;

impl<D: BlockDevice> Core<D> {
    /// Verifies live records from a position on until about `budget_bytes` of them have been read.
    pub(crate) async fn verify(
        self: &Rc<Self>,
        from: Option<ScanPosition>,
        budget_bytes: u64,
    ) -> StoreResult<VerifyReport> {
        let mut report = VerifyReport::default();
        let mut at = from.unwrap_or(ScanPosition { extent: 0, offset_units: 0, met_units: 0 });
        let extents = self.state.borrow().extents.len() as u32;
        while at.extent < extents {
            if report.verified_bytes >= budget_bytes {
                report.next = Some(at);
                return Ok(report);
            }
            if self.verify_extent(&mut at, budget_bytes, &mut report).await {
                at = ScanPosition { extent: at.extent + 1, offset_units: 0, met_units: 0 };
            }
        }
        Ok(report)
    }

    /// Walks on in one extent; whether its end was reached.
    async fn verify_extent(
        self: &Rc<Self>,
        at: &mut ScanPosition,
        budget_bytes: u64,
        report: &mut VerifyReport,
    ) -> bool {
        let live = self.state.borrow().extents[at.extent as usize].live_units;
        if live == 0 {
            return true;
        }
        let mut walk = Walk::new(self, at.extent, at.offset_units, READS_AHEAD);
        while let Some(met) = walk.next().await {
            at.offset_units = walk.at();
            at.met_units += met.location.record_units;
            self.found(met.key, &met.location, met.payload.map(drop), report);
            if report.verified_bytes >= budget_bytes {
                return false;
            }
        }
        if !walk.is_current() {
            // Emptied meanwhile, and used again: what is in it now is new.
            return true;
        }
        if walk.was_cut_short() {
            self.verify_rest(at.extent, walk.at(), report).await;
        } else if at.met_units < self.state.borrow().extents[at.extent as usize].live_units {
            // A live record was passed over: an emptied sector, or an older record in its place.
            self.verify_passed(at.extent, report).await;
        }
        true
    }

    /// Finds which live records of an extent a walk did not meet; those it met were counted then.
    async fn verify_passed(self: &Rc<Self>, extent: u32, report: &mut VerifyReport) {
        let mut again = VerifyReport::default();
        self.verify_rest(extent, 0, &mut again).await;
        let known: BTreeSet<ShardKey> = report.bad.iter().map(|(key, _)| *key).collect();
        report.bad.extend(again.bad.into_iter().filter(|(key, _)| !known.contains(key)));
    }

    /// Verifies the live records of an extent from `from_units` on, one by one as the index names them.
    async fn verify_rest(self: &Rc<Self>, extent: u32, from_units: u32, report: &mut VerifyReport) {
        let rest: Vec<(ShardKey, Location)> = {
            let state = self.state.borrow();
            let here = |l: &Location| l.extent == extent && l.offset_units >= from_units;
            state.index.after(None).filter(|(_, l)| here(l)).collect()
        };
        for (key, location) in rest {
            let done = self.read_record(&location).await.map(drop);
            self.found(key, &location, done, report);
        }
    }

    fn found(&self, key: ShardKey, location: &Location, done: StoreResult<()>, report: &mut VerifyReport) {
        report.verified_bytes += u64::from(location.record_units) * UNIT_BYTES as u64;
        let Err(error) = done else {
            report.records += 1;
            return;
        };
        let mut state = self.state.borrow_mut();
        // Moved, replaced or removed meanwhile: no finding.
        if state.index.get(&key) != Some(*location) {
            return;
        }
        if let StoreError::Corrupt { offset, .. } = error {
            state.stats.corrupt_found += 1;
            state.faults.note(FaultKind::Corrupt, Some(offset), error.to_string());
        }
        drop(state);
        report.bad.push((key, error));
    }
}
