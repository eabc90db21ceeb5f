// SPDX-License-Identifier: GPL-3.0-or-later
//! The layout of a PE32+ image, as far as its signature needs it, and the Authenticode digest.
//!
//! After Microsoft's "Windows Authenticode Portable Executable Signature Format" and the PE/COFF specification that UEFI
//! refers to. The digest covers the file but for the checksum, the certificate table's directory entry and the table.

use std::ops::Range;

use super::SecureBootError;
use crate::digest::{Hasher, Sha256};

const PE32_PLUS: u16 = 0x20b;
/// More sections than any boot image has; the format allows 65535.
const MAX_SECTIONS: usize = 256;
/// The longest certificate table that is looked at.
const MAX_TABLE: usize = 1 << 20;

/// Where the parts of an image are that its signature is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Offset of the checksum field.
    pub checksum: usize,
    /// Offset of the certificate table's entry in the data directory.
    pub directory: usize,
    /// End of what is hashed: the certificate table's start or the file's end.
    pub end: usize,
    /// The certificate table, empty when the image is not signed.
    pub table: Range<usize>,
}

fn bad(reason: impl Into<String>) -> SecureBootError {
    SecureBootError::Image(reason.into())
}

/// Little-endian numbers out of an image; outside of it is an error, never a panic.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N], SecureBootError> {
        self.0
            .get(at..)
            .and_then(|rest| rest.first_chunk::<N>())
            .copied()
            .ok_or_else(|| bad("it is cut off inside its headers"))
    }

    fn u16(&self, at: usize) -> Result<usize, SecureBootError> {
        self.bytes(at).map(|bytes| usize::from(u16::from_le_bytes(bytes)))
    }

    fn u32(&self, at: usize) -> Result<usize, SecureBootError> {
        self.bytes(at).map(|bytes| u32::from_le_bytes(bytes) as usize)
    }
}

impl Layout {
    /// Parses the headers.
    ///
    /// # Errors
    /// When it is not a PE32+ image, or one in which bytes could escape the digest.
    pub fn of(image: &[u8]) -> Result<Self, SecureBootError> {
        let reader = Reader(image);
        if &reader.bytes::<2>(0)? != b"MZ" {
            return Err(bad("it does not start with MZ"));
        }
        let coff = reader.u32(0x3c)?;
        if &reader.bytes::<4>(coff)? != b"PE\0\0" {
            return Err(bad("no PE header"));
        }
        let sections = reader.u16(coff + 6)?;
        let optional_size = reader.u16(coff + 20)?;
        let optional = coff + 24;
        if reader.u16(optional)? != usize::from(PE32_PLUS) {
            return Err(bad("not a 64-bit image"));
        }
        // Five directory entries, of which the fifth is the certificate table.
        if reader.u32(optional + 108)? < 5 || optional_size < 112 + 5 * 8 {
            return Err(bad("its headers have no room for a signature"));
        }
        if sections > MAX_SECTIONS {
            return Err(bad(format!("{sections} sections")));
        }
        let headers = reader.u32(optional + 60)?;
        let section_table = optional + optional_size;
        if headers < section_table + sections * 40 || headers > image.len() {
            return Err(bad("the size of its headers is wrong"));
        }
        let directory = optional + 112 + 4 * 8;
        let table = certificate_table(image, &reader, directory)?;
        let end = if table.is_empty() { image.len() } else { table.start };
        check_sections(&reader, section_table, sections, headers, end)?;
        Ok(Self {
            checksum: optional + 64,
            directory,
            end,
            table,
        })
    }

    /// The Authenticode digest of the image that this is the layout of.
    #[must_use]
    pub fn digest(&self, image: &[u8]) -> Sha256 {
        let mut hasher = Hasher::new();
        for range in [
            0..self.checksum,
            self.checksum + 4..self.directory,
            self.directory + 8..self.end,
        ] {
            hasher.update(image.get(range).unwrap_or_default());
        }
        hasher.finish().0
    }
}

/// The table must be the last thing in the file, so that nothing can stand behind it.
fn certificate_table(image: &[u8], reader: &Reader, directory: usize) -> Result<Range<usize>, SecureBootError> {
    let (start, size) = (reader.u32(directory)?, reader.u32(directory + 4)?);
    if start == 0 && size == 0 {
        return Ok(0..0);
    }
    if size == 0 || size > MAX_TABLE || !start.is_multiple_of(8) || start.checked_add(size) != Some(image.len()) {
        return Err(bad("its certificate table is not at its end"));
    }
    Ok(start..image.len())
}

/// Sections must lie one behind the other from the headers on. Firmware hashes section by section; only without gaps and
/// overlaps is that the same as hashing the file, and only then does every byte count.
fn check_sections(
    reader: &Reader,
    table: usize,
    count: usize,
    headers: usize,
    end: usize,
) -> Result<(), SecureBootError> {
    let mut ranges = Vec::with_capacity(count);
    for index in 0..count {
        let (size, start) = (
            reader.u32(table + index * 40 + 16)?,
            reader.u32(table + index * 40 + 20)?,
        );
        if size != 0 {
            ranges.push((start, size));
        }
    }
    ranges.sort_unstable();
    let mut expected = headers;
    for (start, size) in ranges {
        if start != expected {
            return Err(bad(format!(
                "a section starts at {start:#x} where {expected:#x} is due: gaps and overlaps cannot be signed"
            )));
        }
        expected = start + size;
    }
    if expected > end {
        return Err(bad("its sections reach beyond its end"));
    }
    Ok(())
}

/// The Authenticode SHA-256 digest of an image: what the firmware compares with the signature and measures into PCR 4.
///
/// # Errors
/// As [`Layout::of`].
pub fn authenticode_sha256(image: &[u8]) -> Result<Sha256, SecureBootError> {
    Ok(Layout::of(image)?.digest(image))
}
