//! An authority that signs whatever a test wants, a server that says who asks, and clients that obey no rule.

#![allow(dead_code, reason = "each test file uses its part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{ClusterId, NodeId, StepClock};
use futures::stream::Empty;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};
use wire::dial::{self, Dialer};
use wire::identity::{PeerKind, Role, authority_uri};
use wire::identity_key::{Identity, Key};
use wire::listen::{Listener, Settings};
use wire::listen_count::{Counts, Refusal};
use wire::pb::index as pb;
use wire::tls::{Admit, Credentials};
use wire::tls_conn::Peer;

/// The moment at which every test begins: 2026-01-01.
pub(crate) const NOW_MS: u64 = 1_767_225_600_000;
pub(crate) const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// How long a test waits for what must happen; generous, since it decides nothing but when to give up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const CLUSTER: ClusterId = ClusterId([0xc1; 16]);
pub(crate) const OTHER_CLUSTER: ClusterId = ClusterId([0xc2; 16]);
pub(crate) const NODE: NodeId = NodeId([0x0a; 16]);
pub(crate) const OTHER_NODE: NodeId = NodeId([0x0b; 16]);

pub(crate) fn clock() -> StepClock {
    let clock = StepClock::default();
    clock.advance(Duration::from_millis(NOW_MS));
    clock
}

pub(crate) fn controller() -> PeerKind {
    PeerKind::Controller("c1".into())
}

pub(crate) fn operator() -> PeerKind {
    PeerKind::Operator { name: "ada".into(), role: Role::Operator }
}

/// An authority, and all that it can be made to sign.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) der: CertificateDer<'static>,
    pub(crate) cluster: ClusterId,
}

/// What a certificate says; good for a peer unless a test changes it.
pub(crate) struct Leaf {
    pub(crate) serial: Vec<u8>,
    pub(crate) names: Vec<SanType>,
    pub(crate) from_ms: u64,
    pub(crate) to_ms: u64,
    pub(crate) usages: Vec<ExtendedKeyUsagePurpose>,
    pub(crate) is_ca: IsCa,
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

pub(crate) fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().expect("ASCII"))
}

impl Leaf {
    pub(crate) fn of(cluster: ClusterId, kind: &PeerKind) -> Self {
        let mut names = vec![uri(&kind.uri(cluster))];
        names.extend(kind.server_name().map(|name| dns(&name)));
        Self {
            serial: vec![7; 16],
            names,
            from_ms: NOW_MS - DAY_MS,
            to_ms: NOW_MS + DAY_MS,
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            is_ca: IsCa::ExplicitNoCa,
        }
    }
}

fn date(ms: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp((ms / 1000) as i64).expect("a date")
}

impl Ca {
    pub(crate) fn new(cluster: ClusterId) -> Self {
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        // Every authority has the same name: nothing may rest on it.
        name.push(DnType::CommonName, "Holdfast");
        params.distinguished_name = name;
        params.subject_alt_names = vec![uri(&authority_uri(cluster))];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        (params.not_before, params.not_after) = (date(NOW_MS - 400 * DAY_MS), date(NOW_MS + 4000 * DAY_MS));
        let pair = KeyPair::generate().expect("a key");
        let der = params.self_signed(&pair).expect("a certificate").der().clone();
        Self { issuer: Issuer::new(params, pair), der, cluster }
    }

    pub(crate) fn sign(&self, leaf: &Leaf) -> Identity {
        let pair = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.serial_number = Some(SerialNumber::from_slice(&leaf.serial));
        params.subject_alt_names.clone_from(&leaf.names);
        (params.not_before, params.not_after) = (date(leaf.from_ms), date(leaf.to_ms));
        params.extended_key_usages.clone_from(&leaf.usages);
        params.is_ca = leaf.is_ca;
        let der = params.signed_by(&pair, &self.issuer).expect("a certificate").der().clone();
        let key = Key::from_pkcs8(pair.serialized_der()).expect("its key");
        Identity { chain: vec![der], key, roots: vec![self.der.clone()] }
    }

    pub(crate) fn issue(&self, kind: &PeerKind) -> Identity {
        self.sign(&Leaf::of(self.cluster, kind))
    }

    pub(crate) fn issue_numbered(&self, kind: &PeerKind, serial: u8) -> Identity {
        self.sign(&Leaf { serial: vec![serial; 16], ..Leaf::of(self.cluster, kind) })
    }
}

pub(crate) fn credentials(identity: &Identity, clock: &StepClock) -> Arc<Credentials> {
    Credentials::new(identity, Arc::new(clock.clone())).expect("they belong together")
}

/// Answers every question with whom it came from, and its certificate's number.
struct WhoAsks;

#[tonic::async_trait]
impl pb::index_server::Index for WhoAsks {
    async fn submit(&self, _: Request<Streaming<pb::SubmitPart>>) -> Result<Response<pb::SubmitDone>, Status> {
        Err(Status::unimplemented("asked for nothing but questions"))
    }

    async fn ask(&self, request: Request<pb::Question>) -> Result<Response<pb::Answer>, Status> {
        let peer = Peer::of(&request).ok_or_else(|| Status::internal("no peer in the extensions"))?;
        let who = peer.identity().map_or("nobody".to_owned(), |peer| format!("{} {}", peer.kind, peer.serial));
        Ok(Response::new(pb::Answer { answer: who.into_bytes().into() }))
    }

    type ReadDataStream = Empty<Result<pb::DataPart, Status>>;

    async fn read_data(&self, _: Request<pb::DataRequest>) -> Result<Response<Self::ReadDataStream>, Status> {
        Err(Status::unimplemented("asked for nothing but questions"))
    }
}

/// A running server.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn serve(credentials: Arc<Credentials>, admit: Admit, settings: Settings) -> Running {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind(loopback, credentials, admit, settings).await.expect("a free port");
    let (address, counts) = (listener.address(), listener.counts());
    let service = pb::index_server::IndexServer::new(WhoAsks);
    let task = tokio::spawn(async move {
        Server::builder().serve_with_incoming(service, listener).await.expect("a listener never fails");
    });
    Running { address, counts, task }
}

/// A server of `NODE` and the authority behind it.
pub(crate) async fn rack(admit: Admit, settings: Settings) -> (Ca, StepClock, Arc<Credentials>, Running) {
    let (ca, clock) = (Ca::new(CLUSTER), clock());
    let own = credentials(&ca.issue(&PeerKind::Node(NODE)), &clock);
    let server = serve(Arc::clone(&own), admit, settings).await;
    (ca, clock, own, server)
}

pub(crate) fn dialer(credentials: Arc<Credentials>) -> Dialer {
    Dialer::new(credentials, dial::Settings::default()).expect("TLS 1.3")
}

/// Asks who we are.
pub(crate) async fn ask(channel: &Channel) -> Result<String, Status> {
    let mut client = pb::index_client::IndexClient::new(channel.clone());
    let answer = client.ask(pb::Question { partition: None, question: Vec::new().into() }).await?;
    Ok(String::from_utf8(answer.into_inner().answer.to_vec()).expect("text"))
}

/// Believes every server, so that the server's judgement alone is seen.
#[derive(Debug)]
struct Blind;

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

pub(crate) fn blind_config(identity: Option<&Identity>) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Blind));
    let mut config = match identity {
        Some(identity) => {
            let key = PrivatePkcs8KeyDer::from(identity.key.expose_pkcs8().to_vec());
            builder.with_client_auth_cert(identity.chain.clone(), key.into()).expect("they belong together")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Shakes hands as far as a client can see.
pub(crate) async fn shake(address: SocketAddr, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    shake_over(TcpStream::connect(address).await?, config).await
}

pub(crate) async fn shake_over(tcp: TcpStream, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("any.holdfast").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

/// Whether the server speaks HTTP/2 with whoever holds this certificate. In TLS 1.3 a client has finished before its
/// certificate is judged, so only the first answer tells.
pub(crate) async fn is_served(address: SocketAddr, config: ClientConfig) -> bool {
    let Ok(mut io) = shake(address, config).await else { return false };
    speaks(&mut io).await
}

pub(crate) async fn speaks(io: &mut TlsStream<TcpStream>) -> bool {
    // The preface and empty SETTINGS (RFC 9113, 3.4); the server answers with its own.
    if io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.is_err() {
        return false;
    }
    let mut head = [0; 9];
    io.read_exact(&mut head).await.is_ok() && head[3] == 4
}

/// Waits until a count is reached.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"));
}

/// All refusals but those of this reason.
pub(crate) fn others(counts: &Counts, why: Refusal) -> u64 {
    Refusal::ALL.iter().filter(|other| **other != why).map(|other| counts.refused(*other)).sum()
}

/// Shows a certificate that its key does not belong to.
#[derive(Debug)]
struct Mismatched(Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for Mismatched {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

pub(crate) fn mismatched_config(identity: &Identity) -> ClientConfig {
    let provider = rustls::crypto::ring::default_provider();
    let key = PrivatePkcs8KeyDer::from(identity.key.expose_pkcs8().to_vec());
    let key = provider.key_provider.load_private_key(key.into()).expect("a key");
    let mut config = blind_config(None);
    let certified = rustls::sign::CertifiedKey::new(identity.chain.clone(), key);
    config.client_auth_cert_resolver = Arc::new(Mismatched(Arc::new(certified)));
    config
}
