// SPDX-License-Identifier: GPL-3.0-or-later
//! The head of a dm-verity hash tree (Linux `Documentation/admin-guide/device-mapper/verity.rst`, cryptsetup's superblock).
//!
//! Attacks faced: a hash tree of another image, or changed. dm-verity answers that with a panic at the first read, which is right
//! for a block that rots later and wrong for a medium that is simply not ours. Defence: the top of the tree is compared with the
//! root hash before the tree is used, so that a foreign one is passed over with a line of its own. Everything below stays
//! dm-verity's work.

use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result};
use signing::digest::{Hasher, Sha256};
use signing::process::Cmd;

use crate::layout;

/// Both blocks, of the data and of the tree.
const BLOCK: usize = 4096;

/// Whether a hash device's tree is the one of this root hash. Anything that is not such a tree is not.
///
/// # Errors
/// When the device cannot be read.
pub fn is_tree_of<D: Read>(device: &mut D, root_hash: &Sha256) -> io::Result<bool> {
    // The superblock fills the first block; the top of the tree is the second.
    let mut head = vec![0; 2 * BLOCK];
    match device.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        done => done?,
    }
    let number = |at: usize, length: usize| {
        head[at..at + length]
            .iter()
            .rev()
            .fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let salt = number(80, 2);
    let ours = head.starts_with(b"verity\0\0")
        && number(8, 4) == 1
        && number(12, 4) == 1
        && head[32..64] == *b"sha256\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
        && number(64, 4) == BLOCK
        && number(68, 4) == BLOCK
        && salt <= 256;
    if !ours {
        return Ok(false);
    }
    let mut hasher = Hasher::new();
    hasher.update(&head[88..88 + salt]);
    hasher.update(&head[BLOCK..]);
    Ok(hasher.finish().0 == *root_hash)
}

/// Opens the verified device under the root file system.
///
/// # Errors
/// When veritysetup fails.
pub fn open(data: &Path, tree: &Path, root_hash: &Sha256) -> Result<()> {
    Cmd::new("veritysetup")
        .arg("open")
        .arg("--panic-on-corruption")
        .arg(data)
        .arg(layout::ROOT_MAPPING)
        .arg(tree)
        .arg(root_hash.to_string())
        // There is no udev that would make the node or answer.
        .env("DM_DISABLE_UDEV", "1")
        .run()
        .with_context(|| {
            format!(
                "cannot verify the root file system on {} with the hash tree on {}",
                data.display(),
                tree.display()
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A tree made by veritysetup, and its root hash; `None` where veritysetup is not installed.
    fn tree() -> Option<(Vec<u8>, Sha256)> {
        let directory = tempfile::tempdir().unwrap();
        let (data, hash) = (directory.path().join("data"), directory.path().join("hash"));
        fs::write(&data, vec![7; 1 << 20]).unwrap();
        let output = Cmd::new("veritysetup")
            .args(["format", "--salt", "0123456789abcdef"])
            .args([&data, &hash])
            .output()
            .ok()?;
        let text = String::from_utf8(output).unwrap();
        let root = text.lines().find_map(|line| line.strip_prefix("Root hash:")).unwrap();
        Some((fs::read(&hash).unwrap(), root.trim().parse().unwrap()))
    }

    /// As veritysetup lays it out, made by hand: a tree of one block.
    fn handmade() -> (Vec<u8>, Sha256) {
        let mut bytes = vec![0; 2 * BLOCK];
        bytes[..8].copy_from_slice(b"verity\0\0");
        bytes[8] = 1;
        bytes[12] = 1;
        bytes[32..38].copy_from_slice(b"sha256");
        bytes[65] = 0x10;
        bytes[69] = 0x10;
        bytes[80] = 4;
        bytes[88..92].copy_from_slice(b"salt");
        bytes[BLOCK..].fill(9);
        let mut hasher = Hasher::new();
        hasher.update(b"salt");
        hasher.update(&bytes[BLOCK..]);
        (bytes, hasher.finish().0)
    }

    #[test]
    fn a_tree_is_known_by_its_root_hash() {
        for (tree, root) in [Some(handmade()), tree()].into_iter().flatten() {
            assert!(is_tree_of(&mut tree.as_slice(), &root).unwrap());
            assert!(!is_tree_of(&mut tree.as_slice(), &Sha256([1; 32])).unwrap());
            let mut changed = tree;
            changed[BLOCK + 100] ^= 1;
            assert!(!is_tree_of(&mut changed.as_slice(), &root).unwrap());
        }
    }

    #[test]
    fn what_is_no_tree_is_not_one() {
        let (tree, root) = handmade();
        assert!(!is_tree_of(&mut &tree[..5000], &root).unwrap());
        assert!(!is_tree_of(&mut &vec![0; 8192][..], &root).unwrap());
        for (at, value) in [(0, b'x'), (8, 2), (32, b'm'), (65, 0x20), (81, 0xff)] {
            let mut hostile = tree.clone();
            hostile[at] = value;
            assert!(!is_tree_of(&mut hostile.as_slice(), &root).unwrap(), "{at}");
        }
    }
}
