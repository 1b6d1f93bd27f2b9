//! A server of our own: `holdfast dev` on a fresh directory and free ports, ended when dropped.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;

use crate::client::{ClientError, Endpoint};
use crate::observe::{Server, http_get};

/// The longest wait for a server to be ready, and for one to end.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// Why there is no server.
#[derive(Debug, Error)]
pub enum ServerError {
    /// Files, ports or processes.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It ended before it was ready.
    #[error("the server ended with {status} before it was ready; its last words:\n{log}")]
    Ended {
        /// Exit code or signal.
        status: String,
        /// End of its log.
        log: String,
    },
    /// It runs but does not say that it is ready.
    #[error("the server is not ready after {} s; its last words:\n{log}", PATIENCE.as_secs())]
    NotReady {
        /// End of its log.
        log: String,
    },
    /// Its credentials file is not as it should be.
    #[error("credentials: {0}")]
    Credentials(#[from] ClientError),
}

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `holdfast` binary.
    pub binary: PathBuf,
    /// Data directory; made by the server.
    pub data: PathBuf,
    /// File-backed devices.
    pub devices: u32,
    /// Size of each, as the server's flag takes it.
    pub device_size: String,
}

/// A server that runs.
pub struct Running {
    child: Child,
    /// Where its S3 face is.
    pub endpoint: Endpoint,
    /// How to observe it.
    pub server: Server,
}

/// Starts a server and waits until it is ready.
///
/// # Errors
/// [`ServerError`]; nothing is left running.
pub async fn start(options: &Options) -> Result<Running, ServerError> {
    let io = |what: &str| {
        let what = what.to_owned();
        move |source| ServerError::Io { what, source }
    };
    let (s3, admin) = free_ports().map_err(io("free ports"))?;
    let log_path = options.data.with_extension("log");
    let log = File::create(&log_path).map_err(io(&log_path.display().to_string()))?;
    let log_too = log.try_clone().map_err(io("log"))?;
    let mut command = Command::new(&options.binary);
    command.arg("dev").arg("--data").arg(&options.data);
    command.args(["--s3-addr", &s3, "--admin-addr", &admin]);
    command.args(["--devices", &options.devices.to_string(), "--device-size", &options.device_size]);
    let child = command
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(log_too)
        .spawn()
        .map_err(io(&options.binary.display().to_string()))?;
    let mut guard = Guard(Some(child));
    let file = options.data.join("credentials.env");
    wait_until_ready(guard.0.as_mut().expect("just started"), &admin, &file, &log_path).await?;
    let text = fs::read_to_string(&file).map_err(io(&file.display().to_string()))?;
    let mut endpoint = Endpoint::from_variables(|name| variable(&text, name))?;
    endpoint.authority = s3;
    let child = guard.0.take().expect("just started");
    let server = Server { pid: Some(child.id()), admin: Some(admin) };
    Ok(Running { child, endpoint, server })
}

async fn wait_until_ready(child: &mut Child, admin: &str, credentials: &Path, log: &Path) -> Result<(), ServerError> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Ok(Some(status)) = child.try_wait() {
            let signal = status.signal().map(|signal| format!("signal {signal}"));
            return Err(ServerError::Ended { status: signal.unwrap_or(status.to_string()), log: tail(log) });
        }
        // The credentials may come a moment after the node itself is ready.
        if credentials.exists() && matches!(http_get(admin, "/health/ready").await, Some((200, _))) {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    Err(ServerError::NotReady { log: tail(log) })
}

/// Ends a server that never became ready.
struct Guard(Option<Child>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            end(child);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Asks the process to end, and makes it end when it does not.
fn end(child: &mut Child) {
    let pid = i32::try_from(child.id()).map(Pid::from_raw);
    let asked = pid.is_ok_and(|pid| kill(pid, Signal::SIGTERM).is_ok());
    let start = Instant::now();
    while asked && start.elapsed() < PATIENCE {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(POLL);
    }
    drop(child.kill());
    drop(child.wait());
}

/// Two addresses that were free a moment ago.
fn free_ports() -> std::io::Result<(String, String)> {
    let a = TcpListener::bind("127.0.0.1:0")?;
    let b = TcpListener::bind("127.0.0.1:0")?;
    Ok((a.local_addr()?.to_string(), b.local_addr()?.to_string()))
}

/// The value of `export NAME=value`.
fn variable(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("export ")?.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim().trim_matches(['"', '\'']).to_owned())
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_as_a_shell_would() {
        let text = "# made\nexport A=1=2\nexport AB='x y'\nB=3\n";
        assert_eq!(variable(text, "A").as_deref(), Some("1=2"));
        assert_eq!(variable(text, "AB").as_deref(), Some("x y"));
        assert_eq!(variable(text, "B"), None);
    }

    #[tokio::test]
    async fn a_server_that_ends_at_once_is_reported_with_its_last_words() {
        let dir = tempfile::tempdir().expect("a directory");
        let options = Options {
            binary: "/bin/echo".into(),
            data: dir.path().join("data"),
            devices: 6,
            device_size: "8GiB".to_owned(),
        };
        let error = start(&options).await.err().expect("echo is no server");
        let ServerError::Ended { log, .. } = error else { panic!("{error}") };
        assert!(log.starts_with("dev --data"), "{log}");
    }
}
