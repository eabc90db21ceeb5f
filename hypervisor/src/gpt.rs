// SPDX-License-Identifier: GPL-3.0-or-later
//! The partition table of the boot disk, read and edited through `sfdisk`.
//!
//! Attacks faced: a disk that was swapped or edited offline, whose table names partitions twice, out of the disk or not
//! at all. Defence: every name that a slot needs must be there exactly once, with its type, and sizes are those of the
//! table and never those of a file. Defence not made: a table that is consistent and lies. What is in the partitions is
//! therefore judged by dm-verity and the root hash, never by the table.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use signing::digest::Sha256;
use signing::process::Cmd;

use crate::layout::{self, Guid, Slot};

/// More partitions than a GPT of the usual size can hold.
const MAX_PARTITIONS: usize = 128;

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// Its device node.
    pub node: PathBuf,
    /// Its GPT name.
    pub name: String,
    /// Its type.
    pub kind: Guid,
    /// Its unique GUID.
    pub guid: Guid,
    /// Where it starts, in bytes.
    pub start: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// The two partitions of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotPartitions {
    /// The root file system.
    pub root: Partition,
    /// Its hash tree.
    pub verity: Partition,
}

impl SlotPartitions {
    /// Whether the GUIDs say that the slot holds the release of this root hash.
    #[must_use]
    pub fn hold(&self, root_hash: &Sha256) -> bool {
        self.root.guid == layout::root_guid(root_hash) && self.verity.guid == layout::verity_guid(root_hash)
    }
}

/// A partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The disk.
    pub disk: PathBuf,
    /// Its partitions.
    pub partitions: Vec<Partition>,
}

#[derive(Deserialize)]
struct Output {
    partitiontable: Raw,
}

#[derive(Deserialize)]
struct Raw {
    label: String,
    sectorsize: Option<u64>,
    #[serde(default)]
    partitions: Vec<RawPartition>,
}

#[derive(Deserialize)]
struct RawPartition {
    node: PathBuf,
    start: u64,
    size: u64,
    #[serde(rename = "type")]
    kind: String,
    uuid: String,
    #[serde(default)]
    name: String,
}

impl Table {
    /// Reads the table of a disk.
    ///
    /// # Errors
    /// When the disk cannot be read or has no GPT.
    pub fn read(disk: &Path) -> Result<Self> {
        let output = Cmd::new("sfdisk")
            .arg("--json")
            .arg(disk)
            .output()
            .with_context(|| format!("cannot read the partition table of {}", disk.display()))?;
        Self::parse(disk, &output).with_context(|| format!("cannot use the partition table of {}", disk.display()))
    }

    /// Understands what `sfdisk --json` printed.
    ///
    /// # Errors
    /// When it is not a GPT of plausible values.
    pub fn parse(disk: &Path, output: &[u8]) -> Result<Self> {
        let raw = serde_json::from_slice::<Output>(output)
            .context("sfdisk printed something unknown")?
            .partitiontable;
        if raw.label != "gpt" {
            bail!("it is a {:?} table and not a GPT", raw.label);
        }
        if raw.partitions.len() > MAX_PARTITIONS {
            bail!("it has {} partitions, more than {MAX_PARTITIONS}", raw.partitions.len());
        }
        let sector = raw.sectorsize.unwrap_or(512);
        let prefix = disk.to_string_lossy().into_owned();
        let partitions = raw
            .partitions
            .into_iter()
            .map(|partition| {
                let bytes = |sectors: u64| {
                    sectors
                        .checked_mul(sector)
                        .with_context(|| format!("{} sectors overflow", partition.node.display()))
                };
                Ok(Partition {
                    number: number_of(&prefix, &partition.node)?,
                    start: bytes(partition.start)?,
                    size: bytes(partition.size)?,
                    kind: partition.kind.parse()?,
                    guid: partition.uuid.parse()?,
                    name: partition.name,
                    node: partition.node,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            disk: disk.to_path_buf(),
            partitions,
        })
    }

    /// The one partition of this name and type.
    ///
    /// # Errors
    /// When there is none or more than one.
    pub fn named(&self, name: &str, kind: &str) -> Result<&Partition> {
        let kind: Guid = kind.parse()?;
        let mut found = self.partitions.iter().filter(|partition| partition.name == name);
        let partition = found
            .next()
            .with_context(|| format!("{} has no partition {name}", self.disk.display()))?;
        if found.next().is_some() {
            bail!("{} has more than one partition {name}", self.disk.display());
        }
        if partition.kind != kind {
            bail!(
                "{} {name} has type {} and not {kind}",
                self.disk.display(),
                partition.kind
            );
        }
        Ok(partition)
    }

    /// The partitions of a slot.
    ///
    /// # Errors
    /// When one of them is missing.
    pub fn slot(&self, slot: Slot) -> Result<SlotPartitions> {
        Ok(SlotPartitions {
            root: self.named(slot.root_name(), layout::ROOT_TYPE)?.clone(),
            verity: self.named(slot.verity_name(), layout::VERITY_TYPE)?.clone(),
        })
    }

    /// The EFI system partition.
    ///
    /// # Errors
    /// When it is missing.
    pub fn esp(&self) -> Result<&Partition> {
        self.named(layout::ESP_NAME, layout::ESP_TYPE)
    }

    /// The slot that holds the release of this root hash.
    ///
    /// # Errors
    /// When no slot holds it, or both do, which no install and no update can make.
    pub fn slot_holding(&self, root_hash: &Sha256) -> Result<Slot> {
        let (a, b) = (self.slot(Slot::A)?.hold(root_hash), self.slot(Slot::B)?.hold(root_hash));
        match (a, b) {
            (true, false) => Ok(Slot::A),
            (false, true) => Ok(Slot::B),
            (true, true) => bail!("both slots of {} claim root hash {root_hash}", self.disk.display()),
            (false, false) => bail!("no slot of {} holds root hash {root_hash}", self.disk.display()),
        }
    }
}

/// Partition nodes are the disk's name and a number, with a `p` between where the disk's name ends in a digit.
fn number_of(disk: &str, node: &Path) -> Result<u32> {
    let node = node.to_string_lossy();
    node.strip_prefix(disk)
        .map(|rest| rest.strip_prefix('p').unwrap_or(rest))
        .and_then(|digits| digits.parse().ok())
        .with_context(|| format!("{node} is not a partition of {disk}"))
}

/// Gives a partition another unique GUID, on disk only: the kernel and whoever uses the disk are not disturbed.
///
/// `sfdisk` writes the backup table before the primary one and syncs, so a power cut leaves one of them whole.
///
/// # Errors
/// When the table cannot be written, or reads back otherwise.
pub fn set_guid(disk: &Path, partition: &Partition, guid: Guid) -> Result<()> {
    let what = || {
        format!(
            "cannot set the GUID of {} ({})",
            partition.node.display(),
            partition.name
        )
    };
    Cmd::new("sfdisk")
        .args(["--no-reread", "--no-tell-kernel", "--quiet", "--part-uuid"])
        .arg(disk)
        .args([partition.number.to_string(), guid.to_string()])
        .run()
        .with_context(what)?;
    let table = Table::read(disk)?;
    let now = table.partitions.iter().find(|other| other.number == partition.number);
    if now.map(|partition| partition.guid) != Some(guid) {
        bail!(
            "{}: the table reads back otherwise, so the disk {} may be failing",
            what(),
            disk.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = include_str!("../tests/fixtures/sfdisk.json");

    fn parse(text: &str) -> Result<Table> {
        Table::parse(Path::new("/dev/nvme0n1"), text.as_bytes())
    }

    #[test]
    fn reads_a_recorded_table() {
        let table = parse(TABLE).unwrap();
        assert_eq!(table.partitions.len(), 6);
        let slot = table.slot(Slot::B).unwrap();
        assert_eq!((slot.root.number, slot.root.size), (4, layout::ROOT_SIZE));
        assert_eq!((slot.verity.number, slot.verity.size), (5, layout::VERITY_SIZE));
        assert_eq!(table.esp().unwrap().node, Path::new("/dev/nvme0n1p1"));
    }

    #[test]
    fn knows_the_slot_by_both_halves_of_the_hash() {
        let table = parse(TABLE).unwrap();
        let hash = "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210";
        assert_eq!(table.slot_holding(&hash.parse().unwrap()).unwrap(), Slot::A);
        let half = "00112233445566778899aabbccddeeff00000000000000000000000000000000";
        assert!(table.slot_holding(&half.parse().unwrap()).is_err());
    }

    #[test]
    fn refuses_twice_named_and_wrongly_typed_partitions() {
        let twice = TABLE.replace("bastide-root-b", "bastide-root-a");
        assert!(
            parse(&twice)
                .unwrap()
                .slot(Slot::A)
                .unwrap_err()
                .to_string()
                .contains("more than one")
        );
        let typed = TABLE.replacen("4F68BCE3", "4F68BCE4", 1);
        assert!(
            parse(&typed)
                .unwrap()
                .slot(Slot::A)
                .unwrap_err()
                .to_string()
                .contains("has type")
        );
    }

    #[test]
    fn refuses_tables_that_are_no_gpt_or_foreign() {
        assert!(parse(&TABLE.replace("\"gpt\"", "\"dos\"")).is_err());
        assert!(parse(&TABLE.replace("nvme0n1p3", "sda3")).is_err());
        assert!(parse(&TABLE.replace("\"size\": 4194304", "\"size\": 18446744073709551615")).is_err());
        assert!(parse("{}").is_err());
    }
}
