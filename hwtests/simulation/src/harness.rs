//! What one seed stands for: a drawn run, a short life cut at every device operation, or the model against the mock.

use base::SeededEntropy;
use format::ShardKey;

use crate::content::{Held, Value};
use crate::draw::{self, Devices};
use crate::failure::{Failure, Law};
use crate::mock::MockStore;
use crate::model::Model;
use crate::plan::Plan;
use crate::register::{Event, Kind};
use crate::runner;
use crate::tally::Tally;

/// One seed in so many is a life cut everywhere; it takes as long as a hundred drawn runs.
const EVERY_CUT_ONE_IN: u64 = 64;
/// One seed in so many checks the model itself.
const MODEL_ONE_IN: u64 = 50;

/// What a seed came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was done.
    pub tally: Tally,
    /// The broken law, and the run that shows it (none when the model itself is wrong).
    pub found: Option<(Failure, Option<Plan>)>,
}

/// Runs what `seed` stands for.
#[must_use]
pub fn run(seed: u64) -> Outcome {
    run_on(seed, Devices::All)
}

/// Runs what `seed` stands for, on devices of one sort.
#[must_use]
pub fn run_on(seed: u64, devices: Devices) -> Outcome {
    if seed % EVERY_CUT_ONE_IN == 1 {
        return every_cut(seed, devices);
    }
    if seed % MODEL_ONE_IN == 2 {
        let mut tally = Tally::default();
        tally.add("model checks", 1);
        let wrong = || Failure::new(Law::Linearizability, "the model does not explain the mock");
        return Outcome { tally, found: model_disagrees(Model::default(), seed).then(|| (wrong(), None)) };
    }
    let plan = draw::plan(seed, devices);
    let report = runner::run(&plan);
    Outcome { tally: report.tally, found: report.failure.map(|failure| (failure, Some(plan))) }
}

/// Cuts a short life at every device write and flush; every other recovery is cut too.
#[must_use]
pub fn every_cut(seed: u64, devices: Devices) -> Outcome {
    let mut plan = draw::short_life(seed, devices);
    let mut tally = Tally::default();
    for cut in 0.. {
        plan.config.cut_at = Some(cut);
        plan.config.recovery_cut = (cut % 2 == 1).then_some((cut / 2 % 7) as u8);
        let report = runner::run(&plan);
        tally.merge(&report.tally);
        if let Some(failure) = report.failure {
            return Outcome { tally, found: Some((failure, Some(plan))) };
        }
        if report.tally.get("cuts at a given operation") == 0 {
            break;
        }
    }
    tally.add("lives cut everywhere", 1);
    Outcome { tally, found: None }
}

/// Runs `model` beside the simplest store there is, under crashes; true when it cannot explain what that store did.
#[must_use]
pub fn model_disagrees(mut model: Model, seed: u64) -> bool {
    let rng = SeededEntropy::new(seed);
    let mut store = MockStore::default();
    let (mut now, mut ids) = (0, 0);
    let mut called: Vec<(ShardKey, u64, Held)> = Vec::new();
    let mut tick = || {
        now += 1;
        now
    };
    for _ in 0..60 {
        let key = ShardKey::region(0, rng.below(3));
        let event = match rng.below(12) {
            0..=3 => {
                ids += 1;
                let value = Value { id: ids, len: 20 };
                let held = (!rng.one_in(4)).then_some(value);
                model.announce(key, value);
                store.begin(key, held);
                called.push((key, tick(), held));
                None
            }
            4..=6 => store.finish_one().map(|(key, held)| {
                let (_, call, _) = called.remove(0);
                (key, Event { call, ret: Some(tick()), kind: Kind::Write(held) })
            }),
            7 => {
                store.begin_reclaim();
                None
            }
            8 => {
                store.end_reclaim();
                None
            }
            9 => {
                for (key, call, held) in called.drain(..) {
                    let event = Event { call, ret: None, kind: Kind::Write(held) };
                    if model.settle(key, vec![event]).is_err() {
                        return true;
                    }
                }
                model.crash(store.is_reclaiming());
                store.crash(&rng);
                None
            }
            // Reads come where nothing of the key is under way.
            _ if called.iter().any(|(other, ..)| *other == key) => None,
            _ => Some((key, Event { call: tick(), ret: Some(tick()), kind: Kind::Read(vec![store.get(key)]) })),
        };
        if let Some((key, event)) = event
            && model.settle(key, vec![event]).is_err()
        {
            return true;
        }
    }
    false
}
