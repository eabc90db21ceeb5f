// SPDX-License-Identifier: GPL-3.0-or-later
//! Takes everything old off the disk, by name, beginning with what could boot.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use signing::process::Cmd;

use super::Target;
use crate::inventory::{self, Disk, Partition, Scan};
use crate::steps::Running;

/// What is zeroed at each end of the disk and of each old partition: tables, boot sectors, superblocks.
const END: u64 = 1 << 20;

/// Erases the disk: stops what runs on it, destroys its tables and the heads of its partitions, then has wipefs take
/// every signature that the inventory named, and looks again.
///
/// # Errors
/// When something cannot be stopped or erased, or a signature is still there afterwards.
pub fn erase(disk: &Disk, running: &mut Running<'_>) -> Result<()> {
    stop_holders(&disk.holders, running)?;
    let target = Target::open(&disk.path)?;
    // The tables and the heads of the old partitions come first and are synced: from here on nothing old boots.
    clear(&target, 0, disk.size)?;
    for partition in &disk.partitions {
        clear(&target, partition.start, partition.size)?;
    }
    target.sync()?;
    running.say(format!("nothing on {} boots any more", disk.path.display()));
    for partition in &disk.partitions {
        wipe(&partition.path)?;
    }
    wipe(&disk.path)?;
    for signature in &disk.signatures {
        running.say(format!("wiped {signature}"));
    }
    forget_partitions(disk)?;
    target.sync()?;
    target.forget()?;
    look_again(disk)
}

fn clear(target: &Target, start: u64, size: u64) -> Result<()> {
    let end = END.min(size);
    target.zero(start, end)?;
    target.zero(start + size - end, end)
}

fn wipe(node: &Path) -> Result<()> {
    if !node.exists() {
        return Ok(());
    }
    Cmd::new("wipefs")
        .args(["--all", "--force", "--quiet"])
        .arg(node)
        .run()
        .with_context(|| format!("cannot wipe the old signatures of {}", node.display()))
}

/// Makes the kernel forget the old partitions. wipefs makes it read the table anew, so it may have forgotten them by
/// itself; partx then complains, and only a partition that is still known counts.
fn forget_partitions(disk: &Disk) -> Result<()> {
    if disk.partitions.is_empty() {
        return Ok(());
    }
    let asked = Cmd::new("partx").arg("--delete").arg(&disk.path).run();
    let is_known = |partition: &&Partition| {
        let name = partition.path.file_name().unwrap_or_default();
        Path::new("/sys/class/block").join(name).exists()
    };
    match disk.partitions.iter().find(is_known) {
        Some(known) => asked.with_context(|| format!("cannot make the kernel forget {}", known.path.display())),
        None => Ok(()),
    }
}

fn look_again(disk: &Disk) -> Result<()> {
    let scan = Scan {
        only: vec![disk.path.clone()],
        ..Scan::default()
    };
    let again = inventory::disks(&scan)?;
    if let Some(why) = again.iter().find_map(|disk| disk.unreadable.as_ref()) {
        bail!("{} cannot be read after wiping: {why}", disk.path.display());
    }
    let left: Vec<String> = again
        .iter()
        .flat_map(|disk| &disk.signatures)
        .map(ToString::to_string)
        .collect();
    if !left.is_empty() {
        bail!(
            "{} still holds {} after wiping: the disk may be write-protected or faulty",
            disk.path.display(),
            left.join(", ")
        );
    }
    Ok(())
}

/// Stops arrays and volumes that the kernel built on the disk, those on top first.
fn stop_holders(holders: &[String], running: &mut Running<'_>) -> Result<()> {
    for name in holders {
        let sysfs = Path::new("/sys/class/block").join(name);
        let above: Vec<String> = fs::read_dir(sysfs.join("holders"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        stop_holders(&above, running)?;
        if !sysfs.exists() {
            continue;
        }
        let node = Path::new("/dev").join(name);
        let command = if name.starts_with("md") {
            Cmd::new("mdadm").arg("--stop").arg(&node)
        } else if name.starts_with("dm-") {
            Cmd::new("dmsetup").arg("remove").arg(&node)
        } else {
            bail!("{name} is built on the disk and its kind is not known: stop it by hand");
        };
        command
            .run()
            .with_context(|| format!("cannot stop {name}, which is built on the disk"))?;
        running.say(format!("stopped {name}"));
    }
    Ok(())
}
