// SPDX-License-Identifier: GPL-3.0-or-later
//! What one custodian hands in: a name, a public key, an OpenPGP certificate, and the proof of having the key.
//!
//! The proof says that the key's holder wrote the name and the certificate beside it. That the name is the right person's is
//! seen by comparing the fingerprint with that person.

use std::path::Path;

use anyhow::{Context, Result};
use sequoia_openpgp::Cert;
use serde::{Deserialize, Serialize};
use unicode_normalization::is_nfc;

use super::rules::check_fingerprint;
use super::state::{Custodian, KeyObject};
use super::{FORMAT, canonical, read_json, refuse};
use crate::digest::Sha256;
use crate::keys::{MetadataKey, SigningKey};
use crate::openpgp::{parse_keyring, read_keyring};
use crate::tuf::author::Signer;

const KIND: &str = "bastide-ceremony-key";
const MAX_NAME: usize = 60;

/// The public file of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustodianFile {
    format: u32,
    kind: String,
    /// The custodian's name, or the role's.
    pub name: String,
    pub(super) key: KeyObject,
    /// Fingerprint of the OpenPGP certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub openpgp: Option<String>,
    /// The OpenPGP certificate, armored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    proof: String,
}

/// Checks a name that strangers' terminals will show.
///
/// # Errors
/// When it is empty, too long, or has other characters than letters, digits and `.-_'` between single spaces.
pub fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_alphanumeric() || ".-_'".contains(c);
    let words = name.split(' ').all(|word| !word.is_empty() && word.chars().all(fits));
    if words && name.chars().count() <= MAX_NAME && is_nfc(name) {
        return Ok(());
    }
    refuse(format!(
        "{name:?} is no usable name: 1 to {MAX_NAME} letters, digits and .-_' with single spaces between words"
    ))
}

/// Reads the OpenPGP certificates of a file: a keyring, or what a custodian handed in (`*.json`).
///
/// # Errors
/// When it is neither. What was handed in may be without one.
pub fn read_certificates(path: &Path) -> Result<Vec<Cert>> {
    if path.extension().is_none_or(|end| end != "json") {
        return Ok(read_keyring(path)?);
    }
    match CustodianFile::read(path)?.certificate {
        Some(certificate) => Ok(parse_keyring(path, certificate.as_bytes())?),
        None => Ok(Vec::new()),
    }
}

impl CustodianFile {
    /// Makes the public file of a key. `openpgp` is the fingerprint and the armored certificate.
    ///
    /// # Errors
    /// When the name is not usable or the key is of a kind that signs no metadata.
    pub fn new(name: &str, key: impl SigningKey + 'static, openpgp: Option<(String, String)>) -> Result<Self> {
        check_name(name)?;
        let public = KeyObject::of(key.public())?;
        let (openpgp, certificate) = openpgp.unzip();
        let mut file = Self {
            format: FORMAT,
            kind: KIND.to_owned(),
            name: name.to_owned(),
            key: public,
            openpgp,
            certificate,
            proof: String::new(),
        };
        file.proof = hex::encode(MetadataKey::new(key)?.sign(&file.message()?)?);
        Ok(file)
    }

    /// Reads and verifies a file that was handed in.
    ///
    /// # Errors
    /// When it is none, or the proof does not hold.
    pub fn read(path: &Path) -> Result<Self> {
        let file: Self = read_json(path, "public key file")?;
        file.verify().with_context(|| format!("reading {}", path.display()))?;
        Ok(file)
    }

    fn verify(&self) -> Result<()> {
        if self.kind != KIND || self.format != FORMAT {
            return refuse(format!("it is not a {KIND} of format {FORMAT}"));
        }
        check_name(&self.name)?;
        if let Some(openpgp) = &self.openpgp {
            check_fingerprint(openpgp)?;
        }
        let proof = hex::decode(&self.proof).unwrap_or_default();
        if !self.key.public()?.verifies(&self.message()?, &proof) {
            return refuse("its proof does not hold: somebody else wrote the name or the certificate beside this key");
        }
        Ok(())
    }

    /// What the proof covers; no metadata looks like it.
    fn message(&self) -> Result<Vec<u8>> {
        let unproved = Self {
            proof: String::new(),
            ..self.clone()
        };
        canonical(&unproved)
    }

    /// The key's identifier in metadata.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn keyid(&self) -> Result<Sha256> {
        self.key.id()
    }

    pub(super) fn custodian(&self) -> Custodian {
        Custodian {
            name: self.name.clone(),
            openpgp: self.openpgp.clone(),
        }
    }
}
