//! `bench`: a server of our own on a temporary directory, measured, beside what fio says the disk under it
//! can do before and after. The ratios are what docs/benchmarks.md is about; the absolute figures are the
//! machine's.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use benches::fio::{Figure, Fio, Job, READ_4KIB, WRITE_1MIB, WRITE_4KIB};
use benches::s3bench::{Plan, Report, measure};
use benches::server::{self, Options};
use benches::size::Size;
use benches::table::{aligned, figure};
use clap::{Parser, ValueEnum};

const JOBS: [Job; 3] = [WRITE_1MIB, WRITE_4KIB, READ_4KIB];
/// Bytes written to the devices for each byte put: 4+2.
const CODE_OVERHEAD: f64 = 6.0 / 4.0;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Starts target/release/holdfast on a temporary directory and measures it.
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
    /// The server; beside this program by default.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Directory whose disk is measured; the current one by default. What is made there is deleted.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// File-backed devices.
    #[arg(long, default_value_t = 6)]
    devices: u32,
    /// Size of each.
    #[arg(long, default_value = "8GiB")]
    device_size: String,
    /// Leave fio out.
    #[arg(long)]
    no_fio: bool,
    /// Form of the report.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(errors) => {
            eprintln!("{errors} requests failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<u64, Box<dyn std::error::Error>> {
    let beside = std::env::current_exe()?.with_file_name("holdfast");
    let work = tempfile::Builder::new().prefix("bench-").tempdir_in(&args.dir)?;
    let fio = if args.no_fio { None } else { Fio::find(work.path()).map_err(|line| eprintln!("{line}")).ok() };
    let before = disk(fio.as_ref(), args.seconds, "before");
    let report = serve_and_measure(&args, args.binary.clone().unwrap_or(beside), work.path()).await?;
    let after = disk(fio.as_ref(), args.seconds, "after");
    let ratios = ratios(&report, &before, &after);
    match args.output {
        Output::Text => {
            print!("{}", report.text());
            print!("{}", disk_text(&before, &after));
            print!("{}", ratios_text(&ratios));
        }
        Output::Json => {
            let ratios: Vec<_> = ratios.iter().map(|r| serde_json::json!({"name": r.name, "ratio": r.ratio})).collect();
            let all = serde_json::json!({"s3": report, "fio_before": before, "fio_after": after, "ratios": ratios});
            println!("{}", serde_json::to_string_pretty(&all)?);
        }
    }
    Ok(report.errors())
}

/// The server lives no longer than this call, so that fio has the disk to itself.
async fn serve_and_measure(args: &Args, binary: PathBuf, work: &Path) -> Result<Report, Box<dyn std::error::Error>> {
    let options =
        Options { binary, data: work.join("data"), devices: args.devices, device_size: args.device_size.clone() };
    eprintln!("starting {}", options.binary.display());
    let running = server::start(&options).await?;
    let plan = Plan {
        duration: Duration::try_from_secs_f64(args.seconds)?,
        sizes: args.sizes.clone(),
        clients: args.clients.clone(),
        list_keys: args.list_keys,
        put_bytes_max: args.put_max.0,
        bucket: "bench".to_owned(),
    };
    Ok(measure(&running.endpoint, &running.server, &plan, |doing| eprintln!("{doing}")).await?)
}

/// The jobs' figures, in order.
fn disk(fio: Option<&Fio>, seconds: f64, when: &str) -> Vec<Option<Figure>> {
    let Some(fio) = fio else { return vec![None; JOBS.len()] };
    let run = |job: &Job| {
        eprintln!("fio {when}: {}", job.name);
        fio.run(*job, seconds).map_err(|error| eprintln!("{error}")).ok()
    };
    JOBS.iter().map(run).collect()
}

fn disk_text(before: &[Option<Figure>], after: &[Option<Figure>]) -> String {
    let rows: Vec<Vec<String>> = JOBS
        .iter()
        .zip(before.iter().zip(after))
        .map(|(job, (before, after))| {
            let mib = |f: &Option<Figure>| figure(f.map(|f| f.mib_per_s), 1);
            let ops = |f: &Option<Figure>| figure(f.map(|f| f.per_s), 0);
            vec![job.name.to_owned(), mib(before), ops(before), mib(after), ops(after)]
        })
        .collect();
    let heads = ["fio, same directory", "before MiB/s", "ops/s", "after MiB/s", "ops/s"];
    format!("\n{}", aligned(&heads, &rows))
}

/// One comparison of the server with the disk.
struct Ratio {
    name: &'static str,
    ratio: Option<f64>,
}

fn ratios(report: &Report, before: &[Option<Figure>], after: &[Option<Figure>]) -> Vec<Ratio> {
    // The disk is taken at the mean of the two: it may have been disturbed in either.
    let mean = |job: usize, of: fn(Figure) -> f64| match (before[job].map(of), after[job].map(of)) {
        (Some(a), Some(b)) => Some(f64::midpoint(a, b)),
        (a, b) => a.or(b),
    };
    let line = |op, size, clients| report.line(op, size, clients);
    let ratio = |ours: Option<f64>, disk: Option<f64>| ours.zip(disk).map(|(ours, disk)| ours / disk);
    let bandwidth = |op, size, factor: f64, job| {
        ratio(line(op, size, 16).map(|l| l.mib_per_s * factor), mean(job, |f| f.mib_per_s))
    };
    let rate = |op, clients, job| ratio(line(op, 4096, clients).map(|l| l.requests_per_s), mean(job, |f| f.per_s));
    vec![
        Ratio {
            name: "PUT 64 MiB x16, device bytes (4+2) / fio 1 MiB write",
            ratio: bandwidth("PUT", 64 << 20, CODE_OVERHEAD, 0),
        },
        Ratio {
            name: "PUT 1 MiB x16, device bytes (4+2) / fio 1 MiB write",
            ratio: bandwidth("PUT", 1 << 20, CODE_OVERHEAD, 0),
        },
        Ratio { name: "PUT 4 KiB x16 / fio 4 KiB write + fdatasync", ratio: rate("PUT", 16, 1) },
        Ratio { name: "PUT 4 KiB x1 / fio 4 KiB write + fdatasync", ratio: rate("PUT", 1, 1) },
        Ratio { name: "GET 4 KiB x16 / fio 4 KiB random read", ratio: rate("GET", 16, 2) },
    ]
}

fn ratios_text(ratios: &[Ratio]) -> String {
    let rows: Vec<Vec<String>> = ratios.iter().map(|r| vec![r.name.to_owned(), figure(r.ratio, 2)]).collect();
    format!("\n{}", aligned(&["ratio", ""], &rows))
}
