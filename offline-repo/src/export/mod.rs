// SPDX-License-Identifier: GPL-3.0-or-later
//! `export`: from a repository to a bundle, or to its volumes. Every target is verified against its signed digest while it is
//! compressed ([`pack`]), so what is not signed or was altered cannot be exported; where the receiver is known to hold a
//! release, what its parts differ in is carried ([`differ`]). Then it is laid out ([`plan`]), written, and read back from the
//! medium ([`write`]).

mod differ;
mod pack;
mod parts;
pub mod plan;
mod write;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use serde::Serialize;
use signing::digest::{self, Sha256};
use signing::release::Version;
use signing::tuf::beside;
use signing::tuf::trail::TrailFile;
use signing::tuf::{Datastore, DirectorySource, Limits, MultiClient, Stores, Trail, Trails, VerifiedTarget};

use self::differ::Known;
use self::pack::Work;
use self::parts::Packer;
use self::write::Metadata;
use crate::bundle::Packing;
use crate::repository::{Published, Repository, expires, kept, offer, releases};

pub use self::write::{Entry, LOGS, Log};

/// The compression level that pays for a stick: about 1/4 of the size at 50 MB/s a core.
pub const LEVEL: i32 = 9;

/// Which releases are carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The newest one.
    Newest,
    /// Those that are newer than this one.
    Since(Version),
    /// Those that are not among these.
    Lacking(Vec<Version>),
    /// Exactly these.
    Only(Vec<Version>),
}

/// What is exported, and how.
pub struct Order<'a> {
    /// Which releases.
    pub selection: Selection,
    /// The release that the receiver is known to hold, to which deltas are made.
    pub base: Option<Version>,
    /// zstd's level for what is carried whole.
    pub level: i32,
    /// The bundle's file; volumes have its name and their number behind it.
    pub out: &'a Path,
    /// Into how large volumes it is cut, if it is.
    pub volumes: Option<Volumes<'a>>,
}

impl<'a> Order<'a> {
    /// A bundle in one file.
    #[must_use]
    pub const fn whole(selection: Selection, level: i32, out: &'a Path) -> Self {
        Self {
            selection,
            base: None,
            level,
            out,
            volumes: None,
        }
    }
}

/// How a bundle is cut.
pub struct Volumes<'a> {
    /// The most bytes of a volume.
    pub size: u64,
    /// Which ones are written; all where it is empty.
    pub only: Vec<u32>,
    /// The first digits of the set that they must belong to.
    pub set: Option<String>,
    /// Signs a volume's list with an OpenPGP key that the receiver knows.
    pub sign: &'a dyn Fn(&[u8]) -> Result<String>,
}

/// What an export is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Verifying and compressing what is carried, or comparing it with what the receiver holds.
    Compressing,
    /// Writing to the medium.
    Writing,
    /// Reading back from it.
    ReadingBack,
}

/// What was exported.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The releases.
    pub releases: Vec<Version>,
    /// The release to which deltas were made, which the receiver has to hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<Version>,
    /// Why everything is carried whole although the receiver is known to hold a release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_base: Option<String>,
    /// Bytes of their parts.
    pub bytes: u64,
    /// Bytes of the bundle, or of the volumes that were written.
    pub bundle_bytes: u64,
    /// When the first role of the carried metadata expires.
    pub expires: Option<DateTime<Utc>>,
    /// What all volumes of this export have in common.
    pub set: Sha256,
    /// How many volumes there are; one where the bundle is not cut.
    pub of: u32,
    /// The files, as they were read back from the medium.
    pub files: BTreeMap<u32, Entry>,
}

/// The roots from which a repository is verified: pinned ones, or its own where nobody pins one.
#[derive(Debug, Clone)]
pub struct Roots {
    /// The vendor's.
    pub vendor: Vec<u8>,
    /// The site's, where its officers approve in the repository.
    pub site: Option<Vec<u8>>,
}

impl Roots {
    /// Of a repository where nobody approves.
    #[must_use]
    pub const fn vendor(vendor: Vec<u8>) -> Self {
        Self { vendor, site: None }
    }
}

/// Exports. From a gateway whose officers approve, only approved releases are carried, with the vendor's metadata as of the
/// approval and the site's beside them. `tell` is called with bytes done and bytes in all of a phase.
///
/// # Errors
/// [`Refused`] in the chain when something is not as signed, or a medium gives back other bytes than were written; the place
/// of the bundle then stays as it was. What was done already is kept for the next run.
pub fn export(
    repository: &Repository,
    roots: &Roots,
    order: &Order<'_>,
    tell: &mut dyn FnMut(Phase, u64, u64),
) -> Result<Summary> {
    let (mut client, targets) = follow(repository, roots)?;
    let trails = client.trails();
    let client = client.vendor();
    let all = releases(&targets, &|target| repository.target(&client.path(target)).is_file())?;
    let chosen = choose(&all, &order.selection)?;
    let versions: Vec<Version> = chosen.iter().map(|release| release.version).collect();
    let total: u64 = chosen.iter().map(|release| release.size()).sum();
    let (metadata, expires) = metadata(repository, &trails)?;
    let work = Work::open(repository.root())?;
    let path = |target: &VerifiedTarget| client.path(target);
    let (known, no_base) = match order.base.map(|base| Known::find(base, &all, &targets, &path)) {
        None => (None, None),
        Some(Ok(known)) => (Some(known), None),
        Some(Err(why)) => (None, Some(why)),
    };
    let base = known.as_ref().map(Known::version);
    let mut packing = Packer {
        repository,
        work: &work,
        targets: &targets,
        known,
        order,
        total,
        done: 0,
        tell,
    };
    let paths: BTreeMap<&str, String> = targets
        .iter()
        .map(|target| (target.name.as_str(), path(target)))
        .collect();
    let mut packed = Vec::new();
    for release in &chosen {
        packed.extend(packing.release(client, release, &paths)?);
    }
    let base = base.filter(|_| packed.iter().any(|packed| packed.packing == Packing::Delta));
    let volumes = write::volumes(&work, metadata, packed, &versions, order)?;
    let files = write::write(repository, &work, &volumes, order, tell)?;
    work.done()?;
    Ok(Summary {
        releases: versions,
        base,
        no_base,
        bytes: total,
        bundle_bytes: files.values().map(|entry| entry.size).sum(),
        expires,
        set: volumes.set,
        of: u32::try_from(volumes.all.len())?,
        files,
    })
}

/// The metadata that are carried, and when the first of them expires.
fn metadata(repository: &Repository, trails: &Trails) -> Result<(Metadata, Option<DateTime<Utc>>)> {
    let approved = trails.site.is_some();
    let mut metadata = Metadata::default();
    for file in &trails.vendor.files {
        let place = |name: &str| match approved {
            false => repository.metadata(name),
            true if name == file.file => repository.approved(&kept(file)),
            true => repository.approved(name),
        };
        for name in with_signature(file) {
            let bytes = read(&place(&name))?;
            metadata.vendor.push((name, bytes));
        }
    }
    let expires = match &trails.site {
        None => expires(&trails.vendor),
        Some((trail, _)) => {
            for name in trail.files.iter().flat_map(with_signature) {
                let bytes = read(&repository.site().join("metadata").join(&name))?;
                metadata.site.push((name, bytes));
            }
            expires(trail)
        }
    };
    Ok((metadata, expires.map(|(_, expires)| expires)))
}

/// The releases that a selection names, each of them whole.
fn choose<'a>(releases: &'a [Published], selection: &Selection) -> Result<Vec<&'a Published>> {
    let known = || {
        let versions: Vec<_> = releases.iter().map(|release| release.version.to_string()).collect();
        if versions.is_empty() {
            "none".to_owned()
        } else {
            versions.join(", ")
        }
    };
    let chosen: Vec<&Published> = match selection {
        Selection::Newest => releases.last().into_iter().collect(),
        Selection::Since(base) => releases.iter().filter(|release| release.version > *base).collect(),
        Selection::Lacking(held) => {
            let all = releases.iter();
            all.filter(|release| !held.contains(&release.version)).collect()
        }
        Selection::Only(versions) => {
            let find = |version: &Version| {
                let found = releases.iter().find(|release| release.version == *version);
                found.with_context(|| format!("there is no release {version} (there are: {})", known()))
            };
            versions.iter().map(find).collect::<Result<_>>()?
        }
    };
    if chosen.is_empty() {
        bail!("there is no release to export (there are: {})", known());
    }
    if let Some(partial) = chosen.iter().find(|release| !release.complete()) {
        bail!(
            "release {} is not whole in this repository, so it cannot be exported",
            partial.version
        );
    }
    Ok(chosen)
}

/// Verifies what the repository offers, whatever the date.
fn follow(repository: &Repository, roots: &Roots) -> Result<(MultiClient<DirectorySource>, Vec<VerifiedTarget>)> {
    let what = || format!("cannot use the repository {}", repository.root().display());
    let vendor = Datastore::ephemeral(&roots.vendor).with_context(what)?;
    let stores = match &roots.site {
        None => Stores::Vendor(vendor),
        Some(site) => Stores::Both {
            vendor,
            site: Datastore::ephemeral(site).with_context(what)?,
        },
    };
    let offer = offer(repository.root());
    // At the beginning of time nothing has expired.
    let mut client = MultiClient::open(stores, offer, Limits::default(), DateTime::UNIX_EPOCH).with_context(what)?;
    client.refresh().with_context(what)?;
    let targets = client.targets().with_context(what)?;
    Ok((client, targets))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    digest::read_bounded(path, 64 << 20).with_context(|| format!("cannot read {}", path.display()))
}

/// The metadata files that a client needs, roots and the timestamp with their OpenPGP signatures, in a fixed order.
#[must_use]
pub fn metadata_names(trail: &Trail) -> Vec<String> {
    trail.files.iter().flat_map(with_signature).collect()
}

fn with_signature(file: &TrailFile) -> Vec<String> {
    let mut names = vec![file.file.clone()];
    names.extend(beside::signature_of(file));
    names
}
