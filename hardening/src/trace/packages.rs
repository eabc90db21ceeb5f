// SPDX-License-Identifier: GPL-3.0-or-later
//! The proof of packages, repeated from a release's `upstream.tar` with the keys that are part of this program.
//!
//! The attacks: a crafted archive (links, devices, names that lead out, endless members, a member twice), and all that
//! [`offline_repo::upstream`] lists. The defence: members are copied into a private directory that is removed again; only
//! regular files with plain names, once each, bounded one by one and together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path};

use offline_repo::snapshot::SnapshotPackage;
use offline_repo::spec::Role;
use offline_repo::upstream::{self, Directory, Policy, Proof};
use signing::digest;

use super::{date, of_chain, short_bytes};
use crate::report::Finding;
use crate::verdict::Verdict;

const MEMBER: u64 = 256 << 20;
const ALL: u64 = 1 << 30;

/// Unpacks and verifies. The archive itself is a target that was verified before.
pub(crate) fn prove(archive: &mut File, policy: Option<&Policy>) -> Result<Proof, Verdict> {
    let directory = tempfile::tempdir()
        .map_err(|error| Verdict::CouldNotCheck(format!("cannot make a temporary directory: {error}")))?;
    unpack(archive, directory.path())?;
    let files = &mut Directory(directory.path());
    let proof = match policy {
        Some(policy) => upstream::verify(policy, files),
        None => {
            let (policy, keyring) = Policy::debian_trixie().map_err(|error| of_chain(&error))?;
            let proof = upstream::verify(&policy, files);
            drop(keyring);
            proof
        }
    };
    proof.map_err(|error| of_chain(&error))
}

fn unpack(archive: &mut dyn Read, directory: &Path) -> Result<(), Verdict> {
    let bad = |why: String| Verdict::Fail(format!("upstream.tar is malformed: {why}"));
    let mut seen = BTreeSet::new();
    let mut total = 0_u64;
    let mut archive = tar::Archive::new(archive);
    for member in archive.entries().map_err(|error| bad(error.to_string()))? {
        let mut member = member.map_err(|error| bad(error.to_string()))?;
        let path = member.path().map_err(|error| bad(error.to_string()))?.into_owned();
        if member.header().entry_type().is_dir() {
            continue;
        }
        if !member.header().entry_type().is_file()
            || !path.components().all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(bad(format!("{} is no plain file", path.display())));
        }
        total = total.saturating_add(member.size());
        if member.size() > MEMBER || total > ALL || !seen.insert(path.clone()) || seen.len() > 256 {
            return Err(bad(format!(
                "{} is too large, there twice, or one too many",
                path.display()
            )));
        }
        let place = directory.join(&path);
        let copied = place
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| File::create(&place))
            .and_then(|mut file| digest::copy(&mut member, &mut file));
        copied
            .map_err(|error: io::Error| Verdict::CouldNotCheck(format!("cannot unpack {}: {error}", path.display())))?;
    }
    Ok(())
}

/// The findings of a proof that holds: upstream's lists, and every package below the list that names it.
pub(crate) fn findings(id: &str, proof: &Proof) -> Vec<Finding> {
    let mut by_suite: BTreeMap<&str, Vec<&SnapshotPackage>> = BTreeMap::new();
    for package in &proof.snapshot.packages {
        by_suite.entry(&package.suite).or_default().push(package);
    }
    let suites = proof.suites.iter().map(|suite| {
        let packages = by_suite.remove(suite.suite.as_str()).unwrap_or_default();
        let mut finding = Finding::pass(
            format!("{id}.{}", suite.suite),
            format!("Upstream's list of {}", suite.suite),
            format!(
                "signed by {} of the pinned keys, lists {} of the packages as they are",
                suite.signers.len(),
                suite.packages
            ),
        )
        .fact("date of the list", date(suite.date))
        .fact("sha256 of InRelease", suite.inrelease);
        for signer in &suite.signers {
            finding = finding.fact("Debian key", signer);
        }
        for (component, sha256) in &suite.indexes {
            finding = finding.fact(format!("sha256 of {component} Packages.xz"), sha256);
        }
        finding.with(packages.into_iter().map(|package| {
            let roles: Vec<&str> = package.roles.iter().map(|role| role.name()).collect();
            Finding::pass(
                format!("{id}.package.{}.{}", package.name, package.architecture),
                format!("{} {}", package.name, package.version),
                format!("listed by {} {}", package.suite, package.component),
            )
            .fact("sha256", package.sha256)
            .fact("size", short_bytes(package.size))
            .fact("source", format!("{} {}", package.source, package.source_version))
            .fact("for", roles.join(", "))
        }))
    });
    let count = |role| proof.snapshot.of(role).count();
    let heading = Finding::heading(
        format!("{id}.upstream"),
        format!(
            "{} packages of snapshot {}: {} of the host, {} of the guest, {} that build",
            proof.snapshot.packages.len(),
            proof.snapshot.name,
            count(Role::Host),
            count(Role::Guest),
            count(Role::Builder)
        ),
        suites.collect(),
    );
    vec![heading]
}
