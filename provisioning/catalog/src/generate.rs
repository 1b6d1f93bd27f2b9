//! Drawing key pairs.
//!
//! An id has 18 drawn characters of 32 (90 bits), so two draws do not meet; a secret has 40 of 64
//! (240 bits), so it cannot be guessed. Both alphabets have a power of two of letters: a masked random
//! byte is then uniform.

use base::{Clock, Entropy};

use crate::{AccessKey, Secret};

/// Characters of an access key id.
pub const ACCESS_KEY_ID_LEN: usize = 20;
/// What every access key id of ours begins with.
pub const ACCESS_KEY_ID_PREFIX: &str = "HF";
/// Characters of a secret.
pub const SECRET_LEN: usize = 40;

/// Base 32 of RFC 4648: no 0, 1, 8 or 9, which are misread.
const ID_ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Base 64 with two characters that no shell, URL or INI file treats specially.
const SECRET_ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.";

const _: () = assert!(ACCESS_KEY_ID_LEN > ACCESS_KEY_ID_PREFIX.len());

/// Draws a new key pair.
#[must_use]
pub fn draw_key(entropy: &dyn Entropy, clock: &dyn Clock, name: &str) -> AccessKey {
    let id = draw::<32>(entropy, ID_ALPHABET, ACCESS_KEY_ID_LEN - ACCESS_KEY_ID_PREFIX.len());
    AccessKey {
        access_key_id: format!("{ACCESS_KEY_ID_PREFIX}{id}"),
        secret: Secret::new(draw::<64>(entropy, SECRET_ALPHABET, SECRET_LEN)),
        name: name.to_owned(),
        created_ms: clock.unix_ms(),
    }
}

fn draw<const N: usize>(entropy: &dyn Entropy, alphabet: &[u8; N], len: usize) -> String {
    const { assert!(N.is_power_of_two(), "a masked byte is uniform only over a power of two") };
    let mut bytes = vec![0; len];
    entropy.fill(&mut bytes);
    bytes.iter().map(|byte| char::from(alphabet[usize::from(*byte) % N])).collect()
}

#[cfg(test)]
mod tests {
    use base::{OsEntropy, SeededEntropy, StepClock};
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_have_their_shape_and_pass_their_own_rules() {
        let clock = StepClock::default();
        clock.advance(std::time::Duration::from_secs(5));
        for _ in 0..200 {
            let key = draw_key(&OsEntropy, &clock, "root");
            assert_eq!(key.access_key_id.len(), ACCESS_KEY_ID_LEN);
            assert!(key.access_key_id.starts_with(ACCESS_KEY_ID_PREFIX));
            assert!(key.access_key_id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()));
            assert_eq!(key.secret.expose().len(), SECRET_LEN);
            assert_eq!(key.created_ms, 5000);
            key.check().unwrap();
        }
    }

    #[test]
    fn every_letter_is_drawn_and_no_two_keys_meet() {
        let entropy = SeededEntropy::new(3);
        let keys: Vec<_> = (0..500).map(|_| draw_key(&entropy, &StepClock::default(), "k")).collect();
        let ids: BTreeSet<_> = keys.iter().map(|key| key.access_key_id.clone()).collect();
        assert_eq!(ids.len(), keys.len());
        let letters: BTreeSet<u8> = keys.iter().flat_map(|key| key.secret.expose().bytes()).collect();
        assert_eq!(letters, SECRET_ALPHABET.iter().copied().collect());
    }
}
