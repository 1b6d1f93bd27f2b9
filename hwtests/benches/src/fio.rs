//! What fio says the disk can do: the other side of every ratio.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

/// Bytes of the file that fio works on.
const FILE_BYTES: u64 = 2 << 30;
/// What no disk of one host exceeds: bounds the length of a trace, whose end would end the run.
const TRACE_BYTES_PER_S: u64 = 8 << 30;
/// The same in requests; a trace of more takes longer to read than to run.
const TRACE_REQUESTS_PER_S: u64 = 500_000;

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
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    /// Requests a second.
    pub per_s: f64,
    /// Bytes a second, MiB.
    pub mib_per_s: f64,
    /// CPU seconds of fio's thread for each GiB.
    pub cpu_s_per_gib: f64,
    /// `fdatasync` calls for each request.
    pub syncs_per_request: f64,
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

    /// The same fio on a file that is there already.
    #[must_use]
    pub fn on(mut self, file: PathBuf) -> Self {
        self.file = file;
        self
    }

    /// Runs a job for `seconds`.
    ///
    /// # Errors
    /// What fio said.
    pub fn run(&self, job: Job, seconds: f64) -> Result<Figure, String> {
        self.run_over(job, FILE_BYTES, seconds)
    }

    /// Runs a job on the first bytes of the file.
    ///
    /// # Errors
    /// What fio said.
    pub fn run_over(&self, job: Job, bytes: u64, seconds: f64) -> Result<Figure, String> {
        let mut command = Command::new("fio");
        command.args(["--name=disk", "--ioengine=io_uring", "--direct=1", "--thread", "--output-format=json"]);
        command.arg(format!("--iodepth={}", job.depth)).arg(format!("--runtime={}ms", (seconds * 1e3) as u64));
        if job.depth > 1 && job.sync_every > 0 {
            // fio's own `fdatasync=N` sends several times as many at depth; a trace says exactly which and when.
            if fs::metadata(&self.file).map_or(0, |meta| meta.len()) < bytes {
                self.lay_out(bytes)?;
            }
            let trace = self.file.with_extension("trace");
            fs::write(&trace, trace_of(&self.file, job, bytes, seconds)).map_err(|error| format!("fio: {error}"))?;
            command.arg(format!("--read_iolog={}", trace.display())).arg("--replay_no_stall=1");
        } else {
            command.arg(format!("--filename={}", self.file.display())).arg(format!("--size={bytes}"));
            command.arg(format!("--rw={}", job.pattern)).arg(format!("--bs={}", job.block_bytes));
            command.args(["--time_based", "--norandommap"]);
            if job.sync_every > 0 {
                command.arg(format!("--fdatasync={}", job.sync_every));
            }
        }
        finished(&mut command, if job.pattern.ends_with("read") { "read" } else { "write" })
    }

    /// Writes the file once, from end to end.
    fn lay_out(&self, bytes: u64) -> Result<(), String> {
        let mut command = Command::new("fio");
        command.args(["--name=layout", "--ioengine=io_uring", "--direct=1", "--thread", "--output-format=json"]);
        command.arg(format!("--filename={}", self.file.display())).arg(format!("--size={bytes}"));
        command.args(["--rw=write", "--bs=1M", "--iodepth=16", "--end_fsync=1"]);
        finished(&mut command, "write").map(drop)
    }
}

/// Runs fio and reads its report.
fn finished(command: &mut Command, side: &str) -> Result<Figure, String> {
    let output = command.output().map_err(|error| format!("fio: {error}"))?;
    let wrong = || format!("fio: {}", String::from_utf8_lossy(&output.stderr).trim());
    if !output.status.success() {
        return Err(wrong());
    }
    figure(&output.stdout, side).ok_or_else(wrong)
}

/// Writes of a job with their flushes, as fio's log of operations; more of them than any disk does in that time.
fn trace_of(file: &Path, job: Job, bytes: u64, seconds: f64) -> String {
    let file = file.display();
    let per_s = (TRACE_BYTES_PER_S / job.block_bytes).min(TRACE_REQUESTS_PER_S);
    let (requests, blocks) = ((per_s as f64 * seconds).ceil() as u64, bytes / job.block_bytes);
    let mut trace = format!("fio version 2 iolog\n{file} add\n{file} open\n");
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    for number in 0..requests {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let block = if job.pattern.starts_with("rand") { random } else { number } % blocks;
        let _ = writeln!(trace, "{file} write {} {}", block * job.block_bytes, job.block_bytes);
        if (number + 1).is_multiple_of(u64::from(job.sync_every)) {
            let _ = writeln!(trace, "{file} datasync 0 0");
        }
    }
    let _ = writeln!(trace, "{file} close");
    trace
}

impl Drop for Fio {
    fn drop(&mut self) {
        drop(fs::remove_file(self.file.with_extension("trace")));
        drop(fs::remove_file(&self.file));
    }
}

fn is_installed() -> bool {
    Command::new("fio").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn figure(report: &[u8], side: &str) -> Option<Figure> {
    let report: serde_json::Value = serde_json::from_slice(report).ok()?;
    let job = report.get("jobs")?.get(0)?;
    let number = |of: &serde_json::Value, name: &str| of.get(name)?.as_f64();
    let done = job.get(side)?;
    let (per_s, bytes_per_s) = (number(done, "iops")?, number(done, "bw_bytes")?);
    let cpu_share = (number(job, "usr_cpu")? + number(job, "sys_cpu")?) / 100.0;
    let cpu_s = cpu_share * number(job, "job_runtime")? / 1e3;
    let syncs = job.get("sync").and_then(|sync| number(sync.get("lat_ns")?, "N")).unwrap_or(0.0);
    (per_s > 0.0).then_some(Figure {
        per_s,
        mib_per_s: bytes_per_s / f64::from(1 << 20),
        cpu_s_per_gib: cpu_s / (number(done, "io_bytes")? / f64::from(1 << 30)),
        syncs_per_request: syncs / number(done, "total_ios")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_read() {
        let report = br#"{"jobs": [{
            "usr_cpu": 10.0, "sys_cpu": 15.0, "job_runtime": 2000, "sync": {"lat_ns": {"N": 3}},
            "write": {"iops": 10.5, "bw_bytes": 11010048, "io_bytes": 536870912, "total_ios": 12},
            "read": {"iops": 0.0, "bw_bytes": 0, "io_bytes": 0, "total_ios": 0}}]}"#;
        let found = figure(report, "write").expect("a figure");
        let all = Figure { per_s: 10.5, mib_per_s: 10.5, cpu_s_per_gib: 1.0, syncs_per_request: 0.25 };
        assert_eq!(found, all);
        assert!(figure(report, "read").is_none(), "nothing was read");
        assert!(figure(b"not json", "write").is_none());
    }

    #[test]
    fn a_trace_flushes_as_often_as_asked() {
        let job = Job { name: "", pattern: "write", block_bytes: 1 << 30, depth: 2, sync_every: 2 };
        let trace = trace_of(Path::new("/f"), job, 3 << 30, 0.5);
        let gib = 1u64 << 30;
        let lines = ["/f write 0 GIB", "/f write GIB GIB", "/f datasync 0 0", "/f write 2GIB GIB", "/f write 0 GIB"];
        let lines = lines.map(|line| line.replace("2GIB", &(2 * gib).to_string()).replace("GIB", &gib.to_string()));
        let whole = format!("fio version 2 iolog\n/f add\n/f open\n{}\n/f datasync 0 0\n/f close\n", lines.join("\n"));
        assert_eq!(trace, whole);
    }
}
