// SPDX-License-Identifier: GPL-3.0-or-later
//! Trees made of packages: the builder root by the machine's mmdebstrap, everything else by the builder's own.
//!
//! Apt installs from a view of the snapshot that carries upstream's own signed lists, and verifies their signatures with
//! the pinned keyring: nothing is trusted because it lies in the store.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use offline_repo::aptview;
use offline_repo::snapshot::{Snapshot, SnapshotPackage};
use offline_repo::spec::Role;
use offline_repo::store::Store;
use offline_repo::upstream::Policy;
use signing::digest::Sha256;
use signing::process::{Cmd, ProcessError};

use crate::sandbox::{PLACES, Sandbox};
use crate::work::{Key, Made, Work};

/// Where steps see the apt view.
const VIEW: &str = "/mnt/view";
/// Counts changes of the options below that change a tree.
const RECIPE: u32 = 1;

/// What every apt of a build is told.
const APT: [&str; 6] = [
    // The signed lists are as old as the snapshot; freshness is the business of `mirror` and of the release's own metadata.
    "Acquire::Check-Valid-Until \"false\"",
    "Acquire::Check-Date \"false\"",
    "APT::Install-Recommends \"false\"",
    // The view may lie below a directory that apt's own user cannot enter.
    "APT::Sandbox::User \"root\"",
    "Acquire::Languages \"none\"",
    "APT::Get::AllowUnauthenticated \"false\"",
];

/// What every dpkg of a build is told. What is never unpacked need not be removed.
const DPKG: [&str; 5] = [
    "force-unsafe-io",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/lintian/*",
];

/// The apt view of a snapshot.
///
/// # Errors
/// When an object of the store is missing or the view cannot be written.
pub fn view(work: &Work, store: &Store, snapshot: &Snapshot) -> Result<Made> {
    let manifest = snapshot.to_bytes()?;
    let key = Key::new("view", RECIPE).with(&manifest).finish();
    let (_policy, keyring) = Policy::debian_trixie()?;
    work.once("view", &key, |directory| {
        aptview::materialise(store, snapshot, directory, keyring.path())
    })
}

/// The key of the builder root of a snapshot: its packages, by name, version and hash.
#[must_use]
pub fn builder_key(snapshot: &Snapshot) -> Sha256 {
    packages(Key::new("builder", RECIPE), snapshot.of(Role::Builder)).finish()
}

/// The key of the tree of the host's packages.
#[must_use]
pub fn host_key(snapshot: &Snapshot, builder: &Sha256, role: Role) -> Sha256 {
    packages(Key::new("packages", RECIPE).digest(builder), snapshot.of(role)).finish()
}

fn packages<'a>(key: Key, packages: impl Iterator<Item = &'a SnapshotPackage>) -> Key {
    packages.fold(key, |key, package| {
        key.with(package.name.as_bytes())
            .with(package.version.as_bytes())
            .digest(&package.sha256)
    })
}

/// Makes the builder root with the machine's mmdebstrap and apt. What differs between machines stays outside: the builder
/// root's own tools make everything that is kept.
///
/// # Errors
/// When mmdebstrap is missing or fails; the log is named.
pub fn make_builder(view: &Path, snapshot: &Snapshot, epoch: u64, directory: &Path, log: &Path) -> Result<()> {
    let root = directory.join("root");
    let sources = sources(snapshot, view);
    let result = Cmd::new("mmdebstrap")
        .args(arguments(snapshot, Role::Builder)?)
        .args(["trixie".as_ref(), root.as_os_str()])
        .arg(sources)
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .env("HOME", "/root")
        .run_logged(log);
    if matches!(result, Err(ProcessError::Start { .. })) {
        bail!("mmdebstrap is missing: install it from the machine's own packages (apt-get install mmdebstrap)");
    }
    result.context("cannot make the builder root")?;
    for place in PLACES {
        let place = root.join(place);
        fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
    }
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot set the mode of {}", root.display()))
}

/// Makes a tree of a role's packages with the builder's mmdebstrap.
///
/// # Errors
/// When mmdebstrap fails; the log is named.
pub fn make_tree(
    sandbox: &Sandbox,
    view: &Path,
    snapshot: &Snapshot,
    role: Role,
    root: &Path,
    log: &Path,
) -> Result<()> {
    fs::create_dir(root).with_context(|| format!("cannot make {}", root.display()))?;
    sandbox
        .step("mmdebstrap")
        .args(arguments(snapshot, role)?)
        .args(["trixie", "/mnt/root"])
        .arg(sources(snapshot, Path::new(VIEW)))
        // Debian's kernel hooks would make an initrd that nothing uses.
        .env("INITRD", "No")
        .read(view, VIEW)
        .write(root, "/mnt/root")
        .run_logged(log)
        .with_context(|| format!("cannot make the tree of the {} packages", role.name()))
}

fn arguments(snapshot: &Snapshot, role: Role) -> Result<Vec<String>> {
    let include: BTreeSet<String> = snapshot
        .of(role)
        .map(|package| format!("{}={}", package.name, package.version))
        .collect();
    if include.is_empty() {
        bail!(
            "the snapshot {} has no {} packages: add them to its specification and mirror again",
            snapshot.name,
            role.name()
        );
    }
    let mut arguments = vec![
        "--mode=root".to_owned(),
        "--format=directory".to_owned(),
        "--variant=essential".to_owned(),
        format!("--architectures={}", snapshot.architecture),
        format!("--include={}", include.into_iter().collect::<Vec<_>>().join(",")),
    ];
    arguments.extend(APT.iter().map(|option| format!("--aptopt={option}")));
    arguments.extend(DPKG.iter().map(|option| format!("--dpkgopt={option}")));
    Ok(arguments)
}

/// The view's sources as they are seen at `place`. `copy:` in the place of `file:`, because dpkg works inside the new tree
/// and must find the packages there.
fn sources(snapshot: &Snapshot, place: &Path) -> String {
    aptview::sources(snapshot, place).replace(" file:", " copy:")
}
