//! The text that lets one host join once: `hf1.<id>.<secret>.<fingerprint of the authority>`, all in lower-case hex.
//!
//! The joiner needs it whole: the fingerprint tells it which authority to believe, before anyone has been believed. The
//! controller keeps a hash of the secret only.
//!
//! Invariants: the secret is in no `Debug`, and is wiped when the token is dropped.

use std::fmt;

use base::Entropy;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::identity::Fingerprint;

const VERSION: &str = "hf1";

/// Which token: public, fit for lists and logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenId(pub [u8; 8]);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

/// The text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no join token (hf1.<id>.<secret>.<fingerprint>)")]
pub struct MalformedToken;

/// A token as its bearer holds it.
pub struct JoinToken {
    id: TokenId,
    secret: Zeroizing<[u8; 32]>,
    authority: Fingerprint,
}

impl JoinToken {
    /// A new token of the authority with this fingerprint.
    #[must_use]
    pub fn draw(authority: Fingerprint, entropy: &dyn Entropy) -> Self {
        let mut id = TokenId([0; 8]);
        let mut secret = Zeroizing::new([0; 32]);
        entropy.fill(&mut id.0);
        entropy.fill(secret.as_mut());
        Self { id, secret, authority }
    }

    /// Reads a token. Space around it is ignored: it is copied by hand.
    ///
    /// # Errors
    /// [`MalformedToken`].
    pub fn parse(text: &str) -> Result<Self, MalformedToken> {
        let mut parts = text.trim().split('.');
        let (version, id, secret, authority) = (parts.next(), parts.next(), parts.next(), parts.next());
        let (Some(VERSION), Some(id), Some(secret), Some(authority), None) =
            (version, id, secret, authority, parts.next())
        else {
            return Err(MalformedToken);
        };
        let mut token = Self { id: TokenId([0; 8]), secret: Zeroizing::default(), authority: Fingerprint([0; 32]) };
        read_hex(id, &mut token.id.0)?;
        read_hex(secret, token.secret.as_mut())?;
        read_hex(authority, &mut token.authority.0)?;
        Ok(token)
    }

    /// The text, to be shown once to whoever asked for the token.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        // Room for all of it, so that no grown-out-of buffer keeps a part of the secret.
        let mut text = Zeroizing::new(String::with_capacity(160));
        text.push_str(VERSION);
        for part in [&self.id.0[..], &self.secret[..], &self.authority.0[..]] {
            text.push('.');
            for byte in part {
                text.extend([byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])));
            }
        }
        text
    }

    /// Which token.
    #[must_use]
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// Whom the joiner believes.
    #[must_use]
    pub fn authority(&self) -> Fingerprint {
        self.authority
    }

    /// What is kept of the secret. It has 256 random bits, so a plain hash tells nothing of it.
    #[must_use]
    pub fn secret_hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret.as_slice()).into()
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}, ..)", self.id)
    }
}

fn read_hex(text: &str, out: &mut [u8]) -> Result<(), MalformedToken> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(MalformedToken),
    };
    if text.len() != 2 * out.len() {
        return Err(MalformedToken);
    }
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::SeededEntropy;

    #[test]
    fn a_token_survives_its_text_and_its_secret_is_in_no_debug() {
        let token = JoinToken::draw(Fingerprint::of(b"authority"), &SeededEntropy::new(1));
        let text = token.expose();
        let again = JoinToken::parse(&format!(" {}\n", text.as_str())).expect("its own text");
        assert_eq!((again.id(), again.authority()), (token.id(), token.authority()));
        assert_eq!((again.secret_hash(), &again.expose()), (token.secret_hash(), &text));
        let secret = text.split('.').nth(2).expect("four parts");
        assert!(!format!("{token:?}").contains(secret));
        assert_eq!(format!("{token:?}"), format!("JoinToken({}, ..)", token.id()));
    }

    #[test]
    fn other_text_is_refused() {
        let text = JoinToken::draw(Fingerprint::of(b"authority"), &SeededEntropy::new(1)).expose();
        let mut bad = vec![String::new(), "....".into(), text.to_uppercase(), format!("{}.", text.as_str())];
        bad.extend((0..text.len()).map(|at| text[..at].to_owned()));
        bad.extend((0..text.len()).map(|at| format!("{}+{}", &text[..at], &text[at + 1..])));
        bad.push(text.replacen("hf1", "hf2", 1));
        bad.push("\u{e9}".repeat(75));
        for bad in bad {
            assert!(JoinToken::parse(&bad).is_err(), "{bad:?} is taken");
        }
    }
}
