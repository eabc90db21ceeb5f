// SPDX-License-Identifier: GPL-3.0-or-later
//! Whose trust directory a build's root file system carries.
//!
//! Attack faced: a build that was made for another site, or handed over altered, and would be signed by this one: its hosts
//! would boot and then believe somebody else's releases. Defence: the image must have the digest of the build's facts, and
//! hold every file of the site's trust directory byte for byte; it is stored uncompressed, each file's blocks in one piece.
//! Read once, in blocks. Defence not made: the file system is not taken apart, so an image that carries both directories
//! passes here. Who can make such a build can change its programs as well.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use signing::digest;
use signing::output::Refused;
use signing::release::{Part, Release};
use signing::site::{Site, Trust};

/// The file system keeps this much of a file in one piece.
const PIECE: usize = 4096;
/// No file of a trust directory is near this long.
const LARGEST: u64 = 1 << 20;

/// Verifies that the build's root file system is whole, and carries the site's own trust directory.
///
/// # Errors
/// [`Refused`] when it is another site's, or the image is not that of the build's facts; else when a file cannot be read.
pub fn check(build: &Path, release: &Release, site: &Site) -> Result<()> {
    let place = build.join(Part::Root.file());
    let read = || format!("cannot read {}", place.display());
    let Some(part) = release.parts.iter().find(|part| part.part == Part::Root) else {
        bail!("{} lists no {}: build again", build.display(), Part::Root.file());
    };
    let mut search = Search {
        needles: needles(&site.trust_dir())?,
        window: Vec::new(),
    };
    let mut file = File::open(&place).with_context(read)?;
    let found = digest::copy(&mut file, &mut search).with_context(read)?;
    if found != (part.sha256, part.size) {
        bail!(Refused(format!(
            "{} is not what release.json says: the build was altered, so build again",
            place.display()
        )));
    }
    if let Some(lacking) = search.needles.iter().find(|needle| !needle.found) {
        bail!(Refused(format!(
            "{} carries another trust directory than that of the site {} (its {} is not in it): build again with --trust {}",
            place.display(),
            site.facts().name,
            lacking.name,
            site.trust_dir().display()
        )));
    }
    Ok(())
}

fn needles(trust: &Path) -> Result<Vec<Needle>> {
    let mut needles = Vec::new();
    for name in Trust::FILES {
        let path = trust.join(name);
        let bytes = digest::read_bounded(&path, LARGEST).with_context(|| format!("cannot read {}", path.display()))?;
        needles.extend(bytes.chunks(PIECE).map(|piece| Needle::new(name, piece)));
    }
    Ok(needles)
}

/// A piece of a file that is searched for, with the table of Boyer, Moore and Horspool: how far to go on where the window
/// ends in this byte.
struct Needle {
    name: &'static str,
    bytes: Vec<u8>,
    skip: [usize; 256],
    found: bool,
}

impl Needle {
    fn new(name: &'static str, piece: &[u8]) -> Self {
        let mut skip = [piece.len(); 256];
        for (at, byte) in piece.iter().enumerate().take(piece.len().saturating_sub(1)) {
            skip[usize::from(*byte)] = piece.len() - 1 - at;
        }
        Self {
            name,
            bytes: piece.to_vec(),
            skip,
            found: piece.is_empty(),
        }
    }

    fn is_in(&self, window: &[u8]) -> bool {
        let mut at = 0;
        while let Some(piece) = window.get(at..at + self.bytes.len()) {
            if piece == self.bytes {
                return true;
            }
            at += piece.last().map_or(1, |last| self.skip[usize::from(*last)]);
        }
        false
    }
}

/// What is written is searched, across the borders of the writes.
struct Search {
    needles: Vec<Needle>,
    window: Vec<u8>,
}

impl Write for Search {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.window.extend_from_slice(bytes);
        for needle in self.needles.iter_mut().filter(|needle| !needle.found) {
            needle.found = needle.is_in(&self.window);
        }
        let kept = self.window.len().saturating_sub(PIECE);
        self.window.drain(..kept);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_found_wherever_it_lies() {
        let needle = Needle::new("x", b"needle");
        for text in ["needle", "a needle", "needleneedl", "nneedle", "neeneedle in hay"] {
            assert!(needle.is_in(text.as_bytes()), "{text}");
        }
        for text in ["", "needl", "eedle", "n e e d l e", "neddle needlE"] {
            assert!(!needle.is_in(text.as_bytes()), "{text}");
        }
        assert!(Needle::new("one", b"x").is_in(b"aax") && !Needle::new("one", b"x").is_in(b"aaa"));
    }

    #[test]
    fn a_piece_across_two_writes_is_found() {
        let piece: Vec<u8> = (0..PIECE).map(|at| u8::try_from(at % 251).unwrap()).collect();
        for border in [1, 100, PIECE - 1, PIECE, PIECE + 1] {
            let mut search = Search {
                needles: vec![Needle::new("x", &piece)],
                window: Vec::new(),
            };
            let hay = [vec![7; 5000], piece.clone(), vec![7; 5000]].concat();
            let (one, other) = hay.split_at(5000 + border);
            search.write_all(one).unwrap();
            search.write_all(other).unwrap();
            assert!(search.needles[0].found, "{border}");
        }
    }
}
