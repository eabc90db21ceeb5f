// SPDX-License-Identifier: GPL-3.0-or-later
//! A TUF repository on disk, and the releases that its signed targets make up.
//!
//! ```text
//! REPO/metadata/N.root.json, N.root.json.asc, timestamp.json, N.snapshot.json, N.targets.json, N.host.json
//! REPO/targets/host/VERSION/<sha256>.<part>
//! REPO/datastore/    at a gateway: what its imports have trusted so far
//! REPO/site/metadata/   at a gateway with officers: the site's repository, which approves releases of the vendor
//! REPO/site/vendor/     the vendor's metadata as they were approved; its timestamp as N.timestamp.json
//! REPO/site/datastore/  at the next gateway: what its imports have trusted of the site
//! REPO/apt/          packages for guests, as [`crate::archive`] makes them
//! REPO/.lock         one writer at a time
//! ```
//!
//! A version of a metadata file is written once. `timestamp.json` alone changes, and it changes last: a reader sees the
//! old release or the new one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use chrono::{DateTime, Utc};
use serde::Serialize;
use signing::digest::{self, Sha256};
use signing::durable;
use signing::output::Refused;
use signing::release::{self, Offered, Part, Version};
use signing::tuf::beside;
use signing::tuf::repository::limits_to_publish;
use signing::tuf::trail::TrailFile;
use signing::tuf::{Client, Datastore, DirectorySource, Limits, Offer, Seen, Source, Trail, VerifiedTarget};

use crate::bundle::Bases;
use crate::delta::{Base, Held};
use crate::quarantine::Quarantine;

/// The largest root or signature of one that is read.
pub const LARGEST_ROOT: u64 = 1 << 20;

/// The directory of a site's repository in the one that it approves from.
const SITE: &str = "site";
/// And in it the vendor's metadata.
const VENDOR: &str = "vendor";

/// The name under which one of the vendor's metadata files is kept as it was approved: timestamps would replace each other.
pub(crate) fn kept(file: &TrailFile) -> String {
    match file.role.as_str() {
        "timestamp" => Seen::from(file).kept_name(),
        _ => file.file.clone(),
    }
}

/// What the repository in a directory offers: the vendor's as the site approved it, where a site did.
#[must_use]
pub fn offer(root: &Path) -> Offer<DirectorySource> {
    let site = root.join(SITE);
    if !site.join("metadata/timestamp.json").exists() {
        return Offer::vendor(DirectorySource::below(root));
    }
    let below = |metadata: PathBuf| DirectorySource::new(metadata, root.join("targets"));
    Offer {
        vendor: below(site.join(VENDOR)),
        site: Some(below(site.join("metadata"))),
    }
}

/// The targets of a repository, as bases of deltas.
#[derive(Debug)]
pub struct Holdings(DirectorySource);

impl Bases for Holdings {
    fn open(&self, base: &Base) -> io::Result<Option<Held>> {
        let opened = self.0.open_target(&base.path);
        Ok(opened.map_err(io::Error::other)?.map(Held::File))
    }
}

/// One part of a published release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublishedPart {
    /// Which part.
    pub part: Part,
    /// Its target's name.
    pub target: String,
    /// Its size.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256,
    /// Whether its file is here.
    pub present: bool,
}

/// A release that a repository's signed targets describe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    /// Its version.
    pub version: Version,
    /// Its channel.
    pub channel: String,
    /// The verity root hash.
    pub root_hash: Sha256,
    /// Its parts, in the order of [`Part::ALL`].
    pub parts: Vec<PublishedPart>,
}

impl Published {
    /// Whether every part's file is here.
    #[must_use]
    pub fn complete(&self) -> bool {
        Part::ALL
            .iter()
            .all(|part| self.parts.iter().any(|one| one.part == *part && one.present))
    }

    /// The size of all parts.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.parts.iter().map(|part| part.size).sum()
    }
}

/// Makes releases of verified targets. `present` says whether the file of a target is here.
///
/// # Errors
/// [`Refused`] in the chain when targets contradict each other or their names.
pub fn releases(targets: &[VerifiedTarget], present: &dyn Fn(&VerifiedTarget) -> bool) -> Result<Vec<Published>> {
    let published = |release: Offered| Published {
        version: release.version,
        channel: release.channel,
        root_hash: release.root_hash,
        parts: release
            .parts
            .into_iter()
            .map(|(part, target)| PublishedPart {
                part,
                present: present(&target),
                target: target.name,
                size: target.length,
                sha256: target.sha256,
            })
            .collect(),
    };
    Ok(release::offered(targets)?.into_iter().map(published).collect())
}

/// A repository's directory.
#[derive(Debug, Clone)]
pub struct Repository {
    root: PathBuf,
}

/// The directories that a new repository began with. Dropped, they go again, and with them what was verified and never became
/// visible: a command that was refused leaves nothing.
pub struct Begun {
    root: PathBuf,
    new: Vec<PathBuf>,
    above: Vec<PathBuf>,
}

impl Begun {
    /// The repository is one now.
    pub fn keep(mut self) {
        self.new.clear();
        self.above.clear();
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.new.is_empty() {
            return;
        }
        // Somebody else who began at the same time works here now.
        let Ok(_lock) = durable::Lock::take(&self.root) else {
            return;
        };
        // Nothing depends on these; what cannot be removed stays.
        for path in &self.new {
            drop(fs::remove_dir_all(path).or_else(|_| fs::remove_file(path)));
        }
        for path in &self.above {
            drop(fs::remove_dir(path));
        }
    }
}

/// What a verified reading of a repository found.
pub struct Reading {
    /// Every target that is vouched for.
    pub targets: Vec<VerifiedTarget>,
    /// The releases.
    pub releases: Vec<Published>,
    /// How it was verified.
    pub trail: Trail,
}

impl Reading {
    /// The version and expiry of a role's metadata.
    #[must_use]
    pub fn role(&self, role: &str) -> Option<(u64, DateTime<Utc>)> {
        let file = self.trail.newest(role)?;
        Some((file.version, file.expires))
    }

    /// The first role to expire.
    #[must_use]
    pub fn expires(&self) -> Option<(String, DateTime<Utc>)> {
        expires(&self.trail)
    }
}

/// The first role of a trail to expire.
#[must_use]
pub fn expires(trail: &Trail) -> Option<(String, DateTime<Utc>)> {
    // Of a chain of roots only the last one counts.
    let mut last = BTreeMap::new();
    for file in &trail.files {
        last.insert(file.role.clone(), file.expires);
    }
    last.into_iter().min_by_key(|(_, expires)| *expires)
}

impl Repository {
    /// Opens a repository.
    ///
    /// # Errors
    /// When the directory is none.
    pub fn open(root: &Path) -> Result<Self> {
        if !root.join("metadata").is_dir() {
            bail!("{} is not a repository: it has no directory `metadata`", root.display());
        }
        Ok(Self {
            root: root.to_path_buf(),
        })
    }

    /// As [`Repository::open`], also where only a quarantine is: no bundle was taken in yet.
    ///
    /// # Errors
    /// When the directory is none.
    pub fn open_waiting(root: &Path) -> Result<Self> {
        match Quarantine::of(root).exists() {
            true => Ok(Self {
                root: root.to_path_buf(),
            }),
            false => Self::open(root),
        }
    }

    /// Whether nothing was ever visible here: neither metadata nor a target.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_blank(&self) -> Result<bool> {
        for part in ["metadata", "targets"] {
            let directory = self.root.join(part);
            match fs::read_dir(&directory) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Ok(mut entries) => {
                    if entries.next().is_some() {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(error).with_context(|| format!("cannot read {}", directory.display())),
            }
        }
        Ok(true)
    }

    /// Opens a repository, made where there is none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(root: &Path) -> Result<Self> {
        for part in ["metadata", "targets"] {
            let directory = root.join(part);
            fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        Self::open(root)
    }

    /// As [`Repository::create`], and takes back what it made unless it is told to keep it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn begin(root: &Path) -> Result<(Self, Begun)> {
        let names = ["metadata", "targets", "datastore", SITE, ".lock"];
        let mut new: Vec<PathBuf> = match root.join("metadata").exists() {
            true => Vec::new(),
            false => names.iter().map(|name| root.join(name)).collect(),
        };
        new.retain(|path| !path.exists());
        let directories = root.ancestors().take_while(|above| !above.as_os_str().is_empty());
        let above = directories
            .filter(|above| !above.exists())
            .map(Path::to_path_buf)
            .collect();
        let begun = Begun {
            root: root.to_path_buf(),
            new,
            above,
        };
        Ok((Self::create(root)?, begun))
    }

    /// Becomes the one writer.
    ///
    /// # Errors
    /// When another process is.
    pub fn lock(&self) -> Result<durable::Lock> {
        durable::Lock::take(&self.root)
            .with_context(|| format!("cannot write to the repository {}", self.root.display()))
    }

    /// Its directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The place of a metadata file.
    #[must_use]
    pub fn metadata(&self, name: &str) -> PathBuf {
        self.root.join("metadata").join(name)
    }

    /// The place of a target's file, by its path with the digest in it.
    #[must_use]
    pub fn target(&self, path: &str) -> PathBuf {
        self.root.join("targets").join(path)
    }

    /// The repository as a source for the TUF client.
    #[must_use]
    pub fn source(&self) -> DirectorySource {
        DirectorySource::below(&self.root)
    }

    /// What is in it, as bases of deltas.
    #[must_use]
    pub fn holdings(&self) -> Box<dyn Bases> {
        Box::new(Holdings(self.source()))
    }

    /// The directory of the site's repository, where its officers approve.
    #[must_use]
    pub fn site(&self) -> PathBuf {
        self.root.join(SITE)
    }

    /// The place of the vendor's metadata file as it was approved.
    #[must_use]
    pub fn approved(&self, name: &str) -> PathBuf {
        self.site().join(VENDOR).join(name)
    }

    /// Writes such a file durably.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_approved(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.approved(name);
        let what = || format!("cannot write {}", path.display());
        fs::create_dir_all(self.site().join(VENDOR)).with_context(what)?;
        durable::write(&path, bytes).with_context(what)
    }

    /// Whether a site's officers approve here.
    #[must_use]
    pub fn is_approved(&self) -> bool {
        self.site().join("metadata/timestamp.json").exists()
    }

    /// The oldest root of the site's repository, as [`Repository::own_root`].
    ///
    /// # Errors
    /// When there is none.
    pub fn own_site_root(&self) -> Result<Vec<u8>> {
        let path = self.site().join("metadata/1.root.json");
        digest::read_bounded(&path, LARGEST_ROOT).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Whether something was published here.
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.metadata("timestamp.json").exists()
    }

    /// The oldest root that is here: it shows that a repository agrees with itself, and nothing about who made it.
    ///
    /// # Errors
    /// When there is none.
    pub fn own_root(&self) -> Result<Vec<u8>> {
        let path = self.metadata("1.root.json");
        digest::read_bounded(&path, LARGEST_ROOT).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Verifies all metadata from the given root on, whatever the date: expiry is judged by the caller.
    ///
    /// # Errors
    /// When it does not verify or cannot be read.
    pub fn read(&self, root: &[u8]) -> Result<Reading> {
        self.read_within(root, Limits::default())
    }

    /// As [`Repository::read`], for whoever publishes next: after a root that replaced the keys of timestamp or snapshot, and
    /// before anything was published under it, this reads what was published last.
    ///
    /// # Errors
    /// As [`Repository::read`].
    pub fn read_to_publish(&self, root: &[u8]) -> Result<Reading> {
        self.read_within(root, limits_to_publish(&self.root, root)?)
    }

    fn read_within(&self, root: &[u8], limits: Limits) -> Result<Reading> {
        read(&mut self.source(), root, limits, &|path| self.target(path).is_file())
            .with_context(|| format!("cannot use the repository {}", self.root.display()))
    }

    /// Writes a metadata file durably.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_metadata(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.metadata(name);
        durable::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes metadata that were verified, the timestamp last; the signature beside the one before goes.
    ///
    /// # Errors
    /// When a write fails.
    pub(crate) fn take_metadata(&self, files: &[(String, Vec<u8>)], trail: &Trail) -> Result<()> {
        for (name, bytes) in files {
            self.write_metadata(name, bytes)?;
        }
        let metadata = self.root().join("metadata");
        trail
            .newest("timestamp")
            .map_or(Ok(()), |file| beside::forget_replaced(&metadata, file.version))
            .with_context(|| format!("cannot clear {}", metadata.display()))
    }

    /// Puts a target's file in its place: `give` writes the content, which must have this digest and length. A file that
    /// stands there already and is right stays.
    ///
    /// # Errors
    /// [`Refused`] in the chain when the content is another; the place then stays as it was.
    pub fn put_target(
        &self,
        path: &str,
        sha256: Sha256,
        size: u64,
        give: impl FnOnce(&mut dyn std::io::Write) -> Result<()>,
    ) -> Result<()> {
        let place = self.target(path);
        if Sha256::of_file(&place).is_ok_and(|found| found == (sha256, size)) {
            return Ok(());
        }
        let write = || format!("cannot write {}", place.display());
        durable::make_directories(place.parent().unwrap_or(&self.root)).with_context(write)?;
        let mut writer = digest::Hashing::new(durable::Writer::new(&place, 0o644).with_context(write)?);
        give(&mut writer)?;
        let (writer, (found, length)) = writer.finish();
        if (found, length) != (sha256, size) {
            return Err(anyhow!(Refused(format!(
                "{path} has {length} bytes with digest {found}, and should have {size} bytes with digest {sha256}"
            ))));
        }
        writer.commit().with_context(write)
    }

    /// Puts a target in its place that was verified elsewhere on the same file system.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub(crate) fn adopt(&self, path: &str, from: &Path) -> Result<()> {
        let place = self.target(path);
        let directory = place.parent().unwrap_or(&self.root);
        let moved = || -> std::io::Result<()> {
            durable::make_directories(directory)?;
            fs::rename(from, &place)?;
            durable::sync_directory(directory)
        };
        moved().with_context(|| format!("cannot move {} to {}", from.display(), place.display()))
    }
}

/// Verifies all metadata of a source from the given root on, whatever the date.
///
/// # Errors
/// When it does not verify or cannot be read.
pub fn read(source: &mut dyn Source, root: &[u8], limits: Limits, present: &dyn Fn(&str) -> bool) -> Result<Reading> {
    // At the beginning of time nothing has expired.
    let mut client = Client::open(Datastore::ephemeral(root)?, source, limits, DateTime::UNIX_EPOCH)?;
    client.refresh()?;
    let targets = client.targets()?;
    let releases = releases(&targets, &|target| present(&client.path(target)))?;
    Ok(Reading {
        targets,
        releases,
        trail: client.trail().clone(),
    })
}
