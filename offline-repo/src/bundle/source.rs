// SPDX-License-Identifier: GPL-3.0-or-later
//! A bundle, or as many of its volumes as are there, as a source for the TUF client.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use anyhow::{Result, anyhow};
use signing::digest::{self, Sha256};
use signing::output::Refused;
use signing::release::MAX_BOOT_IMAGE;
use signing::tuf::{Offer, Source, SourceError};

use super::frames::{Extent, Run, unpacked};
use super::{METADATA, Manifest, Packing, Piece, SITE_METADATA, Volume, target_of};
use crate::delta::{self, Base, Held, List, Patched};
use crate::tarindex::TarError;

/// A piece of a target that was taken from a volume which is not here now.
#[derive(Debug)]
pub struct Loose<R = File> {
    /// The target's path.
    pub path: String,
    /// In which form the target is carried.
    pub packing: Packing,
    /// Which piece.
    pub piece: Piece,
    /// Its bytes.
    pub reader: R,
    /// Their number.
    pub size: u64,
}

/// What a receiver holds, as bases of deltas.
pub trait Bases: fmt::Debug {
    /// What should be this base, if it is here. It is hashed before it is used.
    ///
    /// # Errors
    /// When it cannot be opened.
    fn open(&self, base: &Base) -> io::Result<Option<Held>>;
}

/// How a target is carried, and where that lies.
#[derive(Debug)]
struct Carried {
    packing: Packing,
    extents: Vec<Extent>,
}

/// A bundle as a source for the TUF client.
#[derive(Debug)]
pub struct BundleSource<R = File> {
    files: Vec<R>,
    /// Every metadata member by its whole name, in the archive's order.
    metadata: Vec<(String, Extent)>,
    /// The targets of which every piece is here.
    targets: BTreeMap<String, Carried>,
    /// Where bases are.
    bases: Option<Box<dyn Bases>>,
    /// Those that were found to be what they should be.
    held: BTreeMap<Sha256, Held>,
    manifest: Manifest,
    /// Where this repository's metadata stand.
    place: &'static str,
}

impl BundleSource<File> {
    /// Opens a bundle, or one volume alone.
    ///
    /// # Errors
    /// [`Refused`] in the chain when the file is no bundle; else when it cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self::gather(vec![Volume::open(path)?], Vec::new())?)
    }

    /// Opens a bundle with all of its repositories: the vendor's, and the site's where it carries one.
    ///
    /// # Errors
    /// As [`BundleSource::open`], and where it is a volume of several.
    pub fn offer(path: &Path) -> Result<Offer<Self>> {
        let vendor = Self::open(path)?;
        if let Some(facts) = vendor.manifest.volume.as_ref().filter(|facts| facts.of > 1) {
            return Err(anyhow!(Refused(format!(
                "{} is volume {} of {}, and no bundle: take all of them into a gateway with `bastide-repo import`",
                path.display(),
                facts.number,
                facts.of
            ))));
        }
        let site = match vendor.carries_site() {
            true => Some(Self::open(path)?.of_site()),
            false => None,
        };
        Ok(Offer { vendor, site })
    }
}

impl<R: Read + Seek> BundleSource<R> {
    /// Indexes a bundle in one file.
    ///
    /// # Errors
    /// As [`BundleSource::open`].
    pub fn new(reader: R) -> Result<Self, TarError> {
        Self::gather(vec![Volume::new(reader)?], Vec::new()).map_err(TarError::Refused)
    }

    /// Joins volumes, and pieces of others of the same set.
    ///
    /// # Errors
    /// [`Refused`] when they are not of one set, or two of them are the same piece.
    pub fn gather(volumes: Vec<Volume<R>>, loose: Vec<Loose<R>>) -> Result<Self, Refused> {
        let refused = |why: String| Refused(why);
        let Some(first) = volumes.first() else {
            return Err(refused("there is no volume".into()));
        };
        let (manifest, identity) = (first.manifest().clone(), first.identity());
        let mut source = Self {
            files: Vec::new(),
            metadata: Vec::new(),
            targets: BTreeMap::new(),
            bases: None,
            held: BTreeMap::new(),
            manifest,
            place: METADATA,
        };
        let mut pieces: BTreeMap<String, (Packing, u32, BTreeMap<u32, Extent>)> = BTreeMap::new();
        let mut add = |path: &str, packing: Packing, piece: Option<Piece>, extent: Extent| {
            let piece = piece.unwrap_or(Piece { number: 1, of: 1 });
            let (form, of, known) = pieces
                .entry(path.to_owned())
                .or_insert((packing, piece.of, BTreeMap::new()));
            if *form != packing || *of != piece.of || known.insert(piece.number, extent).is_some() {
                return Err(refused(format!("piece {} of {path} is there twice", piece.number)));
            }
            Ok(())
        };
        let several = volumes.len() > 1;
        for (file, volume) in volumes.into_iter().enumerate() {
            if several && (volume.facts().is_none() || volume.identity() != identity) {
                return Err(refused(
                    "these are volumes of different sets: import one set at a time".into(),
                ));
            }
            for (index, name) in volume.names().iter().enumerate() {
                let Some(member) = volume.member(name) else { continue };
                let extent = Extent {
                    file,
                    offset: member.offset,
                    size: member.size,
                };
                let piece = volume.piece(index);
                if let Some((path, packing)) = target_of(name, piece) {
                    add(path, packing, piece, extent)?;
                } else if file == 0 && (name.starts_with(METADATA) || name.starts_with(SITE_METADATA)) {
                    source.metadata.push((name.clone(), extent));
                }
            }
            source.files.push(volume.into_reader());
        }
        for loose in loose {
            let extent = Extent {
                file: source.files.len(),
                offset: 0,
                size: loose.size,
            };
            add(&loose.path, loose.packing, Some(loose.piece), extent)?;
            source.files.push(loose.reader);
        }
        let whole = pieces
            .into_iter()
            .filter(|(_, (_, of, known))| known.len() == *of as usize);
        source.targets = whole
            .map(|(path, (packing, _, known))| {
                let extents = known.into_values().collect();
                (path, Carried { packing, extents })
            })
            .collect();
        Ok(source)
    }

    /// The same as the site's repository.
    #[must_use]
    pub fn of_site(self) -> Self {
        Self {
            place: SITE_METADATA,
            ..self
        }
    }

    /// The same, with what the receiver holds.
    #[must_use]
    pub fn with_bases(self, bases: Box<dyn Bases>) -> Self {
        Self {
            bases: Some(bases),
            ..self
        }
    }

    /// What the bundle says of itself, which nobody signed where it is in one file.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether it carries a site's approval of what is in it.
    #[must_use]
    pub fn carries_site(&self) -> bool {
        self.metadata.iter().any(|(name, _)| name.starts_with(SITE_METADATA))
    }

    /// The names of this repository's metadata files.
    pub fn metadata_names(&self) -> impl Iterator<Item = &str> {
        self.metadata
            .iter()
            .filter_map(|(name, _)| name.strip_prefix(self.place))
    }

    /// The paths of the targets that are here whole, as [`Source::target`] takes them.
    #[must_use]
    pub fn target_paths(&self) -> BTreeSet<String> {
        self.targets.keys().cloned().collect()
    }

    /// The paths of the targets that are carried as deltas.
    pub fn deltas(&self) -> impl Iterator<Item = &str> {
        let all = self.targets.iter();
        all.filter(|(_, carried)| carried.packing == Packing::Delta)
            .map(|(path, _)| path.as_str())
    }

    /// The length of a metadata file.
    #[must_use]
    pub fn metadata_size(&self, name: &str) -> Option<u64> {
        self.metadata_extent(name).map(|extent| extent.size)
    }

    /// The length of a target as it is carried, compressed.
    #[must_use]
    pub fn carried_size(&self, path: &str) -> Option<u64> {
        let carried = self.targets.get(path)?;
        Some(carried.extents.iter().map(|extent| extent.size).sum())
    }

    /// What a target is made of, if it is carried as a delta.
    fn list(&mut self, path: &str) -> Result<Option<List>, SourceError> {
        let io = |source| SourceError::of_read(path, source);
        let carried = self.targets.get(path);
        let Some(carried) = carried.filter(|carried| carried.packing == Packing::Delta) else {
            return Ok(None);
        };
        let mut from = unpacked(&mut self.files, &carried.extents).map_err(io)?;
        delta::list(&mut from).map(Some).map_err(io)
    }

    /// Gets hold of all bases of a target. One of them may be carried in this bundle too, if it is no larger than a boot image,
    /// and rests only on what the receiver holds: so nothing is made of itself.
    fn hold(&mut self, path: &str, list: &List, carried: bool) -> Result<(), SourceError> {
        for base in &list.bases {
            let io = |source| SourceError::of_read(&base.path, source);
            if self.held.contains_key(&base.sha256) {
                continue;
            }
            let here = match &self.bases {
                Some(bases) => bases.open(base).map_err(io)?,
                None => None,
            };
            let held = match here {
                Some(held) if held.is(base).map_err(io)? => held,
                _ if carried && base.length <= MAX_BOOT_IMAGE && self.targets.contains_key(&base.path) => {
                    if let Some(list) = self.list(&base.path)? {
                        self.hold(&base.path, &list, false)?;
                    }
                    let mut from = self.target(&base.path)?.ok_or_else(|| no_base(path, base))?;
                    let bytes = digest::read_to_limit(&mut from, base.length).map_err(io)?;
                    drop(from);
                    let held = Held::Memory(bytes);
                    match held.is(base).map_err(io)? {
                        true => held,
                        false => return Err(no_base(path, base)),
                    }
                }
                _ => return Err(no_base(path, base)),
            };
            self.held.insert(base.sha256, held);
        }
        Ok(())
    }

    fn metadata_extent(&self, name: &str) -> Option<Extent> {
        let found = self
            .metadata
            .iter()
            .find(|(full, _)| full.strip_prefix(self.place) == Some(name));
        found.map(|(_, extent)| *extent)
    }
}

impl<R: Read + Seek> Source for BundleSource<R> {
    fn metadata(&mut self, name: &str, max: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let Some(extent) = self.metadata_extent(name) else {
            return Ok(None);
        };
        if extent.size > max {
            return Err(SourceError::TooLong {
                name: name.to_owned(),
                limit: max,
            });
        }
        let io = |source| SourceError::of_read(name, source);
        let bytes = digest::read_to_limit(&mut Run::new(&mut self.files, &[extent]), max).map_err(io)?;
        if bytes.len() as u64 == extent.size {
            Ok(Some(bytes))
        } else {
            Err(io(io::ErrorKind::UnexpectedEof.into()))
        }
    }

    fn target(&mut self, path: &str) -> Result<Option<Box<dyn Read + '_>>, SourceError> {
        self.ready(path)?;
        let io = |source| SourceError::of_read(path, source);
        let Some(carried) = self.targets.get(path) else {
            return Ok(None);
        };
        let mut unpacked = unpacked(&mut self.files, &carried.extents).map_err(io)?;
        if carried.packing == Packing::Whole {
            return Ok(Some(Box::new(unpacked)));
        }
        let list = delta::list(&mut unpacked).map_err(io)?;
        let mut held = Vec::new();
        for base in &list.bases {
            held.push(self.held.get(&base.sha256).ok_or_else(|| no_base(path, base))?);
        }
        Ok(Some(Box::new(Patched::new(unpacked, &list, &held))))
    }

    fn ready(&mut self, path: &str) -> Result<(), SourceError> {
        match self.list(path)? {
            None => Ok(()),
            Some(list) => self.hold(path, &list, true),
        }
    }
}

fn no_base(path: &str, base: &Base) -> SourceError {
    SourceError::NoBase {
        name: path.to_owned(),
        base: base.path.clone(),
    }
}

#[cfg(test)]
mod tests;
