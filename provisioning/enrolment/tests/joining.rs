//! A host with nothing but a token joins over real sockets, is spoken with, renews itself, and is removed.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::{Clock, ClusterId, Entropy, NodeId, OsEntropy, StepClock};
use enrolment::{Authority, Joiner, RequestedKey, RevocationList, TokenRow, VALIDITY_MS, redeem};
use futures::stream::Empty;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status};
use wire::dial::{self, Dialer};
use wire::identity::{PeerKind, Role};
use wire::identity_key::{Identity, Key};
use wire::identity_token::JoinToken;
use wire::listen::{Listener, Settings};
use wire::pb::controller as pb;
use wire::tls::{Admit, Credentials};
use wire::tls_conn::{Peer, require_identity, require_node, require_operator};

const NOW_MS: u64 = 1_767_225_600_000;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// The part of a controller that enrols, with one token and its state in memory.
struct Enroller {
    authority: Authority,
    clock: StepClock,
    token: Mutex<TokenRow>,
    revoked: Mutex<RevocationList>,
}

fn refused(error: &impl std::fmt::Display) -> Status {
    Status::permission_denied(error.to_string())
}

impl Enroller {
    fn reply(issued: enrolment::Issued) -> Response<pb::RenewReply> {
        Response::new(pb::RenewReply {
            chain: issued.chain.into_iter().map(Into::into).collect(),
            roots: issued.roots.into_iter().map(Into::into).collect(),
        })
    }
}

#[derive(Clone)]
struct Services(Arc<Enroller>);

#[tonic::async_trait]
impl pb::enrolment_server::Enrolment for Services {
    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinReply>, Status> {
        assert!(Peer::of(&request).is_some(), "every request has a peer, if only an unknown one");
        let request = request.into_inner();
        let key = RequestedKey::from_csr(&request.csr).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let token = JoinToken::parse(&request.token).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let mut fresh = NodeId([0; 16]);
        OsEntropy.fill(&mut fresh.0);
        let (authority, now_ms) = (&self.0.authority, self.0.clock.unix_ms());
        let node = {
            let revoked = self.0.revoked.lock().expect("no panic");
            let mut row = self.0.token.lock().expect("no panic");
            let kept = (row.id == token.id()).then_some(&*row);
            let joiner = Joiner { key: &key, fresh };
            let redeemed = redeem(kept, &token, authority.fingerprint(), joiner, &revoked, now_ms);
            let redeemed = redeemed.map_err(|e| refused(&e))?;
            if let Some(new) = redeemed.store {
                *row = new;
            }
            redeemed.node
        };
        let issued = authority.issue(&key, PeerKind::Node(node), now_ms, &OsEntropy).map_err(|e| refused(&e))?;
        let renewed = Self::unwrap(issued);
        Ok(Response::new(pb::JoinReply {
            node: node.0.to_vec().into(),
            cluster: authority.cluster().0.to_vec().into(),
            chain: renewed.chain,
            roots: renewed.roots,
        }))
    }
}

impl Services {
    fn unwrap(issued: enrolment::Issued) -> pb::RenewReply {
        Enroller::reply(issued).into_inner()
    }
}

#[tonic::async_trait]
impl pb::rack_server::Rack for Services {
    async fn report(&self, request: Request<pb::NodeReport>) -> Result<Response<pb::ReportReply>, Status> {
        require_node(&request)?;
        Ok(Response::new(pb::ReportReply::default()))
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::RenewReply>, Status> {
        let old = require_identity(&request)?.clone();
        let key = RequestedKey::from_csr(&request.into_inner().csr).map_err(|e| refused(&e))?;
        let (revoked, now_ms) = (self.0.revoked.lock().expect("no panic"), self.0.clock.unix_ms());
        let issued = self.0.authority.renew(&old, &key, &revoked, now_ms, &OsEntropy);
        Ok(Enroller::reply(issued.map_err(|e| refused(&e))?))
    }

    type WatchMapStream = Empty<Result<pb::MapUpdate, Status>>;

    /// Stands for what asks for an operator.
    async fn watch_map(&self, request: Request<pb::WatchMapRequest>) -> Result<Response<Self::WatchMapStream>, Status> {
        require_operator(&request, Role::Operator)?;
        Ok(Response::new(futures::stream::empty()))
    }

    type WatchKeysStream = Empty<Result<pb::KeysUpdate, Status>>;

    async fn watch_keys(&self, _: Request<pb::WatchKeysRequest>) -> Result<Response<Self::WatchKeysStream>, Status> {
        Ok(Response::new(futures::stream::empty()))
    }
}

struct World {
    enroller: Arc<Enroller>,
    clock: StepClock,
    credentials: Arc<Credentials>,
    token: String,
    enrolment: SocketAddr,
    rack: SocketAddr,
}

fn identity(authority: &Authority, kind: PeerKind, now_ms: u64) -> Identity {
    let key = Key::generate().expect("a key");
    let requested = RequestedKey::from_csr(&key.csr().expect("a request")).expect("good");
    let issued = authority.issue(&requested, kind, now_ms, &OsEntropy).expect("signed");
    Identity::from_der(issued.chain, key, issued.roots).expect("an identity")
}

impl World {
    async fn new() -> Self {
        let clock = StepClock::default();
        clock.advance(Duration::from_millis(NOW_MS));
        let authority = Authority::create(ClusterId([0xc1; 16]), NOW_MS, &OsEntropy).expect("an authority");
        let made = TokenRow::create(authority.fingerprint(), HOUR_MS, "test".into(), NOW_MS, &OsEntropy);
        let (row, token) = made.expect("a token");
        let own = identity(&authority, PeerKind::Controller("c1".into()), NOW_MS);
        let credentials = Credentials::new(&own, Arc::new(clock.clone())).expect("they belong together");
        let (token_row, revoked) = (Mutex::new(row), Mutex::default());
        let enroller = Arc::new(Enroller { authority, clock: clock.clone(), token: token_row, revoked });
        let services = Services(Arc::clone(&enroller));
        // Two ports, each with one service, as tonic serves them without a router.
        let enrolment = {
            let listener = listen(&credentials).await;
            let address = listener.address();
            let service = pb::enrolment_server::EnrolmentServer::new(services.clone());
            tokio::spawn(async move { Server::builder().serve_with_incoming(service, listener).await });
            address
        };
        let rack = {
            let listener = listen(&credentials).await;
            let address = listener.address();
            let service = pb::rack_server::RackServer::new(services);
            tokio::spawn(async move { Server::builder().serve_with_incoming(service, listener).await });
            address
        };
        Self { enroller, clock, credentials, token: token.expose().to_string(), enrolment, rack }
    }

    /// What a host does that has a token and an address.
    async fn join(&self, token: &str, key: &Key) -> Result<Identity, Status> {
        let authority = JoinToken::parse(token).map_err(|e| Status::invalid_argument(e.to_string()))?.authority();
        let addresses = [self.enrolment.to_string()];
        let channel = dial::bootstrap(authority, &addresses, Arc::new(self.clock.clone()), &dial::Settings::default());
        let mut client = pb::enrolment_client::EnrolmentClient::new(channel.expect("TLS 1.3"));
        let csr = key.csr().expect("a request").into();
        let request = pb::JoinRequest { token: token.to_owned(), csr, ..Default::default() };
        let reply = client.join(request).await?.into_inner();
        let all = |list: Vec<_>| list.into_iter().map(Into::into).collect();
        let identity = Identity::from_der(all(reply.chain), key.clone(), all(reply.roots)).expect("an identity");
        let peer = identity.peer().expect("a peer's");
        assert_eq!(peer.node().expect("a node's").0[..], reply.node[..]);
        assert_eq!(peer.cluster.0[..], reply.cluster[..]);
        Ok(identity)
    }

    fn credentials(&self, identity: &Identity) -> Arc<Credentials> {
        Credentials::new(identity, Arc::new(self.clock.clone())).expect("they belong together")
    }

    fn rack(&self, credentials: Arc<Credentials>) -> pb::rack_client::RackClient<Channel> {
        let dialer = Dialer::new(credentials, dial::Settings::default()).expect("TLS 1.3");
        pb::rack_client::RackClient::new(dialer.controller(&[self.rack.to_string()]))
    }
}

async fn listen(credentials: &Arc<Credentials>) -> Listener {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind(loopback, Arc::clone(credentials), Admit::CONTROLLER, Settings::default()).await;
    listener.expect("a free port")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_joins_by_its_token_and_comes_back_by_its_certificate() {
    let world = World::new().await;
    let key = Key::generate().expect("a key");
    let joined = world.join(&world.token, &key).await.expect("it joins");
    world.rack(world.credentials(&joined)).report(pb::NodeReport::default()).await.expect("a node reports");
    // After a reboot: from its own file, without a token.
    let kept = Identity::from_pem(&joined.to_pem()).expect("its own text");
    world.rack(world.credentials(&kept)).report(pb::NodeReport::default()).await.expect("a node reports");

    let again = world.join(&world.token, &key).await.expect("the answer was lost, so it asks again");
    assert_eq!(again.peer().expect("a peer's").node(), joined.peer().expect("a peer's").node());
    let replayed = world.join(&world.token, &Key::generate().expect("a key")).await.expect_err("another host");
    assert_eq!(replayed.code(), Code::PermissionDenied);
    assert!(replayed.message().contains("used by another host"), "{replayed}");
    world.clock.advance(Duration::from_millis(HOUR_MS));
    let late = world.join(&world.token, &key).await.expect_err("too late");
    assert!(late.message().contains("expired"), "{late}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_are_not_this_clusters_reach_nothing() {
    let (world, other) = (World::new().await, World::new().await);
    let key = Key::generate().expect("a key");
    // The joiner itself refuses: the controller shows another authority than the token names.
    let elsewhere = world.join(&other.token, &key).await.expect_err("another cluster's");
    assert_eq!(elsewhere.code(), Code::Unavailable, "{elsewhere}");
    // Forced past that, the controller refuses.
    let own = JoinToken::parse(&world.token).expect("a token").authority().to_string();
    let forced = format!("{}{own}", &other.token[..other.token.len() - 64]);
    let unknown = world.join(&forced, &key).await.expect_err("unknown");
    assert!(unknown.message().contains("no such token"), "{unknown}");
    assert!(world.enroller.token.lock().expect("no panic").used.is_none(), "nothing was used up");
    world.join(&world.token, &key).await.expect("it is still good");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_ask_for_more_than_the_listener() {
    let world = World::new().await;
    let joined = world.join(&world.token, &Key::generate().expect("a key")).await.expect("it joins");
    let operator = |role| {
        let kind = PeerKind::Operator { name: "ada".into(), role };
        let identity = identity(&world.enroller.authority, kind, NOW_MS);
        world.rack(world.credentials(&identity))
    };
    let authority = world.enroller.authority.fingerprint();
    let addresses = [world.rack.to_string()];
    let channel = dial::bootstrap(authority, &addresses, Arc::new(world.clock.clone()), &dial::Settings::default());
    let mut nobody = pb::rack_client::RackClient::new(channel.expect("TLS 1.3"));
    let mut node = world.rack(world.credentials(&joined));
    let (mut viewer, mut admin) = (operator(Role::Viewer), operator(Role::Admin));
    let code =
        |answer: Result<Response<_>, Status>| answer.map_or_else(|e| e.code(), |_: Response<pb::ReportReply>| Code::Ok);
    assert_eq!(code(nobody.report(pb::NodeReport::default()).await), Code::Unauthenticated);
    assert_eq!(code(node.report(pb::NodeReport::default()).await), Code::Ok);
    assert_eq!(code(admin.report(pb::NodeReport::default()).await), Code::PermissionDenied);
    let watch = pb::WatchMapRequest::default;
    assert_eq!(nobody.watch_map(watch()).await.expect_err("no certificate").code(), Code::Unauthenticated);
    assert_eq!(node.watch_map(watch()).await.expect_err("no operator").code(), Code::PermissionDenied);
    assert_eq!(viewer.watch_map(watch()).await.expect_err("too small a role").code(), Code::PermissionDenied);
    admin.watch_map(watch()).await.expect("an admin may all that an operator may");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_renews_itself_for_as_long_as_it_is_a_member() {
    let world = World::new().await;
    let joined = world.join(&world.token, &Key::generate().expect("a key")).await.expect("it joins");
    let credentials = world.credentials(&joined);
    let node = credentials.me().node().expect("a node's");
    let mut client = world.rack(Arc::clone(&credentials));
    let mut last = credentials.me();
    // Three months, in which each certificate alone would have ended.
    for _ in 0..4 {
        let wait_ms = last.renew_at_ms() - world.clock.unix_ms();
        world.clock.advance(Duration::from_millis(wait_ms));
        let key = Key::generate().expect("a key");
        let own = identity(&world.enroller.authority, PeerKind::Controller("c1".into()), world.clock.unix_ms());
        world.credentials.replace(&own).expect("the same controller");
        let csr = key.csr().expect("a request").into();
        let reply = client.renew(pb::RenewRequest { csr }).await.expect("renewed").into_inner();
        let all = |list: Vec<_>| list.into_iter().map(Into::into).collect();
        let renewed = Identity::from_der(all(reply.chain), key, all(reply.roots)).expect("an identity");
        credentials.replace(&renewed).expect("the same node");
        assert_ne!(credentials.me().serial, last.serial);
        last = credentials.me();
        client = world.rack(Arc::clone(&credentials));
    }
    assert!(world.clock.unix_ms() > NOW_MS + 2 * VALIDITY_MS + 15 * DAY_MS);
    client.report(pb::NodeReport::default()).await.expect("a node reports");

    let list = {
        let mut revoked = world.enroller.revoked.lock().expect("no panic");
        revoked.revoke_node(node, world.clock.unix_ms());
        revoked.refused()
    };
    // Before the listener knows, the enroller does.
    let csr = Key::generate().expect("a key").csr().expect("a request").into();
    let removed = client.renew(pb::RenewRequest { csr }).await.expect_err("a removed node");
    assert_eq!(removed.code(), Code::PermissionDenied);
    world.credentials.refuse(list);
    client.report(pb::NodeReport::default()).await.expect_err("its connection is broken");
    world.rack(credentials).report(pb::NodeReport::default()).await.expect_err("it gets no other");
}
