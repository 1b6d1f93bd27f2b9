//! What a peer speaks with: a private key, its certificate, and the authorities that it believes.
//!
//! A host draws its own [`Key`], asks for a certificate with [`Key::csr`] and keeps both, with the roots, as one PEM
//! text ([`Identity::to_pem`]): one file, replaced whole, so that key and certificate always belong together.
//!
//! Keys are ECDSA P-256. They are drawn by ring from the kernel: ring takes no other source of randomness, so the
//! entropy door does not reach here.
//!
//! Invariants: private keys are in no `Debug`, and wiped when they are dropped (ring's own copies are not: it offers
//! no way).

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize, Zeroizing};

use crate::identity::{IdentityError, PeerIdentity};

/// Certificates in a chain, and roots, at most: a chain has one, and during a change of authority there are two roots.
pub const CERTIFICATES_MAX: usize = 8;

/// Why a key or an identity cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key could not be drawn or used.
    #[error("the private key is not one of ECDSA P-256 in PKCS#8")]
    Key,
    /// The text is not made of what belongs there.
    #[error("{0}")]
    Pem(&'static str),
    /// The certificate is no peer's.
    #[error(transparent)]
    Certificate(#[from] IdentityError),
}

/// A private key.
#[derive(Clone)]
pub struct Key {
    pkcs8: Zeroizing<Vec<u8>>,
}

impl Key {
    /// Draws a key.
    ///
    /// # Errors
    /// [`KeyError::Key`] when the kernel gives no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = Zeroizing::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| KeyError::Key)?);
        Ok(Self { pkcs8: Zeroizing::new(pair.serialized_der().to_vec()) })
    }

    /// Takes a key in.
    ///
    /// # Errors
    /// [`KeyError::Key`] when it is no P-256 key in PKCS#8.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let key = Self { pkcs8: Zeroizing::new(der.to_vec()) };
        key.pair()?;
        Ok(key)
    }

    /// The key itself, for keeping it.
    #[must_use]
    pub fn expose_pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// A request for a certificate, PKCS#10 in DER. It proves that the key is held and names nobody: who the bearer is
    /// is for the authority to say.
    ///
    /// # Errors
    /// [`KeyError::Key`].
    pub fn csr(&self) -> Result<Vec<u8>, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&*self.pair()?).map_err(|_| KeyError::Key)?;
        Ok(request.der().to_vec())
    }

    fn pair(&self) -> Result<Zeroizing<KeyPair>, KeyError> {
        let der = PrivatePkcs8KeyDer::from(self.pkcs8.as_slice());
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256);
        Ok(Zeroizing::new(pair.map_err(|_| KeyError::Key)?))
    }

    /// As rustls takes it.
    pub(crate) fn to_rustls(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pkcs8.to_vec()).into()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// All that a peer needs to speak.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its certificate first, then any between it and a root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The certificate's key.
    pub key: Key,
    /// The authorities that it believes.
    pub roots: Vec<CertificateDer<'static>>,
}

impl Identity {
    /// From what an authority answered, in DER.
    ///
    /// # Errors
    /// [`KeyError`] when a part is absent, or there is too much, or the certificate is no peer's.
    pub fn from_der(chain: Vec<Vec<u8>>, key: Key, roots: Vec<Vec<u8>>) -> Result<Self, KeyError> {
        for (list, what) in
            [(&chain, "there is no certificate, or too many"), (&roots, "there is no root, or too many")]
        {
            if list.is_empty() || list.len() > CERTIFICATES_MAX {
                return Err(KeyError::Pem(what));
            }
        }
        PeerIdentity::from_der(&chain[0])?;
        let all = |list: Vec<Vec<u8>>| list.into_iter().map(CertificateDer::from).collect();
        Ok(Self { chain: all(chain), key, roots: all(roots) })
    }

    /// Whom its certificate names.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn peer(&self) -> Result<PeerIdentity, IdentityError> {
        self.chain.first().ok_or(IdentityError::NotX509).and_then(|leaf| PeerIdentity::from_der(leaf))
    }

    /// Reads what [`Identity::to_pem`] wrote: the certificates before the key are the chain, those after it the roots.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let (mut chain, mut key, mut roots) = (Vec::new(), None, Vec::new());
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
            let (kind, mut der) = section.map_err(|_| KeyError::Pem("the text is damaged"))?;
            match kind {
                SectionKind::Certificate if key.is_none() => chain.push(der),
                SectionKind::Certificate => roots.push(der),
                SectionKind::PrivateKey if key.is_none() => {
                    key = Some(Key::from_pkcs8(&der)?);
                    der.zeroize();
                }
                _ => return Err(KeyError::Pem("the text holds more than certificates and one private key")),
            }
        }
        let key = key.ok_or(KeyError::Pem("the text holds no private key"))?;
        Self::from_der(chain, key, roots)
    }

    /// The whole as one text: chain, key, roots. Whoever holds it is the peer.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        let sections = || {
            let chain = self.chain.iter().map(|der| ("CERTIFICATE", der.as_ref()));
            let key = [("PRIVATE KEY", self.key.expose_pkcs8())];
            chain.chain(key).chain(self.roots.iter().map(|der| ("CERTIFICATE", der.as_ref())))
        };
        // Room for all of it, so that no grown-out-of buffer keeps a part of the key.
        let room = sections().map(|(_, der)| der.len() * 3 / 2 + 100).sum();
        let mut text = Zeroizing::new(String::with_capacity(room));
        sections().for_each(|(label, der)| write_pem(label, der, &mut text));
        debug_assert!(text.len() <= room, "the text has grown out of its buffer");
        text
    }
}

/// Appends one section of PEM (RFC 7468).
pub fn write_pem(label: &str, der: &[u8], text: &mut Zeroizing<String>) {
    let body = Zeroizing::new(base64_simd::STANDARD.encode_to_string(der));
    text.extend(["-----BEGIN ", label, "-----\n"]);
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.extend([line, "\n"]);
        rest = after;
    }
    text.extend(["-----END ", label, "-----\n"]);
}
