// SPDX-License-Identifier: GPL-3.0-or-later
//! Private keys at rest, and the passphrases that open them.
//!
//! A key file is PKCS#8 (RFC 5958) encrypted by PBES2 with scrypt (RFC 7914) and AES-256-CBC, as PEM: `openssl pkey` opens
//! it, so nobody depends on our programs to get at a key. Ed25519 signs metadata and records; RSA-3072 signs what firmware
//! verifies, which knows nothing newer. A key may lie in a token instead: a [`SigningKey`] is either; tokens sign metadata with
//! ECDSA on P-256.
//!
//! # Attacks faced
//! - A key file read by others, on disk or on a lost stick: without the passphrase it is noise, and each guess costs
//!   scrypt's memory and time.
//! - A foreign key file that asks for absurd scrypt or PBKDF2 parameters: bounded before any work is done.
//! - Keys left in freed memory: OpenSSL wipes its own, the buffers here are wiped when dropped.
//!
//! # Defence not made
//! Whoever may read this process's memory while it signs has the key. CBC does not authenticate: a changed key file is
//! noticed because the key inside no longer parses or no longer fits the public part that the site records.

mod backend;
mod file;
mod metadata;
mod passphrase;
mod private;
#[cfg(feature = "pkcs11")]
pub mod token;

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::output::Refused;

pub use backend::{SigningKey, is_token, open_file, place};
pub use file::{decrypt, encrypt, read, read_private, write_new};
pub use metadata::MetadataKey;
pub use passphrase::{Passphrase, PassphraseError};
pub use private::{Algorithm, PrivateKey, PublicKey};

/// Refuses a secret's file that others than its owner may read or write, as ssh does. What is no file, such as a pipe, has no
/// mode that says anything.
pub(crate) fn check_private(path: &Path, file: &File) -> io::Result<Result<(), Refused>> {
    let data = file.metadata()?;
    let mode = data.permissions().mode() & 0o777;
    Ok(if data.is_file() && mode & 0o077 != 0 {
        Err(Refused(format!(
            "others can get at {} (mode {mode:04o}): type `chmod 600 {0}`",
            path.display()
        )))
    } else {
        Ok(())
    })
}

/// Why a key operation did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key file cannot be read or written.
    #[error("cannot {operation} the key file {path}")]
    File {
        /// `read` or `write`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The content is not what we call a key file.
    #[error("{what} is not a usable key: {reason}")]
    Malformed {
        /// The file, or what stands for it.
        what: String,
        /// Why.
        reason: String,
    },
    /// Others may read the key file.
    #[error("the key file is not private")]
    Exposed(#[source] Refused),
    /// The passphrase does not open it (or the encrypted part is damaged: the two look the same).
    #[error("cannot open {what}: wrong passphrase, or the file is damaged")]
    Passphrase {
        /// The file, or what stands for it.
        what: String,
    },
    /// The key is not of the kind that the operation needs.
    #[error("{what} is {found}; {need} is needed here")]
    Algorithm {
        /// The file, or what stands for it.
        what: String,
        /// What it is.
        found: Algorithm,
        /// What is needed.
        need: Algorithm,
    },
    /// A token does not do what is asked of it.
    #[error("cannot {operation} the key {what} in its token: {reason}")]
    Token {
        /// What was being done.
        operation: &'static str,
        /// Its URI.
        what: String,
        /// Why it failed.
        reason: String,
    },
    /// The cryptographic library failed.
    #[error("cannot {operation}")]
    Library {
        /// What was being done.
        operation: &'static str,
        /// Why it failed.
        source: openssl::error::ErrorStack,
    },
}
