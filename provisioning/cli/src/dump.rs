//! `holdfast dump`: what is on each device, record by record.

use std::io::{self, Write};

use ::salvage::dump::{Filter, RecordLine, records, space_of};
use daemon::OfflineDevice;
use serde::Serialize;

use crate::args::{DumpArgs, Output};
use crate::bench::{self, Bench};
use crate::error::CliError;
use crate::output::{self, utc};

#[derive(Serialize)]
struct Head {
    path: String,
    device: String,
    cluster: String,
    created_ms: u64,
    label_faults: [Option<String>; 2],
    size_bytes: u64,
    extent_bytes: u32,
    extents: u32,
    extents_start: u64,
    records: u64,
    live_bytes: u64,
    available_bytes: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    device: &'a str,
    #[serde(flatten)]
    record: RecordLine,
}

/// Runs the verb.
pub(crate) fn run(args: &DumpArgs, format: Output) -> Result<(), CliError> {
    let filter = Filter { space: args.space.as_deref().and_then(space_of), stripe: args.stripe, limit: args.limit };
    bench::with(&args.bench.devices, async |bench| dump(bench, &filter, format).await)
}

async fn dump(bench: &Bench, filter: &Filter, format: Output) -> Result<(), CliError> {
    for device in &bench.devices {
        let head = head(device).await;
        output::print(format, &head, || head.text())?;
        let id = head.device;
        let mut written = Ok(());
        let shown = records(&device.store, filter, |record| {
            written = show(format, &id, record);
            written.is_ok()
        });
        shown.await.map_err(|error| CliError::Refused(format!("{}: {error}", head.path)))?;
        match written {
            // The reader has seen enough, as `head` does.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(CliError::file("standard output"))?,
        }
    }
    if bench.refused.is_empty() {
        return Ok(());
    }
    Err(CliError::Damage(bench.refused.join("; ")))
}

async fn head(device: &OfflineDevice) -> Head {
    let stats = device.store.stats().await.unwrap_or_default();
    let geometry = device.geometry;
    Head {
        path: device.path.display().to_string(),
        device: device.device.to_string(),
        cluster: device.cluster.to_string(),
        created_ms: device.created_ms,
        label_faults: device.label_faults.clone(),
        size_bytes: geometry.size_bytes,
        extent_bytes: geometry.extent_bytes,
        extents: geometry.extents,
        extents_start: geometry.extent_offset(0),
        records: stats.records,
        live_bytes: stats.live_bytes,
        available_bytes: stats.available_bytes,
    }
}

impl Head {
    fn text(&self) -> String {
        let copy = |fault: &Option<String>| fault.clone().unwrap_or_else(|| "good".into());
        format!(
            "{}\n  device   {}\n  cluster  {}\n  formatted {}\n  labels   {}; {}\n  size     {} bytes\n  \
             extents  {} of {} bytes, from byte {}\n  records  {}, {} bytes live, {} bytes available\n\n\
             {:<8} {:<16} {:>4} {:>9}  WHAT",
            self.path,
            self.device,
            self.cluster,
            utc(self.created_ms),
            copy(&self.label_faults[0]),
            copy(&self.label_faults[1]),
            self.size_bytes,
            self.extents,
            self.extent_bytes,
            self.extents_start,
            self.records,
            self.live_bytes,
            self.available_bytes,
            "SPACE",
            "ID",
            "SLOT",
            "BYTES",
        )
    }
}

fn show(format: Output, device: &str, record: RecordLine) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        Output::Json => {
            let line = Line { device, record };
            writeln!(out, "{}", serde_json::to_string(&line).expect("results are plain structs"))
        }
        Output::Text => writeln!(out, "{}", text(&record)),
    }
}

fn text(record: &RecordLine) -> String {
    let what = match (&record.about, &record.error) {
        (_, Some(error)) => format!("unreadable: {error}"),
        (None, None) => format!("{} {}", if record.space == "fact" { "kind" } else { "of" }, record.owner),
        (Some(about), None) => {
            let last = if about.last { ", last" } else { "" };
            let part = if about.part > 0 { format!(" part {}", about.part) } else { String::new() };
            let name = if about.pack { "a pack".to_owned() } else { format!("{}/{:?}", about.bucket, about.key) };
            let (k, m, number) = (about.data_shards, about.parity_shards, about.stripe_number);
            format!(
                "{k}+{m} {name}{part} stripe {number}{last}, {} bytes, {}",
                about.stripe_bytes,
                utc(about.modified_ms)
            )
        }
    };
    let id = if record.space == "stripe" { format!("{:016x}", record.id) } else { record.id.to_string() };
    format!("{:<8} {id:<16} {:>4} {:>9}  {what}", record.space, record.slot, record.bytes)
}
