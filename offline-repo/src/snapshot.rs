// SPDX-License-Identifier: GPL-3.0-or-later
//! The manifest of a snapshot: which packages, proved by which of upstream's own signed files.
//!
//! The same state of upstream gives the same bytes: no time of mirroring, no mirror's address, everything sorted.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use signing::digest::Sha256;

use crate::control::safe_path;
use crate::spec::{Role, is_name};

/// The format's number.
pub const FORMAT: u32 = 1;
/// The largest manifest that is read.
pub const LARGEST: u64 = 32 << 20;

/// A kept upstream file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptFile {
    /// Path below the snapshot's directory.
    pub file: String,
    /// Digest.
    pub sha256: Sha256,
    /// Size.
    pub size: u64,
}

/// A kept `Packages` file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptIndex {
    /// The component that it lists.
    pub component: String,
    /// Path below the snapshot's directory.
    pub file: String,
    /// Digest.
    pub sha256: Sha256,
    /// Size.
    pub size: u64,
}

/// One suite from which packages came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The suite, by codename.
    pub suite: String,
    /// The archive's directory below a mirror.
    pub path: String,
    /// Its components.
    pub components: Vec<String>,
    /// Upstream's signed list.
    pub inrelease: KeptFile,
    /// Fingerprints of the keys whose signatures were good and allowed.
    pub signers: Vec<String>,
    /// The date in it.
    pub date: DateTime<Utc>,
    /// The newest of its good signatures' dates, at which they are judged for ever after.
    pub signed_at: DateTime<Utc>,
    /// The `Packages` files, one for each component.
    pub packages: Vec<KeptIndex>,
}

/// One package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotPackage {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// The snapshot's architecture or `all`.
    pub architecture: String,
    /// Source package.
    pub source: String,
    /// Version of the source package.
    pub source_version: String,
    /// Section, where upstream gives one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section: Option<String>,
    /// Path below the archive's directory.
    pub filename: String,
    /// Size of the `.deb`.
    pub size: u64,
    /// Digest of the `.deb`, its name in the pool.
    pub sha256: Sha256,
    /// The suite that lists it.
    pub suite: String,
    /// The component that lists it.
    pub component: String,
    /// What it is for.
    pub roles: BTreeSet<Role>,
}

/// The manifest, `snapshot.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Always 1.
    pub format: u32,
    /// Name.
    pub name: String,
    /// Architecture.
    pub architecture: String,
    /// The suites, in the specification's order.
    pub created_from: Vec<Origin>,
    /// The packages, sorted.
    pub packages: Vec<SnapshotPackage>,
}

impl Snapshot {
    /// Parses a manifest and checks its names, so that none of them can lead out of a directory.
    ///
    /// # Errors
    /// When it is malformed, of another format, or names a path that leaves its directory.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let snapshot: Self = serde_json::from_slice(bytes).context("the manifest is malformed")?;
        if snapshot.format != FORMAT {
            bail!(
                "the manifest has format {}, this program reads format {FORMAT}",
                snapshot.format
            );
        }
        let origins = snapshot.created_from.iter();
        let names = origins
            .clone()
            .flat_map(|origin| [&origin.suite, &origin.path].into_iter().chain(&origin.components))
            .chain([&snapshot.name, &snapshot.architecture])
            .chain(snapshot.packages.iter().map(|package| &package.name));
        for name in names {
            if !is_name(name) {
                bail!("the manifest holds {name:?}, which is no plain name");
            }
        }
        let files = origins.flat_map(|origin| {
            let indexes = origin.packages.iter().map(|index| &index.file);
            std::iter::once(&origin.inrelease.file).chain(indexes)
        });
        for file in files {
            if !safe_path(file)?.starts_with("upstream/") {
                bail!("the manifest keeps {file:?} outside upstream/");
            }
        }
        for package in &snapshot.packages {
            safe_path(&package.filename)?;
        }
        let mut lists = BTreeSet::new();
        for origin in &snapshot.created_from {
            for index in &origin.packages {
                if !lists.insert((&origin.suite, &index.component)) {
                    bail!("the manifest names {} {} twice", origin.suite, index.component);
                }
            }
        }
        let mut identities = BTreeSet::new();
        for package in &snapshot.packages {
            if !identities.insert((&package.name, &package.version, &package.architecture)) {
                bail!("the manifest names {} {} twice", package.name, package.version);
            }
        }
        Ok(snapshot)
    }

    /// The bytes that are stored.
    ///
    /// # Errors
    /// Never in practice: all its types have a JSON form.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The pool's objects that it names, with what a person calls each. One may be named more than once.
    pub fn objects(&self) -> impl Iterator<Item = (Sha256, String)> {
        let package = |one: &SnapshotPackage| (one.sha256, format!("{} {}", one.name, one.version));
        let indexes = self.created_from.iter().flat_map(|origin| &origin.packages);
        let index = |one: &KeptIndex| (one.sha256, one.file.clone());
        self.packages.iter().map(package).chain(indexes.map(index))
    }

    /// The packages of a role.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &SnapshotPackage> {
        self.packages
            .iter()
            .filter(move |package| package.roles.contains(&role))
    }

    /// The origin of a suite.
    #[must_use]
    pub fn origin(&self, suite: &str) -> Option<&Origin> {
        self.created_from.iter().find(|origin| origin.suite == suite)
    }

    /// The place of a suite's signed list below the snapshot's directory.
    #[must_use]
    pub fn inrelease_file(suite: &str) -> String {
        format!("upstream/{suite}/InRelease")
    }

    /// The place of a `Packages` file below the snapshot's directory.
    #[must_use]
    pub fn index_file(suite: &str, component: &str, architecture: &str) -> String {
        format!("upstream/{suite}/{component}_binary-{architecture}_Packages.xz")
    }
}
