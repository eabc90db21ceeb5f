// SPDX-License-Identifier: GPL-3.0-or-later
//! The smallest guest: the host's own kernel and an initrd with one static program from the same snapshot.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use offline_repo::snapshot::Snapshot;
use offline_repo::spec::Role;

use crate::cpio::{Archive, Entry};
use crate::modules::kernel_version;
use crate::normalise;
use crate::sandbox::Sandbox;

/// Where the guest's files lie in the image.
pub const DIRECTORY: &str = "usr/share/bastide/guest";

/// What the guest runs: it says who it is, so that whoever reads its console hears it, and stays.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev 2>/dev/null
exec </dev/hvc0 >/dev/hvc0 2>&1
echo \"bastide guest: up, Linux $(/bin/busybox uname -r) on $(/bin/busybox cat /sys/hypervisor/type)\"
trap '/bin/busybox poweroff -f' TERM
count=0
while :; do
  count=$((count + 1))
  echo \"bastide guest: alive $count\"
  /bin/busybox sleep 5
done
";

/// Puts the guest's kernel (a link to the host's) and initrd into the host tree.
///
/// # Errors
/// When the snapshot's guest packages do not hold a static busybox, or the tree cannot be written.
pub fn install(sandbox: &Sandbox, view: &Path, snapshot: &Snapshot, scratch: &Path, tree: &Path) -> Result<()> {
    let unpacked = scratch.join("guest");
    std::fs::create_dir_all(&unpacked).with_context(|| format!("cannot make {}", unpacked.display()))?;
    for package in snapshot.of(Role::Guest) {
        let origin = snapshot
            .origin(&package.suite)
            .with_context(|| format!("{} is of the unknown suite {}", package.name, package.suite))?;
        sandbox
            .step("dpkg-deb")
            .arg("-x")
            .arg(Path::new("/mnt/view").join(&origin.path).join(&package.filename))
            .arg("/mnt/guest")
            .read(view, "/mnt/view")
            .write(&unpacked, "/mnt/guest")
            .run()
            .with_context(|| format!("cannot unpack the guest's package {}", package.name))?;
    }
    let program = busybox(&unpacked)?;
    let bytes = std::fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    let mut archive = Archive::default();
    for name in ["dev", "proc", "sys", "tmp"] {
        archive.put(name, Entry::Directory(0o755));
    }
    archive.put("dev/console", Entry::Device(0o600, 5, 1));
    archive.put("bin/busybox", Entry::File(0o755, bytes));
    archive.put("bin/sh", Entry::Link("busybox".to_owned()));
    archive.put("init", Entry::File(0o755, INIT.into()));
    let directory = tree.join(DIRECTORY);
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let place = directory.join("initrd.img");
    let file = File::create(&place).with_context(|| format!("cannot make {}", place.display()))?;
    let mut writer = BufWriter::new(file);
    let date = u32::try_from(sandbox.epoch()).context("the date of the build does not fit a cpio archive")?;
    archive
        .write(&mut writer, date)
        .and_then(|()| writer.flush())
        .with_context(|| format!("cannot write {}", place.display()))?;
    // The licence goes where the program goes.
    for package in snapshot.of(Role::Guest) {
        let name = format!("usr/share/doc/{}/copyright", package.name);
        let file = unpacked.join(&name);
        let there = std::fs::symlink_metadata(&file).is_ok_and(|data| data.is_file());
        if there && !tree.join(&name).exists() {
            let text = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            normalise::put(tree, &name, &text, 0o644)?;
        }
    }
    let kernel = format!("vmlinuz-{}", kernel_version(tree)?);
    link(&kernel, &tree.join("boot/vmlinuz"))?;
    link(&format!("/boot/{kernel}"), &directory.join("vmlinuz"))
}

fn busybox(unpacked: &Path) -> Result<PathBuf> {
    let places = ["usr/bin/busybox", "bin/busybox"];
    match places
        .iter()
        .map(|name| unpacked.join(name))
        .find(|path| path.is_file())
    {
        Some(path) => Ok(path),
        None => {
            bail!("the snapshot's guest packages hold no busybox: put busybox-static on the specification's guest list")
        }
    }
}

fn link(target: &str, place: &Path) -> Result<()> {
    normalise::remove(place)?;
    std::os::unix::fs::symlink(target, place).with_context(|| format!("cannot link {}", place.display()))
}
