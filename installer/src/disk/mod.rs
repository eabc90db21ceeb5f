// SPDX-License-Identifier: GPL-3.0-or-later
//! Everything that writes the disk. All of it goes through the whole disk's node and byte offsets: no step waits for
//! partition nodes to appear, and no partition's page cache can differ from the disk's.
//!
//! The order is the safety. What could boot is destroyed first; what will boot gets its name last. Between them the disk
//! has nothing that a firmware would start.

mod erase;
mod esp;
mod state;
mod table;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::libc;
use signing::digest::{BLOCK, Hasher, Sha256};

pub use erase::erase;
pub use esp::Esp;
pub use state::{State, write_state};
pub use table::{partition, reread};

/// `BLKFLSBUF` of linux/fs.h.
const BLKFLSBUF_NUMBER: u8 = 97;

#[allow(missing_docs, unsafe_code)]
mod ioctl {
    // SAFETY: the request takes no argument and touches no memory of ours.
    nix::ioctl_none!(flush_buffers, 0x12, super::BLKFLSBUF_NUMBER);
}

/// A disk that is being written.
pub struct Target {
    path: PathBuf,
    file: File,
}

impl Target {
    /// Opens a disk for writing.
    ///
    /// # Errors
    /// When it cannot be opened, or something else has it in exclusive use: a mount, an array, a volume.
    pub fn open(path: &Path) -> Result<Self> {
        // For a block device, exclusive means that no mount and no other stack holds it (open(2), O_EXCL). The claim is
        // given back at once, because the formatting tools make it themselves.
        let open = |flags| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(flags | libc::O_CLOEXEC)
                .open(path)
        };
        drop(open(libc::O_EXCL).with_context(|| {
            format!(
                "cannot take {} for writing: it must exist and not be in use",
                path.display()
            )
        })?);
        let file = open(0).with_context(|| format!("cannot open {} for writing", path.display()))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
        })
    }

    /// The node.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes zeros and syncs nothing.
    fn zero(&self, start: u64, length: u64) -> Result<()> {
        let zeros = vec![0; BLOCK];
        let mut done = 0;
        while done < length {
            let count = (length - done).min(BLOCK as u64);
            self.file
                .write_all_at(&zeros[..usize::try_from(count)?], start + done)
                .with_context(|| format!("cannot write zeros to {} at byte {}", self.path.display(), start + done))?;
            done += count;
        }
        Ok(())
    }

    /// Brings all that was written to the disk's own memory and out of its cache.
    ///
    /// # Errors
    /// When the disk reports a fault, which may be of an earlier write.
    pub fn sync(&self) -> Result<()> {
        self.file
            .sync_all()
            .with_context(|| format!("cannot bring the written data onto {}", self.path.display()))
    }

    /// A writer for one partition, which refuses to leave it.
    #[must_use]
    pub fn region(&self, start: u64, size: u64) -> Region<'_> {
        Region {
            target: self,
            at: start,
            end: start + size,
        }
    }

    /// Forgets what memory holds of the disk, so that the next read asks the disk.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget(&self) -> Result<()> {
        flush(&self.file, &self.path)
    }

    /// Reads a range past all caches (`O_DIRECT`) and returns its digest.
    ///
    /// # Errors
    /// When the disk cannot be read so.
    pub fn read_back(&self, start: u64, length: u64, mut progress: impl FnMut(u64)) -> Result<Sha256> {
        self.forget()?;
        let mut read = || -> io::Result<Sha256> {
            let mut file = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_DIRECT | libc::O_CLOEXEC)
                .open(&self.path)?;
            file.seek(SeekFrom::Start(start))?;
            // Direct reads go into memory that is aligned as the disk's sectors are.
            let mut memory = vec![0; BLOCK + ALIGN];
            let skip = memory.as_ptr().align_offset(ALIGN);
            let block = &mut memory[skip..skip + BLOCK];
            let mut hasher = Hasher::new();
            let mut left = length;
            while left > 0 {
                let count = file.read(block)?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let used = usize::try_from(left).unwrap_or(usize::MAX).min(count);
                hasher.update(&block[..used]);
                left -= used as u64;
                progress(length - left);
            }
            Ok(hasher.finish().0)
        };
        read().with_context(|| format!("cannot read back {} from byte {start}", self.path.display()))
    }

    /// Reads a range back and compares it with what was meant to be there.
    ///
    /// # Errors
    /// When it cannot be read, or differs.
    pub fn compare(
        &self,
        what: &str,
        start: u64,
        length: u64,
        expected: Sha256,
        progress: impl FnMut(u64),
    ) -> Result<()> {
        let found = self.read_back(start, length, progress)?;
        if found != expected {
            bail!(
                "{} gives back other bytes than were written for {what}: sha256 {found}, expected {expected}. \
                 The disk is faulty: replace it",
                self.path.display()
            );
        }
        Ok(())
    }
}

/// The largest alignment that a direct read may need: a sector of 4096 bytes.
const ALIGN: usize = 4096;

/// Forgets what memory holds of a device.
///
/// # Errors
/// When it cannot be opened or the kernel refuses.
pub fn forget(node: &Path) -> Result<()> {
    let file = File::open(node).with_context(|| format!("cannot open {}", node.display()))?;
    flush(&file, node)
}

#[allow(unsafe_code)]
fn flush(file: &File, path: &Path) -> Result<()> {
    // SAFETY: the descriptor is open as long as `file`, and the request takes no argument.
    unsafe { ioctl::flush_buffers(file.as_raw_fd()) }
        .map(drop)
        .with_context(|| format!("cannot drop the cache of {}", path.display()))
}

/// A writer for a part of a disk.
pub struct Region<'a> {
    target: &'a Target,
    at: u64,
    end: u64,
}

impl Write for Region<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let count = bytes.len().min(room);
        if count == 0 && !bytes.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "the data is longer than its partition",
            ));
        }
        let count = self.target.file.write_at(&bytes[..count], self.at)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
