//! The admin server over real sockets: health, metrics, keys, limits, shutdown.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daemon::admin::{AdminError, AdminServer, KeyAdmin, KeyAdminError, KeyRow, NewKey, Observed, Readiness};
use daemon::metrics::MetricsText;
use futures::future::BoxFuture;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Node(Mutex<Readiness>);

impl Observed for Node {
    fn readiness(&self) -> Readiness {
        self.0.lock().unwrap().clone()
    }

    fn metrics(&self) -> BoxFuture<'_, String> {
        Box::pin(async {
            let mut text = MetricsText::new();
            text.counter("holdfast_puts_total", "Objects put.", 7);
            text.finish()
        })
    }
}

#[derive(Default)]
struct Keys(Mutex<BTreeMap<String, String>>);

impl KeyAdmin for Keys {
    fn create(&self, name: &str) -> Result<NewKey, KeyAdminError> {
        if name.is_empty() {
            return Err(KeyAdminError::Invalid("a key has a name".into()));
        }
        let mut keys = self.0.lock().unwrap();
        if keys.len() == 2 {
            return Err(KeyAdminError::Full("two keys are enough".into()));
        }
        let access_key_id = format!("HF{}", keys.len());
        keys.insert(access_key_id.clone(), name.to_owned());
        Ok(NewKey { access_key_id, secret_access_key: "hidden".into(), name: name.to_owned(), created_ms: 5 })
    }

    fn list(&self) -> Result<Vec<KeyRow>, KeyAdminError> {
        let row =
            |(id, name): (&String, &String)| KeyRow { access_key_id: id.clone(), name: name.clone(), created_ms: 5 };
        Ok(self.0.lock().unwrap().iter().map(row).collect())
    }

    fn delete(&self, access_key_id: &str) -> Result<bool, KeyAdminError> {
        match access_key_id {
            "BROKEN" => Err(KeyAdminError::Failed("the disk is gone".into())),
            "PANIC" => panic!("the store of keys panics"),
            id => Ok(self.0.lock().unwrap().remove(id).is_some()),
        }
    }
}

struct Running {
    dir: TempDir,
    addr: SocketAddr,
    node: Arc<Node>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = AdminServer::bind(([127, 0, 0, 1], 0).into(), &dir.path().join("admin.sock")).await.unwrap();
        let addr = server.local_addr().unwrap();
        let node = Arc::new(Node(Mutex::new(Readiness::Ready)));
        let (stop, stopped) = oneshot::channel();
        let shown: Arc<dyn Observed> = Arc::<Node>::clone(&node);
        let task = tokio::spawn(server.serve(shown, Arc::new(Keys::default()), async {
            let _ = stopped.await;
        }));
        Self { dir, addr, node, stop, task }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    async fn tcp(&self, request: &str) -> String {
        exchange(TcpStream::connect(self.addr).await.unwrap(), request, "").await
    }

    async fn unix(&self, request: &str, body: &str) -> String {
        exchange(UnixStream::connect(self.socket()).await.unwrap(), request, body).await
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str, body: &str) -> String {
    let head = format!("{request} HTTP/1.1\r\nHost: admin\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status in {answer:?}"))
}

#[tokio::test]
async fn health_follows_the_node_and_says_why() {
    let server = Running::start().await;
    assert_eq!(status(&server.tcp("GET /health/live").await), 200);
    assert_eq!(status(&server.tcp("GET /health/ready").await), 200);
    *server.node.0.lock().unwrap() = Readiness::NotReady("writes are refused: 3 devices are gone".into());
    let answer = server.tcp("GET /health/ready").await;
    assert_eq!(status(&answer), 503);
    assert!(answer.ends_with("writes are refused: 3 devices are gone\n"), "{answer}");
    assert_eq!(status(&server.tcp("GET /health/live").await), 200);
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let server = Running::start().await;
    let answer = server.tcp("GET /metrics").await;
    assert_eq!(status(&answer), 200);
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    assert!(answer.ends_with("holdfast_puts_total 7\n"), "{answer}");
    let head = server.tcp("HEAD /metrics").await;
    assert!(head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn keys_are_created_listed_and_deleted_on_the_socket_alone() {
    let server = Running::start().await;
    for request in ["GET /v1/keys", "POST /v1/keys", "DELETE /v1/keys/HF0"] {
        assert_eq!(status(&server.tcp(request).await), 404, "{request}");
    }
    let answer = server.unix("POST /v1/keys", r#"{"name":"app"}"#).await;
    assert_eq!(status(&answer), 201);
    assert!(answer.contains(r#""secret_access_key":"hidden""#), "{answer}");
    let list = server.unix("GET /v1/keys", "").await;
    assert!(list.ends_with(r#"{"keys":[{"access_key_id":"HF0","name":"app","created_ms":5}]}"#), "{list}");
    assert_eq!(status(&server.unix("DELETE /v1/keys/HF0", "").await), 204);
    assert_eq!(status(&server.unix("DELETE /v1/keys/HF0", "").await), 404);
}

#[tokio::test]
async fn refusals_have_their_status_and_a_sentence() {
    let server = Running::start().await;
    let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(5000));
    for (body, why) in [
        ("", "does not parse"),
        ("{", "does not parse"),
        (r#"{"name":"a","admin":true}"#, "unknown field"),
        (r#"{"name":""}"#, "a key has a name"),
        (long.as_str(), "cannot be read"),
    ] {
        let answer = server.unix("POST /v1/keys", body).await;
        assert_eq!(status(&answer), 400, "{body}");
        assert!(answer.contains(why), "{answer}");
    }
    for _ in 0..2 {
        assert_eq!(status(&server.unix("POST /v1/keys", r#"{"name":"a"}"#).await), 201);
    }
    assert_eq!(status(&server.unix("POST /v1/keys", r#"{"name":"a"}"#).await), 507);
    assert_eq!(status(&server.unix("DELETE /v1/keys/BROKEN", "").await), 500);
    assert_eq!(status(&server.unix("DELETE /v1/keys/PANIC", "").await), 500);
    assert_eq!(status(&server.unix("PUT /v1/keys", "").await), 405);
    assert_eq!(status(&server.unix("GET /nowhere", "").await), 404);
}

#[tokio::test]
async fn the_socket_is_its_owners_alone_and_a_stale_one_is_replaced() {
    let server = Running::start().await;
    let mode = std::fs::metadata(server.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server.task.abort();
    let _ = server.task.await;
    let path = server.dir.path().join("admin.sock");
    assert!(path.exists(), "an aborted server leaves its socket, as a killed one does");
    AdminServer::bind(([127, 0, 0, 1], 0).into(), &path).await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let server = Running::start().await;
    let refusal = AdminServer::bind(server.addr, &server.dir.path().join("other.sock")).await.unwrap_err();
    assert!(matches!(refusal, AdminError::Address { addr, .. } if addr == server.addr), "{refusal}");
    assert!(refusal.to_string().contains("in use"), "{refusal}");
}

#[tokio::test]
async fn shutdown_ends_the_server_even_with_an_idle_peer_and_removes_the_socket() {
    let server = Running::start().await;
    let _idle = TcpStream::connect(server.addr).await.unwrap();
    assert_eq!(status(&server.tcp("GET /health/live").await), 200);
    server.stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(8), server.task).await.expect("the server ends").unwrap();
    assert!(!server.dir.path().join("admin.sock").exists());
    assert!(TcpStream::connect(server.addr).await.is_err());
}

#[tokio::test]
async fn idle_connections_do_not_keep_others_out_for_ever() {
    let server = Running::start().await;
    let mut idle = Vec::new();
    for _ in 0..daemon::admin::CONNECTIONS_MAX {
        idle.push(TcpStream::connect(server.addr).await.unwrap());
    }
    let answer = tokio::time::timeout(Duration::from_secs(25), server.tcp("GET /health/live")).await;
    assert_eq!(status(&answer.expect("an idle peer is shown the door")), 200);
}
