//! What every measurement on the disk under test stands on: a store on one written file, and fio on another beside it.

use std::path::Path;

use crate::fio::{Figure, Fio, Job};
use crate::store::load::{Order, Outcome, Payloads, Records, Span, puts};
use crate::store::scan::Pace;
use crate::store::served::{Served, Side, create_written};

/// Bytes of the file that fio works on: as much as the largest set of records.
const FIO_BYTES: u64 = 2 << 30;
/// Records of 1 MiB: 2 GiB, more than any cache on the way would gladly hold.
const LARGE_RECORDS: u64 = 2048;
/// Records of 4 KiB: 1 GiB.
const SMALL_RECORDS: u64 = 262_144;
/// The least device that holds both sets twice, with the reserve.
pub const DEVICE_BYTES_MIN: u64 = 6 << 30;

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Seconds of each measurement.
    pub seconds: f64,
    /// Rounds after the warm-up.
    pub rounds: u32,
}

/// What a bed is made of.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Size of the device.
    pub device_bytes: u64,
    /// How long and how often.
    pub plan: Plan,
    /// How much of the time a scan beside other work is under way.
    pub scan: Pace,
    /// Whether to hold the store against fio.
    pub with_fio: bool,
}

/// A store and fio on the same disk.
pub struct Bed {
    /// The store.
    pub store: Served,
    /// How long and how often.
    pub plan: Plan,
    /// How much of the time a scan beside other work is under way.
    pub scan: Pace,
    /// The records of 1 MiB. Not there before [`Self::fill`].
    pub large: Records,
    /// The records of 4 KiB. Not there before [`Self::fill`].
    pub small: Records,
    fio: Option<Fio>,
}

impl Bed {
    /// Makes both files in `dir`.
    ///
    /// # Errors
    /// Why they cannot be made.
    pub fn new(dir: &Path, options: Options) -> Result<Self, String> {
        let Options { device_bytes, plan, scan, with_fio } = options;
        if device_bytes < DEVICE_BYTES_MIN {
            return Err(format!("a device of {device_bytes} bytes is too small; {DEVICE_BYTES_MIN} are needed"));
        }
        eprintln!("writing the device's file");
        let path = dir.join("device");
        create_written(&path, device_bytes)?;
        let fio = if with_fio { Fio::find(dir).map_err(|line| eprintln!("{line}")).ok() } else { None };
        let fio = match fio {
            Some(fio) => {
                eprintln!("writing fio's file");
                let path = dir.join("fio.written");
                create_written(&path, FIO_BYTES)?;
                Some(fio.on(path))
            }
            None => None,
        };
        Ok(Self {
            store: Served::start(&path)?,
            plan,
            scan,
            large: Records { slot: 0, count: LARGE_RECORDS, payloads: Payloads::new(1 << 20, 32) },
            small: Records { slot: 1, count: SMALL_RECORDS, payloads: Payloads::new(4096, 1024) },
            fio,
        })
    }

    /// Puts every record of a set once.
    ///
    /// # Errors
    /// The store's.
    pub fn fill(&self, records: &Records, in_flight: usize) -> Result<Outcome, String> {
        let records = records.clone();
        let span = Span::ops(in_flight, records.count);
        self.store.run(Side::Caller, move |store| async move { puts(&store, &records, Order::From(0), span).await })
    }

    /// What fio reaches; none without fio.
    #[must_use]
    pub fn fio(&self, job: Job) -> Option<Figure> {
        self.fio_over(job, FIO_BYTES)
    }

    /// The same over the first bytes of its file.
    #[must_use]
    pub fn fio_over(&self, job: Job, bytes: u64) -> Option<Figure> {
        assert!(bytes <= FIO_BYTES, "fio's file has {FIO_BYTES} bytes");
        self.fio.as_ref()?.run_over(job, bytes, self.plan.seconds).map_err(|error| eprintln!("{error}")).ok()
    }

    /// Closes the store.
    ///
    /// # Errors
    /// The store's.
    pub fn close(self) -> Result<(), String> {
        self.store.close()
    }
}
