// SPDX-License-Identifier: GPL-3.0-or-later
//! A cpio archive in the `newc` format, as the kernel unpacks it, with the same bytes for the same entries: sorted by path,
//! one date, owned by root, inode numbers in order.

use std::collections::BTreeMap;
use std::io::{self, Write};

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A directory with its mode.
    Directory(u32),
    /// A file with its mode and content.
    File(u32, Vec<u8>),
    /// A symbolic link with its target.
    Link(String),
    /// A character device with its mode and numbers.
    Device(u32, u32, u32),
}

/// An archive under construction.
#[derive(Debug, Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// Puts an entry at a path relative to the root, and directories above it where there is nothing.
    pub fn put(&mut self, path: &str, entry: Entry) {
        let path = path.trim_matches('/');
        for (index, _) in path.match_indices('/') {
            self.entries
                .entry(path[..index].to_owned())
                .or_insert(Entry::Directory(0o755));
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// Whether something stands at a path.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.entries.contains_key(path.trim_matches('/'))
    }

    /// The paths, in the order of the archive.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Writes the archive, every entry dated `epoch`.
    ///
    /// # Errors
    /// When the writer fails or a file does not fit the format.
    pub fn write(&self, to: &mut dyn Write, epoch: u32) -> io::Result<()> {
        // Entries are in the order of their paths, so that a directory precedes what lies in it.
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            let (mode, links, device, content): (u32, u32, (u32, u32), &[u8]) = match entry {
                Entry::Directory(mode) => (0o040_000 | mode, 2, (0, 0), b""),
                Entry::File(mode, content) => (0o100_000 | mode, 1, (0, 0), content),
                Entry::Link(target) => (0o120_777, 1, (0, 0), target.as_bytes()),
                Entry::Device(mode, major, minor) => (0o020_000 | mode, 1, (*major, *minor), b""),
            };
            record(to, path, [number, mode, 0, 0, links, epoch], device, content)?;
        }
        record(to, "TRAILER!!!", [0, 0, 0, 0, 1, 0], (0, 0), b"")
    }
}

fn record(
    to: &mut dyn Write,
    path: &str,
    [inode, mode, user, group, links, date]: [u32; 6],
    (major, minor): (u32, u32),
    content: &[u8],
) -> io::Result<()> {
    let too_long = |_| io::Error::other(format!("{path} does not fit a cpio archive"));
    let size = u32::try_from(content.len()).map_err(too_long)?;
    let name = u32::try_from(path.len() + 1).map_err(too_long)?;
    write!(to, "070701")?;
    for field in [inode, mode, user, group, links, date, size, 0, 0, major, minor, name, 0] {
        write!(to, "{field:08x}")?;
    }
    to.write_all(path.as_bytes())?;
    to.write_all(b"\0")?;
    pad(to, 110 + path.len() + 1)?;
    to.write_all(content)?;
    pad(to, content.len())
}

/// Fills to a multiple of four.
fn pad(to: &mut dyn Write, length: usize) -> io::Result<()> {
    to.write_all(&[0; 3][..length.wrapping_neg() % 4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use signing::process::Cmd;

    fn sample() -> Archive {
        let mut archive = Archive::default();
        archive.put("usr/bin/tool", Entry::File(0o755, b"hello".to_vec()));
        archive.put("/bin", Entry::Link("usr/bin".into()));
        archive.put("dev/console", Entry::Device(0o600, 5, 1));
        archive
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let mut bytes = Vec::new();
        let mut archive = Archive::default();
        archive.put("a", Entry::File(0o644, b"hi".to_vec()));
        archive.write(&mut bytes, 0x10).unwrap();
        let expected = "070701\
            00000001000081a4000000000000000000000001000000100000000200000000000000000000000000000000\
            0000000200000000a\0hi\0\0\x30\x370701\
            00000000000000000000000000000000000000010000000000000000000000000000000000000000000000000000000b00000000TRAILER!!!\0\0\0\0";
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn order_of_making_does_not_show() {
        let mut one = Vec::new();
        sample().write(&mut one, 7).unwrap();
        let mut other = Archive::default();
        other.put("dev/console", Entry::Device(0o600, 5, 1));
        other.put("bin", Entry::Link("usr/bin".into()));
        other.put("usr/bin/tool", Entry::File(0o755, b"hello".to_vec()));
        let mut two = Vec::new();
        other.write(&mut two, 7).unwrap();
        assert_eq!(one, two);
        assert_eq!(
            sample().paths().collect::<Vec<_>>(),
            ["bin", "dev", "dev/console", "usr", "usr/bin", "usr/bin/tool"]
        );
    }

    #[test]
    fn cpio_reads_it() {
        let mut bytes = Vec::new();
        sample().write(&mut bytes, 1_700_000_000).unwrap();
        let listing = Cmd::new("cpio")
            .args(["-itv", "--quiet"])
            .input(bytes)
            .output()
            .unwrap();
        let listing = String::from_utf8(listing).unwrap();
        assert!(
            listing.contains("5,   1") && listing.contains("bin -> usr/bin") && listing.contains("-rwxr-xr-x"),
            "{listing}"
        );
    }
}
