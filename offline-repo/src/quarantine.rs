// SPDX-License-Identifier: GPL-3.0-or-later
//! Where an import keeps what it has verified until all of it is there, and what it refused, with the reason.
//!
//! ```text
//! REPO/quarantine/objects/<path>          targets, whole and verified, with the path that they will have
//! REPO/quarantine/pieces/<sha256>         pieces of targets whose others are on volumes that did not come yet
//! REPO/quarantine/sets/<set>/N.json       the signed lists of the volumes that came
//! REPO/quarantine/sets/<set>/refused.json why a bundle was refused
//! ```
//!
//! Nothing here is visible to a reader of the repository. What is here is whole, for it came here by a rename; it is hashed
//! once more before it is used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use signing::digest::{self, Sha256};
use signing::durable;
use signing::output::Refused;
use signing::release::Version;

use crate::bundle::{LARGEST_MANIFEST, Loose, Manifest, MemberFacts, Volume, VolumeFacts};
use crate::store::sweep;

const DIRECTORY: &str = "quarantine";
const REFUSAL: &str = "refused.json";

/// The quarantine of a repository.
#[derive(Debug, Clone)]
pub struct Quarantine {
    root: PathBuf,
}

/// Why a bundle was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// When, by the gateway's clock.
    pub at: DateTime<Utc>,
    /// The files that were offered.
    pub files: Vec<PathBuf>,
    /// The releases that they say they carry.
    pub releases: Vec<Version>,
    /// The reason.
    pub reason: String,
    /// The volumes that were, each with its own reason; all of it where none is named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<u32, String>,
    /// How many volumes the bundle has; 0 where it is one file.
    #[serde(default)]
    pub of: u32,
}

/// A bundle of which something is here.
#[derive(Debug, Clone, Serialize)]
pub struct Held {
    /// What tells it from others.
    pub set: Sha256,
    /// The releases that it says it carries.
    pub releases: Vec<Version>,
    /// The volumes that came.
    pub received: BTreeSet<u32>,
    /// And those that did not.
    pub missing: BTreeSet<u32>,
    /// Why it was refused, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
}

impl Quarantine {
    /// Of a repository's directory.
    #[must_use]
    pub fn of(repository: &Path) -> Self {
        Self {
            root: repository.join(DIRECTORY),
        }
    }

    /// Whether anything is in it.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.root.is_dir()
    }

    /// Clears what a killed import left unfinished.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn sweep(&self) -> Result<()> {
        if self.root.exists() { sweep(&self.root) } else { Ok(()) }
    }

    /// The place of a target.
    #[must_use]
    pub fn object(&self, path: &str) -> PathBuf {
        self.root.join("objects").join(path)
    }

    fn piece(&self, facts: &MemberFacts) -> PathBuf {
        self.root.join("pieces").join(facts.sha256.to_string())
    }

    fn set(&self, set: Sha256) -> PathBuf {
        self.root.join("sets").join(set.to_string())
    }

    /// Takes a target that `give` writes and verifies.
    ///
    /// # Errors
    /// When `give` fails, or it cannot be written.
    pub fn take(&self, path: &str, give: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        let place = self.object(path);
        let write = || format!("cannot write {}", place.display());
        let mut writer = writer(&place).with_context(write)?;
        give(&mut writer)?;
        writer.commit().with_context(write)
    }

    /// Takes a piece.
    ///
    /// # Errors
    /// [`Refused`] when it is not what the list says.
    pub fn take_piece(&self, facts: &MemberFacts, from: &mut dyn Read) -> Result<()> {
        let place = self.piece(facts);
        if place.exists() {
            return Ok(());
        }
        let write = || format!("cannot write {}", place.display());
        let mut writer = writer(&place).with_context(write)?;
        let found = digest::copy(from, &mut writer).with_context(|| format!("cannot copy {}", facts.name))?;
        if found != (facts.sha256, facts.size) {
            return Err(anyhow!(Refused(format!("{} is damaged", facts.name))));
        }
        writer.commit().with_context(write)
    }

    /// Notes that all of a volume is here.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record(&self, volume: &Volume) -> Result<()> {
        let Some(facts) = volume.facts() else { return Ok(()) };
        let place = self.set(facts.set).join(format!("{}.json", facts.number));
        let write = || format!("cannot write {}", place.display());
        let mut writer = writer(&place).with_context(write)?;
        writer.write_all(volume.manifest_bytes()).with_context(write)?;
        writer.commit().with_context(write)
    }

    /// The lists of the volumes of a set that came.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn recorded(&self, set: Sha256) -> Result<Vec<Manifest>> {
        let directory = self.set(set);
        let read = || format!("cannot read {}", directory.display());
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(read)?,
        };
        let mut lists = Vec::new();
        for entry in entries {
            let path = entry.with_context(read)?.path();
            if path.ends_with(REFUSAL) {
                continue;
            }
            let bytes = digest::read_regular(&path, LARGEST_MANIFEST).with_context(read)?;
            // One of no use is of a volume that is asked for again.
            lists.extend(serde_json::from_slice::<Manifest>(&bytes).ok());
        }
        Ok(lists)
    }

    /// Whether a member of a volume is here, or in the repository whose targets `held` knows.
    #[must_use]
    pub fn has(&self, facts: &MemberFacts, held: &dyn Fn(&str) -> bool) -> bool {
        match facts.target() {
            None => true,
            Some(path) => {
                held(path) || self.object(path).exists() || facts.piece.is_some() && self.piece(facts).exists()
            }
        }
    }

    /// The pieces of a volume that are here.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub fn loose(&self, facts: &VolumeFacts) -> Result<Vec<Loose<File>>> {
        let mut loose = Vec::new();
        for facts in &facts.members {
            let (Some(path), Some(piece)) = (facts.target(), facts.piece) else {
                continue;
            };
            let place = self.piece(facts);
            match digest::open_regular(&place) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                reader => loose.push(Loose {
                    path: path.to_owned(),
                    packing: facts.packing(),
                    piece,
                    reader: reader.with_context(|| format!("cannot read {}", place.display()))?,
                    size: facts.size,
                }),
            }
        }
        Ok(loose)
    }

    /// Drops the pieces of a volume: one of them was altered here.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn doubt(&self, facts: &VolumeFacts) -> Result<()> {
        for facts in facts.members.iter().filter(|facts| facts.piece.is_some()) {
            let place = self.piece(facts);
            remove(&place)?;
        }
        Ok(())
    }

    /// Drops a target that was altered here.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn drop_object(&self, path: &str) -> Result<()> {
        remove(&self.object(path))
    }

    /// Writes down why a bundle was refused. Gives the place.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn refuse(&self, set: Sha256, refusal: &Refusal) -> Result<PathBuf> {
        let place = self.set(set).join(REFUSAL);
        let write = || format!("cannot write {}", place.display());
        let mut writer = writer(&place).with_context(write)?;
        writer
            .write_all(&serde_json::to_vec_pretty(refusal)?)
            .with_context(write)?;
        writer.write_all(b"\n").with_context(write)?;
        writer.commit().with_context(write)?;
        Ok(place)
    }

    /// Why a bundle was refused, if it was.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn refusal(&self, set: Sha256) -> Result<Option<Refusal>> {
        let place = self.set(set).join(REFUSAL);
        let read = || format!("cannot read {}", place.display());
        match digest::read_regular(&place, LARGEST_MANIFEST) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            bytes => Ok(Some(
                serde_json::from_slice(&bytes.with_context(read)?).with_context(read)?,
            )),
        }
    }

    /// Forgets why a bundle was refused.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn pardon(&self, set: Sha256) -> Result<()> {
        remove(&self.set(set).join(REFUSAL))
    }

    /// Forgets a bundle: it was taken in, or an officer gave it up. With the last one all goes that is here.
    ///
    /// # Errors
    /// When it is not here, or cannot be removed.
    pub fn release(&self, set: Sha256) -> Result<()> {
        let directory = self.set(set);
        let gone = || format!("cannot clear {}", self.root.display());
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            done => done.with_context(gone)?,
        }
        let others = match fs::read_dir(self.root.join("sets")) {
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            entries => entries.with_context(gone)?.next().is_some(),
        };
        if !others && self.root.exists() {
            fs::remove_dir_all(&self.root).with_context(gone)?;
        }
        Ok(())
    }

    /// Everything that waits or was refused.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn list(&self) -> Result<Vec<Held>> {
        let sets = self.root.join("sets");
        let read = || format!("cannot read {}", sets.display());
        let entries = match fs::read_dir(&sets) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(read)?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry.with_context(read)?;
            let name = entry.file_name();
            let Ok(set) = name.to_string_lossy().parse::<Sha256>() else {
                bail!("{} has no place there", entry.path().display());
            };
            all.push(self.held(set)?);
        }
        all.sort_by_key(|held| held.set);
        Ok(all)
    }

    fn held(&self, set: Sha256) -> Result<Held> {
        let lists = self.recorded(set)?;
        let refused = self.refusal(set)?;
        let volumes = || lists.iter().filter_map(|list| list.volume.as_ref());
        let received: BTreeSet<u32> = volumes().map(|facts| facts.number).collect();
        let said = refused.iter().map(|refused| refused.of);
        let of = volumes().map(|facts| facts.of).chain(said).max().unwrap_or(0);
        let told = lists.first().map(|list| list.releases.clone());
        Ok(Held {
            set,
            releases: told
                .or_else(|| Some(refused.as_ref()?.releases.clone()))
                .unwrap_or_default(),
            missing: (1..=of).filter(|number| !received.contains(number)).collect(),
            received,
            refused,
        })
    }
}

/// A durable file, its directory made.
fn writer(place: &Path) -> io::Result<durable::Writer> {
    durable::make_directories(place.parent().unwrap_or(place))?;
    durable::Writer::new(place, 0o644)
}

fn remove(place: &Path) -> Result<()> {
    match fs::remove_file(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done.with_context(|| format!("cannot remove {}", place.display())),
    }
}
