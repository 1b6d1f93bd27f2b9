//! What one step gathers: rows that changed, whether the map did, and what to say.

use std::collections::BTreeSet;

use base::{DeviceId, NodeId};

use crate::output::{Event, Output, Reason, Severity};
use crate::rows::RowKey;

/// The scratch of one step.
pub(crate) struct Step {
    /// What the clock says; what other clocks are compared with.
    pub(crate) wall: u64,
    /// Our time, which never goes back.
    pub(crate) now: u64,
    pub(crate) rows: BTreeSet<RowKey>,
    pub(crate) map_changed: bool,
    outputs: Vec<Output>,
}

impl Step {
    pub(crate) fn new(wall: u64) -> Self {
        Self { wall, now: wall, rows: BTreeSet::new(), map_changed: false, outputs: Vec::new() }
    }

    pub(crate) fn say(&mut self, output: Output) {
        self.outputs.push(output);
    }

    pub(crate) fn refuse(&mut self, reason: Reason) {
        self.say(Output::Refused(reason));
    }

    pub(crate) fn event(
        &mut self,
        severity: Severity,
        kind: &'static str,
        about: (Option<NodeId>, Option<DeviceId>),
        text: String,
    ) {
        self.say(Output::Event(Event { severity, kind, node: about.0, device: about.1, text }));
    }

    pub(crate) fn into_outputs(self) -> Vec<Output> {
        self.outputs
    }
}
