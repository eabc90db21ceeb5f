// SPDX-License-Identifier: GPL-3.0-or-later
//! `upstream.tar`: the snapshot's manifest and upstream's own signed files, so that an auditor can prove every package.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use offline_repo::snapshot::Snapshot;
use offline_repo::store::Store;

/// Writes the archive: the same bytes for the same snapshot.
///
/// # Errors
/// When the store lacks a file or the archive cannot be written.
pub fn write(store: &Store, snapshot: &Snapshot, epoch: u64, out: &Path) -> Result<()> {
    let directory = store.snapshot_directory(&snapshot.name)?;
    let file = File::create(out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut archive = tar::Builder::new(BufWriter::new(file));
    let mut names = vec!["snapshot.json".to_owned()];
    for origin in &snapshot.created_from {
        names.push(origin.inrelease.file.clone());
        names.extend(origin.packages.iter().map(|index| index.file.clone()));
    }
    for name in names {
        let path = directory.join(&name);
        let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let size = fs::metadata(&path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .len();
        let mut header = tar::Header::new_ustar();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(epoch);
        archive
            .append_data(&mut header, &name, file)
            .with_context(|| format!("cannot add {name} to {}", out.display()))?;
    }
    archive
        .into_inner()
        .and_then(|mut writer| writer.flush())
        .with_context(|| format!("cannot write {}", out.display()))
}
