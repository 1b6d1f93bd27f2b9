//! The store under drawn runs: a fixed budget, the same at every call.
//!
//! `HOLDFAST_SEEDS` and `HOLDFAST_START` choose other runs; a failure prints its seed and the reduced run.

use simulation::draw;
use simulation::runner;
use simulation::shrink::shrink;
use simulation::tally::Tally;

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[test]
fn drawn_runs_break_no_law() {
    let (start, seeds) = (number("HOLDFAST_START", 0), number("HOLDFAST_SEEDS", 300));
    let mut tally = Tally::default();
    let mut failures = 0;
    for seed in start..start + seeds {
        let plan = draw::plan(seed);
        let report = runner::run(&plan);
        tally.merge(&report.tally);
        if let Some(failure) = report.failure {
            println!("seed {seed}: {failure}");
            if number("HOLDFAST_NOSHRINK", 0) == 1 {
                failures += 1;
                continue;
            }
            let shrunk = shrink(plan, failure, 400);
            println!("after {} runs:\n{}{}\n", shrunk.runs, shrunk.plan, shrunk.failure);
            failures += 1;
        }
    }
    tally.iter().for_each(|(name, n)| println!("{name:50} {n}"));
    assert_eq!(failures, 0);
}
