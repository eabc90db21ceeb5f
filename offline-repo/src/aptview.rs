// SPDX-License-Identifier: GPL-3.0-or-later
//! A snapshot as an apt archive on disk: upstream's own signed lists and the packages of the pool under the names that
//! the lists give them. apt in a builder root reads it with no network and verifies upstream's signatures once more.
//!
//! The lists name all of upstream; the packages are those of the snapshot. apt that asks for another one fails.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use signing::durable;

use crate::apt;
use crate::snapshot::Snapshot;
use crate::store::{Store, link_or_copy};

/// The pinned keyring's name in a view.
pub const KEYRING: &str = "keyring.asc";

/// Makes the view of a snapshot in `directory`, which is made where it is missing:
/// `<path>/dists/<suite>/...`, `<path>/<filename>`, `keyring.asc` and `sources.list` with the directory's own address.
///
/// # Errors
/// When an object is missing from the pool, or a file cannot be written.
pub fn materialise(store: &Store, snapshot: &Snapshot, directory: &Path, keyring: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let directory = &fs::canonicalize(directory).with_context(|| format!("cannot open {}", directory.display()))?;
    apt::named_for_apt(directory)?;
    let kept = store.snapshot_directory(&snapshot.name)?;
    for origin in &snapshot.created_from {
        let dists = directory.join(&origin.path).join("dists").join(&origin.suite);
        place(&kept.join(&origin.inrelease.file), &dists.join("InRelease"))?;
        for index in &origin.packages {
            let binary = dists.join(format!("{}/binary-{}", index.component, snapshot.architecture));
            let object = store.object(&index.sha256);
            place(&object, &binary.join("Packages.xz"))?;
            // The name that apt asks for first where the list says Acquire-By-Hash.
            place(&object, &binary.join(format!("by-hash/SHA256/{}", index.sha256)))?;
        }
    }
    for package in &snapshot.packages {
        let origin = snapshot
            .origin(&package.suite)
            .with_context(|| format!("{} is of the unknown suite {}", package.name, package.suite))?;
        if !store.has(&package.sha256, package.size) {
            bail!(
                "the pool lacks {} {} ({}): mirror the snapshot {} again",
                package.name,
                package.version,
                package.sha256,
                snapshot.name
            );
        }
        let path = directory.join(&origin.path).join(&package.filename);
        place(&store.object(&package.sha256), &path)?;
    }
    let bytes = fs::read(keyring).with_context(|| format!("cannot read the keyring {}", keyring.display()))?;
    durable::write(&directory.join(KEYRING), &bytes)?;
    durable::write(&directory.join("sources.list"), sources(snapshot, directory).as_bytes())
        .with_context(|| format!("cannot write {}", directory.join("sources.list").display()))
}

/// The lines of a `sources.list` for a view that is seen at `seen_at`, which in a builder root is not where it was made.
#[must_use]
pub fn sources(snapshot: &Snapshot, seen_at: &Path) -> String {
    let at = seen_at.display();
    let line = |origin: &crate::snapshot::Origin| {
        format!(
            "deb [signed-by={at}/{KEYRING} check-valid-until=no] file:{at}/{} {} {}\n",
            origin.path,
            origin.suite,
            origin.components.join(" ")
        )
    };
    snapshot.created_from.iter().map(line).collect()
}

fn place(from: &Path, to: &Path) -> Result<()> {
    let make = || -> std::io::Result<()> {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        link_or_copy(from, to)
    };
    make().with_context(|| format!("cannot place {} at {}", from.display(), to.display()))
}
