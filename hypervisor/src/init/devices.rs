// SPDX-License-Identifier: GPL-3.0-or-later
//! Devices: drivers for what the kernel found, and the block devices that came of it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use signing::process::Cmd;

use super::console;

/// How often the devices are looked at.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a person is told what is waited for.
const PATIENCE: Duration = Duration::from_secs(15);
/// Aliases in one command line.
const BATCH: usize = 500;
/// How deep the device tree is walked: a bound for a walk that follows no links.
const DEPTH: usize = 24;

/// Drivers that were asked for already.
#[derive(Debug, Default)]
pub struct Coldplug {
    seen: BTreeSet<String>,
}

impl Coldplug {
    /// Loads modules by name, in order, as far as the kernel has them as modules.
    pub fn load(names: &[String]) {
        // Those that are built in, or that this kernel lacks, are no error: what is missing shows as a device that is missing.
        if let Err(error) = Cmd::new("modprobe").arg("-abq").args(names).run() {
            console::note(&format!("some modules were not loaded: {error}"));
        }
    }

    /// Loads the drivers of all devices that appeared since the last call.
    pub fn run(&mut self) {
        let mut aliases = Vec::new();
        walk(Path::new("/sys/devices"), DEPTH, &mut aliases);
        // A processor's aliases bring dozens of drivers, none of which leads to a disk; the root's udev asks for them.
        let fresh: Vec<String> = aliases
            .into_iter()
            .filter(|alias| !alias.starts_with("cpu:") && self.seen.insert(alias.clone()))
            .collect();
        for batch in fresh.chunks(BATCH) {
            // It fails when any alias has no driver in the initrd, which is usual.
            let _ = Cmd::new("modprobe").arg("-abq").args(batch).status();
        }
    }

    /// Loads, from the root file system, what else the machine has drivers for, and `names` besides. One process does here what
    /// would be hundreds of events of the root's udev.
    pub fn finish(&mut self, root: &Path, names: &[String]) {
        self.run();
        let fresh: Vec<&String> = names.iter().chain(&self.seen).collect();
        for batch in fresh.chunks(BATCH) {
            let load = Cmd::new("modprobe").arg("-d").arg(root).arg("-abq").args(batch);
            let _ = load.status();
        }
    }

    /// Looks for something until it is there, loading drivers for what appears meanwhile.
    ///
    /// # Errors
    /// When it is not there in time, or looking fails.
    pub fn wait<T>(&mut self, what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let start = Instant::now();
        let mut told = start;
        loop {
            self.run();
            if let Some(found) = look()? {
                return Ok(found);
            }
            if start.elapsed() > limit {
                bail!("{what} did not appear within {} seconds", limit.as_secs());
            }
            if told.elapsed() > PATIENCE {
                told = Instant::now();
                console::error(&format!("waiting for {what}"));
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn walk(directory: &Path, depth: usize, aliases: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => walk(&entry.path(), depth - 1, aliases),
            Ok(kind) if kind.is_file() && entry.file_name() == "modalias" => {
                if let Ok(alias) = fs::read_to_string(entry.path()) {
                    aliases.push(alias.trim().to_owned());
                }
            }
            _ => {}
        }
    }
}

/// A whole block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The kernel's name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its sector size in bytes.
    pub sector: u64,
}

impl Disk {
    /// Its node.
    #[must_use]
    pub fn node(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// Opens it for reading.
    ///
    /// # Errors
    /// When it cannot be opened: a drive without a disc, for example.
    pub fn open(&self) -> io::Result<File> {
        File::open(self.node())
    }

    /// The node of one of its partitions, once the kernel has made it.
    #[must_use]
    pub fn partition(&self, number: u32) -> Option<PathBuf> {
        let entries = fs::read_dir(Path::new("/sys/class/block").join(&self.name)).ok()?;
        entries
            .flatten()
            .find(|entry| value(&entry.path().join("partition")) == Some(u64::from(number)))
            .map(|entry| Path::new("/dev").join(entry.file_name()))
            .filter(|node| node.exists())
    }
}

/// The whole block devices with anything in them, in the order of their names.
#[must_use]
pub fn disks() -> Vec<Disk> {
    let Ok(entries) = fs::read_dir("/sys/class/block") else {
        return Vec::new();
    };
    let mut found: Vec<Disk> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let place = entry.path();
            let virtual_device = ["loop", "ram", "zram", "dm-", "fd", "nbd"]
                .iter()
                .any(|prefix| name.starts_with(prefix));
            if virtual_device || place.join("partition").exists() {
                return None;
            }
            Some(Disk {
                // The kernel counts in units of 512 bytes, whatever the sector.
                size: value(&place.join("size"))?.checked_mul(512).filter(|size| *size > 0)?,
                sector: value(&place.join("queue/logical_block_size"))?,
                name,
            })
        })
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

fn value(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
