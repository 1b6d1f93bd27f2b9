//! The auditor's reads: records in key order, each read whole and verified.

use std::rc::Rc;

use disk::BlockDevice;
use format::{ShardKey, UNIT_BYTES};

use crate::core::Core;
use crate::fault::FaultKind;
use crate::handle::VerifyReport;
use crate::{StoreError, StoreResult};

impl<D: BlockDevice> Core<D> {
    /// Verifies records with keys above `after` until `budget_bytes` have been read.
    pub(crate) async fn verify(
        self: &Rc<Self>,
        after: Option<ShardKey>,
        budget_bytes: u64,
    ) -> StoreResult<VerifyReport> {
        let mut report = VerifyReport { next: after, ..VerifyReport::default() };
        while report.verified_bytes < budget_bytes {
            let entry = {
                let state = self.state.borrow();
                let lower = report.next.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
                state.index.range((lower, std::ops::Bound::Unbounded)).next().map(|(key, l)| (*key, *l))
            };
            let Some((key, location)) = entry else {
                report.next = None;
                return Ok(report);
            };
            report.next = Some(key);
            report.verified_bytes += u64::from(location.record_units) * UNIT_BYTES as u64;
            if let Err(error) = self.read_record(&location).await {
                // Moved, replaced or removed meanwhile: no finding.
                if self.state.borrow().index.get(&key) == Some(&location) {
                    let mut state = self.state.borrow_mut();
                    if let StoreError::Corrupt { offset, .. } = error {
                        state.stats.corrupt_found += 1;
                        state.faults.note(FaultKind::Corrupt, Some(offset), error.to_string());
                    }
                    drop(state);
                    report.bad.push((key, error));
                }
            } else {
                report.records += 1;
            }
        }
        Ok(report)
    }
}
