// SPDX-License-Identifier: GPL-3.0-or-later
//! What a repository is asked about by people and by their monitoring. What cannot be read is named, and hides nothing else.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use serde::Serialize;
use signing::digest::Sha256;
use signing::output;
use signing::release::Version;
use signing::tuf::DirectorySource;
use signing::tuf::approval::Approval;
use signing::tuf::{Trail, VerifiedTarget};

use crate::archive;
use crate::import::DATASTORE;
use crate::receipts::{self, Enrolled};
use crate::repository::{Published, Repository};

/// The roots that were pinned. Where none was, the repository's own only shows that it agrees with itself.
#[derive(Debug, Clone, Default)]
pub struct Pinned {
    /// The vendor's.
    pub vendor: Option<Vec<u8>>,
    /// The site's, where its officers approve.
    pub site: Option<Vec<u8>>,
}

/// What is known of a repository.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// The program's version.
    pub program: &'static str,
    /// When it was looked at.
    pub at: DateTime<Utc>,
    /// Whether the metadata were verified from pinned roots.
    pub metadata_verified: bool,
    /// The releases, the newest first.
    pub releases: Vec<ReleaseFacts>,
    /// The metadata that are the newest of each role.
    pub metadata: Vec<RoleFacts>,
    /// What hosts and gateways acknowledged last.
    pub holders: Vec<Enrolled>,
    /// The archive for apt.
    pub apt: Option<archive::Found>,
    /// What came last.
    pub newest: Option<Newest>,
    /// The file system that the repository is on.
    pub disk: Option<Disk>,
    /// What could not be read, or does not verify.
    pub problems: Vec<String>,
}

/// A release.
#[derive(Debug, Clone, Serialize)]
pub struct ReleaseFacts {
    /// Its version.
    pub version: Version,
    /// Its channel.
    pub channel: String,
    /// The verity root hash.
    pub root_hash: Sha256,
    /// The size of its parts in bytes.
    pub bytes: u64,
    /// Whether all of its parts are here; their contents are not read.
    pub whole: bool,
    /// When the site's officers approved it.
    pub approved: Option<DateTime<Utc>>,
}

/// A role's metadata.
#[derive(Debug, Clone, Serialize)]
pub struct RoleFacts {
    /// `vendor` or `site`.
    pub of: &'static str,
    /// The role.
    pub role: String,
    /// The version.
    pub version: u64,
    /// When it expires.
    pub expires: DateTime<Utc>,
    /// Whether it has.
    pub expired: bool,
}

/// What came last.
#[derive(Debug, Clone, Serialize)]
pub struct Newest {
    /// `import` at a gateway, `publication` at a publisher.
    pub what: &'static str,
    /// When.
    pub at: DateTime<Utc>,
}

/// A file system.
#[derive(Debug, Clone, Serialize)]
pub struct Disk {
    /// Bytes that the repository may still fill.
    pub free: u64,
    /// Bytes in all.
    pub size: u64,
}

impl Facts {
    /// Looks at the repository in a directory.
    #[must_use]
    pub fn gather(directory: &Path, pinned: &Pinned, now: DateTime<Utc>) -> Self {
        let mut facts = Self {
            program: env!("CARGO_PKG_VERSION"),
            at: now,
            metadata_verified: false,
            releases: Vec::new(),
            metadata: Vec::new(),
            holders: Vec::new(),
            apt: None,
            newest: None,
            disk: None,
            problems: Vec::new(),
        };
        match Repository::open(directory) {
            Ok(repository) => facts.look(&repository, pinned),
            Err(error) => facts.problems.push(output::chain(&error)),
        }
        facts
    }

    fn look(&mut self, repository: &Repository, pinned: &Pinned) {
        let mut problems = Vec::new();
        let mut note = |error: anyhow::Error| problems.push(output::chain(&error));
        // The site's word comes first: a release is told with its approval.
        let approvals = self.site(repository, pinned).map_err(&mut note).unwrap_or_default();
        if let Err(error) = self.vendor(repository, pinned, &approvals) {
            note(error);
        }
        match receipts::inventory(repository).context("cannot read the receipts") {
            Ok(holders) => self.holders = holders,
            Err(error) => note(error),
        }
        match archive::look(repository.root(), self.at).context("cannot read the archive for apt") {
            Ok(archive) => self.apt = archive,
            Err(error) => note(error),
        }
        match newest(repository) {
            Ok(newest) => self.newest = newest,
            Err(error) => note(error),
        }
        match disk(repository.root()) {
            Ok(disk) => self.disk = Some(disk),
            Err(error) => note(error),
        }
        let pinned = pinned.vendor.is_some() && (pinned.site.is_some() || !repository.is_approved());
        self.metadata_verified = pinned && !self.metadata.is_empty() && problems.is_empty();
        let suites = self
            .apt
            .iter_mut()
            .flat_map(|archive| std::mem::take(&mut archive.problems));
        problems.extend(suites);
        self.problems = problems;
    }

    /// Gives the targets that the site approves, and when it did.
    fn site(&mut self, repository: &Repository, pinned: &Pinned) -> Result<BTreeMap<(String, Sha256), DateTime<Utc>>> {
        if !repository.is_approved() {
            return Ok(BTreeMap::new());
        }
        let root = pinned.site.clone().map_or_else(|| repository.own_site_root(), Ok)?;
        let (client, targets) = receipts::follow(DirectorySource::below(&repository.site()), &root)
            .context("cannot use the site's approvals")?;
        self.roles("site", client.trail());
        let approved = |target: VerifiedTarget| {
            let (approval, _) = Approval::take(&target.custom?).ok()?;
            Some(((target.name, target.sha256), approval.at))
        };
        Ok(targets.into_iter().filter_map(approved).collect())
    }

    fn vendor(
        &mut self,
        repository: &Repository,
        pinned: &Pinned,
        approvals: &BTreeMap<(String, Sha256), DateTime<Utc>>,
    ) -> Result<()> {
        let root = pinned.vendor.clone().map_or_else(|| repository.own_root(), Ok)?;
        let reading = repository.read(&root)?;
        self.roles("vendor", &reading.trail);
        let approved = |release: &Published| {
            let at = |target: &str, sha256| approvals.get(&(target.to_owned(), sha256)).copied();
            let parts = release.parts.iter().map(|part| at(&part.target, part.sha256));
            // A release goes as a whole.
            parts.collect::<Option<Vec<_>>>()?.into_iter().max()
        };
        self.releases = reading
            .releases
            .iter()
            .map(|release| ReleaseFacts {
                version: release.version,
                channel: release.channel.clone(),
                root_hash: release.root_hash,
                bytes: release.size(),
                whole: release.complete(),
                approved: approved(release),
            })
            .collect();
        self.releases.sort_by_key(|release| Reverse(release.version));
        Ok(())
    }

    fn roles(&mut self, of: &'static str, trail: &Trail) {
        let now = self.at;
        let mut newest: BTreeMap<&str, RoleFacts> = BTreeMap::new();
        for file in &trail.files {
            let facts = RoleFacts {
                of,
                role: file.role.clone(),
                version: file.version,
                expires: file.expires,
                expired: file.expires <= now,
            };
            // Of a chain of roots only the last one counts.
            newest.insert(&file.role, facts);
        }
        self.metadata.extend(newest.into_values());
    }
}

/// The timestamp is written last, by every import and by every publication.
fn newest(repository: &Repository) -> Result<Option<Newest>> {
    if !repository.is_published() {
        return Ok(None);
    }
    let path = repository.metadata("timestamp.json");
    let written = fs::metadata(&path).and_then(|data| data.modified());
    Ok(Some(Newest {
        what: match repository.root().join(DATASTORE).is_dir() {
            true => "import",
            false => "publication",
        },
        at: written
            .with_context(|| format!("cannot look at {}", path.display()))?
            .into(),
    }))
}

fn disk(place: &Path) -> Result<Disk> {
    let stat = nix::sys::statvfs::statvfs(place)
        .with_context(|| format!("cannot ask for the file system of {}", place.display()))?;
    let blocks = |count: u64| count.saturating_mul(stat.fragment_size());
    Ok(Disk {
        free: blocks(stat.blocks_available()),
        size: blocks(stat.blocks()),
    })
}
