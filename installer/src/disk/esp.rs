// SPDX-License-Identifier: GPL-3.0-or-later
//! The EFI system partition, made by mkfs.fat and filled by mtools, without mounting it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hypervisor::layout::{FALLBACK_IMAGE, Slot};
use signing::digest::Sha256;
use signing::process::Cmd;

use super::Target;
use crate::plan::{NewPartition, Plan};

/// Bytes of a cluster: 512 MiB are twice as many of these as FAT32 must have.
const CLUSTER: u64 = 4096;

/// What a boot image's name ends with while it must not boot.
const INACTIVE: &str = ".new";

/// The EFI system partition of the disk that is being written.
pub struct Esp<'a> {
    target: &'a Target,
    partition: &'a NewPartition,
    sector: u64,
}

impl<'a> Esp<'a> {
    /// The partition of a plan.
    ///
    /// # Errors
    /// When the plan has none.
    pub fn of(plan: &'a Plan, target: &'a Target) -> Result<Self> {
        let partition = plan
            .partition(hypervisor::layout::ESP_NAME)
            .context("the plan has no EFI system partition")?;
        Ok(Self {
            target,
            partition,
            sector: plan.disk.sector,
        })
    }

    /// Makes the file system and its directories.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn format(&self) -> Result<()> {
        Cmd::new("mkfs.fat")
            .args(["-F", "32", "-n", "BASTIDE-ESP", "-I"])
            .args(["-S", &self.sector.to_string()])
            // Firmware tells FAT32 by the number of clusters alone: they must be small whatever the sectors are.
            .args(["-s", &(CLUSTER / self.sector).max(1).to_string()])
            .args(["-h", &(self.partition.start / self.sector).to_string()])
            .args(["--offset", &(self.partition.start / self.sector).to_string()])
            .arg(self.target.path())
            .arg((self.partition.size / 1024).to_string())
            .run()
            .context("cannot make the EFI system partition's file system")?;
        self.tool("mmd")
            .args(["::/EFI", "::/EFI/BOOT", "::/EFI/bastide"])
            .run()
            .context("cannot make the EFI system partition's directories")
    }

    /// Writes the boot image twice, under names that no firmware starts.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_inactive(&self, image: &[u8]) -> Result<()> {
        for name in names() {
            self.tool("mcopy")
                .args(["-", &format!("::/{name}{INACTIVE}")])
                .input(image)
                .run()
                .with_context(|| format!("cannot write {name} to the EFI system partition"))?;
        }
        self.target.sync()
    }

    /// Reads the boot images back from the disk and compares them.
    ///
    /// # Errors
    /// When one differs.
    pub fn compare_inactive(&self, expected: Sha256) -> Result<()> {
        self.compare(expected, INACTIVE)
    }

    /// Gives the boot images their names, the fallback's last, each on the disk before the next.
    ///
    /// # Errors
    /// When a name cannot be changed.
    pub fn activate(&self) -> Result<()> {
        for name in names() {
            self.tool("mren")
                .args([&format!("::/{name}{INACTIVE}"), &format!("::/{name}")])
                .run()
                .with_context(|| format!("cannot give {name} its name"))?;
            self.target.sync()?;
        }
        self.target.forget()
    }

    /// Reads the boot images back under their names and compares them.
    ///
    /// # Errors
    /// When one differs.
    pub fn compare_active(&self, expected: Sha256) -> Result<()> {
        self.compare(expected, "")
    }

    fn compare(&self, expected: Sha256, ending: &str) -> Result<()> {
        self.target.forget()?;
        for name in names() {
            let found = self
                .tool("mcopy")
                .args([&format!("::/{name}{ending}"), "-"])
                .output()
                .with_context(|| format!("cannot read {name} back from the EFI system partition"))?;
            if Sha256::of(&found) != expected {
                bail!(
                    "{} gives back other bytes than were written for {name}. The disk is faulty: replace it",
                    self.target.path().display()
                );
            }
        }
        Ok(())
    }

    fn tool(&self, program: &str) -> Cmd {
        Cmd::new(program).args(["-i", &image(self.target.path(), self.partition.start)])
    }
}

/// The names of the boot image: the slot's, and last the one that firmware starts by itself.
fn names() -> [&'static str; 2] {
    [Slot::A.boot_image(), FALLBACK_IMAGE]
}

/// A file system inside a device, as mtools names it.
fn image(path: &Path, offset: u64) -> String {
    format!("{}@@{offset}", PathBuf::from(path).display())
}
