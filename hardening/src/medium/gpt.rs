// SPDX-License-Identifier: GPL-3.0-or-later
//! The GUID partition table (UEFI 2.10, section 5.3), as far as an audit needs it.

use super::{Extent, Image, MediumError, malformed, u32_at, u64_at};

const SECTOR: u64 = 512;
/// The most entries that are read; the usual number is 128, xorriso's 248.
const ENTRIES: u32 = 1024;

/// EFI system partition, as stored: the first three fields little-endian.
pub const ESP: [u8; 16] = [
    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
];

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// Its type, as stored.
    pub kind: [u8; 16],
    /// Where it lies.
    pub extent: Extent,
    /// Its name.
    pub name: String,
}

/// The table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The partitions in use.
    pub partitions: Vec<Partition>,
    /// What the table itself, its copy at the end and the protective MBR occupy.
    pub used: Vec<Extent>,
}

/// Reads the table and compares it with its copy at the end of the disk, so that no firmware sees another one.
///
/// # Errors
/// When there is none, its checksums are wrong, or the copy differs.
pub fn read(image: &Image) -> Result<Table, MediumError> {
    let (first, first_used, backup) = one(image, 1)?;
    let (second, second_used, _) = one(image, backup)?;
    if first != second {
        return Err(malformed(
            "the partition table and its copy at the end name different partitions",
        ));
    }
    let mbr = image.at(0, 512)?;
    if mbr[..440].iter().any(|&byte| byte != 0) {
        return Err(malformed(
            "the master boot record holds code, and nothing of ours starts that way",
        ));
    }
    if mbr[446 + 4] != 0xee || [1, 2, 3].iter().any(|entry| mbr[446 + entry * 16 + 4] != 0) {
        return Err(malformed(
            "the master boot record names partitions of its own beside the protective one",
        ));
    }
    let mut used = vec![Extent {
        start: 0,
        length: SECTOR,
    }];
    used.extend(first_used);
    used.extend(second_used);
    Ok(Table {
        partitions: first,
        used,
    })
}

fn one(image: &Image, lba: u64) -> Result<(Vec<Partition>, [Extent; 2], u64), MediumError> {
    let start = lba
        .checked_mul(SECTOR)
        .ok_or_else(|| malformed("the copy of the partition table lies nowhere"))?;
    let header = image.at(start, 512)?;
    if &header[..8] != b"EFI PART" {
        return Err(malformed(format!("there is no partition table at sector {lba}")));
    }
    let length = u32_at(&header, 12) as usize;
    if !(92..=512).contains(&length) {
        return Err(malformed("the partition table's header has an impossible length"));
    }
    let mut plain = header[..length].to_vec();
    plain[16..20].fill(0);
    if crc32(&plain) != u32_at(&header, 16) {
        return Err(malformed(format!(
            "the checksum of the partition table at sector {lba} is wrong"
        )));
    }
    let count = u32_at(&header, 80);
    let size = u32_at(&header, 84);
    if count > ENTRIES || size != 128 {
        return Err(malformed(format!(
            "a partition table of {count} entries of {size} bytes"
        )));
    }
    let at = u64_at(&header, 72)
        .checked_mul(SECTOR)
        .ok_or_else(|| malformed("the partition entries lie nowhere"))?;
    let entries = image.at(at, (count * size) as usize)?;
    if crc32(&entries) != u32_at(&header, 88) {
        return Err(malformed(format!(
            "the checksum of the partition entries at byte {at} is wrong"
        )));
    }
    let mut partitions = Vec::new();
    for (number, entry) in (1..).zip(entries.chunks_exact(128)) {
        let mut kind = [0; 16];
        kind.copy_from_slice(&entry[..16]);
        if kind == [0; 16] {
            continue;
        }
        let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
        let extent = match last
            .checked_sub(first)
            .and_then(|count| (count + 1).checked_mul(SECTOR))
        {
            Some(length) if first < u64::MAX / SECTOR => Extent {
                start: first * SECTOR,
                length,
            },
            _ => return Err(malformed(format!("partition {number} ends before it begins"))),
        };
        image.inside(extent)?;
        let name: Vec<u16> = entry[56..]
            .chunks_exact(2)
            .map(|b| u16::from_le_bytes([b[0], b[1]]))
            .collect();
        let name = String::from_utf16_lossy(&name).trim_end_matches('\0').to_owned();
        partitions.push(Partition {
            number,
            kind,
            extent,
            name,
        });
    }
    let used = [
        Extent { start, length: SECTOR },
        Extent {
            start: at,
            length: entries.len() as u64,
        },
    ];
    Ok((partitions, used, u64_at(&header, 32)))
}

/// CRC-32 (ISO 3309), bit by bit: a table is a few kilobytes.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn knows_the_check_value_of_crc32() {
        assert_eq!(super::crc32(b"123456789"), 0xcbf4_3926);
    }
}
