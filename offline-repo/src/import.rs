// SPDX-License-Identifier: GPL-3.0-or-later
//! `import`: from a bundle that somebody carried to the repository of a gateway. Nothing is read before it is verified,
//! and anything doubtful is refused with its reason.
//!
//! Beyond what TUF refuses (see [`signing::tuf::client`]) and the bundle's reader (see [`crate::bundle`]): a root without
//! the site's OpenPGP signature; a bundle without any root; a target in the bundle that no role vouches for; a release that the
//! bundle promises and does not hold, or holds and does not name; a boot image that the site's hosts would not start; metadata older than what the repository serves; where a site's approval is demanded, a bundle without it or with one that
//! the vendor's metadata do not bear out ([`signing::tuf::multi`]), and where none is demanded, a bundle that carries one,
//! for nobody here could verify it. The gateway remembers what it trusted in `REPO/datastore`, so an older bundle is refused.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use chrono::{DateTime, Utc};
use serde::Serialize;
use signing::anchor;
use signing::clock::Reading;
use signing::digest::Sha256;
use signing::openpgp::{self, Cert};
use signing::output::Refused;
use signing::release::{Custom, MAX_BOOT_IMAGE, Version};
use signing::site::Trust;
use signing::tuf::beside::{self, Signatures};
use signing::tuf::{
    Client, Datastore, DirectorySource, Limits, Memory, MultiClient, Offer, Source, Stores, Time, Trail, TufError,
    VerifiedTarget, Waiver,
};

use crate::bundle::BundleSource;
use crate::repository::{LARGEST_ROOT, Repository, kept, releases};
use crate::store::sweep;

/// Where a gateway remembers what it trusted.
pub(crate) const DATASTORE: &str = "datastore";
/// The file that makes all others visible.
const TIMESTAMP: &str = "timestamp.json";

/// What was imported.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The releases that the bundle carried, now whole in the repository.
    pub releases: Vec<Version>,
    /// Those of them that were not there before.
    pub new: Vec<Version>,
    /// The roles whose metadata is stale, and was taken by a waiver of the site.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waived: Vec<String>,
    /// What is wrong with the gateway's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<String>,
    /// Bytes of the targets that were verified and written.
    pub bytes: u64,
    /// The version of the timestamp that is trusted now.
    pub timestamp: u64,
    /// The fingerprint of the trust directory, when this import is the first and its root is remembered from now on: to be
    /// compared by telephone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchor: Option<String>,
    /// As [`Summary::anchor`], of the site that must have approved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site_anchor: Option<String>,
}

/// Whether to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Take the bundle in.
    Write,
    /// Verify all of it and write nothing.
    DryRun,
}

/// Whom a gateway believes.
#[derive(Debug, Clone)]
pub struct Believed {
    /// Who published what the bundle carries.
    pub vendor: Trust,
    /// Who must have approved it.
    pub site: Option<Trust>,
}

/// The gateway's memory of one sovereign.
struct Remembered {
    place: PathBuf,
    root: Vec<u8>,
    release: Vec<Cert>,
    rehearsal: Datastore,
    /// The fingerprint of the trust directory, where nothing was remembered before.
    anchor: Option<String>,
}

/// The gateway's memory of all that it believes, and the time by which it judges.
struct Opened {
    stores: Stores,
    signatures: Signatures,
    time: Time,
    anchor: Option<String>,
    site_anchor: Option<String>,
}

impl Remembered {
    fn rehearse(place: PathBuf, trust: &Trust) -> Result<Self> {
        let root = trust.root()?;
        let release = openpgp::read_keyring(&trust.release_keyring())?;
        let (rehearsal, memory) = Datastore::rehearse(&place, &root)?;
        let anchor = match memory {
            Memory::Anew => Some(
                anchor::fingerprint(trust.directory())
                    .with_context(|| format!("cannot read {}", trust.directory().display()))?,
            ),
            Memory::Kept => None,
        };
        Ok(Self {
            place,
            root,
            release,
            rehearsal,
            anchor,
        })
    }

    fn open(self, mode: Mode) -> Result<Datastore> {
        Ok(match mode {
            // A gateway's first import begins with the pinned root, so that is nothing to speak of here.
            Mode::Write => Datastore::open_or_create(&self.place, &self.root)?.0,
            // A rehearsal must not teach the gateway anything.
            Mode::DryRun => self.rehearsal,
        }
        .demanding(self.release))
    }
}

/// Opens what the gateway remembers, once the OpenPGP keys have vouched for the roots: a trust directory given by mistake
/// would pin its root for good.
fn stores(
    repository: &Repository,
    believed: &Believed,
    offer: &mut Offer<BundleSource>,
    clock: &Reading,
    mode: Mode,
) -> Result<Opened> {
    let mut signatures = Signatures::new();
    let mut vendor = Remembered::rehearse(repository.root().join(DATASTORE), &believed.vendor)?;
    let mut now = vendor.rehearsal.time(clock, None)?.now();
    let mut site = match &believed.site {
        None => None,
        Some(trust) => {
            let site = Remembered::rehearse(repository.site().join(DATASTORE), trust)?;
            now = now.max(site.rehearsal.time(clock, None)?.now());
            let offered = offer.site.as_mut().ok_or(TufError::NoSite)?;
            signatures.append(&mut check_roots(offered, &site.release, now)?);
            Some(site)
        }
    };
    signatures.append(&mut check_roots(&mut offer.vendor, &vendor.release, now)?);
    let (anchor, site_anchor) = (vendor.anchor.take(), site.as_mut().and_then(|site| site.anchor.take()));
    let vendor = vendor.open(mode)?;
    let mut stores = match site {
        None => Stores::Vendor(vendor),
        Some(site) => Stores::Both {
            vendor,
            site: site.open(mode)?,
        },
    };
    let time = stores.time(clock, None)?;
    Ok(Opened {
        stores,
        signatures,
        time,
        anchor,
        site_anchor,
    })
}

/// Imports, stale metadata with the site's waiver only. `tell` is called with bytes verified and bytes in all.
///
/// # Errors
/// [`Refused`] or a refusal of the TUF client in the chain when the bundle is doubtful; else when something could not be
/// done. Readers of the repository see the new release when all of it is there, or not at all.
pub fn import(
    bundle: &Path,
    repository: &Repository,
    believed: &Believed,
    clock: impl Into<Reading>,
    waiver: Option<Waiver>,
    mode: Mode,
    tell: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    let mut offer = BundleSource::offer(bundle)?;
    if offer.site.is_some() && believed.site.is_none() {
        return Err(anyhow!(Refused(
            "the bundle carries a site's approval: name the site's trust directory with --site-trust".into()
        )));
    }
    let _lock = repository.lock()?;
    sweep(&repository.root().join("metadata"))?;
    sweep(&repository.root().join("targets"))?;
    let Opened {
        stores,
        mut signatures,
        time,
        anchor,
        site_anchor,
    } = stores(repository, believed, &mut offer, &clock.into(), mode)?;
    let carried = offer.vendor.target_paths();
    let promised = offer.vendor.manifest().releases.clone();

    let mut client = MultiClient::open(stores, offer, Limits::default(), time.with_waiver(waiver))?;
    client.refresh()?;
    let as_of = client.vendor().time().clone();
    not_older(repository, &believed.vendor, client.vendor().source(), as_of)?;
    let targets = client.targets()?;
    let trails = client.trails();
    signatures.extend(client.signatures());
    let waived = client.waived().map(|used| used.lifted.keys().cloned().collect());
    let clock = client.time().complaint();
    let (vendor, site) = client.sources();
    let metadata = metadata(vendor, &trails.vendor, &signatures)?;
    let site = match (site, &trails.site) {
        (Some(source), Some((trail, _))) => self::metadata(source, trail, &signatures)?,
        _ => Vec::new(),
    };
    let mut client = client.into_vendor();
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
        check_boot_image(&mut client, target, &believed.vendor)
            .with_context(|| format!("cannot import {}", target.name))?;
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

    drop(client);
    if mode == Mode::Write {
        if let Some((approvals, _)) = &trails.site {
            take_approval(repository, &trails.vendor, &metadata, &site, approvals)?;
        }
        repository.take_metadata(&metadata, &trails.vendor)?;
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
        waived: waived.unwrap_or_default(),
        clock,
        bytes: total,
        anchor,
        site_anchor,
        timestamp: trails.vendor.newest("timestamp").map_or(0, |file| file.version),
    })
}

/// The metadata files of a trail as the bundle carries them, with the OpenPGP signatures beside them.
fn metadata(source: &mut BundleSource, trail: &Trail, signatures: &Signatures) -> Result<Vec<(String, Vec<u8>)>> {
    let mut metadata = Vec::new();
    for file in &trail.files {
        let bytes = match source.metadata(&file.file, file.length)? {
            Some(bytes) if Sha256::of(&bytes) == file.sha256 => bytes,
            // The root from which trust starts need not be carried again.
            None if file.role == "root" => continue,
            _ => return Err(anyhow!(Refused(format!("{} changed while it was read", file.file)))),
        };
        if let (Some(name), Some(signature)) = (beside::signature_of(file), signatures.get(&file.sha256)) {
            metadata.push((name, signature.clone()));
        }
        metadata.push((file.file.clone(), bytes));
    }
    // Whoever reads the repository starts at the timestamp: it comes last.
    metadata.sort_by_key(|(name, _)| name == TIMESTAMP);
    Ok(metadata)
}

/// Serves what the site approved, as the gateway does at which it was approved.
fn take_approval(
    repository: &Repository,
    vendor: &Trail,
    metadata: &[(String, Vec<u8>)],
    site: &[(String, Vec<u8>)],
    approvals: &Trail,
) -> Result<()> {
    let timestamp = vendor.newest("timestamp");
    for (name, bytes) in metadata {
        match timestamp.filter(|_| name == TIMESTAMP) {
            Some(file) => repository.write_approved(&kept(file), bytes)?,
            None => repository.write_approved(name, bytes)?,
        }
    }
    Repository::create(&repository.site())?.take_metadata(site, approvals)
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
fn not_older<S: Source>(repository: &Repository, trust: &Trust, bundle: &mut S, time: Time) -> Result<()> {
    let served = DirectorySource::below(repository.root());
    let memory = Datastore::ephemeral(&trust.root()?)?;
    // At the beginning of time nothing has expired.
    let mut client = Client::open(memory, served, Limits::default(), DateTime::UNIX_EPOCH)?;
    match client.refresh() {
        // What does not verify is no version that anybody could have taken; what was verified before it is held on to.
        Err(error) if !error.is_refusal() => return Err(error.into()),
        _ => {}
    }
    let mut client = Client::open(client.into_datastore(), bundle, Limits::default(), time)?;
    client.refresh().with_context(|| {
        let place = repository.root().display();
        format!("the repository {place} serves something else")
    })
}

/// Every root that is carried has the site's OpenPGP signature, before any of them may be trusted.
fn check_roots(source: &mut BundleSource, release: &[Cert], now: DateTime<Utc>) -> Result<Signatures> {
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
    let mut signatures = Signatures::new();
    for name in names {
        let missing = || anyhow!(Refused(format!("{name} has no OpenPGP signature of the site")));
        let mut read = |name: &str| source.metadata(name, LARGEST_ROOT).map_err(TufError::from);
        let root = read(&name)?.ok_or_else(missing)?;
        let signature = read(&format!("{name}.asc"))?.ok_or_else(missing)?;
        openpgp::verify_detached_by(release, root.as_slice(), &signature, now)
            .with_context(|| format!("the OpenPGP signature of {name}"))?;
        signatures.insert(Sha256::of(&root), signature);
    }
    Ok(signatures)
}
