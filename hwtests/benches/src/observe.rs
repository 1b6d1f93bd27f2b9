//! What a run cost the server: CPU and memory from `/proc`, device flushes from its metrics page.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The counter of device flushes on the metrics page, one line a device.
pub const FLUSHES: &str = "holdfast_device_flushes_total";

/// The server as seen from outside. Each part may be missing; its figures are then left out.
#[derive(Debug, Clone, Default)]
pub struct Server {
    /// Process id.
    pub pid: Option<u32>,
    /// `host:port` of the admin server.
    pub admin: Option<String>,
}

/// Counters at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading {
    /// CPU seconds of the process so far, user and system.
    pub cpu_s: Option<f64>,
    /// Device flushes so far.
    pub flushes: Option<f64>,
}

impl Server {
    /// The counters now.
    pub async fn read(&self) -> Reading {
        let flushes = match &self.admin {
            Some(admin) => metrics(admin).await.and_then(|page| counter_sum(&page, FLUSHES)),
            None => None,
        };
        Reading { cpu_s: self.pid.and_then(cpu_s), flushes }
    }

    /// The largest resident set of the process so far, MiB.
    #[must_use]
    pub fn peak_rss_mib(&self) -> Option<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib / 1024.0)
    }
}

/// The process that holds the lock of a data directory: its id is in the lock file.
#[must_use]
pub fn pid_of(data_dir: &Path) -> Option<u32> {
    let pid: u32 = fs::read_to_string(data_dir.join("lock")).ok()?.trim().parse().ok()?;
    Path::new(&format!("/proc/{pid}")).exists().then_some(pid)
}

/// CPU seconds of a process, user and system, its ended threads included.
#[must_use]
pub fn cpu_s(pid: u32) -> Option<f64> {
    let ticks_per_s = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    let ticks = stat_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    Some(ticks as f64 / ticks_per_s as f64)
}

/// Fields 14 and 15 of `/proc/<pid>/stat`; the name in field 2 may hold anything, so count from its end.
fn stat_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

async fn metrics(admin: &str) -> Option<String> {
    let (status, body) = http_get(admin, "/metrics").await?;
    (status == 200).then_some(body)
}

/// A plain GET over a connection of its own; none when there is no answer within five seconds.
pub async fn http_get(authority: &str, path: &str) -> Option<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(authority).await.ok()?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        String::from_utf8(answer).ok()
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), exchange).await.ok()??;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// The sum of a counter over all its labels; none when the page does not have it.
fn counter_sum(page: &str, name: &str) -> Option<f64> {
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labelled) => labelled.rsplit_once('}')?.1,
            None => rest.strip_prefix(' ')?,
        };
        value.split_ascii_whitespace().next()?.parse::<f64>().ok()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_their_labels() {
        let page = "# HELP a_total x\n# TYPE a_total counter\na_total{d=\"1 } 2\"} 3\na_total{d=\"2\"} 4 1700\n\
                    a_total_more 100\nb_total 5\n";
        assert_eq!(counter_sum(page, "a_total"), Some(7.0));
        assert_eq!(counter_sum(page, "b_total"), Some(5.0));
        assert_eq!(counter_sum(page, "c_total"), None);
    }

    #[test]
    fn a_process_name_may_hold_anything() {
        let stat = "77 (a b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0";
        assert_eq!(stat_ticks(stat), Some(300));
    }

    #[test]
    fn our_own_figures_can_be_read() {
        let pid = std::process::id();
        assert!(cpu_s(pid).is_some());
        let server = Server { pid: Some(pid), admin: None };
        assert!(server.peak_rss_mib().expect("VmHWM") > 0.5);
    }
}
