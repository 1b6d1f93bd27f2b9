//! Real etcd servers on loopback, started and killed by the test that owns them.
//!
//! One set of servers runs at a time on a host, also across test processes: each of them flushes its log for every commit,
//! and sets that starve one another elect leaders all the time.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base::{Entropy, OsEntropy};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Ports below those that the kernel gives to outgoing connections, so that a restarted server finds its own free.
const PORTS: std::ops::Range<u64> = 20_000..32_000;
/// For servers to come up and elect, on a busy machine.
const UP_WITHIN: Duration = Duration::from_secs(40);

/// How the servers are set up.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    /// How long they wait for a leader before they elect another.
    pub(crate) election_ms: u64,
    /// Where `ca.pem`, `server.pem` and `server.key` are.
    pub(crate) tls: Option<PathBuf>,
}

/// Some servers. Dropping them kills them and deletes their data.
pub(crate) struct Servers {
    dir: TempDir,
    setup: Setup,
    members: Vec<Member>,
    _alone: File,
}

struct Member {
    client_port: u16,
    peer_port: u16,
    child: Option<Child>,
}

/// Whether there is an etcd; installs it where that is possible, and prints why the test is skipped where it is not.
pub(crate) fn etcd_can_be_had() -> bool {
    let found = || Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/setup");
        Command::new(script).status().expect("the setup script runs");
    }
    if !found() {
        eprintln!("SKIPPED: there is no etcd here (Debian: etcd-server) and it could not be installed");
        return false;
    }
    true
}

impl Servers {
    /// Starts `count` servers and waits until they have a leader. Again, on other ports, if one was taken meanwhile.
    pub(crate) async fn start(count: usize, setup: Setup) -> Self {
        let lock = File::create(std::env::temp_dir().join("holdfast-etcd-tests.lock")).unwrap();
        let alone = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await.unwrap().unwrap();
        let mut servers = Self { dir: tempfile::tempdir().unwrap(), setup, members: Vec::new(), _alone: alone };
        for attempt in 1.. {
            servers.members =
                (0..count).map(|_| Member { client_port: free_port(), peer_port: free_port(), child: None }).collect();
            (0..count).for_each(|n| servers.start_one(n));
            if servers.is_up().await {
                return servers;
            }
            assert!(attempt < 3, "etcd does not start:\n{}", servers.logs());
            (0..count).for_each(|n| servers.kill(n));
            servers.dir = tempfile::tempdir().unwrap();
        }
        unreachable!("the third attempt panics")
    }

    pub(crate) fn count(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn port(&self, n: usize) -> u16 {
        self.members[n].client_port
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        let scheme = if self.setup.tls.is_some() { "https" } else { "http" };
        self.members.iter().map(|member| format!("{scheme}://127.0.0.1:{}", member.client_port)).collect()
    }

    /// Starts one that is down, on its data.
    pub(crate) fn start_one(&mut self, n: usize) {
        assert!(self.members[n].child.is_none(), "server {n} runs already");
        let peer = |n: usize| format!("http://127.0.0.1:{}", self.members[n].peer_port);
        let all: Vec<_> = (0..self.count()).map(|n| format!("m{n}={}", peer(n))).collect();
        let client = self.endpoints()[n].clone();
        let log = File::options().create(true).append(true).open(self.dir.path().join(format!("m{n}.log"))).unwrap();
        let mut command = Command::new("etcd");
        command
            .env_clear()
            .args(["--name", &format!("m{n}"), "--data-dir"])
            .arg(self.dir.path().join(format!("m{n}")))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer(n), "--initial-advertise-peer-urls", &peer(n)])
            .args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"])
            .args(["--initial-cluster-token", &format!("t{}", self.members[0].peer_port)])
            .args(["--election-timeout", &self.setup.election_ms.to_string()])
            .args(["--heartbeat-interval", &(self.setup.election_ms / 10).to_string()])
            .args(["--logger", "zap", "--log-outputs", "stderr", "--log-level", "warn"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if let Some(tls) = &self.setup.tls {
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(tls.join("ca.pem"));
            command.arg("--cert-file").arg(tls.join("server.pem")).arg("--key-file").arg(tls.join("server.key"));
        }
        self.members[n].child = Some(command.spawn().expect("etcd starts"));
    }

    /// Kills one, as `kill -9` does.
    pub(crate) fn kill(&mut self, n: usize) {
        if let Some(mut child) = self.members[n].child.take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
        }
    }

    /// Which one leads, by its own word.
    pub(crate) async fn leader(&self) -> Option<usize> {
        for n in 0..self.count() {
            if let Some(status) = self.ask(n, "/v3/maintenance/status", "{}").await
                && status["leader"].is_string()
                && status["leader"] == status["header"]["member_id"]
            {
                return Some(n);
            }
        }
        None
    }

    /// Waits for a leader.
    pub(crate) async fn led(&self) -> usize {
        let start = Instant::now();
        loop {
            if let Some(leader) = self.leader().await {
                return leader;
            }
            assert!(start.elapsed() < UP_WITHIN, "no leader:\n{}", self.logs());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a server that was started again knows of a leader.
    pub(crate) async fn joined(&self, n: usize) {
        let start = Instant::now();
        while !self.ask(n, "/v3/maintenance/status", "{}").await.is_some_and(|status| status["leader"].is_string()) {
            assert!(start.elapsed() < UP_WITHIN, "m{n} does not join:\n{}", self.logs());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// etcd's JSON face, which our client does not use.
    pub(crate) async fn ask(&self, n: usize, path: &str, body: &str) -> Option<serde_json::Value> {
        let talk = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port(n))).await.ok()?;
            let length = body.len();
            let head = format!("POST {path} HTTP/1.0\r\nHost: etcd\r\nContent-Length: {length}\r\n\r\n{body}");
            stream.write_all(head.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
        };
        timeout(Duration::from_secs(2), talk).await.ok().flatten()
    }

    async fn is_up(&mut self) -> bool {
        let start = Instant::now();
        let dead = |member: &mut Member| !matches!(member.child.as_mut().map(Child::try_wait), Some(Ok(None)));
        while start.elapsed() < UP_WITHIN {
            if self.members.iter_mut().any(dead) {
                return false;
            }
            // The JSON face asks for a certificate as well: whoever uses TLS tries until it goes.
            if self.setup.tls.is_some() || self.leader().await.is_some() {
                return true;
            }
            sleep(Duration::from_millis(50)).await;
        }
        false
    }

    fn logs(&self) -> String {
        let log = |n| std::fs::read_to_string(self.dir.path().join(format!("m{n}.log"))).unwrap_or_default();
        (0..self.count()).map(|n| format!("-- m{n}\n{}", log(n))).collect()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        (0..self.count()).for_each(|n| self.kill(n));
    }
}

fn free_port() -> u16 {
    loop {
        let port = (PORTS.start + OsEntropy.next_u64() % (PORTS.end - PORTS.start)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
