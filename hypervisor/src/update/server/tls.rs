// SPDX-License-Identifier: GPL-3.0-or-later
//! Which server it is: the one whose certificate is pinned, or one that a pinned authority names by the address. The
//! machine's own certificate authorities have no say.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use signing::digest::read_bounded;

/// The longest file of certificates.
const LARGEST_PEM: u64 = 256 << 10;

/// TLS 1.3 with whom this file pins, in PEM.
///
/// # Errors
/// When it cannot be read, or holds no certificate.
pub fn config(file: &Path) -> Result<ClientConfig> {
    let what = || format!("cannot use the server's certificate {}", file.display());
    let bytes = read_bounded(file, LARGEST_PEM).with_context(what)?;
    let pinned: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .with_context(what)?;
    ensure!(
        !pinned.is_empty(),
        "there is no certificate in PEM in {}: copy the one that the site's server shows",
        file.display()
    );
    let mut roots = RootCertStore::empty();
    for certificate in &pinned {
        roots.add(certificate.clone()).with_context(what)?;
    }
    let provider = Arc::new(default_provider());
    let above = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .with_context(what)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .with_context(what)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pins { pinned, above }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[derive(Debug)]
struct Pins {
    pinned: Vec<CertificateDer<'static>>,
    above: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Pins {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Its owner was told by its bytes: neither its names nor its dates add to that.
        if self.pinned.iter().any(|pinned| pinned == certificate) {
            return Ok(ServerCertVerified::assertion());
        }
        self.above.verify_server_cert(certificate, chain, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.above.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.above.supported_verify_schemes()
    }
}
