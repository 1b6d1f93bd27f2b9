//! One-time join tokens as the controller keeps them, and what becomes of one when it is shown.
//!
//! [`redeem`] changes nothing by itself: it says which row must be stored in place of the one it was given. Two joiners
//! with one token both see it unused; the compare-and-set of the caller lets one through, and the other is judged
//! again, against the new row.
//!
//! The secret is judged first: who does not hold it learns nothing of a token but that it is not one.

use base::{Entropy, NodeId};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use wire::identity::Fingerprint;
use wire::identity_token::{JoinToken, MalformedToken, TokenId};

use crate::request::RequestedKey;
use crate::revocation::RevocationList;

/// Bytes of a comment at most.
pub const COMMENT_BYTES_MAX: usize = 128;
/// A token lives thirty days at most: it lies about in plain text.
pub const TOKEN_LIFE_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1000;

/// Why no token is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The comment is too long or has control characters.
    #[error("a comment has at most {COMMENT_BYTES_MAX} bytes and no control characters")]
    Comment,
    /// The life is 0 or too long.
    #[error("a token lives at least one millisecond and at most thirty days")]
    Life,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// The text is no token.
    #[error(transparent)]
    Malformed(#[from] MalformedToken),
    /// There is no such token, or its secret is wrong: nobody is told which.
    #[error("there is no such token")]
    Unknown,
    /// It is another authority's.
    #[error("the token is another cluster's")]
    OtherAuthority,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Another key has used it.
    #[error("the token was used by another host, node {0}")]
    Replayed(NodeId),
    /// The node that it became was removed; that one does not come back.
    #[error("the token was used by node {0}, which was removed")]
    Removed(NodeId),
}

/// Who has used a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenUse {
    /// The node that it became.
    pub node: NodeId,
    /// SHA-256 of its public key.
    pub key_hash: [u8; 32],
    /// When, milliseconds since 1970-01-01T00:00:00Z.
    pub at_ms: u64,
}

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRow {
    /// Which.
    pub id: TokenId,
    /// SHA-256 of the secret. The secret has 256 random bits: no dictionary finds it from here.
    pub secret_hash: [u8; 32],
    /// First moment at which it is refused.
    pub expires_ms: u64,
    /// For people.
    pub comment: String,
    /// `None` while it is unused.
    pub used: Option<TokenUse>,
}

impl TokenRow {
    /// A new token: what is kept, and what is told once.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn create(
        authority: Fingerprint,
        life_ms: u64,
        comment: String,
        now_ms: u64,
        entropy: &dyn Entropy,
    ) -> Result<(Self, JoinToken), TokenError> {
        if comment.len() > COMMENT_BYTES_MAX || comment.chars().any(char::is_control) {
            return Err(TokenError::Comment);
        }
        if !(1..=TOKEN_LIFE_MS_MAX).contains(&life_ms) {
            return Err(TokenError::Life);
        }
        let token = JoinToken::draw(authority, entropy);
        let (id, secret_hash, expires_ms) = (token.id(), token.secret_hash(), now_ms.saturating_add(life_ms));
        Ok((Self { id, secret_hash, expires_ms, comment, used: None }, token))
    }

    /// Whether it can be forgotten: nobody can join by it any more.
    #[must_use]
    pub fn is_over(&self, now_ms: u64) -> bool {
        now_ms >= self.expires_ms
    }
}

/// What follows from a token that is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redeemed {
    /// The node that the bearer is from now on.
    pub node: NodeId,
    /// What must be stored in place of the row, by compare-and-set, before anything is handed out. `None` when this key
    /// has used the token before: its answer was lost on the way.
    pub store: Option<TokenRow>,
}

/// Who shows a token.
#[derive(Debug, Clone, Copy)]
pub struct Joiner<'a> {
    /// The key that its request proved.
    pub key: &'a RequestedKey,
    /// The id that it will have when it is new.
    pub fresh: NodeId,
}

/// Judges a token. `row` is what is kept under the token's id, if anything.
///
/// # Errors
/// [`TokenRefusal`].
pub fn redeem(
    row: Option<&TokenRow>,
    token: &JoinToken,
    authority: Fingerprint,
    joiner: Joiner<'_>,
    revoked: &RevocationList,
    now_ms: u64,
) -> Result<Redeemed, TokenRefusal> {
    // Whether there is a row or not, one hash is made and compared.
    let kept = row.map_or([0; 32], |row| row.secret_hash);
    let known = bool::from(kept.ct_eq(&token.secret_hash()));
    let Some(row) = row.filter(|row| known && row.id == token.id()) else {
        return Err(TokenRefusal::Unknown);
    };
    if token.authority() != authority {
        return Err(TokenRefusal::OtherAuthority);
    }
    if row.is_over(now_ms) {
        return Err(TokenRefusal::Expired);
    }
    let (key_hash, fresh) = (joiner.key.hash(), joiner.fresh);
    match &row.used {
        Some(used) if used.key_hash != key_hash => Err(TokenRefusal::Replayed(used.node)),
        Some(used) if revoked.nodes().any(|removed| removed == used.node) => Err(TokenRefusal::Removed(used.node)),
        Some(used) => Ok(Redeemed { node: used.node, store: None }),
        None => {
            let used = Some(TokenUse { node: fresh, key_hash, at_ms: now_ms });
            Ok(Redeemed { node: fresh, store: Some(TokenRow { used, ..row.clone() }) })
        }
    }
}
