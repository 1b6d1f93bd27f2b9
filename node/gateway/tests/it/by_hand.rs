//! A server to try clients on by hand: `GATEWAY_PORT=9000 cargo test -p gateway -- --ignored by_hand`.

use gateway::Limits;
use tokio::net::TcpListener;

use crate::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "serves until it is killed"]
async fn by_hand() {
    let port: u16 = std::env::var("GATEWAY_PORT").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let _ = tracing_subscriber::fmt().with_env_filter("info,s3s=off").try_init();
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let server = Server::on(listener, Limits::default());
    eprintln!("port {} access key AKTEST", server.port);
    server.ended().await;
}
