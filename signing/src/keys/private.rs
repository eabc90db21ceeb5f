// SPDX-License-Identifier: GPL-3.0-or-later
//! Keys in memory.

use std::fmt;

use openssl::bn::BigNumContext;
use openssl::ec::{EcGroup, EcKey, PointConversionForm};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private, Public};
use openssl::rsa::Rsa;
use openssl::sign::{Signer, Verifier};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::KeyError;
use crate::digest::Sha256;

/// The kinds of key that this house makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Ed25519 (RFC 8032), for metadata and records.
    Ed25519,
    /// ECDSA on P-256 with SHA-256, for metadata that a token signs.
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    /// RSA with 3072 bits and SHA-256 (PKCS #1 v1.5), for what firmware verifies.
    Rsa3072,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ed25519 => "Ed25519",
            Self::EcdsaP256 => "ECDSA-P256",
            Self::Rsa3072 => "RSA-3072",
        })
    }
}

fn library(operation: &'static str) -> impl FnOnce(openssl::error::ErrorStack) -> KeyError {
    move |source| KeyError::Library { operation, source }
}

/// A private key in memory. It prints as its public part and is wiped when dropped.
pub struct PrivateKey {
    pkey: PKey<Private>,
    public: PublicKey,
}

impl PrivateKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// When the library fails, which on a healthy system means that there is no randomness.
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        let pkey = match algorithm {
            Algorithm::Ed25519 => PKey::generate_ed25519(),
            Algorithm::EcdsaP256 => EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)
                .and_then(|group| EcKey::generate(&group))
                .and_then(PKey::from_ec_key),
            Algorithm::Rsa3072 => Rsa::generate(3072).and_then(PKey::from_rsa),
        }
        .map_err(library("generate a key"))?;
        Self::from_pkey("the new key", pkey)
    }

    /// Reads unencrypted PKCS#8 DER; `what` names it in errors.
    ///
    /// # Errors
    /// When it is not a key of a known kind.
    pub fn from_pkcs8_der(what: &str, der: &[u8]) -> Result<Self, KeyError> {
        let pkey = PKey::private_key_from_pkcs8(der).map_err(|_| KeyError::Malformed {
            what: what.to_owned(),
            reason: "not a PKCS#8 private key".to_owned(),
        })?;
        Self::from_pkey(what, pkey)
    }

    /// Reads an *unencrypted* PKCS#8 PEM, as a host keeps its own key on its state partition.
    ///
    /// # Errors
    /// As [`PrivateKey::from_pkcs8_der`].
    pub fn from_unencrypted_pem(what: &str, pem: &[u8]) -> Result<Self, KeyError> {
        let malformed = || KeyError::Malformed {
            what: what.to_owned(),
            reason: "not an unencrypted PKCS#8 PEM".to_owned(),
        };
        if !pem.trim_ascii_start().starts_with(b"-----BEGIN PRIVATE KEY-----") {
            return Err(malformed());
        }
        Self::from_pkey(what, PKey::private_key_from_pem(pem).map_err(|_| malformed())?)
    }

    fn from_pkey(what: &str, pkey: PKey<Private>) -> Result<Self, KeyError> {
        let spki = pkey.public_key_to_der().map_err(library("derive the public key"))?;
        let public = PublicKey::from_der(what, &spki)?;
        Ok(Self { pkey, public })
    }

    /// The public part.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// What kind of key it is.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.public.algorithm
    }

    /// Signs a message: Ed25519 as it is, RSA with SHA-256 and PKCS #1 v1.5, which are deterministic, ECDSA with SHA-256.
    ///
    /// # Errors
    /// When the library fails.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signer = match self.algorithm() {
            Algorithm::Ed25519 => Signer::new_without_digest(&self.pkey),
            Algorithm::EcdsaP256 | Algorithm::Rsa3072 => Signer::new(MessageDigest::sha256(), &self.pkey),
        };
        signer
            .and_then(|mut signer| signer.sign_oneshot_to_vec(message))
            .map_err(library("sign"))
    }

    /// The unencrypted PKCS#8 DER, for code that encrypts it.
    pub(crate) fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        self.pkey
            .private_key_to_pkcs8()
            .map(Zeroizing::new)
            .map_err(library("encode the private key"))
    }

    /// The key *without protection*, as PKCS#8 PEM. Only for a key that its machine must open unattended, on a file system
    /// that protects it.
    ///
    /// # Errors
    /// When the library fails.
    pub fn to_unencrypted_pem(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        self.pkey
            .private_key_to_pem_pkcs8()
            .map(Zeroizing::new)
            .map_err(library("encode the private key"))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PrivateKey({}, public {})",
            self.algorithm(),
            self.public.fingerprint()
        )
    }
}

/// A public key.
#[derive(Clone)]
pub struct PublicKey {
    pkey: PKey<Public>,
    spki: Vec<u8>,
    algorithm: Algorithm,
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// When it is not a key of a known kind.
    pub fn from_der(what: &str, der: &[u8]) -> Result<Self, KeyError> {
        let malformed = |reason: String| KeyError::Malformed {
            what: what.to_owned(),
            reason,
        };
        let pkey = PKey::public_key_from_der(der).map_err(|_| malformed("not a public key".to_owned()))?;
        let algorithm = match (pkey.id(), pkey.bits()) {
            (Id::ED25519, _) => Algorithm::Ed25519,
            (Id::RSA, 3072) => Algorithm::Rsa3072,
            (Id::EC, _)
                if pkey
                    .ec_key()
                    .is_ok_and(|key| key.group().curve_name() == Some(Nid::X9_62_PRIME256V1)) =>
            {
                Algorithm::EcdsaP256
            }
            (id, bits) => {
                return Err(malformed(format!(
                    "a key of kind {} with {bits} bits, none of Ed25519, ECDSA-P256 and RSA-3072",
                    id.as_raw()
                )));
            }
        };
        // Encoded again, so that one key has one form whatever was read.
        let spki = pkey.public_key_to_der().map_err(library("encode a public key"))?;
        Ok(Self { pkey, spki, algorithm })
    }

    /// Takes the 32 bytes of an Ed25519 key.
    ///
    /// # Errors
    /// When they are none.
    pub fn from_ed25519(what: &str, bytes: &[u8]) -> Result<Self, KeyError> {
        let der = PKey::public_key_from_raw_bytes(bytes, Id::ED25519)
            .and_then(|pkey| pkey.public_key_to_der())
            .map_err(|_| KeyError::Malformed {
                what: what.to_owned(),
                reason: "not an Ed25519 public key".to_owned(),
            })?;
        Self::from_der(what, &der)
    }

    /// Reads a PEM `PUBLIC KEY`.
    ///
    /// # Errors
    /// As [`PublicKey::from_der`].
    pub fn from_pem(what: &str, pem: &[u8]) -> Result<Self, KeyError> {
        let der = PKey::public_key_from_pem(pem)
            .and_then(|pkey| pkey.public_key_to_der())
            .map_err(|_| KeyError::Malformed {
                what: what.to_owned(),
                reason: "not a PEM public key".to_owned(),
            })?;
        Self::from_der(what, &der)
    }

    /// What kind of key it is.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn to_der(&self) -> &[u8] {
        &self.spki
    }

    /// The PEM `PUBLIC KEY`.
    ///
    /// # Errors
    /// When the library fails.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        let pem = self.pkey.public_key_to_pem().map_err(library("encode a public key"))?;
        Ok(String::from_utf8_lossy(&pem).into_owned())
    }

    /// SHA-256 of the SubjectPublicKeyInfo.
    #[must_use]
    pub fn fingerprint(&self) -> Sha256 {
        Sha256::of(&self.spki)
    }

    /// The 32 bytes of an Ed25519 key.
    ///
    /// # Errors
    /// When it is another kind of key.
    pub fn ed25519_bytes(&self) -> Result<[u8; 32], KeyError> {
        let raw = self.pkey.raw_public_key().unwrap_or_default();
        raw.try_into().map_err(|_| KeyError::Algorithm {
            what: "the key".to_owned(),
            found: self.algorithm,
            need: Algorithm::Ed25519,
        })
    }

    /// The coordinates of an ECDSA key on P-256.
    ///
    /// # Errors
    /// When it is another kind of key.
    pub fn p256_point(&self) -> Result<([u8; 32], [u8; 32]), KeyError> {
        let point = || -> Option<[u8; 65]> {
            let key = self.pkey.ec_key().ok()?;
            let mut context = BigNumContext::new().ok()?;
            let form = PointConversionForm::UNCOMPRESSED;
            let bytes = key.public_key().to_bytes(key.group(), form, &mut context).ok()?;
            bytes.try_into().ok()
        };
        let point = point().filter(|_| self.algorithm == Algorithm::EcdsaP256);
        let halves = point.and_then(|point| Some((point[1..33].try_into().ok()?, point[33..].try_into().ok()?)));
        halves.ok_or_else(|| KeyError::Algorithm {
            what: "the key".to_owned(),
            found: self.algorithm,
            need: Algorithm::EcdsaP256,
        })
    }

    pub(crate) fn pkey(&self) -> &PKey<Public> {
        &self.pkey
    }

    /// Whether the signature holds for the message.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verifier = match self.algorithm {
            Algorithm::Ed25519 => Verifier::new_without_digest(&self.pkey),
            Algorithm::EcdsaP256 | Algorithm::Rsa3072 => Verifier::new(MessageDigest::sha256(), &self.pkey),
        };
        verifier
            .and_then(|mut verifier| verifier.verify_oneshot(signature, message))
            .unwrap_or(false)
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {})", self.algorithm, self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_sign_and_verify() {
        for algorithm in [Algorithm::Ed25519, Algorithm::EcdsaP256, Algorithm::Rsa3072] {
            let key = PrivateKey::generate(algorithm).unwrap();
            let signature = key.sign(b"message").unwrap();
            if algorithm != Algorithm::EcdsaP256 {
                assert_eq!(signature, key.sign(b"message").unwrap(), "deterministic");
            }
            assert!(key.public().verifies(b"message", &signature));
            assert!(!key.public().verifies(b"Message", &signature));
            assert!(!key.public().verifies(b"message", b""));
            let again = PublicKey::from_pem("x", key.public().to_pem().unwrap().as_bytes()).unwrap();
            assert_eq!(&again, key.public());
            let reread = PrivateKey::from_unencrypted_pem("x", &key.to_unencrypted_pem().unwrap()).unwrap();
            assert_eq!(reread.public(), key.public());
        }
    }

    #[test]
    fn other_kinds_are_refused_by_name() {
        let small = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let error = PrivateKey::from_pkcs8_der("small.pem", &small.private_key_to_pkcs8().unwrap()).unwrap_err();
        assert!(
            error.to_string().contains("small.pem") && error.to_string().contains("2048"),
            "{error}"
        );
    }

    #[test]
    fn it_prints_its_public_part_only() {
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        let secret = key.pkey.raw_private_key().unwrap();
        let text = format!("{key:?}");
        assert!(text.contains(&key.public().fingerprint().to_string()));
        assert!(!text.contains(&hex::encode(secret)));
    }
}
