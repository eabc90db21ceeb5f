// SPDX-License-Identifier: GPL-3.0-or-later
//! The files that somebody carried here: a bundle, or volumes of one, in any order and not all at once.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use chrono::{DateTime, Utc};
use serde::Serialize;
use signing::digest::Sha256;
use signing::openpgp::Cert;
use signing::output::{self, Refused, is_refusal};
use signing::tuf::Offer;

use crate::bundle::{BundleSource, Manifest, MemberFacts, Volume, VolumeFacts};
use crate::quarantine::Quarantine;
use crate::repository::Repository;

/// A volume that has to be carried again.
#[derive(Debug, Clone, Serialize)]
pub struct Bad {
    /// The file.
    pub file: PathBuf,
    /// Which volume it is, where it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// What is wrong with it.
    pub why: String,
}

/// The files, as far as they are good.
pub(super) struct Arrival {
    pub(super) set: Sha256,
    pub(super) manifest: Manifest,
    given: Vec<(PathBuf, Option<VolumeFacts>)>,
    /// The lists of volumes that came before.
    recorded: Vec<VolumeFacts>,
    pub(super) bad: Vec<Bad>,
}

impl Arrival {
    /// Opens a bundle or volumes; a directory stands for all files in it that are bundles. `certs` must have signed the list
    /// of each volume.
    ///
    /// # Errors
    /// When nothing of it is good, or it is of several sets.
    pub(super) fn open(paths: &[PathBuf], certs: &[Cert], at: DateTime<Utc>) -> Result<Self> {
        let mut files = Vec::new();
        for path in paths {
            match path.is_dir() {
                true => files.extend(bundles(path)?),
                false => files.push(path.clone()),
            }
        }
        let one = files.len() == 1;
        let (mut good, mut bad): (Vec<(PathBuf, Volume)>, _) = (Vec::new(), Vec::new());
        for file in files {
            let opened = Volume::open(&file).and_then(|volume| {
                let checked = volume.verify(certs, at);
                checked.with_context(|| format!("cannot use the bundle {}", file.display()))?;
                Ok(volume)
            });
            match opened {
                Ok(volume) => good.push((file, volume)),
                Err(error) if one => return Err(error),
                Err(error) => bad.push(Bad {
                    file,
                    number: None,
                    why: output::chain(&error),
                }),
            }
        }
        let Some((_, first)) = good.first() else {
            return Err(none_good(&bad));
        };
        let (set, manifest) = (first.identity(), first.manifest().clone());
        if good.len() > 1
            && good
                .iter()
                .any(|(_, volume)| volume.facts().is_none() || volume.identity() != set)
        {
            bail!(Refused(
                "these are not the volumes of one bundle: import one bundle, or the volumes of one set, at a time"
                    .into()
            ));
        }
        let mut seen = BTreeSet::new();
        let given = good.into_iter().map(|(file, volume)| (file, volume.facts().cloned()));
        // A volume that is there twice is read once.
        let given = given
            .filter(|(_, facts)| seen.insert(facts.as_ref().map(|facts| facts.number)))
            .collect();
        Ok(Self {
            set,
            manifest,
            given,
            recorded: Vec::new(),
            bad,
        })
    }

    /// Adds what came before.
    pub(super) fn remember(&mut self, quarantine: &Quarantine) -> Result<()> {
        let given: BTreeSet<u32> = self.volumes().map(|facts| facts.number).collect();
        let recorded = quarantine
            .recorded(self.set)?
            .into_iter()
            .filter_map(|list| list.volume);
        self.recorded = recorded.filter(|facts| !given.contains(&facts.number)).collect();
        Ok(())
    }

    /// The volumes that are given now.
    pub(super) fn volumes(&self) -> impl Iterator<Item = &VolumeFacts> {
        self.given.iter().filter_map(|(_, facts)| facts.as_ref())
    }

    /// And their files.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.given.iter().map(|(file, _)| file)
    }

    /// The paths of all targets of which something came, now or before.
    pub(super) fn targets(&self) -> BTreeSet<String> {
        let members = self.volumes().chain(&self.recorded).flat_map(|facts| &facts.members);
        members.filter_map(|member| Some(member.target()?.to_owned())).collect()
    }

    /// All of it as a source, with what the repository holds for deltas to rest on.
    ///
    /// # Errors
    /// When a file cannot be read, or is another than a moment ago.
    pub(super) fn offer(&self, repository: &Repository, quarantine: &Quarantine) -> Result<Offer<BundleSource>> {
        let vendor = self.source(quarantine)?.with_bases(repository.holdings());
        let site = match vendor.carries_site() {
            true => Some(self.source(quarantine)?.of_site()),
            false => None,
        };
        Ok(Offer { vendor, site })
    }

    fn source(&self, quarantine: &Quarantine) -> Result<BundleSource> {
        let mut volumes = Vec::new();
        for (file, facts) in &self.given {
            let volume = Volume::open(file)?;
            if volume.facts() != facts.as_ref() || volume.identity() != self.set {
                bail!(Refused(format!("{} changed while it was read", file.display())));
            }
            volumes.push(volume);
        }
        let mut loose = Vec::new();
        for facts in &self.recorded {
            loose.extend(quarantine.loose(facts)?);
        }
        Ok(BundleSource::gather(volumes, loose)?)
    }

    /// The volumes that are neither given nor were taken before.
    pub(super) fn missing(&self, quarantine: &Quarantine, held: &dyn Fn(&str) -> bool) -> BTreeSet<u32> {
        let of = self.manifest.volume.as_ref().map_or(0, |facts| facts.of);
        let before = self.recorded.iter().filter(|facts| {
            let mut members = facts.members.iter();
            members.all(|member| quarantine.has(member, held))
        });
        let there: BTreeSet<u32> = self.volumes().chain(before).map(|facts| facts.number).collect();
        (1..=of).filter(|number| !there.contains(number)).collect()
    }

    /// Keeps what only some volumes carry a part of, and notes which volumes came.
    ///
    /// # Errors
    /// When a piece is not what its volume's list says, or it cannot be kept.
    pub(super) fn keep_pieces(&self, quarantine: &Quarantine, whole: &dyn Fn(&str) -> bool, write: bool) -> Result<()> {
        for (file, _) in &self.given {
            let mut volume = Volume::open(file)?;
            let members = volume.facts().map(|facts| facts.members.clone()).unwrap_or_default();
            for member in members.iter().filter(|member| member.piece.is_some()) {
                if member.target().is_none_or(whole) {
                    continue;
                }
                volume.with_member(member, |from| match write {
                    true => quarantine.take_piece(member, from),
                    false => member.check(from),
                })?;
            }
            if write {
                quarantine.record(&volume)?;
            }
        }
        Ok(())
    }

    /// Looks through the volumes for the reason why something went wrong, and drops those that are it. Whether there were any.
    pub(super) fn drop_damaged(&mut self) -> bool {
        let mut bad = Vec::new();
        self.given.retain(|(file, facts)| {
            let Some(facts) = facts else { return true };
            let found = Volume::open(file).and_then(|mut volume| volume.damaged());
            let why = match found {
                Ok(None) => return true,
                Ok(Some(member)) => format!("{member} is damaged"),
                Err(error) => output::chain(&error),
            };
            bad.push(Bad {
                file: file.clone(),
                number: Some(facts.number),
                why,
            });
            false
        });
        let found = !bad.is_empty();
        self.bad.append(&mut bad);
        found
    }

    /// Drops pieces that were altered since they were taken: their volumes are asked for again. Whether there were any.
    pub(super) fn drop_altered(&mut self, quarantine: &Quarantine) -> Result<bool> {
        let mut altered = false;
        for facts in &self.recorded {
            let mut bad = false;
            for mut loose in quarantine.loose(facts)? {
                let is =
                    |member: &&MemberFacts| member.target() == Some(&loose.path) && member.piece == Some(loose.piece);
                let listed = facts.members.iter().find(is);
                bad |= listed.is_none_or(|member| member.check(&mut loose.reader).is_err());
            }
            if bad {
                quarantine.doubt(facts)?;
                altered = true;
            }
        }
        Ok(altered)
    }

    /// Whether nothing good is left.
    pub(super) fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// What is said of that.
    pub(super) fn all_bad(&self) -> anyhow::Error {
        none_good(&self.bad)
    }
}

/// The files of a directory that are bundles or should be: a person's notes beside them are not.
fn bundles(directory: &Path) -> Result<Vec<PathBuf>> {
    let read = || format!("cannot read {}", directory.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(read)? {
        let entry = entry.with_context(read)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if hidden || !entry.file_type().with_context(read)?.is_file() {
            continue;
        }
        let path = entry.path();
        let stranger = |error: &anyhow::Error| is_refusal(error) && !crate::bundle::begins_like_one(&path);
        if Volume::open(&path).is_err_and(|error| stranger(&error)) {
            continue;
        }
        files.push(path);
    }
    files.sort();
    if files.is_empty() {
        bail!("there is no bundle in {}", directory.display());
    }
    Ok(files)
}

fn none_good(bad: &[Bad]) -> anyhow::Error {
    let all: Vec<String> = bad.iter().map(|bad| bad.why.clone()).collect();
    anyhow!(Refused(all.join("; ")))
}
