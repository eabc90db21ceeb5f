// SPDX-License-Identifier: GPL-3.0-or-later
//! The running release as what a delta rests on: its root file system and hash tree in their partitions, its boot image.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use anyhow::Result;
use offline_repo::bundle::Bases;
use offline_repo::delta::{Base, Held};
use signing::digest;
use signing::release::Part;

use crate::gpt::Table;
use crate::machine::Machine;

/// The running slot of a host.
#[derive(Debug)]
pub(super) struct Running(Machine);

impl Running {
    pub(super) fn new(machine: &Machine) -> Self {
        Self(machine.clone())
    }

    /// Where the running release keeps a part.
    fn place(&self, part: Part) -> Result<Option<PathBuf>> {
        let table = Table::read(&self.0.boot_disk()?)?;
        let slot = table.slot_holding(&self.0.running_root_hash()?)?;
        Ok(match part {
            Part::Root => Some(table.slot(slot)?.root.node),
            Part::Verity => Some(table.slot(slot)?.verity.node),
            // Looking at it mounts the EFI system partition, which nobody writes to for this.
            Part::Xen => Some(self.0.esp_mount.join(slot.boot_image())),
            Part::Installer | Part::Sbom | Part::Upstream => None,
        })
    }
}

impl Bases for Running {
    fn open(&self, base: &Base) -> io::Result<Option<Held>> {
        // Whether it is the right one its digest tells, not its path.
        let part = Part::ALL
            .into_iter()
            .find(|part| base.path.ends_with(&format!(".{}", part.file())));
        let Some(part) = part else { return Ok(None) };
        let Some(place) = self.place(part).map_err(io::Error::other)? else {
            return Ok(None);
        };
        let opened = match part {
            Part::Xen => digest::open_regular(&place),
            _ => File::open(&place),
        };
        match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            opened => Ok(Some(Held::File(opened?))),
        }
    }
}
