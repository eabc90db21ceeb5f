// SPDX-License-Identifier: GPL-3.0-or-later
//! ISO 9660 with Rock Ridge (ECMA-119, SUSP 1.12, RRIP 1.12) and the El Torito boot catalogue, read as Linux reads them.
//!
//! The attacks and the defence: see [`super`]. Extensions that change content or the tree (compression, relocated
//! directories, associated files, interleaving, a second kind of tree) are refused, because another reader would see other
//! files than this one.

use std::collections::BTreeSet;

use super::{Extent, Image, MediumError, malformed, u16_at, u32_at};

/// Bytes in a logical block.
pub const BLOCK: u64 = 2048;
const ENTRIES: usize = 4096;
const DEPTH: usize = 8;
const DIRECTORY: u32 = 1 << 20;

/// A file of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Path from the root, without a leading slash.
    pub path: String,
    /// Where its content lies.
    pub extents: Vec<Extent>,
    /// Whether it is a regular file; links and devices are not.
    pub regular: bool,
}

impl File {
    /// Length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.extents.iter().map(|extent| extent.length).sum()
    }
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its label.
    pub label: String,
    /// Every file.
    pub files: Vec<File>,
    /// Every directory but the root.
    pub directories: Vec<String>,
    /// Position of the boot catalogue, in blocks.
    pub catalogue: Option<u32>,
    /// What the structures of the volume occupy, its files not included.
    pub used: Vec<Extent>,
}

/// A boot image of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootImage {
    /// `0xEF` for UEFI.
    pub platform: u8,
    /// Position, in blocks.
    pub block: u32,
    /// Number of 512-byte sectors.
    pub sectors: u16,
}

/// Reads the volume whose first block is at byte `base`: 0 for the disk, the partition's start for the partition.
///
/// # Errors
/// When it is malformed, or holds what this reader refuses.
pub fn read(image: &Image, base: u64) -> Result<Volume, MediumError> {
    let mut volume = Volume {
        label: String::new(),
        files: Vec::new(),
        directories: Vec::new(),
        catalogue: None,
        used: Vec::new(),
    };
    let mut root = None;
    for number in 16.. {
        let start = base + number * BLOCK;
        let block = image.at(start, 2048)?;
        if &block[1..6] != b"CD001" || number > 32 {
            return Err(malformed(format!("no ISO 9660 volume descriptor at byte {start}")));
        }
        volume.used.push(Extent { start, length: BLOCK });
        match block[0] {
            0 if block[7..].starts_with(b"EL TORITO SPECIFICATION") => volume.catalogue = Some(u32_at(&block, 0x47)),
            1 if root.is_none() => {
                if u16_at(&block, 128) != 2048 {
                    return Err(malformed("the logical blocks are not of 2048 bytes"));
                }
                volume.label = String::from_utf8_lossy(&block[40..72]).trim_end().to_owned();
                let size = u64::from(u32_at(&block, 132));
                for at in [140, 144] {
                    if u32_at(&block, at) != 0 {
                        volume.used.push(blocks(image, base, u32_at(&block, at), size)?);
                    }
                }
                for at in [148, 152] {
                    let big = u32_at(&block, at).swap_bytes();
                    if big != 0 {
                        volume.used.push(blocks(image, base, big, size)?);
                    }
                }
                root = Some((u32_at(&block, 156 + 2), u32_at(&block, 156 + 10)));
            }
            255 => break,
            kind => {
                return Err(malformed(format!(
                    "a volume descriptor of type {kind}: another reader could find a second tree there"
                )));
            }
        }
    }
    let (block, length) = root.ok_or_else(|| malformed("there is no primary volume descriptor"))?;
    let mut walk = Walk {
        image,
        base,
        volume,
        entered: BTreeSet::new(),
        entries: 0,
    };
    walk.directory("", block, length, 0)?;
    Ok(walk.volume)
}

/// Reads the boot catalogue.
///
/// # Errors
/// When it is malformed.
pub fn catalogue(image: &Image, block: u32) -> Result<Vec<BootImage>, MediumError> {
    let bytes = image.at(u64::from(block) * BLOCK, 2048)?;
    let sum = bytes[..32]
        .chunks_exact(2)
        .fold(0_u16, |sum, pair| sum.wrapping_add(u16_at(pair, 0)));
    if bytes[0] != 1 || bytes[30..32] != [0x55, 0xaa] || sum != 0 {
        return Err(malformed("the boot catalogue has no valid first entry"));
    }
    let mut platform = bytes[1];
    let mut images = Vec::new();
    for entry in bytes[32..].chunks_exact(32) {
        match entry[0] {
            0x90 | 0x91 => platform = entry[1],
            0x88 | 0x00 if u32_at(entry, 8) != 0 => {
                images.push(BootImage {
                    platform,
                    block: u32_at(entry, 8),
                    sectors: u16_at(entry, 6),
                });
            }
            0 if entry.iter().all(|&byte| byte == 0) => {}
            other => {
                return Err(malformed(format!(
                    "the boot catalogue has an entry of kind {other:#04x}"
                )));
            }
        }
    }
    Ok(images)
}

fn blocks(image: &Image, base: u64, block: u32, length: u64) -> Result<Extent, MediumError> {
    let extent = Extent {
        start: base + u64::from(block) * BLOCK,
        length,
    };
    image.inside(extent)?;
    Ok(extent)
}

struct Walk<'a> {
    image: &'a Image,
    base: u64,
    volume: Volume,
    entered: BTreeSet<u32>,
    entries: usize,
}

/// What the system use area of a record says.
#[derive(Default)]
struct RockRidge {
    name: Option<Vec<u8>>,
    mode: Option<u32>,
}

impl Walk<'_> {
    fn directory(&mut self, path: &str, block: u32, length: u32, depth: usize) -> Result<(), MediumError> {
        if depth > DEPTH
            || length > DIRECTORY
            || !u64::from(length).is_multiple_of(BLOCK)
            || !self.entered.insert(block)
        {
            return Err(malformed(format!(
                "the directory /{path} is too deep, too large, cut or entered twice"
            )));
        }
        let extent = blocks(self.image, self.base, block, u64::from(length))?;
        self.volume.used.push(extent);
        let bytes = self.image.at(extent.start, length as usize)?;
        let mut open: Option<File> = None;
        for sector in bytes.chunks_exact(2048) {
            let mut at = 0;
            // A record does not cross a block; a zero ends the block.
            while at < 2048 && sector[at] != 0 {
                let size = usize::from(sector[at]);
                let record = sector.get(at..at + size).filter(|record| record.len() >= 34);
                let record = record.ok_or_else(|| malformed(format!("a record of /{path} is cut off")))?;
                at += size;
                self.record(path, record, depth, &mut open)?;
            }
        }
        if open.is_some() {
            return Err(malformed(format!("the last file of /{path} lacks an extent")));
        }
        Ok(())
    }

    fn record(&mut self, path: &str, record: &[u8], depth: usize, open: &mut Option<File>) -> Result<(), MediumError> {
        let name_length = usize::from(record[32]);
        let name = record
            .get(33..33 + name_length)
            .ok_or_else(|| malformed("a record's name is cut off"))?;
        let (block, length, flags) = (u32_at(record, 2), u32_at(record, 10), record[25]);
        let system = record
            .get(33 + name_length + usize::from(name_length % 2 == 0)..)
            .unwrap_or_default();
        let rock = self.rock_ridge(system)?;
        if name == [0] || name == [1] {
            return Ok(());
        }
        self.entries += 1;
        if self.entries > ENTRIES {
            return Err(malformed(format!("more than {ENTRIES} files")));
        }
        if record[1] != 0 || record[26] != 0 || record[27] != 0 || flags & 0x04 != 0 {
            return Err(malformed(format!(
                "a file of /{path} is interleaved, associated or has extended attributes"
            )));
        }
        let name = match rock.name {
            Some(name) => String::from_utf8(name).map_err(|_| malformed("a name is not UTF-8"))?,
            // Without Rock Ridge, Linux shows the name in small letters and without its version.
            None => String::from_utf8_lossy(name)
                .to_lowercase()
                .trim_end_matches(";1")
                .trim_end_matches('.')
                .to_owned(),
        };
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0', '\n']) {
            return Err(malformed(format!("{name:?} is no name of a file")));
        }
        let full = if path.is_empty() {
            name
        } else {
            format!("{path}/{name}")
        };
        if flags & 0x02 != 0 {
            self.volume.directories.push(full.clone());
            return self.directory(&full, block, length, depth + 1);
        }
        let extent = blocks(self.image, self.base, block, u64::from(length))?;
        let regular = rock.mode.is_none_or(|mode| mode & 0o170_000 == 0o100_000);
        let mut file = match open.take() {
            Some(file) if file.path == full => file,
            Some(file) => return Err(malformed(format!("the file {} lacks an extent", file.path))),
            None => File {
                path: full,
                extents: Vec::new(),
                regular,
            },
        };
        file.extents.push(extent);
        if flags & 0x80 != 0 {
            *open = Some(file);
        } else if self.volume.files.iter().any(|known| known.path == file.path) {
            return Err(malformed(format!("the file {} stands there twice", file.path)));
        } else {
            self.volume.files.push(file);
        }
        Ok(())
    }

    fn rock_ridge(&mut self, area: &[u8]) -> Result<RockRidge, MediumError> {
        let mut rock = RockRidge::default();
        let mut area = area.to_vec();
        // Continuations of continuations have no use.
        for _ in 0..8 {
            let mut next = None;
            let mut at = 0;
            while let Some(entry) = area.get(at..).filter(|rest| rest.len() >= 4) {
                let size = usize::from(entry[2]);
                let Some(entry) = entry.get(..size).filter(|_| size >= 4) else {
                    break;
                };
                at += size;
                match &entry[..2] {
                    b"NM" if size > 5 => rock.name.get_or_insert_default().extend(&entry[5..]),
                    b"PX" => rock.mode = Some(u32_at(entry, 4)),
                    b"CE" => next = Some((u32_at(entry, 4), u32_at(entry, 12), u32_at(entry, 20))),
                    b"ST" => break,
                    b"ZF" | b"CL" | b"PL" | b"RE" | b"SF" => {
                        return Err(malformed(
                            "a file is compressed, sparse or relocated: readers differ on it",
                        ));
                    }
                    _ => {}
                }
            }
            let Some((block, offset, length)) = next else {
                return Ok(rock);
            };
            if length > 2048 || offset > 2048 {
                return Err(malformed("a continuation area is too long"));
            }
            let extent = Extent {
                start: self.base + u64::from(block) * BLOCK + u64::from(offset),
                length: u64::from(length),
            };
            area = self.image.at(extent.start, length as usize)?;
            self.volume.used.push(extent);
        }
        Err(malformed("a chain of continuation areas does not end"))
    }
}
