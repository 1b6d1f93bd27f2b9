//! `storebench`: the store of one device alone, beside fio on the same disk and in the same rounds: the sentences of
//! docs/benchmarks.md about one device. Figures, not tests: a missed target is a word in the table, no failure.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use benches::size::Size;
use benches::store::bed::{Bed, Options, Plan};
use benches::store::rows::{Row, table};
use benches::store::scan::Pace;
use benches::store::{amplification, fullness, gets, puts, recovery, scan};
use clap::{Parser, ValueEnum};
use tempfile::TempDir;

/// Shards of the device whose recovery is measured.
const RECOVERED_SHARDS: u64 = 1_000_000;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// What can be measured, in the order in which it is.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measurement {
    /// Durable 1 MiB puts, and their CPU.
    #[value(name = "puts-1m")]
    LargePuts,
    /// Durable 4 KiB puts.
    #[value(name = "puts-4k")]
    SmallPuts,
    /// Verified 4 KiB gets.
    #[value(name = "gets-4k")]
    SmallGets,
    /// Verified 1 MiB gets.
    #[value(name = "gets-1m")]
    LargeGets,
    /// A full scan, and gets beside it.
    Scan,
    /// Puts and gets at 10 %, 50 % and 90 % full.
    Fullness,
    /// Bytes of memory for each shard.
    Memory,
    /// Puts and gets with many shards beside few, in memory.
    Shards,
    /// CPU of opening a device of a million shards, in memory.
    Recovery,
    /// Write amplification at 80 % full, in memory.
    Amplification,
}

/// Measures the shard store of one device, and fio beside it.
#[derive(Parser)]
struct Args {
    /// Seconds of each measurement in each round.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Rounds; one more before them warms up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Directory whose disk is measured; 16 GiB are used. What is made there is deleted.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Size of the device.
    #[arg(long, default_value = "8GiB")]
    device_size: Size,
    /// Shards that are many, where few are held against them.
    #[arg(long, default_value_t = 10_000_000)]
    shards: u64,
    /// Share of the time that a scan beside gets is under way.
    #[arg(long, default_value_t = 0.1, value_parser = share)]
    scan_share: f64,
    /// Measure only these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Measurement>,
    /// Leave fio out.
    #[arg(long)]
    no_fio: bool,
    /// Form of the report.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if share > 0.0 && share <= 1.0 { Ok(share) } else { Err("a share is more than 0 and at most 1".to_owned()) }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let report = measure(&args);
    match args.output {
        Output::Text => print!("{}", table(&report.rows)),
        Output::Json => println!("{}", serde_json::json!({ "rows": report.rows, "failures": report.failures })),
    }
    for failure in &report.failures {
        eprintln!("storebench: {failure}");
    }
    if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What came of all measurements: one that fails does not take the others with it.
#[derive(Default)]
struct Report {
    rows: Vec<Row>,
    failures: Vec<String>,
}

impl Report {
    fn add(&mut self, name: &str, measured: Result<Vec<Row>, String>) {
        match measured {
            Ok(rows) => self.rows.extend(rows),
            Err(error) => self.failures.push(format!("{name}: {error}")),
        }
    }
}

fn measure(args: &Args) -> Report {
    let wanted = |measurement| args.only.is_empty() || args.only.contains(&measurement);
    let plan = Plan { seconds: args.seconds, rounds: args.rounds };
    let mut report = Report::default();
    if let Err(error) = on_bed(args, plan, &wanted, &mut report) {
        report.failures.push(error);
    }
    if wanted(Measurement::Fullness) {
        report.add("fullness", work_dir(args).and_then(|work| fullness::measure(work.path(), plan)));
    }
    if wanted(Measurement::Memory) || wanted(Measurement::Shards) {
        report.add("memory", counted(args, wanted(Measurement::Memory), wanted(Measurement::Shards)));
    }
    if wanted(Measurement::Recovery) {
        report.add("recovery", recovery::measure(RECOVERED_SHARDS, plan));
    }
    for mix in amplification::MIXES.iter().filter(|_| wanted(Measurement::Amplification)) {
        report.add(&format!("amplification, {}", mix.name), amplification::measure(mix));
    }
    report
}

fn work_dir(args: &Args) -> Result<TempDir, String> {
    tempfile::Builder::new().prefix("storebench-").tempdir_in(&args.dir).map_err(|error| error.to_string())
}

/// What one store on the disk under test serves, with fio beside it.
fn on_bed(args: &Args, plan: Plan, wanted: &impl Fn(Measurement) -> bool, report: &mut Report) -> Result<(), String> {
    type OnBed = fn(&Bed) -> Result<Vec<Row>, String>;
    let all: [(Measurement, &str, OnBed); 5] = [
        (Measurement::LargePuts, "puts-1m", puts::large),
        (Measurement::SmallPuts, "puts-4k", puts::small),
        (Measurement::SmallGets, "gets-4k", gets::small),
        (Measurement::LargeGets, "gets-1m", gets::large),
        (Measurement::Scan, "scan", scan::measure),
    ];
    if !all.iter().any(|(measurement, ..)| wanted(*measurement)) {
        return Ok(());
    }
    let work = work_dir(args)?;
    let scan = Pace { share: args.scan_share };
    let options = Options { device_bytes: args.device_size.0, plan, scan, with_fio: !args.no_fio };
    let bed = Bed::new(work.path(), options)?;
    for (_, name, run) in all.iter().filter(|(measurement, ..)| wanted(*measurement)) {
        report.add(name, run(&bed));
    }
    bed.close()
}

/// What needs a program that counts its memory.
fn counted(args: &Args, memory: bool, beside_few: bool) -> Result<Vec<Row>, String> {
    let path = std::env::current_exe().map_err(|e| e.to_string())?.with_file_name("storebench-memory");
    let mut command = Command::new(&path);
    command.args(["--seconds", &args.seconds.to_string(), "--rounds", &args.rounds.to_string()]);
    command.args(["--shards", &args.shards.to_string()]);
    command.args(memory.then_some("--memory")).args(beside_few.then_some("--beside-few"));
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("{}: {error} (make bench-store builds it)", path.display()))?;
    if !output.status.success() {
        return Err(format!("{} failed", path.display()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{}: {error}", path.display()))
}
