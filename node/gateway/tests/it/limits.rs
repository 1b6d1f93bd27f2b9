//! Slow clients, too many of them, and the end of the server.

use std::time::{Duration, Instant};

use gateway::Limits;
use tokio::io::AsyncReadExt;
use tokio::time::{sleep, timeout};

use crate::client::Call;
use crate::server::Server;

const SHORT: Duration = Duration::from_millis(150);

async fn bucket(server: &Server) {
    server.call(Call::new("PUT", "/bucket").sign()).await.expect(200);
}

#[tokio::test]
async fn a_body_that_stalls_is_refused_and_leaves_nothing() {
    let server = Server::with(Limits { stall_timeout: SHORT, ..Limits::default() }).await;
    bucket(&server).await;
    let call = Call::new("PUT", "/bucket/slow").body(vec![1; 10_000]).sign();
    let mut connection = server.connect().await;
    connection.send(&call.bytes()[..call.head_bytes().len() + 100]).await;
    let began = Instant::now();
    connection.receive(false).await.unwrap().expect_code(400, "RequestTimeout");
    assert!(began.elapsed() >= SHORT / 2);
    let closed = timeout(Duration::from_secs(5), connection.stream.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "the connection is closed");
    server.get("slow").await.expect_code(404, "NoSuchKey");
    let xml = Call::new("POST", "/bucket?delete").body("<Delete><Object><Key>k</Key></Object></Delete>").sign();
    let mut connection = server.connect().await;
    connection.send(&xml.bytes()[..xml.head_bytes().len() + 10]).await;
    connection.receive(false).await.unwrap().expect_code(400, "RequestTimeout");
}

#[tokio::test]
async fn a_body_that_is_slow_but_moves_is_waited_for() {
    let server = Server::with(Limits { stall_timeout: SHORT, ..Limits::default() }).await;
    bucket(&server).await;
    let call = Call::new("PUT", "/bucket/slow").body(vec![1; 8]).sign();
    let mut connection = server.connect().await;
    connection.send(&call.head_bytes()).await;
    for byte in &call.body {
        sleep(SHORT / 3).await;
        connection.send(&[*byte]).await;
    }
    connection.receive(false).await.unwrap().expect(200);
}

#[tokio::test]
async fn a_header_has_little_time_and_an_idle_connection_some() {
    let limits = Limits { header_timeout: SHORT, idle_timeout: SHORT * 4, ..Limits::default() };
    let server = Server::with(limits).await;
    let ends = |begun: &'static [u8]| {
        let connection = server.connect();
        async move {
            let mut connection = connection.await;
            connection.send(begun).await;
            let began = Instant::now();
            let read = timeout(Duration::from_secs(5), connection.stream.read(&mut [0; 1])).await.unwrap();
            assert!(matches!(read, Ok(0) | Err(_)), "no answer, just the end");
            began.elapsed()
        }
    };
    let (header, idle) = tokio::join!(ends(b"GET / HTT"), ends(b""));
    assert!(header >= SHORT / 2 && header < SHORT * 3, "{header:?}");
    assert!(idle >= SHORT * 3, "{idle:?}");
}

#[tokio::test]
async fn large_headers_and_many_are_refused() {
    let server = Server::start().await;
    let large = Call::new("GET", "/").header("x-large", "x".repeat(40_000)).sign();
    assert_eq!(server.call(large).await.status, 431);
    let mut many = Call::new("GET", "/");
    for n in 0..200 {
        many = many.header(&format!("x-{n}"), "1");
    }
    assert_eq!(server.call(many.sign()).await.status, 431);
}

#[tokio::test]
async fn too_many_connections_are_told_so() {
    let server = Server::with(Limits { connections_max: 2, ..Limits::default() }).await;
    let mut first = server.connect().await;
    let second = server.connect().await;
    first.call(&Call::new("GET", "/").sign()).await.expect(200);
    let refused = server.call(Call::new("GET", "/").sign()).await;
    refused.expect_code(503, "SlowDown");
    drop(second);
    let mut status = 503;
    for _ in 0..100 {
        sleep(Duration::from_millis(10)).await;
        status = server.call(Call::new("GET", "/").sign()).await.status;
        if status == 200 {
            break;
        }
    }
    assert_eq!(status, 200, "a place that became free is given again");
}

#[tokio::test]
async fn too_many_requests_are_told_so() {
    let server = Server::with(Limits { requests_max: 1, ..Limits::default() }).await;
    bucket(&server).await;
    let call = Call::new("PUT", "/bucket/key").body(vec![1; 1000]).sign();
    let mut holder = server.connect().await;
    holder.send(&call.head_bytes()).await;
    while server.stats.requests_in_flight() == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    server.call(Call::new("GET", "/").sign()).await.expect_code(503, "SlowDown");
    holder.send(&call.body).await;
    holder.receive(false).await.unwrap().expect(200);
    server.call(Call::new("GET", "/").sign()).await.expect(200);
}

#[tokio::test]
async fn the_server_ends_in_order() {
    let mut server = Server::start().await;
    bucket(&server).await;
    let idle = server.connect().await;
    let call = Call::new("PUT", "/bucket/last").body(vec![1; 1000]).sign();
    let mut busy = server.connect().await;
    busy.send(&call.head_bytes()).await;
    while server.stats.requests_in_flight() == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    server.stop();
    sleep(Duration::from_millis(50)).await;
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", server.port)).await.is_err(), "nobody new comes in");
    busy.send(&call.body).await;
    busy.receive(false).await.unwrap().expect(200);
    drop(idle);
    timeout(Duration::from_secs(10), server.ended()).await.unwrap();
}

#[tokio::test]
async fn the_end_has_a_deadline() {
    let mut server = Server::with(Limits { shutdown_timeout: SHORT, ..Limits::default() }).await;
    bucket(&server).await;
    let call = Call::new("PUT", "/bucket/never").body(vec![1; 1000]).sign();
    let mut busy = server.connect().await;
    busy.send(&call.head_bytes()).await;
    while server.stats.requests_in_flight() == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    server.stop();
    timeout(Duration::from_secs(5), server.ended()).await.unwrap();
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off() {
    let server = Server::with(Limits { stall_timeout: SHORT, ..Limits::default() }).await;
    bucket(&server).await;
    server.put("large", &vec![1; 32 << 20]).await.expect(200);
    let mut connection = server.connect().await;
    connection.send(&Call::new("GET", "/bucket/large").sign().bytes()).await;
    for _ in 0..200 {
        sleep(Duration::from_millis(25)).await;
        if server.stats.requests_in_flight() == 0 {
            return;
        }
    }
    panic!("the request is still held");
}
