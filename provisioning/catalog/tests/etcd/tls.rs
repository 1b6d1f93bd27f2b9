//! One etcd server that takes only those whom its authority knows.

use std::path::Path;
use std::time::{Duration, Instant};

use catalog::{Commit, EtcdConfig, EtcdTls, FactsError};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use super::servers::{Servers, Setup, etcd_can_be_had};
use super::{config, open, rest};

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key, in PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn tls(believes: &Authority, signed_by: &Authority) -> EtcdTls {
    let (cert, key) = signed_by.sign("controller");
    EtcdTls { ca_pem: believes.pem.clone().into(), cert_pem: cert.into(), key_pem: key.into(), server_name: None }
}

fn write_server(dir: &Path, authority: &Authority) {
    let (cert, key) = authority.sign("127.0.0.1");
    for (name, text) in [("ca.pem", &authority.pem), ("server.pem", &cert), ("server.key", &key)] {
        std::fs::write(dir.join(name), text).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_decide_who_speaks_with_whom() {
    if !etcd_can_be_had() {
        return;
    }
    let (dir, ours, theirs) = (tempfile::tempdir().unwrap(), Authority::new(), Authority::new());
    write_server(dir.path(), &ours);
    let servers = Servers::start(1, Setup { election_ms: 500, tls: Some(dir.path().to_owned()) }).await;
    let with = |tls| open(EtcdConfig { tls: Some(tls), ..config(servers.endpoints()) });

    let known = with(tls(&ours, &ours));
    let start = Instant::now();
    while let Err(error) = known.get("a").await {
        assert!(error.is_retryable() && start.elapsed() < Duration::from_secs(30), "{error}");
        rest().await;
    }
    known.commit(Commit::new().put("a", "1")).await.unwrap();

    let named = with(EtcdTls { server_name: Some("etcd.example".to_owned()), ..tls(&ours, &ours) });
    let plain = open(config(vec![servers.endpoints()[0].replace("https", "http")]));
    for (stranger, why) in [
        (with(tls(&ours, &theirs)), "another's certificate"),
        (with(tls(&theirs, &ours)), "a server that we do not believe"),
        (named, "a server of another name"),
        (plain, "no TLS"),
    ] {
        let refusal = stranger.get("a").await.unwrap_err();
        assert!(matches!(refusal, FactsError::Unavailable(_)), "{why}: {refusal}");
        println!("{why}: {refusal}");
        stranger.commit(Commit::new().put("a", "2")).await.unwrap_err();
    }
    assert_eq!(known.get("a").await.unwrap().unwrap().value, "1");
}

#[test]
fn settings_that_cannot_work_are_refused_before_anything_is_sent() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (good, base) = (tls(&ours, &ours), config(vec!["http://127.0.0.1:1".to_owned()]));
    let secure = || EtcdConfig { endpoints: vec!["https://127.0.0.1:1".to_owned()], ..base.clone() };
    for bad in [
        EtcdConfig { endpoints: vec![], ..base.clone() },
        EtcdConfig { endpoints: vec!["127.0.0.1".to_owned()], ..base.clone() },
        EtcdConfig { endpoints: vec!["ftp://127.0.0.1:1".to_owned()], ..base.clone() },
        EtcdConfig { prefix: String::new(), ..base.clone() },
        EtcdConfig { prefix: "/no/end".to_owned(), ..base.clone() },
        EtcdConfig { lease_ttl: Duration::from_millis(10), ..base.clone() },
        EtcdConfig { call_timeout: Duration::ZERO, ..base.clone() },
        EtcdConfig { compact_every: Some(Duration::ZERO), ..base.clone() },
        EtcdConfig { tls: Some(good.clone()), ..base.clone() },
        EtcdConfig { tls: None, ..secure() },
        EtcdConfig { tls: Some(EtcdTls { ca_pem: b"none".to_vec(), ..good.clone() }), ..secure() },
        EtcdConfig { tls: Some(EtcdTls { cert_pem: vec![], ..good.clone() }), ..secure() },
        EtcdConfig { tls: Some(EtcdTls { key_pem: tls(&theirs, &theirs).key_pem, ..good.clone() }), ..secure() },
    ] {
        let refusal = catalog::EtcdFacts::new(bad.clone(), std::sync::Arc::new(base::OsClock::new())).unwrap_err();
        assert!(matches!(refusal, FactsError::Invalid { .. }), "{bad:?}: {refusal}");
    }
    let good = EtcdConfig { tls: Some(good), ..secure() };
    let debug = format!("{good:?}");
    catalog::EtcdFacts::new(good, std::sync::Arc::new(base::OsClock::new())).unwrap();
    assert!(debug.contains("EtcdTls(None, ..)"), "{debug}");
}
