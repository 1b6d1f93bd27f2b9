//! What is taken of a request for a certificate: its public key, once the request has proved that its sender holds the
//! private one.

use std::fmt;

use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SubjectPublicKeyInfo};
use sha2::{Digest, Sha256};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

/// Bytes of a request at most; ours have about 200.
pub const REQUEST_BYTES_MAX: usize = 4096;
/// An uncompressed point of P-256.
const POINT_BYTES: usize = 65;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// More than [`REQUEST_BYTES_MAX`].
    #[error("the request is longer than {REQUEST_BYTES_MAX} bytes")]
    TooLong,
    /// Not one PKCS#10 request in DER, and nothing else.
    #[error("this is no request for a certificate (PKCS#10 in DER)")]
    Malformed,
    /// Not a key of ECDSA P-256.
    #[error("the key is not one of ECDSA P-256")]
    KeyType,
    /// The sender does not hold the key.
    #[error("the request is not signed by its own key")]
    Signature,
}

/// A public key whose holder has signed a request with it.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestedKey {
    key: SubjectPublicKeyInfo,
}

impl RequestedKey {
    /// Verifies a request, PKCS#10 in DER. Whatever names and wishes it has are ignored.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn from_csr(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > REQUEST_BYTES_MAX {
            return Err(RequestError::TooLong);
        }
        let Ok(([], request)) = X509CertificationRequest::from_der(der) else {
            return Err(RequestError::Malformed);
        };
        let shown = &request.certification_request_info.subject_pki;
        let key = SubjectPublicKeyInfo::from_der(shown.raw).map_err(|_| RequestError::KeyType)?;
        if key.algorithm() != &PKCS_ECDSA_P256_SHA256 || key.der_bytes().len() != POINT_BYTES {
            return Err(RequestError::KeyType);
        }
        request.verify_signature().map_err(|_| RequestError::Signature)?;
        Ok(Self { key })
    }

    /// SHA-256 of the key: what is remembered of it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.key.der_bytes()).into()
    }

    pub(crate) fn key(&self) -> &SubjectPublicKeyInfo {
        &self.key
    }
}

impl fmt::Debug for RequestedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestedKey(")?;
        self.hash()[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("..)")
    }
}
