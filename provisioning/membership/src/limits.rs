//! The numbers that steer a rack, each with the reason for its default, and the bounds that nothing may pass.
//!
//! [`Limits`] must agree for the whole cluster, so they are kept in the cluster's row; the constants belong to the
//! release.

use std::ops::RangeInclusive;

use placement::map::{Level, Policy};
use serde::{Deserialize, Serialize};

use crate::output::Reason;

/// Protocol versions that this release speaks with nodes.
pub const PROTOCOLS: RangeInclusive<u32> = 1..=1;
/// Nodes there may ever have been: places are never reused. Room for 10,000 that serve and thousands that did.
pub const NODES_MAX: usize = 16_384;
/// Devices there may ever have been: 24 for each of [`NODES_MAX`] nodes; their map stays within its 64 MiB.
pub const DEVICES_MAX: usize = 393_216;
/// Devices one node may report: the densest hosts sold have 108 bays. With it, the rows of one step fit one
/// transaction.
pub const DEVICES_PER_NODE_MAX: usize = 108;
/// Bytes of one text among a node's or a device's facts.
pub const TEXT_BYTES_MAX: usize = 128;
/// Rows one step changes at most. etcd takes 128 operations in a transaction: the comparison and room to spare.
pub const ROWS_PER_STEP_MAX: usize = 118;
/// Groups in one row: 128 groups of 64 slots are at most 24 KiB.
pub const GROUPS_PER_ROW: u32 = 128;
/// Rows of nodes that one tick changes at most.
pub(crate) const NODE_ROWS_PER_TICK: usize = 30;
/// Rows of nodes and devices that one tick changes at most; the rest is for groups, so that neither starves the other.
pub(crate) const HOST_ROWS_PER_TICK: usize = 68;
/// Rows of groups that one tick fills, and again as many whose plans are dropped: with 24 KiB each they stay below
/// what etcd takes in one request (1.5 MiB).
pub const GROUP_ROWS_PER_TICK: u32 = 24;
const _: () = assert!(HOST_ROWS_PER_TICK + 2 * GROUP_ROWS_PER_TICK as usize + 2 <= ROWS_PER_STEP_MAX);
const _: () = assert!(DEVICES_PER_NODE_MAX + 2 <= ROWS_PER_STEP_MAX);
/// Planned moves that are kept; when they are done, more are planned.
pub const MOVES_MAX: usize = 4_096;
/// Devices that wait to be let in: 2,700 hosts that are plugged in at once. More of them wait for a later report.
pub const CANDIDATES_MAX: usize = 65_536;

/// What may be tuned. All times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limits {
    /// Between two reports of a node, while there are few nodes; see [`Limits::report_every_ms`].
    pub report_ms: u64,
    /// A node that has not reported for so long is down: five reports, so that one lost packet is not a failure.
    pub expiry_ms: u64,
    /// A node's clock may be so far away: leases and times of objects are compared across nodes, and NTP keeps hosts
    /// well within it.
    pub clock_bound_ms: u64,
    /// A device is let in when one node alone has reported it, sound, for so long: time for its copy to show itself.
    pub admit_ms: u64,
    /// Groups are made when no device has joined for so long: hosts that are switched on together form together.
    pub settle_ms: u64,
    /// A device must be slow for so long before it is suspect: a burst of work is not a fault.
    pub slow_ms: u64,
    /// A suspect device must be well for so long before it is trusted again.
    pub recover_ms: u64,
    /// The same for one that was only missing: a restart is no illness, a loose plug is.
    pub return_ms: u64,
    /// A device that failed, errs or is missing for so long is drained without being asked: a reboot is over by then.
    pub evacuate_ms: u64,
    /// So many new errors within [`Limits::errors_window_ms`] make a device suspect.
    pub errors_max: u64,
    /// The time over which errors are counted.
    pub errors_window_ms: u64,
    /// A node that went down again within so long of its return is flapping, and waits longer each time.
    pub flap_ms: u64,
    /// With how many others a device shares groups: `placement::groups::Limits` says what it costs.
    pub scatter_width: u32,
    /// Whether devices that carry the cluster's label are let in by themselves, or wait for an operator.
    pub auto_claim: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            report_ms: 2_000,
            expiry_ms: 10_000,
            clock_bound_ms: 2_000,
            admit_ms: 1_000,
            settle_ms: 3_000,
            slow_ms: 10_000,
            recover_ms: 30_000,
            return_ms: 5_000,
            evacuate_ms: 1_800_000,
            errors_max: 10,
            errors_window_ms: 600_000,
            flap_ms: 600_000,
            scatter_width: 100,
            auto_claim: true,
        }
    }
}

/// How often nodes report until there are groups: an operator waits.
const FORMING_REPORT_MS: u64 = 500;
/// Nodes from which on reports become rarer: 500 reports a second are some percent of one core.
const REPORTS_PER_S: u64 = 500;

impl Limits {
    /// When a node reports next: at once while the rack forms, and rarer the more nodes there are.
    #[must_use]
    pub fn report_every_ms(&self, nodes: usize, formed: bool) -> u64 {
        if !formed {
            return FORMING_REPORT_MS.min(self.report_ms);
        }
        self.report_ms.max(nodes as u64 * 1_000 / REPORTS_PER_S)
    }

    /// After what silence a node is down: never less than four reports.
    #[must_use]
    pub fn expires_after_ms(&self, nodes: usize) -> u64 {
        self.expiry_ms.max(4 * self.report_every_ms(nodes, true))
    }

    /// How long a node that has gone down `downs` times in short order must report before it counts as up: the first
    /// time not at all, then doubling.
    #[must_use]
    pub fn hold_ms(&self, downs: u32) -> u64 {
        match downs {
            0 | 1 => 0,
            more => self.expiry_ms << (more - 2).min(4),
        }
    }

    pub(crate) fn check(&self) -> Result<(), Reason> {
        let valid = self.report_ms > 0
            && self.expiry_ms >= 2 * self.report_ms
            && self.expiry_ms <= u64::from(u32::MAX)
            && self.clock_bound_ms > 0
            && self.errors_max > 0;
        if valid { Ok(()) } else { Err(Reason::Limits("times and counts are above zero, expiry at least two reports")) }
    }
}

/// Whether a cluster can be kept by this policy.
pub(crate) fn check_policy(policy: &Policy) -> Result<(), Reason> {
    let spread = usize::from(policy.slots_per_domain);
    if policy.data_shards == 0 || policy.width() > 64 {
        Err(Reason::Policy("1 data shard at least, 64 shards at most"))
    } else if spread == 0 || spread > usize::from(policy.parity_shards).max(1) {
        Err(Reason::Policy("slots in one domain: from 1 up to the parity shards"))
    } else if policy.level == Level::Device && spread > 1 {
        Err(Reason::Policy("a device holds one slot of a group"))
    } else {
        Ok(())
    }
}
