// SPDX-License-Identifier: GPL-3.0-or-later
//! Passphrases: read from a file or the terminal, never from the command line or the environment, and wiped from memory.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::check_private;
use crate::output::Refused;

/// The longest passphrase, so that a wrong file is not taken for one.
const MAX: usize = 1024;

/// A passphrase. It prints as nothing and is wiped when dropped.
pub struct Passphrase(Zeroizing<Vec<u8>>);

/// A passphrase that cannot be had or used.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    /// The file cannot be read.
    #[error("cannot read the passphrase file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read the file.
    #[error("the passphrase file is not private")]
    Exposed(#[source] Refused),
    /// The terminal cannot be asked.
    #[error("cannot ask for the passphrase on the terminal; give --passphrase-file FILE")]
    Terminal(#[source] io::Error),
    /// It is empty, too long or spans lines.
    #[error("the passphrase {0}")]
    Unusable(&'static str),
}

impl Passphrase {
    /// Takes bytes that the caller already holds; tests and callers with their own prompt.
    ///
    /// # Errors
    /// When it is empty, longer than 1024 bytes or holds a line break.
    pub fn new(bytes: Vec<u8>) -> Result<Self, PassphraseError> {
        let bytes = Zeroizing::new(bytes);
        if bytes.is_empty() {
            return Err(PassphraseError::Unusable("is empty"));
        }
        if bytes.len() > MAX {
            return Err(PassphraseError::Unusable(
                "is longer than 1024 bytes: is it the right file?",
            ));
        }
        if bytes.iter().any(|byte| matches!(byte, b'\n' | b'\r' | 0)) {
            return Err(PassphraseError::Unusable(
                "spans more than one line: is it the right file?",
            ));
        }
        Ok(Self(bytes))
    }

    /// Reads the one line of a passphrase file.
    ///
    /// # Errors
    /// When the file cannot be read or holds no usable passphrase.
    pub fn from_file(path: &Path) -> Result<Self, PassphraseError> {
        let read = |source| PassphraseError::Read {
            path: path.to_path_buf(),
            source,
        };
        // Allocated once at full size: a buffer that grows leaves copies of the secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX + 4));
        let file = File::open(path).map_err(read)?;
        check_private(path, &file)
            .map_err(read)?
            .map_err(PassphraseError::Exposed)?;
        file.take(MAX as u64 + 3).read_to_end(&mut bytes).map_err(read)?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        Self::new(std::mem::take(&mut *bytes))
    }

    /// Asks on the terminal, without echo.
    ///
    /// # Errors
    /// When there is no terminal or what was typed cannot be used.
    pub fn ask(prompt: &str) -> Result<Self, PassphraseError> {
        let typed = rpassword::prompt_password(prompt).map_err(PassphraseError::Terminal)?;
        Self::new(typed.into_bytes())
    }

    /// From the file if one is given, else from the terminal.
    ///
    /// # Errors
    /// As [`Passphrase::from_file`] and [`Passphrase::ask`].
    pub fn obtain(file: Option<&Path>, prompt: &str) -> Result<Self, PassphraseError> {
        file.map_or_else(|| Self::ask(prompt), Self::from_file)
    }

    /// Whether two passphrases are the same, as when one is typed twice.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && openssl::memcmp::eq(&self.0, &other.0)
    }

    /// The bytes, for the code that derives a key from them.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_its_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p");
        for text in ["correct horse", "correct horse\n", "correct horse\r\n"] {
            crate::durable::write_private(&path, text.as_bytes()).unwrap();
            assert_eq!(Passphrase::from_file(&path).unwrap().expose(), b"correct horse");
        }
        for text in ["", "\n", "two\nlines\n", &"x".repeat(1025)] {
            crate::durable::write_private(&path, text.as_bytes()).unwrap();
            assert!(Passphrase::from_file(&path).is_err(), "{text:?}");
        }
        assert!(
            Passphrase::from_file(&directory.path().join("none"))
                .unwrap_err()
                .to_string()
                .contains("none")
        );
    }

    #[test]
    fn it_does_not_print() {
        assert_eq!(
            format!("{:?}", Passphrase::new(b"secret".to_vec()).unwrap()),
            "Passphrase(..)"
        );
    }
}
