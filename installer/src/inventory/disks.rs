// SPDX-License-Identifier: GPL-3.0-or-later
//! The disks: lsblk for what udev knows, sysfs for what it does not, so that a system without udev sees the same.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use signing::process::Cmd;

use super::{Disk, Partition, Signature, clean, clean_to, signatures};

/// How much is told of why a disk cannot be looked into.
const COMPLAINT: usize = 512;

/// Which devices are looked at.
#[derive(Debug, Clone, Default)]
pub struct Scan {
    /// Only these nodes; loop devices are disks only if named here. Empty: all disks of the machine.
    pub only: Vec<PathBuf>,
    /// Mount points of the installer's medium: the disks below them are never written.
    pub medium: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Listing {
    blockdevices: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    path: PathBuf,
    model: Option<String>,
    serial: Option<String>,
    size: Option<u64>,
    tran: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    ro: bool,
    #[serde(rename = "log-sec")]
    sector: Option<u64>,
}

pub(super) fn scan(scan: &Scan) -> Result<Vec<Disk>> {
    let columns = "NAME,PATH,MODEL,SERIAL,SIZE,TRAN,TYPE,RO,LOG-SEC";
    let mut command = Cmd::new("lsblk").args(["--json", "--bytes", "--nodeps", "--output", columns]);
    let mut only = Vec::new();
    for node in &scan.only {
        // A link such as those below /dev/disk must name the same disk as its node.
        let node = fs::canonicalize(node).with_context(|| format!("cannot find the device {}", node.display()))?;
        let block = fs::metadata(&node).is_ok_and(|metadata| metadata.file_type().is_block_device());
        if !block {
            bail!("{} is not a disk: name a block device such as /dev/sda", node.display());
        }
        command = command.arg(&node);
        only.push(node);
    }
    let output = command.output().context("cannot list the disks")?;
    let listing: Listing = serde_json::from_slice(&output).context("cannot understand lsblk's list of disks")?;
    let mounts = mounts().context("cannot read which disks are mounted")?;
    let links = links();
    let mut disks = Vec::new();
    for listed in listing.blockdevices {
        let named = only.contains(&listed.path);
        let real = listed.kind == "disk" && !listed.name.starts_with("zram") && !listed.name.starts_with("ram");
        let size = listed.size.unwrap_or(0);
        if !(real || named && listed.kind == "loop") || size == 0 {
            continue;
        }
        disks.push(look(&listed, size, scan, &mounts, &links)?);
    }
    disks.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(disks)
}

fn look(
    listed: &Listed,
    size: u64,
    scan: &Scan,
    mounts: &[(PathBuf, PathBuf)],
    links: &BTreeMap<PathBuf, Vec<String>>,
) -> Result<Disk> {
    let sysfs = Path::new("/sys/class/block").join(&listed.name);
    let partitions = partitions(&sysfs)?;
    // A faulty disk must not keep another from being installed on.
    let (signatures, unrecognised, unreadable) = match contents(&listed.path, &partitions, size) {
        Ok((signatures, unrecognised)) => (signatures, unrecognised, None),
        Err(error) => (Vec::new(), false, Some(complaint(&error))),
    };
    let below = |name: &PathBuf| *name == listed.path;
    Ok(Disk {
        path: listed.path.clone(),
        model: listed.model.as_deref().and_then(clean).or_else(|| model(&sysfs)),
        serial: listed.serial.as_deref().and_then(clean).or_else(|| serial(&sysfs)),
        size,
        sector: listed.sector.unwrap_or(512),
        transport: listed.tran.as_deref().and_then(clean).or_else(|| transport(&sysfs)),
        by_path: links.get(&listed.path).cloned().unwrap_or_default(),
        read_only: listed.ro,
        medium: mounts
            .iter()
            .any(|(disk, point)| below(disk) && scan.medium.contains(point)),
        mounted: mounts
            .iter()
            .filter(|(disk, _)| below(disk))
            .filter_map(|(_, point)| clean(&point.to_string_lossy()))
            .collect(),
        holders: holders(&sysfs, &partitions),
        partitions,
        signatures,
        unrecognised,
        unreadable,
    })
}

/// Why a disk cannot be looked into: the tool's own words stand at the end, so they must fit.
fn complaint(error: &anyhow::Error) -> String {
    clean_to(COMPLAINT, &format!("{error:#}")).unwrap_or_else(|| "unknown error".into())
}

/// What is recognised on a disk and its partitions; where that is nothing, whether there are bytes all the same.
fn contents(path: &Path, partitions: &[Partition], size: u64) -> Result<(Vec<Signature>, bool)> {
    let mut found = signatures::of(path)?;
    for partition in partitions {
        found.extend(signatures::of(&partition.path)?);
    }
    // wipefs takes a disk that gives nothing but errors for an empty one.
    let bytes = signatures::has_bytes(path, size)?;
    let unrecognised = bytes && found.is_empty() && partitions.is_empty();
    Ok((found, unrecognised))
}

fn partitions(sysfs: &Path) -> Result<Vec<Partition>> {
    let number = |path: PathBuf| -> Option<u64> { fs::read_to_string(path).ok()?.trim().parse().ok() };
    let mut partitions = Vec::new();
    for entry in fs::read_dir(sysfs).with_context(|| format!("cannot read {}", sysfs.display()))? {
        let entry = entry?;
        let path = entry.path();
        let Some(index) = number(path.join("partition")) else {
            continue;
        };
        // sysfs counts sectors of 512 bytes whatever the disk's own are.
        let (Some(start), Some(size)) = (number(path.join("start")), number(path.join("size"))) else {
            continue;
        };
        partitions.push(Partition {
            path: Path::new("/dev").join(entry.file_name()),
            number: u32::try_from(index)?,
            start: start * 512,
            size: size * 512,
        });
    }
    partitions.sort_by_key(|partition| partition.number);
    Ok(partitions)
}

fn holders(sysfs: &Path, partitions: &[Partition]) -> Vec<String> {
    let below = partitions
        .iter()
        .filter_map(|partition| Some(sysfs.join(partition.path.file_name()?)));
    let mut holders: Vec<String> = std::iter::once(sysfs.to_path_buf())
        .chain(below)
        .filter_map(|path| fs::read_dir(path.join("holders")).ok())
        .flat_map(|entries| entries.flatten())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    holders.sort();
    holders.dedup();
    holders
}

fn read(path: &Path) -> Option<String> {
    clean(&String::from_utf8_lossy(&fs::read(path).ok()?))
}

fn model(sysfs: &Path) -> Option<String> {
    if sysfs.join("loop").exists() {
        return Some("loop device".into());
    }
    read(&sysfs.join("device/model"))
}

/// virtio shows the serial number beside the disk, NVMe on its controller, SCSI and SATA in the unit serial number page
/// (SPC-4, 7.8.15: four bytes of header), USB on the device above. A loop device is known by its file.
fn serial(sysfs: &Path) -> Option<String> {
    let page = || {
        let page = fs::read(sysfs.join("device/vpd_pg80")).ok()?;
        clean(&String::from_utf8_lossy(page.get(4..)?))
    };
    let file = || {
        let file = fs::read_to_string(sysfs.join("loop/backing_file")).ok()?;
        clean(&Path::new(file.trim_end()).file_name()?.to_string_lossy())
    };
    let usb = || {
        let device = fs::canonicalize(sysfs.join("device")).ok()?;
        let above = device.ancestors().find(|above| above.join("idVendor").exists())?;
        read(&above.join("serial"))
    };
    read(&sysfs.join("serial"))
        .or_else(|| read(&sysfs.join("device/serial")))
        .or_else(page)
        .or_else(usb)
        .or_else(file)
}

fn transport(sysfs: &Path) -> Option<String> {
    let path = fs::canonicalize(sysfs).ok()?;
    let path = path.to_string_lossy();
    ["usb", "nvme", "virtio", "ata", "mmc"]
        .iter()
        .find(|kind| path.contains(&format!("/{kind}")))
        .map(|kind| (*kind).to_owned())
}

/// The links below /dev/disk/by-path, by the node that they lead to.
fn links() -> BTreeMap<PathBuf, Vec<String>> {
    let mut links: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for entry in fs::read_dir("/dev/disk/by-path").into_iter().flatten().flatten() {
        if let (Ok(node), Some(name)) = (
            fs::canonicalize(entry.path()),
            clean(&entry.file_name().to_string_lossy()),
        ) {
            links.entry(node).or_default().push(name);
        }
    }
    links.values_mut().for_each(|names| names.sort());
    links
}

/// Every mount of a block device as (disk, mount point), swap included.
fn mounts() -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut mounts = Vec::new();
    for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
        // proc(5): identifier, parent, major:minor, root, mount point, ...
        let mut fields = line.split(' ').skip(2);
        let (Some(device), Some(point)) = (fields.next(), fields.nth(1)) else {
            return Err(anyhow!("/proc/self/mountinfo has a strange line: {line}"));
        };
        for disk in disks_below(device) {
            mounts.push((disk, PathBuf::from(point.replace("\\040", " "))));
        }
    }
    for line in fs::read_to_string("/proc/swaps").unwrap_or_default().lines().skip(1) {
        if let Some(Ok(node)) = line.split_ascii_whitespace().next().map(fs::canonicalize)
            && let Some(name) = node.file_name()
            && let Ok(device) = fs::read_to_string(Path::new("/sys/class/block").join(name).join("dev"))
        {
            mounts.extend(disks_below(device.trim()).into_iter().map(|disk| (disk, "swap".into())));
        }
    }
    Ok(mounts)
}

/// The disks under a block device: itself, its parent if it is a partition, and what it is stacked on.
fn disks_below(device: &str) -> Vec<PathBuf> {
    let Ok(sysfs) = fs::canonicalize(Path::new("/sys/dev/block").join(device)) else {
        return Vec::new();
    };
    let own = if sysfs.join("partition").exists() {
        sysfs.parent()
    } else {
        Some(sysfs.as_path())
    };
    let Some(name) = own.and_then(Path::file_name) else {
        return Vec::new();
    };
    let mut disks = vec![Path::new("/dev").join(name)];
    for slave in fs::read_dir(sysfs.join("slaves")).into_iter().flatten().flatten() {
        if let Ok(device) = fs::read_to_string(slave.path().join("dev")) {
            disks.extend(disks_below(device.trim()));
        }
    }
    disks
}

/// The devices under a mounted directory: the one that is mounted, then the disks below it.
///
/// # Errors
/// When the mounts cannot be read.
pub fn devices_of_mount(point: &Path) -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("cannot read which disks are mounted")?;
    // The last mount on a point hides those before it.
    let own = text.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let device = fields.next()?;
        (Path::new(fields.nth(1)?) == point).then_some(device)
    });
    let Some(device) = own else { return Ok(Vec::new()) };
    let mut devices = Vec::new();
    if let Ok(sysfs) = fs::canonicalize(Path::new("/sys/dev/block").join(device))
        && let Some(name) = sysfs.file_name()
    {
        devices.push(Path::new("/dev").join(name));
    }
    devices.extend(disks_below(device));
    devices.dedup();
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_complaint_is_told_to_its_end() {
        let error = anyhow!("wipefs: error: /dev/sda: {}: Input/output error", "x".repeat(200));
        assert!(complaint(&error).ends_with("Input/output error"));
    }
}
