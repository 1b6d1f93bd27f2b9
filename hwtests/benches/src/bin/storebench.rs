//! `storebench`: the store of one device alone, beside fio on the same disk and in the same rounds: the sentences of
//! docs/benchmarks.md about one device. Figures, not tests: a missed target is a word in the table, no failure.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use benches::size::Size;
use benches::store::bed::{Bed, Plan};
use benches::store::rows::{Row, table};
use benches::store::{gets, puts};
use clap::{Parser, ValueEnum};

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
    /// Directory whose disk is measured; twice the device's size is used. What is made there is deleted.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Size of the device.
    #[arg(long, default_value = "8GiB")]
    device_size: Size,
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

fn main() -> ExitCode {
    let args = Args::parse();
    let mut rows = Vec::new();
    let done = measure(&args, &mut rows);
    // What was measured before a failure is worth its time.
    match args.output {
        Output::Text => print!("{}", table(&rows)),
        Output::Json => println!("{}", serde_json::json!({ "rows": rows })),
    }
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storebench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args, rows: &mut Vec<Row>) -> Result<(), String> {
    let wanted = |measurement| args.only.is_empty() || args.only.contains(&measurement);
    let plan = Plan { seconds: args.seconds, rounds: args.rounds };
    let work = tempfile::Builder::new().prefix("storebench-").tempdir_in(&args.dir).map_err(|e| e.to_string())?;
    type OnBed = fn(&Bed) -> Result<Vec<Row>, String>;
    let on_bed: [(Measurement, OnBed); 4] = [
        (Measurement::LargePuts, puts::large),
        (Measurement::SmallPuts, puts::small),
        (Measurement::SmallGets, gets::small),
        (Measurement::LargeGets, gets::large),
    ];
    if on_bed.iter().any(|(measurement, _)| wanted(*measurement)) {
        let bed = Bed::new(work.path(), args.device_size.0, plan, !args.no_fio)?;
        for (_, run) in on_bed.iter().filter(|(measurement, _)| wanted(*measurement)) {
            rows.extend(run(&bed)?);
        }
        bed.close()?;
    }
    Ok(())
}
