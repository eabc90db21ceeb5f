// SPDX-License-Identifier: GPL-3.0-or-later
//! The plan: from what the machine is, what the operator answered and what the medium carries, all that will be done, or
//! every reason why nothing will.
//!
//! It is pure. A disk is chosen only if exactly one matches; it is written only if it is empty or its own serial number
//! stands in the answer; the installer's medium and a disk in use are never written.

mod error;

use std::path::PathBuf;

use hypervisor::layout::{self, Guid, PARTITIONS};
use serde::{Deserialize, Serialize};
use signing::anchor;
use signing::digest::Sha256;
use signing::release::{Part, PartFile, Version};

use crate::answer::{Answer, DiskAnswer, Member, Then};
use crate::inventory::{Disk, Inventory, Signature, human_size};

pub use error::PlanError;

/// The release that will be laid down, from verified metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseFacts {
    /// Its version.
    pub version: Version,
    /// Its channel.
    pub channel: String,
    /// The root hash.
    pub root_hash: Sha256,
    /// Its parts.
    pub parts: Vec<PartFile>,
    /// The fingerprint of the trust directory that vouches for it, to be compared by telephone; older records have none.
    #[serde(default)]
    pub anchor: String,
}

impl ReleaseFacts {
    /// One part.
    ///
    /// # Errors
    /// When the release has no such part.
    pub fn part(&self, part: Part) -> Result<&PartFile, PlanError> {
        self.parts
            .iter()
            .find(|file| file.part == part)
            .ok_or(PlanError::NoPart(part.file()))
    }
}

/// All that will be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The release.
    pub release: ReleaseFacts,
    /// The disk, with all that was found on it.
    pub disk: Disk,
    /// What will be wiped, by name; empty for an empty disk.
    pub wipe: Vec<Signature>,
    /// The new partitions.
    pub partitions: Vec<NewPartition>,
    /// What happens to the firmware's keys.
    pub secure_boot: SecureBootPlan,
    /// The host's name.
    pub hostname: String,
    /// The network in words, one line an interface.
    pub network: Vec<String>,
    /// How many keys may log in as root.
    pub ssh_keys: usize,
    /// The root of the site whose approval the host will demand beside the vendor's signature.
    pub site_root: Option<Sha256>,
    /// What comes after.
    pub finish: Then,
}

/// A partition that will be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPartition {
    /// Its number.
    pub number: u32,
    /// Its GPT name.
    pub name: String,
    /// Its type GUID.
    pub kind: Guid,
    /// Its unique GUID, where the release decides it.
    pub guid: Option<Guid>,
    /// Where it starts, in bytes.
    pub start: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// What happens to the firmware's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecureBootPlan {
    /// The firmware is in setup mode: the site's keys are written.
    Enrol,
    /// It enforces Secure Boot already, and this installer was started under it.
    Enforced,
    /// Nothing is done.
    Leave,
    /// The disk is for another machine, whose firmware is not here.
    OtherMachine,
}

impl Plan {
    /// Makes the plan.
    ///
    /// # Errors
    /// Every reason why nothing is done; see [`PlanError`].
    pub fn new(inventory: &Inventory, answer: &Answer, release: &ReleaseFacts) -> Result<Self, PlanError> {
        if !inventory.firmware.uefi && !inventory.other_machine {
            return Err(PlanError::NoUefi);
        }
        let disk = choose(&inventory.disks, &answer.disk)?;
        check_disk(disk, &answer.disk)?;
        check_release(release)?;
        check_cards(inventory, answer)?;
        Ok(Self {
            release: release.clone(),
            disk: disk.clone(),
            wipe: disk.signatures.clone(),
            partitions: partitions(disk, release),
            secure_boot: secure_boot(inventory, answer)?,
            hostname: answer.network.hostname.to_string(),
            network: answer.network.interface.iter().map(crate::network::words).collect(),
            ssh_keys: answer.admin.ssh_keys.len(),
            site_root: answer.trust.site_root,
            finish: answer.installer.finish,
        })
    }

    /// One of the new partitions.
    #[must_use]
    pub fn partition(&self, name: &str) -> Option<&NewPartition> {
        self.partitions.iter().find(|partition| partition.name == name)
    }

    /// The plan as an operator reads it before anything is done.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("Release   {} ({})", self.release.version, self.release.channel),
            format!("Trust     {}", self.release.anchor),
            format!("          {}", anchor::COMPARE),
            format!("Disk      {}", self.disk.title()),
        ];
        if self.disk.holds_data() {
            lines.extend(self.disk.contents().iter().map(|line| format!("  wiped   {line}")));
            lines.extend(self.disk.holders.iter().map(|name| format!("  stopped {name}")));
        } else {
            lines.push("  empty   nothing is lost".into());
        }
        lines.extend(self.partitions.iter().map(|partition| {
            format!(
                "  made    {} {} {}",
                partition.number,
                partition.name,
                human_size(partition.size)
            )
        }));
        lines.push(format!("Host name {}", self.hostname));
        if self.network.is_empty() {
            lines.push("Network   none".into());
        }
        lines.extend(self.network.iter().map(|line| format!("Network   {line}")));
        if self.secure_boot == SecureBootPlan::OtherMachine && !self.network.is_empty() {
            lines.push("  cards   not looked at: another machine".into());
        }
        lines.push(match self.ssh_keys {
            0 => "Access    none: there is no ssh key and no password, so nobody can log in".into(),
            1 => "Access    1 ssh key for root, no password".into(),
            keys => format!("Access    {keys} ssh keys for root, no password"),
        });
        lines.push("Updates   the vendor's signature is demanded".into());
        if let Some(root) = self.site_root {
            lines.push(format!("  and     the approval of the site with the root {root}"));
        }
        lines.push(format!(
            "Firmware  {}",
            match self.secure_boot {
                SecureBootPlan::Enrol => "setup mode: the site's Secure Boot keys are written",
                SecureBootPlan::Enforced => "Secure Boot is enforced",
                SecureBootPlan::Leave => "Secure Boot is NOT enforced and stays so",
                SecureBootPlan::OtherMachine => "not looked at: another machine",
            }
        ));
        lines
    }
}

fn choose<'a>(disks: &'a [Disk], wanted: &DiskAnswer) -> Result<&'a Disk, PlanError> {
    let matching: Vec<&Disk> = disks.iter().filter(|disk| matches(disk, wanted)).collect();
    match matching.as_slice() {
        [disk] => Ok(disk),
        [] => Err(PlanError::NoDisk {
            wanted: words(wanted),
            present: list(disks.iter().map(Disk::title)),
        }),
        // The medium does not compete with a disk that can be meant, but it is never chosen by being alone either.
        several => match several
            .iter()
            .filter(|disk| !disk.medium)
            .collect::<Vec<_>>()
            .as_slice()
        {
            [disk] => Ok(disk),
            _ => Err(PlanError::ManyDisks {
                wanted: words(wanted),
                matching: several.iter().map(|disk| disk.title()).collect(),
            }),
        },
    }
}

fn matches(disk: &Disk, wanted: &DiskAnswer) -> bool {
    let same = |wanted: &Option<crate::answer::Selector>, own: Option<&str>| {
        wanted.as_ref().is_none_or(|wanted| own == Some(wanted.as_str()))
    };
    let path = wanted.by_path.as_ref().is_none_or(|path| {
        let name = path.as_str().trim_start_matches("/dev/disk/by-path/");
        disk.by_path.iter().any(|own| own == name)
    });
    same(&wanted.serial, disk.serial.as_deref())
        && same(&wanted.model, disk.model.as_deref())
        && path
        && wanted.min_size.as_ref().is_none_or(|least| disk.size >= least.bytes())
        && wanted
            .max_size
            .as_ref()
            .is_none_or(|greatest| disk.size <= greatest.bytes())
}

fn words(wanted: &DiskAnswer) -> String {
    let text = |name: &str, value: Option<String>| value.map(|value| format!("{name} {value}"));
    let parts = [
        text("serial", wanted.serial.as_ref().map(ToString::to_string)),
        text("model", wanted.model.as_ref().map(ToString::to_string)),
        text("by_path", wanted.by_path.as_ref().map(ToString::to_string)),
        text("min_size", wanted.min_size.as_ref().map(ToString::to_string)),
        text("max_size", wanted.max_size.as_ref().map(ToString::to_string)),
    ];
    list(parts.into_iter().flatten())
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() {
        "none".into()
    } else {
        items.join(", ")
    }
}

fn check_disk(disk: &Disk, wanted: &DiskAnswer) -> Result<(), PlanError> {
    let title = disk.title();
    if disk.medium {
        return Err(PlanError::Medium(title));
    }
    if !disk.mounted.is_empty() {
        return Err(PlanError::InUse {
            disk: title,
            mounted: disk.mounted.clone(),
        });
    }
    if disk.read_only {
        return Err(PlanError::ReadOnly(title));
    }
    if let Some(why) = &disk.unreadable {
        return Err(PlanError::Unreadable {
            disk: title,
            why: why.clone(),
        });
    }
    if !matches!(disk.sector, 512 | 4096) {
        return Err(PlanError::Sectors {
            disk: title,
            sector: disk.sector,
        });
    }
    if disk.size < layout::minimum_disk() {
        return Err(PlanError::TooSmall {
            disk: title,
            need: layout::minimum_disk(),
        });
    }
    let own = disk.serial.as_deref();
    if let Some(wipe) = &wanted.wipe
        && own != Some(wipe.as_str())
    {
        return Err(PlanError::OtherWipe {
            disk: title,
            wipe: wipe.to_string(),
        });
    }
    if disk.holds_data() && wanted.wipe.is_none() {
        return Err(match own {
            None => PlanError::Nameless(title),
            Some(serial) => PlanError::HoldsData {
                disk: title,
                contents: disk.contents(),
                allow: format!("wipe = {serial:?}"),
            },
        });
    }
    Ok(())
}

fn check_release(release: &ReleaseFacts) -> Result<(), PlanError> {
    for (part, room) in [
        (Part::Root, layout::ROOT_SIZE),
        (Part::Verity, layout::VERITY_SIZE),
        // Two slots and the copy under the fallback name, in a file system that needs some room itself.
        (Part::Xen, layout::ESP_SIZE / 4),
    ] {
        let size = release.part(part)?.size;
        if size == 0 || size > room {
            return Err(PlanError::Release {
                part: part.file(),
                size,
                room,
            });
        }
    }
    Ok(())
}

fn check_cards(inventory: &Inventory, answer: &Answer) -> Result<(), PlanError> {
    if inventory.other_machine {
        return Ok(());
    }
    let missing = |key: String, wanted: &Member| {
        let text = match wanted {
            Member::Mac(mac) => mac.to_string(),
            Member::Name(name) => name.to_string(),
        };
        let present = inventory.cards.iter().any(|card| match wanted {
            Member::Mac(_) => card.mac.eq_ignore_ascii_case(&text),
            Member::Name(_) => card.name == text,
        });
        if present {
            return Ok(());
        }
        Err(PlanError::NoCard {
            key,
            wanted: text,
            present: list(inventory.cards.iter().map(|card| format!("{} {}", card.name, card.mac))),
        })
    };
    for (index, interface) in answer.network.interface.iter().enumerate() {
        let key = |name: &str| format!("network.interface[{index}].{name}");
        match (&interface.bond, &interface.name, &interface.mac) {
            (Some(bond), ..) => {
                for member in &bond.members {
                    missing(key("bond.members"), member)?;
                }
            }
            // A VLAN or an address may also lie on a bond that another entry makes.
            (None, Some(name), _) if is_bond(answer, name) => {}
            (None, Some(name), _) => missing(key("name"), &Member::Name(name.clone()))?,
            (None, None, Some(mac)) => missing(key("mac"), &Member::Mac(*mac))?,
            (None, None, None) => {}
        }
    }
    Ok(())
}

fn is_bond(answer: &Answer, name: &crate::answer::Interface) -> bool {
    let bonds = answer.network.interface.iter().filter(|other| other.bond.is_some());
    bonds.filter_map(|bond| bond.name.as_ref()).any(|bond| bond == name)
}

fn secure_boot(inventory: &Inventory, answer: &Answer) -> Result<SecureBootPlan, PlanError> {
    if inventory.other_machine {
        if answer.secure_boot.require {
            return Err(PlanError::NoSecureBoot(
                "the disk is for another machine, which is not here to be asked: leave it out",
            ));
        }
        return Ok(SecureBootPlan::OtherMachine);
    }
    let firmware = inventory.firmware;
    let plan = match (firmware.setup_mode, firmware.secure_boot) {
        (Some(true), _) if answer.secure_boot.enrol => SecureBootPlan::Enrol,
        (_, Some(true)) => SecureBootPlan::Enforced,
        _ => SecureBootPlan::Leave,
    };
    if answer.secure_boot.require && plan == SecureBootPlan::Leave {
        return Err(PlanError::NoSecureBoot(match firmware.setup_mode {
            Some(true) => "secure_boot.enrol is not: set it, and the site's keys are written",
            Some(false) => "Secure Boot is switched off in the firmware: switch it on",
            None => "the firmware does not say whether it can do it",
        }));
    }
    Ok(plan)
}

fn partitions(disk: &Disk, release: &ReleaseFacts) -> Vec<NewPartition> {
    let mut start = layout::ALIGNMENT;
    let end = (disk.size - layout::ALIGNMENT) / layout::ALIGNMENT * layout::ALIGNMENT;
    PARTITIONS
        .iter()
        .map(|planned| {
            let size = planned.size.unwrap_or_else(|| end.saturating_sub(start));
            let made = NewPartition {
                number: planned.number,
                name: planned.name.to_owned(),
                kind: planned.kind.parse().unwrap_or(Guid([0; 16])),
                guid: match planned.name {
                    name if name == layout::Slot::A.root_name() => Some(layout::root_guid(&release.root_hash)),
                    name if name == layout::Slot::A.verity_name() => Some(layout::verity_guid(&release.root_hash)),
                    _ => None,
                },
                start,
                size,
            };
            start += size;
            made
        })
        .collect()
}

/// The node of the disk, which every later step opens.
impl AsRef<PathBuf> for Plan {
    fn as_ref(&self) -> &PathBuf {
        &self.disk.path
    }
}

#[cfg(test)]
mod tests;
