//! `holdfast fsck`: every device verified by itself, then what they hold together.

use ::salvage::fsck::{Census, Verified, census, verify};
use daemon::OfflineDevice;
use serde::Serialize;

use crate::args::{BenchDevices, Output};
use crate::bench::{self, Bench, bar, table};
use crate::error::CliError;
use crate::output;

const BAR: &str = "verifying {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";

#[derive(Serialize)]
struct Report {
    cluster: String,
    devices: Vec<Device>,
    /// Devices left out, and why.
    refused: Vec<String>,
    stripes: Census,
    clean: bool,
}

#[derive(Serialize)]
struct Device {
    path: String,
    device: String,
    /// Damaged label copies.
    label_faults: Vec<String>,
    from_checkpoint: u64,
    rolled_forward: u64,
    extents_scanned: u32,
    /// Bytes of writes that were never acknowledged; no finding.
    torn_bytes: u64,
    /// Place on the device and what is wrong there.
    damage: Vec<(u64, String)>,
    fell_back: bool,
    probed: bool,
    #[serde(flatten)]
    verified: Verified,
}

impl Device {
    fn new(device: &OfflineDevice, verified: Verified) -> Self {
        let copies = ["first", "second"].into_iter().zip(&device.label_faults);
        let faults = copies.filter_map(|(which, fault)| Some(format!("{which} label copy: {}", fault.as_ref()?)));
        let recovery = &device.recovery;
        Self {
            path: device.path.display().to_string(),
            device: device.device.to_string(),
            label_faults: faults.collect(),
            from_checkpoint: recovery.from_checkpoint,
            rolled_forward: recovery.rolled_forward,
            extents_scanned: recovery.extents_scanned,
            torn_bytes: recovery.torn_bytes,
            damage: recovery.damage.clone(),
            fell_back: recovery.fell_back,
            probed: recovery.probed,
            verified,
        }
    }

    fn has_findings(&self) -> bool {
        !self.label_faults.is_empty()
            || !self.damage.is_empty()
            || self.fell_back
            || self.verified.bad > 0
            || self.verified.failed.is_some()
    }

    fn findings(&self) -> Vec<String> {
        let named = |text: &str| format!("{}: {text}", self.path);
        let mut lines: Vec<String> = self.label_faults.iter().map(|fault| named(fault)).collect();
        lines.extend(self.damage.iter().map(|(at, what)| named(&format!("at byte {at}: {what}"))));
        lines.extend(self.verified.examples.iter().map(|bad| named(bad)));
        lines.extend(self.verified.failed.iter().map(|why| named(why)));
        lines
    }
}

/// Runs the verb and prints its report.
pub(crate) fn run(args: &BenchDevices, format: Output) -> Result<(), CliError> {
    let report = bench::with(&args.devices, async |bench| Ok(examine(bench).await))?;
    output::print(format, &report, || report.text())?;
    if report.clean { Ok(()) } else { Err(CliError::Damage("damage was found".into())) }
}

async fn examine(bench: &Bench) -> Report {
    let mut total = 0;
    for device in &bench.devices {
        total += device.store.stats().await.map_or(0, |stats| stats.live_bytes);
    }
    let bar = bar(total, BAR);
    // Side by side: each device has its own thread.
    let tasks: Vec<_> = bench
        .devices
        .iter()
        .map(|device| {
            let (store, bar) = (device.store.clone(), bar.clone());
            tokio::spawn(async move { verify(&store, |bytes| bar.inc(bytes)).await })
        })
        .collect();
    let mut verified = Vec::new();
    for task in tasks {
        verified.push(task.await.unwrap_or_else(|ended| Verified::failed(ended.to_string())));
    }
    bar.finish_and_clear();
    let stores: Vec<_> = bench.devices.iter().map(|device| device.store.clone()).collect();
    let stripes = census(&stores, &verified).await;
    let devices: Vec<Device> = bench.devices.iter().zip(verified).map(|(d, v)| Device::new(d, v)).collect();
    let clean = bench.refused.is_empty() && !stripes.has_findings() && !devices.iter().any(Device::has_findings);
    let cluster = bench.devices[0].cluster.to_string();
    Report { cluster, devices, refused: bench.refused.clone(), stripes, clean }
}

impl Report {
    fn text(&self) -> String {
        let mut blocks = vec![format!("cluster {}", self.cluster), self.device_table(), self.stripe_table()];
        if !self.stripes.journals.is_empty() {
            blocks.push(self.journal_table());
        }
        let mut lines = self.refused.clone();
        lines.extend(self.devices.iter().flat_map(Device::findings));
        lines.extend(self.stripes.examples.iter().map(|stripe| format!("unreadable: stripe {stripe}")));
        lines.extend(self.stripes.broken_records.iter().chain(&self.stripes.failed).cloned());
        lines.push(if self.clean { "clean".into() } else { "damage was found".into() });
        blocks.push(lines.join("\n"));
        blocks.join("\n\n")
    }

    fn device_table(&self) -> String {
        let heading = ["DEVICE", "PATH", "RECORDS", "BYTES", "BAD", "ROLLED FORWARD", "TORN BYTES", "STATE"];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        rows.extend(self.devices.iter().map(|device| {
            let state = match device {
                device if device.has_findings() => "damaged",
                device if device.probed => "good, probed",
                _ => "good",
            };
            vec![
                device.device[..12].to_owned(),
                device.path.clone(),
                device.verified.records.to_string(),
                device.verified.bytes.to_string(),
                device.verified.bad.to_string(),
                device.rolled_forward.to_string(),
                device.torn_bytes.to_string(),
                state.to_owned(),
            ]
        }));
        table(&rows)
    }

    fn stripe_table(&self) -> String {
        let stripes = &self.stripes;
        let row = |name: &str, count: u64| vec![name.to_owned(), count.to_string()];
        let mut rows = vec![vec!["STRIPES".to_owned(), "COUNT".to_owned()], row("complete", stripes.complete)];
        rows.extend(stripes.missing.iter().map(|(missing, count)| row(&format!("missing {missing}"), *count)));
        rows.push(row("unreadable", stripes.unreadable));
        rows.push(row("undescribed", stripes.undescribed));
        rows.push(row("never completed", stripes.unfinished));
        table(&rows)
    }

    fn journal_table(&self) -> String {
        let heading = ["JOURNAL", "FIRST", "LAST", "COPIES", "ABSENT", "CONFLICTS", "UNREADABLE"];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        rows.extend(self.stripes.journals.iter().map(|j| {
            [j.partition.into(), j.first, j.last, j.copies, j.absent, j.conflicts, j.unreadable]
                .map(|number: u64| number.to_string())
                .to_vec()
        }));
        table(&rows)
    }
}
