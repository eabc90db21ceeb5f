// SPDX-License-Identifier: GPL-3.0-or-later
//! One file of a bundle: all of it, or a volume with its signed list.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use chrono::{DateTime, Utc};
use signing::digest::{self, Sha256};
use signing::openpgp::{self, Cert};
use signing::output::{Refused, is_refusal};

use super::{
    FORMAT, FORMAT_VOLUME, LARGEST_MANIFEST, MANIFEST, MOST_VOLUMES, Manifest, MemberFacts, Piece, SIGNATURE,
    VolumeFacts, target_of,
};
use crate::tarindex::{Member, TarError, TarIndex};

/// An armored OpenPGP signature has less.
const LARGEST_SIGNATURE: u64 = 1 << 20;

/// A file of a bundle, indexed.
#[derive(Debug)]
pub struct Volume<R = File> {
    tar: TarIndex<R>,
    manifest: Manifest,
    /// `bundle.json` as it stands there, and what signs it.
    signed: Vec<u8>,
    signature: Option<Vec<u8>>,
}

fn refused(why: impl Into<String>) -> TarError {
    TarError::Refused(Refused(why.into()))
}

impl Volume<File> {
    /// Opens one.
    ///
    /// # Errors
    /// [`Refused`] in the chain when the file is no bundle; else when it cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || format!("cannot use the bundle {}", path.display());
        let file = digest::open_regular(path).with_context(open)?;
        Self::new(file).with_context(open)
    }
}

impl<R: Read + Seek> Volume<R> {
    /// Indexes one.
    ///
    /// # Errors
    /// As [`Volume::open`].
    pub fn new(reader: R) -> Result<Self, TarError> {
        let mut tar = TarIndex::open(reader)?;
        let Some(mut reader) = tar.read(MANIFEST)? else {
            return Err(refused("it is no bundle: bundle.json is missing"));
        };
        let signed = digest::read_to_limit(&mut reader, LARGEST_MANIFEST)?;
        let manifest: Manifest =
            serde_json::from_slice(&signed).map_err(|error| refused(format!("bundle.json is malformed: {error}")))?;
        if !matches!(
            (manifest.format, &manifest.volume),
            (FORMAT, None) | (FORMAT_VOLUME, Some(_))
        ) {
            return Err(refused(format!(
                "the bundle has format {}, this program reads format {FORMAT}, and {FORMAT_VOLUME} of volumes",
                manifest.format
            )));
        }
        let signature = match &manifest.volume {
            None => None,
            Some(facts) => {
                listed(&tar, facts)?;
                tar.read(SIGNATURE)?
                    .map(|mut reader| digest::read_to_limit(&mut reader, LARGEST_SIGNATURE))
                    .transpose()?
            }
        };
        places(tar.names(), manifest.volume.as_ref())?;
        Ok(Self {
            tar,
            manifest,
            signed,
            signature,
        })
    }

    /// What it says of itself.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// `bundle.json`, byte for byte.
    #[must_use]
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.signed
    }

    /// Which volume it is, where it is one.
    #[must_use]
    pub const fn facts(&self) -> Option<&VolumeFacts> {
        self.manifest.volume.as_ref()
    }

    /// What tells this bundle from others: a volume's set; of a bundle in one file a digest over its list.
    #[must_use]
    pub fn identity(&self) -> Sha256 {
        if let Some(facts) = self.facts() {
            return facts.set;
        }
        let sizes = self
            .tar
            .names()
            .iter()
            .map(|name| (name, self.member(name).map(|member| member.size)));
        let list: String = sizes
            .map(|(name, size)| format!("{name} {}\n", size.unwrap_or(0)))
            .collect();
        Sha256::of(&[self.signed.as_slice(), list.as_bytes()].concat())
    }

    /// That one of these certificates signed a volume's list.
    ///
    /// # Errors
    /// When none did.
    pub fn verify(&self, certs: &[Cert], at: DateTime<Utc>) -> Result<()> {
        if self.facts().is_none() {
            return Ok(());
        }
        let signature = self
            .signature
            .as_ref()
            .ok_or_else(|| anyhow!(Refused(format!("the volume has no {SIGNATURE}"))))?;
        openpgp::verify_detached_by(certs, self.signed.as_slice(), signature, at)
            .with_context(|| format!("the OpenPGP signature of the volume's {MANIFEST}"))?;
        Ok(())
    }

    /// Reads every member of a volume, and gives the first that is not what the list says.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn damaged(&mut self) -> Result<Option<String>> {
        let members = self.facts().map(|facts| facts.members.clone()).unwrap_or_default();
        for facts in members {
            if let Err(error) = self.with_member(&facts, |from| facts.check(from)) {
                return if is_refusal(&error) {
                    Ok(Some(facts.name))
                } else {
                    Err(error)
                };
            }
        }
        Ok(None)
    }

    /// Opens a member.
    ///
    /// # Errors
    /// When it is not there or cannot be read, and those of `then`.
    pub(crate) fn with_member<T>(
        &mut self,
        facts: &MemberFacts,
        then: impl FnOnce(&mut dyn Read) -> Result<T>,
    ) -> Result<T> {
        let read = || format!("cannot read {}", facts.name);
        let mut reader = self.tar.read(&facts.name).with_context(read)?.with_context(read)?;
        then(&mut reader)
    }

    pub(super) fn names(&self) -> &[String] {
        self.tar.names()
    }

    pub(super) fn member(&self, name: &str) -> Option<Member> {
        self.tar.member(name)
    }

    /// Which piece of which target a member is.
    pub(super) fn piece(&self, index: usize) -> Option<Piece> {
        // The list and its signature come before the members that it names.
        self.facts()?.members.get(index.checked_sub(2)?)?.piece
    }

    pub(super) fn into_reader(self) -> R {
        self.tar.into_reader()
    }
}

/// That every member stands in one of the places, in their order.
fn places(names: &[String], volume: Option<&VolumeFacts>) -> Result<(), TarError> {
    let mut stage = 0;
    for (index, name) in names.iter().enumerate() {
        let plain = |directory: &str| {
            let file = name.strip_prefix(directory);
            file.is_some_and(|file| !file.is_empty() && !file.contains('/'))
        };
        let next = match (name.as_str(), index) {
            (MANIFEST, 0) => 0,
            (SIGNATURE, 1) if volume.is_some() => 0,
            _ if plain(super::METADATA) => 1,
            _ if plain(super::SITE_METADATA) => 2,
            _ => {
                let piece = volume.and_then(|facts| facts.members.get(index.checked_sub(2)?)?.piece);
                if target_of(name, piece).is_none() {
                    return Err(refused(format!("{name} has no place in a bundle")));
                }
                3
            }
        };
        if next < stage {
            return Err(refused(format!("{name} stands in the wrong order")));
        }
        stage = next;
    }
    Ok(())
}

/// That a volume is exactly what its list says.
fn listed<R: Read + Seek>(tar: &TarIndex<R>, facts: &VolumeFacts) -> Result<(), TarError> {
    let within = |number: u32, of: u32| (1..=of).contains(&number) && of <= MOST_VOLUMES;
    if !within(facts.number, facts.of) {
        return Err(refused(format!(
            "it says that it is volume {} of {}",
            facts.number, facts.of
        )));
    }
    let there = tar.names().iter().skip(2);
    let mut there = there.map(|name| (name.as_str(), tar.member(name).map(|member| member.size)));
    let mut listed = facts
        .members
        .iter()
        .map(|facts| (facts.name.as_str(), Some(facts.size)));
    if tar.names().get(1).map(String::as_str) != Some(SIGNATURE) || !there.by_ref().eq(listed.by_ref()) {
        return Err(refused("the volume does not hold what its list says"));
    }
    let odd = |facts: &&MemberFacts| {
        facts
            .piece
            .is_some_and(|piece| piece.of < 2 || !within(piece.number, piece.of))
    };
    match facts.members.iter().find(odd) {
        Some(facts) => Err(refused(format!("{} is a piece that cannot be", facts.name))),
        None => Ok(()),
    }
}
