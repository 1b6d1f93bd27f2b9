//! A server to try clients on by hand: `GATEWAY_PORT=9000 cargo test -p gateway -- --ignored by_hand`.

use gateway::Limits;
use tokio::net::TcpListener;

use crate::client::{Call, Connection};
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

/// PUTs, then GETs, over 16 connections against the server above; read its CPU time beside it. `LOAD_BYTES`
/// (4096) and `LOAD_CALLS` (5000 a connection) say what.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the server above"]
async fn load_by_hand() {
    let port: u16 = std::env::var("GATEWAY_PORT").unwrap().parse().unwrap();
    let number = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (bytes, calls) = (number("LOAD_BYTES", 4096), number("LOAD_CALLS", 5000));
    let mut connection = Connection::open(port).await;
    connection.call(&Call::new("PUT", "/bucket").sign()).await;
    for method in ["PUT", "GET"] {
        let began = std::time::Instant::now();
        let tasks: Vec<_> = (0..16)
            .map(|n| {
                tokio::spawn(async move {
                    let mut call = Call::new(method, &format!("/bucket/key{n}"));
                    if method == "PUT" {
                        call.body = vec![7; bytes];
                    }
                    let call = call.payload("UNSIGNED-PAYLOAD").sign();
                    let mut connection = Connection::open(port).await;
                    for _ in 0..calls {
                        connection.call(&call).await.expect(200);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        eprintln!("{method}: {} of {bytes} bytes in {:?}", 16 * calls, began.elapsed());
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}
