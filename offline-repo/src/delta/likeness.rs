// SPDX-License-Identifier: GPL-3.0-or-later
//! Where in the bases stands what looks like a window of the new file.
//!
//! A gear hash over the last 64 bytes marks about one place in 256 by what stands there, wherever it moved. The chunks of the
//! bases that share the most marks with a window are what the window is compared with. Marks that stand twice tell nothing.

use std::collections::{BTreeSet, HashMap};
use std::io;

use super::Space;

/// The unit in which parts of the bases are chosen.
pub(super) const CHUNK: usize = 256 << 10;
/// The bits of a hash that are zero at a mark.
const MARK: u32 = 8;
/// A mark that stands in two places.
const TWICE: u32 = u32::MAX;

/// Marks of the bases, each with its chunk.
pub(super) struct Likeness {
    marks: HashMap<u64, u32>,
    chunks: u32,
}

impl Likeness {
    /// Reads the bases.
    pub(super) fn of(space: &Space<'_>) -> io::Result<Self> {
        let mut marks = HashMap::new();
        let mut gear = Gear::new();
        let mut block = vec![0; CHUNK];
        let chunks = u32::try_from(space.length().div_ceil(CHUNK as u64)).map_err(io::Error::other)?;
        for chunk in 0..chunks {
            let block = &mut block[..length_of(chunk, space.length())];
            space.read_exact_at(block, u64::from(chunk) * CHUNK as u64)?;
            gear.marks(block, |mark| {
                let known = marks.entry(mark).or_insert(chunk);
                if *known != chunk {
                    *known = TWICE;
                }
            });
        }
        Ok(Self { marks, chunks })
    }

    /// The chunks that are most like a window, with their neighbours, and about `most` of them.
    pub(super) fn chunks(&self, window: &[u8], most: usize) -> BTreeSet<u32> {
        let mut shared: HashMap<u32, u32> = HashMap::new();
        Gear::new().marks(window, |mark| {
            if let Some(chunk) = self.marks.get(&mark).filter(|chunk| **chunk != TWICE) {
                *shared.entry(*chunk).or_default() += 1;
            }
        });
        let mut ranked: Vec<(u32, u32)> = shared.into_iter().map(|(chunk, count)| (count, chunk)).collect();
        ranked.sort_unstable_by(|one, other| other.cmp(one));
        let mut chosen = BTreeSet::new();
        for (_, chunk) in ranked {
            if chosen.len() >= most {
                break;
            }
            chosen.extend((chunk.saturating_sub(1)..=chunk + 1).filter(|chunk| *chunk < self.chunks));
        }
        chosen
    }
}

/// The length of a chunk; only the last one is shorter.
pub(super) fn length_of(chunk: u32, all: u64) -> usize {
    let left = all - u64::from(chunk) * CHUNK as u64;
    usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK)
}

/// A hash that rolls: each byte is shifted out after 64 more.
struct Gear {
    table: [u64; 256],
    hash: u64,
}

impl Gear {
    fn new() -> Self {
        // Any numbers do that have their bits well mixed; the multipliers are those of splitmix64.
        let mixed = |index: usize| {
            let mut number = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            number ^ (number >> 31)
        };
        Self {
            table: std::array::from_fn(mixed),
            hash: 0,
        }
    }

    fn marks(&mut self, bytes: &[u8], mut found: impl FnMut(u64)) {
        for byte in bytes {
            self.hash = (self.hash << 1).wrapping_add(self.table[usize::from(*byte)]);
            if self.hash >> (u64::BITS - MARK) == 0 {
                found(self.hash);
            }
        }
    }
}
