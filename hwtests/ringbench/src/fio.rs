//! The same workloads by fio, where it is installed.

use std::path::Path;
use std::process::Command;

use crate::{FILE_BYTES, Figure, Workload};

/// One run; none when fio is not installed or does not say what we ask.
pub(crate) fn run(path: &Path, workload: Workload) -> Option<Figure> {
    let pattern = match (workload.random, workload.write) {
        (true, true) => "randwrite",
        (true, false) => "randread",
        (false, true) => "write",
        (false, false) => "read",
    };
    let mut command = Command::new("fio");
    command.args(["--name=ringbench", "--ioengine=io_uring", "--direct=1", "--thread", "--output-format=json"]);
    command.arg(format!("--filename={}", path.display())).arg(format!("--rw={pattern}"));
    command.arg(format!("--bs={}", workload.block_bytes)).arg(format!("--iodepth={}", workload.depth));
    command.arg(format!("--size={FILE_BYTES}"));
    // `io_size` may go beyond `size`: the file is then met again from its start.
    command.arg(format!("--io_size={}", workload.ops * workload.block_bytes));
    if workload.flush_every > 0 {
        command.arg(format!("--fdatasync={}", workload.flush_every));
    }
    let output = command.output().ok().filter(|o| o.status.success())?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let job = report.get("jobs")?.get(0)?;
    let side = job.get(if workload.write { "write" } else { "read" })?;
    let ops_per_s = side.get("iops")?.as_f64()?;
    let cpu_percent = job.get("usr_cpu")?.as_f64()? + job.get("sys_cpu")?.as_f64()?;
    Some(Figure { ops_per_s, cpu_us_per_op: cpu_percent * 1e4 / ops_per_s })
}
