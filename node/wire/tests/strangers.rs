//! Whoever should not be here, over real sockets: refused for the reason that it is, counted, bounded in what it costs;
//! and good peers get in all the while.

mod world;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base::{Entropy, NodeId, SeededEntropy};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, SanType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::identity::{PeerKind, Serial};
use wire::identity_key::Identity;
use wire::listen::Settings;
use wire::listen_count::Refusal;
use wire::tls::{Admit, Refused};
use world::{
    CLUSTER, Ca, DAY_MS, Leaf, NODE, NOW_MS, OTHER_CLUSTER, OTHER_NODE, PATIENCE, Running, ask, blind_config,
    controller, credentials, dialer, dns, is_served, operator, others, rack, shake, speaks, until, uri,
};

const REVOKED: u8 = 66;
const REMOVED: NodeId = NodeId([0x0d; 16]);

/// Every wrong certificate, and the name of what is wrong.
fn wrong_certificates(ca: &Ca) -> Vec<(&'static str, Option<Identity>, Refusal)> {
    let node = PeerKind::Node(OTHER_NODE);
    let good = || Leaf::of(CLUSTER, &node);
    let with = |names: Vec<SanType>| Some(ca.sign(&Leaf { names, ..good() }));
    let (own_uri, own_dns) = (node.uri(CLUSTER), node.server_name().expect("a node serves"));
    let foreign = Ca::new(CLUSTER);
    let mut borrowed = ca.issue(&node);
    borrowed.key = foreign.issue(&node).key;
    vec![
        ("none", None, Refusal::NoCertificate),
        ("a foreign authority of the same name", Some(foreign.issue(&node)), Refusal::UnknownAuthority),
        ("expired", Some(ca.sign(&Leaf { to_ms: NOW_MS - 2000, ..good() })), Refusal::Expired),
        ("not valid yet", Some(ca.sign(&Leaf { from_ms: NOW_MS + DAY_MS / 2, ..good() })), Refusal::Expired),
        ("revoked", Some(ca.issue_numbered(&node, REVOKED)), Refusal::Revoked),
        ("of a removed node", Some(ca.issue(&PeerKind::Node(REMOVED))), Refusal::Revoked),
        ("of another cluster", Some(ca.sign(&Leaf::of(OTHER_CLUSTER, &node))), Refusal::OtherCluster),
        ("an operator's", Some(ca.issue(&operator())), Refusal::Kind),
        (
            "a server's",
            Some(ca.sign(&Leaf { usages: vec![ExtendedKeyUsagePurpose::ServerAuth], ..good() })),
            Refusal::BadCertificate,
        ),
        (
            "an authority's",
            Some(ca.sign(&Leaf { is_ca: IsCa::Ca(BasicConstraints::Unconstrained), ..good() })),
            Refusal::BadCertificate,
        ),
        ("nameless", with(vec![]), Refusal::BadCertificate),
        ("without a DNS name", with(vec![uri(&own_uri)]), Refusal::BadCertificate),
        ("without a URI", with(vec![dns(&own_dns)]), Refusal::BadCertificate),
        (
            "with a controller's DNS name",
            with(vec![uri(&own_uri), dns("controller.holdfast")]),
            Refusal::BadCertificate,
        ),
        (
            "with two URIs",
            with(vec![uri(&own_uri), uri(&controller().uri(CLUSTER)), dns(&own_dns)]),
            Refusal::BadCertificate,
        ),
        // The last one alone would be good, so only their number is wrong.
        (
            "with two URIs, the good one last",
            with(vec![uri(&controller().uri(CLUSTER)), uri(&own_uri), dns(&own_dns)]),
            Refusal::BadCertificate,
        ),
        (
            "with two DNS names, the good one last",
            with(vec![uri(&own_uri), dns("controller.holdfast"), dns(&own_dns)]),
            Refusal::BadCertificate,
        ),
        (
            "with an address",
            with(vec![uri(&own_uri), dns(&own_dns), SanType::IpAddress([127, 0, 0, 1].into())]),
            Refusal::BadCertificate,
        ),
        ("in capitals", with(vec![uri(&own_uri.to_uppercase()), dns(&own_dns)]), Refusal::BadCertificate),
        ("with a long number", Some(ca.sign(&Leaf { serial: vec![0x7f; 17], ..good() })), Refusal::BadCertificate),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_wrong_certificate_is_refused_for_what_is_wrong_with_it() {
    let (ca, _clock, own, server) = rack(Admit::RACK, Settings::default()).await;
    own.refuse(Refused { serials: [Serial([REVOKED; 16])].into(), nodes: [REMOVED].into() });
    let good = blind_config(Some(&ca.issue(&PeerKind::Node(OTHER_NODE))));
    assert!(is_served(server.address, good).await, "the client is a good one but for its certificate");
    for (what, identity, why) in wrong_certificates(&ca) {
        let before = (server.counts.refused(why), others(&server.counts, why));
        assert!(!is_served(server.address, blind_config(identity.as_ref())).await, "{what}: served");
        until(what, || server.counts.refused(why) > before.0).await;
        let after = (server.counts.refused(why), others(&server.counts, why));
        assert_eq!(after, (before.0 + 1, before.1), "{what}: counted as {:?}", server.counts);
    }
    assert_eq!(server.counts.accepted(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_without_its_key_is_refused() {
    let (ca, _clock, _, server) = rack(Admit::RACK, Settings::default()).await;
    let mut copied = ca.issue(&PeerKind::Node(OTHER_NODE));
    copied.key = Ca::new(CLUSTER).issue(&PeerKind::Node(OTHER_NODE)).key;
    // rustls itself would not use such a pair, so the pair is put together below its check.
    assert!(!is_served(server.address, world::mismatched_config(&copied)).await);
    until("a refusal", || server.counts.refused(Refusal::UnknownAuthority) == 1).await;
    assert_eq!(server.counts.accepted(), 0);
}

/// A ClientHello of TLS 1.2 with one suite and no extension.
fn old_hello() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([9; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let mut hello = vec![22, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    hello.extend(body);
    hello
}

async fn send(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = TcpStream::connect(address).await.expect("the port is open");
    // Either may fail: the server closes as soon as it has seen enough.
    let _ = tcp.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the server holds the connection");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_our_tls_is_refused_and_harms_nobody() {
    let (ca, clock, _, server) = rack(Admit::RACK, Settings::default()).await;
    let channel = dialer(credentials(&ca.issue(&controller()), &clock)).node(NODE, &server.address.to_string());
    ask(&channel).await.expect("an answer");
    let http = b"GET /?list-type=2 HTTP/1.1\r\nHost: bucket\r\n\r\n".to_vec();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let ssh = b"SSH-2.0-OpenSSH_9.9\r\n".to_vec();
    for (what, bytes) in [("HTTP", http), ("HTTP/2 in the clear", preface), ("SSH", ssh), ("TLS 1.2", old_hello())] {
        let before = server.counts.refused(Refusal::NotTls);
        let answer = send(server.address, &bytes).await;
        assert!(answer.len() < 64, "{what}: more than an alert came back");
        until(what, || server.counts.refused(Refusal::NotTls) == before + 1).await;
    }
    let seed = 0x5ca1_ab1e;
    let entropy = SeededEntropy::new(seed);
    let before: u64 = Refusal::ALL.iter().map(|why| server.counts.refused(*why)).sum();
    for round in 0..200 {
        let mut bytes = vec![0; entropy.below(3000) as usize + 8];
        entropy.fill(&mut bytes);
        if round % 2 == 0 {
            // A true record head, so that the garbage is looked at further in.
            bytes[..6].copy_from_slice(&[22, 3, 1, 0, 2 + (round % 200) as u8, 1]);
        }
        let mut tcp = TcpStream::connect(server.address).await.expect("the port is open");
        let _ = tcp.write_all(&bytes).await;
        let _ = tcp.shutdown().await;
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    }
    until(&format!("200 refusals of garbage, seed {seed:#x}"), || {
        Refusal::ALL.iter().map(|why| server.counts.refused(*why)).sum::<u64>() == before + 200
    })
    .await;
    ask(&channel).await.expect("an answer");
    assert_eq!((server.counts.accepted(), server.counts.handshakes()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_from_a_genuine_peer_ends_its_own_connection_alone() {
    let (ca, clock, _, server) = rack(Admit::RACK, Settings::default()).await;
    let channel = dialer(credentials(&ca.issue(&controller()), &clock)).node(NODE, &server.address.to_string());
    ask(&channel).await.expect("an answer");
    let entropy = SeededEntropy::new(7);
    for _ in 0..50 {
        let config = blind_config(Some(&ca.issue(&PeerKind::Node(OTHER_NODE))));
        let mut io = shake(server.address, config).await.expect("hands are shaken");
        let mut bytes = vec![0; 4096];
        entropy.fill(&mut bytes);
        if entropy.one_in(2) {
            assert!(speaks(&mut io).await);
        }
        let _ = io.write_all(&bytes).await;
        let _ = tokio::time::timeout(PATIENCE, io.read_to_end(&mut Vec::new())).await.expect("the server hangs up");
    }
    until("the wild connections to end", || server.counts.connections() == 1).await;
    ask(&channel).await.expect("an answer");
    assert_eq!(server.counts.accepted(), 51, "the good peer kept its connection");
}

/// A connection to the server from `127.0.0.<last>`: all of 127/8 is this host.
async fn from_address(server: &Running, last: u8) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).expect("a loopback address");
    socket.connect(server.address).await.expect("the port is open")
}

/// Connects and says nothing, or begins a handshake and falls silent.
async fn half_open(server: &Running, hello: bool) -> TcpStream {
    let mut tcp = TcpStream::connect(server.address).await.expect("the port is open");
    if hello {
        let name = "any.holdfast".try_into().expect("a name");
        let mut client = rustls::ClientConnection::new(blind_config(None).into(), name).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("memory takes it");
        tcp.write_all(&bytes).await.expect("the server reads");
    }
    tcp
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_half_open_connections_are_bounded_and_good_peers_get_in() {
    let settings = Settings { handshakes_max: 32, handshake_timeout: Duration::from_secs(20), ..Settings::default() };
    let (ca, clock, _, server) = rack(Admit::RACK, settings).await;
    let mut silent = Vec::new();
    for round in 0..10 {
        for at in 0..60 {
            silent.push(half_open(&server, at % 2 == 0).await);
        }
        // All places are taken by connections that would hold them for 20 seconds yet.
        let asked = Instant::now();
        let dialer = dialer(credentials(&ca.issue(&controller()), &clock));
        ask(&dialer.node(NODE, &server.address.to_string())).await.expect("a good peer gets in");
        assert!(asked.elapsed() < Duration::from_secs(10), "round {round}: {:?}", asked.elapsed());
        assert!(server.counts.handshakes() <= 32, "round {round}: {:?}", server.counts);
    }
    until("the rest to be pushed out", || server.counts.refused(Refusal::Crowded) >= 600 - 32).await;
    assert_eq!(others(&server.counts, Refusal::Crowded), 0, "{:?}", server.counts);
    // The sockets behind them are closed, not only forgotten, and the oldest went first.
    for (at, mut tcp) in silent.into_iter().enumerate() {
        let ended = tokio::time::timeout(Duration::from_millis(50), tcp.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok() || at >= 600 - 32, "connection {at} of 600 is held");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_pushes_out_its_own_and_not_a_slow_peer_elsewhere() {
    let settings = Settings { handshakes_max: 8, handshake_timeout: Duration::from_secs(60), ..Settings::default() };
    let (ca, _clock, _, server) = rack(Admit::RACK, settings).await;
    // Older than all of the crowd, and not of its address.
    let slow = from_address(&server, 2).await;
    until("it to be taken in", || server.counts.handshakes() == 1).await;
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(half_open(&server, false).await);
    }
    until("the crowd to be pushed out", || server.counts.refused(Refusal::Crowded) == 100 - 7).await;
    let mut io =
        world::shake_over(slow, blind_config(Some(&ca.issue(&controller())))).await.expect("it was waited for");
    assert!(speaks(&mut io).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_genuine_peer_that_agrees_on_no_protocol_is_refused() {
    let (ca, _clock, _, server) = rack(Admit::RACK, Settings::default()).await;
    for (round, protocols) in [vec![], vec![b"http/1.1".to_vec()]].into_iter().enumerate() {
        let mut config = blind_config(Some(&ca.issue(&controller())));
        config.alpn_protocols = protocols;
        assert!(!is_served(server.address, config).await);
        until("a refusal", || server.counts.refused(Refusal::NotTls) == round as u64 + 1).await;
    }
    assert_eq!(server.counts.accepted(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_takes_too_long_is_ended() {
    let settings = Settings { handshake_timeout: Duration::from_millis(200), ..Settings::default() };
    let (_ca, _clock, _, server) = rack(Admit::RACK, settings).await;
    let mut silent = half_open(&server, true).await;
    let mut slow = half_open(&server, false).await;
    // One byte at a time keeps no handshake alive.
    let drip = tokio::spawn(async move {
        while slow.write_all(&[22]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    tokio::time::timeout(PATIENCE, silent.read_to_end(&mut Vec::new())).await.expect("closed").expect("orderly");
    tokio::time::timeout(PATIENCE, drip).await.expect("closed").expect("no panic");
    until("both to be ended", || server.counts.handshakes() == 0).await;
    assert!(server.counts.refused(Refusal::Slow) >= 1, "{:?}", server.counts);
    assert_eq!(server.counts.refused(Refusal::Slow) + server.counts.refused(Refusal::NotTls), 2, "{:?}", server.counts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_peer_cannot_take_all_connections() {
    let settings = Settings { connections_per_peer_max: 3, connections_max: 5, ..Settings::default() };
    let (ca, _clock, _, server) = rack(Admit::RACK, settings).await;
    let wild = ca.issue(&PeerKind::Node(OTHER_NODE));
    let mut held = Vec::new();
    for at in 0..6 {
        let mut io = shake(server.address, blind_config(Some(&wild))).await.expect("hands are shaken");
        assert_eq!(speaks(&mut io).await, at < 3, "connection {at}");
        held.push(io);
    }
    assert_eq!(server.counts.refused(Refusal::TooMany), 3);
    for at in 0..3 {
        let kind = PeerKind::Node(NodeId([at; 16]));
        let mut io = shake(server.address, blind_config(Some(&ca.issue(&kind)))).await.expect("hands are shaken");
        assert_eq!(speaks(&mut io).await, at < 2, "connection {at} of others: there are five in all");
        held.push(io);
    }
    drop(held);
    until("the places to be free", || server.counts.connections() == 0).await;
    assert!(is_served(server.address, blind_config(Some(&wild))).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_certificate_gets_few_places_for_a_short_time() {
    let settings = Settings {
        anonymous_max: 8,
        anonymous_per_address_max: 2,
        anonymous_life: Duration::from_millis(300),
        ..Settings::default()
    };
    let (ca, clock, _, server) = rack(Admit::CONTROLLER, settings).await;
    let mut held = Vec::new();
    for at in 0..4 {
        let mut io = shake(server.address, blind_config(None)).await.expect("hands are shaken");
        assert_eq!(speaks(&mut io).await, at < 2, "connection {at}");
        held.push(io);
    }
    let dialer = dialer(credentials(&ca.issue(&controller()), &clock));
    ask(&dialer.node(NODE, &server.address.to_string())).await.expect("peers have places of their own");
    until("both to be broken", || server.counts.refused(Refusal::AnonymousTooLong) == 2).await;
    until("the places to be free", || server.counts.connections() == 0).await;
    assert!(is_served(server.address, blind_config(None)).await);
    // A wrong certificate is not taken for none.
    let foreign = Ca::new(CLUSTER).issue(&PeerKind::Node(OTHER_NODE));
    assert!(!is_served(server.address, blind_config(Some(&foreign))).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_of_many_addresses_share_few_places() {
    let settings = Settings { anonymous_max: 5, anonymous_per_address_max: 2, ..Settings::default() };
    let (ca, clock, _, server) = rack(Admit::CONTROLLER, settings).await;
    let mut held = Vec::new();
    for at in 0..8_u8 {
        let tcp = from_address(&server, 2 + at / 2).await;
        let mut io = world::shake_over(tcp, blind_config(None)).await.expect("hands are shaken");
        assert_eq!(speaks(&mut io).await, at < 5, "connection {at}, two of each address");
        held.push(io);
    }
    assert_eq!(server.counts.refused(Refusal::TooMany), 3);
    let dialer = dialer(credentials(&ca.issue(&controller()), &clock));
    ask(&dialer.node(NODE, &server.address.to_string())).await.expect("peers have places of their own");
}
