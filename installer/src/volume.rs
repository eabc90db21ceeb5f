// SPDX-License-Identifier: GPL-3.0-or-later
//! Foreign volumes that may carry an answer or a public key: sticks, and the writable part of the installer's medium.
//!
//! Attacks faced: a stick with a damaged or hostile file system, a file that fills memory, two answers of which one is not
//! the operator's. Defence: such a file system is never mounted, so no kernel code parses it; mtools and debugfs read
//! single files of known names in a process of their own, as many bytes as allowed; two answers are an error.
//! Not defended: the tools run as root, so a fault in them that a hostile stick exploits is not contained.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, anyhow};
use hypervisor::layout::{ANSWER_LABEL, ANSWER_NAME};
use signing::output::Refused;
use signing::policy::{MAX_FILE, SITE, SiteFiles};
use signing::process::Cmd;

use crate::answer::{Answer, LIMIT, Loaded};
use crate::inventory::{Inventory, Signature, clean};

/// FAT keeps eleven characters of a label.
const FAT_LABEL: usize = 11;
/// As many public keys as fit on a screen.
const KEYS: usize = 32;

/// A file system that can be read without being mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    device: PathBuf,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fat,
    Ext,
}

/// An answer and where it lay.
pub struct Found {
    /// The answer.
    pub loaded: Loaded,
    /// The volume that it was on.
    pub volume: Volume,
}

impl Volume {
    fn of(signature: &Signature) -> Option<Self> {
        let kind = match signature.kind.as_str() {
            "vfat" => Kind::Fat,
            "ext2" | "ext3" | "ext4" => Kind::Ext,
            _ => return None,
        };
        Some(Self {
            device: signature.device.clone(),
            kind,
        })
    }

    /// The node.
    #[must_use]
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Reads a file by its path from the root directory; `None` when there is none.
    ///
    /// # Errors
    /// When the volume cannot be read or the file is longer than `limit`.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let command = match self.kind {
            Kind::Fat => Cmd::new("mcopy")
                .env("MTOOLS_SKIP_CHECK", "1")
                .arg("-i")
                .arg(&self.device)
                .args([&format!("::/{name}"), "-"]),
            Kind::Ext => Cmd::new("debugfs")
                .args(["-R", &format!("cat /{name}")])
                .arg(&self.device),
        };
        let what = || format!("cannot read {name} on {}", self.device.display());
        let mut child = command.spawn(Stdio::piped(), Stdio::piped()).with_context(what)?;
        let mut bytes = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            pipe.take(limit + 1).read_to_end(&mut bytes).with_context(what)?;
        }
        if bytes.len() as u64 > limit {
            // Nobody reads the rest; the program ends on its closed pipe, or by this.
            drop(child.kill());
            drop(child.wait());
            return Err(anyhow!("it is longer than {limit} bytes")).with_context(what);
        }
        let mut complaint = Vec::new();
        if let Some(pipe) = child.stderr.take() {
            pipe.take(limit).read_to_end(&mut complaint).with_context(what)?;
        }
        let status = child.wait().with_context(what)?;
        let complaint = String::from_utf8_lossy(&complaint);
        // Neither program tells absence by its status.
        if bytes.is_empty() && complaint.contains("not found") {
            return Ok(None);
        }
        if !status.success() {
            let complaint = clean(&complaint).unwrap_or_default();
            return Err(anyhow!("{complaint}")).with_context(what);
        }
        Ok(Some(bytes))
    }

    /// Writes a file into the root directory, in place of one that has its name.
    ///
    /// # Errors
    /// When the volume cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8], work: &Path) -> Result<()> {
        let what = || format!("cannot write {name} to {}", self.device.display());
        match self.kind {
            Kind::Fat => Cmd::new("mcopy")
                .env("MTOOLS_SKIP_CHECK", "1")
                .args(["-o", "-i"])
                .arg(&self.device)
                .args(["-", &format!("::/{name}")])
                .input(bytes)
                .run()
                .with_context(what),
            Kind::Ext => {
                let place = work.join(name);
                std::fs::write(&place, bytes).with_context(what)?;
                drop(
                    Cmd::new("debugfs")
                        .args(["-w", "-R", &format!("rm /{name}")])
                        .arg(&self.device)
                        .run(),
                );
                let result = Cmd::new("debugfs")
                    .args(["-w", "-R", &format!("write {} /{name}", place.display())])
                    .arg(&self.device)
                    .run();
                drop(std::fs::remove_file(&place));
                result.with_context(what)
            }
        }
    }

    /// The names in the root directory of a FAT that end with `.pub`.
    fn key_files(&self) -> Vec<String> {
        if self.kind != Kind::Fat {
            return Vec::new();
        }
        let Ok(listing) = Cmd::new("mdir")
            .env("MTOOLS_SKIP_CHECK", "1")
            .arg("-i")
            .arg(&self.device)
            .args(["-b", "::/"])
            .output()
        else {
            return Vec::new();
        };
        String::from_utf8_lossy(&listing)
            .lines()
            .filter_map(|line| line.strip_prefix("::/"))
            .filter(|name| name.to_ascii_lowercase().ends_with(".pub"))
            .filter(|name| {
                name.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
            })
            .take(KEYS)
            .map(str::to_owned)
            .collect()
    }
}

/// The volumes that may carry something for the installer: those with the answer's label, and the writable part of the
/// installer's own medium.
#[must_use]
pub fn candidates(inventory: &Inventory) -> Vec<Volume> {
    select(inventory, |medium, signature| {
        is_labelled(signature) || medium && signature.kind == "vfat"
    })
}

/// The volumes with the answer's label.
#[must_use]
pub fn labelled(inventory: &Inventory) -> Vec<Volume> {
    select(inventory, |_, signature| is_labelled(signature))
}

fn is_labelled(signature: &Signature) -> bool {
    let label = signature.label.as_deref().unwrap_or_default();
    label == ANSWER_LABEL || label == &ANSWER_LABEL[..FAT_LABEL]
}

fn select(inventory: &Inventory, wanted: impl Fn(bool, &Signature) -> bool) -> Vec<Volume> {
    let mut volumes = Vec::new();
    for disk in &inventory.disks {
        for signature in disk
            .signatures
            .iter()
            .filter(|signature| wanted(disk.medium, signature))
        {
            if let Some(volume) = Volume::of(signature)
                && !volumes.contains(&volume)
            {
                volumes.push(volume);
            }
        }
    }
    volumes
}

/// The one answer on the media, if there is one.
///
/// # Errors
/// When an answer cannot be read or is not valid, or when there are two.
pub fn find_answer(inventory: &Inventory) -> Result<Option<Found>> {
    let mut found: Option<Found> = None;
    for volume in candidates(inventory) {
        let Some(bytes) = volume.read(ANSWER_NAME, LIMIT)? else {
            continue;
        };
        if let Some(first) = &found {
            return Err(anyhow::Error::new(Refused(format!(
                "there is an answer on {} and one on {}: remove one",
                first.volume.device.display(),
                volume.device.display()
            ))));
        }
        let what = || format!("cannot use {ANSWER_NAME} on {}", volume.device.display());
        let mut loaded = Answer::from_bytes(bytes).with_context(what)?;
        if loaded.answer.trust.site_root.is_some() {
            let give = |name: &str| {
                let name = format!("{SITE}/{name}");
                let bytes = volume.read(&name, MAX_FILE)?;
                bytes.with_context(|| format!("the answer names a site, and there is no {name}"))
            };
            loaded.site = Some(SiteFiles::gather(give).with_context(what)?);
        }
        found = Some(Found { loaded, volume });
    }
    Ok(found)
}

/// The public keys on the media: file name and content.
#[must_use]
pub fn find_keys(inventory: &Inventory) -> Vec<(String, String)> {
    let mut keys = Vec::new();
    for volume in candidates(inventory) {
        for name in volume.key_files() {
            if let Ok(Some(bytes)) = volume.read(&name, 16 * 1024)
                && let Ok(text) = String::from_utf8(bytes)
            {
                keys.push((name, text.trim().to_owned()));
            }
        }
    }
    keys.truncate(KEYS);
    keys
}

/// Marks the disk under a volume as one that is never written: the answer came from it.
pub fn protect(inventory: &mut Inventory, volume: &Volume) {
    for disk in &mut inventory.disks {
        let own = disk.path == volume.device || disk.partitions.iter().any(|partition| partition.path == volume.device);
        disk.medium |= own;
    }
}
