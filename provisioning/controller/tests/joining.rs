//! Joining, and who may ask what, over real sockets and real certificates.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, OsClock, OsEntropy};
use catalog::{Facts, RedbFacts};
use controller::{ControllerConfig, create, serve};
use placement::map::{Level, Policy};
use tokio::sync::oneshot;
use tonic::transport::Channel;
use wire::Fault;
use wire::controller::{
    AdminClient, CreateKeyRequest, CreateTokenRequest, Empty, JoinReply, JoinRequest, NodeFacts, NodeReport, PROTOCOL,
    RackLink, RemoveRequest, join,
};
use wire::dial::{Dialer, Settings, bootstrap};
use wire::identity_key::{Identity, Key};
use wire::identity_token::JoinToken;
use wire::tls::Credentials;

const PATIENCE: Duration = Duration::from_secs(20);

struct Rack {
    address: SocketAddr,
    administrator: Identity,
    _dir: tempfile::TempDir,
}

impl Rack {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let facts: Arc<dyn Facts> =
            Arc::new(RedbFacts::open_or_create(&dir.path().join("facts.redb")).expect("a store"));
        let policy = Policy { data_shards: 2, parity_shards: 1, level: Level::Node, slots_per_domain: 1 };
        let clock: Arc<dyn Clock> = Arc::new(OsClock::new());
        let made = create(Arc::clone(&facts), policy, "c1", "root", &*clock, &OsEntropy).await.expect("a cluster");
        let (tell, told) = oneshot::channel();
        let config = ControllerConfig {
            facts,
            name: "c1".into(),
            identity: made.controller,
            listen: "127.0.0.1:0".parse().expect("an address"),
            clock,
            entropy: Arc::new(OsEntropy),
        };
        tokio::spawn(async move {
            let served = serve(config, |address| _ = tell.send(address), std::future::pending()).await;
            panic!("the controller ended: {served:?}");
        });
        let rack = Self { address: told.await.expect("it listens"), administrator: made.administrator, _dir: dir };
        rack.until_it_leads().await;
        rack
    }

    async fn until_it_leads(&self) {
        let look = async {
            while self.admin().status(Empty {}).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.expect("it leads");
    }

    fn channel(&self, identity: &Identity) -> Channel {
        let credentials = Credentials::new(identity, Arc::new(OsClock::new())).expect("credentials");
        Dialer::new(credentials, Settings::default()).expect("a dialer").controller(&[self.address.to_string()])
    }

    fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel(&self.administrator))
    }

    async fn token(&self) -> JoinToken {
        let ask = CreateTokenRequest { ttl_s: 60, comment: "a test".into() };
        let made = self.admin().create_token(ask).await.expect("a token").into_inner();
        JoinToken::parse(&made.token).expect("it parses")
    }

    async fn join(
        &self,
        token: &JoinToken,
        key: &Key,
        change: impl FnOnce(&mut JoinRequest),
    ) -> Result<JoinReply, Fault> {
        let clock: Arc<dyn Clock> = Arc::new(OsClock::new());
        let mut request = JoinRequest {
            token: token.expose().to_string(),
            csr: key.csr().expect("a request").into(),
            protocol: PROTOCOL,
            clock_ms: clock.unix_ms(),
            facts: Some(facts("n")),
        };
        change(&mut request);
        let addresses = [self.address.to_string()];
        let channel = bootstrap(token.authority(), &addresses, clock, &Settings::default()).expect("a channel");
        join(channel, request, PATIENCE).await
    }
}

fn facts(name: &str) -> NodeFacts {
    NodeFacts {
        name: name.into(),
        site: "s".into(),
        rack: "r".into(),
        peer_addr: "127.0.0.1:1".into(),
        ..NodeFacts::default()
    }
}

fn report() -> NodeReport {
    let clock_ms = OsClock::new().unix_ms();
    NodeReport { facts: Some(facts("n")), clock_ms, protocol: PROTOCOL, ..NodeReport::default() }
}

fn identity(reply: JoinReply, key: Key) -> Identity {
    let der = |list: Vec<bytes::Bytes>| list.into_iter().map(|one| one.to_vec()).collect();
    Identity::from_der(der(reply.chain), key, der(reply.roots)).expect("an identity")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_admits_one_key_and_no_other() {
    let rack = Rack::start().await;
    let (token, key) = (rack.token().await, Key::generate().expect("a key"));
    let first = rack.join(&token, &key, |_| {}).await.expect("joined");
    let again = rack.join(&token, &key, |_| {}).await.expect("the answer was lost, say");
    assert_eq!(first.node, again.node, "a retry is the same node");
    let other = rack.join(&token, &Key::generate().expect("a key"), |_| {}).await;
    assert!(matches!(other, Err(Fault::NotAllowed(_))), "{other:?}");
    let wrong = JoinToken::draw(token.authority(), &OsEntropy);
    let unknown = rack.join(&wrong, &Key::generate().expect("a key"), |_| {}).await;
    assert!(matches!(unknown, Err(Fault::NotAllowed(_))), "{unknown:?}");
    assert_eq!(rack.admin().list_nodes(Empty {}).await.expect("a list").into_inner().nodes.len(), 1);
    // A joiner that was given the fingerprint of another authority does not speak to this one.
    let strange = JoinToken::draw(wire::identity::Fingerprint([7; 32]), &OsEntropy);
    let refused = rack.join(&strange, &key, |_| {}).await;
    assert!(matches!(refused, Err(Fault::Unreachable(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_clock_and_a_wrong_protocol_are_refused_by_name() {
    let rack = Rack::start().await;
    let key = Key::generate().expect("a key");
    let late = rack.join(&rack.token().await, &key, |request| request.clock_ms -= 3_600_000).await;
    assert!(matches!(&late, Err(Fault::Invalid(why)) if why.contains("clock")), "{late:?}");
    let old = rack.join(&rack.token().await, &key, |request| request.protocol = 99).await;
    assert!(matches!(&old, Err(Fault::Invalid(why)) if why.contains("protocol")), "{old:?}");
    let garbage = rack.join(&rack.token().await, &key, |request| request.csr = vec![0x30; 200].into()).await;
    assert!(matches!(garbage, Err(Fault::Invalid(_))), "{garbage:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_certificate_opens_its_own_doors() {
    let rack = Rack::start().await;
    let key = Key::generate().expect("a key");
    let reply = rack.join(&rack.token().await, &key, |_| {}).await.expect("joined");
    let node_id: String = reply.node.iter().map(|byte| format!("{byte:02x}")).collect();
    let node = identity(reply, key);
    let link = RackLink::new(rack.channel(&node));
    link.report(report(), PATIENCE).await.expect("a node reports");
    let mut as_node = AdminClient::new(rack.channel(&node));
    let refused = as_node.create_key(CreateKeyRequest { name: "x".into() }).await.expect_err("not a node's");
    assert!(matches!(Fault::from(refused), Fault::NotAllowed(_)));
    let as_operator = RackLink::new(rack.channel(&rack.administrator));
    let refused = as_operator.report(report(), PATIENCE).await;
    assert!(matches!(refused, Err(Fault::NotAllowed(_))), "{refused:?}");
    // A node that was removed is refused whatever its certificate says.
    let gone = RemoveRequest { target: node_id, force: true };
    rack.admin().remove_node(gone).await.expect("removed");
    let refused = link.report(report(), PATIENCE).await;
    assert!(refused.is_err(), "{refused:?}");
    let again = RackLink::new(rack.channel(&node)).report(report(), PATIENCE).await;
    assert!(again.is_err(), "{again:?}");
}
