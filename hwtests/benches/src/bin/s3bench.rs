//! `s3bench`: PUT, GET, HEAD and listings against any S3 endpoint named by the usual AWS variables.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use benches::client::Endpoint;
use benches::observe::{Server, pid_of};
use benches::s3bench::{Plan, measure};
use benches::size::Size;
use clap::{Parser, ValueEnum};

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Measures an S3 endpoint (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY).
#[derive(Parser)]
struct Args {
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Object sizes.
    #[arg(long, value_delimiter = ',', default_value = "4KiB,64KiB,1MiB,16MiB,64MiB")]
    sizes: Vec<Size>,
    /// Clients at once.
    #[arg(long, value_delimiter = ',', default_value = "1,16")]
    clients: Vec<u64>,
    /// Keys to create and list; 0 for none.
    #[arg(long, default_value_t = 100_000)]
    list_keys: u64,
    /// What one measurement may put.
    #[arg(long, default_value = "2GiB")]
    put_max: Size,
    /// Bucket to make and use.
    #[arg(long)]
    bucket: Option<String>,
    /// Process id of the server, for its CPU and memory.
    #[arg(long)]
    pid: Option<u32>,
    /// Data directory of the server, to find its process by.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Admin address of the server, for its metrics.
    #[arg(long, default_value = "127.0.0.1:9001")]
    admin: String,
    /// Form of the report.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(args).await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(errors) => {
            eprintln!("{errors} requests failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("s3bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<u64, Box<dyn std::error::Error>> {
    let endpoint = Endpoint::from_variables(|name| std::env::var(name).ok())?;
    let pid = args.pid.or_else(|| args.data.as_deref().and_then(pid_of));
    let server = Server { pid, admin: Some(args.admin) };
    let plan = Plan {
        duration: Duration::try_from_secs_f64(args.seconds)?,
        sizes: args.sizes,
        clients: args.clients,
        list_keys: args.list_keys,
        put_bytes_max: args.put_max.0,
        bucket: args.bucket.unwrap_or_else(|| format!("bench-{}", std::process::id())),
    };
    let report = measure(&endpoint, &server, &plan, |doing| eprintln!("{doing}")).await?;
    match args.output {
        Output::Text => print!("{}", report.text()),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(report.errors())
}
