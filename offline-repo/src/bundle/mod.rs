// SPDX-License-Identifier: GPL-3.0-or-later
//! A bundle: a TUF repository, or the new part of one, as one file for a stick or as volumes for several media.
//!
//! A plain tar with its members in this order: `bundle.json`, in a volume `bundle.json.asc`, `metadata/*`, from a gateway
//! whose officers approve also `site/metadata/*`, `targets/*.zst` (zstd frames, RFC 8878). A target that is cut over several
//! volumes is `targets/*.zst.0001` and so on: each is a run of whole frames, so each opens alone, and one behind the other
//! they are the target. Every volume carries all metadata. A target may be carried as what it differs in from others that
//! the receiver holds: `targets/*.delta.zst`, see [`crate::delta`].
//!
//! Attacks: those on the archive, see [`crate::tarindex`]; members in places where no reader looks, to smuggle something
//! over the gap; a frame that unpacks without end, or that wants a huge window; a `bundle.json` that promises what the
//! signed metadata does not; volumes of two sets, or one volume twice, mixed into something that nobody made; a volume whose
//! list is another's.
//! Defence: nothing is unpacked to the disk from here: a bundle is a [`Source`](signing::tuf::Source) whose bytes the TUF
//! client judges, with its own bounds; names outside these places are refused; a window over 32 MiB is refused by zstd, and
//! the client stops reading at the signed length. A bundle's `bundle.json` decides nothing: it is for a person, and for a
//! check that what was meant to be carried has arrived. A volume's is signed, and is the list of exactly what is in it; what
//! is cut and joined is still judged whole by TUF's digest.
//! Not defended: a stick that is slow on purpose.

mod frames;
mod source;
mod volume;
mod writer;

use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use signing::digest::{self, Sha256};
use signing::output::Refused;
use signing::release::Version;

pub use source::{Bases, BundleSource, Loose};
pub use volume::Volume;
pub use writer::BundleWriter;

/// The format of a bundle in one file.
pub const FORMAT: u32 = 1;
/// The format of a volume.
pub const FORMAT_VOLUME: u32 = 2;
/// The largest `bundle.json`.
pub(crate) const LARGEST_MANIFEST: u64 = 1 << 20;
/// The most volumes, and the most pieces of one target.
pub use signing::receipt::MOST_VOLUMES;

const MANIFEST: &str = "bundle.json";
const SIGNATURE: &str = "bundle.json.asc";
pub(crate) const METADATA: &str = "metadata/";
pub(crate) const SITE_METADATA: &str = "site/metadata/";
const TARGETS: &str = "targets/";

/// `bundle.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// 1, or 2 for a volume.
    pub format: u32,
    /// The program and its version.
    pub created_by: String,
    /// The releases whose parts are in the bundle.
    pub releases: Vec<Version>,
    /// Which volume it is, and what is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeFacts>,
}

/// What a volume says of itself, signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeFacts {
    /// What all volumes of one export have in common: a digest over what is in all of them.
    pub set: Sha256,
    /// Which one it is, from 1.
    pub number: u32,
    /// How many there are.
    pub of: u32,
    /// Every member but the list itself and its signature, in the archive's order.
    pub members: Vec<MemberFacts>,
}

/// A member of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberFacts {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256,
    /// Which piece of a target it is, where that is cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub piece: Option<Piece>,
}

/// In which form a target is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    /// As it is.
    #[default]
    Whole,
    /// As a [delta](crate::delta).
    Delta,
}

/// A part of a target's compressed form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    /// Which one, from 1.
    pub number: u32,
    /// How many there are.
    pub of: u32,
}

impl Manifest {
    /// The list of a bundle, or of a volume.
    #[must_use]
    pub fn new(releases: Vec<Version>, volume: Option<VolumeFacts>) -> Self {
        Self {
            format: if volume.is_some() { FORMAT_VOLUME } else { FORMAT },
            created_by: format!("bastide-repo {}", env!("CARGO_PKG_VERSION")),
            releases,
            volume,
        }
    }

    /// The file's content.
    ///
    /// # Errors
    /// Never in practice: these are numbers and texts.
    pub fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

impl MemberFacts {
    /// That these bytes are the member's.
    ///
    /// # Errors
    /// [`Refused`] when they are others; else when they cannot be read.
    pub fn check(&self, from: &mut dyn Read) -> Result<()> {
        let found = digest::copy(from, &mut io::sink()).with_context(|| format!("cannot read {}", self.name))?;
        if found == (self.sha256, self.size) {
            return Ok(());
        }
        Err(anyhow!(Refused(format!("{} is damaged", self.name))))
    }

    /// The path of the target that this is, or is a piece of.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        target_of(&self.name, self.piece).map(|(path, _)| path)
    }

    /// In which form that target is carried.
    #[must_use]
    pub fn packing(&self) -> Packing {
        target_of(&self.name, self.piece).map_or(Packing::Whole, |(_, packing)| packing)
    }
}

/// The name of a target's member.
#[must_use]
pub fn member_name(path: &str, packing: Packing, piece: Option<Piece>) -> String {
    let form = match packing {
        Packing::Whole => "zst",
        Packing::Delta => "delta.zst",
    };
    match piece {
        None => format!("{TARGETS}{path}.{form}"),
        Some(piece) => format!("{TARGETS}{path}.{form}.{:04}", piece.number),
    }
}

/// Whether a file begins as every bundle does, whatever became of the rest.
#[must_use]
pub fn begins_like_one(path: &Path) -> bool {
    let mut begin = [0; MANIFEST.len()];
    let read = digest::open_regular(path).and_then(|mut file| file.read_exact(&mut begin));
    read.is_ok() && begin == MANIFEST.as_bytes()
}

fn target_of(name: &str, piece: Option<Piece>) -> Option<(&str, Packing)> {
    let path = name.strip_prefix(TARGETS)?;
    let path = match piece {
        None => path,
        Some(piece) => path.strip_suffix(&format!(".{:04}", piece.number))?,
    };
    let path = path.strip_suffix(".zst")?;
    let of = match path.strip_suffix(".delta") {
        Some(path) => (path, Packing::Delta),
        None => (path, Packing::Whole),
    };
    (!of.0.is_empty()).then_some(of)
}
