//! A server for one test.

use std::sync::Arc;

use base::{OsClock, OsEntropy};
use gateway::{Gateway, GatewayStats, Keys, Limits, Secret, serve};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{ACCESS, Answer, Call, Connection, SECRET};
use crate::memory::Memory;

struct TestKeys;

impl Keys for TestKeys {
    fn secret(&self, access_key: &str) -> Option<Secret> {
        match access_key {
            ACCESS => Some(Secret::new(SECRET.into())),
            "AKOTHER" => Some(Secret::new("other".into())),
            _ => None,
        }
    }
}

pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) memory: Arc<Memory>,
    pub(crate) stats: Arc<GatewayStats>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), limits)
    }

    pub(crate) fn on(listener: TcpListener, limits: Limits) -> Self {
        let port = listener.local_addr().unwrap().port();
        let memory = Arc::new(Memory::new());
        let gateway = Gateway::new(memory.clone(), Arc::new(TestKeys), Arc::new(OsClock::new()), Arc::new(OsEntropy));
        let stats = gateway.stats();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(async move { serve(listener, gateway, limits, shutdown).await.unwrap() });
        Self { port, memory, stats, stop: Some(stop), task }
    }

    /// A server with the bucket `bucket`.
    pub(crate) async fn with_bucket() -> Self {
        let server = Self::start().await;
        server.call(Call::new("PUT", "/bucket").sign()).await.expect(200);
        server
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.port).await
    }

    /// One call on a connection of its own.
    pub(crate) async fn call(&self, call: Call) -> Answer {
        self.connect().await.call(&call).await
    }

    pub(crate) async fn put(&self, key: &str, body: &[u8]) -> Answer {
        self.call(Call::new("PUT", &format!("/bucket/{key}")).body(body).sign()).await
    }

    pub(crate) async fn get(&self, key: &str) -> Answer {
        self.call(Call::new("GET", &format!("/bucket/{key}")).sign()).await
    }

    /// Asks the server to end.
    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    pub(crate) async fn ended(self) {
        self.task.await.unwrap();
    }
}
