//! `mutants`: whether the harness finds deliberately broken stores. Each mistake is hunted with the same seeds until
//! a law is broken that the store without the mistake keeps. Ends with 1 when one is not found within its CPU time.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use shards::{Mutant, set_mutant};
use simulation::harness;
use simulation::hunt::STUCK_AFTER;
use simulation::model::{Model, ModelBug};
use simulation::shrink::shrink;

/// Runs spent on reducing a finding.
const REDUCE_RUNS_MAX: u32 = 200;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Shows that the harness finds mistakes.
#[derive(Parser)]
struct Args {
    /// CPU minutes for each mistake at most.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// First seed.
    #[arg(long, default_value_t = 1_000_000)]
    first: u64,
    /// Only mistakes whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Threads; as many as there are cores when not given.
    #[arg(long)]
    threads: Option<usize>,
    /// Reduce each finding, and count what is left of it.
    #[arg(long)]
    reduce: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// A mistake of the store, or of the model.
#[derive(Clone, Copy)]
enum Mistake {
    Store(Mutant),
    Model(ModelBug),
}

impl Mistake {
    fn all() -> Vec<Self> {
        let mut all: Vec<Self> = Mutant::ALL.into_iter().map(Self::Store).collect();
        all.push(Self::Model(ModelBug::ForgetsCrashDuringReclaim));
        all.sort_by_key(|mistake| mistake.issue().unwrap_or(u8::MAX));
        all
    }

    fn name(self) -> String {
        match self {
            Self::Store(mutant) => format!("{mutant:?}"),
            Self::Model(bug) => format!("{bug:?}"),
        }
    }

    fn issue(self) -> Option<u8> {
        match self {
            Self::Store(mutant) => mutant.shardstore_issue(),
            Self::Model(_) => Some(9),
        }
    }
}

/// What became of one hunt.
#[derive(Clone)]
struct Row {
    mistake: Mistake,
    /// The law, the seed, and operations left after reducing.
    found: Option<(&'static str, u64, Option<usize>)>,
    sequences: u64,
    cpu_seconds: f64,
}

/// Where a hunter is, for the watch on polls that do not return.
#[derive(Clone, Copy)]
struct At {
    mistake: Mistake,
    seed: u64,
    since: Instant,
    sequences: u64,
    cpu_start: f64,
}

fn main() -> ExitCode {
    let args = Arc::new(Args::parse());
    let mut mistakes = Mistake::all();
    if let Some(only) = &args.only {
        mistakes.retain(|mistake| mistake.name().to_lowercase().contains(&only.to_lowercase()));
    }
    let rows = hunt_all(&args, &Arc::new(mistakes));
    match args.output {
        Output::Text => print_text(&rows),
        Output::Json => print_json(&rows),
    }
    let missed = rows.iter().any(|row| row.found.is_none());
    // Threads in a poll that does not return are left behind.
    std::process::exit(i32::from(missed));
}

/// Every mistake once, several side by side; in the order of `mistakes`.
fn hunt_all(args: &Arc<Args>, mistakes: &Arc<Vec<Mistake>>) -> Vec<Row> {
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let (tell, told) = mpsc::channel();
    let next = Arc::new(AtomicUsize::new(0));
    let watch: Arc<Mutex<Vec<Option<At>>>> = Arc::default();
    let begin = || {
        let (args, mistakes, next, tell) = (Arc::clone(args), Arc::clone(mistakes), Arc::clone(&next), tell.clone());
        let watch = Arc::clone(&watch);
        let slot = {
            let mut watched = watch.lock().expect("no holder panics");
            watched.push(None);
            watched.len() - 1
        };
        drop(std::thread::spawn(move || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(mistake) = mistakes.get(at) else { return };
                let note = |at: Option<At>| watch.lock().expect("no holder panics")[slot] = at;
                let row = hunt(&args, *mistake, &note);
                note(None);
                let _ = tell.send((at, row));
            }
        }));
    };
    (0..threads).for_each(|_| begin());
    let mut rows: Vec<Option<Row>> = vec![None; mistakes.len()];
    while rows.iter().any(Option::is_none) {
        if let Ok((at, row)) = told.recv_timeout(Duration::from_secs(1)) {
            eprintln!("{}: {}", row.mistake.name(), row.found.map_or("not found", |(law, ..)| law));
            rows[at].get_or_insert(row);
        }
        let mut watched = watch.lock().expect("no holder panics");
        let stuck: Vec<At> = watched
            .iter_mut()
            .filter(|at| at.is_some_and(|at| at.since.elapsed() > STUCK_AFTER))
            .filter_map(Option::take)
            .collect();
        drop(watched);
        for at in stuck {
            let place = mistakes.iter().position(|mistake| mistake.name() == at.mistake.name());
            let found = Some(("hang (a poll does not return)", at.seed, None));
            let cpu_seconds = at.cpu_start + at.since.elapsed().as_secs_f64();
            let row = Row { mistake: at.mistake, found, sequences: at.sequences, cpu_seconds };
            rows[place.expect("a mistake of the list")].get_or_insert(row);
            begin();
        }
    }
    rows.into_iter().flatten().collect()
}

/// CPU seconds of this thread.
fn cpu_seconds() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("a thread can ask for its own usage");
    (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
}

fn hunt(args: &Args, mistake: Mistake, note: &impl Fn(Option<At>)) -> Row {
    let start = cpu_seconds();
    let mut row = Row { mistake, found: None, sequences: 0, cpu_seconds: 0.0 };
    for seed in args.first.. {
        row.cpu_seconds = cpu_seconds() - start;
        if row.cpu_seconds > args.minutes * 60.0 {
            return row;
        }
        let (sequences, cpu_start) = (row.sequences, row.cpu_seconds);
        note(Some(At { mistake, seed, since: Instant::now(), sequences, cpu_start }));
        let found = match mistake {
            Mistake::Store(mutant) => hunt_store(args, mutant, seed, &mut row.sequences),
            Mistake::Model(bug) => {
                row.sequences += 1;
                harness::model_disagrees(Model::with_bug(bug), seed).then_some((
                    "the model beside the mock",
                    seed,
                    None,
                ))
            }
        };
        if found.is_some() {
            row.found = found;
            row.cpu_seconds = cpu_seconds() - start;
            return row;
        }
    }
    row
}

fn hunt_store(
    args: &Args,
    mutant: Mutant,
    seed: u64,
    sequences: &mut u64,
) -> Option<(&'static str, u64, Option<usize>)> {
    set_mutant(Some(mutant));
    let outcome = harness::run(seed);
    *sequences += outcome.tally.get("sequences");
    let (failure, plan) = outcome.found?;
    set_mutant(None);
    // What breaks a law without the mistake says nothing about the mistake.
    if harness::run(seed).found.is_some() {
        return None;
    }
    set_mutant(Some(mutant));
    let law = failure.law.name();
    let left = plan.filter(|_| args.reduce).map(|plan| shrink(plan, failure, REDUCE_RUNS_MAX).plan.ops.len());
    set_mutant(None);
    Some((law, seed, left))
}

fn print_text(rows: &[Row]) {
    println!(
        "{:32} {:>5}  {:28} {:>9} {:>8}  {:>10}  {:>4}",
        "mistake", "issue", "found by", "sequences", "CPU s", "seed", "ops"
    );
    for row in rows {
        let issue = row.mistake.issue().map_or("own".to_owned(), |issue| format!("#{issue}"));
        let (law, seed, left) =
            row.found.map_or(("NOT FOUND", String::new(), None), |(law, seed, left)| (law, format!("{seed:#x}"), left));
        let left = left.map_or(String::new(), |left| left.to_string());
        println!(
            "{:32} {issue:>5}  {law:28} {:>9} {:>8.1}  {seed:>10}  {left:>4}",
            row.mistake.name(),
            row.sequences,
            row.cpu_seconds,
        );
    }
}

fn print_json(rows: &[Row]) {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            serde_json::json!({
                "mistake": row.mistake.name(),
                "shardstore_issue": row.mistake.issue(),
                "found_by": row.found.map(|(law, ..)| law),
                "seed": row.found.map(|(_, seed, _)| format!("{seed:#x}")),
                "operations_left": row.found.and_then(|(.., left)| left),
                "sequences": row.sequences,
                "cpu_seconds": row.cpu_seconds,
            })
        })
        .collect();
    println!("{:#}", serde_json::Value::from(rows));
}
