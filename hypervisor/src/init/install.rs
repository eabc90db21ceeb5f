// SPDX-License-Identifier: GPL-3.0-or-later
//! The installer's medium: a stick or a disc, its targets, and the one root file system among them that the boot image is for.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, umount2};
use signing::digest::Sha256;
use signing::process::Cmd;
use signing::release::Part;

use super::devices::{Coldplug, Disk, disks};
use super::report::{Boot, From};
use super::{Orders, SYSROOT, console, iso, mounts, verity};
use crate::layout;

/// How long the medium may take to appear: a BMC's virtual disc is slow.
const LIMIT: Duration = Duration::from_secs(180);
/// The targets on the medium.
const TARGETS: &str = "bastide/targets.squashfs";
/// Where the changes of the running installer go: memory.
const SCRATCH: &str = "/run/bastide/scratch";
/// The most entries of a directory on the medium that are looked at.
const MAX_ENTRIES: usize = 4096;

/// Puts the root file system of the installer together.
///
/// # Errors
/// When no medium with this release appears.
pub fn prepare(root_hash: &Sha256, orders: &Orders) -> Result<Boot> {
    Coldplug::load(&orders.load);
    Coldplug::load(&orders.load_install);
    let mut refused = Vec::new();
    let mut coldplug = Coldplug::default();
    let (medium, pair) = coldplug.wait("the installation medium (is it still plugged in?)", LIMIT, || {
        Ok(look(root_hash, &mut refused))
    })?;
    let targets = Path::new(layout::TARGETS_MOUNT);
    verity::open(
        &attach(&targets.join(&pair.image))?,
        &attach(&targets.join(&pair.tree))?,
        root_hash,
    )?;
    mounts::root()?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mounts::mount(Path::new("tmpfs"), Path::new(SCRATCH), "tmpfs", flags, "mode=0755")?;
    let scratch = Path::new(SCRATCH);
    mounts::overlay("etc", &scratch.join("etc"), MsFlags::empty())?;
    mounts::overlay("var", &scratch.join("var"), MsFlags::MS_NOEXEC)?;
    mounts::home(&scratch.join("root"))?;
    mounts::memory()?;
    coldplug.finish(Path::new(SYSROOT), &orders.load_root);
    Ok(Boot {
        format: 1,
        root_hash: *root_hash,
        from: From::Install {
            medium,
            image: pair.image,
        },
    })
}

/// The medium among the devices that are there, mounted, and the image on it.
fn look(root_hash: &Sha256, refused: &mut Vec<Disk>) -> Option<(PathBuf, Pair)> {
    for disk in disks() {
        if refused.contains(&disk) {
            continue;
        }
        let label = disk.open().and_then(|mut device| iso::label(&mut device));
        if !matches!(label, Ok(Some(label)) if label == layout::MEDIUM_LABEL) {
            continue;
        }
        match mounted(&disk, root_hash) {
            Ok(pair) => return Some((disk.node(), pair)),
            Err(error) => {
                // An older stick in another port, perhaps: said once, and the search goes on.
                console::error(&format!(
                    "{} is not the medium of this boot: {error:#}",
                    disk.node().display()
                ));
                for place in [layout::TARGETS_MOUNT, layout::MEDIUM_MOUNT] {
                    let _ = umount2(place, MntFlags::MNT_DETACH);
                }
                refused.push(disk);
            }
        }
    }
    None
}

/// Mounts a medium and its targets and finds the image of the root hash.
fn mounted(disk: &Disk, root_hash: &Sha256) -> Result<Pair> {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let medium = Path::new(layout::MEDIUM_MOUNT);
    mounts::mount(&disk.node(), medium, "iso9660", flags, "")?;
    let targets = Path::new(layout::TARGETS_MOUNT);
    mounts::mount(&attach(&medium.join(TARGETS))?, targets, "squashfs", flags, "")?;
    find(targets, root_hash)
}

/// A root file system and its hash tree, relative to the targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The root file system.
    pub image: PathBuf,
    /// Its hash tree.
    pub tree: PathBuf,
}

/// The image of a root hash below `host/VERSION/`: the one beside a hash tree of that root hash.
///
/// # Errors
/// When there is none.
pub fn find(targets: &Path, root_hash: &Sha256) -> Result<Pair> {
    let suffix = format!(".{}", Part::Verity.file());
    for version in list(&targets.join("host"))? {
        for file in list(&version)? {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if !name.ends_with(&suffix) {
                continue;
            }
            let mut tree = File::open(&file).with_context(|| format!("cannot open {}", file.display()))?;
            if !verity::is_tree_of(&mut tree, root_hash).with_context(|| format!("cannot read {}", file.display()))? {
                continue;
            }
            let image = list(&version)?.into_iter().find(|file| {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                name.ends_with(&format!(".{}", Part::Root.file()))
            });
            let image = image.with_context(|| format!("{} has no root file system", version.display()))?;
            return Ok(Pair {
                image: image.strip_prefix(targets)?.to_path_buf(),
                tree: file.strip_prefix(targets)?.to_path_buf(),
            });
        }
    }
    bail!("it does not hold the release of root hash {root_hash}")
}

/// A directory's entries in order, bounded.
fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut paths = Vec::new();
    for entry in entries.take(MAX_ENTRIES) {
        paths.push(
            entry
                .with_context(|| format!("cannot list {}", directory.display()))?
                .path(),
        );
    }
    paths.sort();
    Ok(paths)
}

/// A read-only loop device over a file.
fn attach(file: &Path) -> Result<PathBuf> {
    let output = Cmd::new("losetup")
        .args(["--find", "--show", "--read-only"])
        .arg(file)
        .output()
        .with_context(|| format!("cannot read {} as a device", file.display()))?;
    let node = PathBuf::from(String::from_utf8_lossy(&output).trim());
    if !node.starts_with("/dev") {
        bail!("losetup made no device for {}", file.display());
    }
    Ok(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_medium_without_the_release_says_so() {
        let medium = tempfile::tempdir().unwrap();
        let version = medium.path().join("host/1.0.0");
        fs::create_dir_all(&version).unwrap();
        fs::write(version.join("aa.root.verity"), vec![0; 9000]).unwrap();
        fs::write(version.join("bb.root.erofs"), "x").unwrap();
        let error = find(medium.path(), &Sha256([1; 32])).unwrap_err().to_string();
        assert!(error.contains("does not hold the release"), "{error}");
        assert!(find(&medium.path().join("gone"), &Sha256([1; 32])).is_err());
    }
}
