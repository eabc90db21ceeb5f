// SPDX-License-Identifier: GPL-3.0-or-later
//! A site: the directory with all of its keys, and the trust directory that verifiers need.
//!
//! ```text
//! SITE/site.json                     what is in it: names, fingerprints, threshold; public
//! SITE/private/root-1.pem …          keys of the TUF root, encrypted PKCS#8, Ed25519; none where custodians hold them
//! SITE/private/{targets,snapshot,timestamp,host}.pem
//! SITE/private/release-openpgp.asc   OpenPGP release key, its secrets encrypted
//! SITE/private/{pk,kek,db}.pem       Secure Boot keys, encrypted PKCS#8, RSA-3072
//! SITE/private/NAME.uri              instead of NAME.pem: the PKCS #11 URI of a key in a token
//! SITE/metadata/1.root.json          the first root, and 1.root.json.asc
//! SITE/trust/                        what a verifier needs, and all that it needs
//! ```
//!
//! # Attacks faced
//! A key file put in another's place, by mistake or not: each key that is opened must be the one whose public part
//! `site.json` records.
//!
//! # Defence not made
//! `site.json` is not signed: whoever may write the site's directory may change it together with the key files. They
//! cannot change what verifiers trust, which is the copy of `trust/` that they already hold.

mod handed;
mod init;
mod officers;
mod trust;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::digest::{Sha256, read_bounded};
use crate::keys::{self, Algorithm, MetadataKey, Passphrase};
use crate::openpgp::OpenPgpKey;
use crate::secureboot::{Certificate, Identity, Variable};
use crate::tuf::Limits;
use crate::tuf::author::{KeySet, Signer as _};
use crate::tuf::repository::{Expiry, Published, Repository, Signers};
use crate::tuf::root::{judge_successor, signed_part};

pub use init::{Plan, RootOrigin, init};
pub use officers::Officer;
pub use trust::{MAX_FILE, TRUST_DIRECTORY, Trust, check_boot_image};

/// The version of `site.json`.
pub const FORMAT: u32 = 1;
/// `site.json` is a few kilobytes.
const MAX_FACTS: u64 = 1 << 20;
/// The name of the OpenPGP key.
const RELEASE_KEY: &str = "release-openpgp";

/// A TUF role that the site has a key for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// One of the root's keys, counted from 1.
    Root(usize),
    /// The top-level targets role.
    Targets,
    /// The snapshot role.
    Snapshot,
    /// The timestamp role.
    Timestamp,
    /// The delegated role that signs host releases.
    Host,
}

impl Role {
    /// The roles with one key each.
    pub const SINGLE: [Self; 4] = [Self::Targets, Self::Snapshot, Self::Timestamp, Self::Host];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(number) => write!(f, "root-{number}"),
            Self::Targets => f.write_str("targets"),
            Self::Snapshot => f.write_str("snapshot"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Host => f.write_str("host"),
        }
    }
}

impl FromStr for Role {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(role) = Self::SINGLE.into_iter().find(|role| role.to_string() == text) {
            return Ok(role);
        }
        match text.strip_prefix("root-").and_then(|number| number.parse().ok()) {
            Some(number) if number > 0 => Ok(Self::Root(number)),
            _ => bail!("{text:?} is not a role; they are root-1, root-2, …, targets, snapshot, timestamp, host"),
        }
    }
}

/// What `site.json` says: nothing of it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteFacts {
    /// Version of this file's format.
    pub format: u32,
    /// The site's name.
    pub name: String,
    /// When it was made.
    pub created: DateTime<Utc>,
    /// How many root keys must sign a root.
    pub threshold: u64,
    /// The keys of the TUF roles.
    pub keys: Vec<KeyFacts>,
    /// Fingerprint of the OpenPGP release key.
    pub release_openpgp: String,
    /// Fingerprints of the officers' certificates that stand beside it in the trust directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub officers: Vec<String>,
    /// The Secure Boot part.
    pub secure_boot: SecureBootFacts,
}

/// A TUF key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFacts {
    /// The role, which is also the file's name: `root-1`, `targets`, …
    pub role: String,
    /// The kind of key.
    pub algorithm: Algorithm,
    /// The identifier under which TUF metadata names it.
    pub keyid: String,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub public_sha256: Sha256,
}

/// The Secure Boot keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecureBootFacts {
    /// The owner GUID in signature lists.
    pub owner: String,
    /// SHA-256 of the PK certificate.
    pub pk_sha256: Sha256,
    /// SHA-256 of the KEK certificate.
    pub kek_sha256: Sha256,
    /// SHA-256 of the db certificate.
    pub db_sha256: Sha256,
}

/// A whole site on disk.
#[derive(Debug)]
pub struct Site {
    directory: PathBuf,
    facts: SiteFacts,
}

impl Site {
    /// Opens a site. No key is touched.
    ///
    /// # Errors
    /// When the directory is not a whole site of this format.
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join("site.json");
        let bytes = read_bounded(&path, MAX_FACTS).with_context(|| {
            format!(
                "opening the site: reading {} (`bastide-sign site init` makes a site)",
                path.display()
            )
        })?;
        let facts: SiteFacts =
            serde_json::from_slice(&bytes).with_context(|| format!("opening the site: {}", path.display()))?;
        ensure!(
            facts.format == FORMAT,
            "opening the site: {} has format {}, this program reads {FORMAT}",
            path.display(),
            facts.format
        );
        let site = Self {
            directory: directory.to_path_buf(),
            facts,
        };
        Trust::open(&site.trust_dir()).context("opening the site")?;
        Ok(site)
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What it says about itself.
    #[must_use]
    pub fn facts(&self) -> &SiteFacts {
        &self.facts
    }

    /// The trust directory, to be baked into images and handed to auditors.
    #[must_use]
    pub fn trust_dir(&self) -> PathBuf {
        self.directory.join("trust")
    }

    /// The root metadata that the site has made, `N.root.json` and `N.root.json.asc`.
    #[must_use]
    pub fn metadata_dir(&self) -> PathBuf {
        self.directory.join("metadata")
    }

    /// How many root keys there are.
    #[must_use]
    pub fn root_keys(&self) -> usize {
        self.facts
            .keys
            .iter()
            .filter(|key| key.role.starts_with("root-"))
            .count()
    }

    /// The keys that newer roots took out, each with the version of the root that did: nothing that they sign counts.
    ///
    /// # Errors
    /// When a root in [`Site::metadata_dir`] cannot be read or does not follow from the one before it.
    pub fn taken_out(&self) -> Result<BTreeMap<String, u64>> {
        let mut root = Trust::open(&self.trust_dir())?.root()?;
        let mut gone = BTreeMap::new();
        let mut version = version_of(&root)?;
        loop {
            let path = self.metadata_dir().join(format!("{}.root.json", version + 1));
            if !path.exists() {
                return Ok(gone);
            }
            version += 1;
            let context = || format!("judging {}", path.display());
            let next = read_bounded(&path, Limits::default().root_bytes).with_context(context)?;
            // At the beginning of time nothing has expired: here it is asked whose keys count.
            judge_successor(&root, version, &next, DateTime::UNIX_EPOCH).with_context(context)?;
            root = next;
            let signed = signed_part("a root of the site", &root)?;
            for key in &self.facts.keys {
                // The delegated role's key is named by targets, not by a root.
                let role = match key.role.parse()? {
                    Role::Root(_) => "root",
                    Role::Host => continue,
                    _ => &key.role,
                };
                let keyids = signed["roles"][role]["keyids"].as_array();
                if !keyids.is_some_and(|keyids| keyids.iter().any(|keyid| *keyid == *key.keyid)) {
                    gone.entry(key.role.clone()).or_insert(version);
                }
            }
        }
    }

    /// Opens the key of a TUF role.
    ///
    /// # Errors
    /// When the file cannot be opened with the passphrase or holds another key than the site records.
    pub fn signer(&self, role: Role, passphrase: &Passphrase) -> Result<MetadataKey> {
        let name = role.to_string();
        let Some(facts) = self.facts.keys.iter().find(|key| key.role == name) else {
            bail!("the site {} has no key for {name}", self.facts.name);
        };
        let place = keys::place(&self.private(), &name, "pem")?;
        let key = keys::open_file(&place, passphrase)?;
        ensure!(
            key.public().fingerprint() == facts.public_sha256,
            "{} is another key than site.json records for {name}: restore the right file",
            place.display()
        );
        Ok(MetadataKey::of(key)?)
    }

    /// Signs what was edited in a repository with the keys of the site's roles, and publishes it.
    ///
    /// # Errors
    /// When a key cannot be opened, or as [`Repository::publish`].
    pub fn publish(
        &self,
        repository: &mut Repository,
        passphrase: &Passphrase,
        expires: DateTime<Utc>,
        signed_at: DateTime<Utc>,
    ) -> Result<Published> {
        let key = |role| self.signer(role, passphrase);
        let host = key(Role::Host)?;
        let release = self.release_key(passphrase)?;
        let signers = Signers {
            targets: &[&key(Role::Targets)?],
            host: &[&host],
            snapshot: &[&key(Role::Snapshot)?],
            timestamp: &[&key(Role::Timestamp)?],
            release: Some(&|timestamp| release.sign_detached(timestamp)),
        };
        repository.publish(
            &KeySet::single(host.public()),
            &signers,
            &Expiry::all(expires),
            signed_at,
        )
    }

    /// Opens a Secure Boot key with its certificate.
    ///
    /// # Errors
    /// When the file cannot be opened with the passphrase or does not belong to the certificate.
    pub fn secure_boot_key(&self, variable: Variable, passphrase: &Passphrase) -> Result<Identity> {
        let stem = variable.name().to_ascii_lowercase();
        let key = keys::open_file(&keys::place(&self.private(), &stem, "pem")?, passphrase)?;
        Ok(Identity::of(key, self.certificate(variable)?)?)
    }

    /// Opens the key that signs boot images.
    ///
    /// # Errors
    /// As [`Site::secure_boot_key`].
    pub fn db_key(&self, passphrase: &Passphrase) -> Result<Identity> {
        self.secure_boot_key(Variable::Db, passphrase)
    }

    /// A Secure Boot certificate, which must be the one that the site records.
    ///
    /// # Errors
    /// When it cannot be read or is another one.
    pub fn certificate(&self, variable: Variable) -> Result<Certificate> {
        let certificate = Trust::open(&self.trust_dir())?.certificate(variable)?;
        let recorded = match variable {
            Variable::Pk => self.facts.secure_boot.pk_sha256,
            Variable::Kek => self.facts.secure_boot.kek_sha256,
            Variable::Db => self.facts.secure_boot.db_sha256,
        };
        ensure!(
            certificate.fingerprint() == recorded,
            "the {} certificate in {} is another one than site.json records: restore the right file",
            variable.name(),
            self.trust_dir().display()
        );
        Ok(certificate)
    }

    /// The OpenPGP release key, with the passphrase that opens it. In a token it is the key of the trust directory's
    /// certificate.
    ///
    /// # Errors
    /// When the key cannot be read or opened.
    pub fn release_key<'a>(&self, passphrase: &'a Passphrase) -> Result<OpenPgpKey<'a>> {
        let place = keys::place(&self.private(), RELEASE_KEY, "asc")?;
        OpenPgpKey::open(&place, &self.trust_dir().join("release.asc"), passphrase)
    }

    /// The file of the OpenPGP release key.
    #[must_use]
    pub fn release_key_file(&self) -> PathBuf {
        self.private().join(format!("{RELEASE_KEY}.asc"))
    }

    fn private(&self) -> PathBuf {
        self.directory.join("private")
    }
}

fn version_of(root: &[u8]) -> Result<u64> {
    let version = signed_part("the pinned root", root)?["version"].as_u64();
    version.context("the pinned root has no version")
}
