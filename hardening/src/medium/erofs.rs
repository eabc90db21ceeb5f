// SPDX-License-Identifier: GPL-3.0-or-later
//! A few files of an erofs image, read where they lie (kernel: filesystems/erofs, `fs/erofs/erofs_fs.h`).
//!
//! The attacks: positions and lengths that point outside the image or are huge; a directory that the kernel, which searches
//! by halves, reads in another way than one who reads it from the beginning: names twice, or not in their order; a link
//! in the place of a file. The defence: each position is checked against the image, lengths have limits, names must
//! strictly ascend, no link is followed. The image's content is not judged here: whoever calls has verified its digest.
//!
//! Only what the build makes is read, that is uncompressed files; another form is an error that says so, never "no file".

use super::{Image, MediumError, malformed, u16_at, u32_at, u64_at};

const SUPERBLOCK: u64 = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
/// Features that change nothing for uncompressed files: padding of LZ4 blocks, prefixes of attribute names.
const HARMLESS: u32 = 0x1 | 0x40;
/// The largest directory that is read.
const DIRECTORY: u64 = 16 << 20;
const DIRENT: usize = 12;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else.
    Other,
}

/// An erofs image.
#[derive(Debug)]
pub struct Erofs<'a> {
    image: &'a Image,
    block: u64,
    inodes: u64,
    root: u64,
}

struct Inode {
    kind: Kind,
    size: u64,
    /// First byte of the whole blocks.
    data: u64,
    /// First byte of the rest, where it lies behind the inode.
    tail: Option<u64>,
}

impl<'a> Erofs<'a> {
    /// Reads the superblock.
    ///
    /// # Errors
    /// When this is no erofs, or one of a form that is not known.
    pub fn open(image: &'a Image) -> Result<Self, MediumError> {
        let bytes = image.at(SUPERBLOCK, 128)?;
        if u32_at(&bytes, 0) != MAGIC {
            return Err(malformed("it is no erofs"));
        }
        let features = u32_at(&bytes, 80);
        let bits = bytes[12];
        if features & !HARMLESS != 0 || !(9..=16).contains(&bits) || bytes[90] != 0 {
            return Err(MediumError::Unknown(format!(
                "an erofs with features {features:#x} and blocks of 2^{bits} bytes, which this program cannot read"
            )));
        }
        let block = 1 << bits;
        Ok(Self {
            image,
            block,
            inodes: u64::from(u32_at(&bytes, 40)) * block,
            root: u64::from(u16_at(&bytes, 14)),
        })
    }

    /// The names in a directory; `None` when there is none of this path.
    ///
    /// # Errors
    /// When the image does not read.
    pub fn list(&self, path: &str) -> Result<Option<Vec<(String, Kind)>>, MediumError> {
        let Some(inode) = self.find(path)? else { return Ok(None) };
        let mut names = Vec::new();
        for (name, at) in self.entries(&inode)? {
            names.push((String::from_utf8_lossy(&name).into_owned(), self.inode(at)?.kind));
        }
        Ok(Some(names))
    }

    /// The content of a regular file of at most `limit` bytes; `None` when there is none of this path.
    ///
    /// # Errors
    /// When it is longer, is no regular file, or the image does not read.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, MediumError> {
        match self.find(path)? {
            Some(inode) if inode.kind != Kind::File => Err(malformed(format!("{path} is no regular file"))),
            Some(inode) => self.content(&inode, limit).map(Some),
            None => Ok(None),
        }
    }

    fn find(&self, path: &str) -> Result<Option<Inode>, MediumError> {
        let mut inode = self.inode(self.root)?;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let entries = self.entries(&inode)?;
            let Some((_, number)) = entries.into_iter().find(|(name, _)| name == part.as_bytes()) else {
                return Ok(None);
            };
            inode = self.inode(number)?;
        }
        Ok(Some(inode))
    }

    fn inode(&self, number: u64) -> Result<Inode, MediumError> {
        let outside = || malformed(format!("the inode {number} lies outside the image"));
        let start = number
            .checked_mul(32)
            .and_then(|at| at.checked_add(self.inodes))
            .ok_or_else(outside)?;
        let head = self.image.at(start, 32)?;
        let format = u16_at(&head, 0);
        let (length, size) = match format & 1 {
            0 => (32, u64::from(u32_at(&head, 8))),
            _ => (64, u64_at(&head, 8)),
        };
        let attributes = match u64::from(u16_at(&head, 2)) {
            0 => 0,
            count => 12 + 4 * (count - 1),
        };
        let tail = match format >> 1 & 7 {
            0 => None,
            2 => Some(start + length + attributes),
            layout => {
                return Err(MediumError::Unknown(format!(
                    "the inode {number} has the layout {layout}, which this program cannot read"
                )));
            }
        };
        Ok(Inode {
            kind: match u16_at(&head, 4) & 0o170_000 {
                0o100_000 => Kind::File,
                0o040_000 => Kind::Directory,
                _ => Kind::Other,
            },
            size,
            data: u64::from(u32_at(&head, 16)) * self.block,
            tail,
        })
    }

    fn content(&self, inode: &Inode, limit: u64) -> Result<Vec<u8>, MediumError> {
        if inode.size > limit {
            return Err(malformed(format!(
                "a file of {} bytes where at most {limit} have a place",
                inode.size
            )));
        }
        // The last block, whole or not, lies behind the inode.
        let whole = match inode.tail {
            Some(_) => inode.size.saturating_sub(1) / self.block * self.block,
            None => inode.size,
        };
        let part = |start, length: u64| self.image.at(start, usize::try_from(length).unwrap_or(usize::MAX));
        let mut bytes = if whole > 0 {
            part(inode.data, whole)?
        } else {
            Vec::new()
        };
        if let Some(tail) = inode.tail {
            bytes.extend(part(tail, inode.size - whole)?);
        }
        Ok(bytes)
    }

    /// Names and inodes of a directory.
    fn entries(&self, inode: &Inode) -> Result<Vec<(Vec<u8>, u64)>, MediumError> {
        if inode.kind != Kind::Directory {
            return Err(malformed("a part of the path is no directory"));
        }
        let bytes = self.content(inode, DIRECTORY)?;
        let odd = || malformed("a directory contradicts itself");
        let mut entries: Vec<(Vec<u8>, u64)> = Vec::new();
        for block in bytes.chunks(usize::try_from(self.block).unwrap_or(usize::MAX)) {
            let names = usize::from(u16_at(block, 8));
            if names < DIRENT || names % DIRENT != 0 || names > block.len() {
                return Err(odd());
            }
            for at in (0..names).step_by(DIRENT) {
                let start = usize::from(u16_at(block, at + 8));
                let end = match at + DIRENT {
                    next if next < names => usize::from(u16_at(block, next + 8)),
                    _ => block.len(),
                };
                let name = block.get(start..end).filter(|_| start >= names).ok_or_else(odd)?;
                let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
                if name.is_empty() || entries.last().is_some_and(|(before, _)| before.as_slice() >= name) {
                    return Err(odd());
                }
                entries.push((name.to_vec(), u64_at(block, at)));
            }
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use signing::process::Cmd;

    use super::*;

    /// The recipe: a tree with a long directory and files below, at and above the length of a block.
    fn image() -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir_all(tree.join("many")).unwrap();
        for number in 0..400 {
            fs::write(tree.join(format!("many/a-name-of-some-length-{number}")), [1]).unwrap();
        }
        for length in LENGTHS {
            fs::write(tree.join(length.to_string()), content(length)).unwrap();
        }
        std::os::unix::fs::symlink("4095", tree.join("link")).unwrap();
        let out = directory.path().join("image");
        Cmd::new("mkfs.erofs")
            .args(["-d1", "-x2", "-Eforce-inode-extended"])
            .args([&out, &tree])
            .run()
            .unwrap();
        fs::read(out).unwrap()
    }

    const LENGTHS: [usize; 7] = [0, 1, 3000, 4095, 4096, 4097, 9000];

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    fn on<T>(bytes: &[u8], look: impl FnOnce(&Erofs<'_>) -> Result<T, MediumError>) -> Result<T, MediumError> {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        let image = Image::nameless(file).unwrap();
        look(&Erofs::open(&image)?)
    }

    #[test]
    fn files_and_directories_are_read_as_they_were_written() {
        let bytes = image();
        for length in LENGTHS {
            let read = on(&bytes, |erofs| erofs.read(&format!("/{length}"), 10_000)).unwrap();
            assert!(read == Some(content(length)), "{length}");
        }
        let many = on(&bytes, |erofs| erofs.list("many")).unwrap().unwrap();
        // With "." and "..".
        assert_eq!(many.len(), 402);
        assert!(many.contains(&("a-name-of-some-length-399".to_owned(), Kind::File)));
        assert!(on(&bytes, |erofs| erofs.read("many/none", 10)).unwrap().is_none());
        assert!(on(&bytes, |erofs| erofs.list("none")).unwrap().is_none());
    }

    #[test]
    fn links_long_files_and_foreign_images_are_errors() {
        let bytes = image();
        let fails = |path: &str, why: &str| {
            let error = on(&bytes, |erofs| erofs.read(path, 4096)).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        fails("link", "no regular file");
        fails("many", "no regular file");
        fails("4095/below", "no directory");
        fails("9000", "at most 4096");
        let mut other = bytes.clone();
        other[1024] ^= 1;
        assert!(matches!(on(&other, |_| Ok(())), Err(MediumError::Malformed(_))));
        other = bytes.clone();
        other[1024 + 80] |= 4;
        assert!(matches!(on(&other, |_| Ok(())), Err(MediumError::Unknown(_))));
        assert!(on(&bytes[..1100], |_| Ok(())).is_err());
    }

    #[test]
    fn names_out_of_their_order_are_an_error() {
        let mut bytes = image();
        let at = bytes.windows(4).position(|four| four == b"3000").unwrap();
        bytes[at] = b'9';
        assert!(on(&bytes, |erofs| erofs.read("4095", 4096)).is_err());
    }

    #[test]
    fn no_flipped_byte_is_a_panic() {
        let whole = image();
        for at in (1024..whole.len()).step_by(31) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            drop(on(&bytes, |erofs| {
                erofs.list("many")?;
                erofs.read("9000", 1 << 20)
            }));
        }
    }
}
