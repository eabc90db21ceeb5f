// SPDX-License-Identifier: GPL-3.0-or-later
//! `prune`: takes away snapshots that nobody wants to keep, and then the objects that no other snapshot needs, nor a release
//! that somebody still acknowledges ([`crate::acknowledged`]).
//!
//! A snapshot goes in one step, a rename that is synced before the first object is touched; so whenever it ends, every
//! snapshot that is left has all that it had. What cannot be understood stops it before anything is taken away: a manifest
//! that cannot be read may need any object.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use chrono::{DateTime, Utc};
use serde::Serialize;
use signing::digest::Sha256;
use signing::durable;
use signing::output::{self, Refused, Usage};

use crate::acknowledged::Acknowledged;
use crate::debversion;
use crate::snapshot::Snapshot;
use crate::store::{self, Alone, Store, TEMPORARY};

/// Which snapshots are kept.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// These,
    pub names: BTreeSet<String>,
    /// and the newest so many of each group: the same name but for a date or number at its end, the same suites, the same
    /// architecture,
    pub last: usize,
    /// and those of releases that are still needed. Where this is the only rule, what no release was published from stays too.
    pub acknowledged: Option<Acknowledged>,
}

/// A snapshot that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Its name.
    pub name: String,
    /// The group in which it is among the newest, if that is why.
    pub newest_of: Option<String>,
    /// What receipts have to do with it; where nothing is here and in the former, it was named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<String>,
}

/// What goes and what stays.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The snapshots that stay, by name.
    pub kept: Vec<Kept>,
    /// The snapshots that go, by name.
    pub removed: Vec<String>,
    /// How many objects of the pool stay.
    pub objects_kept: u64,
    /// How many go.
    pub objects_removed: usize,
    /// The bytes in those.
    pub bytes_removed: u64,
    /// What receipts say of each published release, where they were asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Acknowledged>,
    /// What lies in the pool and is no object of it. It is left alone.
    pub strangers: Vec<PathBuf>,
    #[serde(skip)]
    objects: Vec<Sha256>,
}

/// How far it is.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Objects taken away.
    pub done: usize,
    /// In the end.
    pub total: usize,
}

/// Says what [`prune`] would take away.
///
/// # Errors
/// [`Refused`] when a manifest cannot be read or something unknown lies among the snapshots; [`Usage`] when a name to be kept
/// is none; else when the pool cannot be listed.
pub fn plan(store: &Store, policy: &Policy) -> Result<Plan> {
    let snapshots = all(store)?;
    if let Some(unknown) = policy.names.iter().find(|name| !snapshots.contains_key(*name)) {
        let known: Vec<_> = snapshots.keys().map(String::as_str).collect();
        return Err(anyhow!(Usage(format!(
            "there is no snapshot {unknown} to be kept (the store holds: {}); nothing was removed",
            known.join(", ")
        ))));
    }
    let newest = newest(&snapshots, policy.last);
    let mut plan = Plan {
        kept: Vec::new(),
        removed: Vec::new(),
        objects_kept: 0,
        objects_removed: 0,
        bytes_removed: 0,
        acknowledged: policy.acknowledged.clone(),
        strangers: Vec::new(),
        objects: Vec::new(),
    };
    let mut needed = HashSet::new();
    for (name, snapshot) in &snapshots {
        let newest_of = newest.get(name.as_str()).cloned();
        let because = because(policy, name);
        if newest_of.is_none() && because.is_empty() && !policy.names.contains(name) {
            plan.removed.push(name.clone());
            continue;
        }
        needed.extend(snapshot.objects().map(|(digest, _)| digest));
        plan.kept.push(Kept {
            name: name.clone(),
            newest_of,
            because,
        });
    }
    for fate in policy.acknowledged.iter().flat_map(|all| all.releases.values()) {
        needed.extend(fate.objects.iter().copied());
    }
    for first in 0..=u8::MAX {
        let list = || format!("cannot list the pool of {}", store.root().display());
        let listed = store.listed(first).with_context(list)?;
        plan.strangers.extend(listed.strangers);
        for digest in listed.objects {
            if needed.contains(&digest) {
                plan.objects_kept += 1;
                continue;
            }
            let path = store.object(&digest);
            let found = fs::symlink_metadata(&path).with_context(list)?;
            if found.is_dir() {
                plan.strangers.push(path);
                continue;
            }
            plan.bytes_removed += found.len();
            plan.objects.push(digest);
        }
    }
    plan.strangers.sort();
    plan.objects_removed = plan.objects.len();
    Ok(plan)
}

/// Why receipts keep a snapshot, if they do.
fn because(policy: &Policy, name: &str) -> Vec<String> {
    let Some(acknowledged) = &policy.acknowledged else {
        return Vec::new();
    };
    let all = acknowledged.releases.iter();
    let of = all.filter(|(_, fate)| fate.snapshot.as_deref() == Some(name));
    let mut of = of.peekable();
    if of.peek().is_none() && policy.last == 0 && policy.names.is_empty() {
        return vec!["no release was published from it".to_owned()];
    }
    of.flat_map(|(version, fate)| fate.because.iter().map(move |why| format!("release {version}: {why}")))
        .collect()
}

/// Takes away what the policy does not keep, and says what that was.
///
/// # Errors
/// As [`plan`], before anything is taken away; else when something cannot be taken away: what is left is whole, and the next
/// run goes on.
pub fn prune(alone: &Alone, policy: &Policy, tell: &mut dyn FnMut(Step)) -> Result<Plan> {
    let store = alone.store();
    let plan = plan(store, policy)?;
    let snapshots = store.root().join("snapshots");
    // Of a run that was cut off.
    store::sweep(&snapshots)?;
    for name in &plan.removed {
        let from = store.snapshot_directory(name)?;
        fs::rename(&from, snapshots.join(format!("{TEMPORARY}{name}")))
            .with_context(|| format!("cannot remove the snapshot {}", from.display()))?;
    }
    durable::sync_directory(&snapshots).with_context(|| format!("cannot sync {}", snapshots.display()))?;
    store::sweep(&snapshots)?;
    store::sweep(&store.root().join("pool"))?;
    for (done, digest) in plan.objects.iter().enumerate() {
        let path = store.object(digest);
        fs::remove_file(&path).with_context(|| format!("cannot remove the object {}", path.display()))?;
        let total = plan.objects.len();
        tell(Step { done: done + 1, total });
    }
    Ok(plan)
}

/// Every snapshot, by the name of its directory.
fn all(store: &Store) -> Result<BTreeMap<String, Snapshot>> {
    let directory = store.root().join("snapshots");
    let read = || format!("cannot read {}", directory.display());
    let mut snapshots = BTreeMap::new();
    for entry in fs::read_dir(&directory).with_context(read)? {
        let name = entry.with_context(read)?.file_name().to_string_lossy().into_owned();
        if name.starts_with(TEMPORARY) {
            continue;
        }
        let snapshot = store.snapshot(&name).map_err(|error| {
            anyhow!(Refused(format!(
                "{}; which objects it needs is not known: mirror it again or move it away; nothing was removed",
                output::chain(&error)
            )))
        })?;
        snapshots.insert(name, snapshot);
    }
    Ok(snapshots)
}

/// Stem of the name, suites, architecture.
type Group<'a> = (&'a str, BTreeSet<&'a str>, &'a str);
/// The date of the newest list, and the name.
type Candidate<'a> = (Option<DateTime<Utc>>, &'a str);

/// The newest so many of each group, with the group's name.
fn newest(snapshots: &BTreeMap<String, Snapshot>, last: usize) -> BTreeMap<&str, String> {
    let mut groups: BTreeMap<Group, Vec<Candidate>> = BTreeMap::new();
    for (name, snapshot) in snapshots {
        let suites = snapshot.created_from.iter().map(|origin| origin.suite.as_str());
        let key = (stem(name), suites.collect(), snapshot.architecture.as_str());
        let date = snapshot.created_from.iter().map(|origin| origin.date).max();
        groups.entry(key).or_default().push((date, name));
    }
    let mut newest = BTreeMap::new();
    for ((stem, suites, architecture), mut names) in groups {
        let suites: Vec<_> = suites.into_iter().collect();
        let group = format!("{stem}* of {} {architecture}", suites.join(", "));
        names.sort_by(|one, other| {
            let numbers = || debversion::compare(one.1, other.1);
            one.0.cmp(&other.0).then_with(numbers).reverse()
        });
        newest.extend(names.into_iter().take(last).map(|(_, name)| (name, group.clone())));
    }
    newest
}

/// A name without the date or number at its end.
fn stem(name: &str) -> &str {
    name.trim_end_matches(|letter: char| letter.is_ascii_digit() || "+-.".contains(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stem_has_no_date_and_no_number() {
        for (name, expected) in [
            ("base", "base"),
            ("base-2026-11-23", "base"),
            ("base-20261123.2", "base"),
            ("base10", "base"),
            ("13-base", "13-base"),
            ("20261123", ""),
        ] {
            assert_eq!(stem(name), expected);
        }
    }
}
