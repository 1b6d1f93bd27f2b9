//! `schedules run [HARNESS] [ITERATIONS] [SEED]` explores interleavings of one harness, or of all (`all`);
//! `schedules replay HARNESS FILE` runs the schedule that a failure printed, and nothing else.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use base::{Entropy, OsEntropy};
use schedules::explore::{config, explore_all};
use schedules::harnesses::{ALL, Harness, named};
use shuttle::scheduler::ReplayScheduler;
use shuttle::{FailurePersistence, Runner};

/// Runs per harness and scheduler when nobody says.
const ITERATIONS: usize = 1000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["run"] => run("all", None, None),
        ["run", harness] => run(harness, None, None),
        ["run", harness, iterations] => run(harness, Some(iterations), None),
        ["run", harness, iterations, seed] => run(harness, Some(iterations), Some(seed)),
        ["replay", harness, file] => replay(harness, file),
        _ => Err("schedules run [HARNESS|all] [ITERATIONS] [SEED] | schedules replay HARNESS FILE".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(told) => {
            eprintln!("{told}");
            ExitCode::FAILURE
        }
    }
}

fn find(name: &str) -> Result<&'static Harness, String> {
    let names = || ALL.iter().map(|harness| harness.name).collect::<Vec<_>>().join(" ");
    named(name).ok_or_else(|| format!("no harness {name}; there are: {}", names()))
}

fn run(name: &str, iterations: Option<&str>, seed: Option<&str>) -> Result<(), String> {
    let iterations = match iterations {
        Some(text) => text.parse().map_err(|_| format!("{text} is no number of iterations"))?,
        None => ITERATIONS,
    };
    let seed = match seed {
        Some(text) => text.parse().map_err(|_| format!("{text} is no seed"))?,
        None => OsEntropy.next_u64(),
    };
    let chosen = if name == "all" { ALL.iter().collect() } else { vec![find(name)?] };
    for harness in chosen {
        println!("{:<14} {} x 2 runs, seed {seed}: {}", harness.name, iterations, harness.about);
        explore_all(harness, seed, iterations);
    }
    Ok(())
}

fn replay(name: &str, file: &str) -> Result<(), String> {
    let harness = find(name)?;
    let scheduler = ReplayScheduler::new_from_file(file).map_err(|error| format!("{file}: {error}"))?;
    let _ = Runner::new(scheduler, config(FailurePersistence::None)).run(harness.run);
    println!("{name}: the schedule ran to its end, and all of it holds");
    Ok(())
}
