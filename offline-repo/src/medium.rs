// SPDX-License-Identifier: GPL-3.0-or-later
//! What stands on a medium, read from the medium: past the page cache, which would only repeat what was meant to be written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};
use nix::sys::stat::{major, minor};
use serde::{Deserialize, Serialize};
use signing::digest::{self, BLOCK, Sha256};
use signing::process::Cmd;

/// The largest alignment that a direct read may need: a sector of 4096 bytes.
const ALIGN: usize = 4096;

/// A device on which a file lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its name, such as `sdb`.
    pub name: String,
    /// What its maker calls it.
    pub model: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its size in bytes.
    pub size: u64,
}

/// How the page cache was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Past {
    /// Read with `O_DIRECT` (open(2)).
    Direct,
    /// The file system has no direct reads: the file was dropped from the cache first (posix_fadvise(2)).
    Dropped,
}

/// What was read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadBack {
    /// Its digest.
    pub sha256: Sha256,
    /// Its length in bytes.
    pub size: u64,
    /// How.
    pub past_cache: Past,
    /// From which device; nothing where the file lies on none, as in memory or on a network.
    pub device: Option<Device>,
}

/// Reads a file from its medium. `tell` is called with the bytes read so far.
///
/// # Errors
/// When it cannot be read so.
pub fn read_back(path: &Path, tell: &mut dyn FnMut(u64)) -> Result<ReadBack> {
    let what = || format!("cannot read back {}", path.display());
    let open = |flags: OFlag| OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let direct = open(OFlag::O_DIRECT);
    let (file, past_cache) = match direct {
        Ok(file) => (file, Past::Direct),
        Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => {
            let file = open(OFlag::empty()).with_context(what)?;
            // What is still to be written would stay in the cache.
            file.sync_all().with_context(what)?;
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).with_context(what)?;
            (file, Past::Dropped)
        }
        Err(error) => return Err(error).with_context(what),
    };
    let device = device(&file).with_context(what)?;
    let (sha256, size) = hash(file, tell).with_context(what)?;
    Ok(ReadBack {
        sha256,
        size,
        past_cache,
        device,
    })
}

fn hash(mut file: File, tell: &mut dyn FnMut(u64)) -> io::Result<(Sha256, u64)> {
    // Direct reads go into memory that is aligned as the medium's sectors are.
    let mut memory = vec![0; BLOCK + ALIGN];
    let skip = memory.as_ptr().align_offset(ALIGN);
    digest::copy_through(&mut file, &mut Told { done: 0, tell }, &mut memory[skip..skip + BLOCK])
}

/// Tells how much has passed, and keeps nothing.
struct Told<'a> {
    done: u64,
    tell: &'a mut dyn FnMut(u64),
}

impl Write for Told<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.done += bytes.len() as u64;
        (self.tell)(self.done);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The device on which an open file lies: the disk, where that is a partition.
fn device(file: &File) -> Result<Option<Device>> {
    let number = file.metadata()?.dev();
    let link = format!("/sys/dev/block/{}:{}", major(number), minor(number));
    let Ok(mut place) = fs::canonicalize(&link) else {
        return Ok(None);
    };
    if place.join("partition").exists() {
        place.pop();
    }
    let text = |name: &str| {
        let text = fs::read_to_string(place.join(name)).ok()?;
        clean(text)
    };
    let sectors: u64 = text("size")
        .and_then(|text| text.parse().ok())
        .context("its device has no size")?;
    let name = place
        .file_name()
        .context("its device has no name")?
        .to_string_lossy()
        .into_owned();
    let asked = |column: &str| {
        let node = format!("/dev/{}", name.replace('!', "/"));
        let output = Cmd::new("lsblk")
            .args(["--nodeps", "--noheadings", "--output", column])
            .arg(node)
            .output();
        clean(String::from_utf8_lossy(&output.ok()?).into_owned())
    };
    Ok(Some(Device {
        model: asked("MODEL").or_else(|| text("device/model")),
        serial: asked("SERIAL").or_else(|| text("device/serial")),
        size: sectors * 512,
        name,
    }))
}

/// What a device says of itself is foreign: printable, and not long.
fn clean(text: String) -> Option<String> {
    let printable = text.trim().chars().filter(|c| c.is_ascii_graphic() || *c == ' ');
    Some(printable.take(64).collect()).filter(|text: &String| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_any_length_reads_back_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        for length in [0, 1, 4095, 4096, BLOCK, BLOCK + 1, 3 * BLOCK + 777] {
            let path = directory.path().join("x");
            let content: Vec<u8> = (0..length).map(|n| n as u8).collect();
            fs::write(&path, &content).unwrap();
            let mut told = 0;
            let found = read_back(&path, &mut |done| told = done).unwrap();
            assert_eq!((found.sha256, found.size), (Sha256::of(&content), length as u64));
            assert_eq!(told, length as u64);
        }
    }

    #[test]
    fn what_lies_in_memory_lies_on_no_device() {
        let place = Path::new("/dev/shm");
        if !place.is_dir() {
            return;
        }
        let file = tempfile::tempfile_in(place).unwrap();
        assert_eq!(device(&file).unwrap(), None);
    }
}
