//! What the authority signs, for whom, and what it refuses to.

use std::collections::BTreeSet;

use base::{ClusterId, NodeId, OsEntropy, SeededEntropy};
use enrolment::{
    Authority, AuthorityError, CLOCK_SLACK_MS, IssuedRow, REQUEST_BYTES_MAX, RequestError, RequestedKey,
    RevocationList, VALIDITY_MS, VALIDITY_MS_OF_OPERATORS,
};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
};
use wire::identity::{IdentityError, PeerIdentity, PeerKind, Role, authority_cluster};
use wire::identity_key::Key;

/// 2026-01-01.
const NOW_MS: u64 = 1_767_225_600_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const CLUSTER: ClusterId = ClusterId([0xc1; 16]);
const NODE: PeerKind = PeerKind::Node(NodeId([0x0a; 16]));

fn authority() -> Authority {
    Authority::create(CLUSTER, NOW_MS, &SeededEntropy::new(1)).expect("an authority")
}

fn key() -> RequestedKey {
    RequestedKey::from_csr(&Key::generate().expect("a key").csr().expect("a request")).expect("a good request")
}

fn read(chain: &[Vec<u8>]) -> PeerIdentity {
    PeerIdentity::from_der(&chain[0]).expect("a peer's")
}

#[test]
fn a_certificate_is_for_its_holder_as_long_as_its_kind_allows() {
    let authority = authority();
    assert_eq!(authority_cluster(authority.certificate()), Ok(CLUSTER));
    let operator = PeerKind::Operator { name: "ada".into(), role: Role::Viewer };
    for (kind, life_ms) in
        [(NODE, VALIDITY_MS), (PeerKind::Controller("c1".into()), VALIDITY_MS), (operator, VALIDITY_MS_OF_OPERATORS)]
    {
        let issued = authority.issue(&key(), kind.clone(), NOW_MS, &SeededEntropy::new(2)).expect("signed");
        let peer = read(&issued.chain);
        assert_eq!((peer.cluster, &peer.kind, peer.serial), (CLUSTER, &kind, issued.row.serial));
        assert_eq!((peer.not_before_ms, peer.not_after_ms), (NOW_MS - CLOCK_SLACK_MS, NOW_MS + life_ms + 1000));
        assert_eq!(issued.row, IssuedRow { serial: peer.serial, holder: kind, not_after_ms: peer.not_after_ms });
        assert_eq!(issued.roots, [authority.certificate().to_vec()]);
    }
    let node = read(&authority.issue(&key(), NODE, NOW_MS, &OsEntropy).expect("signed").chain);
    let third = (node.not_after_ms - node.renew_at_ms()).abs_diff(10 * DAY_MS);
    assert!(third < DAY_MS / 10, "a node renews ten days before the end, off by {third} ms");
}

#[test]
fn names_that_could_be_read_otherwise_are_not_signed() {
    let authority = authority();
    for name in ["", "a/b", "a?role=admin", "a b", "a%20b", "\u{e9}", &"x".repeat(64)] {
        for kind in
            [PeerKind::Controller(name.to_owned()), PeerKind::Operator { name: name.to_owned(), role: Role::Viewer }]
        {
            let refused = authority.issue(&key(), kind, NOW_MS, &OsEntropy);
            assert!(matches!(refused, Err(AuthorityError::Certificate(IdentityError::Names(_)))), "{name:?}");
        }
    }
}

#[test]
fn serial_numbers_are_128_random_bits() {
    let authority = authority();
    let entropy = SeededEntropy::new(3);
    let key = key();
    let serials: BTreeSet<_> =
        (0..64).map(|_| authority.issue(&key, NODE, NOW_MS, &entropy).expect("signed").row.serial).collect();
    assert_eq!(serials.len(), 64);
    for bit in 0..128 {
        let set = serials.iter().filter(|serial| serial.0[bit / 8] >> (bit % 8) & 1 == 1).count();
        assert!((8..=56).contains(&set), "bit {bit} is set in {set} of 64");
    }
}

#[test]
fn nothing_outlives_the_authority_and_nothing_is_signed_outside_its_life() {
    let authority = authority();
    let end_ms = NOW_MS + 20 * 365 * DAY_MS;
    let late = authority.issue(&key(), NODE, end_ms - DAY_MS, &OsEntropy).expect("signed");
    assert_eq!(read(&late.chain).not_after_ms, end_ms + 1000);
    let early = authority.issue(&key(), NODE, NOW_MS - CLOCK_SLACK_MS, &OsEntropy).expect("signed");
    assert_eq!(read(&early.chain).not_before_ms, NOW_MS - CLOCK_SLACK_MS);
    for now_ms in [0, NOW_MS - CLOCK_SLACK_MS - 1, end_ms, u64::MAX] {
        assert_eq!(authority.issue(&key(), NODE, now_ms, &OsEntropy).err(), Some(AuthorityError::Expired));
    }
    for now_ms in [u64::MAX, 300_000_000_000_000] {
        assert_eq!(Authority::create(CLUSTER, now_ms, &OsEntropy).err(), Some(AuthorityError::Clock));
    }
}

/// A request that asks for everything.
fn greedy(pair: &KeyPair) -> Vec<u8> {
    let other = PeerKind::Node(NodeId([0xee; 16]));
    let mut params = CertificateParams::new(vec!["controller.holdfast".to_owned()]).expect("a name");
    params.subject_alt_names.push(rcgen::SanType::URI(other.uri(CLUSTER).as_str().try_into().expect("ASCII")));
    params.distinguished_name.push(DnType::CommonName, "root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    params.serialize_request(pair).expect("a request").der().to_vec()
}

#[test]
fn of_a_request_only_the_key_is_taken() {
    let authority = authority();
    let pair = KeyPair::generate().expect("a key");
    let key = RequestedKey::from_csr(&greedy(&pair)).expect("it is signed");
    let issued = authority.issue(&key, NODE, NOW_MS, &SeededEntropy::new(4)).expect("signed");
    assert_eq!(read(&issued.chain).kind, NODE);
    // The same certificate, to the byte before the signature, as for a request that asks for nothing.
    let modest = CertificateParams::default().serialize_request(&pair).expect("a request").der().to_vec();
    let modest = RequestedKey::from_csr(&modest).expect("it is signed");
    assert_eq!(modest, key);
    let again = authority.issue(&modest, NODE, NOW_MS, &SeededEntropy::new(4)).expect("signed");
    let before_signature = issued.chain[0].len().min(again.chain[0].len()) - 80;
    assert_eq!(issued.chain[0][4..before_signature], again.chain[0][4..before_signature]);
}

#[test]
fn requests_that_prove_nothing_are_refused() {
    let pair = KeyPair::generate().expect("a key");
    let good = greedy(&pair);
    let mut unsigned = good.clone();
    *unsigned.last_mut().expect("bytes") ^= 1;
    assert_eq!(RequestedKey::from_csr(&unsigned), Err(RequestError::Signature));
    // Another's key in a request that was signed with one's own.
    let other = KeyPair::generate().expect("a key");
    let at = good.windows(65).position(|part| part == pair.public_key_raw()).expect("the key is in it");
    let mut copied = good.clone();
    copied[at..at + 65].copy_from_slice(other.public_key_raw());
    assert_eq!(RequestedKey::from_csr(&copied), Err(RequestError::Signature));
    for kind in [&PKCS_ED25519, &PKCS_ECDSA_P384_SHA384] {
        let pair = KeyPair::generate_for(kind).expect("a key");
        assert_eq!(RequestedKey::from_csr(&greedy(&pair)), Err(RequestError::KeyType));
    }
    assert_eq!(RequestedKey::from_csr(&[&good[..], &[0]].concat()), Err(RequestError::Malformed));
    assert_eq!(RequestedKey::from_csr(&[]), Err(RequestError::Malformed));
    assert_eq!(RequestedKey::from_csr(&vec![0x30; REQUEST_BYTES_MAX + 1]), Err(RequestError::TooLong));
    assert_eq!(RequestedKey::from_csr(authority().certificate()), Err(RequestError::Malformed));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_request_gets_no_other_key_in(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..4),
    ) {
        static GOOD: std::sync::OnceLock<(Vec<u8>, [u8; 32])> = std::sync::OnceLock::new();
        let (good, hash) = GOOD.get_or_init(|| {
            let csr = greedy(&KeyPair::generate().expect("a key"));
            let hash = RequestedKey::from_csr(&csr).expect("good").hash();
            (csr, hash)
        });
        let mut der = good.clone();
        for (at, byte, how) in damage {
            let at = at.index(der.len());
            match how {
                0 => der[at] = byte,
                1 => der[at] ^= 1 << (byte % 8),
                2 => der.insert(at, byte),
                _ => { der.remove(at); }
            }
        }
        if let Ok(key) = RequestedKey::from_csr(&der) {
            prop_assert_eq!(key.hash(), *hash);
        }
    }
}

#[test]
fn an_authority_survives_its_text_and_its_key_is_in_no_debug() {
    let authority = authority();
    let text = authority.to_pem();
    let again = Authority::from_pem(&text).expect("its own text");
    assert_eq!((again.cluster(), again.fingerprint()), (CLUSTER, authority.fingerprint()));
    assert_eq!(*again.to_pem(), *text);
    let (a, b) = text.split_at(text.find("-----BEGIN PRIVATE").expect("a key"));
    assert_eq!(Authority::from_pem(&format!("{b}{a}")).expect("in any order").fingerprint(), authority.fingerprint());
    let inner = b.lines().nth(1).expect("a line of the key");
    assert!(!format!("{authority:?}{again:?}").contains(inner));
    let issued = again.issue(&key(), NODE, NOW_MS, &OsEntropy).expect("signed");
    assert_eq!(issued.roots, [authority.certificate().to_vec()]);
}

#[test]
fn other_texts_are_no_authority() {
    let own = authority();
    let text = own.to_pem();
    let (certificate, key_part) = text.split_at(text.find("-----BEGIN PRIVATE").expect("a key"));
    let other = authority().to_pem();
    let other_key = &other[other.find("-----BEGIN PRIVATE").expect("a key")..];
    let node_key = Key::generate().expect("a key");
    let csr = RequestedKey::from_csr(&node_key.csr().expect("a request")).expect("good");
    let leaf = own.issue(&csr, NODE, NOW_MS, &OsEntropy).expect("signed").chain.remove(0);
    let texts = [
        ("empty", String::new()),
        ("no key", certificate.to_owned()),
        ("no certificate", key_part.to_owned()),
        ("another's key", format!("{certificate}{other_key}")),
        ("two certificates", format!("{certificate}{text}", text = text.as_str())),
        ("two keys", format!("{}{key_part}", text.as_str())),
        ("cut", text[..text.len() - 30].to_owned()),
    ];
    for (what, text) in texts {
        assert!(Authority::from_pem(&text).is_err(), "{what} is taken");
    }
    let from_leaf = Authority::from_der(&leaf, node_key.expose_pkcs8());
    assert!(matches!(from_leaf, Err(AuthorityError::Certificate(IdentityError::Authority(_)))), "{from_leaf:?}");
}

#[test]
fn a_renewal_is_for_the_same_peer_while_it_may_speak() {
    let authority = authority();
    let issued = authority.issue(&key(), NODE, NOW_MS, &OsEntropy).expect("signed");
    let old = read(&issued.chain);
    let none = RevocationList::default();
    let later_ms = NOW_MS + 20 * DAY_MS;
    let new = authority.renew(&old, &key(), &none, later_ms, &OsEntropy).expect("renewed");
    let peer = read(&new.chain);
    assert_eq!((&peer.kind, peer.not_after_ms), (&NODE, later_ms + VALIDITY_MS + 1000));
    assert_ne!(peer.serial, old.serial);

    let renew = |old: &PeerIdentity, list: &RevocationList, now_ms| {
        authority.renew(old, &key(), list, now_ms, &OsEntropy).map(|_| ()).expect_err("refused")
    };
    assert_eq!(renew(&old, &none, old.not_after_ms), AuthorityError::RenewedTooLate(NODE));
    let mut revoked = RevocationList::default();
    revoked.revoke(&issued.row);
    assert_eq!(renew(&old, &revoked, later_ms), AuthorityError::Revoked(NODE));
    let mut removed = RevocationList::default();
    removed.revoke_node(NodeId([0x0a; 16]), NOW_MS);
    assert_eq!(renew(&peer, &removed, later_ms), AuthorityError::Revoked(NODE));
    let elsewhere = PeerIdentity { cluster: ClusterId([0xc2; 16]), ..old };
    assert_eq!(renew(&elsewhere, &none, later_ms), AuthorityError::OtherCluster(ClusterId([0xc2; 16])));
}

#[test]
fn revocations_are_remembered_until_what_they_refuse_has_ended() {
    let authority = authority();
    let [first, second] =
        [0, 10].map(|days| authority.issue(&key(), NODE, NOW_MS + days * DAY_MS, &OsEntropy).expect("signed"));
    let removed = NodeId([0x0b; 16]);
    let of_removed = authority.issue(&key(), PeerKind::Node(removed), NOW_MS, &OsEntropy).expect("signed");
    let mut list = RevocationList::default();
    assert!(list.revoke(&first.row) && list.revoke(&second.row) && !list.revoke(&first.row));
    assert!(list.revoke_node(removed, NOW_MS) && !list.revoke_node(removed, NOW_MS));
    assert_eq!(list.len(), 3);
    assert!([&first, &second, &of_removed].iter().all(|issued| list.holds(&read(&issued.chain))));
    let other = authority.issue(&key(), NODE, NOW_MS, &OsEntropy).expect("signed");
    assert!(!list.holds(&read(&other.chain)));
    let refused = list.refused();
    assert_eq!(refused.serials, [first.row.serial, second.row.serial].into());
    assert_eq!(refused.nodes, [removed].into());

    let json = serde_json::to_string(&list).expect("text");
    assert_eq!(serde_json::from_str::<RevocationList>(&json).expect("its own text"), list);
    let bytes = postcard::to_allocvec(&list).expect("bytes");
    assert_eq!(postcard::from_bytes::<RevocationList>(&bytes).expect("its own bytes"), list);

    assert!(!list.prune(first.row.not_after_ms));
    assert!(list.prune(first.row.not_after_ms + CLOCK_SLACK_MS));
    assert!(!list.holds(&read(&first.chain)) && list.holds(&read(&second.chain)));
    assert!(list.prune(second.row.not_after_ms + CLOCK_SLACK_MS) && list.is_empty());
}
