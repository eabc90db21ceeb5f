// SPDX-License-Identifier: GPL-3.0-or-later
//! `import`: from a bundle that somebody carried to the repository of a gateway. Nothing is read before it is verified,
//! and anything doubtful is refused with its reason.
//!
//! Beyond what TUF refuses (see [`signing::tuf::client`]) and the bundle's reader (see [`crate::bundle`]): a root without
//! the site's OpenPGP signature; a bundle without any root; a target in the bundle that no role vouches for; a release that the
//! bundle promises and does not hold, or holds and does not name; a boot image that the site's hosts would not start; metadata older than what the repository serves. The gateway remembers what it trusted in `REPO/datastore`, so an older bundle is refused.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use chrono::{DateTime, Utc};
use serde::Serialize;
use signing::digest::Sha256;
use signing::openpgp;
use signing::output::Refused;
use signing::release::{Custom, MAX_BOOT_IMAGE, Version};
use signing::site::Trust;
use signing::tuf::{Client, Datastore, DirectorySource, Limits, Source, TufError, VerifiedTarget};

use crate::bundle::BundleSource;
use crate::repository::{LARGEST_ROOT, Repository, releases};
use crate::store::sweep;

/// Where a gateway remembers what it trusted.
const DATASTORE: &str = "datastore";

/// What was imported.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The releases that the bundle carried, now whole in the repository.
    pub releases: Vec<Version>,
    /// Those of them that were not there before.
    pub new: Vec<Version>,
    /// Bytes of the targets that were verified and written.
    pub bytes: u64,
    /// The version of the timestamp that is trusted now.
    pub timestamp: u64,
}

/// Whether to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Take the bundle in.
    Write,
    /// Verify all of it and write nothing.
    DryRun,
}

/// Imports. `tell` is called with bytes verified and bytes in all.
///
/// # Errors
/// [`Refused`] or a refusal of the TUF client in the chain when the bundle is doubtful; else when something could not be
/// done. Readers of the repository see the new release when all of it is there, or not at all.
pub fn import(
    bundle: &Path,
    repository: &Repository,
    trust: &Trust,
    clock: DateTime<Utc>,
    mode: Mode,
    tell: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    let mut source = BundleSource::open(bundle)?;
    let _lock = repository.lock()?;
    sweep(&repository.root().join("metadata"))?;
    sweep(&repository.root().join("targets"))?;
    let place = repository.root().join(DATASTORE);
    // Nothing is remembered before the site's OpenPGP key has vouched for the roots: a trust directory given by mistake
    // would pin its root for good.
    let (rehearsal, _) = Datastore::rehearse(&place, &trust.root()?)?;
    let now = rehearsal.effective_now(clock, None)?;
    check_roots(&mut source, trust, now)?;
    let datastore = match mode {
        // A gateway's first import begins with the pinned root, so that is nothing to speak of here.
        Mode::Write => Datastore::open_or_create(&place, &trust.root()?)?.0,
        // A rehearsal must not teach the gateway anything.
        Mode::DryRun => rehearsal,
    };
    let carried = source.target_paths();
    let promised = source.manifest().releases.clone();

    let mut client = Client::open(datastore, &mut source, Limits::default(), now)?;
    client.refresh()?;
    not_older(repository, trust, client.source(), now)?;
    let targets = client.targets()?;
    let paths: BTreeSet<String> = targets.iter().map(|target| client.path(target)).collect();
    if let Some(stray) = carried.iter().find(|path| !paths.contains(*path)) {
        return Err(anyhow!(Refused(format!(
            "the bundle carries {stray}, which no role vouches for"
        ))));
    }
    let held = |path: &str| repository.target(path).is_file();
    let before = releases(&targets, &|target| held(&client.path(target)))?;
    let after = releases(&targets, &|target| {
        let path = client.path(target);
        carried.contains(&path) || held(&path)
    })?;
    let carries: Vec<Version> = releases(&targets, &|target| carried.contains(&client.path(target)))?
        .iter()
        .filter(|release| release.parts.iter().any(|part| part.present))
        .map(|release| release.version)
        .collect();
    if let Some(version) = carries.iter().find(|version| !promised.contains(version)) {
        return Err(anyhow!(Refused(format!(
            "the bundle carries release {version}, which its list does not name"
        ))));
    }
    for version in &promised {
        if !after
            .iter()
            .any(|release| release.version == *version && release.complete())
        {
            return Err(anyhow!(Refused(format!(
                "the bundle promises release {version}, which is not whole in it, or not signed"
            ))));
        }
    }

    let wanted: Vec<_> = targets
        .iter()
        .filter(|target| carried.contains(&client.path(target)))
        .collect();
    for target in &wanted {
        check_boot_image(&mut client, target, trust).with_context(|| format!("cannot import {}", target.name))?;
    }
    let total: u64 = wanted.iter().map(|target| target.length).sum();
    let mut done = 0;
    for target in wanted {
        let path = client.path(target);
        match mode {
            Mode::Write => {
                repository.put_target(&path, target.sha256, target.length, |to| Ok(client.fetch(target, to)?))
            }
            Mode::DryRun => client.fetch(target, &mut io::sink()).map_err(Into::into),
        }
        .with_context(|| format!("cannot import {}", target.name))?;
        done += target.length;
        tell(done, total);
    }

    let trail = client.trail().clone();
    drop(client);
    let mut metadata = Vec::new();
    for file in &trail.files {
        let bytes = match source.metadata(&file.file, file.length)? {
            Some(bytes) if Sha256::of(&bytes) == file.sha256 => bytes,
            // The root from which trust starts need not be carried again.
            None if file.role == "root" => continue,
            _ => return Err(anyhow!(Refused(format!("{} changed while it was read", file.file)))),
        };
        if file.role == "root" {
            let name = format!("{}.asc", file.file);
            metadata.extend(source.metadata(&name, LARGEST_ROOT)?.map(|signature| (name, signature)));
        }
        metadata.push((file.file.clone(), bytes));
    }
    // Whoever reads the repository starts at the timestamp: it comes last.
    metadata.sort_by_key(|(name, _)| name == "timestamp.json");
    if mode == Mode::Write {
        for (name, bytes) in &metadata {
            repository.write_metadata(name, bytes)?;
        }
    }
    let whole = |list: &[crate::repository::Published], version: &Version| {
        list.iter()
            .any(|release| release.version == *version && release.complete())
    };
    Ok(Summary {
        new: promised
            .iter()
            .filter(|version| !whole(&before, version))
            .copied()
            .collect(),
        releases: promised,
        bytes: total,
        timestamp: trail
            .files
            .iter()
            .rev()
            .find(|file| file.role == "timestamp")
            .map_or(0, |file| file.version),
    })
}

/// A boot image must be one that the site's hosts would start, before anything of its release is written.
fn check_boot_image<S: Source>(client: &mut Client<S>, target: &VerifiedTarget, trust: &Trust) -> Result<()> {
    // A target that is no part of a release was refused with the list of releases.
    let Some(custom) = target.custom.clone() else {
        return Ok(());
    };
    let custom: Custom = serde_json::from_value(custom)?;
    if custom.part.command_line().is_none() {
        return Ok(());
    }
    if target.length > MAX_BOOT_IMAGE {
        return Err(anyhow!(Refused(format!(
            "it has {} bytes, and no host takes a boot image of more than {MAX_BOOT_IMAGE}",
            target.length
        ))));
    }
    let mut image = Vec::with_capacity(usize::try_from(target.length)?);
    client.fetch(target, &mut image)?;
    trust.check_boot_image(custom.part, &image, &custom.root_hash)
}

/// What the repository serves already must not become older, even where its memory was lost or somebody else wrote it: it is
/// followed as if it were the memory. So a root that replaces stolen keys also undoes what they signed (5.3.11).
fn not_older(repository: &Repository, trust: &Trust, bundle: &mut BundleSource, now: DateTime<Utc>) -> Result<()> {
    let served = DirectorySource::below(repository.root());
    let memory = Datastore::ephemeral(&trust.root()?)?;
    // At the beginning of time nothing has expired.
    let mut client = Client::open(memory, served, Limits::default(), DateTime::UNIX_EPOCH)?;
    match client.refresh() {
        // What does not verify is no version that anybody could have taken; what was verified before it is held on to.
        Err(error) if !error.is_refusal() => return Err(error.into()),
        _ => {}
    }
    let mut client = Client::open(client.into_datastore(), bundle, Limits::default(), now)?;
    client.refresh().with_context(|| {
        let place = repository.root().display();
        format!("the repository {place} serves something else")
    })
}

/// Every root that is carried has the site's OpenPGP signature, before any of them may be trusted.
fn check_roots(source: &mut BundleSource, trust: &Trust, now: DateTime<Utc>) -> Result<()> {
    let names: Vec<String> = source
        .metadata_names()
        .filter(|name| name.ends_with(".root.json"))
        .map(str::to_owned)
        .collect();
    if names.is_empty() {
        return Err(anyhow!(Refused(
            "the bundle carries no root, so nothing ties it to the trust directory".into()
        )));
    }
    for name in names {
        let missing = || anyhow!(Refused(format!("{name} has no OpenPGP signature of the site")));
        let mut read = |name: &str| source.metadata(name, LARGEST_ROOT).map_err(TufError::from);
        let root = read(&name)?.ok_or_else(missing)?;
        let signature = read(&format!("{name}.asc"))?.ok_or_else(missing)?;
        openpgp::verify_detached(&trust.release_keyring(), root.as_slice(), &signature, now)
            .with_context(|| format!("the OpenPGP signature of {name}"))?;
    }
    Ok(())
}
