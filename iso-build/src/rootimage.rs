// SPDX-License-Identifier: GPL-3.0-or-later
//! The root file system as an image: raw erofs, and the dm-verity hash tree that covers it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use signing::digest::Sha256;

use crate::sandbox::Sandbox;

/// Names the file system and the hash tree by what they are made of, so that they are the same in every build.
pub struct Identity<'a> {
    seed: &'a Sha256,
}

impl<'a> Identity<'a> {
    /// An identity derived from a digest of the inputs.
    #[must_use]
    pub const fn new(seed: &'a Sha256) -> Self {
        Self { seed }
    }

    fn derive(&self, purpose: &str) -> Sha256 {
        Sha256::of(format!("bastide {purpose} {}", self.seed).as_bytes())
    }

    /// A UUID for a purpose, marked as made by its maker's own rules (RFC 9562, version 8).
    #[must_use]
    pub fn uuid(&self, purpose: &str) -> String {
        let mut bytes = self.derive(purpose).0;
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let text = hex::encode(&bytes[..16]);
        format!(
            "{}-{}-{}-{}-{}",
            &text[..8],
            &text[8..12],
            &text[12..16],
            &text[16..20],
            &text[20..]
        )
    }
}

/// Makes `root.erofs` and `root.verity` in `directory` and returns the root hash.
///
/// # Errors
/// When a tool of the builder root fails.
pub fn make(sandbox: &Sandbox, tree: &Path, identity: &Identity<'_>, directory: &Path) -> Result<Sha256> {
    sandbox
        .step("mkfs.erofs")
        .args([
            "-d1",
            "-b4096",
            "-x2",
            "-L",
            "bastide-root",
            "--mkfs-time",
            "--preserve-mtime",
        ])
        // A date is kept in every inode, so that whether a file is as old as the image does not change its inode's form.
        .arg("-Eforce-inode-extended")
        .arg(format!("-T{}", sandbox.epoch()))
        .arg(format!("-U{}", identity.uuid("root")))
        .args(["/mnt/out/root.erofs", "/mnt/tree"])
        .read(tree, "/mnt/tree")
        .write(directory, "/mnt/out")
        .run()
        .context("cannot make the root file system")?;
    sandbox
        .step("veritysetup")
        .args([
            "format",
            "--hash=sha256",
            "--data-block-size=4096",
            "--hash-block-size=4096",
        ])
        .arg(format!("--salt={}", identity.derive("salt")))
        .arg(format!("--uuid={}", identity.uuid("verity")))
        .arg("--root-hash-file=/mnt/out/root.hash")
        .args(["/mnt/out/root.erofs", "/mnt/out/root.verity"])
        .write(directory, "/mnt/out")
        .run()
        .context("cannot make the hash tree of the root file system")?;
    let file = directory.join("root.hash");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    text.trim()
        .parse()
        .with_context(|| format!("veritysetup gave no root hash: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_follows_its_inputs_and_is_well_formed() {
        let (one, two) = (Sha256::of(b"one"), Sha256::of(b"two"));
        let uuid = Identity::new(&one).uuid("root");
        assert_eq!(uuid, Identity::new(&one).uuid("root"));
        assert_ne!(uuid, Identity::new(&one).uuid("verity"));
        assert_ne!(uuid, Identity::new(&two).uuid("root"));
        assert_eq!(uuid.len(), 36);
        assert_eq!(&uuid[14..15], "8");
    }
}
