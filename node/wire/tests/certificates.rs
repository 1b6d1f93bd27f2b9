//! What is read from certificates, and from damaged ones.

mod world;

use proptest::prelude::*;
use wire::identity::{CERTIFICATE_BYTES_MAX, IdentityError, PeerIdentity, PeerKind, Role, Serial, authority_cluster};
use wire::identity_key::{Identity, Key, KeyError};
use world::{CLUSTER, Ca, DAY_MS, Leaf, NODE, NOW_MS, controller, operator};

fn kinds() -> [PeerKind; 4] {
    let admin = PeerKind::Operator { name: "root@lab.example".into(), role: Role::Admin };
    [PeerKind::Node(NODE), controller(), operator(), admin]
}

#[test]
fn a_certificate_says_who_it_is_for_how_long_and_its_number() {
    let ca = Ca::new(CLUSTER);
    for kind in kinds() {
        for serial in [vec![1], vec![0x80; 16], vec![0x7f; 16], vec![0xff; 16], vec![1, 0, 0]] {
            let leaf = Leaf { serial: serial.clone(), ..Leaf::of(CLUSTER, &kind) };
            let peer = PeerIdentity::from_der(&ca.sign(&leaf).chain[0]).expect("a peer's");
            let mut wide = [0; 16];
            wide[16 - serial.len()..].copy_from_slice(&serial);
            assert_eq!((peer.cluster, &peer.kind, peer.serial), (CLUSTER, &kind, Serial(wide)));
            assert_eq!((peer.not_before_ms, peer.not_after_ms), (NOW_MS - DAY_MS, NOW_MS + DAY_MS + 1000));
            let life = peer.not_after_ms - peer.not_before_ms;
            assert!(peer.renew_at_ms().abs_diff(peer.not_before_ms + life * 2 / 3) < 3);
        }
    }
    assert_eq!(authority_cluster(&ca.der), Ok(CLUSTER));
    assert!(matches!(PeerIdentity::from_der(&ca.der), Err(IdentityError::Authority(_))));
    assert!(authority_cluster(&ca.issue(&controller()).chain[0]).is_err());
}

#[test]
fn a_certificate_is_exactly_one_certificate() {
    let der = Ca::new(CLUSTER).issue(&PeerKind::Node(NODE)).chain[0].to_vec();
    let longer = [&der[..], &[0]].concat();
    assert_eq!(PeerIdentity::from_der(&longer), Err(IdentityError::NotX509));
    for cut in 0..der.len() {
        assert!(PeerIdentity::from_der(&der[..cut]).is_err(), "cut to {cut} of {}", der.len());
    }
    assert_eq!(PeerIdentity::from_der(&vec![0x30; CERTIFICATE_BYTES_MAX + 1]), Err(IdentityError::TooLong));
}

/// Whatever was read obeys the rules that everyone else builds on.
fn check(der: &[u8]) {
    if let Ok(peer) = PeerIdentity::from_der(der) {
        assert_eq!(PeerKind::from_uri(&peer.kind.uri(peer.cluster)), Ok((peer.cluster, peer.kind.clone())));
        assert!(peer.not_before_ms < peer.not_after_ms);
        assert!((peer.not_before_ms..peer.not_after_ms).contains(&peer.renew_at_ms()));
    }
    if let Ok(cluster) = authority_cluster(der) {
        assert!(PeerIdentity::from_der(der).is_err(), "an authority of {cluster} is a peer, too");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_certificates_are_read_strictly_or_not_at_all(
        which in 0..5_usize,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..6),
    ) {
        // Drawn once: signing takes longer than reading.
        static GOOD: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
        let good = GOOD.get_or_init(|| {
            let ca = Ca::new(CLUSTER);
            let leaves = kinds().map(|kind| ca.issue(&kind).chain[0].to_vec());
            leaves.into_iter().chain([ca.der.to_vec()]).collect()
        });
        let mut der = good[which].clone();
        for (at, byte, how) in damage {
            let at = at.index(der.len());
            match how {
                0 => der[at] = byte,
                1 => der[at] ^= 1 << (byte % 8),
                2 => der.insert(at, byte),
                _ => { der.remove(at); }
            }
        }
        check(&der);
    }

    #[test]
    fn noise_is_no_certificate(noise in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(PeerIdentity::from_der(&noise).is_err());
        prop_assert!(authority_cluster(&noise).is_err());
    }
}

#[test]
fn an_identity_survives_its_text() {
    let identity = Ca::new(CLUSTER).issue(&PeerKind::Node(NODE));
    let text = identity.to_pem();
    let again = Identity::from_pem(&text).expect("its own text");
    assert_eq!((&again.chain, &again.roots), (&identity.chain, &identity.roots));
    assert_eq!(again.key.expose_pkcs8(), identity.key.expose_pkcs8());
    assert_eq!(*again.to_pem(), *text);
    let inner = text.split("PRIVATE KEY-----").nth(1).expect("a key").lines().nth(1).expect("a line of it");
    assert!(inner.len() == 64 && !format!("{identity:?}").contains(inner));
    assert!(format!("{identity:?}").contains("Key(..)"));
}

#[test]
fn other_texts_are_no_identity() {
    let identity = Ca::new(CLUSTER).issue(&PeerKind::Node(NODE));
    let text = identity.to_pem();
    let (chain, rest) = text.split_at(text.find("-----BEGIN PRIVATE").expect("a key"));
    let (key, roots) = rest.split_at(rest.rfind("-----BEGIN CERT").expect("a root"));
    let parts = [
        ("empty", String::new()),
        ("no key", format!("{chain}{roots}")),
        ("no chain", format!("{key}{roots}")),
        ("no root", format!("{chain}{key}")),
        ("two keys", format!("{chain}{key}{key}{roots}")),
        ("an authority as the peer", format!("{roots}{key}{roots}")),
        ("a key of another kind", format!("{chain}{}{roots}", key.replace("PRIVATE KEY", "EC PRIVATE KEY"))),
        ("too many roots", format!("{chain}{key}{}", roots.repeat(9))),
        ("cut", text[..text.len() - 40].to_owned()),
    ];
    for (what, text) in parts {
        assert!(Identity::from_pem(&text).is_err(), "{what} is taken");
    }
}

#[test]
fn a_key_is_p256_and_its_request_names_nobody() {
    let key = Key::generate().expect("a key");
    assert_eq!(Key::from_pkcs8(key.expose_pkcs8()).expect("its own bytes").expose_pkcs8(), key.expose_pkcs8());
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    assert!(matches!(Key::from_pkcs8(other.serialized_der()), Err(KeyError::Key)));
    assert!(Key::from_pkcs8(&key.expose_pkcs8()[1..]).is_err());
    let csr = key.csr().expect("a request");
    let request = rcgen::CertificateSigningRequestParams::from_der(&csr.as_slice().into()).expect("verified");
    assert_eq!(request.params.distinguished_name.iter().count(), 0);
    assert!(request.params.subject_alt_names.is_empty());
}
