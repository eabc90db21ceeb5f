// SPDX-License-Identifier: GPL-3.0-or-later
//! Finds a section of a PE image (PE/COFF specification, sections 3 and 4).
//!
//! The attacks: offsets and lengths that point outside the file or are huge, and a section table of any length. The defence:
//! at most 96 sections (the specification's own limit), every length bounded before memory is taken, reads that fail at the
//! end of the file. The defence not made: the signature is not looked at here; [`crate::trace`] does that.

use std::io::{self, Read, Seek, SeekFrom};

use signing::digest::read_to_limit;

/// The longest section that is read: command lines are short.
const LIMIT: u64 = 1 << 20;

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a PE image: {why}"))
}

/// The content of a section, without the padding behind it.
pub(crate) fn section(mut file: impl Read + Seek, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut dos = [0; 64];
    file.read_exact(&mut dos)?;
    if &dos[..2] != b"MZ" {
        return Err(bad("no MZ"));
    }
    file.seek(SeekFrom::Start(u64::from(u32_at(&dos, 60))))?;
    let mut coff = [0; 24];
    file.read_exact(&mut coff)?;
    if &coff[..4] != b"PE\0\0" {
        return Err(bad("no PE signature"));
    }
    let count = u16::from_le_bytes([coff[6], coff[7]]);
    if count > 96 {
        return Err(bad("more than 96 sections"));
    }
    file.seek(SeekFrom::Current(i64::from(u16::from_le_bytes([coff[20], coff[21]]))))?;
    for _ in 0..count {
        let mut header = [0; 40];
        file.read_exact(&mut header)?;
        if header[..8].split(|&byte| byte == 0).next() != Some(name.as_bytes()) {
            continue;
        }
        let used = u64::from(u32_at(&header, 8));
        let stored = u64::from(u32_at(&header, 16));
        let length = if used == 0 { stored } else { used.min(stored) };
        if length > LIMIT {
            return Err(bad(&format!("section {name} of {length} bytes")));
        }
        file.seek(SeekFrom::Start(u64::from(u32_at(&header, 20))))?;
        let bytes = read_to_limit(&mut file.take(length), LIMIT)?;
        return if bytes.len() as u64 == length {
            Ok(Some(bytes))
        } else {
            Err(bad(&format!("section {name} is cut off")))
        };
    }
    Ok(None)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn image(length: u32) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[60] = 64;
        bytes.extend(b"PE\0\0\x64\x86\x01\0");
        bytes.extend([0; 16]);
        bytes.extend(b".config\0");
        for value in [length, 0, 512, 128] {
            bytes.extend(u32::to_le_bytes(value));
        }
        bytes.extend([0; 16]);
        bytes.extend(b"options=x");
        bytes.resize(640, 0);
        bytes
    }

    #[test]
    fn finds_a_section_without_its_padding() {
        assert_eq!(
            section(Cursor::new(image(9)), ".config").unwrap().unwrap(),
            b"options=x"
        );
        assert_eq!(section(Cursor::new(image(9)), ".kernel").unwrap(), None);
    }

    #[test]
    fn refuses_what_is_cut_off_or_foreign() {
        assert!(section(Cursor::new(&image(400)[..200]), ".config").is_err());
        assert!(section(Cursor::new(b"\x7fELF".repeat(20)), ".config").is_err());
        let mut many = image(9);
        many[70] = 200;
        assert!(section(Cursor::new(many), ".config").is_err());
    }
}
