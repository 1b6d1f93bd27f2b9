//! What must not be slow: a small response must not wait for a delayed acknowledgement (40 ms).

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use crate::client::Call;
use crate::server::Server;

#[tokio::test]
async fn a_small_get_does_not_wait_for_an_acknowledgement() {
    let server = Server::with_bucket().await;
    server.put("key", &[7; 4096]).await.expect(200);
    let mut connection = server.connect().await;
    let call = Call::new("GET", "/bucket/key").sign();
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..50 {
        let began = Instant::now();
        connection.call(&call).await.expect(200);
        times.push(began.elapsed());
    }
    times.sort();
    // The median: a machine under load may delay some, the trap delays all.
    assert!(times[25] < Duration::from_millis(20), "{times:?}");
}

#[tokio::test]
async fn header_and_body_leave_together() {
    let server = Server::with_bucket().await;
    server.put("key", &[7; 4096]).await.expect(200);
    let mut connection = server.connect().await;
    let call = Call::new("GET", "/bucket/key").sign();
    let mut together = 0;
    for _ in 0..20 {
        connection.send(&call.bytes()).await;
        let mut first = vec![0; 64 * 1024];
        let got = AsyncReadExt::read(&mut connection.stream, &mut first).await.unwrap();
        let head = first.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        if got == head + 4096 {
            together += 1;
            continue;
        }
        let mut left = head + 4096 - got;
        while left > 0 {
            left -= AsyncReadExt::read(&mut connection.stream, &mut first[..left]).await.unwrap();
        }
    }
    assert_eq!(together, 20, "every first segment holds header and body");
}
