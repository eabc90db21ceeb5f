// SPDX-License-Identifier: GPL-3.0-or-later
//! What the machine is made of: disks and what lies on them, memory, network cards, firmware.
//!
//! Attacks faced: a disk's model, serial number and labels come from foreign hardware and foreign installations, and end
//! on screens, in questions and in the record. Defence: [`clean`] keeps printable ASCII of a bounded length. Contents are
//! looked at by the probing tools of util-linux, read-only, and never mounted.
//! Not defended: a disk that lies about its serial number or its size, and a bug in the kernel's drivers.

mod disks;
mod machine;
mod signatures;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use disks::{Scan, devices_of_mount};
pub use machine::{efi_byte, firmware};

/// The machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Whether the disks are for another machine: then this one's firmware and cards were not looked at.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub other_machine: bool,
    /// Who made it, which product, and its serial number, as the firmware says.
    pub product: Vec<String>,
    /// Bytes of memory.
    pub memory: u64,
    /// Processors that the system sees.
    pub processors: usize,
    /// The firmware.
    pub firmware: Firmware,
    /// The network cards.
    pub cards: Vec<Card>,
    /// The disks.
    pub disks: Vec<Disk>,
}

/// The firmware's state, as far as it can be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firmware {
    /// Whether it is UEFI.
    pub uefi: bool,
    /// Whether Secure Boot is enforced; `None` when the firmware does not say.
    pub secure_boot: Option<bool>,
    /// Whether it takes keys without a signature.
    pub setup_mode: Option<bool>,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Its name.
    pub name: String,
    /// Its address.
    pub mac: String,
    /// Its driver.
    pub driver: Option<String>,
    /// Whether a cable with a peer is in it; `None` when it is switched off.
    pub carrier: Option<bool>,
}

/// A disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its device node.
    pub path: PathBuf,
    /// Its model.
    pub model: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its size in bytes.
    pub size: u64,
    /// The size of a sector that it can write.
    pub sector: u64,
    /// How it is attached: `sata`, `nvme`, `usb`, `virtio` ...
    pub transport: Option<String>,
    /// Its names below /dev/disk/by-path.
    pub by_path: Vec<String>,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// Whether the installer runs from it, or its answer came from it.
    pub medium: bool,
    /// Where it or a part of it is mounted.
    pub mounted: Vec<String>,
    /// Kernel devices built on it or on a part of it: RAID arrays, volumes.
    pub holders: Vec<String>,
    /// Its partitions.
    pub partitions: Vec<Partition>,
    /// What was recognised on the disk and on its partitions.
    pub signatures: Vec<Signature>,
    /// Nothing was recognised, but its start or its end is not empty.
    pub unrecognised: bool,
    /// Why it could not be looked into, if so. It may hold anything, and hinders no other disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

/// A partition of a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its device node.
    pub path: PathBuf,
    /// Its number.
    pub number: u32,
    /// Where it starts, in bytes.
    pub start: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// Something that a disk says of itself in a few bytes: a table, an array's member, a file system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The node on which it lies.
    pub device: PathBuf,
    /// Its kind, in the words of blkid.
    pub kind: String,
    /// Where it lies on the node, in bytes.
    pub offset: u64,
    /// Its label, the array's name, the volume group's name.
    pub label: Option<String>,
}

impl Signature {
    /// The kind in words.
    #[must_use]
    pub fn words(&self) -> &str {
        match self.kind.as_str() {
            "gpt" | "dos" | "PMBR" | "mac" | "sun" | "bsd" => "partition table",
            "linux_raid_member" => "Linux software RAID member",
            "ddf_raid_member" => "DDF RAID member",
            "isw_raid_member" => "Intel RAID member",
            kind if kind.ends_with("_raid_member") => "firmware RAID member",
            "LVM2_member" | "LVM1_member" => "LVM physical volume",
            "VMFS_volume_member" => "VMware VMFS volume",
            "VMFS" => "VMware VMFS file system",
            "crypto_LUKS" => "LUKS encrypted volume",
            "zfs_member" => "ZFS pool member",
            "ceph_bluestore" => "Ceph object store",
            "drbd" => "DRBD replica",
            "swap" => "swap space",
            kind => kind,
        }
    }

    /// Whether it only divides the disk and holds nothing itself.
    #[must_use]
    pub fn is_table(&self) -> bool {
        matches!(self.kind.as_str(), "gpt" | "dos" | "PMBR" | "mac" | "sun" | "bsd")
    }
}

impl std::fmt::Display for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.words())?;
        if self.words() != self.kind {
            write!(f, " ({})", self.kind)?;
        }
        if let Some(label) = &self.label {
            write!(f, " {label:?}")?;
        }
        write!(f, " on {}", self.device.display())
    }
}

impl Disk {
    /// The disk as every message names it: model, serial number, size, node.
    #[must_use]
    pub fn title(&self) -> String {
        format!(
            "{} serial {} {} ({})",
            self.model_words(),
            self.serial.as_deref().unwrap_or("unknown"),
            human_size(self.size),
            self.path.display()
        )
    }

    /// The model; a disk that tells none (as those of virtio) is named by how it is attached.
    #[must_use]
    pub fn model_words(&self) -> String {
        match (&self.model, &self.transport) {
            (Some(model), _) => model.clone(),
            (None, Some(transport)) => format!("{transport} disk"),
            (None, None) => "disk of unknown model".into(),
        }
    }

    /// Whether something would be lost: a partition, a recognised content, unrecognised bytes, or what nobody could see.
    #[must_use]
    pub fn holds_data(&self) -> bool {
        self.unrecognised
            || self.unreadable.is_some()
            || !self.partitions.is_empty()
            || self.signatures.iter().any(|found| !found.is_table())
    }

    /// What it holds, in one line each. Tables are told by their partitions.
    #[must_use]
    pub fn contents(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match self.partitions.len() {
            0 if self.signatures.iter().any(Signature::is_table) => lines.push("an empty partition table".into()),
            0 => {}
            1 => lines.push("1 partition".into()),
            count => lines.push(format!("{count} partitions")),
        }
        let held = self.signatures.iter().filter(|signature| !signature.is_table());
        for line in held.map(ToString::to_string) {
            // Some kinds have several magic numbers, which are one thing to a reader.
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        if self.unrecognised {
            lines.push("unrecognised data".into());
        }
        if let Some(why) = &self.unreadable {
            lines.push(format!("unreadable data: {why}"));
        }
        lines
    }
}

impl Inventory {
    /// The maker, the product and its serial number, as far as the firmware tells them.
    #[must_use]
    pub fn product_words(&self) -> String {
        if self.product.is_empty() {
            "unknown maker and product".into()
        } else {
            self.product.join(", ")
        }
    }

    /// Forgets what this machine alone is: the disks will be put into another.
    pub fn for_another_machine(&mut self) {
        self.other_machine = true;
        self.firmware = Firmware::default();
        self.cards.clear();
    }
}

/// Takes stock of the machine.
///
/// # Errors
/// When the disks cannot be listed. Nothing is guessed.
pub fn take(scan: &Scan) -> anyhow::Result<Inventory> {
    Ok(Inventory {
        other_machine: false,
        product: machine::product(),
        memory: machine::memory(),
        processors: machine::processors(),
        firmware: firmware(Path::new(machine::EFI)),
        cards: machine::cards(),
        disks: disks::scan(scan)?,
    })
}

/// The disks alone.
///
/// # Errors
/// As [`take`].
pub fn disks(scan: &Scan) -> anyhow::Result<Vec<Disk>> {
    disks::scan(scan)
}

/// A text from foreign hardware, made safe for screens and records. `None` when nothing is left.
#[must_use]
pub fn clean(text: &str) -> Option<String> {
    clean_to(128, text)
}

/// As [`clean`], with room for this many characters: for a tool's complaint, which is of no use without its end.
#[must_use]
pub fn clean_to(limit: usize, text: &str) -> Option<String> {
    let mut cleaned: String = text
        .trim_matches(|c: char| c.is_whitespace() || c == '\0')
        .chars()
        .take(limit)
        .map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' })
        .collect();
    cleaned.truncate(cleaned.trim_end().len());
    (!cleaned.is_empty()).then_some(cleaned)
}

/// A size as disks are sold and as memory counts, so that either can be compared with a label.
#[must_use]
pub fn human_size(bytes: u64) -> String {
    let scaled = |step: u64, units: [&str; 5]| {
        let mut divisor = 1;
        let mut unit = 0;
        while bytes / divisor >= step && unit + 1 < units.len() {
            divisor *= step;
            unit += 1;
        }
        let tenths = u128::from(bytes) * 10 / u128::from(divisor);
        if unit == 0 {
            format!("{bytes} B")
        } else {
            format!("{}.{} {}", tenths / 10, tenths % 10, units[unit])
        }
    };
    format!(
        "{} ({})",
        scaled(1000, ["B", "kB", "MB", "GB", "TB"]),
        scaled(1024, ["B", "KiB", "MiB", "GiB", "TiB"])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_move_the_cursor() {
        assert_eq!(clean(" WD\u{1b}[2J\n1 \0").as_deref(), Some("WD?[2J?1"));
        assert_eq!(clean(&"x".repeat(500)).unwrap().len(), 128);
        assert_eq!(clean(" \0 "), None);
        assert_eq!(clean_to(200, &"x".repeat(500)).unwrap().len(), 200);
    }

    #[test]
    fn sizes_are_told_in_both_measures() {
        assert_eq!(human_size(480_103_981_056), "480.1 GB (447.1 GiB)");
        assert_eq!(human_size(512), "512 B (512 B)");
    }

    #[test]
    fn an_empty_table_is_no_data_but_a_partition_is() {
        let mut disk = Disk {
            signatures: vec![Signature {
                kind: "gpt".into(),
                ..Signature::default()
            }],
            ..Disk::default()
        };
        assert!(!disk.holds_data());
        disk.partitions.push(Partition::default());
        assert!(disk.holds_data());
    }
}
