// SPDX-License-Identifier: GPL-3.0-or-later
//! The firmware's boot entries, through `efibootmgr`.
//!
//! Entries are found by their label and by the disk that they point to: firmware renumbers them, and a machine may carry
//! the entries of an earlier install. Version 18 of the program prints more lines than version 17, and both are read.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use signing::process::Cmd;

use crate::gpt::Table;
use crate::layout::Slot;

/// One boot entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its number.
    pub number: u16,
    /// Whether the firmware may start it.
    pub active: bool,
    /// Its label.
    pub label: String,
    /// Its device path, as printed.
    pub path: String,
}

impl Entry {
    /// Whether it starts this slot from this disk.
    #[must_use]
    pub fn starts(&self, slot: Slot, esp_guid: &str) -> bool {
        self.label == slot.boot_label() && self.path.to_lowercase().contains(&esp_guid.to_lowercase())
    }
}

/// What the firmware's boot manager is set to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Entries {
    /// The entry that the machine was started with.
    pub current: Option<u16>,
    /// The entry for the next start only.
    pub next: Option<u16>,
    /// The order in which entries are tried.
    pub order: Vec<u16>,
    /// All entries.
    pub entries: Vec<Entry>,
}

impl Entries {
    /// Understands what `efibootmgr -v` printed. Lines that it does not know are passed over: versions differ in them.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut entries = Self::default();
        for line in text.lines() {
            if let Some(value) = line.strip_prefix("BootCurrent:") {
                entries.current = number(value);
            } else if let Some(value) = line.strip_prefix("BootNext:") {
                entries.next = number(value);
            } else if let Some(value) = line.strip_prefix("BootOrder:") {
                entries.order = value.split(',').filter_map(number).collect();
            } else if let Some(entry) = entry(line) {
                entries.entries.push(entry);
            }
        }
        entries
    }

    /// The number of the entry that starts this slot from this disk.
    #[must_use]
    pub fn of(&self, slot: Slot, esp_guid: &str) -> Option<u16> {
        self.entries
            .iter()
            .find(|entry| entry.starts(slot, esp_guid))
            .map(|entry| entry.number)
    }

    /// The boot order with these entries first and all others behind in the order that they had.
    #[must_use]
    pub fn order_with_first(&self, first: &[u16]) -> Vec<u16> {
        let others = self.order.iter().filter(|number| !first.contains(number));
        first.iter().chain(others).copied().collect()
    }
}

fn number(text: &str) -> Option<u16> {
    let text = text.trim();
    (text.len() == 4).then(|| u16::from_str_radix(text, 16).ok()).flatten()
}

fn entry(line: &str) -> Option<Entry> {
    let rest = line.strip_prefix("Boot")?;
    let (digits, rest) = rest.split_at_checked(4)?;
    let number = number(digits)?;
    let (mark, rest) = rest.split_at_checked(1)?;
    let active = match mark {
        "*" => true,
        " " => false,
        _ => return None,
    };
    let (label, path) = rest.split_once('\t').unwrap_or((rest, ""));
    Some(Entry {
        number,
        active,
        label: label.trim().to_owned(),
        path: path.trim().to_owned(),
    })
}

/// The firmware's boot manager.
pub struct Firmware<'a> {
    program: &'a Path,
}

impl<'a> Firmware<'a> {
    /// The boot manager behind this `efibootmgr`.
    #[must_use]
    pub const fn new(program: &'a Path) -> Self {
        Self { program }
    }

    fn cmd(&self) -> Cmd {
        Cmd::new(self.program)
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// When the machine was not started by UEFI or its variables cannot be read.
    pub fn read(&self) -> Result<Entries> {
        let output = self
            .cmd()
            .arg("-v")
            .output()
            .context("cannot read the firmware's boot entries")?;
        Ok(Entries::parse(&String::from_utf8_lossy(&output)))
    }

    /// Makes the entry of a slot, outside of the boot order, in place of all that have its label.
    ///
    /// # Errors
    /// When the firmware refuses.
    pub fn create(&self, table: &Table, slot: Slot) -> Result<u16> {
        self.remove(slot)?;
        let esp = table.esp()?;
        self.cmd()
            .args(["--create-only", "--quiet", "--disk"])
            .arg(&table.disk)
            .args(["--part", &esp.number.to_string()])
            .args(["--label", slot.boot_label(), "--loader", slot.boot_loader_path()])
            .run()
            .with_context(|| format!("cannot create the boot entry {:?}", slot.boot_label()))?;
        let guid = esp.guid.to_string();
        self.read()?.of(slot, &guid).with_context(|| {
            format!(
                "the firmware forgot the boot entry {:?} as soon as it was made",
                slot.boot_label()
            )
        })
    }

    /// Removes all entries with the slot's label, and the order to start one of them next.
    ///
    /// # Errors
    /// When the firmware refuses.
    pub fn remove(&self, slot: Slot) -> Result<()> {
        let before = self.read()?;
        for entry in before.entries.iter().filter(|entry| entry.label == slot.boot_label()) {
            if before.next == Some(entry.number) {
                self.clear_next(&before)?;
            }
            self.cmd()
                .args([
                    "--quiet",
                    "--delete-bootnum",
                    "--bootnum",
                    &format!("{:04X}", entry.number),
                ])
                .run()
                .with_context(|| format!("cannot delete the boot entry {:?}", entry.label))?;
        }
        Ok(())
    }

    /// Starts this entry at the next start, once.
    ///
    /// # Errors
    /// When the firmware refuses.
    pub fn set_next(&self, number: u16) -> Result<()> {
        self.cmd()
            .args(["--quiet", "--bootnext", &format!("{number:04X}")])
            .run()
            .context("cannot order the next start (BootNext)")
    }

    /// Takes the order for the next start back.
    ///
    /// Versions 17 and 18 refuse to delete BootNext on a machine that has no Boot0001, whatever BootNext says. There it is
    /// set to the entry that starts without it: the first of the boot order.
    ///
    /// # Errors
    /// When the firmware refuses.
    fn clear_next(&self, before: &Entries) -> Result<()> {
        let exists = |number: &u16| before.entries.iter().any(|entry| entry.number == *number);
        let mut order = before.order.iter().copied();
        let usual = order.find(|number| exists(number) && before.next != Some(*number));
        if let (false, Some(usual)) = (exists(&1), usual) {
            return self.set_next(usual).context("cannot take BootNext back");
        }
        self.cmd()
            .args(["--quiet", "--delete-bootnext"])
            .run()
            .context("cannot take BootNext back")
    }

    /// Puts the slot's entry first in the boot order and the other slot's second. The slot's entry is made when firmware
    /// has lost it.
    ///
    /// # Errors
    /// When the firmware refuses, or the order reads back otherwise.
    pub fn put_first(&self, table: &Table, slot: Slot) -> Result<()> {
        let guid = table.esp()?.guid.to_string();
        let number = match self.read()?.of(slot, &guid) {
            Some(number) => number,
            None => self.create(table, slot)?,
        };
        let entries = self.read()?;
        let first: Vec<u16> = [Some(number), entries.of(slot.other(), &guid)]
            .into_iter()
            .flatten()
            .collect();
        let order = entries.order_with_first(&first);
        if order == entries.order {
            return Ok(());
        }
        let text: Vec<String> = order.iter().map(|number| format!("{number:04X}")).collect();
        self.cmd()
            .args(["--quiet", "--bootorder", &text.join(",")])
            .run()
            .context("cannot set the boot order (BootOrder)")?;
        anyhow::ensure!(
            self.read()?.order.first() == Some(&number),
            "the firmware did not keep the boot order: set {:?} first in its setup",
            slot.boot_label()
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUID: &str = "885a5163-d13a-6c4f-9d5c-08020c3db3e0";

    #[test]
    fn reads_both_recorded_versions_alike() {
        for text in [
            include_str!("../tests/fixtures/efibootmgr-17.txt"),
            include_str!("../tests/fixtures/efibootmgr-18.txt"),
        ] {
            let entries = Entries::parse(text);
            assert_eq!(entries.current, Some(3));
            assert_eq!(entries.next, Some(4));
            assert_eq!(entries.order, [3, 0, 0x1a]);
            assert_eq!(entries.entries.len(), 5);
            assert_eq!(entries.of(Slot::A, GUID), Some(3));
            assert_eq!(entries.of(Slot::B, GUID), Some(4));
            assert!(!entries.entries[1].active);
        }
    }

    #[test]
    fn an_entry_of_another_disk_is_not_taken() {
        let entries = Entries::parse(include_str!("../tests/fixtures/efibootmgr-18.txt"));
        assert_eq!(entries.of(Slot::A, "00000000-d13a-6c4f-9d5c-08020c3db3e0"), None);
    }

    #[test]
    fn the_confirmed_slot_goes_first_and_the_rest_keeps_its_order() {
        let entries = Entries::parse(include_str!("../tests/fixtures/efibootmgr-18.txt"));
        assert_eq!(entries.order_with_first(&[4, 3]), [4, 3, 0, 0x1a]);
    }

    #[test]
    fn foreign_text_gives_no_entries() {
        assert_eq!(
            Entries::parse("Bootä\nBootOrder: zzzz\nBoot00\nBootNext: 12345\n"),
            Entries::default()
        );
    }
}
