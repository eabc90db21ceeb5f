// SPDX-License-Identifier: GPL-3.0-or-later
//! Lays the volumes out, writes them to the medium, reads them back from it, and keeps a log in `REPO/exports/SET.json` of what
//! was written where. The log may be deleted at any time: nothing is decided by it but what need not be written again.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use signing::digest::{self, Hashing, Sha256};
use signing::output::Refused;
use signing::release::Version;
use signing::{clock, durable};

use super::pack::{Packed, Work};
use super::plan::{self, Slice};
use super::{Order, Phase};
use crate::bundle::{BundleWriter, METADATA, Manifest, MemberFacts, SITE_METADATA, VolumeFacts, member_name};
use crate::medium::{self, ReadBack};
use crate::repository::Repository;

/// The directory of the logs in a repository.
pub const LOGS: &str = "exports";
/// A log has some hundred bytes for each volume.
const LARGEST_LOG: u64 = 16 << 20;

/// The metadata files, by their names.
#[derive(Default)]
pub(super) struct Metadata {
    pub(super) vendor: Vec<(String, Vec<u8>)>,
    pub(super) site: Vec<(String, Vec<u8>)>,
}

impl Metadata {
    fn members(&self) -> Vec<MemberFacts> {
        let member = |directory: &str, (name, bytes): &(String, Vec<u8>)| MemberFacts {
            name: format!("{directory}{name}"),
            size: bytes.len() as u64,
            sha256: Sha256::of(bytes),
            piece: None,
        };
        let vendor = self.vendor.iter().map(|file| member(METADATA, file));
        vendor
            .chain(self.site.iter().map(|file| member(SITE_METADATA, file)))
            .collect()
    }
}

/// Everything that is to be written.
pub(super) struct Layout {
    pub(super) set: Sha256,
    pub(super) all: Vec<Volume>,
    metadata: Metadata,
    packed: Vec<Packed>,
}

/// One file.
pub(super) struct Volume {
    manifest: Manifest,
    slices: Vec<Slice>,
}

/// A file that was written and read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Where it was written.
    pub file: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256,
    /// When it was read back.
    pub at: DateTime<Utc>,
    /// How, and from which device.
    pub read_back: ReadBack,
}

/// `REPO/exports/SET.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    format: u32,
    /// What tells this export from others.
    pub set: Sha256,
    /// The releases in it.
    pub releases: Vec<Version>,
    /// How many volumes it has.
    pub of: usize,
    /// The most bytes of a volume, where it is cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_size: Option<u64>,
    /// The release that its receiver was known to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Version>,
    /// zstd's level; nothing in logs of old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<i32>,
    /// What was written, by the volume's number.
    pub volumes: BTreeMap<u32, Entry>,
}

/// Lays out what is to be written.
pub(super) fn volumes(
    work: &Work,
    metadata: Metadata,
    packed: Vec<Packed>,
    releases: &[Version],
    order: &Order<'_>,
) -> Result<Layout> {
    let first = metadata.members();
    let slices = match &order.volumes {
        None => {
            let whole = |(target, packed): (usize, &Packed)| Slice {
                target,
                offset: 0,
                size: packed.size(),
                piece: None,
            };
            vec![packed.iter().enumerate().map(whole).collect()]
        }
        Some(volumes) => {
            let bytes = first.iter().map(|member| member.size + plan::MEMBER).sum();
            plan::fill(&packed, bytes, volumes.size)?
        }
    };
    let mut members = Vec::new();
    for slices in &slices {
        let mut listed = first.clone();
        for slice in slices {
            let of = &packed[slice.target];
            listed.push(MemberFacts {
                name: member_name(&of.path, of.packing, slice.piece),
                size: slice.size,
                sha256: match slice.piece {
                    None => of.sha256,
                    Some(_) => digest::copy(&mut open(work, of, slice)?, &mut io::sink())?.0,
                },
                piece: slice.piece,
            });
        }
        members.push(listed);
    }
    let set = Sha256::of(&serde_json::to_vec(&(releases, &members))?);
    let of = u32::try_from(members.len())?;
    let volume = |(number, (slices, members)): (u32, (Vec<Slice>, Vec<MemberFacts>))| Volume {
        manifest: Manifest::new(
            releases.to_vec(),
            order.volumes.is_some().then_some(VolumeFacts {
                set,
                number,
                of,
                members,
            }),
        ),
        slices,
    };
    Ok(Layout {
        set,
        all: (1..).zip(slices.into_iter().zip(members)).map(volume).collect(),
        metadata,
        packed,
    })
}

/// Writes what was ordered and is not on its medium already.
pub(super) fn write(
    repository: &Repository,
    work: &Work,
    layout: &Layout,
    order: &Order<'_>,
    tell: &mut dyn FnMut(Phase, u64, u64),
) -> Result<BTreeMap<u32, Entry>> {
    let only = order.volumes.as_ref().map_or(&[][..], |volumes| &volumes.only);
    let asked = order.volumes.as_ref().and_then(|volumes| volumes.set.as_ref());
    if let Some(asked) = asked.filter(|asked| !layout.set.to_string().starts_with(*asked)) {
        return Err(anyhow!(Refused(format!(
            "these would be volumes of set {:.16}, and not of {asked:.16}: what the repository offers has changed since, so all \
             volumes have to be carried again, without --set",
            layout.set.to_string()
        ))));
    }
    if let Some(none) = only.iter().find(|&&number| number as usize > layout.all.len()) {
        bail!(
            "there is no volume {none}: set {:.16} has {}",
            layout.set.to_string(),
            layout.all.len()
        );
    }
    let wanted = (1..)
        .zip(&layout.all)
        .filter(|(number, _)| only.is_empty() || only.contains(number));
    let wanted: Vec<(u32, &Volume)> = wanted.collect();
    let total = wanted.iter().map(|(_, volume)| volume.bytes()).sum();
    let mut log = Log::open(repository, layout, order)?;
    let mut done = BTreeMap::new();
    let mut before = 0;
    for (number, volume) in wanted {
        let place = match &order.volumes {
            None => order.out.to_path_buf(),
            Some(_) => numbered(order.out, number, layout.all.len()),
        };
        let mut told = |phase, bytes: u64| tell(phase, (before + bytes).min(total), total);
        let same = |read: &ReadBack, entry: &Entry| (read.sha256, read.size) == (entry.sha256, entry.size);
        let stands = log
            .volumes
            .get(&number)
            .filter(|entry| entry.file == place && place.is_file());
        let stands = stands.filter(|entry| {
            let read = medium::read_back(&place, &mut |bytes| told(Phase::ReadingBack, bytes));
            read.is_ok_and(|read| same(&read, entry))
        });
        let entry = match stands {
            Some(entry) => entry.clone(),
            None => {
                let writing = &mut |bytes| told(Phase::Writing, bytes);
                let (sha256, size) = volume.write(&place, work, layout, order, writing)?;
                let read_back = medium::read_back(&place, &mut |bytes| told(Phase::ReadingBack, bytes))?;
                let entry = Entry {
                    file: place,
                    size,
                    sha256,
                    at: clock::now(),
                    read_back,
                };
                if !same(&entry.read_back, &entry) {
                    return Err(anyhow!(Refused(format!(
                        "the medium gives back other bytes than were written to {}: take another one",
                        entry.file.display()
                    ))));
                }
                log.keep(repository, number, &entry)?;
                entry
            }
        };
        before += volume.bytes();
        done.insert(number, entry);
    }
    Ok(done)
}

/// The file of a volume, with as many digits as the last one has, and three at least.
fn numbered(out: &Path, number: u32, of: usize) -> PathBuf {
    let digits = of.to_string().len().max(3);
    let mut name: OsString = out.as_os_str().to_owned();
    name.push(format!(".{number:0digits$}"));
    name.into()
}

impl Volume {
    /// Bytes of its targets.
    fn bytes(&self) -> u64 {
        self.slices.iter().map(|slice| slice.size).sum()
    }

    fn write(
        &self,
        place: &Path,
        work: &Work,
        layout: &Layout,
        order: &Order<'_>,
        tell: &mut dyn FnMut(u64),
    ) -> Result<(Sha256, u64)> {
        let what = || format!("cannot write the bundle {}", place.display());
        durable::clear_stale(place).with_context(what)?;
        let to = Hashing::new(durable::Resumed::new(place, 0o644).with_context(what)?);
        let signature = match &order.volumes {
            None => None,
            Some(volumes) => Some(work.signature(&self.manifest.to_bytes()?, |list| (volumes.sign)(list))?),
        };
        let to = || -> Result<Hashing<durable::Resumed>> {
            let mut writer = match &signature {
                None => BundleWriter::new(to, &self.manifest)?,
                Some(signature) => BundleWriter::volume(to, &self.manifest, signature)?,
            };
            for (name, bytes) in &layout.metadata.vendor {
                writer.metadata(name, bytes)?;
            }
            for (name, bytes) in &layout.metadata.site {
                writer.site_metadata(name, bytes)?;
            }
            let mut done = 0;
            for slice in &self.slices {
                let packed = &layout.packed[slice.target];
                let mut from = Counted {
                    inner: open(work, packed, slice)?,
                    done: &mut done,
                    tell,
                };
                writer.target(&packed.path, packed.packing, slice.piece, slice.size, &mut from)?;
            }
            writer.finish()
        };
        let to = to().map_err(|error| way_out(error, place)).with_context(what)?;
        let (file, found) = to.finish();
        file.commit().with_context(what)?;
        Ok(found)
    }
}

fn open(work: &Work, packed: &Packed, slice: &Slice) -> Result<io::Take<fs::File>> {
    let mut file = work.read(packed)?;
    file.seek(SeekFrom::Start(slice.offset))?;
    Ok(file.take(slice.size))
}

/// Says what helps where a medium is full, or its file system too old.
fn way_out(error: anyhow::Error, place: &Path) -> anyhow::Error {
    let kind = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>().map(io::Error::kind));
    match kind {
        Some(io::ErrorKind::FileTooLarge) => {
            error.context("the medium's file system has no room for so long a file: cut it with --volume-size 4095M")
        }
        Some(io::ErrorKind::StorageFull) => error.context(format!(
            "the medium is full: make room, and the same command goes on; or delete what it left, .partial-{}",
            place.file_name().unwrap_or_default().display()
        )),
        _ => error,
    }
}

struct Counted<'a, R> {
    inner: R,
    done: &'a mut u64,
    tell: &'a mut dyn FnMut(u64),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(bytes)?;
        *self.done += count as u64;
        (self.tell)(*self.done);
        Ok(count)
    }
}

impl Log {
    fn open(repository: &Repository, layout: &Layout, order: &Order<'_>) -> Result<Self> {
        // One that is missing or of no use costs another writing, no more.
        let kept = Self::read(&Self::place(repository, layout.set));
        let same = |log: &Self| log.format == 1 && log.set == layout.set && log.of == layout.all.len();
        Ok(kept.filter(same).unwrap_or(Self {
            format: 1,
            set: layout.set,
            releases: layout
                .all
                .first()
                .map(|volume| volume.manifest.releases.clone())
                .unwrap_or_default(),
            of: layout.all.len(),
            volume_size: order.volumes.as_ref().map(|volumes| volumes.size),
            base: order.base,
            level: Some(order.level),
            volumes: BTreeMap::new(),
        }))
    }

    /// The log of a set, if one of use was kept.
    #[must_use]
    pub fn find(repository: &Repository, set: Sha256) -> Option<Self> {
        Self::read(&Self::place(repository, set)).filter(|log| log.set == set)
    }

    fn read(place: &Path) -> Option<Self> {
        let bytes = digest::read_regular(place, LARGEST_LOG).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn keep(&mut self, repository: &Repository, number: u32, entry: &Entry) -> Result<()> {
        self.volumes.insert(number, entry.clone());
        let place = Self::place(repository, self.set);
        let what = || format!("cannot write {}", place.display());
        fs::create_dir_all(repository.root().join(LOGS)).with_context(what)?;
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        durable::write(&place, &bytes).with_context(what)
    }

    fn place(repository: &Repository, set: Sha256) -> PathBuf {
        repository.root().join(LOGS).join(format!("{set}.json"))
    }
}
