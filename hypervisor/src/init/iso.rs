// SPDX-License-Identifier: GPL-3.0-or-later
//! The label of an ISO 9660 volume (ECMA-119, 8.4), read before anything is mounted.
//!
//! Attack faced: any stick or disc that happens to be plugged in. Defence: one fixed sector, and a label is only a reason to
//! look further; the root hash decides.

use std::io::{self, Read, Seek, SeekFrom};

/// Where the primary volume descriptor lies.
const DESCRIPTOR: u64 = 16 * 2048;

/// The volume's label, when there is a volume.
///
/// # Errors
/// When the device cannot be read.
pub fn label<D: Read + Seek>(device: &mut D) -> io::Result<Option<String>> {
    let mut sector = [0; 2048];
    device.seek(SeekFrom::Start(DESCRIPTOR))?;
    match device.read_exact(&mut sector) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        done => done?,
    }
    if &sector[..7] != b"\x01CD001\x01" {
        return Ok(None);
    }
    let label = sector[40..72].iter().map(|&byte| char::from(byte)).collect::<String>();
    Ok(Some(label.trim_end_matches([' ', '\0']).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn volume(kind: &[u8], name: &[u8]) -> Cursor<Vec<u8>> {
        let mut bytes = vec![0; 17 * 2048];
        bytes[32768..32768 + kind.len()].copy_from_slice(kind);
        bytes[32808..32840].fill(b' ');
        bytes[32808..32808 + name.len()].copy_from_slice(name);
        Cursor::new(bytes)
    }

    #[test]
    fn a_label_is_read() {
        let mut disc = volume(b"\x01CD001\x01", b"BASTIDE");
        assert_eq!(label(&mut disc).unwrap().as_deref(), Some("BASTIDE"));
    }

    #[test]
    fn other_things_have_none() {
        assert_eq!(label(&mut volume(b"\x02CD001\x01", b"BASTIDE")).unwrap(), None);
        assert_eq!(label(&mut Cursor::new(vec![0; 100])).unwrap(), None);
        assert_eq!(label(&mut Cursor::new(vec![0xff; 40_000])).unwrap(), None);
    }
}
