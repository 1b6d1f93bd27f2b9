//! One-time tokens: what is refused by which name, and that one token makes one node whatever is tried.

use base::{Entropy, NodeId, SeededEntropy};
use enrolment::{
    COMMENT_BYTES_MAX, Joiner, Redeemed, RequestedKey, RevocationList, TOKEN_LIFE_MS_MAX, TokenError, TokenRefusal,
    TokenRow, redeem,
};
use wire::identity::Fingerprint;
use wire::identity_key::Key;
use wire::identity_token::JoinToken;

const NOW_MS: u64 = 1_767_225_600_000;
const HOUR_MS: u64 = 3_600_000;
const AUTHORITY: Fingerprint = Fingerprint([0xaa; 32]);

fn key() -> RequestedKey {
    RequestedKey::from_csr(&Key::generate().expect("a key").csr().expect("a request")).expect("a good request")
}

fn made(seed: u64) -> (TokenRow, JoinToken) {
    TokenRow::create(AUTHORITY, HOUR_MS, "rack 3".into(), NOW_MS, &SeededEntropy::new(seed)).expect("a token")
}

fn show(row: Option<&TokenRow>, token: &JoinToken, key: &RequestedKey, now_ms: u64) -> Result<Redeemed, TokenRefusal> {
    let joiner = Joiner { key, fresh: NodeId([9; 16]) };
    redeem(row, token, AUTHORITY, joiner, &RevocationList::default(), now_ms)
}

#[test]
fn a_token_is_good_once_and_for_retries_of_the_same_key() {
    let (row, token) = made(1);
    let key = key();
    let first = show(Some(&row), &token, &key, NOW_MS).expect("good");
    let used = first.store.expect("the row changes");
    assert_eq!(first.node, NodeId([9; 16]));
    let by = used.used.clone().expect("it is used");
    assert_eq!((by.node, by.key_hash, by.at_ms), (first.node, key.hash(), NOW_MS));
    assert_eq!(TokenRow { used: None, ..used.clone() }, row, "nothing else changes");

    let joiner = Joiner { key: &key, fresh: NodeId([10; 16]) };
    let retry = redeem(Some(&used), &token, AUTHORITY, joiner, &RevocationList::default(), NOW_MS + HOUR_MS - 1);
    assert_eq!(retry, Ok(Redeemed { node: first.node, store: None }), "the same node, whatever id was drawn");
}

#[test]
fn every_refusal_has_its_name() {
    let (row, token) = made(1);
    let [key, other_key] = [key(), key()];
    let used = show(Some(&row), &token, &key, NOW_MS).expect("good").store.expect("the row changes");
    let node = NodeId([9; 16]);
    assert_eq!(show(None, &token, &key, NOW_MS), Err(TokenRefusal::Unknown));
    assert_eq!(show(Some(&row), &token, &key, NOW_MS + HOUR_MS), Err(TokenRefusal::Expired));
    assert_eq!(show(Some(&used), &token, &key, NOW_MS + HOUR_MS), Err(TokenRefusal::Expired), "retries end, too");
    assert_eq!(show(Some(&used), &token, &other_key, NOW_MS), Err(TokenRefusal::Replayed(node)));
    let joiner = Joiner { key: &key, fresh: node };
    let none = RevocationList::default();
    let elsewhere = redeem(Some(&row), &token, Fingerprint([0xbb; 32]), joiner, &none, NOW_MS);
    assert_eq!(elsewhere, Err(TokenRefusal::OtherAuthority));
    let mut removed = RevocationList::default();
    removed.revoke_node(node, NOW_MS);
    assert_eq!(redeem(Some(&used), &token, AUTHORITY, joiner, &removed, NOW_MS), Err(TokenRefusal::Removed(node)));
    let text = JoinToken::parse("hf1.x").map(|_| ()).map_err(TokenRefusal::from);
    assert!(matches!(text, Err(TokenRefusal::Malformed(_))));
}

#[test]
fn who_has_not_the_secret_learns_nothing() {
    let (row, token) = made(1);
    let key = key();
    let used = show(Some(&row), &token, &key, NOW_MS).expect("good").store.expect("the row changes");
    // The right id with every one-bit error in the secret, against an unused, a used and an expired token.
    let text = token.expose();
    let (head, tail) = (&text[..21], &text[85..]);
    let secret: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(&text[21 + 2 * at..23 + 2 * at], 16).expect("hex")).collect();
    for bit in 0..256 {
        let mut wrong = secret.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let wrong: String = wrong.iter().map(|byte| format!("{byte:02x}")).collect();
        let wrong = JoinToken::parse(&format!("{head}{wrong}{tail}")).expect("well formed");
        assert_eq!(wrong.id(), token.id());
        for (row, now_ms) in [(&row, NOW_MS), (&used, NOW_MS), (&used, NOW_MS + HOUR_MS)] {
            assert_eq!(show(Some(row), &wrong, &key, now_ms), Err(TokenRefusal::Unknown), "bit {bit}");
        }
    }
    // A row that is kept under another id.
    let (other, _) = made(2);
    let misplaced = TokenRow { id: other.id, ..row };
    assert_eq!(show(Some(&misplaced), &token, &key, NOW_MS), Err(TokenRefusal::Unknown));
}

#[test]
fn what_is_kept_does_not_hold_the_secret() {
    let (row, token) = made(1);
    let text = token.expose();
    let secret = text.split('.').nth(2).expect("four parts").to_owned();
    let json = serde_json::to_string(&row).expect("text");
    assert!(!json.contains(&secret) && !format!("{row:?}{token:?}").contains(&secret));
    let raw: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&secret[2 * at..2 * at + 2], 16).expect("hex")).collect();
    let bytes = postcard::to_allocvec(&row).expect("bytes");
    assert!(!bytes.windows(32).any(|part| part == raw));
    assert_eq!(postcard::from_bytes::<TokenRow>(&bytes).expect("its own bytes"), row);
    assert_eq!(serde_json::from_str::<TokenRow>(&json).expect("its own text"), row);
}

#[test]
fn tokens_have_bounds() {
    let make = |life_ms, comment: &str| {
        let made = TokenRow::create(AUTHORITY, life_ms, comment.to_owned(), NOW_MS, &SeededEntropy::new(1));
        made.map(|(row, _)| row.expires_ms)
    };
    assert_eq!(make(TOKEN_LIFE_MS_MAX, ""), Ok(NOW_MS + TOKEN_LIFE_MS_MAX));
    assert_eq!(make(1, &"c".repeat(COMMENT_BYTES_MAX)), Ok(NOW_MS + 1));
    assert_eq!(make(0, ""), Err(TokenError::Life));
    assert_eq!(make(TOKEN_LIFE_MS_MAX + 1, ""), Err(TokenError::Life));
    assert_eq!(make(1, &"c".repeat(COMMENT_BYTES_MAX + 1)), Err(TokenError::Comment));
    assert_eq!(make(1, "two\nlines"), Err(TokenError::Comment));
    let (row, _) = made(1);
    assert!(!row.is_over(NOW_MS + HOUR_MS - 1) && row.is_over(NOW_MS + HOUR_MS));
}

/// Several hosts show one token at once, retry when their answers are lost, and are crossed by each other between
/// reading the row and storing it: from every seed, one of them becomes one node.
#[test]
fn one_token_makes_one_node_however_joins_cross() {
    let keys: Vec<RequestedKey> = (0..4).map(|_| key()).collect();
    for seed in 0..300 {
        let entropy = SeededEntropy::new(seed);
        let (row, token) = TokenRow::create(AUTHORITY, HOUR_MS, String::new(), NOW_MS, &entropy).expect("a token");
        let mut stored = (0_u64, row);
        // What each host has read and not stored yet.
        let mut pending: Vec<Option<(u64, Redeemed)>> = vec![None; keys.len()];
        let mut admitted: Vec<(usize, NodeId)> = Vec::new();
        for _ in 0..40 {
            let host = entropy.below(keys.len() as u64) as usize;
            if let Some((read_at, redeemed)) = pending[host].take() {
                match redeemed.store {
                    Some(new) if read_at == stored.0 => {
                        stored = (read_at + 1, new);
                        admitted.push((host, redeemed.node));
                    }
                    // Someone was faster: judged again, later.
                    Some(_) => {}
                    None => admitted.push((host, redeemed.node)),
                }
                continue;
            }
            let mut fresh = NodeId([0; 16]);
            entropy.fill(&mut fresh.0);
            let joiner = Joiner { key: &keys[host], fresh };
            let shown = redeem(Some(&stored.1), &token, AUTHORITY, joiner, &RevocationList::default(), NOW_MS);
            match shown {
                Ok(redeemed) => pending[host] = Some((stored.0, redeemed)),
                Err(refused) => assert!(matches!(refused, TokenRefusal::Replayed(_)), "seed {seed}: {refused}"),
            }
        }
        assert!(!admitted.is_empty() && admitted.iter().all(|one| *one == admitted[0]), "seed {seed}: {admitted:?}");
        assert_eq!(stored.0, 1, "seed {seed}: the row changed more than once");
    }
}
