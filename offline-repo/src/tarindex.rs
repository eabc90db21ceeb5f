// SPDX-License-Identifier: GPL-3.0-or-later
//! An index of a tar archive (POSIX.1-1988 ustar) whose members are read in place.
//!
//! Attacks: members whose names lead out of a directory (`..`, absolute, backslash), or hide in a terminal; symbolic and
//! hard links, devices, pipes and directories; one name twice, so that two readers see two contents; sizes that lie
//! (beyond the file, negative, base-256) or overflow; a header that was altered; extension headers (pax, GNU long names)
//! that change what the next header says; members without end, to fill memory; an archive that was cut off, or that goes
//! on behind its end.
//! Defence: the archive is never unpacked, only indexed: a member is a name, an offset and a length inside the file.
//! Regular files only; names are of few characters and checked as text; a name may stand once; each header's checksum is
//! compared; an extension header is an error; members are counted; the archive must end with two empty blocks and with
//! nothing but empty blocks behind them. Mode, owner and date of a member are not used at all.
//! Not defended: what a member holds. Who reads it verifies it.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

use signing::output::Refused;

const BLOCK: u64 = 512;
/// More members than any archive of ours has.
pub const MOST_MEMBERS: usize = 20_000;

/// Why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// It cannot be read.
    #[error("cannot read the archive")]
    Io(#[from] io::Error),
    /// It is not an archive as we write it.
    #[error("the archive")]
    Refused(#[source] Refused),
}

fn refused<T>(why: impl Into<String>) -> Result<T, TarError> {
    Err(TarError::Refused(Refused(why.into())))
}

/// Where a member's content lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Where it begins.
    pub offset: u64,
    /// Its length.
    pub size: u64,
}

/// An archive with its index.
#[derive(Debug)]
pub struct TarIndex<R> {
    reader: R,
    members: BTreeMap<String, Member>,
    order: Vec<String>,
}

impl<R: Read + Seek> TarIndex<R> {
    /// Reads all headers.
    ///
    /// # Errors
    /// [`TarError::Refused`] when it is not a plain archive, [`TarError::Io`] when it cannot be read.
    pub fn open(mut reader: R) -> Result<Self, TarError> {
        let length = reader.seek(SeekFrom::End(0))?;
        let mut at = 0;
        let mut members = BTreeMap::new();
        let mut order = Vec::new();
        loop {
            let Some(header) = read_block(&mut reader, at, length)? else {
                return refused("it was cut off: its end mark is missing");
            };
            at += BLOCK;
            if header.iter().all(|byte| *byte == 0) {
                break;
            }
            let (name, size) = parse_header(&header)?;
            let padded = size.checked_next_multiple_of(BLOCK);
            let end = padded.and_then(|padded| at.checked_add(padded));
            let Some(end) = end.filter(|end| *end <= length) else {
                return refused(format!(
                    "it was cut off, or the size of {name} lies: {size} bytes are not there"
                ));
            };
            if members.len() >= MOST_MEMBERS {
                return refused(format!("it has more than {MOST_MEMBERS} members"));
            }
            if members.insert(name.clone(), Member { offset: at, size }).is_some() {
                return refused(format!("it names {name} twice"));
            }
            order.push(name);
            at = end;
        }
        // The second empty block, and padding to a record of at most 1 MiB.
        let rest = length - at;
        if !(BLOCK..=1 << 20).contains(&rest) {
            return refused("something follows its end mark, or the mark is cut off");
        }
        reader.seek(SeekFrom::Start(at))?;
        let mut tail = Vec::new();
        reader.by_ref().take(rest).read_to_end(&mut tail)?;
        if tail.iter().any(|byte| *byte != 0) {
            return refused("something follows its end mark");
        }
        Ok(Self { reader, members, order })
    }

    /// The names, in the archive's order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.order
    }

    /// A member's place.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<Member> {
        self.members.get(name).copied()
    }

    /// The archive itself.
    #[must_use]
    pub fn into_reader(self) -> R {
        self.reader
    }

    /// Opens a member for reading.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn read(&mut self, name: &str) -> io::Result<Option<io::Take<&mut R>>> {
        let Some(member) = self.member(name) else {
            return Ok(None);
        };
        self.reader.seek(SeekFrom::Start(member.offset))?;
        Ok(Some(self.reader.by_ref().take(member.size)))
    }
}

fn read_block(reader: &mut (impl Read + Seek), at: u64, length: u64) -> io::Result<Option<[u8; BLOCK as usize]>> {
    if length.saturating_sub(at) < BLOCK {
        return Ok(None);
    }
    reader.seek(SeekFrom::Start(at))?;
    let mut block = [0; BLOCK as usize];
    reader.read_exact(&mut block)?;
    Ok(Some(block))
}

fn parse_header(header: &[u8; BLOCK as usize]) -> Result<(String, u64), TarError> {
    if !checksum_holds(header) {
        return refused("it is no tar archive, or a header was altered: its checksum is wrong");
    }
    let prefix: &[u8] = match &header[257..265] {
        b"ustar\x0000" => &header[345..500],
        b"ustar  \0" => &[],
        _ => return refused("it is no ustar archive"),
    };
    let prefix = text(prefix)?;
    let mut name = text(&header[..100])?;
    if !prefix.is_empty() {
        name = format!("{prefix}/{name}");
    }
    if !matches!(header[156], b'0' | 0) || header[157..257].iter().any(|byte| *byte != 0) {
        return refused(format!("{name:?} is no regular file"));
    }
    let good = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-+~%/".contains(&byte))
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !good {
        return refused(format!("it holds the name {name:?}, which is not allowed"));
    }
    match octal(&header[124..136]) {
        Some(size) => Ok((name, size)),
        None => refused(format!("the size of {name} is no number")),
    }
}

/// Whether a header is the one that was written.
pub(crate) fn checksum_holds(header: &[u8; BLOCK as usize]) -> bool {
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(index, byte)| u64::from(if (148..156).contains(&index) { b' ' } else { *byte }))
        .sum();
    octal(&header[148..156]) == Some(sum)
}

fn text(field: &[u8]) -> Result<String, TarError> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    if field[end..].iter().any(|byte| *byte != 0) {
        return refused("a name in it goes on behind its end");
    }
    match std::str::from_utf8(&field[..end]) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => refused("a name in it is no text"),
    }
}

/// An octal number, ended by a blank or NUL.
pub(crate) fn octal(field: &[u8]) -> Option<u64> {
    let end = field
        .iter()
        .position(|byte| matches!(byte, 0 | b' '))
        .unwrap_or(field.len());
    let digits = std::str::from_utf8(&field[..end]).ok()?;
    if digits.is_empty() || !digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte)) {
        return None;
    }
    u64::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn archive(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().unwrap()
    }

    /// A member with a header that the tar crate would not write.
    fn raw(builder: &mut tar::Builder<Vec<u8>>, name: &str, kind: u8, size: u64, content: &[u8]) {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }

    fn why(bytes: Vec<u8>) -> String {
        match TarIndex::open(Cursor::new(bytes)) {
            Err(TarError::Refused(why)) => why.0,
            Err(other) => panic!("not a refusal: {other}"),
            Ok(_) => panic!("accepted"),
        }
    }

    #[test]
    fn reads_a_plain_archive_in_place() {
        let bytes = archive(|builder| {
            raw(builder, "a", b'0', 5, b"hello");
            raw(builder, "dir/b", b'0', 0, b"");
        });
        let mut index = TarIndex::open(Cursor::new(bytes)).unwrap();
        assert_eq!(index.names(), ["a", "dir/b"]);
        let mut content = String::new();
        index.read("a").unwrap().unwrap().read_to_string(&mut content).unwrap();
        assert_eq!(content, "hello");
        assert!(index.read("c").unwrap().is_none());
    }

    #[test]
    fn reads_long_names_through_the_prefix() {
        let long = format!("targets/host/1.0.0/{}.installer.efi.zst", "a".repeat(64));
        let bytes = archive(|builder| {
            let mut header = tar::Header::new_ustar();
            header.set_size(1);
            builder.append_data(&mut header, &long, &b"x"[..]).unwrap();
        });
        assert_eq!(TarIndex::open(Cursor::new(bytes)).unwrap().names(), [long]);
    }

    #[test]
    fn refuses_names_that_leave_and_members_that_are_no_files() {
        for name in ["../x", "/x", "a/../x", "a//x", "./a", "a\\b", "a\x1bb", "a b"] {
            let bytes = archive(|builder| raw(builder, name, b'0', 0, b""));
            assert!(why(bytes).contains("not allowed"), "{name:?}");
        }
        // Hard link, symbolic link, devices, directory, pipe, pax, global pax, GNU long name, sparse.
        for kind in *b"123456xgLKS" {
            let bytes = archive(|builder| raw(builder, "x", kind, 0, b""));
            assert!(why(bytes).contains("no regular file"), "{}", kind as char);
        }
    }

    #[test]
    fn refuses_duplicates_lies_and_cuts() {
        let twice = archive(|builder| {
            raw(builder, "a", b'0', 1, b"1");
            raw(builder, "a", b'0', 1, b"2");
        });
        assert!(why(twice).contains("twice"));
        let lie = archive(|builder| raw(builder, "a", b'0', 1 << 32, b"1"));
        assert!(why(lie).contains("lies"));
        let good = archive(|builder| raw(builder, "a", b'0', 600, &[1; 600]));
        for cut in [good.len() - 512, good.len() - 1024, 1024, 700, 511, 0] {
            assert!(
                TarIndex::open(Cursor::new(good[..cut].to_vec())).is_err(),
                "cut at {cut}"
            );
        }
        let mut more = good.clone();
        more.extend_from_slice(&good);
        assert!(why(more).contains("follows"));
        let mut altered = good;
        altered[0] = b'b';
        assert!(why(altered).contains("checksum"));
    }

    #[test]
    fn refuses_sizes_in_base_256() {
        let mut bytes = archive(|builder| raw(builder, "a", b'0', 0, b""));
        bytes[124] = 0x80;
        bytes[135] = 1;
        let sum: u32 = (0..512)
            .map(|at| u32::from(if (148..156).contains(&at) { b' ' } else { bytes[at] }))
            .sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert!(why(bytes).contains("no number"));
    }
}
