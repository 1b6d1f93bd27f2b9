//! `storebench`: the store of one device alone, through its handle, beside fio on the same disk: the
//! sentences of docs/benchmarks.md about one device.
#![forbid(unsafe_code)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use base::{ClusterId, DeviceId, StripeId};
use benches::fio::{Fio, Job, READ_4KIB, WRITE_1MIB, WRITE_4KIB};
use benches::size::Size;
use benches::table::{aligned, figure};
use bytes::Bytes;
use clap::Parser;
use disk::{AlignedBuf, AlignedBytes};
use format::ShardKey;
use futures::stream::{FuturesUnordered, StreamExt};
use shards::{FormatOptions, Payload, Store, StoreError, StoreHandle};

/// Slots of the keys, so that the three measurements do not meet.
const LARGE_SLOT: u8 = 0;
const SMALL_SLOT: u8 = 1;

/// Measures the shard store of one file-backed device, and fio beside it.
#[derive(Parser)]
struct Args {
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Directory whose disk is measured. What is made there is deleted.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Size of the device.
    #[arg(long, default_value = "16GiB")]
    device_size: Size,
    /// What the large puts may write in all.
    #[arg(long, default_value = "8GiB")]
    put_max: Size,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storebench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let work = tempfile::Builder::new().prefix("storebench-").tempdir_in(&args.dir)?;
    let fio = Fio::find(work.path()).map_err(|line| eprintln!("{line}")).ok();
    let disk = |job: Job| {
        eprintln!("fio: {}", job.name);
        let fio = fio.as_ref()?;
        fio.run(job, args.seconds).map_err(|error| eprintln!("{error}")).ok().map(|figure| figure.per_s)
    };
    let before = [WRITE_1MIB, WRITE_4KIB, READ_4KIB].map(disk);
    let ours = measure(args, &work.path().join("device"))?;
    let after = [WRITE_1MIB, WRITE_4KIB, READ_4KIB].map(disk);

    let names = [
        ("durable 1 MiB puts, 16 in flight", WRITE_1MIB.name, 0.85),
        ("durable 4 KiB puts, 64 in flight", WRITE_4KIB.name, 8.0),
        ("verified 4 KiB gets, 64 in flight", READ_4KIB.name, 0.7),
    ];
    let rows: Vec<Vec<String>> = names
        .iter()
        .enumerate()
        .map(|(i, (store, fio, target))| {
            let best = before[i].into_iter().chain(after[i]).reduce(f64::max);
            let ratio = best.map(|best| ours[i].per_s / best);
            let verdict = ratio.map_or("-", |ratio| if ratio >= *target { "met" } else { "missed" });
            vec![
                (*store).to_owned(),
                format!("{:.0}", ours[i].per_s),
                figure(ours[i].flushes_per_op, 3),
                (*fio).to_owned(),
                figure(before[i], 0),
                figure(after[i], 0),
                figure(ratio, 2),
                format!("{target}"),
                verdict.to_owned(),
            ]
        })
        .collect();
    // The better run of fio counts: the disk could do at least that.
    let heads = ["store", "per s", "flushes each", "fio", "before", "after", "ratio", "target", ""];
    print!("{}", aligned(&heads, &rows));
    Ok(())
}

/// Operations a second, and device flushes for each where it writes.
struct Measured {
    per_s: f64,
    flushes_per_op: Option<f64>,
}

/// Formats a device in `path` and measures its store.
fn measure(args: &Args, path: &Path) -> Result<[Measured; 3], Box<dyn Error>> {
    uring::create_file(path, args.device_size.0)?;
    let (ready, handle) = mpsc::channel();
    let options = uring::OpenOptions::new(path);
    let thread = std::thread::spawn(move || serve(&options, ready));
    let result = match handle.recv() {
        Ok(store) => futures::executor::block_on(async {
            let measured = measure_store(args, &store).await;
            let closed = store.close().await;
            measured.and_then(|measured| closed.map(|()| measured))
        }),
        Err(_) => Err(StoreError::Closed),
    };
    // Why the store's thread ended says more than that it did.
    thread.join().map_err(|_| "the store's thread panicked")??;
    Ok(result?)
}

/// Owns the device on this thread until the store is closed.
fn serve(options: &uring::OpenOptions, ready: mpsc::Sender<StoreHandle>) -> Result<(), String> {
    let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let format = FormatOptions {
        cluster: ClusterId([1; 16]),
        device: DeviceId([2; 16]),
        salt: std::process::id(),
        now_ms,
        extent_bytes: None,
    };
    let served = uring::run(options, |device| async move {
        Store::format(&device, &format).await?;
        let store = Store::open(device, false).await?;
        store
            .serve(move |handle| {
                // The other side waits for just this, unless it is gone.
                drop(ready.send(handle));
            })
            .await;
        Ok::<(), StoreError>(())
    });
    served.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

async fn measure_store(args: &Args, store: &StoreHandle) -> Result<[Measured; 3], StoreError> {
    let duration = Duration::from_secs_f64(args.seconds);
    eprintln!("store: 1 MiB puts");
    let large_max = args.put_max.0 >> 20;
    let large = puts(store, LARGE_SLOT, 1 << 20, 16, duration, large_max).await?;
    eprintln!("store: 4 KiB puts");
    let (small, records) = {
        let before = store.stats().await?.puts;
        let small = puts(store, SMALL_SLOT, 4096, 64, duration, u64::MAX).await?;
        (small, store.stats().await?.puts - before)
    };
    eprintln!("store: 4 KiB gets");
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let gets = closed_loop(64, duration, u64::MAX, |_| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let key = ShardKey::stripe(StripeId(random % records.max(1)), SMALL_SLOT);
        async move {
            let bytes = store.get(key, 0..4096).await?;
            assert_eq!(bytes.len(), 4096, "a whole record");
            assert_eq!(bytes[..8], key.id.to_le_bytes(), "the record asked for");
            Ok(())
        }
    })
    .await?;
    Ok([large, small, Measured { per_s: gets, flushes_per_op: None }])
}

/// Durable puts of `len` bytes under stripes 0, 1, 2, ...
async fn puts(
    store: &StoreHandle,
    slot: u8,
    len: usize,
    in_flight: usize,
    duration: Duration,
    most: u64,
) -> Result<Measured, StoreError> {
    let before = store.stats().await?;
    let per_s = closed_loop(in_flight, duration, most, |number| async move {
        let payload = Payload::Aligned { bytes: payload(number, len), len };
        store.put(ShardKey::stripe(StripeId(number), slot), Bytes::new(), payload).await
    })
    .await?;
    let after = store.stats().await?;
    let puts = (after.puts - before.puts) as f64;
    Ok(Measured { per_s, flushes_per_op: Some((after.flushes - before.flushes) as f64 / puts) })
}

/// The record of that number: the number, then bytes that are not all alike.
fn payload(number: u64, len: usize) -> AlignedBytes {
    let mut buf = AlignedBuf::zeroed(len);
    for (i, word) in buf.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *word = (number + i as u64).to_le_bytes();
    }
    buf.freeze()
}

/// Keeps `in_flight` operations under way until the time is up or `most` were begun; operations a second.
async fn closed_loop<F>(
    in_flight: usize,
    duration: Duration,
    most: u64,
    mut begin: impl FnMut(u64) -> F,
) -> Result<f64, StoreError>
where
    F: Future<Output = Result<(), StoreError>>,
{
    let start = Instant::now();
    let mut under_way = FuturesUnordered::new();
    let (mut begun, mut done) = (0u64, 0u64);
    loop {
        while under_way.len() < in_flight && begun < most && start.elapsed() < duration {
            under_way.push(begin(begun));
            begun += 1;
        }
        match under_way.next().await {
            Some(result) => result?,
            None => break,
        }
        done += 1;
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}
