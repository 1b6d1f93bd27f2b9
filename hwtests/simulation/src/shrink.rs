//! Reduces a failing plan while it still fails, by the same law: fewer operations, fewer clients, simpler operations, a
//! simpler configuration. Greedy, until nothing helps or the runs are used up.

use shards::Limits;

use crate::plan::{Config, Op, Plan};
use crate::runner;

/// A reduced plan and why it fails.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// The smallest plan found.
    pub plan: Plan,
    /// Its failure.
    pub failure: crate::failure::Failure,
    /// Runs spent.
    pub runs: u32,
}

/// Reduces `plan`, which fails with `failure`, in at most `runs_max` runs.
#[must_use]
pub fn shrink(plan: Plan, failure: crate::failure::Failure, runs_max: u32) -> Shrunk {
    let mut best = Shrunk { plan, failure, runs: 0 };
    loop {
        let before = best.plan.clone();
        drop_ops(&mut best, runs_max);
        simplify_config(&mut best, runs_max);
        simplify_ops(&mut best, runs_max);
        if best.plan == before || best.runs >= runs_max {
            return best;
        }
    }
}

/// Takes `candidate` when it fails too.
fn accept(best: &mut Shrunk, candidate: Plan, runs_max: u32) -> bool {
    if best.runs >= runs_max || candidate == best.plan {
        return false;
    }
    best.runs += 1;
    match runner::run(&candidate).failure {
        Some(failure) if failure.is_like(&best.failure) => {
            (best.plan, best.failure) = (candidate, failure);
            true
        }
        _ => false,
    }
}

/// Drops stretches of operations, long ones first.
fn drop_ops(best: &mut Shrunk, runs_max: u32) {
    let mut len = best.plan.ops.len();
    while len > 0 {
        let mut at = 0;
        while at < best.plan.ops.len() {
            let mut candidate = best.plan.clone();
            candidate.ops.drain(at..(at + len).min(best.plan.ops.len()));
            if !accept(best, candidate, runs_max) {
                at += len;
            }
        }
        len /= 2;
    }
}

fn simplify_ops(best: &mut Shrunk, runs_max: u32) {
    for at in 0..best.plan.ops.len() {
        while best.plan.ops[at].1.simpler().into_iter().any(|op: Op| {
            let mut candidate = best.plan.clone();
            candidate.ops[at].1 = op;
            accept(best, candidate, runs_max)
        }) {}
        if best.plan.ops[at].0 > 0 {
            let mut candidate = best.plan.clone();
            candidate.ops[at].0 = 0;
            let _ = accept(best, candidate, runs_max);
        }
    }
}

fn simplify_config(best: &mut Shrunk, runs_max: u32) {
    let changes: [fn(&mut Config); 9] = [
        |config| config.limits = Limits::default(),
        |config| config.clients = 1,
        |config| config.zones = None,
        |config| config.slow_one_in = 0,
        |config| config.sudden = false,
        |config| config.store_weight = 4,
        |config| config.extents = format::Geometry::MIN_EXTENTS,
        |config| config.keys = (config.keys / 2).max(1),
        |config| config.keys = (config.keys - 1).max(1),
    ];
    for change in changes {
        let mut candidate = best.plan.clone();
        change(&mut candidate.config);
        let keys = candidate.config.keys;
        let (clients, in_use) = (candidate.config.clients, |op: &Op| op.key().is_none_or(|key| key.0 < keys));
        candidate.ops.iter_mut().for_each(|(client, _)| *client %= clients);
        if candidate.ops.iter().all(|(_, op)| in_use(op)) {
            let _ = accept(best, candidate, runs_max);
        }
    }
}
