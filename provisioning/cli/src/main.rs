//! `holdfast`, the operator's command: a composition root that parses, wires and prints.
//!
//! Invariants: an error is one line on the error output; the exit code is 0 done, 1 failed, 2 wrong usage,
//! 3 damage found; no secret is printed but by the verb that creates it.

#![forbid(unsafe_code)]

mod args;
mod bench;
mod catalog_keys;
mod data_dir;
mod dev;
mod dump;
mod error;
mod fsck;
mod key;
mod logging;
mod output;
mod rack;
mod rack_args;
mod salvage;
mod settings;
mod signals;
mod size;
mod socket;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use serde::Serialize;

use crate::args::{Cli, Output, Verb};
use crate::error::CliError;
use crate::rack_args::{ClusterVerb, NodeVerb};

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.verb, cli.output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(verb: Verb, format: Output) -> Result<(), CliError> {
    match verb {
        Verb::Dev(args) => dev::run(*args, format),
        Verb::Key(verb) => key::run(verb, format),
        Verb::Fsck(args) => fsck::run(&args, format),
        Verb::Dump(args) => dump::run(&args, format),
        Verb::Salvage(args) => salvage::run(&args, format),
        Verb::Status { access } => rack::admin::status(&access, format),
        Verb::Cluster(ClusterVerb::Create(args)) => rack::cluster::create(&args, format),
        Verb::Controller(args) => rack::cluster::controller(&args),
        Verb::Node(NodeVerb::Run(args)) => rack::node::run(&args),
        Verb::Node(verb) => rack::admin::node(verb, format),
        Verb::Device(verb) => rack::admin::device(verb, format),
        Verb::Token(verb) => rack::admin::token(verb, format),
        Verb::Rack(args) => rack::launch::run(&args, format),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "holdfast", &mut std::io::stdout());
            Ok(())
        }
        Verb::Version => {
            let version = Version { version: env!("CARGO_PKG_VERSION") };
            output::print(format, &version, || format!("holdfast {}", version.version))
        }
    }
}
