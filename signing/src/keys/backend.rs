// SPDX-License-Identifier: GPL-3.0-or-later
//! A private key wherever it lies: in an encrypted file, or in a token that never gives it away.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{KeyError, Passphrase, PrivateKey, PublicKey, file};

/// What can be done with a private key.
pub trait SigningKey: fmt::Debug + Send + Sync {
    /// The public part.
    fn public(&self) -> &PublicKey;

    /// Signs a message: Ed25519 as it is, ECDSA and RSA (PKCS #1 v1.5) with SHA-256.
    ///
    /// # Errors
    /// When the library or the token fails.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError>;
}

impl SigningKey for PrivateKey {
    fn public(&self) -> &PublicKey {
        self.public()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.sign(message)
    }
}

impl SigningKey for Box<dyn SigningKey> {
    fn public(&self) -> &PublicKey {
        (**self).public()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        (**self).sign(message)
    }
}

/// Opens a key: a file `*.uri` holds the PKCS #11 URI of a key in a token, whose PIN is then the passphrase; any other is a key
/// file.
///
/// # Errors
/// When it cannot be opened.
pub fn open_file(path: &Path, passphrase: &Passphrase) -> Result<Box<dyn SigningKey>, KeyError> {
    if path.extension().is_some_and(|end| end == "uri") {
        return from_token(path, passphrase);
    }
    Ok(Box::new(file::read(path, passphrase)?))
}

/// The longest URI of a key in a token.
#[cfg(feature = "pkcs11")]
const MAX_URI: u64 = 4096;

/// The file of the key of this name in a directory, for [`open_file`]: `NAME.uri` where it is there, else `NAME.pem`.
///
/// # Errors
/// When both are there: one of them is not meant.
pub fn place(directory: &Path, name: &str) -> Result<PathBuf, KeyError> {
    let (pem, uri) = (
        directory.join(format!("{name}.pem")),
        directory.join(format!("{name}.uri")),
    );
    if uri.symlink_metadata().is_err() {
        return Ok(pem);
    }
    if pem.symlink_metadata().is_ok() {
        return Err(KeyError::Malformed {
            what: uri.display().to_string(),
            reason: format!("{} is there too: take away the one that is not meant", pem.display()),
        });
    }
    Ok(uri)
}

#[cfg(feature = "pkcs11")]
fn from_token(path: &Path, pin: &Passphrase) -> Result<Box<dyn SigningKey>, KeyError> {
    let text = crate::digest::read_bounded(path, MAX_URI).map_err(|source| KeyError::File {
        operation: "read",
        path: path.to_path_buf(),
        source,
    })?;
    let uri = super::token::KeyUri::parse(String::from_utf8_lossy(&text).trim())?;
    Ok(Box::new(super::token::TokenKey::open(&uri, pin)?))
}

#[cfg(not(feature = "pkcs11"))]
fn from_token(path: &Path, _: &Passphrase) -> Result<Box<dyn SigningKey>, KeyError> {
    Err(KeyError::Malformed {
        what: path.display().to_string(),
        reason: "this program was built without support for tokens".to_owned(),
    })
}
