// SPDX-License-Identifier: GPL-3.0-or-later
//! The one reader of PE32+ images: their headers and sections, what of them a signature is about, the Authenticode digest.
//!
//! After Microsoft's "Windows Authenticode Portable Executable Signature Format" and the PE/COFF specification that UEFI
//! refers to. The digest covers the file but for the checksum, the certificate table's directory entry and the table.
//!
//! Attacks faced: offsets and lengths that point outside the image or are huge, to crash a reader or to fill its memory; a
//! section table of any length; and, where a signature is judged, bytes that it would not cover: gaps, overlaps, data behind
//! the certificate table. Defence: headers are read into buffers of fixed or 16-bit size, at most 96 sections (the
//! specification's own limit), a section's content only up to the caller's bound, and an image that ends early is an error;
//! [`Layout`] takes only an image in which every byte is hashed. Defence not made: [`PeHeaders`] and [`pe_section`] alone judge no
//! signature, and sections may overlap there.

use std::io::{Cursor, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;

use super::SecureBootError;
use crate::digest::{Hasher, Sha256, read_to_limit};

const PE32_PLUS: u16 = 0x20b;
/// The specification's limit (section 3.3).
const MAX_SECTIONS: u16 = 96;
/// The longest certificate table that is looked at.
const MAX_TABLE: usize = 1 << 20;
/// The optional header of PE32+ before its data directories.
const FIXED: usize = 112;

fn bad(reason: impl Into<String>) -> SecureBootError {
    SecureBootError::Image(reason.into())
}

/// Reads exactly; an image that ends before is malformed, and one that cannot be read is not judged.
fn fill(image: &mut impl Read, bytes: &mut [u8]) -> Result<(), SecureBootError> {
    image.read_exact(bytes).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => bad("it is cut off inside its headers"),
        _ => SecureBootError::Read(error),
    })
}

/// A little-endian number of a header. The callers stay within the bytes.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A section as the section table describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeSection {
    /// Its name, such as `.config`.
    pub name: String,
    /// How much memory it takes.
    pub virtual_size: u32,
    /// Where it is loaded, relative to the image's base.
    pub address: u32,
    /// How much of the file it takes, with padding.
    pub stored: u32,
    /// Where it lies in the file.
    pub offset: u32,
}

/// The headers of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeHeaders {
    /// Where the image wants to be loaded.
    pub base: u64,
    /// What its sections are aligned to in memory.
    pub alignment: u32,
    /// What the headers say that they take of the file.
    pub size: u32,
    /// The section table.
    pub sections: Vec<PeSection>,
    /// Offset of the optional header.
    start: u64,
    optional: Vec<u8>,
}

impl PeHeaders {
    /// Reads the headers of an image of any length.
    ///
    /// # Errors
    /// [`SecureBootError::Image`] when it is not a PE32+ image, [`SecureBootError::Read`] when it cannot be read.
    pub fn read(image: &mut (impl Read + Seek)) -> Result<Self, SecureBootError> {
        let mut dos = [0; 64];
        seek(image, 0)?;
        fill(image, &mut dos)?;
        if &dos[..2] != b"MZ" {
            return Err(bad("it does not start with MZ"));
        }
        let place = u64::from(u32_at(&dos, 0x3c));
        let mut coff = [0; 24];
        seek(image, place)?;
        fill(image, &mut coff)?;
        if &coff[..4] != b"PE\0\0" {
            return Err(bad("no PE header"));
        }
        let count = u16::from_le_bytes([coff[6], coff[7]]);
        if count > MAX_SECTIONS {
            return Err(bad(format!("{count} sections")));
        }
        let mut optional = vec![0; usize::from(u16::from_le_bytes([coff[20], coff[21]]))];
        fill(image, &mut optional)?;
        if !optional.starts_with(&PE32_PLUS.to_le_bytes()) || optional.len() < FIXED {
            return Err(bad("not a 64-bit image"));
        }
        let mut sections = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let mut header = [0; 40];
            fill(image, &mut header)?;
            let name = header[..8].split(|byte| *byte == 0).next().unwrap_or_default();
            sections.push(PeSection {
                name: String::from_utf8_lossy(name).into_owned(),
                virtual_size: u32_at(&header, 8),
                address: u32_at(&header, 12),
                stored: u32_at(&header, 16),
                offset: u32_at(&header, 20),
            });
        }
        Ok(Self {
            base: u64::from(u32_at(&optional, 24)) | u64::from(u32_at(&optional, 28)) << 32,
            alignment: u32_at(&optional, 32),
            size: u32_at(&optional, 60),
            sections,
            start: place + 24,
            optional,
        })
    }

    /// The end of the section table in the file.
    fn end(&self) -> u64 {
        self.start + self.optional.len() as u64 + self.sections.len() as u64 * 40
    }
}

fn seek(image: &mut impl Seek, to: u64) -> Result<(), SecureBootError> {
    image.seek(SeekFrom::Start(to)).map(drop).map_err(SecureBootError::Read)
}

/// The content of the first section of this name, without the padding behind it; `None` when there is no such section.
///
/// # Errors
/// As [`PeHeaders::read`], and when the section is longer than `limit` or cut off.
pub fn pe_section(mut image: impl Read + Seek, name: &str, limit: u64) -> Result<Option<Vec<u8>>, SecureBootError> {
    let headers = PeHeaders::read(&mut image)?;
    let Some(found) = headers.sections.iter().find(|section| section.name == name) else {
        return Ok(None);
    };
    let length = match found.virtual_size {
        0 => found.stored,
        used => used.min(found.stored),
    };
    let length = u64::from(length);
    if length > limit {
        return Err(bad(format!("section {name} of {length} bytes")));
    }
    seek(&mut image, found.offset.into())?;
    let bytes = read_to_limit(&mut image.take(length), limit).map_err(SecureBootError::Read)?;
    if bytes.len() as u64 == length {
        Ok(Some(bytes))
    } else {
        Err(bad(format!("section {name} is cut off")))
    }
}

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

impl Layout {
    /// Parses the headers.
    ///
    /// # Errors
    /// When it is not a PE32+ image, or one in which bytes could escape the digest.
    pub fn of(image: &[u8]) -> Result<Self, SecureBootError> {
        let headers = PeHeaders::read(&mut Cursor::new(image))?;
        let entry = FIXED + 4 * 8;
        // Five directory entries, of which the fifth is the certificate table.
        if u32_at(&headers.optional, 108) < 5 || headers.optional.len() < entry + 8 {
            return Err(bad("its headers have no room for a signature"));
        }
        if u64::from(headers.size) < headers.end() || u64::from(headers.size) > image.len() as u64 {
            return Err(bad("the size of its headers is wrong"));
        }
        // They lie inside the image, so they fit.
        let start = usize::try_from(headers.start).map_err(|_| bad("it is too long"))?;
        let table = certificate_table(
            image,
            u32_at(&headers.optional, entry) as usize,
            u32_at(&headers.optional, entry + 4) as usize,
        )?;
        let end = if table.is_empty() { image.len() } else { table.start };
        check_sections(&headers, end as u64)?;
        Ok(Self {
            checksum: start + 64,
            directory: start + entry,
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
fn certificate_table(image: &[u8], start: usize, size: usize) -> Result<Range<usize>, SecureBootError> {
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
fn check_sections(headers: &PeHeaders, end: u64) -> Result<(), SecureBootError> {
    let mut ranges: Vec<(u64, u64)> = headers
        .sections
        .iter()
        .filter(|section| section.stored != 0)
        .map(|section| (section.offset.into(), section.stored.into()))
        .collect();
    ranges.sort_unstable();
    let mut expected = u64::from(headers.size);
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
