// SPDX-License-Identifier: GPL-3.0-or-later
//! What the parts of a release are compared with, when the receiver is known to hold another.
//!
//! Each part is compared with the same part of that release. A root file system and an installer hold the kernel that the
//! boot image holds too, so where all of them travel in one file they are compared with the new boot image as well: it is
//! carried once.

use anyhow::{Context, Result, anyhow};
use signing::digest;
use signing::output::Refused;
use signing::release::{Part, Version};
use signing::tuf::VerifiedTarget;

use crate::delta::{Base, Held};
use crate::repository::{Published, PublishedPart, Repository};

/// zstd's level for a delta: it is small, and most of it is nothing.
pub(super) const LEVEL: i32 = 19;
/// A delta that saves less than this part of a target's length is weighed against the target's compressed form.
const CLEAR: u64 = 4;

/// The release that a receiver holds.
pub(super) struct Known<'a> {
    release: &'a Published,
    /// The target and the path of each of its parts.
    parts: Vec<(Part, &'a VerifiedTarget, String)>,
}

impl<'a> Known<'a> {
    /// The release of this version, if all of it is here to compare with; else why not.
    pub(super) fn find(
        version: Version,
        all: &'a [Published],
        targets: &'a [VerifiedTarget],
        path: &dyn Fn(&VerifiedTarget) -> String,
    ) -> Result<Self, String> {
        let release = all.iter().find(|release| release.version == version);
        let release = release.ok_or_else(|| format!("release {version} is not in this repository"))?;
        if !release.complete() {
            return Err(format!("release {version} is not whole in this repository any more"));
        }
        let find = |part: &PublishedPart| {
            let target = targets.iter().find(|target| target.name == part.target)?;
            Some((part.part, target, path(target)))
        };
        Ok(Self {
            release,
            parts: release.parts.iter().filter_map(find).collect(),
        })
    }

    /// Its version.
    pub(super) const fn version(&self) -> Version {
        self.release.version
    }

    /// The bases for a part of another release, whose boot image is `boot`.
    pub(super) fn bases(&self, part: Part, boot: Option<&(VerifiedTarget, String)>) -> Vec<Base> {
        let base = |target: &VerifiedTarget, path: &str| Base {
            path: path.to_owned(),
            length: target.length,
            sha256: target.sha256,
        };
        let same = self.parts.iter().find(|(known, ..)| *known == part);
        let mut bases: Vec<Base> = same.iter().map(|(_, target, path)| base(target, path)).collect();
        if matches!(part, Part::Root | Part::Installer) {
            bases.extend(boot.map(|(target, path)| base(target, path)));
        }
        bases
    }
}

/// Whether a delta of this length saves so much that the target's compressed form need not be tried.
pub(super) const fn is_clear(delta: u64, target: u64) -> bool {
    delta < target / CLEAR
}

/// Opens bases in the repository, each of them hashed.
///
/// # Errors
/// [`Refused`] in the chain when one is not what was signed; else when it cannot be read.
pub(super) fn open(repository: &Repository, bases: &[Base]) -> Result<Vec<(Base, Held)>> {
    let open = |base: &Base| {
        let place = repository.target(&base.path);
        let what = || format!("cannot read {}", place.display());
        let held = Held::File(digest::open_regular(&place).with_context(what)?);
        match held.is(base).with_context(what)? {
            true => Ok((base.clone(), held)),
            false => Err(anyhow!(Refused(format!("{} is not what was signed", place.display())))),
        }
    };
    bases.iter().map(open).collect()
}
