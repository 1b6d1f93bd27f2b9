//! From a one-time token to a certificate, and to its end.
//!
//! - [`Authority`]: the cluster's own certificate authority; signs what a [`RequestedKey`] proved to hold.
//! - [`TokenRow`] and [`redeem`]: one-time tokens, kept as hashes.
//! - [`RevocationList`]: certificates and nodes that are refused before their time.
//!
//! Invariants:
//! - What a certificate says is decided here: of a request only its public key is taken, and only if the request is
//!   signed by it.
//! - A token admits one key. The same key may come again while the token lives, and is the same node then.
//! - Secrets are kept as hashes or wiped when dropped, compared in constant time, and in no `Debug`.
//!
//! Left out: storage, network, clocks. Rows are plain values that the caller keeps; a change of a token's row must be
//! stored by compare-and-set *before* the certificate is handed out. Time and entropy are passed in; keys and
//! signatures alone draw from the kernel, because ring takes no other source.

#![forbid(unsafe_code)]

mod authority;
mod request;
mod revocation;
mod token;

pub use authority::{
    Authority, AuthorityError, CLOCK_SLACK_MS, Issued, IssuedRow, VALIDITY_MS, VALIDITY_MS_OF_OPERATORS,
};
pub use request::{REQUEST_BYTES_MAX, RequestError, RequestedKey};
pub use revocation::RevocationList;
pub use token::{
    COMMENT_BYTES_MAX, Joiner, Redeemed, TOKEN_LIFE_MS_MAX, TokenError, TokenRefusal, TokenRow, TokenUse, redeem,
};
