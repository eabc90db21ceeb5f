// SPDX-License-Identifier: GPL-3.0-or-later
//! A delta: how one file is made of others that the receiver holds, its bases.
//!
//! Not compressed (a bundle carries it as zstd frames) it is [`MAGIC`], the length of the list in bytes as `u32`, the list as
//! JSON ([`List`]), and blocks, each of at most [`BLOCK`] bytes of the new file. A block begins with three `u32`: how many bytes
//! it makes, how many bytes of control it has, how many bytes it takes from the bases. Then follow the control, the
//! differences, and the bytes that are new. The control is triples of LEB128 numbers: take so many bytes, then so many new
//! ones; where in the bases, one behind the other, the taken ones begin, as a signed distance from the end of those before.
//! Each taken byte has its difference added modulo 256. All numbers are little-endian. This is bsdiff (Percival, *Naive
//! differences of executable code*, 2003) block by block: the maker sorts a few megabytes at a time, the receiver holds one
//! block.
//!
//! Attacks: a delta that makes other bytes than the target has; one that grows without end; positions outside the bases; a
//! list without end; a base that is another, or was altered.
//! Defence: nothing rests on a delta. What it makes is read through the TUF client, which stops at the signed length and
//! compares the signed digest. Every length is bounded before memory is taken, sums are checked, and a base is hashed before
//! the first byte is made of it, so that the wrong one is noticed before anything is written.

mod apply;
mod likeness;
mod make;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};
use signing::digest::{Hasher, Sha256};

pub use apply::{Patched, list};
pub use make::make;

/// The first bytes.
pub const MAGIC: &[u8; 16] = b"bastide delta 1\n";
/// The most bytes that a block makes.
pub const BLOCK: usize = 4 << 20;
/// The most bytes of control that a block has: a triple of three bytes makes at least one.
const LARGEST_CONTROL: usize = 4 * BLOCK;
/// The longest list.
const LARGEST_LIST: usize = 64 << 10;
/// The most bases.
const MOST_BASES: usize = 4;

/// What a delta rests on and what it makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The length of what it makes, in bytes.
    pub length: u64,
    /// What it is made of, in this order.
    pub bases: Vec<Base>,
}

/// A file that the receiver has to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// Its path as a target, such as `host/1.0.0/<sha256>.root.erofs`.
    pub path: String,
    /// Its length in bytes.
    pub length: u64,
    /// Its digest.
    pub sha256: Sha256,
}

/// Bytes that are read at any place.
#[derive(Debug)]
pub enum Held {
    /// A file or a device, of which the first bytes are meant.
    File(File),
    /// Bytes in memory.
    Memory(Vec<u8>),
}

impl Held {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(bytes, offset),
            Self::Memory(memory) => {
                let from = usize::try_from(offset).ok().and_then(|offset| memory.get(offset..));
                match from.and_then(|from| from.get(..bytes.len())) {
                    Some(from) => bytes.copy_from_slice(from),
                    None => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
                Ok(())
            }
        }
    }

    /// Whether its first bytes are this base.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is(&self, base: &Base) -> io::Result<bool> {
        let mut hasher = Hasher::new();
        let mut block = vec![0; 1 << 20];
        let mut offset = 0;
        while offset < base.length {
            let count = block
                .len()
                .min(usize::try_from(base.length - offset).unwrap_or(usize::MAX));
            match self.read_exact_at(&mut block[..count], offset) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                read => read?,
            }
            hasher.update(&block[..count]);
            offset += count as u64;
        }
        Ok(hasher.finish().0 == base.sha256)
    }
}

/// Bases one behind the other, as one run of bytes.
#[derive(Debug)]
struct Space<'a> {
    /// Each with where it ends.
    held: Vec<(&'a Held, u64)>,
}

impl<'a> Space<'a> {
    fn new(held: impl IntoIterator<Item = (&'a Held, u64)>) -> Self {
        let mut end = 0_u64;
        let ends = held.into_iter().map(|(held, length)| {
            end = end.saturating_add(length);
            (held, end)
        });
        Self { held: ends.collect() }
    }

    fn length(&self) -> u64 {
        self.held.last().map_or(0, |(_, end)| *end)
    }

    fn read_exact_at(&self, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
        let mut start = 0;
        for (held, end) in &self.held {
            if bytes.is_empty() {
                break;
            }
            if offset < *end {
                let here = usize::try_from(*end - offset).unwrap_or(usize::MAX).min(bytes.len());
                let (now, later) = bytes.split_at_mut(here);
                held.read_exact_at(now, offset - start)?;
                offset += here as u64;
                bytes = later;
            }
            start = *end;
        }
        match bytes.is_empty() {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Writes a number as LEB128.
fn put(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// Takes a LEB128 number off the front.
fn take(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// A signed distance as a number: small ones stay small.
const fn zigzag(distance: i64) -> u64 {
    ((distance << 1) ^ (distance >> 63)) as u64
}

const fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests;
