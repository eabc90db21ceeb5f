// SPDX-License-Identifier: GPL-3.0-or-later
//! Where things are on a host. The environment is a value, so that the tests run the real code on a disk image.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use nix::sys::stat::{major, minor, stat};
use signing::clock::{self, Reading};
use signing::digest::{Sha256, read_bounded};
use signing::release::ROOT_HASH_PARAMETER;
use signing::site::TRUST_DIRECTORY;

use crate::layout::{self, ImageRelease};

/// The paths of a host. [`Machine::default`] is the running host.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The disk that holds the slots; found from the state file system when it is not given.
    pub disk: Option<PathBuf>,
    /// Where the state file system is mounted.
    pub state_mount: PathBuf,
    /// This distribution's directory on state.
    pub state: PathBuf,
    /// Where the EFI system partition is mounted.
    pub esp_mount: PathBuf,
    /// The trust directory.
    pub trust: PathBuf,
    /// The running image's `release.json`.
    pub release: PathBuf,
    /// The kernel's command line.
    pub command_line: PathBuf,
    /// The firmware's variables.
    pub efivars: PathBuf,
    /// The program that edits boot entries.
    pub efibootmgr: PathBuf,
    /// The site's own health checks.
    pub health_checks: PathBuf,
    /// The site's settings of the health guard.
    pub health_config: PathBuf,
    /// The certificate of the site's server, where the site has one.
    pub server_certificate: PathBuf,
    /// A directory in memory for mount points.
    pub run: PathBuf,
    /// What the machine says of the time.
    pub clock: fn() -> Reading,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            disk: None,
            state_mount: layout::STATE_MOUNT.into(),
            state: layout::STATE_DIRECTORY.into(),
            esp_mount: layout::ESP_MOUNT.into(),
            trust: TRUST_DIRECTORY.into(),
            release: layout::RELEASE_FILE.into(),
            command_line: "/proc/cmdline".into(),
            efivars: "/sys/firmware/efi/efivars".into(),
            efibootmgr: "efibootmgr".into(),
            health_checks: "/etc/bastide/health.d".into(),
            health_config: "/etc/bastide/health.toml".into(),
            server_certificate: "/etc/bastide/server.pem".into(),
            run: "/run/bastide".into(),
            clock: clock::read,
        }
    }
}

impl Machine {
    /// The disk that holds the slots: the one under the state file system.
    ///
    /// # Errors
    /// When the state file system is not mounted from a partition.
    pub fn boot_disk(&self) -> Result<PathBuf> {
        match &self.disk {
            Some(disk) => Ok(disk.clone()),
            None => disk_under(&self.state_mount),
        }
    }

    /// The root hash on the kernel's command line: what the signed boot image told the kernel to mount.
    ///
    /// # Errors
    /// When the command line cannot be read or carries none.
    pub fn running_root_hash(&self) -> Result<Sha256> {
        let line = read_text(&self.command_line)?;
        let value = layout::kernel_parameter(&line, ROOT_HASH_PARAMETER).with_context(|| {
            format!(
                "cannot tell the running slot: {} carries no {}= (is this an installed host?)",
                self.command_line.display(),
                ROOT_HASH_PARAMETER
            )
        })?;
        value
            .parse()
            .with_context(|| format!("cannot tell the running slot from {}", self.command_line.display()))
    }

    /// What the running image says of itself.
    ///
    /// # Errors
    /// When the image carries no such file.
    pub fn image_release(&self) -> Result<ImageRelease> {
        let text = read_text(&self.release)?;
        serde_json::from_str(&text).with_context(|| format!("cannot understand {}", self.release.display()))
    }

    /// The durable file of the slots.
    #[must_use]
    pub fn slots_file(&self) -> PathBuf {
        self.state.join("slots.json")
    }

    /// The TUF client's durable memory.
    #[must_use]
    pub fn datastore(&self) -> PathBuf {
        self.state.join("datastore")
    }

    /// The same for the site's repository, where the policy demands it.
    #[must_use]
    pub fn site_datastore(&self) -> PathBuf {
        self.state.join("site-datastore")
    }

    /// The directory of the trust policy.
    #[must_use]
    pub fn policy(&self) -> PathBuf {
        self.state.join("trust")
    }

    /// When the running image was built: no clock is believed that is behind it.
    ///
    /// # Errors
    /// When the image does not say, or says an impossible time.
    pub fn build_time(&self) -> Result<DateTime<Utc>> {
        let seconds = self.image_release()?.built;
        i64::try_from(seconds)
            .ok()
            .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
            .with_context(|| format!("{} gives an impossible build time", self.release.display()))
    }
}

/// Reads a small text file whole.
///
/// # Errors
/// When it cannot be read, is not text or is longer than a mebibyte.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = read_bounded(path, 1 << 20).with_context(|| format!("cannot read {}", path.display()))?;
    String::from_utf8(bytes).with_context(|| format!("{} is not text", path.display()))
}

/// The whole disk under a mounted directory, through device-mapper devices and partitions.
fn disk_under(mount: &Path) -> Result<PathBuf> {
    let what = || format!("cannot find the disk under {}", mount.display());
    let device = stat(mount).with_context(what)?.st_dev;
    let mut node = PathBuf::from(format!("/sys/dev/block/{}:{}", major(device), minor(device)))
        .canonicalize()
        .with_context(|| format!("{}: it is not on a block device", what()))?;
    // Stacked devices are few; the bound is against a sysfs that makes no sense.
    for _ in 0..8 {
        let below = std::fs::read_dir(node.join("slaves"))
            .ok()
            .and_then(|mut slaves| slaves.next());
        match below {
            Some(slave) => node = slave.with_context(what)?.path().canonicalize().with_context(what)?,
            None if node.join("partition").exists() => {
                let disk = node.parent().and_then(Path::file_name).with_context(what)?;
                return Ok(Path::new("/dev").join(disk.to_string_lossy().replace('!', "/")));
            }
            None => bail!("{}: {} is not a partition", what(), node.display()),
        }
    }
    bail!("{}: devices are stacked too deep", what())
}
