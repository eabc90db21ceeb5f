// SPDX-License-Identifier: GPL-3.0-or-later
//! Self-signed X.509 certificates, and a private key together with its own.

use chrono::{DateTime, Utc};
use der::asn1::BitString;
use der::{Decode, Encode};
use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::BigNum;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Public};
use openssl::rsa::Rsa;
use openssl::sign::Verifier;
use openssl::x509::extension::{BasicConstraints, KeyUsage};
use openssl::x509::{X509, X509NameBuilder};

use super::{SecureBootError, structure};
use crate::digest::Sha256;
use crate::keys::{Algorithm, KeyError, PrivateKey, PublicKey, SigningKey};

/// Firmware hardly looks at validity dates; they are for people and for tools that do.
const VALID_DAYS: i64 = 20 * 365;
/// The shortest RSA modulus whose signature is accepted.
const MIN_RSA_BITS: u32 = 2048;
const WHAT: &str = "X.509 certificate";

/// A certificate that signatures are verified against.
#[derive(Clone)]
pub struct Certificate {
    der: Vec<u8>,
    x509: X509,
    key: PKey<Public>,
}

impl Certificate {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// When it is not one, or its key is not RSA with at least 2048 bits.
    pub fn from_der(der: &[u8]) -> Result<Self, SecureBootError> {
        let bad = structure(WHAT);
        let x509 = X509::from_der(der).map_err(|_| bad(&"not a certificate in DER"))?;
        let der_again = x509.to_der().map_err(|error| bad(&error))?;
        if der_again != der {
            return Err(bad(&"data after the certificate, or not DER"));
        }
        let key = x509.public_key().map_err(|error| bad(&error))?;
        if key.id() != Id::RSA || key.bits() < MIN_RSA_BITS {
            return Err(bad(&"its key is not RSA with at least 2048 bits"));
        }
        Ok(Self {
            der: der_again,
            x509,
            key,
        })
    }

    /// The DER.
    #[must_use]
    pub fn to_der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of the DER.
    #[must_use]
    pub fn fingerprint(&self) -> Sha256 {
        Sha256::of(&self.der)
    }

    /// The subject's common name, or the empty string.
    #[must_use]
    pub fn subject(&self) -> String {
        self.x509
            .subject_name()
            .entries_by_nid(Nid::COMMONNAME)
            .next()
            .and_then(|entry| entry.data().to_string().ok())
            .unwrap_or_default()
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        Verifier::new(MessageDigest::sha256(), &self.key)
            .and_then(|mut verifier| verifier.verify_oneshot(signature, message))
            .unwrap_or(false)
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Certificate({}, {})", self.subject(), self.fingerprint())
    }
}

/// A private key with its certificate: what signs images and variable updates.
#[derive(Debug)]
pub struct Identity {
    key: Box<dyn SigningKey>,
    certificate: Certificate,
}

impl Identity {
    /// Joins a key and its certificate.
    ///
    /// # Errors
    /// When the certificate belongs to another key.
    pub fn new(key: impl SigningKey + 'static, certificate: Certificate) -> Result<Self, SecureBootError> {
        Self::of(Box::new(key), certificate)
    }

    /// As [`Identity::new`], for a key wherever it lies.
    ///
    /// # Errors
    /// As [`Identity::new`].
    pub fn of(key: Box<dyn SigningKey>, certificate: Certificate) -> Result<Self, SecureBootError> {
        let same = certificate
            .key
            .public_key_to_der()
            .is_ok_and(|der| der == key.public().to_der());
        if !same {
            return Err(SecureBootError::Mismatch {
                subject: certificate.subject(),
            });
        }
        Ok(Self { key, certificate })
    }

    /// Makes a new RSA-3072 key with a self-signed certificate, valid from `at`.
    ///
    /// # Errors
    /// When the library fails.
    pub fn generate(common_name: &str, at: DateTime<Utc>) -> Result<Self, SecureBootError> {
        Self::certify(common_name, PrivateKey::generate(Algorithm::Rsa3072)?, at)
    }

    /// Makes a self-signed certificate for an RSA key, wherever it lies.
    ///
    /// # Errors
    /// When the key cannot sign or the library fails.
    pub fn certify(
        common_name: &str,
        key: impl SigningKey + 'static,
        at: DateTime<Utc>,
    ) -> Result<Self, SecureBootError> {
        let draft = draft(common_name, key.public(), at).map_err(|source| KeyError::Library {
            operation: "make a certificate",
            source,
        })?;
        let bad = |error: &dyn std::fmt::Display| structure(WHAT)(error);
        let mut certificate = x509_cert::Certificate::from_der(&draft).map_err(|error| bad(&error))?;
        let signed = certificate.tbs_certificate.to_der().map_err(|error| bad(&error))?;
        certificate.signature = BitString::from_bytes(&key.sign(&signed)?).map_err(|error| bad(&error))?;
        let der = certificate.to_der().map_err(|error| bad(&error))?;
        Self::new(key, Certificate::from_der(&der)?)
    }

    /// The private key.
    #[must_use]
    pub fn key(&self) -> &dyn SigningKey {
        &*self.key
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

/// The certificate in DER, signed by a key that is thrown away: OpenSSL makes none without a signature, and the right one is
/// made where the key lies.
fn draft(common_name: &str, key: &PublicKey, at: DateTime<Utc>) -> Result<Vec<u8>, ErrorStack> {
    let mut serial = [0; 16];
    openssl::rand::rand_bytes(&mut serial)?;
    // Positive, and never zero (RFC 5280 section 4.1.2.2).
    serial[0] = (serial[0] & 0x7f) | 0x40;
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_nid(Nid::COMMONNAME, common_name)?;
    let name = name.build();
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    let serial = Asn1Integer::from_bn(&*BigNum::from_slice(&serial)?)?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(&name)?;
    builder.set_issuer_name(&name)?;
    let not_before = Asn1Time::from_unix(at.timestamp())?;
    builder.set_not_before(&not_before)?;
    let not_after = Asn1Time::from_unix(at.timestamp() + VALID_DAYS * 86400)?;
    builder.set_not_after(&not_after)?;
    builder.set_pubkey(key.pkey())?;
    builder.append_extension(BasicConstraints::new().critical().build()?)?;
    builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
    let throwaway = PKey::from_rsa(Rsa::generate(1024)?)?;
    builder.sign(&throwaway, MessageDigest::sha256())?;
    builder.build().to_der()
}
