//! `storebench-memory`: the part of `storebench` that counts memory. A program of its own, for counting slows every
//! allocation down, and other figures with it. Prints its rows as JSON; `storebench` runs it.
#![forbid(unsafe_code)]

use std::alloc::System;
use std::fs;
use std::process::ExitCode;

use benches::store::bed::Plan;
use benches::store::scale::{Memory, Wanted, measure};
use clap::Parser;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Measures a store that holds many shards, on a device of memory.
#[derive(Parser)]
struct Args {
    /// Seconds of each measurement in each round.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Rounds; one more before them warms up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Shards that are many.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(20_000..))]
    shards: u64,
    /// Bytes for each shard.
    #[arg(long)]
    memory: bool,
    /// Puts and gets beside a store that holds few.
    #[arg(long)]
    beside_few: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let plan = Plan { seconds: args.seconds, rounds: args.rounds };
    let wanted = Wanted { memory: args.memory, shards: args.beside_few };
    match measure(args.shards, plan, wanted, memory) {
        Ok(rows) => {
            println!("{}", serde_json::json!(rows));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("storebench-memory: {error}");
            ExitCode::FAILURE
        }
    }
}

fn memory() -> Memory {
    let counted = ALLOCATOR.stats();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    Memory {
        allocated_bytes: (counted.bytes_allocated - counted.bytes_deallocated) as u64,
        resident_bytes: kib.unwrap_or(0u64) * 1024,
    }
}
