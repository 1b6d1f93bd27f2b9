//! Devices on a bench: opened read-only, told apart by cluster, and let go at the end.

use std::path::PathBuf;
use std::time::Duration;

use daemon::{OfflineDevice, open_offline};
use indicatif::{ProgressBar, ProgressStyle};

use crate::error::CliError;

/// The devices of one cluster, and what is to be said of the others.
pub(crate) struct Bench {
    pub(crate) devices: Vec<OfflineDevice>,
    /// Devices that cannot be used, and why; each a finding.
    pub(crate) refused: Vec<String>,
}

/// Opens what can be opened, gives it to `work`, and lets it go.
pub(crate) fn with<T>(paths: &[PathBuf], work: impl AsyncFnOnce(&Bench) -> Result<T, CliError>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(CliError::file("the executor"))?;
    runtime.block_on(async {
        let bench = open(paths).await?;
        let done = work(&bench).await;
        for device in bench.devices {
            device.close().await;
        }
        done
    })
}

async fn open(paths: &[PathBuf]) -> Result<Bench, CliError> {
    let mut bench = Bench { devices: Vec::new(), refused: Vec::new() };
    for opened in open_offline(paths).await {
        match opened {
            Err(error) => bench.refused.push(error.to_string()),
            Ok(device) => match bench.devices.iter().find(|known| known.device == device.device) {
                Some(known) => {
                    let (path, other) = (device.path.display(), known.path.display());
                    bench.refused.push(format!("{path}: the same device as {other}; left out"));
                    device.close().await;
                }
                None => bench.devices.push(device),
            },
        }
    }
    leave_out_other_clusters(&mut bench).await;
    if bench.devices.is_empty() {
        return Err(CliError::Refused(format!("no device can be used: {}", bench.refused.join("; "))));
    }
    Ok(bench)
}

/// The cluster of most devices stays: stripe numbers of two clusters must not be mixed.
async fn leave_out_other_clusters(bench: &mut Bench) {
    let count = |of: &OfflineDevice| bench.devices.iter().filter(|device| device.cluster == of.cluster).count();
    let Some(cluster) = bench.devices.iter().rev().max_by_key(|device| count(device)).map(|device| device.cluster)
    else {
        return;
    };
    for device in std::mem::take(&mut bench.devices) {
        if device.cluster == cluster {
            bench.devices.push(device);
        } else {
            let path = device.path.display();
            bench
                .refused
                .push(format!("{path}: belongs to cluster {}, the others to {cluster}; left out", device.cluster));
            device.close().await;
        }
    }
}

/// A bar on a terminal, nothing elsewhere.
pub(crate) fn bar(total: u64, template: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    bar.set_style(ProgressStyle::with_template(template).expect("our templates parse"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Rows as aligned columns; numbers to the right when every cell below the heading is one.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let is_number = |at: usize| {
        let mut cells = rows.iter().skip(1).filter_map(|row| row.get(at)).peekable();
        cells.peek().is_some() && cells.all(|cell| cell.chars().all(|c| c.is_ascii_digit()))
    };
    let shapes: Vec<(usize, bool)> = (0..columns).map(|at| (width(at), is_number(at))).collect();
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let cells = row.iter().zip(&shapes).map(|(cell, (width, number))| {
                let pad = " ".repeat(width - cell.chars().count());
                if *number { pad + cell } else { cell.clone() + &pad }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_numbers_stand_right() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        assert_eq!(
            table(&[row("A", "BYTES"), row("long", "7"), row("é", "1234567")]),
            "A       BYTES\nlong        7\né     1234567"
        );
    }
}
