//! What fio says the disk can do: the other side of every ratio.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

/// Bytes of the file that fio works on.
const FILE_BYTES: u64 = 2 << 30;

/// A workload. All are O_DIRECT through io_uring.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// What it is, for people.
    pub name: &'static str,
    /// `write`, `randwrite` or `randread`.
    pub pattern: &'static str,
    /// Bytes of a request.
    pub block_bytes: u64,
    /// Requests at once.
    pub depth: u32,
    /// Writes between two `fdatasync`; 0 for none.
    pub sync_every: u32,
}

/// Large durable writes: a flush for every 16, as group commit makes of 16 puts in flight.
pub const WRITE_1MIB: Job = Job {
    name: "1 MiB write qd16, fdatasync every 16",
    pattern: "write",
    block_bytes: 1 << 20,
    depth: 16,
    sync_every: 16,
};
/// Small durable writes one at a time: what a store without group commit would do.
pub const WRITE_4KIB: Job =
    Job { name: "4 KiB write + fdatasync qd1", pattern: "randwrite", block_bytes: 4096, depth: 1, sync_every: 1 };
/// Small reads, deep.
pub const READ_4KIB: Job =
    Job { name: "4 KiB random read qd64", pattern: "randread", block_bytes: 4096, depth: 64, sync_every: 0 };

/// What fio measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Figure {
    /// Requests a second.
    pub per_s: f64,
    /// Bytes a second, MiB.
    pub mib_per_s: f64,
}

/// fio on one file of one directory; the file is deleted when dropped.
pub struct Fio {
    file: PathBuf,
}

impl Fio {
    /// Finds fio, installing it where that is possible.
    ///
    /// # Errors
    /// One line that says what to do.
    pub fn find(dir: &Path) -> Result<Self, String> {
        if !is_installed() && nix::unistd::geteuid().is_root() {
            eprintln!("installing fio");
            let quiet = |args: &[&str]| {
                let mut command = Command::new("apt-get");
                command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
                command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
            };
            if !quiet(&["install", "-y", "fio"]) {
                quiet(&["update"]);
                quiet(&["install", "-y", "fio"]);
            }
        }
        if is_installed() {
            return Ok(Self { file: dir.join("fio.tmp") });
        }
        Err("fio is not installed: no ratios to what the disk can do (apt-get install fio)".to_owned())
    }

    /// Runs a job for `seconds`.
    ///
    /// # Errors
    /// What fio said.
    pub fn run(&self, job: Job, seconds: f64) -> Result<Figure, String> {
        let mut command = Command::new("fio");
        command.args(["--name=disk", "--ioengine=io_uring", "--direct=1", "--thread", "--output-format=json"]);
        command.arg(format!("--filename={}", self.file.display())).arg(format!("--size={FILE_BYTES}"));
        command.arg(format!("--rw={}", job.pattern)).arg(format!("--bs={}", job.block_bytes));
        command.arg(format!("--iodepth={}", job.depth));
        command.arg("--time_based").arg(format!("--runtime={}ms", (seconds * 1e3) as u64));
        if job.sync_every > 0 {
            command.arg(format!("--fdatasync={}", job.sync_every));
        }
        let output = command.output().map_err(|error| format!("fio: {error}"))?;
        let wrong = || format!("fio: {}", String::from_utf8_lossy(&output.stderr).trim());
        if !output.status.success() {
            return Err(wrong());
        }
        let side = if job.pattern.ends_with("read") { "read" } else { "write" };
        figure(&output.stdout, side).ok_or_else(wrong)
    }
}

impl Drop for Fio {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.file));
    }
}

fn is_installed() -> bool {
    Command::new("fio").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn figure(report: &[u8], side: &str) -> Option<Figure> {
    let report: serde_json::Value = serde_json::from_slice(report).ok()?;
    let side = report.get("jobs")?.get(0)?.get(side)?;
    let per_s = side.get("iops")?.as_f64()?;
    let bytes_per_s = side.get("bw_bytes")?.as_f64()?;
    (per_s > 0.0).then_some(Figure { per_s, mib_per_s: bytes_per_s / f64::from(1 << 20) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_read() {
        let report =
            br#"{"jobs": [{"write": {"iops": 10.5, "bw_bytes": 11010048}, "read": {"iops": 0.0, "bw_bytes": 0}}]}"#;
        let found = figure(report, "write").expect("a figure");
        assert_eq!((found.per_s, found.mib_per_s), (10.5, 10.5));
        assert!(figure(report, "read").is_none(), "nothing was read");
        assert!(figure(b"not json", "write").is_none());
    }
}
