//! The cluster's certificate authority: ECDSA P-256, self-signed, of this cluster only.
//!
//! Invariants: a certificate names one peer in the one way of [`wire::identity`]; it begins a little in the past
//! ([`CLOCK_SLACK_MS`]) and ends before the authority does; its number is 128 random bits; it may sign nothing. A peer
//! that serves may be a server and a client, an operator only a client.

use std::fmt;

use base::{ClusterId, Entropy};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use wire::identity::{Fingerprint, IdentityError, PeerIdentity, PeerKind, Serial, authority_cluster, authority_uri};
use wire::identity_key::write_pem;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use crate::request::RequestedKey;
use crate::revocation::RevocationList;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// How long certificates of nodes and controllers are valid. They renew themselves after two thirds.
pub const VALIDITY_MS: u64 = 30 * DAY_MS;
/// How long those of operators are: nobody renews them but their holder.
pub const VALIDITY_MS_OF_OPERATORS: u64 = 90 * DAY_MS;
/// How far a peer's clock may be behind ours and the peer still finds a new certificate valid.
pub const CLOCK_SLACK_MS: u64 = 10 * 60 * 1000;
/// The authority's own life: longer than hardware's.
const AUTHORITY_VALIDITY_MS: u64 = 20 * 365 * DAY_MS;

/// Why the authority cannot be used, or signs nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// The text or the bytes are not an authority's certificate and its key.
    #[error("{0}")]
    Malformed(&'static str),
    /// The certificate is not an authority's.
    #[error(transparent)]
    Certificate(#[from] IdentityError),
    /// The time is before 1970 plus the slack, or after the year 9999.
    #[error("the clock is out of range")]
    Clock,
    /// The authority itself is not valid now.
    #[error("the authority has expired, or is not valid yet")]
    Expired,
    /// The certificate to be renewed is of another cluster.
    #[error("the certificate is of another cluster, {0}")]
    OtherCluster(ClusterId),
    /// The certificate to be renewed is revoked, or its node removed.
    #[error("{0} is revoked, or its node removed")]
    Revoked(PeerKind),
    /// The certificate to be renewed has expired.
    #[error("the certificate of {0} has expired")]
    RenewedTooLate(PeerKind),
    /// The library could not sign.
    #[error("cannot sign: {0}")]
    Sign(String),
}

/// A certificate, as it is handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// What is remembered of it.
    pub row: IssuedRow,
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// The authorities that its holder should believe, DER.
    pub roots: Vec<Vec<u8>>,
}

/// What is remembered of a certificate until it ends: enough to revoke it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuedRow {
    /// Its number.
    pub serial: Serial,
    /// Whom it names.
    pub holder: PeerKind,
    /// First moment at which it is not valid any more, milliseconds since 1970-01-01T00:00:00Z.
    pub not_after_ms: u64,
}

/// The authority with its private key.
pub struct Authority {
    cluster: ClusterId,
    certificate: CertificateDer<'static>,
    not_before_ms: u64,
    not_after_ms: u64,
    key: Zeroizing<KeyPair>,
}

impl Authority {
    /// A new authority for a new cluster.
    ///
    /// # Errors
    /// [`AuthorityError::Clock`], or [`AuthorityError::Sign`] when the kernel gives no randomness.
    pub fn create(cluster: ClusterId, now_ms: u64, entropy: &dyn Entropy) -> Result<Self, AuthorityError> {
        let key = Zeroizing::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(sign_error)?);
        let mut params = blank(&format!("Holdfast {cluster}"), &[authority_uri(cluster)], None)?;
        params.serial_number = Some(SerialNumber::from_slice(&draw_serial(entropy).0));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date(now_ms.saturating_sub(CLOCK_SLACK_MS))?;
        params.not_after = date(now_ms.saturating_add(AUTHORITY_VALIDITY_MS))?;
        let certificate = params.self_signed(&*key).map_err(sign_error)?;
        Self::assemble(certificate.der().clone(), key)
    }

    /// From the certificate and its key in PKCS#8, both DER.
    ///
    /// # Errors
    /// [`AuthorityError`] when either is not what it must be, or they do not belong together.
    pub fn from_der(certificate: &[u8], pkcs8: &[u8]) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &PKCS_ECDSA_P256_SHA256);
        let key =
            key.map_err(|_| AuthorityError::Malformed("the authority's key is not one of ECDSA P-256 in PKCS#8"))?;
        Self::assemble(CertificateDer::from(certificate.to_vec()), Zeroizing::new(key))
    }

    /// From what [`Authority::to_pem`] wrote: one certificate and one private key, in any order.
    ///
    /// # Errors
    /// As [`Authority::from_der`].
    pub fn from_pem(text: &str) -> Result<Self, AuthorityError> {
        let (mut certificate, mut key) = (None, None);
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
            let (kind, der) = section.map_err(|_| AuthorityError::Malformed("the text is damaged"))?;
            let before = match kind {
                SectionKind::Certificate => certificate.replace(Zeroizing::new(der)),
                SectionKind::PrivateKey => key.replace(Zeroizing::new(der)),
                _ => return Err(AuthorityError::Malformed("the text holds more than a certificate and its key")),
            };
            if before.is_some() {
                return Err(AuthorityError::Malformed("the text holds two of one kind"));
            }
        }
        match (certificate, key) {
            (Some(certificate), Some(key)) => Self::from_der(&certificate, &key),
            _ => Err(AuthorityError::Malformed("the text lacks the certificate or its key")),
        }
    }

    fn assemble(certificate: CertificateDer<'static>, key: Zeroizing<KeyPair>) -> Result<Self, AuthorityError> {
        let cluster = authority_cluster(&certificate)?;
        let Ok(([], parsed)) = X509Certificate::from_der(&certificate) else {
            return Err(AuthorityError::Malformed("the authority's certificate does not parse"));
        };
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(AuthorityError::Malformed("the authority's key is another certificate's"));
        }
        let ms =
            |seconds: i64| u64::try_from(seconds).map(|s| s.saturating_mul(1000)).map_err(|_| AuthorityError::Clock);
        let validity = parsed.validity();
        let (not_before_ms, not_after_ms) = (ms(validity.not_before.timestamp())?, ms(validity.not_after.timestamp())?);
        Ok(Self { cluster, certificate, not_before_ms, not_after_ms, key })
    }

    /// Certificate and private key as one text. Whoever holds it is the cluster's authority.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        // Room for all of it, so that no grown-out-of buffer keeps a part of the key.
        let mut text = Zeroizing::new(String::with_capacity(4096));
        write_pem("CERTIFICATE", &self.certificate, &mut text);
        write_pem("PRIVATE KEY", self.key.serialized_der(), &mut text);
        text
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Its own certificate, DER: what peers believe.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// By what a joiner knows it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// Signs a certificate for `holder`. Who that is, the caller has decided: from a token, a peer's certificate
    /// ([`Authority::renew`]) or an administrator's word.
    ///
    /// # Errors
    /// [`AuthorityError`] when the authority is not valid now, or the name cannot stand in a certificate.
    pub fn issue(
        &self,
        key: &RequestedKey,
        holder: PeerKind,
        now_ms: u64,
        entropy: &dyn Entropy,
    ) -> Result<Issued, AuthorityError> {
        holder.check()?;
        if !(self.not_before_ms..self.not_after_ms).contains(&now_ms) {
            return Err(AuthorityError::Expired);
        }
        let operator = matches!(holder, PeerKind::Operator { .. });
        let life_ms = if operator { VALIDITY_MS_OF_OPERATORS } else { VALIDITY_MS };
        let serial = draw_serial(entropy);
        let mut params = blank(&holder.to_string(), &[holder.uri(self.cluster)], holder.server_name())?;
        params.serial_number = Some(SerialNumber::from_slice(&serial.0));
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !operator {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.not_before = date(now_ms.saturating_sub(CLOCK_SLACK_MS).max(self.not_before_ms))?;
        params.not_after = date(now_ms.saturating_add(life_ms).min(self.not_after_ms))?;

        let issuer = Issuer::from_ca_cert_der(&self.certificate, &*self.key).map_err(sign_error)?;
        let certificate = params.signed_by(key.key(), &issuer).map_err(sign_error)?;
        // What the peers will read is read here first.
        let read = PeerIdentity::from_der(certificate.der())?;
        assert!(read.serial == serial && read.kind == holder && read.cluster == self.cluster, "signed: {read}");
        let row = IssuedRow { serial, holder, not_after_ms: read.not_after_ms };
        Ok(Issued { row, chain: vec![certificate.der().to_vec()], roots: vec![self.certificate.to_vec()] })
    }

    /// Signs a new certificate for the peer that `old` names, as TLS has verified it.
    ///
    /// # Errors
    /// [`AuthorityError`] also when the old one is of another cluster, expired or revoked: a connection may be older
    /// than that.
    pub fn renew(
        &self,
        old: &PeerIdentity,
        key: &RequestedKey,
        revoked: &RevocationList,
        now_ms: u64,
        entropy: &dyn Entropy,
    ) -> Result<Issued, AuthorityError> {
        if old.cluster != self.cluster {
            return Err(AuthorityError::OtherCluster(old.cluster));
        }
        if revoked.holds(old) {
            return Err(AuthorityError::Revoked(old.kind.clone()));
        }
        if now_ms >= old.not_after_ms {
            return Err(AuthorityError::RenewedTooLate(old.kind.clone()));
        }
        self.issue(key, old.kind.clone(), now_ms, entropy)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({}, {})", self.cluster, self.fingerprint())
    }
}

/// Parameters with nothing in them but names: rcgen's own defaults are for tests.
fn blank(common_name: &str, uris: &[String], dns: Option<String>) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    for uri in uris {
        params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().map_err(sign_error)?));
    }
    if let Some(dns) = dns {
        params.subject_alt_names.push(SanType::DnsName(dns.as_str().try_into().map_err(sign_error)?));
    }
    Ok(params)
}

/// A number that is not 0: X.509 wants positive ones.
fn draw_serial(entropy: &dyn Entropy) -> Serial {
    let mut serial = Serial([0; 16]);
    while serial.0 == [0; 16] {
        entropy.fill(&mut serial.0);
    }
    serial
}

/// X.509 counts whole seconds.
fn date(ms: u64) -> Result<OffsetDateTime, AuthorityError> {
    let seconds = i64::try_from(ms / 1000).map_err(|_| AuthorityError::Clock)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| AuthorityError::Clock)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn sign_error(error: rcgen::Error) -> AuthorityError {
    AuthorityError::Sign(error.to_string())
}
