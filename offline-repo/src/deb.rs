// SPDX-License-Identifier: GPL-3.0-or-later
//! A package (deb(5)): an ar archive with a packed tar archive, out of which its Debian changelog is taken.
//!
//! Attacks: a member that unpacks without end, or wants gigabytes of memory to be unpacked (xz dictionaries, zstd windows);
//! a tar archive without end, of headers alone or with a size that lies; a GNU long name of gigabytes; a link in the
//! changelog's place; a changelog without end; a header that was altered; a cut file.
//! Defence: nothing is unpacked to disk and no name is used as a path. Unpacked bytes, the memory of the unpackers, members,
//! names and the changelog are bounded; a link is not followed; each tar header's checksum is compared; a kind of member
//! that dpkg does not write is an error.
//! Not defended: two changelogs under one name; the first one is read.

use std::io::{self, BufRead, BufReader, Read};

use anyhow::{Context, Result, bail, ensure};
use flate2::bufread::GzDecoder;
use liblzma::read::XzDecoder;
use liblzma::stream::Stream;

use crate::changelog::LARGEST_PACKED;
use crate::tarindex::{checksum_holds, octal};

/// The most that the files of a package unpack to; Debian's largest has 2 GB.
const UNPACKED: u64 = 4 << 30;
/// The most memory that xz may take; a dictionary of `xz -9` takes 65 MiB.
const XZ_MEMORY: u64 = 128 << 20;
/// The largest window of zstd, as a power of two: 128 MiB.
const ZSTD_WINDOW: u32 = 27;
/// The most members of the outer archive; Debian's has three.
const MOST_PARTS: usize = 16;
/// The most members of the inner archive.
const MOST_MEMBERS: usize = 1 << 18;
/// The longest name (PATH_MAX).
const LONGEST_NAME: u64 = 4096;

/// The packed changelog of a package of this name: `changelog.Debian.gz`, or in a native package `changelog.gz`. Nothing
/// where it has none of its own: often its documentation is a link to that of another package.
///
/// # Errors
/// When it cannot be read, is no package, or breaks a bound.
pub fn changelog(file: &mut dyn Read, package: &str) -> Result<Option<Vec<u8>>> {
    let mut file = BufReader::with_capacity(1 << 16, file);
    let mut magic = [0; 8];
    file.read_exact(&mut magic).context("it was cut off")?;
    ensure!(&magic == b"!<arch>\n", "it is no package: no ar archive");
    for _ in 0..MOST_PARTS {
        let mut header = [0; 60];
        file.read_exact(&mut header)
            .context("it is no package: it has no data.tar")?;
        ensure!(&header[58..] == b"`\n", "it is no package: a header of its ar is none");
        let name = String::from_utf8_lossy(&header[..16]).trim_end().to_owned();
        let size = std::str::from_utf8(&header[48..58])?.trim_end().parse::<u64>();
        let size = size.context("it is no package: a size in its ar is no number")?;
        // A name may end with a slash, as GNU ar writes it.
        let Some(packing) = name.trim_end_matches('/').strip_prefix("data.tar") else {
            let skipped = io::copy(&mut (&mut file).take(size + size % 2), &mut io::sink())?;
            ensure!(skipped == size + size % 2, "it was cut off");
            continue;
        };
        let mut data = (&mut file).take(size);
        return match packing {
            "" => find(&mut data, package),
            ".gz" => find(&mut GzDecoder::new(data), package),
            ".xz" => {
                let stream = Stream::new_stream_decoder(XZ_MEMORY, 0).context("cannot start xz")?;
                find(&mut XzDecoder::new_stream(data, stream), package)
            }
            ".zst" => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(data)?;
                decoder.window_log_max(ZSTD_WINDOW)?;
                find(&mut decoder, package)
            }
            other => bail!("its files are packed as {other:?}, which this program cannot unpack"),
        };
    }
    bail!("it is no package: its ar has more than {MOST_PARTS} members")
}

/// Looks for the changelog in the inner archive, up to the better of the two names.
fn find(tar: &mut dyn Read, package: &str) -> Result<Option<Vec<u8>>> {
    let mut tar = BufReader::with_capacity(1 << 16, tar.take(UNPACKED));
    let place = format!("usr/share/doc/{package}/");
    let (mut native, mut long) = (None, None);
    for _ in 0..MOST_MEMBERS {
        let mut header = [0; 512];
        tar.read_exact(&mut header)
            .context("the list of its files was cut off, or has no end")?;
        if header.iter().all(|byte| *byte == 0) {
            return Ok(native);
        }
        ensure!(checksum_holds(&header), "a header in the list of its files was altered");
        let size = octal(&header[124..136]).context("the size of one of its files is no number")?;
        let padded = size
            .checked_next_multiple_of(512)
            .filter(|padded| *padded <= UNPACKED)
            .context("the size of one of its files lies")?;
        let rest = padded - size;
        match header[156] {
            b'L' => {
                ensure!(size <= LONGEST_NAME, "a name in it is longer than {LONGEST_NAME} bytes");
                let mut name = take(&mut tar, size)?;
                name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
                long = Some(name);
                pass(&mut tar, rest)?;
                continue;
            }
            // The target of a link, which is not followed.
            b'K' => {
                pass(&mut tar, padded)?;
                continue;
            }
            b'0'..=b'6' | 0 => {}
            other => bail!(
                "it holds a member of the kind {:?}, which dpkg does not write",
                other as char
            ),
        }
        let name = long.take().unwrap_or_else(|| short_name(&header));
        let name = name.strip_prefix(b"./").unwrap_or(&name);
        let ours = name.strip_prefix(place.as_bytes());
        let regular = matches!(header[156], b'0' | 0);
        match ours {
            Some(b"changelog.Debian.gz") if regular => return changelog_of(&mut tar, size).map(Some),
            Some(b"changelog.gz") if regular && native.is_none() => {
                native = Some(changelog_of(&mut tar, size)?);
                pass(&mut tar, rest)?;
            }
            _ => pass(&mut tar, padded)?,
        }
    }
    bail!("it has more than {MOST_MEMBERS} files")
}

fn changelog_of(tar: &mut impl BufRead, size: u64) -> Result<Vec<u8>> {
    ensure!(
        size <= LARGEST_PACKED,
        "its changelog has {size} bytes, more than {LARGEST_PACKED}"
    );
    take(tar, size)
}

fn take(tar: &mut impl BufRead, size: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    tar.take(size).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 == size, "one of its files was cut off");
    Ok(bytes)
}

fn pass(tar: &mut impl BufRead, size: u64) -> Result<()> {
    let passed = io::copy(&mut tar.take(size), &mut io::sink())?;
    ensure!(
        passed == size,
        "one of its files was cut off, or it unpacks without end"
    );
    Ok(())
}

fn short_name(header: &[u8; 512]) -> Vec<u8> {
    let text = |field: &[u8]| {
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        field[..end].to_vec()
    };
    let name = text(&header[..100]);
    match text(&header[345..500]) {
        prefix if &header[257..263] == b"ustar\0" && !prefix.is_empty() => [&prefix[..], b"/", &name].concat(),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A package whose data.tar is this, packed so.
    fn deb(packing: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"!<arch>\n".to_vec();
        for (name, content) in [("debian-binary", &b"2.0\n"[..]), (packing, data)] {
            bytes.extend(
                format!(
                    "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
                    0,
                    0,
                    0,
                    100_644,
                    content.len()
                )
                .bytes(),
            );
            bytes.extend(content);
            bytes.extend(vec![b'\n'; content.len() % 2]);
        }
        bytes
    }

    fn header(name: &str, kind: u8, size: u64) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    fn why(bytes: &[u8]) -> String {
        match changelog(&mut &*bytes, "x") {
            Err(error) => format!("{error:#}"),
            Ok(found) => panic!("read: {found:?}"),
        }
    }

    const PLACE: &str = "./usr/share/doc/x/changelog.Debian.gz";

    #[test]
    fn what_is_no_package_is_an_error() {
        let good = deb("data.tar", &[header(PLACE, b'0', 0), vec![0; 1024]].concat());
        assert_eq!(changelog(&mut &good[..], "x").unwrap(), Some(Vec::new()));
        for cut in [0, 7, 30, 70, 100, 200] {
            why(&good[..cut]);
        }
        for (bytes, reason) in [
            (b"no archive".to_vec(), "no ar archive"),
            (deb("data.tar.bz2", b""), "cannot unpack"),
            (deb("control.tar", b""), "has no data.tar"),
            (deb("data.tar.xz", b"no xz"), "cut off"),
        ] {
            let said = why(&bytes);
            assert!(said.contains(reason), "{reason}: {said}");
        }
        let parts = [&b"!<arch>\n"[..], &deb("x", b"")[8..].repeat(20)].concat();
        assert!(why(&parts).contains("more than 16 members"));
    }

    /// The recipes: what a hostile tar archive does to its reader.
    #[test]
    fn hostile_lists_of_files_are_errors() {
        let mut altered = header(PLACE, b'0', 0);
        altered[0] = b'x';
        let mut base256 = tar::Header::new_gnu();
        base256.as_mut_bytes()[124] = 0x80;
        base256.set_cksum();
        for (tar, reason) in [
            (header("x", b'0', UNPACKED + 1), "lies"),
            (header("x", b'L', 1 << 30), "a name in it is longer"),
            (header(PLACE, b'0', LARGEST_PACKED + 1), "its changelog has"),
            (header("x", b'x', 0), "does not write"),
            (header("x", b'0', 512), "cut off"),
            (altered, "was altered"),
            (base256.as_bytes().to_vec(), "no number"),
            (header("x", b'0', 0).repeat(3), "has no end"),
        ] {
            let said = why(&deb("data.tar", &tar));
            assert!(said.contains(reason), "{reason}: {said}");
        }
        // A link in the changelog's place is passed over.
        let linked = deb("data.tar", &[header(PLACE, b'2', 0), vec![0; 1024]].concat());
        assert_eq!(changelog(&mut &linked[..], "x").unwrap(), None);
    }

    /// The recipes: members without end, as few bytes; an xz stream that wants more memory than it may have.
    #[test]
    fn bombs_are_stopped() {
        let many = header("x", b'0', 0).repeat(1024);
        let mut packed = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        for _ in 0..=MOST_MEMBERS / 1024 {
            packed.write_all(&many).unwrap();
        }
        let said = why(&deb("data.tar.zst", &packed.finish().unwrap()));
        assert!(said.contains("more than"), "{said}");
        let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
        options.dict_size(256 << 20);
        let mut filters = liblzma::stream::Filters::new();
        filters.lzma2(&options);
        let stream = Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc32).unwrap();
        let mut packed = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        packed.write_all(&header(PLACE, b'0', 0)).unwrap();
        let said = why(&deb("data.tar.xz", &packed.finish().unwrap()));
        assert!(said.to_lowercase().contains("memory"), "{said}");
    }
}
