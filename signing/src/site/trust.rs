// SPDX-License-Identifier: GPL-3.0-or-later
//! The trust directory: the public half of a site, baked into the host image and carried by auditors.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::digest::read_bounded;
use crate::secureboot::{Certificate, Guid, Variable};

/// No file of a trust directory is near this long.
const MAX_FILE: u64 = 1 << 20;

/// A trust directory.
#[derive(Debug, Clone)]
pub struct Trust {
    directory: PathBuf,
}

impl Trust {
    pub(super) const ROOT: &'static str = "root.json";
    pub(super) const ROOT_SIGNATURE: &'static str = "root.json.asc";
    pub(super) const RELEASE: &'static str = "release.asc";
    pub(super) const OWNER: &'static str = "owner.guid";

    /// Every file that a trust directory has.
    pub const FILES: [&'static str; 10] = [
        Self::ROOT,
        Self::ROOT_SIGNATURE,
        Self::RELEASE,
        Self::OWNER,
        "pk.der",
        "kek.der",
        "db.der",
        "PK.auth",
        "KEK.auth",
        "db.auth",
    ];

    /// Opens a trust directory, which must have all of its files.
    ///
    /// # Errors
    /// When one is missing.
    pub fn open(directory: &Path) -> Result<Self> {
        for name in Self::FILES {
            ensure!(
                directory.join(name).is_file(),
                "{} is not a whole trust directory: {name} is missing",
                directory.display()
            );
        }
        Ok(Self {
            directory: directory.to_path_buf(),
        })
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The pinned TUF root.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn root(&self) -> Result<Vec<u8>> {
        self.read(Self::ROOT)
    }

    /// The keyring file with the OpenPGP release certificate.
    #[must_use]
    pub fn release_keyring(&self) -> PathBuf {
        self.directory.join(Self::RELEASE)
    }

    /// A Secure Boot certificate.
    ///
    /// # Errors
    /// When it cannot be read or is none.
    pub fn certificate(&self, variable: Variable) -> Result<Certificate> {
        let name = certificate_file(variable);
        Certificate::from_der(&self.read(&name)?)
            .with_context(|| format!("reading {}", self.directory.join(name).display()))
    }

    /// The signed update that enrols a Secure Boot variable.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn update(&self, variable: Variable) -> Result<Vec<u8>> {
        self.read(&update_file(variable))
    }

    /// The owner GUID in the signature lists.
    ///
    /// # Errors
    /// When it cannot be read or is none.
    pub fn owner(&self) -> Result<Guid> {
        let text = self.read(Self::OWNER)?;
        Ok(String::from_utf8_lossy(&text).trim().parse()?)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.directory.join(name);
        read_bounded(&path, MAX_FILE).with_context(|| format!("reading {}", path.display()))
    }
}

pub(super) fn certificate_file(variable: Variable) -> String {
    format!("{}.der", variable.name().to_ascii_lowercase())
}

pub(super) fn update_file(variable: Variable) -> String {
    format!("{}.auth", variable.name())
}
