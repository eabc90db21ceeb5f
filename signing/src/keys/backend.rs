// SPDX-License-Identifier: GPL-3.0-or-later
//! A private key wherever it lies: in an encrypted file, or in a token that never gives it away.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{Algorithm, KeyError, Passphrase, PrivateKey, PublicKey, file};
use crate::digest::Sha256;

/// What can be done with a private key.
pub trait SigningKey: fmt::Debug + Send + Sync {
    /// The public part.
    fn public(&self) -> &PublicKey;

    /// Signs a message: Ed25519 as it is, ECDSA and RSA (PKCS #1 v1.5) with SHA-256.
    ///
    /// # Errors
    /// When the library or the token fails.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError>;

    /// Signs a digest that another format made, with ECDSA on P-256: the numbers r and s, 32 bytes of each.
    ///
    /// # Errors
    /// When it is another kind of key, or the token fails.
    fn sign_digest(&self, _: Sha256) -> Result<Vec<u8>, KeyError> {
        Err(KeyError::Algorithm {
            what: "the key".to_owned(),
            found: self.public().algorithm(),
            need: Algorithm::EcdsaP256,
        })
    }
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

    fn sign_digest(&self, digest: Sha256) -> Result<Vec<u8>, KeyError> {
        (**self).sign_digest(digest)
    }
}

/// Opens a key: a file `*.uri` holds the PKCS #11 URI of a key in a token, whose PIN is then the passphrase; any other is a key
/// file.
///
/// # Errors
/// When it cannot be opened.
pub fn open_file(path: &Path, passphrase: &Passphrase) -> Result<Box<dyn SigningKey>, KeyError> {
    if is_token(path) {
        return from_token(path, passphrase);
    }
    Ok(Box::new(file::read(path, passphrase)?))
}

/// Whether a file names a key in a token.
#[must_use]
pub fn is_token(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "uri")
}

/// The longest URI of a key in a token.
#[cfg(feature = "pkcs11")]
const MAX_URI: u64 = 4096;

/// The file of the key of this name in a directory, for [`open_file`]: `NAME.uri` where it is there, else `NAME` with the ending
/// of its kind of file.
///
/// # Errors
/// When both are there: one of them is not meant.
pub fn place(directory: &Path, name: &str, ending: &str) -> Result<PathBuf, KeyError> {
    let (file, uri) = (
        directory.join(format!("{name}.{ending}")),
        directory.join(format!("{name}.uri")),
    );
    if uri.symlink_metadata().is_err() {
        return Ok(file);
    }
    if file.symlink_metadata().is_ok() {
        return Err(KeyError::Malformed {
            what: uri.display().to_string(),
            reason: format!("{} is there too: take away the one that is not meant", file.display()),
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
