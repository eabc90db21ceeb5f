// SPDX-License-Identifier: GPL-3.0-or-later
//! `approve`: the officers of a site put their signature beside the vendor's. A host whose policy demands both installs
//! nothing without it.
//!
//! What is signed is what was verified here: the vendor's metadata, fresh now and not older than what the gateway has
//! trusted; every byte of the release's parts. The site's targets repeat length, digest and description of each part, and
//! say when it was approved and which of the vendor's metadata were seen ([`signing::tuf::approval`]). These metadata are
//! kept beside the site's, because the vendor's go on when the next bundle is imported.
//!
//! A release that the vendor does not name any more, or names otherwise, loses its approval with the next one that is given.

use std::collections::BTreeMap;
use std::io;

use anyhow::{Context, Result, anyhow, bail};
use chrono::{DateTime, Duration, SubsecRound, Utc};
use serde::Serialize;
use serde_json::Value;
use signing::digest::{self, Sha256};
use signing::keys::Passphrase;
use signing::openpgp;
use signing::output::Refused;
use signing::release::Version;
use signing::site::{Site, Trust};
use signing::tuf::approval::{APPROVAL, Approval, Seen};
use signing::tuf::author::TargetEntry;
use signing::tuf::beside;
use signing::tuf::repository::limits_to_publish;
use signing::tuf::{Client, Datastore, DirectorySource, Limits, Source, Trail, VerifiedTarget};

use crate::import::DATASTORE;
use crate::office::{self, SiteRoot};
use crate::publish::Mode;
use crate::repository::{LARGEST_ROOT, Published, Repository, kept, releases};
use crate::store::sweep;

/// What to approve.
pub struct Options<'a> {
    /// The vendor's trust directory.
    pub vendor: &'a Trust,
    /// The site whose officers approve.
    pub site: &'a Site,
    /// Opens their keys.
    pub passphrase: &'a Passphrase,
    /// The release; without one the site's signatures are renewed, and nothing is approved.
    pub version: Option<Version>,
    /// When the site's metadata expire, where it is not a year from now.
    pub expires: Option<DateTime<Utc>>,
    /// The time now.
    pub now: DateTime<Utc>,
    /// Whether to write.
    pub mode: Mode,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The site has signed, or in a dry run would.
    Approved(Summary),
    /// Files of the release are not here, so nobody can say what would be approved.
    NotWhole {
        /// The release.
        version: Version,
        /// The targets whose files are not here.
        missing: Vec<String>,
    },
}

/// What the site has signed.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The release, and what was seen of it; nothing where signatures were renewed.
    pub release: Option<Seal>,
    /// Every release that the site approves now.
    pub approved: Vec<Version>,
    /// Releases that have lost their approval: the vendor does not name them so any more.
    pub withdrawn: Vec<Version>,
    /// Until when the site's metadata are fresh.
    pub expires: DateTime<Utc>,
    /// The version of the site's timestamp.
    pub timestamp: u64,
    /// How many OpenPGP certificates must sign it; the site's release key's is one.
    pub certificates: u64,
}

/// One approval.
#[derive(Debug, Clone, Serialize)]
pub struct Seal {
    /// The release.
    pub version: Version,
    /// Its channel.
    pub channel: String,
    /// Its root hash.
    pub root_hash: Sha256,
    /// Bytes that were read and verified.
    pub bytes: u64,
    /// When it was approved.
    pub at: DateTime<Utc>,
    /// The vendor's metadata that were seen.
    pub vendor: Vec<Seen>,
}

/// What was verified of the vendor's repository.
struct Verified {
    targets: Vec<VerifiedTarget>,
    release: Published,
    trail: Trail,
    approval: Approval,
}

/// Approves a release in a gateway's repository. `tell` is called with bytes verified and bytes in all.
///
/// # Errors
/// [`Refused`] or a refusal of the TUF client in the chain when the vendor's repository or the site's is not as it was
/// signed, or the release was approved with another content; else when something could not be done. Hosts see the approval
/// with the last write, or not at all.
pub fn approve(repository: &Repository, options: &Options<'_>, tell: &mut dyn FnMut(u64, u64)) -> Result<Outcome> {
    let _lock = repository.lock()?;
    let verified = match options.version {
        None => None,
        Some(version) => match verify(repository, options, version, tell)? {
            Ok(verified) => Some(verified),
            Err(missing) => return Ok(Outcome::NotWhole { version, missing }),
        },
    };
    let trust = Trust::open(&options.site.trust_dir())?;
    let root = trust.root()?;
    if root == options.vendor.root()? {
        bail!(Refused(
            "the site is the vendor itself: an approval is worth something only under a root of its own".into()
        ));
    }
    let roots = office::site_roots(options.site, &trust, options.now)?;
    let standing = standing(repository, &root)?;
    if standing.is_empty() && verified.is_none() {
        bail!(
            "{} carries no approval yet, so there is nothing to renew: name a release",
            repository.root().display()
        );
    }
    let (entries, withdrawn) = match &verified {
        Some(verified) => entries(verified, &standing)?,
        None => (standing.clone(), Vec::new()),
    };
    let expires = options.expires.unwrap_or(options.now + Duration::days(365));
    let timestamp = match options.mode {
        Mode::DryRun => 0,
        Mode::Write => write(
            repository,
            options,
            (&root, &roots),
            verified.as_ref(),
            &entries,
            expires,
        )?,
    };
    Ok(Outcome::Approved(Summary {
        release: verified.map(|verified| Seal {
            version: verified.release.version,
            channel: verified.release.channel.clone(),
            root_hash: verified.release.root_hash,
            bytes: verified.release.size(),
            at: verified.approval.at,
            vendor: verified.approval.vendor,
        }),
        approved: versions(entries.keys()),
        withdrawn,
        expires,
        timestamp,
        certificates: office::certificates(&roots)?,
    }))
}

/// Verifies the vendor's repository as of now and reads the release; gives the missing files where it is not whole.
fn verify(
    repository: &Repository,
    options: &Options<'_>,
    version: Version,
    tell: &mut dyn FnMut(u64, u64),
) -> Result<Result<Verified, Vec<String>>> {
    // The gateway's memory may be of another vendor than the one who is named.
    repository.read(&options.vendor.root()?)?;
    // What the gateway remembers holds, and an approval teaches it nothing.
    let place = repository.root().join(DATASTORE);
    let (memory, _) = Datastore::rehearse(&place, &options.vendor.root()?)?;
    let memory = memory.demanding(openpgp::read_keyring(&options.vendor.release_keyring())?);
    let time = memory.time(&options.now.into(), None)?;
    let now = time.now();
    let mut client = Client::open(memory, repository.source(), Limits::default(), time)?;
    client.refresh()?;
    let targets = client.targets()?;
    let held = |target: &VerifiedTarget| repository.target(&client.path(target)).is_file();
    let mut all = releases(&targets, &held)?;
    let known: Vec<String> = all.iter().map(|release| release.version.to_string()).collect();
    let at = all
        .iter()
        .position(|release| release.version == version)
        .with_context(|| {
            format!(
                "the vendor has signed no release {version} here (there are: {})",
                known.join(", ")
            )
        })?;
    let release = all.swap_remove(at);
    let absent = release.parts.iter().filter(|part| !part.present);
    let missing: Vec<String> = absent.map(|part| part.target.clone()).collect();
    if !missing.is_empty() {
        return Ok(Err(missing));
    }
    let (total, mut done) = (release.size(), 0);
    for part in &release.parts {
        let target = targets.iter().find(|target| target.name == part.target);
        let target = target.with_context(|| format!("{} is not signed any more", part.target))?;
        client
            .fetch(target, &mut io::sink())
            .with_context(|| format!("cannot approve {}", part.target))?;
        done += part.size;
        tell(done, total);
    }
    let trail = client.trail().clone();
    let mut approval = Approval::of(&trail);
    // A gateway whose clock is behind has seen these signatures all the same.
    let signed = trail.files.iter().filter_map(|file| file.signed_at).max();
    approval.at = signed.map_or(now, |signed| signed.max(now)).trunc_subsecs(0);
    Ok(Ok(Verified {
        targets,
        release,
        trail,
        approval,
    }))
}

/// What the site approves so far.
fn standing(repository: &Repository, root: &[u8]) -> Result<BTreeMap<String, TargetEntry>> {
    if !repository.is_approved() {
        return Ok(BTreeMap::new());
    }
    // At the beginning of time nothing has expired: renewing what has is the point.
    let source = DirectorySource::below(&repository.site());
    let memory = Datastore::ephemeral(root)?;
    let limits = limits_to_publish(&repository.site(), root)?;
    let mut client = Client::open(memory, source, limits, DateTime::UNIX_EPOCH)?;
    let targets = client.targets().context("the approvals here are not this site's")?;
    let entry = |target: VerifiedTarget| TargetEntry {
        length: target.length,
        sha256: target.sha256,
        custom: target.custom.and_then(|custom| custom.as_object().cloned()),
    };
    Ok(targets
        .into_iter()
        .map(|target| (target.name.clone(), entry(target)))
        .collect())
}

/// What the site approves after this, and the releases that it does not any more.
fn entries(
    verified: &Verified,
    standing: &BTreeMap<String, TargetEntry>,
) -> Result<(BTreeMap<String, TargetEntry>, Vec<Version>)> {
    let version = verified.release.version;
    let approval = serde_json::to_value(&verified.approval)?;
    let mut entries = BTreeMap::new();
    let mut withdrawn = Vec::new();
    for (name, entry) in standing {
        let target = verified.targets.iter().find(|target| target.name == *name);
        let content = target.is_some_and(|target| (target.length, target.sha256) == (entry.length, entry.sha256));
        if !content && name.starts_with(&format!("host/{version}/")) {
            return Err(anyhow!(Refused(format!(
                "{name} was approved with another content: a version is given once, so one of the two is forged"
            ))));
        }
        let mut description = entry.custom.clone().unwrap_or_default();
        description.remove(APPROVAL);
        if content && target.and_then(|target| target.custom.clone()) == Some(Value::Object(description)) {
            entries.insert(name.clone(), entry.clone());
        } else {
            withdrawn.push(name);
        }
    }
    // A release goes as a whole.
    let withdrawn = versions(withdrawn.into_iter());
    entries.retain(|name, _| {
        !withdrawn
            .iter()
            .any(|version| name.starts_with(&format!("host/{version}/")))
    });
    for part in &verified.release.parts {
        let target = verified.targets.iter().find(|target| target.name == part.target);
        let target = target.with_context(|| format!("{} is not signed any more", part.target))?;
        let mut custom = target
            .custom
            .as_ref()
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        custom.insert(APPROVAL.to_owned(), approval.clone());
        let entry = TargetEntry {
            length: target.length,
            sha256: target.sha256,
            custom: Some(custom),
        };
        entries.insert(part.target.clone(), entry);
    }
    Ok((entries, withdrawn))
}

/// The versions in the names of targets, each once.
fn versions<'a>(names: impl Iterator<Item = &'a String>) -> Vec<Version> {
    let mut versions: Vec<Version> = names.filter_map(|name| name.split('/').nth(1)?.parse().ok()).collect();
    versions.sort();
    versions.dedup();
    versions
}

/// Signs; gives the version of the site's timestamp.
fn write(
    repository: &Repository,
    options: &Options<'_>,
    (pinned, roots): (&[u8], &[SiteRoot]),
    verified: Option<&Verified>,
    entries: &BTreeMap<String, TargetEntry>,
    expires: DateTime<Utc>,
) -> Result<u64> {
    // Each by its version, so that the approval before stays whole until the site's new timestamp names this one.
    if let Some(verified) = verified {
        keep(repository, &verified.trail)?;
    }
    let site = Repository::create(&repository.site())?;
    sweep(&site.root().join("metadata"))?;
    let mut editor = office::open(&site, pinned, roots)?;
    let gone: Vec<String> = editor
        .targets()
        .keys()
        .filter(|name| !entries.contains_key(*name))
        .cloned()
        .collect();
    for name in gone {
        editor.remove(&name);
    }
    for (name, entry) in entries {
        editor.put(name, entry.clone())?;
    }
    let signed_at = verified.map_or(options.now, |verified| verified.approval.at.max(options.now));
    let site = options.site;
    Ok(site
        .publish(&mut editor, options.passphrase, expires, signed_at)?
        .timestamp)
}

/// Keeps the vendor's metadata as they were seen: all roots, the rest by version; roots and timestamp with their OpenPGP
/// signatures.
fn keep(repository: &Repository, trail: &Trail) -> Result<()> {
    let read = |name: &str| {
        let path = repository.metadata(name);
        digest::read_bounded(&path, LARGEST_ROOT).with_context(|| format!("cannot read {}", path.display()))
    };
    for file in &trail.files {
        if file.role == "root" {
            for version in 1..=file.version {
                let name = format!("{version}.root.json");
                if !repository.metadata(&name).exists() {
                    continue;
                }
                for name in [name, beside::root(version)] {
                    repository.write_approved(&name, &read(&name)?)?;
                }
            }
            continue;
        }
        let bytes = repository.source().metadata(&file.file, file.length)?;
        let bytes = bytes.filter(|bytes| Sha256::of(bytes) == file.sha256);
        let bytes = bytes.with_context(|| format!("{} changed while it was read: approve again", file.file))?;
        if let Some(signature) = beside::signature_of(file) {
            repository.write_approved(&signature, &read(&signature)?)?;
        }
        repository.write_approved(&kept(file), &bytes)?;
    }
    Ok(())
}
