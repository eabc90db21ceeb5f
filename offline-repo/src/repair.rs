// SPDX-License-Identifier: GPL-3.0-or-later
//! `repair`: objects that are damaged, missing or unreadable are taken from another store's pool.
//!
//! The other pool is believed nothing: an object of it is read and held against its name before anything of ours is touched,
//! and again while it is copied. It comes in as every object does, whole or not at all, in one rename. What upstream signed
//! lies in the snapshots as links to objects; a link that went bad with its object is made anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Serialize;
use signing::digest::{self, Sha256};
use signing::durable;
use signing::output::{self, Exit, Usage};

use crate::store::{self, Lock, Store, TEMPORARY};
use crate::verify::{self, Finding, Step, Unread};

/// What was done.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Objects that were read to find what is wrong.
    pub objects: u64,
    /// What was wrong and is whole now.
    pub repaired: Vec<Finding>,
    /// What is still wrong, with why it could not be repaired.
    pub unrepaired: Vec<Finding>,
    /// Upstream's files in snapshots that were put right.
    pub relinked: Vec<PathBuf>,
    /// What could not be read, and is no object.
    pub unread: Vec<Unread>,
}

impl Report {
    /// What it means to a caller: refused where something is still wrong.
    #[must_use]
    pub fn exit(&self) -> Exit {
        if !self.unrepaired.is_empty() {
            Exit::Refused
        } else if !self.unread.is_empty() {
            Exit::CouldNotCheck
        } else {
            Exit::Done
        }
    }
}

/// Verifies a store, and takes from another one what is not whole.
///
/// # Errors
/// [`Usage`] when both are the same store; when somebody else writes or verifies this one. An object that cannot be repaired
/// is no error but in the report.
pub fn repair(store: &Store, from: &Store, tell: &mut dyn FnMut(Step)) -> Result<Report> {
    if store.root() == from.root() {
        let same = format!(
            "{} cannot be repaired from itself: name another store",
            store.root().display()
        );
        return Err(anyhow!(Usage(same)));
    }
    let lock = store.lock()?;
    // What a run left that was cut off.
    for part in ["pool", "snapshots"] {
        store::sweep(&store.root().join(part))?;
    }
    let seen = verify::verify(store, false, tell)?;
    let mut report = Report {
        objects: seen.objects,
        repaired: Vec::new(),
        unrepaired: Vec::new(),
        relinked: Vec::new(),
        unread: Vec::new(),
    };
    let mut wrong = [seen.damaged, seen.missing].concat();
    for unread in seen.unread {
        match object_at(store, &unread.path) {
            Some(sha256) => wrong.push(Finding {
                sha256,
                path: unread.path,
                why: unread.why,
                needed_by: Vec::new(),
            }),
            None => report.unread.push(unread),
        }
    }
    for mut finding in wrong {
        match replace(store, &lock, from, &finding.sha256) {
            Ok(()) => report.repaired.push(finding),
            Err(error) => {
                finding.why = format!("{}; {}", finding.why, output::chain(&error));
                report.unrepaired.push(finding);
            }
        }
    }
    relink(store, &mut report)?;
    Ok(report)
}

/// Which object has this place.
fn object_at(store: &Store, path: &Path) -> Option<Sha256> {
    let sha256 = path.file_name()?.to_str()?.parse().ok()?;
    (store.object(&sha256) == path).then_some(sha256)
}

fn replace(store: &Store, lock: &Lock, from: &Store, sha256: &Sha256) -> Result<()> {
    let source = from.object(sha256);
    let length = whole(&source, sha256)?;
    let place = store.object(sha256);
    // A writer would follow a link and replace what it names. A directory is somebody's, and stays.
    if fs::symlink_metadata(&place).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        fs::remove_file(&place).with_context(|| format!("cannot remove {}", place.display()))?;
    }
    let mut file = digest::open_regular(&source).with_context(|| format!("cannot read {}", source.display()))?;
    store.ingest(lock, &mut file, sha256, length, &source.display().to_string())
}

/// The length of a file that must have this digest.
fn whole(path: &Path, sha256: &Sha256) -> Result<u64> {
    let read = || format!("cannot read {}", path.display());
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!("{} is not there", path.display()),
        found => ensure!(
            found.with_context(read)?.is_file(),
            "{} is no regular file",
            path.display()
        ),
    }
    let mut file = digest::open_regular(path).with_context(read)?;
    let (found, length) = digest::copy(&mut file, &mut io::sink()).with_context(read)?;
    ensure!(found == *sha256, "{} is damaged itself", path.display());
    Ok(length)
}

/// Puts upstream's files in the snapshots right that are not what the manifest says, from the pool.
fn relink(store: &Store, report: &mut Report) -> Result<()> {
    for name in store.snapshots()? {
        // One that cannot be read was named by the verification.
        let Ok(snapshot) = store.snapshot(&name) else { continue };
        for index in snapshot.created_from.iter().flat_map(|origin| &origin.packages) {
            let file = store.snapshot_directory(&name)?.join(&index.file);
            if whole(&file, &index.sha256).is_ok() || whole(&store.object(&index.sha256), &index.sha256).is_err() {
                continue;
            }
            link_anew(&store.object(&index.sha256), &file)
                .with_context(|| format!("cannot put {} right", file.display()))?;
            report.relinked.push(file);
        }
    }
    Ok(())
}

/// In one step: the old file or the new one, whole.
fn link_anew(object: &Path, file: &Path) -> Result<()> {
    let directory = file.parent().context("it has no directory")?;
    durable::make_directories(directory)?;
    let fresh = directory.join(format!("{TEMPORARY}link"));
    store::link_or_copy(object, &fresh)?;
    fs::rename(&fresh, file)?;
    Ok(durable::sync_directory(directory)?)
}
