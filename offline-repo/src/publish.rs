// SPDX-License-Identifier: GPL-3.0-or-later
//! `publish`: from a build to signed targets. This is the first signature of the way: nothing leaves without it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use chrono::{DateTime, Duration, Utc};
use serde::Serialize;
use signing::digest;
use signing::keys::Passphrase;
use signing::output::Refused;
use signing::release::{Custom, Part, Release, Version};
use signing::site::{Role, Site, Trust};
use signing::tuf::author::{self, Delegation, Header, KeySet, MetaEntry, Signer, TargetEntry};
use signing::tuf::client::consistent_path;

use crate::repository::{Reading, Repository};

/// The largest `release.json`.
const LARGEST_FACTS: u64 = 1 << 20;
/// How much longer the top-level targets role lives than what is signed with every release: its key stays away.
const TARGETS_LIVE_LONGER: Duration = Duration::days(365);

/// What happened.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The release that was published, unless signatures were only renewed.
    pub version: Option<Version>,
    /// Whether anything was signed.
    pub changed: bool,
    /// Bytes of the release's parts.
    pub bytes: u64,
    /// Until when what was signed is fresh.
    pub expires: DateTime<Utc>,
    /// The version of the timestamp.
    pub timestamp: u64,
}

/// What to publish.
pub struct Options<'a> {
    /// The site whose keys sign.
    pub site: &'a Site,
    /// Opens the keys.
    pub passphrase: &'a Passphrase,
    /// A build's directory; without one the signatures are renewed.
    pub build: Option<&'a Path>,
    /// When the signed metadata expires, where it is not a year from now.
    pub expires: Option<DateTime<Utc>>,
    /// The time now.
    pub now: DateTime<Utc>,
    /// Whether to write.
    pub mode: Mode,
}

/// Whether to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Copy, sign, write.
    Write,
    /// Check the build and the repository only; no key is opened.
    DryRun,
}

/// Publishes. `tell` is called with bytes copied and bytes in all.
///
/// # Errors
/// [`Refused`] in the chain when the build is not what it says, or the repository not what the site signed; else when
/// something could not be done. What readers of the repository see changes with the last write, or not at all.
pub fn publish(repository: &Repository, options: &Options<'_>, tell: &mut dyn FnMut(u64, u64)) -> Result<Summary> {
    let _lock = repository.lock()?;
    let trust = Trust::open(&options.site.trust_dir())?;
    let before = match repository.is_published() {
        true => Some(
            repository
                .read(&trust.root()?)
                .context("the repository is not this site's")?,
        ),
        false => None,
    };
    let build = options
        .build
        .map(|build| Ok::<_, anyhow::Error>((build, read_build(build)?)))
        .transpose()?;
    let expires = options.expires.unwrap_or(options.now + Duration::days(365));
    let bytes = build
        .as_ref()
        .map_or(0, |(_, facts)| facts.parts.iter().map(|part| part.size).sum());
    let timestamp = before
        .as_ref()
        .and_then(|reading| reading.role("timestamp"))
        .map_or(0, |(version, _)| version);
    let mut summary = Summary {
        version: build.as_ref().map(|(_, facts)| facts.version),
        changed: true,
        bytes,
        expires,
        timestamp: timestamp + 1,
    };
    if let Some((_, facts)) = &build
        && let Some(before) = &before
        && is_published(facts, before)?
        && options.expires.is_none()
    {
        summary.changed = false;
        summary.timestamp = timestamp;
        summary.expires = before.role("timestamp").map_or(expires, |(_, expires)| expires);
        return Ok(summary);
    }
    if build.is_none() && before.is_none() {
        bail!(
            "{} is empty, so there is nothing to renew: name a build with --release",
            repository.root().display()
        );
    }
    if options.mode == Mode::DryRun {
        return Ok(summary);
    }
    if let Some((directory, facts)) = &build {
        copy_parts(repository, directory, facts, tell)?;
    }
    copy_roots(repository, options.site)?;
    sign(
        repository,
        options,
        before.as_ref(),
        build.as_ref().map(|(_, facts)| facts),
        expires,
    )?;
    let after = repository
        .read(&trust.root()?)
        .context("what was written does not verify")?;
    ensure!(
        after.role("timestamp").map(|(version, _)| version) == Some(summary.timestamp),
        "the repository {} was changed by somebody else meanwhile",
        repository.root().display()
    );
    Ok(summary)
}

/// Whether the release is in the repository already, with the same content.
fn is_published(facts: &Release, before: &Reading) -> Result<bool> {
    let Some(published) = before.releases.iter().find(|release| release.version == facts.version) else {
        return Ok(false);
    };
    let same = published.root_hash == facts.root_hash
        && published.channel == facts.channel
        && facts.parts.iter().all(|part| {
            let mut parts = published.parts.iter();
            parts.any(|one| one.part == part.part && one.sha256 == part.sha256)
        });
    if same {
        return Ok(published.complete());
    }
    Err(anyhow!(Refused(format!(
        "release {} is published with another content: a version is given once, so build the next one",
        facts.version
    ))))
}

/// Reads a build's facts. The parts are compared while they are copied.
fn read_build(directory: &Path) -> Result<Release> {
    let path = directory.join("release.json");
    let bytes = digest::read_bounded(&path, LARGEST_FACTS)
        .with_context(|| format!("cannot read {}: is this a build's directory?", path.display()))?;
    let facts: Release = serde_json::from_slice(&bytes).with_context(|| format!("{} is malformed", path.display()))?;
    ensure!(
        facts.format == 1,
        "{} has format {}, this program reads format 1",
        path.display(),
        facts.format
    );
    let listed: Vec<Part> = facts.parts.iter().map(|part| part.part).collect();
    ensure!(
        listed == Part::ALL,
        "{} does not list every part once and in order: sign the build with `bastide-iso sign` first",
        path.display()
    );
    let name = crate::spec::is_name(&facts.channel);
    ensure!(
        name,
        "{}: the channel {:?} is no plain name",
        path.display(),
        facts.channel
    );
    for part in &facts.parts {
        let file = directory.join(part.part.file());
        let size = fs::metadata(&file)
            .with_context(|| format!("cannot read {}", file.display()))?
            .len();
        if size != part.size {
            return Err(anyhow!(Refused(format!(
                "{} has {size} bytes, release.json says {}: the build is not whole",
                file.display(),
                part.size
            ))));
        }
    }
    Ok(facts)
}

fn copy_parts(repository: &Repository, build: &Path, facts: &Release, tell: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let total = facts.parts.iter().map(|part| part.size).sum();
    let mut done = 0;
    for part in &facts.parts {
        tell(done, total);
        let from = build.join(part.part.file());
        let path = consistent_path(&part.part.target(facts.version), &part.sha256.to_string());
        repository.put_target(&path, part.sha256, part.size, |to| {
            let mut file = File::open(&from).with_context(|| format!("cannot read {}", from.display()))?;
            digest::copy(&mut file, to).with_context(|| format!("cannot copy {}", from.display()))?;
            Ok(())
        })?;
        done += part.size;
    }
    tell(done, total);
    Ok(())
}

/// Takes over the site's roots with their OpenPGP signatures. Root files are never changed once they are there.
fn copy_roots(repository: &Repository, site: &Site) -> Result<()> {
    let directory = site.metadata_dir();
    for version in 1.. {
        let name = format!("{version}.root.json");
        let path = directory.join(&name);
        if !path.exists() {
            ensure!(version > 1, "the site has no {}", path.display());
            return Ok(());
        }
        for name in [name.clone(), format!("{name}.asc")] {
            let path = directory.join(&name);
            let bytes = digest::read_bounded(&path, crate::repository::LARGEST_ROOT)
                .with_context(|| format!("cannot read {}", path.display()))?;
            if !fs::read(repository.metadata(&name)).is_ok_and(|there| there == bytes) {
                repository.write_metadata(&name, &bytes)?;
            }
        }
    }
    Ok(())
}

/// Signs what changed, from the releases to the timestamp, and writes the timestamp last.
fn sign(
    repository: &Repository,
    options: &Options<'_>,
    before: Option<&Reading>,
    release: Option<&Release>,
    expires: DateTime<Utc>,
) -> Result<()> {
    // Metadata that is born expired is asked for by who wants to see it refused.
    let signed_at = options.now.min(expires - Duration::days(1));
    let version = |role: &str| {
        before
            .and_then(|reading| reading.role(role))
            .map_or(0, |(version, _)| version)
    };
    let header = |role: &str, expires: DateTime<Utc>| Header {
        version: version(role) + 1,
        expires,
        signed_at,
    };
    let key = |role: Role| options.site.signer(role, options.passphrase);

    let host_key = key(Role::Host)?;
    let host_header = header("host", expires);
    let mut entries: BTreeMap<String, TargetEntry> = BTreeMap::new();
    for target in before.iter().flat_map(|reading| &reading.targets) {
        if target.role == "host" {
            let custom = target.custom.as_ref().and_then(serde_json::Value::as_object).cloned();
            let entry = TargetEntry {
                length: target.length,
                sha256: target.sha256,
                custom,
            };
            entries.insert(target.name.clone(), entry);
        }
    }
    for (name, entry) in release.map(targets_of).transpose()?.into_iter().flatten() {
        entries.insert(name, entry);
    }
    let host = author::targets(&host_header, &entries, &[], &[&host_key])?;

    let mut meta = BTreeMap::from([("host.json".to_owned(), MetaEntry::of(host_header.version, &host))]);
    let mut fresh_targets = None;
    match kept_targets(repository, before, &host_key, expires)? {
        Some(entry) => {
            meta.insert("targets.json".to_owned(), entry);
        }
        None => {
            let header = header("targets", expires + TARGETS_LIVE_LONGER);
            let delegation = Delegation {
                name: "host".to_owned(),
                keys: KeySet::single(host_key.public()),
                paths: vec!["host/*/*".to_owned()],
                terminating: true,
            };
            let bytes = author::targets(&header, &BTreeMap::new(), &[delegation], &[&key(Role::Targets)?])?;
            meta.insert("targets.json".to_owned(), MetaEntry::of(header.version, &bytes));
            fresh_targets = Some((header.version, bytes));
        }
    }
    let snapshot_header = header("snapshot", expires);
    let snapshot = author::snapshot(&snapshot_header, &meta, &[&key(Role::Snapshot)?])?;
    let entry = MetaEntry::of(snapshot_header.version, &snapshot);
    let timestamp = author::timestamp(&header("timestamp", expires), &entry, &[&key(Role::Timestamp)?])?;

    repository.write_metadata(&format!("{}.host.json", host_header.version), &host)?;
    if let Some((version, bytes)) = fresh_targets {
        repository.write_metadata(&format!("{version}.targets.json"), &bytes)?;
    }
    repository.write_metadata(&format!("{}.snapshot.json", snapshot_header.version), &snapshot)?;
    repository.write_metadata("timestamp.json", &timestamp)
}

/// The targets role as it stands, if it still delegates to the host key and lives long enough.
fn kept_targets(
    repository: &Repository,
    before: Option<&Reading>,
    host: &dyn Signer,
    expires: DateTime<Utc>,
) -> Result<Option<MetaEntry>> {
    let Some(before) = before else { return Ok(None) };
    let Some((version, lives_until)) = before.role("targets") else {
        return Ok(None);
    };
    let host = author::key_id(&host.public())?;
    let checks = before
        .trail
        .files
        .iter()
        .filter(|file| file.role == "host")
        .flat_map(|file| &file.checks);
    let same_key = checks.map(|check| &check.keys).any(|keys| *keys == [host.clone()]);
    if !same_key || lives_until < expires {
        return Ok(None);
    }
    let path = repository.metadata(&format!("{version}.targets.json"));
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some(MetaEntry::of(version, &bytes)))
}

fn targets_of(release: &Release) -> Result<Vec<(String, TargetEntry)>> {
    let entry = |part: &signing::release::PartFile| {
        let custom = serde_json::to_value(Custom {
            version: release.version,
            channel: release.channel.clone(),
            part: part.part,
            root_hash: release.root_hash,
            size: part.size,
        })?;
        let entry = TargetEntry {
            length: part.size,
            sha256: part.sha256,
            custom: custom.as_object().cloned(),
        };
        Ok((part.part.target(release.version), entry))
    };
    release.parts.iter().map(entry).collect()
}
