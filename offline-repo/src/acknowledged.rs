// SPDX-License-Identifier: GPL-3.0-or-later
//! Which published releases are still needed, by the receipts of those who are enrolled in a repository: for `prune`.
//!
//! A release goes when everybody has gone past it and nobody acknowledges it any more. Whoever fell silent is named, and his
//! last word counts as ever. Which packages a release was built from is read from its own signed `upstream.tar`, and not from
//! a snapshot that has the same name by chance.

use std::collections::BTreeMap;
use std::fs::File;

use anyhow::{Context, Result, anyhow};
use chrono::{DateTime, Duration, Utc};
use serde::Serialize;
use signing::digest::{Sha256, read_to_limit};
use signing::output::{self, Refused};
use signing::receipt::{Holder, Receipt};
use signing::release::{Part, Version};
use signing::tuf::{Client, DirectorySource, VerifiedTarget};

use crate::receipts::{self, Enrolled, Name};
use crate::repository::{Published, Repository, releases};
use crate::snapshot::{self, Snapshot};
use crate::tarindex::TarIndex;

/// What receipts say of the releases of a repository.
#[derive(Debug, Clone, Serialize)]
pub struct Acknowledged {
    /// Every published release, by its version.
    pub releases: BTreeMap<Version, Fate>,
    /// Who is enrolled and has given no receipt for too long.
    pub silent: Vec<Silent>,
    /// What somebody acknowledges and this repository does not name: no bundle can begin with it.
    pub unnamed: BTreeMap<Version, Vec<Name>>,
}

/// Whether a release stays.
#[derive(Debug, Clone, Serialize)]
pub struct Fate {
    /// The snapshot that it was built from; nothing where it goes and that cannot be read.
    pub snapshot: Option<String>,
    /// Why it stays; it goes where nothing is here.
    pub because: Vec<String>,
    #[serde(skip)]
    pub(crate) objects: Vec<Sha256>,
}

/// Somebody of whom nothing was heard.
#[derive(Debug, Clone, Serialize)]
pub struct Silent {
    /// Who.
    pub name: Name,
    /// When the newest receipt was given, by its giver's clock; nothing where there is none.
    pub last: Option<DateTime<Utc>>,
}

/// Judges every release that a repository publishes. `root` is the vendor's pinned root; whoever gave no receipt since `since` is
/// silent.
///
/// # Errors
/// [`Refused`] in the chain when a receipt or a release that stays is not what was signed; else when it cannot be read.
pub fn judge(repository: &Repository, root: &[u8], since: DateTime<Utc>) -> Result<Acknowledged> {
    let enrolled = receipts::inventory(repository)?;
    let (mut client, targets) = receipts::follow(repository.source(), root)
        .with_context(|| format!("cannot use the repository {}", repository.root().display()))?;
    let published = releases(&targets, &|target| repository.target(&client.path(target)).is_file())?;
    let newest = published.iter().map(|release| release.version).max();
    let mut fates = BTreeMap::new();
    for release in &published {
        let mut because: Vec<String> = enrolled
            .iter()
            .filter_map(|holder| needs(holder, release.version))
            .collect();
        if newest == Some(release.version) {
            because.push("it is the newest".to_owned());
        }
        if enrolled.is_empty() {
            because.push("nobody is enrolled".to_owned());
        }
        let manifest = match built_from(&mut client, &targets, release) {
            Ok(manifest) => Some(manifest),
            Err(_) if because.is_empty() => None,
            Err(error) => {
                return Err(anyhow!(Refused(format!(
                    "{}; which objects release {} needs is not known",
                    output::chain(&error),
                    release.version
                ))));
            }
        };
        let needed = manifest.as_ref().filter(|_| !because.is_empty());
        let objects = needed.map(|manifest| manifest.objects().map(|(digest, _)| digest).collect());
        let fate = Fate {
            objects: objects.unwrap_or_default(),
            snapshot: manifest.map(|manifest| manifest.name),
            because,
        };
        fates.insert(release.version, fate);
    }
    let mut unnamed: BTreeMap<Version, Vec<Name>> = BTreeMap::new();
    for holder in &enrolled {
        let told = holder.newest.iter().flat_map(versions);
        for (version, _) in told.filter(|(version, _)| !fates.contains_key(version)) {
            unnamed.entry(version).or_default().push(holder.name.clone());
        }
    }
    let silent = enrolled.into_iter().filter_map(|holder| {
        let last = holder.newest.map(|receipt| receipt.at);
        let name = holder.name;
        last.is_none_or(|last| last < since).then_some(Silent { name, last })
    });
    Ok(Acknowledged {
        releases: fates,
        silent: silent.collect(),
        unnamed,
    })
}

/// The time before which a last receipt is too old.
#[must_use]
pub fn since(now: DateTime<Utc>, days: u32) -> DateTime<Utc> {
    now.checked_sub_signed(Duration::days(days.into()))
        .unwrap_or(DateTime::UNIX_EPOCH)
}

/// The releases that a receipt acknowledges, each once and with what its giver does with it.
fn versions(receipt: &Receipt) -> BTreeMap<Version, String> {
    let mut all = BTreeMap::new();
    match &receipt.holder {
        Holder::Host(host) => {
            for slot in &host.slots {
                if let Some(version) = slot.version {
                    all.insert(version, format!("has it in slot {}", slot.slot));
                }
            }
            all.insert(host.version, "runs it".to_owned());
        }
        Holder::Gateway(gateway) => {
            let held = gateway.releases.iter();
            all.extend(held.map(|release| (release.version, "holds it".to_owned())));
        }
    }
    all
}

/// Why somebody needs a release, if he does.
fn needs(holder: &Enrolled, version: Version) -> Option<String> {
    let name = &holder.name;
    let Some(receipt) = &holder.newest else {
        return Some(format!("{name} has given no receipt"));
    };
    let date = receipt.at.format("%Y-%m-%d");
    let newest = receipt.newest();
    if let Some(does) = versions(receipt).get(&version) {
        let base = match newest == Some(version) {
            true => ", and its next update begins there",
            false => "",
        };
        return Some(format!("{name} {does}{base} (receipt {} of {date})", receipt.sequence));
    }
    match newest {
        None => Some(format!("{name} holds no release yet")),
        Some(newest) if newest < version => Some(format!("{name} acknowledges {newest} and no newer one")),
        Some(_) => None,
    }
}

/// The manifest in a release's `upstream.tar`.
fn built_from(
    client: &mut Client<DirectorySource>,
    targets: &[VerifiedTarget],
    release: &Published,
) -> Result<Snapshot> {
    let part = release.parts.iter().find(|part| part.part == Part::Upstream);
    let part = part.with_context(|| format!("release {} has no {}", release.version, Part::Upstream.file()))?;
    let target = targets.iter().find(|target| target.name == part.target);
    let target = target.with_context(|| format!("{} is not signed", part.target))?;
    let read = || format!("cannot read {}", part.target);
    let mut file: File = tempfile::tempfile().context("cannot make a temporary file")?;
    client.fetch(target, &mut file).with_context(read)?;
    let mut archive = TarIndex::open(file).with_context(read)?;
    let mut member = archive.read("snapshot.json").with_context(read)?.with_context(read)?;
    let bytes = read_to_limit(&mut member, snapshot::LARGEST).with_context(read)?;
    Snapshot::parse(&bytes).with_context(read)
}
