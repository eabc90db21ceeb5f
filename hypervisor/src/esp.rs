// SPDX-License-Identifier: GPL-3.0-or-later
//! The EFI system partition: writable only while it is written.
//!
//! FAT has no journal. A file is written beside its place under a fixed name, synced, read back from the device, renamed
//! and the directory synced; a cut leaves at most that one temporary, which the next write replaces. No boot image that
//! the boot order names is ever written to, so what a cut could tear is never what the firmware starts.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;
use signing::digest::{self, BLOCK};
use signing::durable;
use signing::release::MAX_BOOT_IMAGE;

use crate::gpt::Table;
use crate::machine::{Machine, read_text};

const SAFE: MsFlags = MsFlags::MS_NODEV.union(MsFlags::MS_NOSUID).union(MsFlags::MS_NOEXEC);

/// How often, and how far apart, a partition that is busy is put away again.
const BUSY_ATTEMPTS: u32 = 40;
const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(25);

/// What is undone when the partition is put away.
enum Undo {
    ReadOnlyAgain,
    Unmount,
}

/// The EFI system partition, writable until dropped.
pub struct Esp {
    directory: PathBuf,
    undo: Undo,
}

impl Esp {
    /// Makes it writable: remounts it where it is mounted, or mounts it in a private place.
    ///
    /// # Errors
    /// When it cannot be mounted writable.
    pub fn writable(machine: &Machine, table: &Table) -> Result<Self> {
        let node = &table.esp()?.node;
        let what = || format!("cannot mount the EFI system partition {} writable", node.display());
        // A directory that is mounted on demand is mounted by looking at it.
        drop(fs::metadata(machine.esp_mount.join("EFI")));
        if is_mounted(&read_text(Path::new("/proc/self/mountinfo"))?, &machine.esp_mount) {
            mount(
                None::<&str>,
                &machine.esp_mount,
                None::<&str>,
                MsFlags::MS_REMOUNT | SAFE,
                None::<&str>,
            )
            .with_context(what)?;
            return Ok(Self {
                directory: machine.esp_mount.clone(),
                undo: Undo::ReadOnlyAgain,
            });
        }
        let directory = machine.run.join("esp");
        fs::create_dir_all(&directory).with_context(what)?;
        mount(Some(node), &directory, Some("vfat"), SAFE, Some("umask=0077")).with_context(what)?;
        Ok(Self {
            directory,
            undo: Undo::Unmount,
        })
    }

    /// The place of a file.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Whether there is room for this many bytes once the named file is gone.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    pub fn require_room(&self, bytes: u64, replaced: &str) -> Result<()> {
        let what = || format!("cannot measure the free room of {}", self.directory.display());
        let vfs = statvfs(&self.directory).with_context(what)?;
        let free = vfs.blocks_available().saturating_mul(vfs.fragment_size());
        let freed = fs::metadata(self.path(replaced)).map_or(0, |metadata| metadata.len());
        if free.saturating_add(freed) < bytes {
            bail!(
                "the EFI system partition has no room: {} MiB are needed and {} MiB are free; remove foreign files",
                bytes >> 20,
                (free + freed) >> 20
            );
        }
        Ok(())
    }

    /// Writes a file: beside its place, synced, read back, renamed.
    ///
    /// # Errors
    /// When one of these fails; the old file then still stands.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let place = self.path(name);
        let what = || format!("cannot write {}", place.display());
        let directory = place.parent().with_context(what)?;
        fs::create_dir_all(directory).with_context(what)?;
        let temporary = place.with_extension("new");
        let mut file = File::create(&temporary).with_context(what)?;
        file.write_all(bytes).with_context(what)?;
        file.sync_all().with_context(what)?;
        // Out of the cache, so that what is read back has been on the device.
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).with_context(what)?;
        drop(file);
        if !is_at(&temporary, bytes).with_context(what)? {
            bail!("{}: it reads back otherwise, so the disk may be failing", what());
        }
        fs::rename(&temporary, &place).with_context(what)?;
        durable::sync_directory(directory).with_context(what)
    }

    /// Whether a file holds these bytes and no others. One that is missing or cannot be read does not.
    #[must_use]
    pub fn holds(&self, name: &str, bytes: &[u8]) -> bool {
        is_at(&self.path(name), bytes).unwrap_or(false)
    }

    /// Reads a boot image whole.
    ///
    /// # Errors
    /// When it is missing or longer than a boot image can be.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let place = self.path(name);
        digest::read_bounded(&place, MAX_BOOT_IMAGE).with_context(|| format!("cannot read {}", place.display()))
    }

    /// Removes a file, and what an interrupted write of it left.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub fn remove(&self, name: &str) -> Result<()> {
        let place = self.path(name);
        for path in [place.with_extension("new"), place] {
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).with_context(|| format!("cannot remove {}", path.display())),
            }
            if let Some(directory) = path.parent() {
                durable::sync_directory(directory).with_context(|| format!("cannot sync {}", directory.display()))?;
            }
        }
        Ok(())
    }
}

impl Drop for Esp {
    fn drop(&mut self) {
        // All that matters is synced by now; a partition that stays writable is reported by the audit.
        let put_away = || match self.undo {
            Undo::ReadOnlyAgain => {
                let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | SAFE;
                mount(None::<&str>, &self.directory, None::<&str>, flags, None::<&str>)
            }
            Undo::Unmount => umount2(&self.directory, MntFlags::empty()),
        };
        // A process that another thread starts holds every open file until it executes its program: the partition is
        // busy for that moment, and not for long.
        for _ in 0..BUSY_ATTEMPTS {
            if put_away() != Err(nix::errno::Errno::EBUSY) {
                break;
            }
            std::thread::sleep(BUSY_PAUSE);
        }
    }
}

/// Byte for byte: no digest is needed where both are at hand.
fn is_at(place: &Path, bytes: &[u8]) -> io::Result<bool> {
    let mut file = File::open(place)?;
    if file.metadata()?.len() != bytes.len() as u64 {
        return Ok(false);
    }
    let mut block = vec![0; BLOCK];
    for wanted in bytes.chunks(BLOCK) {
        let found = &mut block[..wanted.len()];
        file.read_exact(found)?;
        if found != wanted {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a file system, and not only an automount trap, is mounted there.
fn is_mounted(mountinfo: &str, place: &Path) -> bool {
    let place = place.to_string_lossy();
    mountinfo.lines().any(|line| {
        let mounted_here = line.split(' ').nth(4) == Some(&*place);
        let kind = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').next());
        mounted_here && kind.is_some_and(|kind| kind != "autofs")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_by_every_byte_and_its_length() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("image");
        let bytes: Vec<u8> = (0..BLOCK + 7).map(|at| (at / 3) as u8).collect();
        fs::write(&place, &bytes).unwrap();
        assert!(is_at(&place, &bytes).unwrap());
        assert!(!is_at(&place, &bytes[..BLOCK]).unwrap());
        for at in [0, BLOCK - 1, BLOCK, BLOCK + 6] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert!(!is_at(&place, &other).unwrap());
        }
        assert!(is_at(&directory.path().join("none"), &bytes).is_err());
    }

    #[test]
    fn an_automount_trap_is_not_a_mount() {
        let trap = "30 25 0:28 / /boot/efi rw,relatime shared:16 - autofs systemd-1 rw,fd=50\n";
        assert!(!is_mounted(trap, Path::new("/boot/efi")));
        let real = format!("{trap}41 30 8:1 / /boot/efi ro,nosuid shared:20 - vfat /dev/sda1 ro,fmask=0077\n");
        assert!(is_mounted(&real, Path::new("/boot/efi")));
        assert!(!is_mounted(&real, Path::new("/boot")));
    }
}
