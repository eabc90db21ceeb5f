// SPDX-License-Identifier: GPL-3.0-or-later
//! An installed host: the slot of the root hash, its state, and the overlays of `/etc` and `/var`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hardening::medium::gpt;
use nix::mount::MsFlags;
use signing::digest::Sha256;

use super::devices::{Coldplug, Disk, disks};
use super::report::{Boot, From};
use super::{Orders, SYSROOT, console, mounts, verity};
use crate::layout::{self, Guid, Slot};

/// How long a disk may take to appear: controllers with many disks spin them up one by one.
const LIMIT: Duration = Duration::from_secs(180);

/// The partitions of a host's disk that a boot needs, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The slot, told by the partition's name.
    pub slot: Slot,
    /// The root partition.
    pub root: u32,
    /// The verity partition.
    pub verity: u32,
    /// The state partition.
    pub state: u32,
    /// The EFI system partition.
    pub esp: Option<u32>,
}

/// Chooses from a disk's partitions. `None` means that the disk does not hold this root hash.
///
/// # Errors
/// When it holds it, but not as an installed host does.
pub fn choose(partitions: &[gpt::Partition], root_hash: &Sha256) -> Result<Option<Choice>> {
    let find = |guid: Guid, kind: &str| {
        let kind: Option<Guid> = kind.parse().ok();
        partitions
            .iter()
            .find(|partition| partition.guid == guid && Some(partition.kind) == kind)
    };
    let Some(root) = find(layout::root_guid(root_hash), layout::ROOT_TYPE) else {
        return Ok(None);
    };
    let slot = Slot::ALL
        .into_iter()
        .find(|slot| slot.root_name() == root.name)
        .with_context(|| {
            format!(
                "partition {} holds the release but is named {:?}",
                root.number, root.name
            )
        })?;
    let verity = find(layout::verity_guid(root_hash), layout::VERITY_TYPE)
        .with_context(|| format!("the hash tree of partition {} ({}) is missing", root.number, root.name))?;
    let named = |name: &str, kind: &str| {
        let kind: Option<Guid> = kind.parse().ok();
        let mut found = partitions
            .iter()
            .filter(|partition| partition.name == name && Some(partition.kind) == kind);
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(Some(one.number)),
            (None, _) => Ok(None),
            (Some(_), Some(_)) => bail!("more than one partition is named {name}"),
        }
    };
    Ok(Some(Choice {
        slot,
        root: root.number,
        verity: verity.number,
        state: named(layout::STATE_NAME, layout::STATE_TYPE)?
            .with_context(|| format!("the partition {} is missing", layout::STATE_NAME))?,
        esp: named(layout::ESP_NAME, layout::ESP_TYPE)?,
    }))
}

/// Puts the root file system of an installed host together.
///
/// # Errors
/// When the disk is not there, is there twice, or is not whole.
pub fn prepare(root_hash: &Sha256, orders: &Orders) -> Result<Boot> {
    Coldplug::load(&orders.load);
    mounts::xen()?;
    let mut coldplug = Coldplug::default();
    let from = coldplug.wait("the disk that this host was installed on", LIMIT, || look(root_hash))?;
    let From::Host {
        root, verity, state, ..
    } = &from
    else {
        bail!("a host does not start from a medium");
    };
    let mut tree =
        std::fs::File::open(verity).with_context(|| format!("cannot open the hash tree {}", verity.display()))?;
    if !verity::is_tree_of(&mut tree, root_hash)
        .with_context(|| format!("cannot read the hash tree {}", verity.display()))?
    {
        bail!(
            "the hash tree on {} is not of root hash {root_hash}: the slot is damaged or was changed",
            verity.display()
        );
    }
    verity::open(root, verity, root_hash)?;
    mounts::root()?;
    let place = Path::new(SYSROOT).join(layout::STATE_MOUNT.trim_start_matches('/'));
    mounts::mount(
        state,
        &place,
        "ext4",
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        "",
    )
    .context("this host's state is damaged: restore it or install the host anew")?;
    let below = |path: &str| Path::new(SYSROOT).join(path.trim_start_matches('/'));
    mounts::overlay("etc", &below(layout::OVERLAY_ETC), MsFlags::empty())?;
    mounts::overlay("var", &below(layout::OVERLAY_VAR), MsFlags::MS_NOEXEC)?;
    mounts::home(&place.join("root"))?;
    mounts::memory()?;
    coldplug.finish(Path::new(SYSROOT), &orders.load_root);
    Ok(Boot {
        format: 1,
        root_hash: *root_hash,
        from,
    })
}

fn look(root_hash: &Sha256) -> Result<Option<From>> {
    let mut found: Option<(Disk, From)> = None;
    for disk in disks() {
        // A drive without a disc cannot be opened, and a disk that cannot be read is not ours.
        let Ok(Some(partitions)) = disk
            .open()
            .and_then(|mut file| gpt::first_good(&mut file, disk.sector, disk.size))
        else {
            continue;
        };
        let choice = match choose(&partitions, root_hash) {
            Ok(Some(choice)) => choice,
            Ok(None) => continue,
            Err(error) => return Err(error.context(format!("the disk {} is not whole", disk.node().display()))),
        };
        let node = |number: u32| disk.partition(number);
        let (Some(root), Some(verity), Some(state)) = (node(choice.root), node(choice.verity), node(choice.state))
        else {
            console::note(&format!("{} is ours; its partitions are not there yet", disk.name));
            continue;
        };
        if let Some((other, _)) = &found {
            bail!(
                "{} and {} both hold this release: remove the one that is not this host's",
                other.node().display(),
                disk.node().display()
            );
        }
        let from = From::Host {
            disk: disk.node(),
            slot: choice.slot,
            root,
            verity,
            state,
            esp: choice.esp.and_then(node),
        };
        found = Some((disk, from));
    }
    Ok(found.map(|(_, from): (Disk, From)| from))
}

#[cfg(test)]
mod tests {
    use hardening::medium::Extent;

    use super::*;

    const HASH: &str = "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210";

    fn partition(number: u32, name: &str, kind: &str, guid: Guid) -> gpt::Partition {
        gpt::Partition {
            number,
            kind: kind.parse().unwrap(),
            guid,
            name: name.to_owned(),
            extent: Extent { start: 0, length: 1 },
        }
    }

    fn host() -> (Vec<gpt::Partition>, Sha256) {
        let hash: Sha256 = HASH.parse().unwrap();
        let other = Guid([9; 16]);
        let table = vec![
            partition(1, layout::ESP_NAME, layout::ESP_TYPE, other),
            partition(2, Slot::A.root_name(), layout::ROOT_TYPE, other),
            partition(3, Slot::A.verity_name(), layout::VERITY_TYPE, other),
            partition(4, Slot::B.root_name(), layout::ROOT_TYPE, layout::root_guid(&hash)),
            partition(
                5,
                Slot::B.verity_name(),
                layout::VERITY_TYPE,
                layout::verity_guid(&hash),
            ),
            partition(6, layout::STATE_NAME, layout::STATE_TYPE, other),
        ];
        (table, hash)
    }

    #[test]
    fn the_slot_of_the_root_hash_is_chosen() {
        let (table, hash) = host();
        let choice = choose(&table, &hash).unwrap().unwrap();
        assert_eq!((choice.slot, choice.root, choice.verity), (Slot::B, 4, 5));
        assert_eq!((choice.state, choice.esp), (6, Some(1)));
    }

    #[test]
    fn another_disk_is_passed_over() {
        let (table, _) = host();
        assert_eq!(choose(&table, &Sha256([5; 32])).unwrap(), None);
        assert_eq!(choose(&[], &Sha256([5; 32])).unwrap(), None);
    }

    #[test]
    fn a_guid_on_the_wrong_type_is_not_a_slot() {
        let (mut table, hash) = host();
        table[3].kind = layout::STATE_TYPE.parse().unwrap();
        assert_eq!(choose(&table, &hash).unwrap(), None);
    }

    #[test]
    fn a_disk_that_is_not_whole_says_what_is_missing() {
        let said = |change: fn(&mut Vec<gpt::Partition>)| {
            let (mut table, hash) = host();
            change(&mut table);
            choose(&table, &hash).unwrap_err().to_string()
        };
        assert!(said(|table| drop(table.remove(4))).contains("hash tree"));
        assert!(said(|table| drop(table.remove(5))).contains("bastide-state"));
        assert!(said(|table| table.push(table[5].clone())).contains("more than one"));
        assert!(said(|table| table[3].name = "mine".into()).contains("named"));
    }
}
