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
    let rows: Vec<Vec<String>> = measure(args, &work.path().join("device"), disk)?.iter().map(Row::cells).collect();
    let heads = ["store", "first per s", "second", "flushes each", "fio", "between", "ratio", "target", ""];
    print!("{}", aligned(&heads, &rows));
    Ok(())
}

/// One workload: the store, fio, and the store again, so that neither has a better half of the time.
struct Row {
    name: &'static str,
    store: [Measured; 2],
    fio_name: String,
    fio_per_s: Option<f64>,
    /// The ratio that docs/benchmarks.md promises.
    target: f64,
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let [first, second] = &self.store;
        let ratio = self.fio_per_s.map(|fio| f64::midpoint(first.per_s, second.per_s) / fio);
        let verdict = ratio.map_or("-", |ratio| if ratio >= self.target { "met" } else { "missed" });
        vec![
            self.name.to_owned(),
            format!("{:.0}", first.per_s),
            format!("{:.0}", second.per_s),
            figure(first.flushes_per_op, 3),
            self.fio_name.clone(),
            figure(self.fio_per_s, 0),
            figure(ratio, 2),
            self.target.to_string(),
            verdict.to_owned(),
        ]
    }
}

/// Operations a second, and device flushes for each where it writes.
struct Measured {
    ops: u64,
    per_s: f64,
    flushes_per_op: Option<f64>,
}

/// Formats a device in `path` and measures its store.
fn measure(args: &Args, path: &Path, disk: impl Fn(Job) -> Option<f64>) -> Result<[Row; 3], Box<dyn Error>> {
    uring::create_file(path, args.device_size.0)?;
    let (ready, handle) = mpsc::channel();
    let options = uring::OpenOptions::new(path);
    let thread = std::thread::spawn(move || serve(&options, ready));
    let result = match handle.recv() {
        Ok(store) => futures::executor::block_on(async {
            let measured = measure_store(args, &store, disk).await;
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

async fn measure_store(
    args: &Args,
    store: &StoreHandle,
    disk: impl Fn(Job) -> Option<f64>,
) -> Result<[Row; 3], StoreError> {
    let duration = Duration::from_secs_f64(args.seconds);
    let half = args.put_max.0 >> 21;
    eprintln!("store: 1 MiB puts");
    let first =
        puts(store, Puts { slot: LARGE_SLOT, len: 1 << 20, in_flight: 16, from: 0, most: half }, duration).await?;
    // As many writes between two flushes as the store had.
    let flushes = first.flushes_per_op.unwrap_or(1.0).max(1e-3);
    let job = Job { sync_every: (1.0 / flushes).round().max(1.0) as u32, ..WRITE_1MIB };
    let fio_per_s = disk(job);
    let second =
        puts(store, Puts { slot: LARGE_SLOT, len: 1 << 20, in_flight: 16, from: half, most: half }, duration).await?;
    let large = Row {
        name: "durable 1 MiB puts, 16 in flight",
        store: [first, second],
        fio_name: format!("1 MiB write qd16, fdatasync every {}", job.sync_every),
        fio_per_s,
        target: 0.85,
    };

    eprintln!("store: 4 KiB puts");
    let small_puts = |from| Puts { slot: SMALL_SLOT, len: 4096, in_flight: 64, from, most: u64::MAX };
    let first = puts(store, small_puts(0), duration).await?;
    let fio_per_s = disk(WRITE_4KIB);
    let second = puts(store, small_puts(first.ops), duration).await?;
    let records = first.ops + second.ops;
    let small = Row {
        name: "durable 4 KiB puts, 64 in flight",
        store: [first, second],
        fio_name: WRITE_4KIB.name.to_owned(),
        fio_per_s,
        target: 8.0,
    };

    eprintln!("store: 4 KiB gets");
    let first = gets(store, records, duration).await?;
    let fio_per_s = disk(READ_4KIB);
    let second = gets(store, records, duration).await?;
    let read = Row {
        name: "verified 4 KiB gets, 64 in flight",
        store: [first, second],
        fio_name: READ_4KIB.name.to_owned(),
        fio_per_s,
        target: 0.7,
    };
    Ok([large, small, read])
}

/// Verified gets of whole small records, in no order.
async fn gets(store: &StoreHandle, records: u64, duration: Duration) -> Result<Measured, StoreError> {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let (ops, per_s) = closed_loop(64, duration, u64::MAX, |_| {
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
    Ok(Measured { ops, per_s, flushes_per_op: None })
}

/// Which records to put.
struct Puts {
    slot: u8,
    /// Bytes of each.
    len: usize,
    in_flight: usize,
    /// Stripes `from..`.
    from: u64,
    /// At most so many.
    most: u64,
}

/// Durable puts.
async fn puts(store: &StoreHandle, puts: Puts, duration: Duration) -> Result<Measured, StoreError> {
    let Puts { slot, len, in_flight, from, most } = puts;
    let before = store.stats().await?.flushes;
    let (ops, per_s) = closed_loop(in_flight, duration, most, |number| async move {
        let number = from + number;
        let payload = Payload::Aligned { bytes: payload(number, len), len };
        store.put(ShardKey::stripe(StripeId(number), slot), Bytes::new(), payload).await
    })
    .await?;
    let flushes = store.stats().await?.flushes - before;
    Ok(Measured { ops, per_s, flushes_per_op: Some(flushes as f64 / ops.max(1) as f64) })
}

/// The record of that number: the number, then bytes that are not all alike.
fn payload(number: u64, len: usize) -> AlignedBytes {
    let mut buf = AlignedBuf::zeroed(len);
    for (i, word) in buf.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *word = (number + i as u64).to_le_bytes();
    }
    buf.freeze()
}

/// Keeps `in_flight` operations under way until the time is up or `most` were begun; how many were done, and
/// how many a second.
async fn closed_loop<F>(
    in_flight: usize,
    duration: Duration,
    most: u64,
    mut begin: impl FnMut(u64) -> F,
) -> Result<(u64, f64), StoreError>
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
    Ok((done, done as f64 / start.elapsed().as_secs_f64()))
}
