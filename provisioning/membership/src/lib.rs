//! Who is in the cluster, in what state, and the map that follows from it: a plain state machine.
//!
//! [`Membership::step`] takes one [`Input`] and says what to do as [`Output`]s. No I/O, no clock, no randomness: the
//! controller passes the time in, stores the rows that changed, hands out the map. What always holds:
//! - the map keeps its own invariants, and its epoch grows by one exactly when something in it changed;
//! - every change of what is kept is in [`Output::RowsChanged`]: the rows stored so far are the state ([`Membership::load`]),
//!   but for what the next reports tell again (who was heard when, counters, new devices that wait);
//! - what reports say changes the map at a [`Input::Tick`] only, in an order of its own: in which order nodes report
//!   does not matter, and a report said twice is a report;
//! - no input of an operator takes a group from k readable slots or more to fewer, and none makes more of a group's
//!   slots be emptied or away than it tolerates;
//! - a device is its label: it is known again in whatever slot or node it comes back, belongs to one node, and a label
//!   seen in two nodes changes nothing but that both are named;
//! - the chain of a partition stays where it is: while chains have one node, its data is only there.
//!
//! Silence of the machine itself is not held against nodes: after a pause or a change of leader each has a whole
//! expiry to report again.
//!
//! Left out: moving data. Moves are planned and kept; who carries them out comes with the repair service. A device
//! becomes [`DeviceState::Removed`](placement::map::DeviceState) by an operator's word alone, because there is no way back.

#![forbid(unsafe_code)]

mod devices;
mod forming;
mod input;
pub mod limits;
mod nodes;
mod output;
mod rack;
mod redundancy;
mod reports;
mod rows;
mod seen;
mod status;
mod step;
mod verbs;
mod views;

use placement::map::ClusterMap;

pub use input::{DeviceFacts, DeviceIdentity, Input, NodeFacts, NodeReport};
pub use limits::Limits;
pub use output::{Event, Output, Reason, Severity};
pub use rows::{
    Cause, ClusterRow, DeviceRow, Drain, GroupsRow, LoadError, NodeRow, PartitionRow, PlannedMove, Row, RowKey,
    Suspicion,
};
pub use status::{Doing, Risk, Status};
pub use views::{DeviceView, NodeView};

use rack::Rack;
use step::Step;

/// The state of one rack; empty until a cluster is created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    rack: Option<Rack>,
}

impl Membership {
    /// Without a cluster.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The state that all stored rows make; `now_ms` as in [`Membership::step`]. No rows: no cluster.
    ///
    /// # Errors
    /// [`LoadError`], when they are not all the rows that were stored.
    pub fn load(rows: impl IntoIterator<Item = Row>, now_ms: u64) -> Result<Self, LoadError> {
        Ok(Self { rack: Rack::load(rows, now_ms)? })
    }

    /// Every row, in the order of their keys: what has been stored when all outputs were followed.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        self.rack.as_ref().map(Rack::rows).unwrap_or_default()
    }

    /// The map; none without a cluster.
    #[must_use]
    pub fn map(&self) -> Option<&ClusterMap> {
        self.rack.as_ref().map(|rack| &rack.map)
    }

    /// One input at `now_ms` milliseconds since 1970. A clock that is set back goes on from where it was.
    ///
    /// # Panics
    /// When the map that came out is none: it must not be stored.
    pub fn step(&mut self, now_ms: u64, input: Input) -> Vec<Output> {
        let before = self.rack.as_ref().map_or(0, |rack| rack.revision);
        let mut step = Step::new(now_ms);
        match (&mut self.rack, input) {
            (None, Input::ClusterCreated { cluster, policy, limits }) => {
                match Rack::create(cluster, policy, limits, &mut step) {
                    Ok(rack) => self.rack = Some(rack),
                    Err(reason) => step.refuse(reason),
                }
            }
            (None, _) => step.refuse(Reason::NoCluster),
            (Some(rack), input) => rack.apply(input, &mut step),
        }
        match &mut self.rack {
            Some(rack) => rack.finish(before, step),
            None => step.into_outputs(),
        }
    }
}
