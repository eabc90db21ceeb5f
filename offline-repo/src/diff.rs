// SPDX-License-Identifier: GPL-3.0-or-later
//! What differs between two snapshots, and which security fixes that brings.
//!
//! The fixes are those that the Debian changelogs in the packages name (see [`crate::changelog`]). One changelog is read for
//! each source package, of the smallest of its packages that has one; each is held against its digest before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use signing::output;

use crate::changelog::{self, Named};
use crate::deb;
use crate::debversion::compare;
use crate::snapshot::{Snapshot, SnapshotPackage};
use crate::spec::Role;
use crate::store::Store;

/// A package that is in one of the two only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Single {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
}

/// A package that is in both, with another content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Name.
    pub name: String,
    /// Its version in the first snapshot.
    pub from: String,
    /// Its version in the second.
    pub to: String,
    /// Its source package in the second.
    pub source: String,
}

/// A package that serves other purposes than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Name.
    pub name: String,
    /// What it was for in the first snapshot.
    pub from: BTreeSet<Role>,
    /// What it is for in the second.
    pub to: BTreeSet<Role>,
}

/// A source package whose version changed, with what its changelog names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceChange {
    /// Name.
    pub source: String,
    /// Its version in the first snapshot.
    pub from: String,
    /// Its version in the second.
    pub to: String,
    /// The packages of it that changed.
    pub packages: BTreeSet<String>,
    /// The security fixes that the second has and the first lacks.
    pub fixes: BTreeSet<String>,
    /// Those that the first has and the second lacks, where the version went back.
    pub lost: BTreeSet<String>,
    /// Whether Debian uploaded one of the versions between for a security suite; it may name no fix.
    pub security: bool,
    /// Why there may be more, if there may.
    pub incomplete: Option<String>,
}

/// The differences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// The first snapshot.
    pub from: String,
    /// The second.
    pub to: String,
    /// Packages of the second only, by name.
    pub added: Vec<Single>,
    /// Packages with another content, by name.
    pub changed: Vec<Changed>,
    /// Packages of the first only, by name.
    pub removed: Vec<Single>,
    /// Packages that serve other purposes, by name.
    pub moved: Vec<Moved>,
    /// The source packages behind what changed, by name.
    pub sources: Vec<SourceChange>,
}

impl Diff {
    /// All security fixes that the second snapshot brings.
    #[must_use]
    pub fn fixes(&self) -> BTreeSet<&str> {
        let fixes = self.sources.iter().flat_map(|source| &source.fixes);
        fixes.map(String::as_str).collect()
    }

    /// Whether every changelog was read as far as the older version.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.sources.iter().all(|source| source.incomplete.is_none())
    }
}

/// Compares two snapshots of a store. `tell` hears of each source package before its changelog is read.
///
/// # Errors
/// When a snapshot cannot be read. A changelog that cannot be read is no error, but said in the difference.
pub fn diff(store: &Store, from: &str, to: &str, tell: &mut dyn FnMut(&str)) -> Result<Diff> {
    let (old, new) = (store.snapshot(from)?, store.snapshot(to)?);
    let mut diff = Diff {
        from: from.into(),
        to: to.into(),
        added: Vec::new(),
        changed: Vec::new(),
        removed: Vec::new(),
        moved: Vec::new(),
        sources: Vec::new(),
    };
    let (mut before, mut after) = (by_name(&old), by_name(&new));
    let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    // By source package and its two versions: the packages.
    let mut sources: BTreeMap<(&str, &str, &str), BTreeSet<String>> = BTreeMap::new();
    for name in names {
        let (mut left, mut right) = (
            before.remove(name).unwrap_or_default(),
            after.remove(name).unwrap_or_default(),
        );
        left.retain(|one| {
            let Some(at) = right.iter().position(|other| other.sha256 == one.sha256) else {
                return true;
            };
            let other = right.remove(at);
            if one.roles != other.roles {
                diff.moved.push(moved(one, other));
            }
            false
        });
        let pairs = left.len().min(right.len());
        for (one, other) in left.iter().zip(&right) {
            if one.roles != other.roles {
                diff.moved.push(moved(one, other));
            }
            diff.changed.push(Changed {
                name: name.into(),
                from: one.version.clone(),
                to: other.version.clone(),
                source: other.source.clone(),
            });
            if (&one.source, &one.source_version) != (&other.source, &other.source_version) {
                let key = (
                    other.source.as_str(),
                    one.source_version.as_str(),
                    other.source_version.as_str(),
                );
                sources.entry(key).or_default().insert(name.into());
            }
        }
        diff.removed.extend(left[pairs..].iter().map(|one| single(one)));
        diff.added.extend(right[pairs..].iter().map(|one| single(one)));
    }
    for ((source, from, to), packages) in sources {
        tell(source);
        let mut change = SourceChange {
            source: source.into(),
            from: from.into(),
            to: to.into(),
            packages,
            fixes: BTreeSet::new(),
            lost: BTreeSet::new(),
            security: false,
            incomplete: None,
        };
        let back = compare(to, from).is_lt();
        let named = if back {
            named(store, &old, source, to, from)
        } else {
            named(store, &new, source, from, to)
        };
        match named {
            Ok(named) => {
                if !named.reaches {
                    let older = if back { to } else { from };
                    change.incomplete = Some(format!("the changelog does not reach back to {older}: Debian trims it"));
                }
                change.security = named.security;
                *(if back { &mut change.lost } else { &mut change.fixes }) = named.fixes;
            }
            Err(error) => change.incomplete = Some(output::chain(&error)),
        }
        diff.sources.push(change);
    }
    Ok(diff)
}

/// The packages of each name, oldest first.
fn by_name(snapshot: &Snapshot) -> BTreeMap<&str, Vec<&SnapshotPackage>> {
    let mut names: BTreeMap<&str, Vec<&SnapshotPackage>> = BTreeMap::new();
    for package in &snapshot.packages {
        names.entry(&package.name).or_default().push(package);
    }
    for packages in names.values_mut() {
        packages.sort_by(|one, other| compare(&one.version, &other.version));
    }
    names
}

fn single(package: &SnapshotPackage) -> Single {
    Single {
        name: package.name.clone(),
        version: package.version.clone(),
    }
}

fn moved(one: &SnapshotPackage, other: &SnapshotPackage) -> Moved {
    Moved {
        name: one.name.clone(),
        from: one.roles.clone(),
        to: other.roles.clone(),
    }
}

/// What the changelog of a source package's version `new`, which this snapshot has, names since `old`.
fn named(store: &Store, snapshot: &Snapshot, source: &str, old: &str, new: &str) -> Result<Named> {
    let mut packages: Vec<_> = snapshot
        .packages
        .iter()
        .filter(|package| (package.source.as_str(), package.source_version.as_str()) == (source, new))
        .collect();
    packages.sort_by_key(|package| package.size);
    let mut failed = None;
    for package in packages {
        let read = || -> Result<Option<Named>> {
            store.check(&package.sha256, package.size)?;
            let mut file = File::open(store.object(&package.sha256))?;
            match deb::changelog(&mut file, &package.name)? {
                Some(packed) => changelog::between(&packed, old, new).map(Some),
                None => Ok(None),
            }
        };
        match read().with_context(|| {
            format!(
                "the changelog in {} {} could not be read",
                package.name, package.version
            )
        }) {
            Ok(Some(named)) => return Ok(named),
            Ok(None) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        Some(error) => Err(error),
        None => bail!("none of its packages in the snapshot {} has a changelog", snapshot.name),
    }
}
