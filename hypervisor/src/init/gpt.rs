// SPDX-License-Identifier: GPL-3.0-or-later
//! A reader of GUID partition tables (UEFI 2.10, chapter 5) for the initrd, which has no sfdisk.
//!
//! Attacks faced: a disk with a table that points outside itself, claims sizes that make a reader allocate or loop, or is cut
//! off. Defence: fixed limits (128 entries of 128 to 4096 bytes), checked arithmetic, both checksums, and a copy that fails any
//! check is no table at all; then the backup is tried, as a power cut while a table is written leaves one whole. Defence not
//! made: a table that is consistent and lies. The root hash judges what its partitions hold.

use std::io::{self, Read, Seek, SeekFrom};

use crate::layout::Guid;

/// The most entries that are read: UEFI's usual table.
const MAX_ENTRIES: u32 = 128;
/// The largest entry that is read.
const MAX_ENTRY: u32 = 4096;

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// Its type.
    pub kind: Guid,
    /// Its unique GUID.
    pub guid: Guid,
    /// Its name.
    pub name: String,
    /// Its first byte on the disk.
    pub start: u64,
    /// Its length in bytes.
    pub size: u64,
}

/// Reads the table of a disk of `size` bytes in sectors of `sector` bytes. `None` means that there is no valid one.
///
/// # Errors
/// When the disk cannot be read.
pub fn read<D: Read + Seek>(disk: &mut D, sector: u64, size: u64) -> io::Result<Option<Vec<Partition>>> {
    if !(512..=65_536).contains(&sector) || !sector.is_power_of_two() {
        return Ok(None);
    }
    let last = (size / sector).saturating_sub(1);
    for lba in [1, last] {
        if lba >= 1
            && lba <= last
            && let Some(partitions) = copy(disk, sector, lba, last)?
        {
            return Ok(Some(partitions));
        }
    }
    Ok(None)
}

/// One copy of the table, with its header at `lba`.
fn copy<D: Read + Seek>(disk: &mut D, sector: u64, lba: u64, last: u64) -> io::Result<Option<Vec<Partition>>> {
    let mut header = vec![0; usize::try_from(sector).unwrap_or(512)];
    if !fill(disk, lba * sector, &mut header)? {
        return Ok(None);
    }
    let length = number(&header, 12, 4);
    if &header[..8] != b"EFI PART" || !(92..=sector).contains(&length) || number(&header, 24, 8) != lba {
        return Ok(None);
    }
    let stated = number(&header, 16, 4);
    header[16..20].fill(0);
    let measured = crc32(&header[..usize::try_from(length).unwrap_or(92)]);
    let (count, entry) = (number(&header, 80, 4), number(&header, 84, 4));
    if u64::from(measured) != stated
        || count > u64::from(MAX_ENTRIES)
        || !(128..=u64::from(MAX_ENTRY)).contains(&entry)
        || entry % 8 != 0
    {
        return Ok(None);
    }
    let mut table = vec![0; usize::try_from(count * entry).unwrap_or(0)];
    let place = number(&header, 72, 8);
    let Some(offset) = place.checked_mul(sector).filter(|_| place >= 1 && place <= last) else {
        return Ok(None);
    };
    if !fill(disk, offset, &mut table)? || u64::from(crc32(&table)) != number(&header, 88, 4) {
        return Ok(None);
    }
    let entries = table.chunks_exact(usize::try_from(entry).unwrap_or(128));
    Ok(Some(
        (1..)
            .zip(entries)
            .filter_map(|(number, entry)| partition(number, entry, sector, last))
            .collect(),
    ))
}

/// An entry in use that lies on the disk.
fn partition(index: u32, entry: &[u8], sector: u64, last: u64) -> Option<Partition> {
    let guid = |at: usize| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&entry[at..at + 16]);
        Guid(bytes)
    };
    let (first, end) = (number(entry, 32, 8), number(entry, 40, 8));
    if guid(0).is_nil() || first < 2 || first > end || end > last {
        return None;
    }
    let name = entry[56..128]
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0);
    Some(Partition {
        number: index,
        kind: guid(0),
        guid: guid(16),
        name: char::decode_utf16(name)
            .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect(),
        start: first.checked_mul(sector)?,
        size: (end - first + 1).checked_mul(sector)?,
    })
}

/// Reads exactly; `false` when the disk ends before.
fn fill<D: Read + Seek>(disk: &mut D, offset: u64, bytes: &mut [u8]) -> io::Result<bool> {
    disk.seek(SeekFrom::Start(offset))?;
    match disk.read_exact(bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        done => done.map(|()| true),
    }
}

/// A little-endian number. The callers stay within the bytes.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length]
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// CRC-32 as in IEEE 802.3; a table is 16 KiB, so bit by bit is fast enough.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{ROOT_TYPE, VERITY_TYPE};
    use signing::process::Cmd;
    use std::fs::{self, File};
    use std::io::Cursor;

    const SIZE: u64 = 8 << 20;
    const GUID: &str = "00112233-4455-6677-8899-aabbccddeeff";

    /// A disk as sfdisk makes it.
    fn disk() -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        File::create(&path).unwrap().set_len(SIZE).unwrap();
        let script = format!(
            "label: gpt\nstart=2048,size=4096,type={ROOT_TYPE},uuid={GUID},name=bastide-root-a\nsize=2048,type={VERITY_TYPE},uuid=10112233-4455-6677-8899-aabbccddeeff,name=wörk\n"
        );
        Cmd::new("sfdisk")
            .args(["--quiet", "--no-reread"])
            .arg(&path)
            .input(script)
            .run()
            .unwrap();
        fs::read(&path).unwrap()
    }

    fn partitions(disk: &[u8]) -> Option<Vec<Partition>> {
        read(&mut Cursor::new(disk), 512, disk.len() as u64).unwrap()
    }

    #[test]
    fn what_sfdisk_writes_is_read() {
        let found = partitions(&disk()).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].guid.to_string(), GUID);
        assert_eq!(found[0].kind.to_string(), ROOT_TYPE);
        assert_eq!((found[0].start, found[0].size), (2048 * 512, 4096 * 512));
        assert_eq!((found[1].number, found[1].name.as_str()), (2, "wörk"));
    }

    #[test]
    fn the_backup_serves_when_the_first_copy_is_hurt() {
        let mut hurt = disk();
        hurt[512 + 60] ^= 1;
        assert_eq!(partitions(&hurt).unwrap(), partitions(&disk()).unwrap());
        let mut entries = disk();
        entries[1024 + 8] ^= 1;
        assert_eq!(partitions(&entries).unwrap(), partitions(&disk()).unwrap());
    }

    #[test]
    fn two_hurt_copies_are_no_table() {
        let mut hurt = disk();
        hurt[512 + 60] ^= 1;
        let backup = hurt.len() - 512 + 60;
        hurt[backup] ^= 1;
        assert_eq!(partitions(&hurt), None);
    }

    #[test]
    fn cut_and_empty_disks_are_no_table() {
        let disk = disk();
        for length in [0, 1, 511, 512, 700, 1023] {
            assert_eq!(partitions(&disk[..length]), None, "{length}");
        }
        assert_eq!(partitions(&vec![0; 1 << 20]), None);
        for sector in [0, 1, 513, 1 << 40] {
            assert_eq!(read(&mut Cursor::new(&disk), sector, SIZE).unwrap(), None);
        }
    }

    /// Changes the header of both copies and seals it again, as an attacker would.
    fn forged(change: impl Fn(&mut [u8])) -> Vec<u8> {
        let mut disk = disk();
        for at in [512, disk.len() - 512] {
            let header = &mut disk[at..at + 92];
            change(header);
            header[16..20].fill(0);
            let sum = crc32(header).to_le_bytes();
            header[16..20].copy_from_slice(&sum);
        }
        disk
    }

    #[test]
    fn hostile_headers_are_refused() {
        assert!(partitions(&forged(|_| ())).is_some());
        let bad: [fn(&mut [u8]); 6] = [
            |header| header[80..84].copy_from_slice(&u32::MAX.to_le_bytes()),
            |header| header[84..88].copy_from_slice(&u32::MAX.to_le_bytes()),
            |header| header[84..88].copy_from_slice(&0_u32.to_le_bytes()),
            |header| header[72..80].copy_from_slice(&u64::MAX.to_le_bytes()),
            |header| header[12..16].copy_from_slice(&u32::MAX.to_le_bytes()),
            |header| header[88..92].fill(0),
        ];
        for (index, change) in bad.into_iter().enumerate() {
            assert_eq!(partitions(&forged(change)), None, "{index}");
        }
    }

    #[test]
    fn partitions_outside_the_disk_are_not_seen() {
        let entry = |first: u64, end: u64| {
            let mut entry = [0; 128];
            entry[0] = 1;
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&end.to_le_bytes());
            partition(1, &entry, 512, 1000)
        };
        assert!(entry(2, 1000).is_some());
        for (first, end) in [(0, 5), (10, 9), (10, 1001), (u64::MAX, u64::MAX)] {
            assert!(entry(first, end).is_none(), "{first} {end}");
        }
    }
}
