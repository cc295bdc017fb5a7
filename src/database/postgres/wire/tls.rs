//! Whom a connection trusts: certificates from files, and how far a server's is looked at.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::certificate;
use super::error::Error;
use super::settings::{Place, Roots, SettingsError, Tls, TlsMode};

/// What servers from version 17 on expect to hear.
const PROTOCOL: &[u8] = b"postgresql";

/// Reads what the settings name. It is read for every connection: certificates are exchanged while we run.
pub(super) fn config(tls: &Tls) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let mut verifier =
        Verifier { mode: tls.mode, roots: RootCertStore::empty(), certificates: Vec::new(), algorithms };
    match &tls.roots {
        None => {}
        Some(Roots::System) => {
            let found = rustls_native_certs::load_native_certs();
            verifier.roots.add_parsable_certificates(found.certs);
            if verifier.roots.is_empty() {
                return Err(Error::Tls(
                    "sslrootcert=system, and this system has no certificates: install its package ca-certificates"
                        .to_owned(),
                ));
            }
        }
        Some(Roots::File(path)) => {
            for certificate in certificates(path)? {
                verifier.roots.add(certificate.clone()).map_err(|error| file(path, &error.to_string()))?;
                verifier.certificates.push(certificate);
            }
        }
    }
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Tls(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key_path)) => {
            let key = PrivateKeyDer::from_pem_file(key_path).map_err(|error| {
                let hint = "a key that is not encrypted is needed, as PEM";
                file(key_path, &format!("no private key can be read: {}; {hint}", pem(&error)))
            })?;
            builder
                .with_client_auth_cert(certificates(certificate)?, key)
                .map_err(|error| file(certificate, &format!("it cannot be used with its key: {error}")))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.enable_sni = tls.server_name;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // PostgreSQL hands out no tickets.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates: Vec<_> =
        read.map_err(|error| file(path, &format!("certificates cannot be read: {}", pem(&error))))?;
    if certificates.is_empty() {
        return Err(file(path, "there is no certificate in it, as PEM"));
    }
    Ok(certificates)
}

/// What is wrong with a file. Nothing of what is in it is shown.
fn pem(error: &rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::Io(error) => error.to_string(),
        rustls::pki_types::pem::Error::NoItemsFound => "there is none in it".to_owned(),
        _ => "it is no PEM".to_owned(),
    }
}

fn file(path: &Path, problem: &str) -> Error {
    let place = Place::File(path.to_owned());
    Error::Settings(SettingsError { place, problem: problem.to_owned(), hint: None })
}

/// How a host is called in certificates.
pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(host.to_owned()).map_err(|_| {
        Error::Tls(format!("no certificate can be for the host {host:?}: give a name or an address"))
    })
}

/// Looks at a server's certificate as far as `sslmode` says.
#[derive(Debug)]
struct Verifier {
    mode: TlsMode,
    roots: RootCertStore,
    /// The roots as they are in their file.
    certificates: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.mode < TlsMode::VerifyCa {
            return Ok(ServerCertVerified::assertion());
        }
        let parsed = ParsedCertificate::try_from(end_entity)?;
        // Many servers have one certificate that signs itself, and their clients trust that very one. It is marked as
        // one that signs others, which is no server's, so its validity is what is left to look at.
        if self.certificates.iter().any(|certificate| certificate == end_entity) {
            let (from, until) = certificate::validity(end_entity)
                .ok_or(rustls::Error::from(CertificateError::BadEncoding))?;
            let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            if now < from {
                return Err(CertificateError::NotValidYet.into());
            }
            if now > until {
                return Err(CertificateError::Expired.into());
            }
        } else {
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        }
        if self.mode == TlsMode::VerifyFull {
            verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What is wrong, for who has to mend it.
pub(super) fn explain(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::UnknownIssuer => {
                "the server's certificate is not signed by any in sslrootcert: put the one that signed it there"
                    .to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!(
                    "the server's certificate is for another host: {problem}; connect by a name that it has as \
                     subjectAltName, which a common name (CN) is not"
                )
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("the server's certificate has expired: {problem}")
            }
            // webpki has no other variant for it.
            CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
                "the server's certificate signed itself, and is not in sslrootcert: put that very one there".to_owned()
            }
            _ => format!("the server's certificate is not good: {problem}"),
        },
        rustls::Error::AlertReceived(alert) => {
            format!("the server refused with the alert {alert:?}: its log says why (does it want sslcert and sslkey?)")
        }
        _ => error.to_string(),
    }
}
