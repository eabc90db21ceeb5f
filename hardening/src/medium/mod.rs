// SPDX-License-Identifier: GPL-3.0-or-later
//! Reads what an image holds without mounting it: partition table, boot catalogue, ISO 9660 trees, the ESP, the squashfs,
//! the root file system.
//!
//! The attacks: lengths and positions that point outside the image or are huge; directories that contain themselves;
//! endless lists; a second tree, a second partition or a second boot image that a different reader would take. The defence:
//! nothing is mounted and no right is needed; each position is checked against the image, each list has a limit, each
//! directory is entered once; all trees are read, and what none of them explains must be zero. Where the structures are
//! those of a compressed file system, `unsquashfs` reads them as an ordinary process, and its output is judged like any
//! other foreign text. The defence not made: that process is not confined further than its user is.

pub mod erofs;
pub mod fat;
pub mod gpt;
pub mod iso9660;
pub mod squashfs;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A part of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// Number of bytes.
    pub length: u64,
}

impl Extent {
    /// The byte after the last.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start.saturating_add(self.length)
    }
}

/// An image that could not be read as what it should be.
#[derive(Debug, thiserror::Error)]
pub enum MediumError {
    /// The image is not what it should be, or lies about itself.
    #[error("{0}")]
    Malformed(String),
    /// The image cannot be read.
    #[error("cannot read the image: {0}")]
    Io(#[from] io::Error),
    /// A tool that is needed is missing.
    #[error("{0}")]
    Tool(String),
    /// It has a form that this program does not know.
    #[error("{0}")]
    Unknown(String),
}

pub(crate) fn malformed(why: impl Into<String>) -> MediumError {
    MediumError::Malformed(why.into())
}

/// An image file or a block device.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Image {
    /// Opens an image.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        // A block device has no length of its own but an end.
        let length = file.seek(SeekFrom::End(0))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            length,
        })
    }

    /// An image in a file that has no name.
    ///
    /// # Errors
    /// When its length cannot be told.
    pub fn nameless(mut file: File) -> io::Result<Self> {
        let length = file.seek(SeekFrom::End(0))?;
        Ok(Self {
            path: PathBuf::new(),
            file,
            length,
        })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Bytes at a position that must lie inside.
    ///
    /// # Errors
    /// When it lies outside or cannot be read.
    pub fn at(&self, start: u64, length: usize) -> Result<Vec<u8>, MediumError> {
        self.inside(Extent {
            start,
            length: length as u64,
        })?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes)
    }

    /// Checks that a part lies inside.
    ///
    /// # Errors
    /// When it does not.
    pub fn inside(&self, extent: Extent) -> Result<(), MediumError> {
        match extent.start.checked_add(extent.length) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(malformed(format!(
                "a part at byte {} of {} bytes lies outside the image",
                extent.start, extent.length
            ))),
        }
    }

    /// Reads parts one after the other.
    #[must_use]
    pub fn reader(&self, extents: &[Extent]) -> Parts<'_> {
        Parts {
            image: self,
            extents: extents.to_vec(),
            part: 0,
            at: 0,
        }
    }

    /// The parts that none of `used` covers and that hold anything but zeros, at most `limit` of them.
    ///
    /// # Errors
    /// When the image cannot be read.
    pub fn unexplained(&self, mut used: Vec<Extent>, limit: usize) -> Result<Vec<Extent>, MediumError> {
        used.sort_unstable();
        used.push(Extent {
            start: self.length,
            length: 0,
        });
        let mut found = Vec::new();
        let mut at = 0;
        for extent in used {
            while at < extent.start {
                let length = (extent.start - at).min(1 << 20);
                let bytes = self.at(at, usize::try_from(length).unwrap_or(1 << 20))?;
                if let Some(first) = bytes.iter().position(|&byte| byte != 0) {
                    found.push(Extent {
                        start: at + first as u64,
                        length: extent.start - at - first as u64,
                    });
                    if found.len() >= limit {
                        return Ok(found);
                    }
                    break;
                }
                at += length;
            }
            at = at.max(extent.end());
        }
        Ok(found)
    }
}

/// A file of an image as a stream.
pub struct Parts<'a> {
    image: &'a Image,
    extents: Vec<Extent>,
    part: usize,
    at: u64,
}

impl Read for Parts<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(extent) = self.extents.get(self.part) {
            let left = extent.length - self.at;
            if left == 0 {
                self.part += 1;
                self.at = 0;
                continue;
            }
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let count = self.image.file.read_at(&mut buffer[..want], extent.start + self.at)?;
            if count == 0 && want > 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the image ends within a file",
                ));
            }
            self.at += count as u64;
            return Ok(count);
        }
        Ok(0)
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
