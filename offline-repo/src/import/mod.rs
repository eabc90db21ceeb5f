// SPDX-License-Identifier: GPL-3.0-or-later
//! `import`: from a bundle that somebody carried to the repository of a gateway. Nothing is read before it is verified,
//! and anything doubtful is refused with its reason.
//!
//! Beyond what TUF refuses (see [`signing::tuf::client`]) and the bundle's reader (see [`crate::bundle`]): a root without
//! the site's OpenPGP signature; a bundle without any root; a target in the bundle that no role vouches for; a release that the
//! bundle promises and does not hold, or holds and does not name; a boot image that the site's hosts would not start; metadata older than what the repository serves; where a site's approval is demanded, a bundle without it or with one that
//! the vendor's metadata do not bear out ([`signing::tuf::multi`]), and where none is demanded, a bundle that carries one,
//! for nobody here could verify it. The gateway remembers what it trusted in `REPO/datastore`, so an older bundle is refused.

mod arrival;
mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use signing::clock::Reading;
use signing::digest::{self, Sha256};
use signing::openpgp;
use signing::output::{self, Refused, is_refusal};
use signing::release::{Custom, MAX_BOOT_IMAGE, Version};
use signing::site::Trust;
use signing::tuf::beside::{self, Signatures};
use signing::tuf::{Client, Limits, MultiClient, Source, SourceError, Trail, TufError, VerifiedTarget, Waiver};
use tempfile::NamedTempFile;

use self::arrival::Arrival;
pub use self::arrival::Bad;
use self::memory::Opened;
use crate::bundle::BundleSource;
use crate::quarantine::{Quarantine, Refusal};
use crate::repository::{Repository, kept, releases};
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
    /// What tells this bundle, or these volumes, from others.
    pub set: Sha256,
    /// The volumes that were taken now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<u32>,
    /// Those that have to come before anything is visible.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub missing: BTreeSet<u32>,
    /// Files that have to be carried again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bad: Vec<Bad>,
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

/// Imports, stale metadata with the site's waiver only. Volumes come in any order and not all at once: what is good of them is
/// kept in quarantine until all have come. `tell` is called with bytes verified and bytes in all.
///
/// # Errors
/// [`Refused`] or a refusal of the TUF client in the chain when the bundle is doubtful, and the reason is written down in
/// quarantine; else when something could not be done. Readers of the repository see the new release when all of it is there,
/// or not at all.
pub fn import(
    files: &[PathBuf],
    repository: &Repository,
    believed: &Believed,
    clock: impl Into<Reading>,
    waiver: Option<Waiver>,
    mode: Mode,
    tell: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    let clock = clock.into();
    let mut certs = openpgp::read_keyring(&believed.vendor.release_keyring())?;
    if let Some(site) = &believed.site {
        certs.extend(openpgp::read_keyring(&site.release_keyring())?);
    }
    let mut arrival = Arrival::open(files, &certs, clock.clock)?;
    let _lock = repository.lock()?;
    let quarantine = Quarantine::of(repository.root());
    sweep(&repository.root().join("metadata"))?;
    sweep(&repository.root().join("targets"))?;
    quarantine.sweep()?;
    arrival.remember(&quarantine)?;
    let import = Import {
        repository,
        believed,
        clock,
        waiver,
        mode,
        quarantine,
    };
    loop {
        let error = match import.attempt(&arrival, tell) {
            Ok(summary) => return Ok(summary),
            Err(error) => error,
        };
        // A bad disc must not keep the others waiting.
        let again = match arrival.drop_damaged() {
            true => !arrival.is_empty(),
            false => mode == Mode::Write && arrival.drop_altered(&import.quarantine)?,
        };
        if !again {
            let error = if arrival.is_empty() { arrival.all_bad() } else { error };
            return Err(import.refuse(&arrival, error));
        }
    }
}

/// An import, whatever files are good.
struct Import<'a> {
    repository: &'a Repository,
    believed: &'a Believed,
    clock: Reading,
    waiver: Option<Waiver>,
    mode: Mode,
    quarantine: Quarantine,
}

/// Where a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    InRepository,
    InQuarantine,
    /// Nowhere, or on the medium only.
    Not,
}

impl Import<'_> {
    fn attempt(&self, arrival: &Arrival, tell: &mut dyn FnMut(u64, u64)) -> Result<Summary> {
        let (repository, believed) = (self.repository, self.believed);
        let mut offer = arrival.offer(repository, &self.quarantine)?;
        if offer.site.is_some() && believed.site.is_none() {
            return Err(anyhow!(Refused(
                "the bundle carries a site's approval: name the site's trust directory with --site-trust".into()
            )));
        }
        let Opened {
            stores,
            mut signatures,
            time,
            anchor,
            site_anchor,
        } = memory::stores(repository, believed, &mut offer, &self.clock, self.mode)?;
        let carried = offer.vendor.target_paths();
        let promised = arrival.manifest.releases.clone();

        let mut client = MultiClient::open(stores, offer, Limits::default(), time.with_waiver(self.waiver.clone()))?;
        client.refresh()?;
        let as_of = client.vendor().time().clone();
        memory::not_older(repository, &believed.vendor, client.vendor().source(), as_of)?;
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

        let known: BTreeSet<String> = carried.union(&arrival.targets()).cloned().collect();
        let paths: BTreeMap<&str, String> = targets
            .iter()
            .map(|target| (target.name.as_str(), client.path(target)))
            .collect();
        let path = |target: &VerifiedTarget| paths[target.name.as_str()].as_str();
        let vouched: BTreeSet<&str> = paths.values().map(String::as_str).collect();
        if let Some(stray) = known.iter().find(|path| !vouched.contains(path.as_str())) {
            return Err(anyhow!(Refused(format!(
                "the bundle carries {stray}, which no role vouches for"
            ))));
        }
        let held = |path: &str| repository.target(path).is_file();
        let before = releases(&targets, &|target| held(path(target)))?;
        let carries: Vec<Version> = releases(&targets, &|target| known.contains(path(target)))?
            .iter()
            .filter(|release| release.parts.iter().any(|part| part.present))
            .map(|release| release.version)
            .collect();
        if let Some(version) = carries.iter().find(|version| !promised.contains(version)) {
            return Err(anyhow!(Refused(format!(
                "the bundle carries release {version}, which its list does not name"
            ))));
        }
        let whole = |has: &dyn Fn(&str) -> bool| whole(&targets, &promised, &|target| has(path(target)));
        if arrival.missing(&self.quarantine, &held).is_empty() {
            whole(&|path| known.contains(path) || held(path))?;
        }

        let wanted: Vec<_> = targets.iter().filter(|target| known.contains(path(target))).collect();
        for target in wanted
            .iter()
            .filter(|target| carried.contains(path(target)) && !held(path(target)))
        {
            client.ready(target).map_err(unfit)?;
        }
        let total: u64 = wanted.iter().map(|target| target.length).sum();
        let mut done = 0;
        let mut stands = BTreeMap::new();
        for target in wanted {
            let what = || format!("cannot import {}", target.name);
            let place = self.take(&mut client, path(target), target, &carried);
            stands.insert(path(target), place.with_context(what)?);
            done += target.length;
            tell(done, total);
        }
        let whole_here = |path: &str| stands.get(path).is_some_and(|place| *place != Stands::Not) || held(path);
        arrival.keep_pieces(
            &self.quarantine,
            &|path| whole_here(path) || carried.contains(path),
            self.mode == Mode::Write,
        )?;
        drop(client);

        let missing = arrival.missing(&self.quarantine, &held);
        if missing.is_empty() {
            whole(&whole_here)?;
        }
        if self.mode == Mode::Write && missing.is_empty() {
            for (path, _) in stands.iter().filter(|(_, place)| **place == Stands::InQuarantine) {
                repository.adopt(path, &self.quarantine.object(path))?;
            }
            if let Some((approvals, _)) = &trails.site {
                take_approval(repository, &trails.vendor, &metadata, &site, approvals)?;
            }
            repository.take_metadata(&metadata, &trails.vendor)?;
            self.quarantine.release(arrival.set)?;
        } else if self.mode == Mode::Write {
            self.note(arrival, &missing)?;
        }
        let old = |version: &Version| {
            let mut here = before.iter();
            here.any(|release| release.version == *version && release.complete())
        };
        Ok(Summary {
            new: promised.iter().filter(|version| !old(version)).copied().collect(),
            releases: promised,
            waived: waived.unwrap_or_default(),
            clock,
            bytes: total,
            anchor,
            site_anchor,
            timestamp: trails.vendor.newest("timestamp").map_or(0, |file| file.version),
            set: arrival.set,
            volumes: arrival.volumes().map(|facts| facts.number).collect(),
            missing,
            bad: arrival.bad.clone(),
        })
    }

    /// Verifies a target, and keeps it in quarantine unless it is here already. A boot image must be one that the site's hosts
    /// would start.
    fn take(
        &self,
        client: &mut Client<impl Source>,
        path: &str,
        target: &VerifiedTarget,
        carried: &BTreeSet<String>,
    ) -> Result<Stands> {
        let wanted = (target.sha256, target.length);
        let is_whole = |place: &Path| Sha256::of_file(place).is_ok_and(|found| found == wanted);
        let (there, waiting) = (self.repository.target(path), self.quarantine.object(path));
        if is_whole(&there) {
            boot_image(&there, target, &self.believed.vendor)?;
            return Ok(Stands::InRepository);
        }
        let kept = is_whole(&waiting);
        match self.mode {
            Mode::DryRun if kept => boot_image(&waiting, target, &self.believed.vendor)?,
            Mode::DryRun if carried.contains(path) => {
                let mut image = NamedTempFile::new().context("cannot make a temporary file")?;
                match custom(target)?.is_some_and(|custom| custom.part.command_line().is_some()) {
                    true => client.fetch(target, &mut image)?,
                    false => client.fetch(target, &mut io::sink())?,
                }
                boot_image(image.path(), target, &self.believed.vendor)?;
            }
            Mode::DryRun => return Ok(Stands::Not),
            Mode::Write => {
                if !kept && carried.contains(path) {
                    self.quarantine.take(path, |to| Ok(client.fetch(target, to)?))?;
                } else if !kept {
                    // What was altered here since it came is asked for again.
                    self.quarantine.drop_object(path)?;
                    return Ok(Stands::Not);
                }
                boot_image(&waiting, target, &self.believed.vendor)?;
            }
        }
        Ok(Stands::InQuarantine)
    }

    /// Writes a refusal down, and says where.
    fn refuse(&self, arrival: &Arrival, error: anyhow::Error) -> anyhow::Error {
        if self.mode == Mode::DryRun || !is_refusal(&error) {
            return error;
        }
        // Where some are good, it is all of it that is refused.
        let volumes = match arrival.is_empty() {
            true => self.earlier(arrival, &|_| true),
            false => Ok(BTreeMap::new()),
        };
        let written = volumes.and_then(|volumes| {
            let reason = match volumes.is_empty() {
                true => output::chain(&error),
                false => joined(volumes.values()),
            };
            self.quarantine
                .refuse(arrival.set, &self.refusal(arrival, reason, volumes))
        });
        match written {
            Ok(place) => error.context(format!("the reason is in {}", place.display())),
            // The refusal itself is what counts.
            Err(_) => error,
        }
    }

    /// Writes down of a bundle that waits which of its volumes are to be made again, and forgets why those were refused that
    /// came since.
    fn note(&self, arrival: &Arrival, missing: &BTreeSet<u32>) -> Result<()> {
        let volumes = self.earlier(arrival, &|number| missing.contains(&number))?;
        let strangers = arrival.bad.iter().filter(|bad| bad.number.is_none());
        let reason = joined(volumes.values().chain(strangers.map(|bad| &bad.why)));
        if reason.is_empty() {
            return self.quarantine.pardon(arrival.set);
        }
        let refusal = self.refusal(arrival, reason, volumes);
        self.quarantine.refuse(arrival.set, &refusal)?;
        Ok(())
    }

    /// The volumes that were refused before or are now, as far as they count, each with its reason.
    fn earlier(&self, arrival: &Arrival, counts: &dyn Fn(u32) -> bool) -> Result<BTreeMap<u32, String>> {
        let before = self.quarantine.refusal(arrival.set)?;
        let mut volumes = before.map(|before| before.volumes).unwrap_or_default();
        volumes.extend(
            arrival
                .bad
                .iter()
                .filter_map(|bad| Some((bad.number?, bad.why.clone()))),
        );
        volumes.retain(|number, _| counts(*number));
        Ok(volumes)
    }

    fn refusal(&self, arrival: &Arrival, reason: String, volumes: BTreeMap<u32, String>) -> Refusal {
        let bad = arrival.bad.iter().map(|bad| bad.file.clone());
        Refusal {
            at: self.clock.clock,
            files: arrival.files().cloned().chain(bad).collect(),
            releases: arrival.manifest.releases.clone(),
            reason,
            volumes,
            of: arrival.manifest.volume.as_ref().map_or(0, |facts| facts.of),
        }
    }
}

fn joined<'a>(reasons: impl Iterator<Item = &'a String>) -> String {
    reasons.cloned().collect::<Vec<_>>().join("; ")
}

/// A bundle for somebody else is refused, and nothing of it is kept.
fn unfit(error: TufError) -> anyhow::Error {
    match error {
        TufError::Source(SourceError::NoBase { .. }) => anyhow!(Refused(error.to_string())),
        error => error.into(),
    }
}

/// That every promised release is whole.
fn whole(targets: &[VerifiedTarget], promised: &[Version], present: &dyn Fn(&VerifiedTarget) -> bool) -> Result<()> {
    let releases = releases(targets, present)?;
    for version in promised {
        let mut all = releases.iter();
        if !all.any(|release| release.version == *version && release.complete()) {
            return Err(anyhow!(Refused(format!(
                "the bundle promises release {version}, which is not whole in it, or not signed"
            ))));
        }
    }
    Ok(())
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

/// What a target's role says of it. One that is no part of a release was refused with the list of releases.
fn custom(target: &VerifiedTarget) -> Result<Option<Custom>> {
    Ok(target.custom.clone().map(serde_json::from_value).transpose()?)
}

/// A boot image must be one that the site's hosts would start.
fn boot_image(place: &Path, target: &VerifiedTarget, trust: &Trust) -> Result<()> {
    let Some(custom) = custom(target)?.filter(|custom| custom.part.command_line().is_some()) else {
        return Ok(());
    };
    if target.length > MAX_BOOT_IMAGE {
        return Err(anyhow!(Refused(format!(
            "it has {} bytes, and no host takes a boot image of more than {MAX_BOOT_IMAGE}",
            target.length
        ))));
    }
    let image =
        digest::read_bounded(place, MAX_BOOT_IMAGE).with_context(|| format!("cannot read {}", place.display()))?;
    trust.check_boot_image(custom.part, &image, &custom.root_hash)
}
