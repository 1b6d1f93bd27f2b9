//! `soak`: every harness with fresh seeds on every core, for so many minutes. Ends with 1 when a law was broken.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{Entropy, OsEntropy};
use clap::{Parser, ValueEnum};
use simulation::harness;
use simulation::hunt::{Finding, Hunt};
use simulation::shrink::shrink;
use simulation::tally::{PROBES, Tally};

/// Failures that are reduced at the end; the seeds of all are printed.
const REDUCED_MAX: usize = 3;
/// Runs spent on reducing one.
const REDUCE_RUNS_MAX: u32 = 500;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Runs the shard store over a simulated disk, against its model, from fresh seeds.
#[derive(Parser)]
struct Args {
    /// Minutes to run; fractions are fine.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// First seed; drawn when not given. Seeds count up from it.
    #[arg(long, value_parser = number)]
    first: Option<u64>,
    /// Replay one seed, print its run, and reduce it when it fails.
    #[arg(long, value_parser = number)]
    seed: Option<u64>,
    /// Threads; as many as there are cores when not given.
    #[arg(long)]
    threads: Option<usize>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// A number, decimal or `0x` hexadecimal, as the tables print it.
fn number(text: &str) -> Result<u64, String> {
    let parsed = text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16));
    parsed.map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.seed {
        return replay(seed);
    }
    let first = args.first.unwrap_or_else(|| OsEntropy.next_u64() >> 16);
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let hunt = Arc::new(Hunt::new(first));
    let start = Instant::now();
    let begin = |thread| {
        let hunt = Arc::clone(&hunt);
        // Not joined at the end: one may sit in a poll that does not return.
        drop(std::thread::spawn(move || hunt.work(thread)));
    };
    (0..threads).for_each(begin);
    let mut next_thread = threads;
    let length = Duration::from_secs_f64(args.minutes.max(0.0) * 60.0);
    while start.elapsed() < length {
        std::thread::sleep(Duration::from_millis(500).min(length));
        for _ in hunt.note_stuck() {
            begin(next_thread);
            next_thread += 1;
        }
        progress(&hunt, start, length);
    }
    hunt.stop();
    while hunt.busy() > 0 {
        std::thread::sleep(Duration::from_millis(50));
        let _ = hunt.note_stuck();
    }
    clear_progress();
    let findings = hunt.findings();
    match args.output {
        Output::Text => print_text(&hunt.tally(), &findings, first, start.elapsed()),
        Output::Json => print_json(&hunt.tally(), &findings, first, start.elapsed()),
    }
    if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn progress(hunt: &Hunt, start: Instant, length: Duration) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let (tally, findings) = (hunt.tally(), hunt.findings().len());
    let left = length.saturating_sub(start.elapsed()).as_secs();
    let text = format!(
        "{} sequences, {} operations, {} crashes, {findings} failures; {left} s left",
        tally.get("sequences"),
        tally.get("operations"),
        tally.get("crashes"),
    );
    eprint!("\r{text}\x1b[K");
    let _ = std::io::stderr().flush();
}

fn clear_progress() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}

fn print_text(tally: &Tally, findings: &[Finding], first: u64, took: Duration) {
    for (name, n) in tally.iter() {
        println!("{name:46} {n:>14}");
    }
    for name in PROBES.iter().filter(|name| tally.get(name) == 0) {
        println!("{name:46} {:>14}", "not reached");
    }
    println!("{:46} {:>14.1}", "seconds", took.as_secs_f64());
    println!("{:46} {first:>#14x}", "first seed");
    println!("{:46} {:>14}", "failures", findings.len());
    for (at, finding) in findings.iter().enumerate() {
        println!("\nsoak --seed {:#x}: {}", finding.seed, finding.failure);
        if let Some(plan) = finding.plan.clone().filter(|_| at < REDUCED_MAX) {
            let shrunk = shrink(plan, finding.failure.clone(), REDUCE_RUNS_MAX);
            print!("{}", shrunk.plan);
            println!("  {}", shrunk.failure);
        }
    }
}

fn print_json(tally: &Tally, findings: &[Finding], first: u64, took: Duration) {
    let counts: serde_json::Map<_, _> = tally.iter().map(|(name, n)| (name.to_owned(), n.into())).collect();
    let failures: Vec<_> = findings
        .iter()
        .map(|found| {
            let (law, what) = (found.failure.law.name(), &found.failure.what);
            serde_json::json!({ "seed": format!("{:#x}", found.seed), "law": law, "what": what })
        })
        .collect();
    let all = serde_json::json!({
        "first_seed": format!("{first:#x}"),
        "seconds": took.as_secs_f64(),
        "counts": counts,
        "failures": failures,
    });
    println!("{all:#}");
}

fn replay(seed: u64) -> ExitCode {
    let outcome = harness::run(seed);
    let Some((failure, plan)) = outcome.found else {
        println!("seed {seed:#x} breaks no law ({} sequences)", outcome.tally.get("sequences"));
        return ExitCode::SUCCESS;
    };
    println!("{failure}");
    if let Some(plan) = plan {
        print!("{plan}");
        let shrunk = shrink(plan, failure, REDUCE_RUNS_MAX);
        println!("\nreduced in {} runs:\n{}  {}", shrunk.runs, shrunk.plan, shrunk.failure);
    }
    ExitCode::FAILURE
}
