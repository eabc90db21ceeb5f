// SPDX-License-Identifier: GPL-3.0-or-later
//! What the init found, left for the programs of the running system.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use signing::digest::Sha256;

use crate::layout::Slot;

/// Where the report lies in the running system.
pub const BOOT_FILE: &str = "/run/bastide/boot.json";
/// A link to the host's EFI system partition: the unit that mounts it goes by this and not by the partition's name, which
/// another disk may have as well.
pub const ESP_LINK: &str = "/run/bastide/esp";

/// What the init found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Always 1.
    pub format: u32,
    /// The root hash that the boot image carries.
    pub root_hash: Sha256,
    /// Where the root file system came from.
    #[serde(flatten)]
    pub from: From,
}

/// Where the root file system came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum From {
    /// An installed host's disk.
    Host {
        /// The disk.
        disk: PathBuf,
        /// The slot, told by the partition's name.
        slot: Slot,
        /// The root partition.
        root: PathBuf,
        /// The verity partition.
        verity: PathBuf,
        /// The state partition.
        state: PathBuf,
        /// The EFI system partition, when there is one.
        esp: Option<PathBuf>,
    },
    /// The installer's medium.
    Install {
        /// The device that holds the ISO.
        medium: PathBuf,
        /// The root file system's image below the mount point of the targets.
        image: PathBuf,
    },
}

impl Boot {
    /// Writes the report. It lies in memory and needs no durability.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Links the EFI system partition of the very disk that the root came from; nothing where there is none.
    ///
    /// # Errors
    /// When it cannot be linked.
    pub fn link_esp(&self, link: &Path) -> Result<()> {
        match &self.from {
            From::Host { esp: Some(node), .. } => std::os::unix::fs::symlink(node, link)
                .with_context(|| format!("cannot make the link {}", link.display())),
            From::Host { esp: None, .. } | From::Install { .. } => Ok(()),
        }
    }

    /// Reads the report of this boot.
    ///
    /// # Errors
    /// When there is none: the machine was not started by our init.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path)
            .with_context(|| format!("cannot read {}: was this machine started by Bastide?", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("cannot understand {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_esp_of_the_disk_that_was_started_from_is_linked() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("esp");
        let boot = |esp: Option<&str>| Boot {
            format: 1,
            root_hash: Sha256([3; 32]),
            from: From::Host {
                disk: "/dev/sdb".into(),
                slot: Slot::A,
                root: "/dev/sdb2".into(),
                verity: "/dev/sdb3".into(),
                state: "/dev/sdb6".into(),
                esp: esp.map(PathBuf::from),
            },
        };
        boot(None).link_esp(&link).unwrap();
        assert!(link.symlink_metadata().is_err());
        boot(Some("/dev/sdb1")).link_esp(&link).unwrap();
        assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("/dev/sdb1"));
    }

    #[test]
    fn a_report_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bastide/boot.json");
        let boot = Boot {
            format: 1,
            root_hash: Sha256([3; 32]),
            from: From::Install {
                medium: "/dev/sr0".into(),
                image: "host/1.0.0/x.root.erofs".into(),
            },
        };
        boot.write(&path).unwrap();
        assert_eq!(Boot::read(&path).unwrap(), boot);
        assert!(
            std::fs::read_to_string(&path)
                .unwrap()
                .contains("\"mode\": \"install\"")
        );
    }
}
