// SPDX-License-Identifier: GPL-3.0-or-later
//! An OpenPGP key to sign with: an encrypted file, or a key in a token with its certificate.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{sign_detached, sign_detached_with};
use crate::clock;
use crate::digest::read_bounded;
use crate::keys::{self, Passphrase, SigningKey};

/// An OpenPGP key is a few kilobytes.
const MAX_KEY: u64 = 1 << 20;

/// The key, with what opens it.
pub struct OpenPgpKey<'a> {
    path: PathBuf,
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
    /// certificate stands in the second file.
    ///
    /// # Errors
    /// When a file cannot be read, others than its owner can, or the token does not open.
    pub fn open(path: &Path, certificate: &Path, passphrase: &'a Passphrase) -> Result<Self> {
        let (packets, secret) = if keys::is_token(path) {
            let certificate = read_bounded(certificate, MAX_KEY)
                .with_context(|| format!("reading the OpenPGP certificate {}", certificate.display()))?;
            (certificate, Secret::Held(keys::open_file(path, passphrase)?))
        } else {
            let key = keys::read_private(path, MAX_KEY)
                .with_context(|| format!("reading the OpenPGP key {}", path.display()))?;
            (key, Secret::Passphrase(passphrase))
        };
        Ok(Self {
            path: path.to_path_buf(),
            packets,
            secret,
        })
    }

    /// The key as packets, whose public parts are the certificate.
    #[must_use]
    pub fn packets(&self) -> &[u8] {
        &self.packets
    }

    /// Signs streamed data, as of now, and returns the armored detached signature.
    ///
    /// # Errors
    /// When the passphrase does not open the key, the certificate is of another key, or the data cannot be read.
    pub fn sign_detached(&self, data: impl Read) -> Result<String> {
        let now = clock::now();
        match &self.secret {
            Secret::Passphrase(passphrase) => sign_detached(&self.packets, passphrase, data, now),
            Secret::Held(key) => sign_detached_with(&self.packets, key, data, now),
        }
        .with_context(|| format!("signing with {}", self.path.display()))
    }
}
