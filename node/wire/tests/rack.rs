//! Peers of one cluster over real sockets: who passes, under which name, and what happens when certificates change.

mod world;

use std::sync::Arc;
use std::time::Duration;

use base::{Clock, StepClock};
use rustls::HandshakeKind;
use tonic::Code;
use tonic::transport::Channel;
use wire::Fault;
use wire::dial;
use wire::identity::{Fingerprint, PeerKind, Serial};
use wire::listen::Settings;
use wire::listen_count::Refusal;
use wire::tls::{Admit, Refused, TlsError};
use world::{
    CLUSTER, Ca, DAY_MS, Leaf, NODE, NOW_MS, OTHER_CLUSTER, OTHER_NODE, ask, blind_config, controller, credentials,
    dialer, is_served, operator, rack, serve, shake, speaks, until,
};

fn sevens() -> Serial {
    Serial([7; 16])
}

/// Asks, and the transport fails: no service answers. The code depends on the moment (a TLS 1.3 client is done before
/// its certificate is judged, and a channel may not have seen yet that its connection is gone), the fault does not.
async fn fails_on_the_way(channel: &Channel) {
    let status = ask(channel).await.expect_err("a refused peer");
    let fault = Fault::from(status.clone());
    assert!(fault.is_outcome_unknown(), "{status:?} is taken for an answer: {fault:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_passes_and_its_identity_arrives_with_every_request() {
    let (ca, clock, _, server) = rack(Admit::CONTROLLER, Settings::default()).await;
    let mut channels = Vec::new();
    for kind in [PeerKind::Node(OTHER_NODE), controller(), operator()] {
        let channel = dialer(credentials(&ca.issue(&kind), &clock)).node(NODE, &server.address.to_string());
        for _ in 0..3 {
            assert_eq!(ask(&channel).await.expect("an answer"), format!("{kind} {}", sevens()));
        }
        channels.push(channel);
    }
    assert_eq!((server.counts.accepted(), server.counts.connections()), (3, 3));
    drop(channels);
    until("the connections to end", || server.counts.connections() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_believed_only_under_its_own_name_and_certificate() {
    let (ca, clock) = (Ca::new(CLUSTER), world::clock());
    let foreign = Ca::new(CLUSTER);
    let client = credentials(&ca.issue(&PeerKind::Node(OTHER_NODE)), &clock);
    let good = Leaf::of(CLUSTER, &PeerKind::Node(NODE));
    let wrong_cluster = Leaf::of(OTHER_CLUSTER, &PeerKind::Node(NODE));
    let ended = Leaf { to_ms: NOW_MS - 1000, ..Leaf::of(CLUSTER, &PeerKind::Node(NODE)) };
    let client_only =
        Leaf { usages: vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth], ..Leaf::of(CLUSTER, &PeerKind::Node(NODE)) };
    let servers = [
        ("the node itself", ca.sign(&good), true),
        ("another node", ca.issue(&PeerKind::Node(OTHER_NODE)), false),
        ("a controller", ca.issue(&controller()), false),
        ("the node by a foreign authority", foreign.sign(&good), false),
        ("the node, expired", ca.sign(&ended), false),
        ("the node with a client's certificate", ca.sign(&client_only), false),
    ];
    for (who, identity, passes) in servers {
        let server = serve(credentials(&identity, &clock), Admit::RACK, Settings::default()).await;
        let answer = ask(&dialer(Arc::clone(&client)).node(NODE, &server.address.to_string())).await;
        assert_eq!(answer.is_ok(), passes, "{who}: {answer:?}");
        assert!(passes || answer.as_ref().is_err_and(|e| e.code() == Code::Unavailable), "{who}: {answer:?}");
    }
    // A root of another cluster is not even taken into use.
    let mixed = Credentials::of(&ca.sign(&wrong_cluster), &clock);
    assert!(matches!(mixed, Err(TlsError::Roots(_))), "{mixed:?}");
}

/// Only to name what `world::credentials` unwraps.
struct Credentials;

impl Credentials {
    fn of(identity: &wire::identity_key::Identity, clock: &StepClock) -> Result<Arc<wire::tls::Credentials>, TlsError> {
        wire::tls::Credentials::new(identity, Arc::new(clock.clone()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_refused_is_not_spoken_to_and_the_connection_to_it_breaks() {
    let (ca, clock, _, server) = rack(Admit::RACK, Settings::default()).await;
    let client = credentials(&ca.issue_numbered(&PeerKind::Node(OTHER_NODE), 8), &clock);
    let channel = dialer(Arc::clone(&client)).node(NODE, &server.address.to_string());
    ask(&channel).await.expect("an answer");
    client.refuse(Refused { nodes: [NODE].into(), ..Refused::default() });
    until("the connection to end", || server.counts.connections() == 0).await;
    fails_on_the_way(&channel).await;
    client.refuse(Refused { serials: [sevens()].into(), ..Refused::default() });
    fails_on_the_way(&channel).await;
    assert_eq!(server.counts.accepted(), 1, "nothing was said to it while it was refused");
    client.refuse(Refused::default());
    ask(&channel).await.expect("an answer again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_without_a_certificate_believes_the_pinned_authority_and_no_other() {
    let (ca, clock) = (Ca::new(CLUSTER), world::clock());
    let clock_door: Arc<dyn Clock> = Arc::new(clock.clone());
    let pin = Fingerprint::of(&ca.der);
    let foreign = Ca::new(CLUSTER);
    let mut forged = foreign.issue(&controller());
    // The true authority is shown, but signed nothing here.
    forged.roots = vec![foreign.der.clone(), ca.der.clone()];
    let servers = [
        ("the controller", ca.issue(&controller()), Admit::CONTROLLER, pin, true),
        ("another pin", ca.issue(&controller()), Admit::CONTROLLER, Fingerprint::of(b"another"), false),
        ("the pin of the leaf", ca.issue(&controller()), Admit::CONTROLLER, pin_of_leaf(&ca), false),
        ("a node", ca.issue(&PeerKind::Node(NODE)), Admit::CONTROLLER, pin, false),
        ("a foreign controller", foreign.issue(&controller()), Admit::CONTROLLER, pin, false),
        ("a foreign controller that shows our authority", forged, Admit::CONTROLLER, pin, false),
        ("a controller that lets nobody join", ca.issue(&controller()), Admit::RACK, pin, false),
    ];
    for (who, identity, admit, pin, passes) in servers {
        let server = serve(credentials(&identity, &clock), admit, Settings::default()).await;
        let addresses = [server.address.to_string()];
        let channel = dial::bootstrap(pin, &addresses, Arc::clone(&clock_door), &dial::Settings::default());
        let answer = ask(&channel.expect("TLS 1.3")).await;
        assert_eq!(answer.as_deref().ok(), passes.then_some("nobody"), "{who}: {answer:?}");
    }
}

fn pin_of_leaf(ca: &Ca) -> Fingerprint {
    Fingerprint::of(&ca.issue(&controller()).chain[0])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_controller_is_dialled_when_one_does_not_answer() {
    let (ca, clock) = (Ca::new(CLUSTER), world::clock());
    let server = serve(credentials(&ca.issue(&controller()), &clock), Admit::CONTROLLER, Settings::default()).await;
    let impostor =
        serve(credentials(&ca.issue(&PeerKind::Node(NODE)), &clock), Admit::CONTROLLER, Settings::default()).await;
    let gone = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        listener.local_addr().expect("its address")
    };
    let dialer = dialer(credentials(&ca.issue(&PeerKind::Node(OTHER_NODE)), &clock));
    let addresses = [gone, impostor.address, server.address].map(|address| address.to_string());
    ask(&dialer.controller(&addresses)).await.expect("the third answers");
    ask(&dialer.controller(&addresses[..2])).await.expect_err("neither is a controller");
    ask(&dialer.controller(&[])).await.expect_err("there is none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_on_both_sides_without_a_restart() {
    let (ca, clock, own, server) = rack(Admit::RACK, Settings::default()).await;
    let client = credentials(&ca.issue_numbered(&PeerKind::Node(OTHER_NODE), 8), &clock);
    let dialer = dialer(Arc::clone(&client));
    let address = server.address.to_string();
    let before = dialer.node(NODE, &address);
    assert!(ask(&before).await.expect("an answer").ends_with(&Serial([8; 16]).to_string()));

    client.replace(&ca.issue_numbered(&PeerKind::Node(OTHER_NODE), 9)).expect("the same peer");
    own.replace(&ca.issue_numbered(&PeerKind::Node(NODE), 10)).expect("the same peer");
    assert_eq!(own.me().serial, Serial([10; 16]));
    // What is connected goes on; what connects now has the new certificates.
    assert!(ask(&before).await.expect("an answer").ends_with(&Serial([8; 16]).to_string()));
    let after = dialer.node(NODE, &address);
    assert!(ask(&after).await.expect("an answer").ends_with(&Serial([9; 16]).to_string()));
    let shown = shake(server.address, blind_config(None)).await.expect("hands are shaken");
    let leaf = shown.get_ref().1.peer_certificates().expect("the server's").first().expect("its own").clone();
    let leaf = wire::identity::PeerIdentity::from_der(&leaf).expect("a peer's");
    assert_eq!((leaf.serial, leaf.node()), (Serial([10; 16]), Some(NODE)));

    let other = own.replace(&ca.issue(&PeerKind::Node(OTHER_NODE)));
    assert!(matches!(other, Err(TlsError::OtherPeer { .. })), "{other:?}");
    let mut torn = ca.issue(&PeerKind::Node(NODE));
    torn.key = ca.issue(&PeerKind::Node(NODE)).key;
    assert!(matches!(own.replace(&torn), Err(TlsError::Rustls(_))), "another's key");
    assert_eq!(own.me().serial, Serial([10; 16]), "what cannot be used changes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authorities_are_replaced_while_peers_of_both_pass() {
    let (old, clock, own, server) = rack(Admit::RACK, Settings::default()).await;
    let new = Ca::new(CLUSTER);
    let with_both = |mut identity: wire::identity_key::Identity| {
        identity.roots = vec![old.der.clone(), new.der.clone()];
        credentials(&identity, &clock)
    };
    let kind = PeerKind::Node(OTHER_NODE);
    assert!(!is_served(server.address, blind_config(Some(&new.issue(&kind)))).await);
    let mut identity = new.issue(&PeerKind::Node(NODE));
    identity.roots = vec![old.der.clone(), new.der.clone()];
    own.replace(&identity).expect("the same peer");
    for identity in [old.issue(&kind), new.issue(&kind)] {
        let channel = dialer(with_both(identity)).node(NODE, &server.address.to_string());
        ask(&channel).await.expect("an answer");
    }
    own.replace(&new.issue(&PeerKind::Node(NODE))).expect("the same peer");
    assert!(!is_served(server.address, blind_config(Some(&old.issue(&kind)))).await);
    assert!(is_served(server.address, blind_config(Some(&new.issue(&kind)))).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_breaks_when_its_peer_is_refused() {
    let (ca, clock, own, server) = rack(Admit::RACK, Settings::default()).await;
    let node = |id, serial| credentials(&ca.issue_numbered(&PeerKind::Node(id), serial), &clock);
    let address = server.address.to_string();
    let stays = dialer(node(OTHER_NODE, 1)).node(NODE, &address);
    let revoked = dialer(node(OTHER_NODE, 2)).node(NODE, &address);
    let removed = dialer(node(base::NodeId([0x0c; 16]), 3)).node(NODE, &address);
    for channel in [&stays, &revoked, &removed] {
        ask(channel).await.expect("an answer");
    }
    let refused = Refused { serials: [Serial([2; 16])].into(), nodes: [base::NodeId([0x0c; 16])].into() };
    own.refuse(refused);
    until("two connections to break", || server.counts.connections() == 1).await;
    assert_eq!(server.counts.refused(Refusal::Revoked), 2);
    for channel in [&revoked, &removed] {
        fails_on_the_way(channel).await;
    }
    ask(&stays).await.expect("an answer");
    assert_eq!(server.counts.accepted(), 3, "the one that stays needed no second connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_breaks_when_its_certificate_ends() {
    let settings = Settings { recheck: Duration::from_millis(10), ..Settings::default() };
    let (ca, clock, _, server) = rack(Admit::RACK, settings).await;
    let mut io = shake(server.address, blind_config(Some(&ca.issue(&controller())))).await.expect("hands are shaken");
    assert!(speaks(&mut io).await);
    clock.advance(Duration::from_millis(DAY_MS - 1000));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.counts.connections(), 1, "it is valid for a second yet");
    // The last second is valid as a whole.
    clock.advance(Duration::from_millis(2000));
    until("the connection to break", || server.counts.connections() == 0).await;
    assert_eq!(server.counts.refused(Refusal::Expired), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_is_resumed_past_a_revocation() {
    let (ca, _clock, own, server) = rack(Admit::RACK, Settings::default()).await;
    // This client keeps whatever ticket it is given: rustls' default.
    let config = blind_config(Some(&ca.issue_numbered(&PeerKind::Node(OTHER_NODE), 9)));
    for _ in 0..3 {
        let mut io = shake(server.address, config.clone()).await.expect("hands are shaken");
        assert!(speaks(&mut io).await);
        assert_eq!(io.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
    own.refuse(Refused { serials: [Serial([9; 16])].into(), ..Refused::default() });
    assert!(!is_served(server.address, config).await);
}
