// SPDX-License-Identifier: GPL-3.0-or-later
//! The GUID partition table (UEFI 2.10, section 5.3): the one reader of it, for the audit and for the initrd.
//!
//! Attacks faced: a table that points outside the disk, claims sizes that make a reader allocate or loop, or is cut off; two
//! copies that differ, so that one firmware sees other partitions than another. Defence: fixed limits (1024 entries of 128 to
//! 4096 bytes), checked arithmetic, both checksums. [`agreed`] takes only two copies that agree, which an audit asks for;
//! [`first_good`] takes the first copy that is whole, as a power cut while a table is written leaves one so. Defence not
//! made: a table that is consistent and lies. Signatures and the root hash judge what its partitions hold.

use std::io::{self, Read, Seek, SeekFrom};

use signing::guid::Guid;

use super::{Extent, Image, MediumError, malformed, u32_at, u64_at};

const SECTOR: u64 = 512;
/// The most entries that are read; the usual number is 128, xorriso's 248.
const MAX_ENTRIES: u32 = 1024;
/// The size of an entry, and the largest that is read.
const ENTRY: u32 = 128;
const MAX_ENTRY: u32 = 4096;

/// The type of an EFI system partition.
pub const ESP: Guid = Guid::of(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b);

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
    /// Where it lies.
    pub extent: Extent,
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
/// When there is none, its checksums are wrong, a partition lies outside, or the copy differs.
pub fn agreed(image: &Image) -> Result<Table, MediumError> {
    let mut disk = Disk {
        sector: SECTOR,
        last: (image.length() / SECTOR).saturating_sub(1),
        read: |start, length| image.at(start, length),
    };
    let strict = |copy: Copy| {
        if copy.entry != ENTRY {
            return Err(malformed(format!(
                "a partition table with entries of {} bytes",
                copy.entry
            )));
        }
        copy.entries
            .iter()
            .map(|entry| {
                let number = entry.number;
                let partition = entry
                    .partition(SECTOR)
                    .ok_or_else(|| malformed(format!("partition {number} ends before it begins")))?;
                image.inside(partition.extent)?;
                Ok(partition)
            })
            .collect::<Result<Vec<_>, _>>()
            .map(|partitions| (partitions, copy.used, copy.other))
    };
    let (first, first_used, backup) = disk.copy(1).and_then(strict)?;
    let (second, second_used, _) = disk.copy(backup).and_then(strict)?;
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

/// Reads the first copy that is whole, of a disk of `size` bytes in sectors of `sector` bytes. `None` means that there is no
/// valid one. Partitions that do not lie on the disk are passed over.
///
/// # Errors
/// When the disk cannot be read.
pub fn first_good<D: Read + Seek>(disk: &mut D, sector: u64, size: u64) -> io::Result<Option<Vec<Partition>>> {
    if !(512..=65_536).contains(&sector) || !sector.is_power_of_two() {
        return Ok(None);
    }
    let last = (size / sector).saturating_sub(1);
    let mut disk = Disk {
        sector,
        last,
        read: |start, length| {
            let mut bytes = vec![0; length];
            disk.seek(SeekFrom::Start(start))?;
            match disk.read_exact(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(malformed("the disk ends early")),
                done => Ok(done.map(|()| bytes)?),
            }
        },
    };
    for lba in [1, last] {
        match disk.copy(lba) {
            Ok(copy) => {
                let there = copy
                    .entries
                    .iter()
                    .filter(|entry| entry.first >= 2 && entry.end <= last);
                return Ok(Some(there.filter_map(|entry| entry.partition(sector)).collect()));
            }
            Err(MediumError::Io(error)) => return Err(error),
            Err(MediumError::Malformed(_) | MediumError::Tool(_) | MediumError::Unknown(_)) => {}
        }
    }
    Ok(None)
}

/// Sectors, and a way to read bytes at a position.
struct Disk<R> {
    sector: u64,
    /// The number of the last sector.
    last: u64,
    read: R,
}

/// One copy of the table.
struct Copy {
    entries: Vec<Entry>,
    /// The size of an entry.
    entry: u32,
    used: [Extent; 2],
    /// Where the other copy is said to be.
    other: u64,
}

/// An entry in use, which may point anywhere.
#[derive(Debug)]
struct Entry {
    number: u32,
    kind: Guid,
    guid: Guid,
    name: String,
    first: u64,
    end: u64,
}

impl<R: FnMut(u64, usize) -> Result<Vec<u8>, MediumError>> Disk<R> {
    /// Reads the copy whose header is sector `lba`.
    fn copy(&mut self, lba: u64) -> Result<Copy, MediumError> {
        let place = |lba: u64| {
            lba.checked_mul(self.sector)
                .filter(|_| (1..=self.last).contains(&lba))
                .ok_or_else(|| malformed("a part of the partition table lies outside the disk"))
        };
        let start = place(lba)?;
        let mut header = (self.read)(start, usize::try_from(self.sector).unwrap_or(512))?;
        let length = u32_at(&header, 12);
        if &header[..8] != b"EFI PART" || u64_at(&header, 24) != lba {
            return Err(malformed(format!("there is no partition table at sector {lba}")));
        }
        if length < 92 || u64::from(length) > self.sector {
            return Err(malformed("the partition table's header has an impossible length"));
        }
        let stated = u32_at(&header, 16);
        header[16..20].fill(0);
        if crc32(&header[..length as usize]) != stated {
            return Err(malformed(format!(
                "the checksum of the partition table at sector {lba} is wrong"
            )));
        }
        let (count, entry) = (u32_at(&header, 80), u32_at(&header, 84));
        if count > MAX_ENTRIES || !(ENTRY..=MAX_ENTRY).contains(&entry) || entry % 8 != 0 {
            return Err(malformed(format!(
                "a partition table of {count} entries of {entry} bytes"
            )));
        }
        let at = place(u64_at(&header, 72))?;
        let table = (self.read)(at, (count * entry) as usize)?;
        if crc32(&table) != u32_at(&header, 88) {
            return Err(malformed(format!(
                "the checksum of the partition entries at byte {at} is wrong"
            )));
        }
        Ok(Copy {
            entries: (1..)
                .zip(table.chunks_exact(entry as usize))
                .filter_map(|(number, entry)| Entry::read(number, entry))
                .collect(),
            entry,
            used: [
                Extent {
                    start,
                    length: self.sector,
                },
                Extent {
                    start: at,
                    length: table.len() as u64,
                },
            ],
            other: u64_at(&header, 32),
        })
    }
}

impl Entry {
    /// Reads an entry; `None` when it is not in use.
    fn read(number: u32, entry: &[u8]) -> Option<Self> {
        let guid = |at: usize| {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&entry[at..at + 16]);
            Guid(bytes)
        };
        let name = entry[56..ENTRY as usize]
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .take_while(|unit| *unit != 0);
        (!guid(0).is_nil()).then(|| Self {
            number,
            kind: guid(0),
            guid: guid(16),
            name: char::decode_utf16(name)
                .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect(),
            first: u64_at(entry, 32),
            end: u64_at(entry, 40),
        })
    }

    /// The partition, unless its end lies before its beginning or beyond what can be counted.
    fn partition(&self, sector: u64) -> Option<Partition> {
        let count = self.end.checked_sub(self.first)?.checked_add(1)?;
        Some(Partition {
            number: self.number,
            kind: self.kind,
            guid: self.guid,
            name: self.name.clone(),
            extent: Extent {
                start: self.first.checked_mul(sector)?,
                length: count.checked_mul(sector)?,
            },
        })
    }
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
    use super::*;
    use signing::process::Cmd;
    use std::fs::{self, File};
    use std::io::Cursor;

    const SIZE: u64 = 8 << 20;
    const ROOT_TYPE: &str = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709";
    const VERITY_TYPE: &str = "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5";
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
        first_good(&mut Cursor::new(disk), 512, disk.len() as u64).unwrap()
    }

    #[test]
    fn what_sfdisk_writes_is_read() {
        let found = partitions(&disk()).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].guid.to_string(), GUID);
        assert_eq!(found[0].kind.to_string(), ROOT_TYPE);
        assert_eq!(
            found[0].extent,
            Extent {
                start: 2048 * 512,
                length: 4096 * 512
            }
        );
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
            assert_eq!(first_good(&mut Cursor::new(&disk), sector, SIZE).unwrap(), None);
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
    fn entries_outside_the_disk_are_not_seen_and_no_audit_takes_them() {
        /// Puts the second partition elsewhere, in both copies, and seals the entries and the headers.
        fn moved(first: u64, end: u64) -> Vec<u8> {
            let mut disk = disk();
            let length = disk.len();
            for (header, entries) in [(512, 1024), (length - 512, length - 33 * 512)] {
                disk[entries + 128 + 32..entries + 128 + 40].copy_from_slice(&first.to_le_bytes());
                disk[entries + 128 + 40..entries + 128 + 48].copy_from_slice(&end.to_le_bytes());
                let sum = crc32(&disk[entries..entries + 128 * 128]).to_le_bytes();
                disk[header + 88..header + 92].copy_from_slice(&sum);
                disk[header + 16..header + 20].fill(0);
                let sum = crc32(&disk[header..header + 92]).to_le_bytes();
                disk[header + 16..header + 20].copy_from_slice(&sum);
            }
            disk
        }
        let last = SIZE / 512 - 1;
        assert_eq!(partitions(&moved(last, last)).unwrap().len(), 2);
        assert!(audited(&moved(last, last)).is_ok());
        for (first, end) in [(0, u64::MAX), (10, 9), (10, last + 1), (u64::MAX, u64::MAX)] {
            assert_eq!(partitions(&moved(first, end)).unwrap().len(), 1, "{first} {end}");
            assert!(audited(&moved(first, end)).is_err(), "{first} {end}");
        }
        // The protective record and the header are no place for a partition.
        assert_eq!(partitions(&moved(0, 5)).unwrap().len(), 1);
    }

    fn audited(disk: &[u8]) -> Result<Table, MediumError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        fs::write(&path, disk).unwrap();
        agreed(&Image::open(&path).unwrap())
    }

    #[test]
    fn an_audit_wants_two_copies_that_agree() {
        assert_eq!(audited(&disk()).unwrap().partitions, partitions(&disk()).unwrap());
        let (mut first, mut entries, mut backup) = (disk(), disk(), disk());
        first[512 + 60] ^= 1;
        entries[1024 + 8] ^= 1;
        let end = backup.len() - 512 + 60;
        backup[end] ^= 1;
        for hurt in [first, entries, backup] {
            assert!(matches!(audited(&hurt), Err(MediumError::Malformed(_))));
        }
    }

    #[test]
    fn knows_the_check_value_of_crc32() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
