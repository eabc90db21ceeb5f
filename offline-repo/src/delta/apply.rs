// SPDX-License-Identifier: GPL-3.0-or-later
//! Reads what a delta makes, one block in memory.

use std::io::{self, Read};

use super::{BLOCK, Held, LARGEST_CONTROL, LARGEST_LIST, List, MAGIC, MOST_BASES, Space, take, unzigzag};

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the delta is damaged: {why}"))
}

/// Reads the list at the begin of a delta.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] when it is none; else when it cannot be read.
pub fn list(from: &mut dyn Read) -> io::Result<List> {
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic)?;
    if magic != *MAGIC {
        return Err(damaged("it does not begin like one"));
    }
    let length = number(from)?;
    if length > LARGEST_LIST {
        return Err(damaged("its list is too long"));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    let list: List = serde_json::from_slice(&bytes).map_err(|error| damaged(&error.to_string()))?;
    if list.bases.len() > MOST_BASES {
        return Err(damaged("it has too many bases"));
    }
    Ok(list)
}

fn number(from: &mut dyn Read) -> io::Result<usize> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    usize::try_from(u32::from_le_bytes(bytes)).map_err(io::Error::other)
}

/// What a delta makes, as a reader.
pub struct Patched<'a, R> {
    /// The delta, behind its list.
    from: R,
    space: Space<'a>,
    /// Bytes that are still to be made.
    left: u64,
    block: Vec<u8>,
    /// How much of the block was given.
    given: usize,
}

impl<'a, R: Read> Patched<'a, R> {
    /// Reads what `from`, behind its list, makes of the bases that the list names, held in its order.
    #[must_use]
    pub fn new(from: R, list: &List, held: &[&'a Held]) -> Self {
        Self {
            from,
            space: Space::new(held.iter().copied().zip(list.bases.iter().map(|base| base.length))),
            left: list.length,
            block: Vec::new(),
            given: 0,
        }
    }

    fn next(&mut self) -> io::Result<()> {
        self.given = 0;
        self.block.clear();
        if self.left == 0 {
            return match self.from.read(&mut [0])? {
                0 => Ok(()),
                _ => Err(damaged("there is more behind its end")),
            };
        }
        let (makes, control, taken) = (
            number(&mut self.from)?,
            number(&mut self.from)?,
            number(&mut self.from)?,
        );
        if makes == 0 || makes > BLOCK || makes as u64 > self.left || control > LARGEST_CONTROL || taken > makes {
            return Err(damaged("a block cannot have these lengths"));
        }
        let mut read = |length: usize| {
            let mut bytes = vec![0; length];
            self.from.read_exact(&mut bytes).map(|()| bytes)
        };
        let (control, differences, new) = (read(control)?, read(taken)?, read(makes - taken)?);
        self.block.resize(makes, 0);
        fill(&mut self.block, &control, &differences, &new, &self.space)?;
        self.left -= makes as u64;
        Ok(())
    }
}

/// Follows the control of a block.
fn fill(
    mut block: &mut [u8],
    mut control: &[u8],
    mut differences: &[u8],
    mut new: &[u8],
    space: &Space<'_>,
) -> io::Result<()> {
    let cut = || damaged("a block is not what it says");
    let mut end = 0_u64;
    while !control.is_empty() {
        let mut next = || take(&mut control).ok_or_else(cut);
        let (taken, fresh, distance) = (next()?, next()?, unzigzag(next()?));
        let (taken, fresh) = (
            usize::try_from(taken).map_err(|_| cut())?,
            usize::try_from(fresh).map_err(|_| cut())?,
        );
        let offset = end.checked_add_signed(distance).ok_or_else(cut)?;
        end = offset
            .checked_add(taken as u64)
            .filter(|end| *end <= space.length())
            .ok_or_else(cut)?;
        let (bytes, rest) = block.split_at_mut_checked(taken).ok_or_else(cut)?;
        let (added, left) = differences.split_at_checked(taken).ok_or_else(cut)?;
        space.read_exact_at(bytes, offset)?;
        for (byte, difference) in bytes.iter_mut().zip(added) {
            *byte = byte.wrapping_add(*difference);
        }
        differences = left;
        let (bytes, rest) = rest.split_at_mut_checked(fresh).ok_or_else(cut)?;
        let (copied, left) = new.split_at_checked(fresh).ok_or_else(cut)?;
        bytes.copy_from_slice(copied);
        new = left;
        block = rest;
    }
    // The lengths add up, so nothing is left of the others when nothing of the block is.
    if block.is_empty() { Ok(()) } else { Err(cut()) }
}

impl<R: Read> Read for Patched<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.given == self.block.len() {
            self.next()?;
        }
        let count = bytes.len().min(self.block.len() - self.given);
        bytes[..count].copy_from_slice(&self.block[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}
