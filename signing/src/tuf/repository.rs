// SPDX-License-Identifier: GPL-3.0-or-later
//! Edits a repository on disk: what was published is verified first, what is new is verified before clients can see it.
//!
//! Attacks: metadata that was altered where it lies, so that the next signature would bless it; a power cut while it is
//! written; two editors at once.
//!
//! Defence: opening follows the repository like a client (expiry apart: renewing what has expired is the point); files go
//! down durably and in an order in which each names only files that stand already, the timestamp last; one lock.
//!
//! Not defended here: somebody who holds the keys.

mod resume;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::author::{self, Delegation, Header, KeySet, MetaEntry, Signer, TargetEntry};
use super::beside;
use super::client::{Client, consistent_path};
use super::datastore::Datastore;
use super::limits::Limits;
use super::model;
use super::names::check_target_name;
use super::source::{DirectorySource, Source, SourceError};
use super::trail::TrailFile;
use crate::digest::{self, Sha256};
use crate::durable;

pub use resume::limits as limits_to_publish;

/// The role to which the host's releases are delegated.
pub const HOST: &str = "host";
/// The targets that the role `host` may name.
pub const HOST_PATHS: [&str; 1] = ["host/*/*"];

/// Gives the armored detached OpenPGP signature of data.
pub type SignDetached<'a> = dyn Fn(&[u8]) -> Result<String> + 'a;

/// The private keys of one publication; a list may be empty when that role's file need not change.
#[derive(Clone, Copy)]
pub struct Signers<'a> {
    /// Keys of the top-level targets role.
    pub targets: &'a [&'a dyn Signer],
    /// Keys of the delegated role `host`.
    pub host: &'a [&'a dyn Signer],
    /// Keys of the snapshot role.
    pub snapshot: &'a [&'a dyn Signer],
    /// Keys of the timestamp role.
    pub timestamp: &'a [&'a dyn Signer],
    /// The OpenPGP release key, which signs the timestamp beside its role's keys.
    pub release: Option<&'a SignDetached<'a>>,
}

/// When each role's new metadata expires.
#[derive(Debug, Clone, Copy)]
pub struct Expiry {
    /// Of the top-level targets role.
    pub targets: DateTime<Utc>,
    /// Of the role `host`.
    pub host: DateTime<Utc>,
    /// Of the snapshot.
    pub snapshot: DateTime<Utc>,
    /// Of the timestamp.
    pub timestamp: DateTime<Utc>,
}

impl Expiry {
    /// All roles at one time.
    #[must_use]
    pub const fn all(time: DateTime<Utc>) -> Self {
        Self {
            targets: time,
            host: time,
            snapshot: time,
            timestamp: time,
        }
    }
}

/// The versions that clients see after a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Published {
    /// Version of the root.
    pub root: u64,
    /// Version of the top-level targets role.
    pub targets: u64,
    /// Version of the role `host`.
    pub host: u64,
    /// Version of the snapshot.
    pub snapshot: u64,
    /// Version of the timestamp.
    pub timestamp: u64,
}

/// A role's file as it was published.
#[derive(Debug, Clone)]
struct Standing {
    meta: MetaEntry,
    expires: DateTime<Utc>,
}

/// A repository that is open for editing: `metadata/` and `targets/` below one directory.
pub struct Repository {
    directory: PathBuf,
    trusted_root: Vec<u8>,
    root_version: u64,
    timestamp: u64,
    snapshot: u64,
    /// By file name, as in the snapshot.
    roles: BTreeMap<String, Standing>,
    delegations: Vec<model::Delegation>,
    published: BTreeMap<String, TargetEntry>,
    host: BTreeMap<String, TargetEntry>,
    _lock: durable::Lock,
}

impl Repository {
    /// Makes an empty repository around a first root.
    ///
    /// # Errors
    /// When there is one already, when the root is not version 1 signed by its own threshold, or a write fails.
    pub fn create(directory: &Path, root: &[u8]) -> Result<Self> {
        let version = Datastore::ephemeral(root)
            .and_then(|store| store.root_version())
            .context("the root of the new repository")?;
        ensure!(version == 1, "the first root has version {version}, and not 1");
        let metadata = directory.join("metadata");
        for new in [&metadata, &directory.join("targets")] {
            fs::create_dir_all(new).with_context(|| format!("making {}", new.display()))?;
        }
        let place = metadata.join("1.root.json");
        ensure!(
            !place.exists(),
            "{} holds a repository already: open it, or choose another directory",
            directory.display()
        );
        durable::write(&place, root).with_context(|| format!("writing {}", place.display()))?;
        Self::open(directory, root)
    }

    /// Opens a repository and verifies what is published in it, from this root on. Expired metadata is accepted here.
    ///
    /// # Errors
    /// When another process edits it, or when anything in its metadata does not verify.
    pub fn open(directory: &Path, trusted_root: &[u8]) -> Result<Self> {
        let lock = durable::Lock::take(directory).with_context(|| format!("opening {}", directory.display()))?;
        let mut repository = Self {
            directory: directory.to_path_buf(),
            trusted_root: trusted_root.to_vec(),
            root_version: 0,
            timestamp: 0,
            snapshot: 0,
            roles: BTreeMap::new(),
            delegations: Vec::new(),
            published: BTreeMap::new(),
            host: BTreeMap::new(),
            _lock: lock,
        };
        repository
            .load()
            .with_context(|| format!("verifying what is published in {}", directory.display()))?;
        Ok(repository)
    }

    /// The targets of the role `host`, with the edits so far.
    #[must_use]
    pub const fn targets(&self) -> &BTreeMap<String, TargetEntry> {
        &self.host
    }

    /// The version of the newest root.
    #[must_use]
    pub const fn root_version(&self) -> u64 {
        self.root_version
    }

    /// Adds a target to the role `host` or replaces it. Its content must stand at [`Repository::target_place`].
    ///
    /// # Errors
    /// When the role may not name such a target.
    pub fn put(&mut self, name: &str, entry: TargetEntry) -> Result<()> {
        check_target_name(name)?;
        ensure!(
            HOST_PATHS
                .iter()
                .any(|pattern| super::names::pattern_matches(pattern, name)),
            "the role {HOST} may not name {name:?}, only {}",
            HOST_PATHS.join(", ")
        );
        self.host.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Removes a target from the role `host`, and says whether it was there. Its file stays: older metadata names it.
    pub fn remove(&mut self, name: &str) -> bool {
        self.host.remove(name).is_some()
    }

    /// Where the content of a target lies.
    #[must_use]
    pub fn target_place(&self, name: &str, sha256: Sha256) -> PathBuf {
        self.directory
            .join("targets")
            .join(consistent_path(name, &sha256.to_string()))
    }

    /// Copies a file into the repository, durably, and adds it as a target of the role `host`.
    ///
    /// # Errors
    /// When it cannot be read or written, or changes meanwhile.
    pub fn add_file(
        &mut self,
        name: &str,
        from: &Path,
        custom: Option<serde_json::Map<String, serde_json::Value>>,
    ) -> Result<TargetEntry> {
        check_target_name(name)?;
        let (sha256, length) = Sha256::of_file(from).with_context(|| format!("reading {}", from.display()))?;
        let place = self.target_place(name, sha256);
        let stands = matches!(Sha256::of_file(&place), Ok(found) if found == (sha256, length));
        if !stands {
            let copying = || format!("copying {} to {}", from.display(), place.display());
            make_directories(&self.directory, &place).with_context(copying)?;
            let mut writer = durable::Writer::new(&place, 0o644).with_context(copying)?;
            let copied =
                digest::copy(&mut File::open(from).with_context(copying)?, &mut writer).with_context(copying)?;
            if copied != (sha256, length) {
                bail!("{} changed while it was copied: publish again", from.display());
            }
            writer.commit().with_context(copying)?;
        }
        let entry = TargetEntry { length, sha256, custom };
        self.put(name, entry.clone())?;
        Ok(entry)
    }

    /// Adds the next root, which must be signed by thresholds of the current one and of itself. It takes effect at once, and
    /// what is published after it may follow later, with the repository opened anew.
    ///
    /// # Errors
    /// When it does not verify or cannot be written.
    pub fn add_root(&mut self, root: &[u8]) -> Result<()> {
        let name = format!("{}.root.json", self.root_version + 1);
        let staged = BTreeMap::from([(name.clone(), root.to_vec())]);
        let mut client = self.client(staged, DateTime::UNIX_EPOCH, Limits::default())?;
        client.refresh_root().with_context(|| format!("the new root {name}"))?;
        self.write(&name, root)?;
        self.root_version += 1;
        Ok(())
    }

    /// Signs what changed or would expire earlier than asked, and makes it visible to clients.
    ///
    /// A role's file stays as it is when its content is the same and its expiry is late enough; snapshot and timestamp
    /// are always new. Nothing becomes visible that our own client would refuse at `now`.
    ///
    /// # Errors
    /// When a threshold is not reached, the result does not verify, or a file cannot be written. What was published before
    /// then still stands.
    pub fn publish(
        &mut self,
        host_keys: &KeySet,
        signers: &Signers<'_>,
        expires: &Expiry,
        now: DateTime<Utc>,
    ) -> Result<Published> {
        let header = |version, expires| Header {
            version,
            expires,
            signed_at: now,
        };
        let mut files = BTreeMap::new();

        // Each file before the one that names it: delegated role, targets, snapshot, timestamp.
        let host = match self.roles.get("host.json") {
            Some(old) if self.host == self.published && old.expires >= expires.host => old.meta,
            old => {
                let version = old.map_or(1, |old| old.meta.version + 1);
                let bytes = author::targets(&header(version, expires.host), &self.host, &[], signers.host)
                    .context("the role host")?;
                keep(&mut files, format!("{version}.host.json"), version, bytes)
            }
        };
        let delegation = Delegation {
            name: HOST.to_owned(),
            keys: host_keys.clone(),
            paths: HOST_PATHS.map(str::to_owned).to_vec(),
            terminating: true,
        };
        let targets = match self.roles.get("targets.json") {
            Some(old) if old.expires >= expires.targets && same_delegation(&self.delegations, &delegation)? => old.meta,
            old => {
                let version = old.map_or(1, |old| old.meta.version + 1);
                let header = header(version, expires.targets);
                let bytes = author::targets(&header, &BTreeMap::new(), &[delegation], signers.targets)
                    .context("the top-level targets role")?;
                keep(&mut files, format!("{version}.targets.json"), version, bytes)
            }
        };
        // 5.5.5: what was listed once must stay listed.
        let mut meta: BTreeMap<String, MetaEntry> =
            self.roles.iter().map(|(name, old)| (name.clone(), old.meta)).collect();
        meta.insert("host.json".to_owned(), host);
        meta.insert("targets.json".to_owned(), targets);
        let version = self.snapshot + 1;
        let bytes = author::snapshot(&header(version, expires.snapshot), &meta, signers.snapshot)?;
        let snapshot = keep(&mut files, format!("{version}.snapshot.json"), version, bytes);
        let version = self.timestamp + 1;
        let timestamp = author::timestamp(&header(version, expires.timestamp), &snapshot, signers.timestamp)?;

        let mut staged = files.clone();
        staged.insert("timestamp.json".to_owned(), timestamp.clone());
        let mut client = self.client(staged, now, Limits::default())?;
        client
            .targets()
            .context("checking the new metadata before it is published; nothing was changed")?;

        if let Some(sign) = signers.release {
            files.insert(beside::timestamp(version), sign(&timestamp)?.into_bytes());
        }
        for (name, bytes) in &files {
            self.write(name, bytes)?;
        }
        self.write("timestamp.json", &timestamp)?;
        let metadata = self.directory.join("metadata");
        beside::forget_replaced(&metadata, version).with_context(|| format!("clearing {}", metadata.display()))?;
        let published = Published {
            root: self.root_version,
            targets: targets.version,
            host: host.version,
            snapshot: snapshot.version,
            timestamp: version,
        };
        self.load().context("reading back what was published")?;
        Ok(published)
    }

    /// A client of this repository, in which some metadata files are not written yet.
    fn client(&self, staged: BTreeMap<String, Vec<u8>>, now: DateTime<Utc>, limits: Limits) -> Result<Client<Staged>> {
        let source = Staged {
            files: staged,
            below: DirectorySource::below(&self.directory),
        };
        Ok(Client::open(
            Datastore::ephemeral(&self.trusted_root)?,
            source,
            limits,
            now,
        )?)
    }

    fn load(&mut self) -> Result<()> {
        // At the beginning of time nothing has expired.
        let mut client = self.client(BTreeMap::new(), DateTime::UNIX_EPOCH, Limits::default())?;
        client.refresh_root()?;
        self.root_version = client.root().header.version;
        if !self.directory.join("metadata/timestamp.json").exists() {
            return Ok(());
        }
        let limits = resume::limits(&self.directory, &self.trusted_root)?;
        let mut client = self.client(BTreeMap::new(), DateTime::UNIX_EPOCH, limits)?;
        client.targets()?;
        let newest = |role: &str| client.trail().newest(role);
        self.timestamp = newest("timestamp").map_or(0, |file| file.version);
        self.snapshot = newest("snapshot").map_or(0, |file| file.version);
        self.roles.clear();
        for role in ["targets", HOST] {
            if let Some(file) = newest(role) {
                self.roles.insert(format!("{role}.json"), Standing::of(file));
            }
        }
        self.delegations = client.delegations_of("targets");
        self.published = client
            .targets_of(HOST)
            .into_iter()
            .map(|(name, target)| {
                let entry = TargetEntry {
                    length: target.length,
                    sha256: target
                        .hashes
                        .sha256()
                        .with_context(|| format!("target {name:?} has no SHA-256 digest"))?,
                    custom: target.custom.and_then(|custom| custom.as_object().cloned()),
                };
                Ok((name, entry))
            })
            .collect::<Result<_>>()?;
        self.host = self.published.clone();
        Ok(())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let place = self.directory.join("metadata").join(name);
        durable::write(&place, bytes).with_context(|| format!("writing {}", place.display()))
    }
}

impl Standing {
    fn of(file: &TrailFile) -> Self {
        Self {
            meta: MetaEntry {
                version: file.version,
                length: file.length,
                sha256: file.sha256,
            },
            expires: file.expires,
        }
    }
}

/// Keeps a new file for writing and says what an index has to say of it.
fn keep(files: &mut BTreeMap<String, Vec<u8>>, name: String, version: u64, bytes: Vec<u8>) -> MetaEntry {
    let meta = MetaEntry::of(version, &bytes);
    files.insert(name, bytes);
    meta
}

fn same_delegation(published: &[model::Delegation], wanted: &Delegation) -> Result<bool> {
    let [old] = published else {
        return Ok(false);
    };
    let mut keyids = Vec::new();
    for key in &wanted.keys.keys {
        keyids.push(author::key_id(key)?);
    }
    keyids.sort();
    let same_paths = matches!(&old.paths, model::Paths::Patterns(patterns) if *patterns == wanted.paths);
    Ok(old.name == wanted.name
        && same_paths
        && old.terminating == wanted.terminating
        && old.keys.threshold == wanted.keys.threshold
        && old.keys.keys.keys().eq(keyids.iter()))
}

/// Makes the directories of a target, durably.
fn make_directories(top: &Path, place: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut at = place.parent();
    while let Some(directory) = at {
        if directory == top || directory.is_dir() {
            break;
        }
        missing.push(directory);
        at = directory.parent();
    }
    for directory in missing.into_iter().rev() {
        fs::create_dir(directory)?;
        durable::sync_directory(directory.parent().unwrap_or(top))?;
    }
    Ok(())
}

/// A repository with some metadata files that are not written yet.
struct Staged {
    files: BTreeMap<String, Vec<u8>>,
    below: DirectorySource,
}

impl Source for Staged {
    fn metadata(&mut self, name: &str, max: u64) -> std::result::Result<Option<Vec<u8>>, SourceError> {
        match self.files.get(name) {
            Some(bytes) => Ok(Some(bytes.clone())),
            None => self.below.metadata(name, max),
        }
    }

    fn target(&mut self, path: &str) -> std::result::Result<Option<Box<dyn Read + '_>>, SourceError> {
        self.below.target(path)
    }
}
