// SPDX-License-Identifier: GPL-3.0-or-later
//! Writes a bundle, or one volume of it. The same content gives the same bytes: no owner, no date.

use std::io::{Read, Write};

use anyhow::{Context, Result};

use super::{MANIFEST, METADATA, Manifest, Packing, Piece, SIGNATURE, SITE_METADATA, member_name};

/// Writes member by member; finished with [`BundleWriter::finish`].
pub struct BundleWriter<W: Write> {
    tar: tar::Builder<W>,
}

impl<W: Write> BundleWriter<W> {
    /// Starts a bundle in one file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(to: W, manifest: &Manifest) -> Result<Self> {
        let mut writer = Self {
            tar: tar::Builder::new(to),
        };
        writer.bytes(MANIFEST, &manifest.to_bytes()?)?;
        Ok(writer)
    }

    /// Starts a volume, whose signed list is `manifest`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn volume(to: W, manifest: &Manifest, signature: &str) -> Result<Self> {
        let mut writer = Self::new(to, manifest)?;
        writer.bytes(SIGNATURE, signature.as_bytes())?;
        Ok(writer)
    }

    /// Adds a metadata file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn metadata(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.bytes(&format!("{METADATA}{name}"), bytes)
    }

    /// Adds a metadata file of the site's repository, after those of the vendor's.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn site_metadata(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.bytes(&format!("{SITE_METADATA}{name}"), bytes)
    }

    /// Adds a target, or a piece of one, whose compressed form has `size` bytes.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn target(
        &mut self,
        path: &str,
        packing: Packing,
        piece: Option<Piece>,
        size: u64,
        packed: &mut dyn Read,
    ) -> Result<()> {
        self.member(&member_name(path, packing, piece), size, packed)
    }

    /// Ends the archive and gives back what it was written to.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> Result<W> {
        self.tar.into_inner().context("cannot end the bundle")
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.member(name, bytes.len() as u64, &mut &bytes[..])
    }

    fn member(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        let context = || format!("cannot write {name} into the bundle");
        // A name that ustar cannot hold would become an extension that no reader of ours takes.
        header.set_path(name).with_context(context)?;
        header.set_cksum();
        self.tar.append(&header, content).with_context(context)
    }
}
