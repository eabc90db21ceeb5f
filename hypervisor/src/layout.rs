// SPDX-License-Identifier: GPL-3.0-or-later
//! The layout of a host's disk: names, types, sizes and paths, shared by the installer, the initrd and the updates.
//!
//! A slot is a root partition, the verity partition of its hash tree, and a boot image on the EFI system partition. The
//! unique GUIDs of the two partitions are the two halves of the root hash, so that the root hash alone, which stands in
//! the signed boot image, finds its root in either slot.

use std::fmt;

use serde::{Deserialize, Serialize};
use signing::digest::Sha256;
pub use signing::guid::Guid;

const MIB: u64 = 1 << 20;

/// One of the two places that can hold a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The slot that the installer fills.
    A,
    /// The slot of the first update.
    B,
}

impl Slot {
    /// Both slots.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The slot that this one is not.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// `a` or `b`, as in file and partition names.
    #[must_use]
    pub const fn letter(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// The GPT name of the root partition.
    #[must_use]
    pub const fn root_name(self) -> &'static str {
        match self {
            Self::A => "bastide-root-a",
            Self::B => "bastide-root-b",
        }
    }

    /// The GPT name of the verity partition.
    #[must_use]
    pub const fn verity_name(self) -> &'static str {
        match self {
            Self::A => "bastide-verity-a",
            Self::B => "bastide-verity-b",
        }
    }

    /// The boot image, relative to the root of the EFI system partition.
    #[must_use]
    pub const fn boot_image(self) -> &'static str {
        match self {
            Self::A => "EFI/bastide/slot-a.efi",
            Self::B => "EFI/bastide/slot-b.efi",
        }
    }

    /// The boot image as the firmware names it.
    #[must_use]
    pub const fn boot_loader_path(self) -> &'static str {
        match self {
            Self::A => "\\EFI\\bastide\\slot-a.efi",
            Self::B => "\\EFI\\bastide\\slot-b.efi",
        }
    }

    /// The label of the firmware's boot entry. Entries are found by it, because their numbers change.
    #[must_use]
    pub const fn boot_label(self) -> &'static str {
        match self {
            Self::A => "Bastide A",
            Self::B => "Bastide B",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.letter())
    }
}

/// The unique GUID of the root partition that holds this root hash: its first half.
#[must_use]
pub fn root_guid(root_hash: &Sha256) -> Guid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&root_hash.0[..16]);
    Guid::from_text_order(bytes)
}

/// The unique GUID of the verity partition that holds this root hash: its second half.
#[must_use]
pub fn verity_guid(root_hash: &Sha256) -> Guid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&root_hash.0[16..]);
    Guid::from_text_order(bytes)
}

/// The type GUID of the EFI system partition.
pub const ESP_TYPE: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
/// The type GUID of the root partitions (Discoverable Partitions Specification, x86-64 root).
pub const ROOT_TYPE: &str = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709";
/// The type GUID of the verity partitions (Discoverable Partitions Specification, x86-64 root verity).
pub const VERITY_TYPE: &str = "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5";
/// The type GUID of the state partition (generic Linux data).
pub const STATE_TYPE: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";

/// The GPT name of the EFI system partition.
pub const ESP_NAME: &str = "bastide-esp";
/// The GPT name of the state partition, and the label of its file system.
pub const STATE_NAME: &str = "bastide-state";

/// The EFI system partition's size.
pub const ESP_SIZE: u64 = 512 * MIB;
/// A root partition's size.
pub const ROOT_SIZE: u64 = 2048 * MIB;
/// A verity partition's size.
pub const VERITY_SIZE: u64 = 32 * MIB;
/// The smallest state partition that an install accepts.
pub const STATE_MIN_SIZE: u64 = 1024 * MIB;
/// Partitions start at multiples of this.
pub const ALIGNMENT: u64 = MIB;

/// A partition of a host's disk, as planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Its number, from 1.
    pub number: u32,
    /// Its GPT name.
    pub name: &'static str,
    /// Its type GUID.
    pub kind: &'static str,
    /// Its size in bytes; the last partition takes the rest of the disk.
    pub size: Option<u64>,
}

/// The partitions of a host's disk, in order.
pub const PARTITIONS: [Planned; 6] = [
    planned(1, ESP_NAME, ESP_TYPE, Some(ESP_SIZE)),
    planned(2, Slot::A.root_name(), ROOT_TYPE, Some(ROOT_SIZE)),
    planned(3, Slot::A.verity_name(), VERITY_TYPE, Some(VERITY_SIZE)),
    planned(4, Slot::B.root_name(), ROOT_TYPE, Some(ROOT_SIZE)),
    planned(5, Slot::B.verity_name(), VERITY_TYPE, Some(VERITY_SIZE)),
    planned(6, STATE_NAME, STATE_TYPE, None),
];

const fn planned(number: u32, name: &'static str, kind: &'static str, size: Option<u64>) -> Planned {
    Planned {
        number,
        name,
        kind,
        size,
    }
}

/// The smallest disk that an install accepts: all partitions, and a megabyte at each end for the partition tables.
#[must_use]
pub fn minimum_disk() -> u64 {
    PARTITIONS
        .iter()
        .map(|partition| partition.size.unwrap_or(STATE_MIN_SIZE))
        .sum::<u64>()
        + 2 * ALIGNMENT
}

/// The confirmed slot's boot image under the name that firmware starts when it knows no entry, relative to the EFI
/// system partition.
pub const FALLBACK_IMAGE: &str = "EFI/BOOT/BOOTX64.EFI";

/// Kernel parameter that says what the image boots for: [`MODE_HOST`] or [`MODE_INSTALL`].
pub const PARAM_MODE: &str = "bastide.mode";
/// The mode of an installed host.
pub const MODE_HOST: &str = "host";
/// The mode of the installer's medium.
pub const MODE_INSTALL: &str = "install";
/// The name of the device-mapper device under the root file system.
pub const ROOT_MAPPING: &str = "bastide-root";

/// Where the EFI system partition is mounted, read-only but while it is written.
pub const ESP_MOUNT: &str = "/boot/efi";
/// Where the state partition is mounted.
pub const STATE_MOUNT: &str = "/state";
/// What this distribution keeps on state.
pub const STATE_DIRECTORY: &str = "/state/bastide";
/// The durable memory of the TUF client.
pub const DATASTORE: &str = "/state/bastide/datastore";
/// The same for the site's repository, where the policy demands it.
pub const SITE_DATASTORE: &str = "/state/bastide/site-datastore";
/// The trust policy, and the site's root where it demands one.
pub const TRUST_POLICY: &str = "/state/bastide/trust";
/// What the slots hold.
pub const SLOTS_FILE: &str = "/state/bastide/slots.json";
/// The installer's record.
pub const INSTALL_RECORD: &str = "/state/bastide/install-record.json";
/// The host key's signature of the installer's record.
pub const INSTALL_RECORD_SIGNATURE: &str = "/state/bastide/install-record.json.sig";
/// The host's own private key.
pub const HOST_KEY: &str = "/state/bastide/host-key.pem";
/// The answer file that the host was installed with.
pub const ANSWER_FILE: &str = "/state/bastide/answer.toml";
/// The overlay's upper directory for `/etc`; its working directory stands beside it with `-work` appended.
pub const OVERLAY_ETC: &str = "/state/overlay/etc";
/// The overlay's upper directory for `/var`; its working directory stands beside it with `-work` appended.
pub const OVERLAY_VAR: &str = "/state/overlay/var";
/// The release's facts in the image.
pub const RELEASE_FILE: &str = "/usr/share/bastide/release.json";
/// The kernel and initrd of the built-in guest.
pub const GUEST_DIRECTORY: &str = "/usr/share/bastide/guest";

/// The label of the installer's medium.
pub const MEDIUM_LABEL: &str = "BASTIDE";
/// The label of a stick that carries an answer file.
pub const ANSWER_LABEL: &str = "BASTIDE-ANSW";
/// The label of a stick that carries a bundle.
pub const BUNDLE_LABEL: &str = "BASTIDE-BDL";
/// The answer file's name on either.
pub const ANSWER_NAME: &str = "bastide-answer.toml";
/// Where the initrd mounts the installer's medium.
pub const MEDIUM_MOUNT: &str = "/run/bastide/medium";
/// Where the initrd mounts the squashfs of the medium's targets.
pub const TARGETS_MOUNT: &str = "/run/bastide/targets";

/// `release.json` in the image: what the image says of itself. It lies under verity, so it is as signed as the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRelease {
    /// The release's version.
    pub version: signing::release::Version,
    /// The channel that the host follows.
    pub channel: String,
    /// The snapshot's name.
    pub snapshot: String,
    /// Seconds since 1970 that every date in the image derives from: the first floor of the host's time.
    pub built: u64,
}

/// The value of a kernel parameter, the last one winning as in the kernel.
#[must_use]
pub fn kernel_parameter<'a>(command_line: &'a str, name: &str) -> Option<&'a str> {
    command_line
        .split_ascii_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value)
        .next_back()
}

#[cfg(test)]
mod tests {
    use signing::release::ROOT_HASH_PARAMETER;

    use super::*;

    #[test]
    fn a_root_hash_gives_both_guids() {
        let hash: Sha256 = "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210"
            .parse()
            .unwrap();
        assert_eq!(root_guid(&hash).to_string(), "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(verity_guid(&hash).to_string(), "01234567-89ab-cdef-fedc-ba9876543210");
    }

    #[test]
    fn the_last_parameter_wins() {
        let line = "ro bastide.roothash=aa quiet bastide.roothash=bb\n";
        assert_eq!(kernel_parameter(line, ROOT_HASH_PARAMETER), Some("bb"));
        assert_eq!(kernel_parameter(line, PARAM_MODE), None);
    }

    #[test]
    fn partitions_are_numbered_in_order_and_only_the_last_takes_the_rest() {
        for (index, partition) in PARTITIONS.iter().enumerate() {
            assert_eq!(partition.number as usize, index + 1);
            assert_eq!(partition.size.is_none(), index + 1 == PARTITIONS.len());
        }
    }
}
