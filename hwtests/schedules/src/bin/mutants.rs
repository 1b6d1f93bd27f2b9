//! Which of the store's deliberate mistakes the harnesses find, and how soon. One line each: the mistake, the
//! harness and scheduler that found it, runs until then over all harnesses, CPU seconds, the failing schedule's file
//! and what the harness said. The schedulers' own messages go to stderr.
//!
//! `schedule-mutants [NAME]` tries all, each in a process of its own because some hang, or one; `schedule-mutants replay NAME HARNESS FILE` runs a schedule again.
//!
//! Mistakes in what only faults or damage bring about are not expected here: no fault but the loss of power is made.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use schedules::explore::{Scheduler, config, explore_as};
use schedules::harnesses::{ALL, Harness, named};
use schedules::watch::STUCK;
use shards::{Mutant, set_mutant};
use shuttle::scheduler::ReplayScheduler;
use shuttle::{FailurePersistence, Runner};

/// Runs of one harness before the next has its turn.
const TURN: usize = 100;
/// Turns of every harness under both schedulers before a mistake counts as not found: 22,000 runs.
const ROUNDS: u64 = 10;
/// Where failing schedules are kept, below the workspace's root.
const SCHEDULES: &str = "target/schedules";

thread_local! {
    static RUNS: Cell<u64> = const { Cell::new(0) };
}

struct Found {
    harness: &'static str,
    scheduler: Scheduler,
    seed: u64,
    told: String,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        [] => try_all(),
        [name] => match mutant(name) {
            Some(mutant) => try_one(mutant),
            None => return refuse(),
        },
        ["replay", name, harness, file] => match (mutant(name), named(harness)) {
            (Some(mutant), Some(harness)) => return replay(mutant, harness, file),
            _ => return refuse(),
        },
        _ => return refuse(),
    }
    ExitCode::SUCCESS
}

fn refuse() -> ExitCode {
    eprintln!("schedule-mutants [NAME] | schedule-mutants replay NAME HARNESS FILE");
    ExitCode::FAILURE
}

fn name(mutant: Mutant) -> String {
    format!("{mutant:?}")
}

fn mutant(of: &str) -> Option<Mutant> {
    Mutant::ALL.into_iter().find(|mutant| name(*mutant) == of)
}

fn try_all() {
    let own = std::env::current_exe().expect("the program knows where it is");
    let titles = ["mistake", "issue", "harness", "scheduler", "runs", "CPU s", "schedule; what was seen"];
    println!("{}", line(&titles.map(str::to_owned)));
    for mutant in Mutant::ALL {
        let ended = Command::new(&own).arg(name(mutant)).status().expect("the program can be started again");
        if ended.code() == Some(STUCK) {
            let [issue, seen] =
                [issue(mutant), "spins between two scheduling points; stderr says in which runs".to_owned()];
            println!(
                "{}",
                line(&[name(mutant), issue, "see stderr".to_owned(), "-".into(), "-".into(), "-".into(), seen])
            );
        }
    }
}

fn issue(mutant: Mutant) -> String {
    mutant.shardstore_issue().map_or("own".to_owned(), |issue| format!("#{issue}"))
}

fn line(of: &[String; 7]) -> String {
    let [mutant, issue, harness, scheduler, runs, seconds, seen] = of;
    format!("{mutant:<29} {issue:>5} {harness:<13} {scheduler:<9} {runs:>7} {seconds:>7}  {seen}")
}

fn try_one(mutant: Mutant) {
    let kept = Path::new(SCHEDULES);
    fs::create_dir_all(kept).expect("target can be written");
    let before = cpu_seconds();
    let found = hunt(mutant, kept);
    let (runs, seconds) = (RUNS.get().to_string(), format!("{:.1}", cpu_seconds() - before));
    let (name, issue) = (name(mutant), issue(mutant));
    let told = match found {
        None => [name, issue, "not found".to_owned(), "-".to_owned(), runs, seconds, String::new()],
        Some(Found { harness, scheduler, seed, told }) => {
            let file = keep(kept, &name).map_or("none".to_owned(), |file| file.display().to_string());
            let seen = format!("{file} (seed {seed}): {told}");
            [name, issue, harness.to_owned(), format!("{scheduler:?}"), runs, seconds, seen]
        }
    };
    println!("{}", line(&told));
}

fn hunt(mutant: Mutant, kept: &Path) -> Option<Found> {
    for seed in 1..=ROUNDS {
        for harness in ALL {
            for scheduler in Scheduler::ALL {
                let run = harness.run;
                let broken = move || {
                    RUNS.set(RUNS.get() + 1);
                    // Anew for each run: some mistakes remember what they saw.
                    set_mutant(Some(mutant));
                    run();
                };
                let config = config(FailurePersistence::File(Some(kept.to_owned())));
                let outcome =
                    catch_unwind(AssertUnwindSafe(|| explore_as(harness.name, scheduler, seed, TURN, config, broken)));
                set_mutant(None);
                if let Err(panic) = outcome {
                    let told = panic.downcast_ref::<String>().map(String::as_str);
                    let told = told.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned();
                    let told = told.lines().next().unwrap_or_default().chars().take(90).collect();
                    return Some(Found { harness: harness.name, scheduler, seed, told });
                }
            }
        }
    }
    None
}

/// Gives the schedule that was just written the mistake's name.
fn keep(kept: &Path, mutant: &str) -> Option<PathBuf> {
    let file = kept.join(format!("{mutant}.schedule"));
    fs::rename(kept.join("schedule000.txt"), &file).ok()?;
    Some(file)
}

fn replay(mutant: Mutant, harness: &Harness, file: &str) -> ExitCode {
    let scheduler = match ReplayScheduler::new_from_file(file) {
        Ok(scheduler) => scheduler,
        Err(error) => {
            eprintln!("{file}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let run = harness.run;
    let broken = move || {
        set_mutant(Some(mutant));
        run();
    };
    let _ = Runner::new(scheduler, config(FailurePersistence::None)).run(broken);
    println!("the schedule ran to its end, and all of it holds");
    ExitCode::SUCCESS
}

/// CPU time of this thread, which does all the work.
fn cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e9
}
