// SPDX-License-Identifier: GPL-3.0-or-later
//! `publish`: from a build to signed targets. This is the first signature of the way: nothing leaves without it.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use chrono::{DateTime, Duration, Utc};
use serde::Serialize;
use signing::digest::{self, Sha256};
use signing::keys::Passphrase;
use signing::output::Refused;
use signing::release::{MAX_BOOT_IMAGE, Part, PartFile, Release, Version};
use signing::site::{Site, Trust};
use signing::tuf::author::TargetEntry;
use signing::tuf::client::consistent_path;

use crate::office;
use crate::repository::{Reading, Repository};
use crate::store::sweep;

/// The largest `release.json`.
const LARGEST_FACTS: u64 = 1 << 20;

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
    /// How many OpenPGP certificates must sign it; the release key's is one.
    pub certificates: u64,
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
    let trust = Trust::open(&options.site.trust_dir())?;
    let root = trust.root()?;
    let before = match repository.is_published() {
        true => Some(
            repository
                .read_to_publish(&root)
                .context("the repository is not this site's")?,
        ),
        false => None,
    };
    let build = match options.build {
        Some(directory) => Some((directory, read_build(directory, &trust)?)),
        None => None,
    };
    let roots = office::site_roots(options.site, &trust, options.now)?;
    // A root was added and nothing published under it: clients go no further until something is.
    let interrupted = before.as_ref().and_then(|reading| reading.role("root"));
    let interrupted =
        interrupted.is_some_and(|(version, _)| repository.metadata(&format!("{}.root.json", version + 1)).exists());
    let timestamp = before.as_ref().and_then(|reading| reading.role("timestamp"));
    let mut summary = Summary {
        version: build.as_ref().map(|(_, facts)| facts.version),
        changed: true,
        bytes: build
            .as_ref()
            .map_or(0, |(_, facts)| facts.parts.iter().map(|part| part.size).sum()),
        expires: options.expires.unwrap_or(options.now + Duration::days(365)),
        timestamp: timestamp.map_or(0, |(version, _)| version) + 1,
        certificates: office::certificates(&roots)?,
    };
    if let (Some((_, facts)), Some(before), Some((version, expires))) = (&build, &before, timestamp)
        && is_published(facts, before)?
        && options.expires.is_none()
        && !interrupted
    {
        return Ok(Summary {
            changed: false,
            timestamp: version,
            expires,
            ..summary
        });
    }
    if build.is_none() && before.is_none() {
        bail!(
            "{} is empty, so there is nothing to renew: name a build with --release",
            repository.root().display()
        );
    }
    if options.mode == Mode::DryRun {
        if let Some((directory, facts)) = &build {
            each_part(directory, facts, tell, check_part)?;
        }
        return Ok(summary);
    }
    summary.timestamp = sign(
        repository,
        options,
        &root,
        &roots,
        build.as_ref(),
        summary.expires,
        tell,
    )?;
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

/// Reads a build's facts, and verifies its boot images as the site's hosts will. All parts are compared with the facts while
/// they are copied, the boot images here too, so that what is copied is what was verified.
fn read_build(directory: &Path, trust: &Trust) -> Result<Release> {
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
    for part in facts.parts.iter().filter(|part| part.part.command_line().is_some()) {
        let file = directory.join(part.part.file());
        if part.size > MAX_BOOT_IMAGE {
            return Err(anyhow!(Refused(format!(
                "{} has {} bytes, and no host takes a boot image of more than {MAX_BOOT_IMAGE}",
                file.display(),
                part.size
            ))));
        }
        let image =
            digest::read_bounded(&file, part.size).with_context(|| format!("cannot read {}", file.display()))?;
        if Sha256::of(&image) != part.sha256 {
            return Err(other_content(&file));
        }
        trust
            .check_boot_image(part.part, &image, &facts.root_hash)
            .with_context(|| format!("cannot take {}", file.display()))?;
    }
    Ok(facts)
}

fn other_content(file: &Path) -> anyhow::Error {
    anyhow!(Refused(format!(
        "{} is not what release.json says: the build was altered, so build again",
        file.display()
    )))
}

/// Works on every part, and tells how far it is.
fn each_part(
    build: &Path,
    facts: &Release,
    tell: &mut dyn FnMut(u64, u64),
    work: impl Fn(&PartFile, &Path) -> Result<()>,
) -> Result<()> {
    let total = facts.parts.iter().map(|part| part.size).sum();
    let mut done = 0;
    for part in &facts.parts {
        tell(done, total);
        work(part, &build.join(part.part.file()))?;
        done += part.size;
    }
    tell(done, total);
    Ok(())
}

fn check_part(part: &PartFile, file: &Path) -> Result<()> {
    let found = Sha256::of_file(file).with_context(|| format!("cannot read {}", file.display()))?;
    if found == (part.sha256, part.size) {
        return Ok(());
    }
    Err(other_content(file))
}

fn copy_part(repository: &Repository, facts: &Release, part: &PartFile, from: &Path) -> Result<()> {
    let path = consistent_path(&part.part.target(facts.version), &part.sha256.to_string());
    repository.put_target(&path, part.sha256, part.size, |to| {
        let mut file = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
        digest::copy(&mut file, to).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok(())
    })
}

/// Copies the parts and signs; gives the version of the timestamp.
fn sign(
    repository: &Repository,
    options: &Options<'_>,
    pinned: &[u8],
    roots: &[office::SiteRoot],
    build: Option<&(&Path, Release)>,
    expires: DateTime<Utc>,
    tell: &mut dyn FnMut(u64, u64),
) -> Result<u64> {
    let mut editor = office::open(repository, pinned, roots)?;
    sweep(&repository.root().join("metadata"))?;
    sweep(&repository.root().join("targets"))?;
    if let Some((directory, facts)) = build {
        each_part(directory, facts, tell, |part, from| {
            copy_part(repository, facts, part, from)
        })?;
        for part in &facts.parts {
            let (name, entry) = (part.part.target(facts.version), target(facts, part)?);
            // Judged before without the lock; a version must not change its content in between.
            if editor.targets().get(&name).is_some_and(|there| *there != entry) {
                return Err(anyhow!(Refused(format!("{name} is published with another content"))));
            }
            editor.put(&name, entry)?;
        }
    }
    // Metadata that is born expired is asked for by who wants to see it refused.
    let signed_at = options.now.min(expires - Duration::days(1));
    let site = options.site;
    Ok(site
        .publish(&mut editor, options.passphrase, expires, signed_at)?
        .timestamp)
}

fn target(release: &Release, part: &PartFile) -> Result<TargetEntry> {
    let custom = serde_json::to_value(release.custom(part))?;
    Ok(TargetEntry {
        length: part.size,
        sha256: part.sha256,
        custom: custom.as_object().cloned(),
    })
}
