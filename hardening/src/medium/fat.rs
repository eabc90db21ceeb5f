// SPDX-License-Identifier: GPL-3.0-or-later
//! FAT12, FAT16 and FAT32 (Microsoft's specification 1.03), read only: which files are on an ESP and where they lie.
//!
//! The attacks and the defence: see [`super`]. Chains of clusters that loop, leave the volume or are longer than their file
//! are refused. The defence not made: bytes in clusters that no file uses are not judged; the OpenPGP signature of the whole
//! image covers them.

use std::collections::BTreeSet;

use super::{Extent, Image, MediumError, malformed, u16_at, u32_at};

const ENTRIES: usize = 4096;
const DEPTH: usize = 8;
/// The largest allocation table that is read.
const TABLE: u64 = 16 << 20;

/// A file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path from the root, without a leading slash.
    pub path: String,
    /// Whether it is a directory.
    pub directory: bool,
    /// Where its content lies.
    pub extents: Vec<Extent>,
    /// Length in bytes.
    pub length: u64,
}

struct Volume<'a> {
    image: &'a Image,
    table: Vec<u8>,
    bits: u8,
    clusters: u32,
    cluster_size: u64,
    data: u64,
    entries: Vec<Entry>,
    used: BTreeSet<u32>,
}

/// Every file and directory of the FAT volume in `place`.
///
/// # Errors
/// When it is no FAT volume or a malformed one.
pub fn read(image: &Image, place: Extent) -> Result<Vec<Entry>, MediumError> {
    image.inside(place)?;
    let boot = image.at(place.start, 512)?;
    let sector = u64::from(u16_at(&boot, 11));
    let per_cluster = u64::from(boot[13]);
    if boot[510..512] != [0x55, 0xaa] || !matches!(sector, 512 | 1024 | 2048 | 4096) || !per_cluster.is_power_of_two() {
        return Err(malformed("the ESP holds no FAT volume"));
    }
    let reserved = u64::from(u16_at(&boot, 14));
    let copies = u64::from(boot[16]);
    let root_entries = u64::from(u16_at(&boot, 17));
    let pick = |small: u16, large: u32| if small != 0 { u64::from(small) } else { u64::from(large) };
    let total = pick(u16_at(&boot, 19), u32_at(&boot, 32));
    let table_sectors = pick(u16_at(&boot, 22), u32_at(&boot, 36));
    let root_sectors = (root_entries * 32).div_ceil(sector);
    let first = reserved + copies * table_sectors + root_sectors;
    if total * sector > place.length || first >= total || table_sectors * sector > TABLE {
        return Err(malformed("the FAT volume is larger than its partition"));
    }
    let clusters = u32::try_from((total - first) / per_cluster).map_err(|_| malformed("too many clusters"))?;
    // The number of clusters alone tells the kinds apart (section 3.5).
    let bits = match clusters {
        0..4085 => 12,
        4085..65525 => 16,
        _ => 32,
    };
    let table_length = usize::try_from(table_sectors * sector).map_err(|_| malformed("a table too large"))?;
    let table = image.at(place.start + reserved * sector, table_length)?;
    let mut volume = Volume {
        image,
        table,
        bits,
        clusters,
        cluster_size: per_cluster * sector,
        data: place.start + first * sector,
        entries: Vec::new(),
        used: BTreeSet::new(),
    };
    let root = if bits == 32 {
        volume.chain(u32_at(&boot, 44), None)?
    } else {
        vec![Extent {
            start: place.start + (reserved + copies * table_sectors) * sector,
            length: root_entries * 32,
        }]
    };
    volume.directory("", &root, 0)?;
    Ok(volume.entries)
}

impl Volume<'_> {
    fn next(&self, cluster: u32) -> u32 {
        let at = cluster as usize;
        match self.bits {
            12 => {
                let pair = u32::from(u16_at(&self.table, at + at / 2));
                let value = if cluster & 1 == 1 { pair >> 4 } else { pair & 0xfff };
                if value >= 0xff8 { u32::MAX } else { value }
            }
            16 => match u16_at(&self.table, at * 2) {
                0xfff8.. => u32::MAX,
                value => u32::from(value),
            },
            _ => match u32_at(&self.table, at * 4) & 0x0fff_ffff {
                0x0fff_fff8.. => u32::MAX,
                value => value,
            },
        }
    }

    /// The clusters of a file of the given length, or of a directory, whose length is the chain's.
    fn chain(&mut self, first: u32, length: Option<u64>) -> Result<Vec<Extent>, MediumError> {
        let mut extents: Vec<Extent> = Vec::new();
        let mut left = length.unwrap_or(u64::MAX);
        let mut cluster = first;
        while left > 0 && cluster != u32::MAX {
            if cluster < 2 || cluster - 2 >= self.clusters || !self.used.insert(cluster) {
                return Err(malformed(format!(
                    "a chain of clusters leaves the volume, loops or crosses another at {cluster}"
                )));
            }
            let size = self.cluster_size.min(left);
            let start = self.data + u64::from(cluster - 2) * self.cluster_size;
            match extents.last_mut() {
                Some(last) if last.end() == start => last.length += size,
                _ => extents.push(Extent { start, length: size }),
            }
            if length.is_some() {
                left -= size;
            }
            cluster = self.next(cluster);
        }
        if length.is_some() && (left > 0 || (first != 0 && cluster != u32::MAX)) {
            return Err(malformed("a chain of clusters has another length than its file"));
        }
        Ok(extents)
    }

    fn directory(&mut self, path: &str, extents: &[Extent], depth: usize) -> Result<(), MediumError> {
        let total: u64 = extents.iter().map(|extent| extent.length).sum();
        if depth > DEPTH || total > 1 << 20 {
            return Err(malformed(format!(
                "the directory /{path} of the ESP is too deep or too large"
            )));
        }
        let mut bytes = Vec::new();
        for extent in extents {
            bytes.extend(
                self.image
                    .at(extent.start, usize::try_from(extent.length).unwrap_or(0))?,
            );
        }
        let mut long: Vec<u16> = Vec::new();
        for entry in bytes.chunks_exact(32) {
            let attributes = entry[11];
            match entry[0] {
                0 => break,
                0xe5 => long.clear(),
                _ if attributes & 0x3f == 0x0f => {
                    let mut part: Vec<u16> = [1..11, 14..26, 28..32]
                        .into_iter()
                        .flat_map(|range| entry[range].chunks_exact(2))
                        .map(|pair| u16_at(pair, 0))
                        .collect();
                    part.extend(&long);
                    long = part;
                    if long.len() > 260 {
                        return Err(malformed("a long name on the ESP does not end"));
                    }
                }
                // The label of the volume.
                _ if attributes & 0x08 != 0 => long.clear(),
                _ => {
                    let name = name(entry, &long)?;
                    long.clear();
                    if name != "." && name != ".." {
                        self.entry(path, &name, entry, attributes & 0x10 != 0, depth)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: &str,
        name: &str,
        entry: &[u8],
        directory: bool,
        depth: usize,
    ) -> Result<(), MediumError> {
        if self.entries.len() >= ENTRIES {
            return Err(malformed(format!("more than {ENTRIES} files on the ESP")));
        }
        let full = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}/{name}")
        };
        let high = if self.bits == 32 {
            u32::from(u16_at(entry, 20)) << 16
        } else {
            0
        };
        let first = high | u32::from(u16_at(entry, 26));
        let size = u64::from(u32_at(entry, 28));
        let extents = if directory {
            self.chain(first, None)?
        } else {
            self.chain(first, Some(size))?
        };
        self.entries.push(Entry {
            path: full.clone(),
            directory,
            extents: extents.clone(),
            length: if directory { 0 } else { size },
        });
        if directory {
            self.directory(&full, &extents, depth + 1)
        } else {
            Ok(())
        }
    }
}

fn name(entry: &[u8], long: &[u16]) -> Result<String, MediumError> {
    let name = if long.is_empty() {
        let part = |range: std::ops::Range<usize>| String::from_utf8_lossy(&entry[range]).trim_end().to_owned();
        let (base, extension) = (part(0..8), part(8..11));
        if extension.is_empty() {
            base
        } else {
            format!("{base}.{extension}")
        }
    } else {
        let end = long.iter().position(|&unit| unit == 0).unwrap_or(long.len());
        String::from_utf16(&long[..end]).map_err(|_| malformed("a long name on the ESP is not UTF-16"))?
    };
    if name.is_empty() || name.contains(['/', '\0', '\n']) {
        return Err(malformed(format!("{name:?} is no name of a file")));
    }
    Ok(name)
}
