// SPDX-License-Identifier: GPL-3.0-or-later
//! The stick that carries a bundle.
//!
//! Attacks faced: a file system made to break the kernel, device nodes, programs, links out of it, several bundles of
//! which the wrong one is taken. Defence: few kinds of file systems, mounted read-only without devices, set-user-ID or
//! programs, ext4 without its journal; the bundle is the only regular file of its kind at the top. Defence not made: the
//! kernel's own parsers see the stick's bytes unverified, because a stick that people can fill has a file system.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use signing::output::Refused;
use signing::process::Cmd;

use super::server::Address;
use crate::layout;

/// File systems that are mounted, with their options.
const KINDS: [(&str, Option<&str>); 4] = [
    ("vfat", None),
    ("exfat", None),
    ("ext4", Some("noload")),
    ("iso9660", None),
];

/// Where a bundle comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// The file system on this device or on its one partition.
    Device(PathBuf),
    /// The site's server.
    Server {
        /// Where it is.
        address: Address,
        /// The certificate that is pinned, in PEM.
        certificate: PathBuf,
    },
    /// The one stick with the label [`layout::BUNDLE_LABEL`].
    Search,
}

/// A mounted stick, unmounted when dropped.
#[derive(Debug)]
pub struct Stick {
    directory: PathBuf,
}

impl Stick {
    /// Mounts a stick.
    ///
    /// # Errors
    /// When it has no file system that is allowed, or cannot be mounted.
    pub fn mount(run: &Path, device: &Path) -> Result<Self> {
        let (node, kind) = file_system(device)?;
        let Some((kind, options)) = KINDS.iter().find(|(name, _)| *name == kind) else {
            bail!(Refused(format!(
                "{} holds a {kind} file system: a stick for updates has vfat, exfat, ext4 or iso9660",
                node.display()
            )));
        };
        let what = || format!("cannot mount the stick {}", node.display());
        let directory = run.join("stick");
        fs::create_dir_all(&directory).with_context(what)?;
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        mount(Some(&node), &directory, Some(*kind), flags, *options).with_context(what)?;
        Ok(Self { directory })
    }

    /// The one bundle on it.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn bundle(&self) -> Result<PathBuf> {
        bundle_in(&self.directory)
    }
}

impl Drop for Stick {
    fn drop(&mut self) {
        // It is mounted read-only: pulling it out instead does no harm either.
        let _ = umount2(&self.directory, MntFlags::MNT_DETACH);
    }
}

fn bundle_in(directory: &Path) -> Result<PathBuf> {
    let mut bundles = Vec::new();
    for entry in fs::read_dir(directory).context("cannot list the stick")? {
        let entry = entry.context("cannot list the stick")?;
        let is_bundle = entry.path().extension().is_some_and(|extension| extension == "bundle");
        if is_bundle && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            bundles.push(entry.path());
        }
    }
    bundles.sort();
    match bundles.as_slice() {
        [bundle] => Ok(bundle.clone()),
        [] => bail!(Refused("the stick has no file NAME.bundle at its top".into())),
        several => {
            let names: Vec<_> = several
                .iter()
                .filter_map(|path| path.file_name())
                .map(|name| name.to_string_lossy())
                .collect();
            bail!(Refused(format!(
                "the stick has several bundles: name one of {} on the command line",
                names.join(", ")
            )))
        }
    }
}

/// The device with the label of a stick for updates.
pub(super) fn labelled() -> Result<PathBuf> {
    // It ends with a failure where it finds nothing.
    let (_, out, _) = Cmd::new("blkid")
        .args([
            "-c",
            "/dev/null",
            "-o",
            "device",
            "-t",
            &format!("LABEL={}", layout::BUNDLE_LABEL),
        ])
        .status()
        .context("cannot look for a stick")?;
    let text = String::from_utf8_lossy(&out);
    let devices: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    match devices.as_slice() {
        [device] => Ok(device.into()),
        [] => bail!(
            "no stick with the label {} is there: plug it in, or name a file or --device",
            layout::BUNDLE_LABEL
        ),
        several => bail!(
            "several sticks have the label {}: name one with --device: {}",
            layout::BUNDLE_LABEL,
            several.join(" ")
        ),
    }
}

/// The file system on a device, or on the one of its partitions that has an allowed one.
fn file_system(device: &Path) -> Result<(PathBuf, String)> {
    if let Some(kind) = kind_of(device)? {
        return Ok((device.to_path_buf(), kind));
    }
    let mut found = Vec::new();
    for node in partitions(device)? {
        if let Some(kind) = kind_of(&node)?.filter(|kind| KINDS.iter().any(|(name, _)| name == kind)) {
            found.push((node, kind));
        }
    }
    match found.len() {
        0 => bail!(
            "{} holds no file system that can be read: copy the bundle onto a vfat, exfat or ext4 stick",
            device.display()
        ),
        1 => Ok(found.swap_remove(0)),
        _ => bail!(
            "{} has several file systems: name the partition with --device",
            device.display()
        ),
    }
}

fn kind_of(node: &Path) -> Result<Option<String>> {
    fs::File::open(node).with_context(|| format!("cannot open {}", node.display()))?;
    // It ends with a failure where it finds nothing.
    let (_, out, _) = Cmd::new("blkid")
        .args(["-p", "-s", "TYPE", "-o", "value"])
        .arg(node)
        .status()
        .with_context(|| format!("cannot look at {}", node.display()))?;
    let kind = String::from_utf8_lossy(&out).trim().to_owned();
    Ok((!kind.is_empty()).then_some(kind))
}

fn partitions(device: &Path) -> Result<Vec<PathBuf>> {
    let what = || format!("cannot list the partitions of {}", device.display());
    let node = device.canonicalize().with_context(what)?;
    let name = node.file_name().with_context(what)?;
    let mut nodes = Vec::new();
    let Ok(entries) = fs::read_dir(Path::new("/sys/class/block").join(name)) else {
        return Ok(nodes);
    };
    for entry in entries.flatten() {
        if entry.path().join("partition").exists() {
            nodes.push(Path::new("/dev").join(entry.file_name()));
        }
    }
    nodes.sort();
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_one_bundle_and_no_link() {
        let directory = tempfile::tempdir().unwrap();
        assert!(
            bundle_in(directory.path())
                .unwrap_err()
                .to_string()
                .contains("no file NAME.bundle")
        );
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("a.bundle")).unwrap();
        assert!(bundle_in(directory.path()).is_err());
        fs::write(directory.path().join("b.bundle"), "").unwrap();
        assert_eq!(bundle_in(directory.path()).unwrap(), directory.path().join("b.bundle"));
        fs::write(directory.path().join("c.bundle"), "").unwrap();
        assert!(
            bundle_in(directory.path())
                .unwrap_err()
                .to_string()
                .contains("b.bundle, c.bundle")
        );
    }
}
