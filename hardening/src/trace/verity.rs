// SPDX-License-Identifier: GPL-3.0-or-later
//! Recomputes a dm-verity root hash from the data (kernel: admin-guide/device-mapper/verity, hash format 1).
//!
//! The attacks: a superblock with impossible sizes; a hash tree that fits the root hash while the data does not. The defence:
//! only the one set of parameters that the build uses is accepted, and the tree is computed anew from the data: the stored
//! tree is not believed.

use std::io::{self, Write};

use signing::digest::{Hasher, Sha256};

const BLOCK: usize = 4096;
/// Digests in one block of the tree.
const FAN: usize = BLOCK / 32;

/// The parameters in a hash image's superblock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Superblock {
    salt: Vec<u8>,
    blocks: u64,
}

impl Superblock {
    /// Reads the first block of a hash image.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let number = |at: usize| {
            bytes
                .get(at..at + 8)
                .and_then(|b| b.try_into().ok())
                .map(u64::from_le_bytes)
                .unwrap_or_default()
        };
        let word = |at: usize| (number(at) & 0xffff_ffff) as u32;
        if bytes.len() < 512 || &bytes[..8] != b"verity\0\0" {
            return Err("it does not begin with a dm-verity superblock".to_owned());
        }
        let algorithm = bytes[32..64].split(|&byte| byte == 0).next().unwrap_or_default();
        if word(8) != 1 || word(12) != 1 || algorithm != b"sha256" || word(64) != 4096 || word(68) != 4096 {
            return Err(
                "its parameters are not those of our images (format 1, sha256, blocks of 4096 bytes)".to_owned(),
            );
        }
        let salt = usize::from(bytes[80]) | usize::from(bytes[81]) << 8;
        if salt > 256 {
            return Err("its salt is too long".to_owned());
        }
        Ok(Self {
            salt: bytes[88..88 + salt].to_vec(),
            blocks: number(72),
        })
    }
}

/// Takes in the data and gives the root hash. Memory holds one block a level.
pub(crate) struct Tree {
    salt: Vec<u8>,
    expected: u64,
    seen: u64,
    block: Vec<u8>,
    levels: Vec<Vec<u8>>,
}

impl Tree {
    pub(crate) fn new(superblock: &Superblock) -> Self {
        Self {
            salt: superblock.salt.clone(),
            expected: superblock.blocks,
            seen: 0,
            block: Vec::with_capacity(BLOCK),
            levels: Vec::new(),
        }
    }

    fn hash(&self, block: &[u8]) -> Sha256 {
        let mut hasher = Hasher::new();
        hasher.update(&self.salt);
        hasher.update(block);
        hasher.finish().0
    }

    fn push(&mut self, level: usize, digest: Sha256) {
        if self.levels.len() == level {
            self.levels.push(Vec::with_capacity(BLOCK));
        }
        if self.levels[level].len() == FAN * 32 {
            // The block is full and one more comes: it becomes a digest one level up.
            let full = std::mem::take(&mut self.levels[level]);
            let above = self.hash(&full);
            self.push(level + 1, above);
        }
        self.levels[level].extend(digest.0);
    }

    /// The root hash, or why there is none.
    pub(crate) fn finish(mut self) -> Result<Sha256, String> {
        if !self.block.is_empty() {
            return Err("the data does not end with a whole block".to_owned());
        }
        if self.seen != self.expected {
            return Err(format!(
                "the superblock speaks of {} blocks, the data has {}",
                self.expected, self.seen
            ));
        }
        let mut level = 0;
        loop {
            let Some(digests) = self.levels.get_mut(level).map(std::mem::take) else {
                return Err("there is no data".to_owned());
            };
            let mut block = digests;
            block.resize(BLOCK, 0);
            let digest = self.hash(&block);
            if level + 1 == self.levels.len() {
                return Ok(digest);
            }
            self.push(level + 1, digest);
            level += 1;
        }
    }
}

impl Write for Tree {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let take = (BLOCK - self.block.len()).min(rest.len());
            self.block.extend(&rest[..take]);
            rest = &rest[take..];
            if self.block.len() == BLOCK {
                let block = std::mem::take(&mut self.block);
                let digest = self.hash(&block);
                self.block = block;
                self.block.clear();
                self.push(0, digest);
                self.seen += 1;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A superblock as `veritysetup format` writes it.
    pub(crate) fn superblock(blocks: u64, salt: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        bytes[..6].copy_from_slice(b"verity");
        bytes[8] = 1;
        bytes[12] = 1;
        bytes[32..38].copy_from_slice(b"sha256");
        bytes[64..68].copy_from_slice(&4096_u32.to_le_bytes());
        bytes[68..72].copy_from_slice(&4096_u32.to_le_bytes());
        bytes[72..80].copy_from_slice(&blocks.to_le_bytes());
        bytes[80] = u8::try_from(salt.len()).unwrap();
        bytes[88..88 + salt.len()].copy_from_slice(salt);
        bytes
    }

    fn root(blocks: usize) -> String {
        let salt = [0xab; 32];
        let mut tree = Tree::new(&Superblock::parse(&superblock(blocks as u64, &salt)).unwrap());
        for number in 0..blocks {
            tree.write_all(&[(number % 251) as u8; BLOCK]).unwrap();
        }
        tree.finish().unwrap().to_string()
    }

    #[test]
    fn gives_the_hashes_that_veritysetup_gives() {
        // Recipe: blocks of equal bytes 0, 1, ... 250, 0, ...; `veritysetup format --salt=ab*32 data hash`.
        for (blocks, expected) in VECTORS {
            assert_eq!(root(*blocks), *expected, "{blocks} blocks");
        }
    }

    const VECTORS: &[(usize, &str)] = &[
        (2, "566b29324e44c5ef1704b1e0a46fb7d4e52f7d29acdfa35620b71e5c93ab3d22"),
        (128, "e80eab6ef027bcf3d0545a7ce3813aa4d773133efcfb2ec79e5d07165bea255b"),
        (129, "9dc25b527d37c03cd1db20c64a3a3355605133b98147936afc77f8440e580546"),
        (
            16384,
            "8f19996b491cbc9aaa301b1b58b8642c25cd1827da3a9e217a5c2829f7695192",
        ),
        (
            16385,
            "35d157821f7e47195ecfc2face27fc8a1618c0bd22c42ffc2b69a985e6478312",
        ),
        (
            17000,
            "550993bb84e1fe32a961bc45e115306698058403ee315a1b037ee426fcf1a3c5",
        ),
    ];

    #[test]
    fn foreign_parameters_and_short_data_are_refused() {
        let mut bytes = superblock(3, &[1; 8]);
        let superblock = Superblock::parse(&bytes).unwrap();
        assert!(Tree::new(&superblock).finish().is_err());
        bytes[8] = 0;
        assert!(Superblock::parse(&bytes).is_err());
        assert!(Superblock::parse(b"short").is_err());
    }
}
