// SPDX-License-Identifier: GPL-3.0-or-later
//! Makes a delta. On whichever side of the gap: what is read here was verified, and what is written proves itself.

use std::convert::Infallible;
use std::io::{self, Write};

use bidiff::{DiffParams, Match};
use rayon::prelude::*;

use super::likeness::{CHUNK, Likeness, length_of};
use super::{BLOCK, Base, Held, List, MAGIC, Space, put, zigzag};

/// How many bytes of the bases a block is compared with, about.
const COMPARED: usize = 3 * BLOCK;

/// Writes the delta that makes the first `length` bytes of `new` of these bases. `tell` is called with bytes done.
///
/// Some 100 MB of memory for each core, and 20 bytes for each 256 of the bases.
///
/// # Errors
/// When something cannot be read or written.
pub fn make(
    bases: &[(Base, Held)],
    new: &Held,
    length: u64,
    to: &mut dyn Write,
    tell: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let list = List {
        length,
        bases: bases.iter().map(|(base, _)| base.clone()).collect(),
    };
    let list = serde_json::to_vec(&list)?;
    to.write_all(MAGIC)?;
    to.write_all(&u32::try_from(list.len()).map_err(io::Error::other)?.to_le_bytes())?;
    to.write_all(&list)?;
    let space = Space::new(bases.iter().map(|(base, held)| (held, base.length)));
    let likeness = Likeness::of(&space)?;
    let starts: Vec<u64> = (0..length).step_by(BLOCK).collect();
    // As many at once as there are cores, and one more for each while one waits for another.
    for round in starts.chunks(2 * rayon::current_num_threads()) {
        let blocks: Vec<io::Result<Vec<u8>>> = round
            .par_iter()
            .map(|start| {
                let count = usize::try_from(length - start).unwrap_or(usize::MAX).min(BLOCK);
                let mut window = vec![0; count];
                new.read_exact_at(&mut window, *start)?;
                block(&window, &likeness, &space)
            })
            .collect();
        for (start, block) in round.iter().zip(blocks) {
            to.write_all(&block?)?;
            tell((start + BLOCK as u64).min(length));
        }
    }
    Ok(())
}

/// The block that makes a window.
fn block(window: &[u8], likeness: &Likeness, space: &Space<'_>) -> io::Result<Vec<u8>> {
    let dictionary = Dictionary::of(window, likeness, space)?;
    let mut made = Made::default();
    if dictionary.bytes.is_empty() {
        made.fresh(window);
    } else {
        let add = |found: Match| -> Result<(), Infallible> {
            let copied = found.copy_start();
            dictionary.take(&mut made, &window[found.add_new_start..copied], found.add_old_start);
            made.fresh(&window[copied..found.copy_end]);
            Ok(())
        };
        bidiff::diff(&dictionary.bytes, window, &DiffParams::default(), add).unwrap_or_else(|never| match never {});
    }
    made.finish(window.len())
}

/// The parts of the bases that a window is compared with.
struct Dictionary {
    bytes: Vec<u8>,
    /// Runs: where each begins here, and where in the bases.
    runs: Vec<(usize, u64)>,
}

impl Dictionary {
    fn of(window: &[u8], likeness: &Likeness, space: &Space<'_>) -> io::Result<Self> {
        let mut this = Self {
            bytes: Vec::new(),
            runs: Vec::new(),
        };
        let mut before = None;
        for chunk in likeness.chunks(window, COMPARED / CHUNK) {
            let (begin, offset) = (this.bytes.len(), u64::from(chunk) * CHUNK as u64);
            if before.is_none_or(|before| before + 1 != chunk) {
                this.runs.push((begin, offset));
            }
            before = Some(chunk);
            this.bytes.resize(begin + length_of(chunk, space.length()), 0);
            space.read_exact_at(&mut this.bytes[begin..], offset)?;
        }
        Ok(this)
    }

    /// Takes what stands from `start` on, cut where two runs meet.
    fn take(&self, made: &mut Made, mut wanted: &[u8], mut start: usize) {
        while !wanted.is_empty() {
            let next = self.runs.partition_point(|(begin, _)| *begin <= start);
            let (begin, offset) = self.runs[next - 1];
            let end = self.runs.get(next).map_or(self.bytes.len(), |(begin, _)| *begin);
            let (now, later) = wanted.split_at(wanted.len().min(end - start));
            made.taken(
                now,
                &self.bytes[start..start + now.len()],
                offset + (start - begin) as u64,
            );
            start += now.len();
            wanted = later;
        }
    }
}

/// A block as it grows.
#[derive(Default)]
struct Made {
    control: Vec<u8>,
    differences: Vec<u8>,
    new: Vec<u8>,
    /// Where the last taken bytes end in the bases.
    end: u64,
    /// What was taken and has no new bytes yet: its number, and where it begins.
    open: Option<(u64, u64)>,
}

impl Made {
    fn taken(&mut self, wanted: &[u8], held: &[u8], offset: u64) {
        self.close(0);
        self.differences
            .extend(wanted.iter().zip(held).map(|(new, old)| new.wrapping_sub(*old)));
        self.open = Some((wanted.len() as u64, offset));
    }

    fn fresh(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.new.extend_from_slice(bytes);
            self.open.get_or_insert((0, self.end));
            self.close(bytes.len() as u64);
        }
    }

    fn close(&mut self, new: u64) {
        if let Some((count, offset)) = self.open.take() {
            put(&mut self.control, count);
            put(&mut self.control, new);
            put(&mut self.control, zigzag(offset.wrapping_sub(self.end) as i64));
            self.end = offset + count;
        }
    }

    fn finish(mut self, makes: usize) -> io::Result<Vec<u8>> {
        self.close(0);
        let mut block = Vec::new();
        for length in [makes, self.control.len(), self.differences.len()] {
            block.extend(u32::try_from(length).map_err(io::Error::other)?.to_le_bytes());
        }
        for part in [self.control, self.differences, self.new] {
            block.extend(part);
        }
        Ok(block)
    }
}
