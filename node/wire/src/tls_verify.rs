//! The verifiers behind [`crate::tls`]: first webpki's judgement of chain, signature, validity and usage, then ours of
//! cluster, kind, refusals and name.

use std::fmt;
use std::sync::Arc;

use base::ClusterId;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::identity::{Fingerprint, IdentityError, PeerIdentity, PeerKind, Serial, authority_cluster};
use crate::tls::{Admit, Credentials};

/// Why a peer with a genuine certificate is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefused {
    /// The certificate names no peer.
    #[error("the certificate names no peer: {0}")]
    NoPeer(#[from] IdentityError),
    /// It is of another cluster.
    #[error("the certificate is of another cluster, {0}")]
    OtherCluster(ClusterId),
    /// It was revoked, or its node is a member no more.
    #[error("the certificate {0} is revoked, or its node removed")]
    Revoked(Serial),
    /// It is not valid any more.
    #[error("the certificate has expired")]
    Expired,
    /// Such peers are not served here.
    #[error("{0} is not admitted here")]
    Kind(PeerKind),
    /// The server is not what its name says.
    #[error("{0} is not the server that was dialled")]
    OtherServer(PeerKind),
    /// No certificate of the chain has the fingerprint that the joiner was given.
    #[error("the server does not show the authority with fingerprint {0}")]
    OtherAuthority(Fingerprint),
    /// It was let in without a certificate, to join, and has stayed too long.
    #[error("a peer without a certificate has stayed too long")]
    AnonymousTooLong,
}

impl From<PeerRefused> for Error {
    fn from(refused: PeerRefused) -> Self {
        // The reason travels inside, so that the listener can name it; revocation and expiry also have alerts.
        Self::InvalidCertificate(match refused {
            PeerRefused::Revoked(_) => CertificateError::Revoked,
            PeerRefused::Expired => CertificateError::Expired,
            other => CertificateError::Other(OtherError(Arc::new(other))),
        })
    }
}

/// Judges clients.
#[derive(Debug)]
pub(crate) struct Clients {
    credentials: Arc<Credentials>,
    admit: Admit,
}

impl Clients {
    pub(crate) fn new(credentials: Arc<Credentials>, admit: Admit) -> Self {
        Self { credentials, admit }
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        !self.admit.anonymous
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A peer has one certificate; no hint is needed to choose it.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.credentials.current().clients.verify_client_cert(end_entity, intermediates, now)?;
        let peer = PeerIdentity::from_der(end_entity).map_err(PeerRefused::from)?;
        self.credentials.judge(&peer)?;
        if !self.admit.admits(&peer.kind) {
            return Err(PeerRefused::Kind(peer.kind).into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::SupportedVersionsExtensionRequired.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.credentials.current().clients.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.credentials.current().clients.supported_verify_schemes()
    }
}

/// Judges servers.
#[derive(Debug)]
pub(crate) struct Servers {
    credentials: Arc<Credentials>,
}

impl Servers {
    pub(crate) fn new(credentials: Arc<Credentials>) -> Self {
        Self { credentials }
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let servers = Arc::clone(&self.credentials.current().servers);
        let verified = servers.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)?;
        self.credentials.judge(&named(end_entity, server_name)?)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::SupportedVersionsExtensionRequired.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.credentials.current().servers.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.credentials.current().servers.supported_verify_schemes()
    }
}

/// Judges a controller for a host that knows its authority's fingerprint alone.
pub(crate) struct Bootstrap {
    authority: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl Bootstrap {
    pub(crate) fn new(authority: Fingerprint, provider: Arc<CryptoProvider>) -> Self {
        Self { authority, provider }
    }
}

impl fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bootstrap({})", self.authority)
    }
}

impl ServerCertVerifier for Bootstrap {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates.iter().find(|shown| Fingerprint::of(shown) == self.authority);
        let authority = authority.ok_or(PeerRefused::OtherAuthority(self.authority))?;
        let cluster = authority_cluster(authority).map_err(PeerRefused::from)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider)).build();
        let verifier = verifier.map_err(|error| Error::General(error.to_string()))?;
        let verified = verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)?;
        let peer = named(end_entity, server_name)?;
        if peer.cluster != cluster {
            return Err(PeerRefused::OtherCluster(peer.cluster).into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::SupportedVersionsExtensionRequired.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The peer of a server's certificate, when it is what the dialled name says.
fn named(end_entity: &CertificateDer<'_>, server_name: &ServerName<'_>) -> Result<PeerIdentity, PeerRefused> {
    let peer = PeerIdentity::from_der(end_entity)?;
    match peer.kind.server_name() {
        Some(name) if name == server_name.to_str() => Ok(peer),
        _ => Err(PeerRefused::OtherServer(peer.kind)),
    }
}
