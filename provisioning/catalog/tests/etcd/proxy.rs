//! A way to a server that can be held up: bytes wait in either direction and arrive when it is let go, as after a
//! network that stalled. Connections stay open.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Forwards connections to one port.
pub(crate) struct Proxy {
    address: SocketAddr,
    to_server: watch::Sender<bool>,
    to_client: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (to_server, forth) = watch::channel(true);
        let (to_client, back) = watch::channel(true);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (forth, back) = (forth.clone(), back.clone());
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    let (from_client, into_client) = client.into_split();
                    let (from_server, into_server) = server.into_split();
                    tokio::spawn(pump(from_client, into_server, forth));
                    tokio::spawn(pump(from_server, into_client, back));
                });
            }
        });
        Self { address, to_server, to_client, accepting }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whether bytes flow towards the server, and back.
    pub(crate) fn flow(&self, to_server: bool, to_client: bool) {
        self.to_server.send_replace(to_server);
        self.to_client.send_replace(to_client);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut flows: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(len) = from.read(&mut buffer).await {
        // An error: the proxy is gone, and nothing holds bytes up any more.
        let _ = flows.wait_for(|flows| *flows).await;
        if len == 0 || to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
    }
}
