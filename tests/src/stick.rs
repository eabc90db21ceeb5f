// SPDX-License-Identifier: GPL-3.0-or-later
//! USB sticks as image files: one FAT volume, as a courier's stick has.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use signing::process::Cmd;

use crate::vm::Machine;

/// The label of the stick that a courier brings, by which a host finds it.
pub const COURIER: &str = "BASTIDE-BDL";

/// Makes a courier's stick with these bundles, beside the machine that it is for.
///
/// # Errors
/// As [`make`].
pub fn courier(machine: &Machine, bundles: &[(&str, &Path)]) -> Result<PathBuf> {
    let image = machine.directory.join("courier.img");
    make(&image, COURIER, bundles)?;
    Ok(image)
}

/// Makes a stick with the given label (at most 11 characters) that holds the files under the given names, which may have one
/// directory.
///
/// # Errors
/// When a file cannot be read or the image cannot be made.
pub fn make(image: &Path, label: &str, files: &[(&str, &Path)]) -> Result<()> {
    let mut bytes = 40 << 20;
    for (_, file) in files {
        bytes += fs::metadata(file)
            .with_context(|| format!("reading {}", file.display()))?
            .len();
    }
    drop(fs::remove_file(image));
    File::create(image)?.set_len(bytes + bytes / 50)?;
    Cmd::new("mkfs.vfat").args(["-F", "32", "-n", label]).arg(image).run()?;
    let mut made = Vec::new();
    for (name, file) in files {
        if let Some((directory, _)) = name.split_once('/')
            && !made.contains(&directory)
        {
            made.push(directory);
            let directory = format!("::{directory}");
            Cmd::new("mmd").arg("-i").arg(image).arg(directory).run()?;
        }
        Cmd::new("mcopy")
            .arg("-i")
            .arg(image)
            .arg(file)
            .arg(format!("::{name}"))
            .run()?;
    }
    Ok(())
}

/// Takes a file off a stick.
///
/// # Errors
/// When it is not there.
pub fn read(image: &Path, name: &str) -> Result<Vec<u8>> {
    Ok(Cmd::new("mtype")
        .arg("-i")
        .arg(image)
        .arg(format!("::{name}"))
        .output()?)
}
