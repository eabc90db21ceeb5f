// SPDX-License-Identifier: GPL-3.0-or-later
//! The trust directory: the public half of a site, baked into the host image and carried by auditors.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::digest::{Sha256, read_bounded};
use crate::output::{self, Refused};
use crate::release::{Part, ROOT_HASH_PARAMETER};
use crate::secureboot::{Certificate, Guid, Variable, pe_section, verify_pe};

/// Where an image has the trust directory that its host believes.
pub const TRUST_DIRECTORY: &str = "/usr/share/bastide/trust";

/// No file of a trust directory is near this long.
pub const MAX_FILE: u64 = 1 << 20;

/// A command line is a kilobyte or two.
const MAX_COMMAND_LINE: u64 = 64 << 10;

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
        String::from_utf8_lossy(&text)
            .trim()
            .parse()
            .with_context(|| format!("cannot use {}", self.directory.join(Self::OWNER).display()))
    }

    /// Whether hosts of this site would start a release's boot image: it is signed with the site's Secure Boot key, and
    /// starts the root file system that it is released with. A part that is no boot image passes.
    ///
    /// # Errors
    /// [`Refused`] with the reason when they would not; else when the trust directory cannot be read.
    pub fn check_boot_image(&self, part: Part, image: &[u8], root_hash: &Sha256) -> Result<()> {
        check_boot_image(self.certificate(Variable::Db)?.to_der(), part, image, root_hash)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.directory.join(name);
        read_bounded(&path, MAX_FILE).with_context(|| format!("reading {}", path.display()))
    }
}

/// As [`Trust::check_boot_image`], for who has the site's `db` certificate (DER) alone.
///
/// # Errors
/// [`Refused`] with the reason when no host would start it.
pub fn check_boot_image(db: &[u8], part: Part, image: &[u8], root_hash: &Sha256) -> Result<()> {
    let Some(section) = part.command_line() else {
        return Ok(());
    };
    if let Err(error) = verify_pe(image, db) {
        bail!(Refused(format!(
            "{} is not signed with this site's Secure Boot key (db), so no host would start it: {}",
            part.file(),
            output::chain(&error.into())
        )));
    }
    let content = pe_section(Cursor::new(image), section, MAX_COMMAND_LINE)
        .map_err(|error| Refused(format!("{}: {}", part.file(), output::chain(&error.into()))))?
        .unwrap_or_default();
    let wanted = format!("{ROOT_HASH_PARAMETER}={root_hash}");
    let text = String::from_utf8_lossy(&content);
    // Of two the kernel would take one, and a reader the other.
    let mut named = text
        .split(|c: char| c.is_whitespace() || c == '\0')
        .filter(|word| word.starts_with(ROOT_HASH_PARAMETER));
    if named.next() == Some(&wanted) && named.next().is_none() {
        return Ok(());
    }
    bail!(Refused(format!(
        "{} does not start the root file system that it is released with ({:.16}…)",
        part.file(),
        root_hash.to_string()
    )))
}

pub(super) fn certificate_file(variable: Variable) -> String {
    format!("{}.der", variable.name().to_ascii_lowercase())
}

pub(super) fn update_file(variable: Variable) -> String {
    format!("{}.auth", variable.name())
}
