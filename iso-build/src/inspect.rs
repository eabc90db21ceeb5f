// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-iso inspect`: what is on an ISO, as it says itself. Nothing here is verified; that is the audit's work.
//!
//! The readers are the audit's own, bounded against hostile images.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hardening::medium::iso9660::{self, File};
use hardening::medium::squashfs::Squashfs;
use hardening::medium::{Image, fat, gpt};
use serde::Serialize;
use serde_json::Value;
use signing::digest::read_to_limit;
use signing::release::Custom;

/// The targets on the medium.
const SQUASHFS: &str = "bastide/targets.squashfs";
/// The metadata on the medium.
const METADATA: &str = "bastide/metadata/";
/// Largest metadata file that is looked into.
const LARGEST: u64 = 64 << 20;

/// A file of the medium.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Its path.
    pub path: String,
    /// Its length in bytes.
    pub length: u64,
}

/// A part of a release that the metadata claim.
#[derive(Debug, Serialize)]
pub struct Claimed {
    /// The target's name.
    pub target: String,
    /// The `custom` part of the target.
    #[serde(flatten)]
    pub custom: Custom,
    /// Whether the file is on the medium.
    pub present: bool,
}

/// What is on an ISO.
#[derive(Debug, Serialize)]
pub struct Contents {
    /// The ISO.
    pub iso: PathBuf,
    /// Its length in bytes.
    pub length: u64,
    /// The volume's label.
    pub label: String,
    /// The detached OpenPGP signature beside it, if there is one.
    pub signature: Option<PathBuf>,
    /// Whether anything of this was verified: never here.
    pub verified: bool,
    /// Metadata files.
    pub metadata: Vec<Listed>,
    /// The releases' parts.
    pub parts: Vec<Claimed>,
    /// Files of the EFI system partition.
    pub system_partition: Vec<Listed>,
}

/// Looks into an ISO.
///
/// # Errors
/// When it is no ISO, is malformed, or a tool is missing.
pub fn inspect(iso: &Path) -> Result<Contents> {
    let image = Image::open(iso).with_context(|| format!("cannot open {}", iso.display()))?;
    let volume = iso9660::read(&image, 0).with_context(|| format!("cannot read {} as an ISO", iso.display()))?;
    let mut metadata = Vec::new();
    let mut claims = BTreeMap::new();
    for file in &volume.files {
        let Some(name) = file.path.strip_prefix(METADATA) else {
            continue;
        };
        metadata.push(Listed {
            path: name.to_owned(),
            length: file.length(),
        });
        if name.ends_with(".json") {
            claims.extend(targets(&image, file).with_context(|| format!("cannot understand {name} on the ISO"))?);
        }
    }
    let held = held(&image, volume.files.iter().find(|file| file.path == SQUASHFS))?;
    let parts = claims
        .into_iter()
        .map(|(target, (sha256, custom))| {
            let (directory, name) = target.rsplit_once('/').unwrap_or(("", &target));
            let place = format!("{directory}/{sha256}.{name}");
            let present = held.contains(&place);
            Claimed {
                target,
                custom,
                present,
            }
        })
        .collect();
    let signature = PathBuf::from(format!("{}.asc", iso.display()));
    Ok(Contents {
        iso: iso.to_owned(),
        length: image.length(),
        label: volume.label,
        signature: signature.is_file().then_some(signature),
        verified: false,
        metadata,
        parts,
        system_partition: system_partition(&image)?,
    })
}

/// The release parts that a metadata file claims: target, digest and `custom`.
fn targets(image: &Image, file: &File) -> Result<Vec<(String, (String, Custom))>> {
    let mut reader = image.reader(&file.extents).take(file.length());
    let signed: Value = serde_json::from_slice(&read_to_limit(&mut reader, LARGEST)?)?;
    let Some(targets) = signed.pointer("/signed/targets").and_then(Value::as_object) else {
        return Ok(Vec::new());
    };
    let claims = targets.iter().filter_map(|(name, target)| {
        let custom = serde_json::from_value(target.get("custom")?.clone()).ok()?;
        let sha256 = target.pointer("/hashes/sha256")?.as_str()?.to_owned();
        Some((name.clone(), (sha256, custom)))
    });
    Ok(claims.collect())
}

fn held(image: &Image, squashfs: Option<&File>) -> Result<Vec<String>> {
    let Some(extent) = squashfs.and_then(|file| file.extents.first()) else {
        return Ok(Vec::new());
    };
    let squashfs = Squashfs {
        image: image.path().to_owned(),
        offset: extent.start,
    };
    let members = squashfs.members().context("cannot list the targets on the ISO")?;
    Ok(members.into_iter().map(|member| member.path).collect())
}

fn system_partition(image: &Image) -> Result<Vec<Listed>> {
    let table = gpt::agreed(image).context("cannot read the partition table of the ISO")?;
    let Some(esp) = table.partitions.iter().find(|partition| partition.kind == gpt::ESP) else {
        return Ok(Vec::new());
    };
    let entries = fat::read(image, esp.extent).context("cannot read the EFI system partition of the ISO")?;
    let files = entries.into_iter().filter(|entry| !entry.directory);
    Ok(files
        .map(|entry| Listed {
            path: entry.path,
            length: entry.length,
        })
        .collect())
}
