// SPDX-License-Identifier: GPL-3.0-or-later
//! An OpenPGP key to sign with: an encrypted file, or a key in a token with its certificate.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sequoia_openpgp::serialize::SerializeInto;

use super::held::certificate_of;
use super::{parse_keyring, read_keyring, sign_cleartext, sign_cleartext_with, sign_detached, sign_detached_with};
use crate::clock;
use crate::keys::{self, Passphrase, SigningKey};

/// An OpenPGP key is a few kilobytes.
const MAX_KEY: u64 = 1 << 20;

/// The key, with what opens it.
pub struct OpenPgpKey<'a> {
    path: PathBuf,
    fingerprint: String,
    /// The key's file where it holds the secret, else the certificate.
    packets: Vec<u8>,
    secret: Secret<'a>,
}

enum Secret<'a> {
    /// Still encrypted, and opened for each signature.
    Passphrase(&'a Passphrase),
    Held(Box<dyn SigningKey>),
}

impl<'a> OpenPgpKey<'a> {
    /// Opens the key of this file: one that ends in `.uri` names a key in a token, whose PIN the passphrase is, and whose
    /// certificate stands in the second file, alone or among others.
    ///
    /// # Errors
    /// When a file cannot be read, others than its owner can, or the token does not open.
    pub fn open(path: &Path, certificate: &Path, passphrase: &'a Passphrase) -> Result<Self> {
        let (cert, packets, secret) = if keys::is_token(path) {
            let certs = read_keyring(certificate)?;
            let key = keys::open_file(path, passphrase)?;
            let Some(cert) = certificate_of(&certs, &key) else {
                bail!(
                    "{} does not hold the certificate of {}",
                    certificate.display(),
                    path.display()
                );
            };
            (cert.clone(), cert.to_vec()?, Secret::Held(key))
        } else {
            let key = keys::read_private(path, MAX_KEY)
                .with_context(|| format!("reading the OpenPGP key {}", path.display()))?;
            let cert = match &parse_keyring(path, &key)?[..] {
                [cert] => cert.clone(),
                several => bail!("{} holds {} keys, not one", path.display(), several.len()),
            };
            (cert, key, Secret::Passphrase(passphrase))
        };
        Ok(Self {
            path: path.to_path_buf(),
            fingerprint: cert.fingerprint().to_hex(),
            packets,
            secret,
        })
    }

    /// Opens somebody's own key: the certificate of one in a token, `anna.uri`, lies beside it, as `anna.asc`.
    ///
    /// # Errors
    /// As [`OpenPgpKey::open`].
    pub fn own(path: &Path, passphrase: &'a Passphrase) -> Result<Self> {
        Self::open(path, &path.with_extension("asc"), passphrase)
    }

    /// Fingerprint of its certificate, upper-case hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Signs streamed data, as of now, and returns the armored detached signature.
    ///
    /// # Errors
    /// When the passphrase does not open the key, or the data cannot be read.
    pub fn sign_detached(&self, data: impl Read) -> Result<String> {
        let now = clock::now();
        match &self.secret {
            Secret::Passphrase(passphrase) => sign_detached(&self.packets, passphrase, data, now),
            Secret::Held(key) => sign_detached_with(&self.packets, key, data, now),
        }
        .with_context(|| format!("signing with {}", self.path.display()))
    }
    /// Signs a text, as of now, and returns it signed in the clear.
    ///
    /// # Errors
    /// When the passphrase does not open the key.
    pub fn sign_cleartext(&self, text: &str) -> Result<String> {
        let now = clock::now();
        match &self.secret {
            Secret::Passphrase(passphrase) => sign_cleartext(&self.packets, passphrase, text, now),
            Secret::Held(key) => sign_cleartext_with(&self.packets, key, text, now),
        }
        .with_context(|| format!("signing with {}", self.path.display()))
    }
}
