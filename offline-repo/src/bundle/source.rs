// SPDX-License-Identifier: GPL-3.0-or-later
//! A bundle, or as many of its volumes as are there, as a source for the TUF client.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Result, anyhow};
use signing::digest;
use signing::output::Refused;
use signing::tuf::{Offer, Source, SourceError};

use super::{METADATA, Manifest, Piece, SITE_METADATA, Volume, target_of};
use crate::tarindex::TarError;

/// The largest zstd window, as a power of two. Level 19 uses 2^23.
const WINDOW_LOG: u32 = 25;

/// Where bytes lie.
#[derive(Debug, Clone, Copy)]
struct Extent {
    file: usize,
    offset: u64,
    size: u64,
}

/// A piece of a target that was taken from a volume which is not here now.
#[derive(Debug)]
pub struct Loose<R = File> {
    /// The target's path.
    pub path: String,
    /// Which piece.
    pub piece: Piece,
    /// Its bytes.
    pub reader: R,
    /// Their number.
    pub size: u64,
}

/// A bundle as a source for the TUF client.
#[derive(Debug)]
pub struct BundleSource<R = File> {
    files: Vec<R>,
    /// Every metadata member by its whole name, in the archive's order.
    metadata: Vec<(String, Extent)>,
    /// The targets that are here whole, each by the extents of its compressed form.
    targets: BTreeMap<String, Vec<Extent>>,
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
            manifest,
            place: METADATA,
        };
        let mut pieces: BTreeMap<String, (u32, BTreeMap<u32, Extent>)> = BTreeMap::new();
        let mut add = |path: &str, piece: Option<Piece>, extent: Extent| {
            let piece = piece.unwrap_or(Piece { number: 1, of: 1 });
            let (of, known) = pieces.entry(path.to_owned()).or_insert((piece.of, BTreeMap::new()));
            if *of != piece.of || known.insert(piece.number, extent).is_some() {
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
                if let Some(path) = target_of(name, piece) {
                    add(path, piece, extent)?;
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
            add(&loose.path, Some(loose.piece), extent)?;
            source.files.push(loose.reader);
        }
        let whole = pieces
            .into_iter()
            .filter(|(_, (of, known))| known.len() == *of as usize);
        source.targets = whole
            .map(|(path, (_, known))| (path, known.into_values().collect()))
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

    /// The length of a metadata file.
    #[must_use]
    pub fn metadata_size(&self, name: &str) -> Option<u64> {
        self.metadata_extent(name).map(|extent| extent.size)
    }

    /// The length of a target as it is carried, compressed.
    #[must_use]
    pub fn carried_size(&self, path: &str) -> Option<u64> {
        let extents = self.targets.get(path)?;
        Some(extents.iter().map(|extent| extent.size).sum())
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
        let io = |source| SourceError::of_read(path, source);
        let Some(extents) = self.targets.get(path) else {
            return Ok(None);
        };
        let run = BufReader::with_capacity(1 << 17, Run::new(&mut self.files, extents));
        let mut decoder = zstd::stream::read::Decoder::with_buffer(run).map_err(io)?;
        decoder.window_log_max(WINDOW_LOG).map_err(io)?;
        Ok(Some(Box::new(Unpacked(decoder))))
    }
}

/// Reads extents one behind the other.
struct Run<'a, R> {
    files: &'a mut [R],
    /// What is still to come, the next one last.
    extents: Vec<Extent>,
    /// Whether the next one has been read from.
    begun: bool,
}

impl<'a, R> Run<'a, R> {
    fn new(files: &'a mut [R], extents: &[Extent]) -> Self {
        Self {
            files,
            extents: extents.iter().rev().copied().collect(),
            begun: false,
        }
    }
}

impl<R: Read + Seek> Read for Run<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while let Some(extent) = self.extents.last_mut() {
            if extent.size == 0 {
                self.extents.pop();
                self.begun = false;
                continue;
            }
            let file = &mut self.files[extent.file];
            if !self.begun {
                file.seek(SeekFrom::Start(extent.offset))?;
                self.begun = true;
            }
            let wanted = bytes.len().min(usize::try_from(extent.size).unwrap_or(usize::MAX));
            let count = file.read(&mut bytes[..wanted])?;
            extent.size -= count as u64;
            return Ok(count);
        }
        Ok(0)
    }
}

/// Says of a frame that cannot be unpacked that it was altered, where the stick itself can be read.
struct Unpacked<D>(D);

impl<D: Read> Read for Unpacked<D> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes).map_err(|error| match error.raw_os_error() {
            Some(_) => error,
            None => io::Error::new(
                io::ErrorKind::InvalidData,
                format!("its compressed form is damaged ({error})"),
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use signing::digest::Sha256;

    use super::super::{BundleWriter, MemberFacts, Piece, VolumeFacts, member_name};
    use super::*;

    fn bundle(members: &[(&str, &[u8])]) -> Result<BundleSource<Cursor<Vec<u8>>>, TarError> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in members {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, *content).unwrap();
        }
        BundleSource::new(Cursor::new(builder.into_inner().unwrap()))
    }

    const MANIFEST: (&str, &[u8]) = (
        "bundle.json",
        br#"{"format":1,"created_by":"test","releases":["1.0.0"]}"#,
    );

    #[test]
    fn what_is_written_is_read() {
        let list = Manifest::new(vec!["1.0.0".parse().unwrap()], None);
        let mut writer = BundleWriter::new(Vec::new(), &list).unwrap();
        writer.metadata("timestamp.json", b"{}").unwrap();
        let packed = zstd::encode_all(&[7; 100_000][..], 3).unwrap();
        let size = packed.len() as u64;
        writer
            .target("host/1.0.0/aa.root.erofs", None, size, &mut &packed[..])
            .unwrap();
        let mut source = BundleSource::new(Cursor::new(writer.finish().unwrap())).unwrap();
        assert_eq!(source.metadata("timestamp.json", 2).unwrap().unwrap(), b"{}");
        assert!(matches!(
            source.metadata("timestamp.json", 1),
            Err(SourceError::TooLong { .. })
        ));
        assert!(source.metadata("root.json", 9).unwrap().is_none());
        let mut content = Vec::new();
        let mut target = source.target("host/1.0.0/aa.root.erofs").unwrap().unwrap();
        target.read_to_end(&mut content).unwrap();
        drop(target);
        assert_eq!(content, [7; 100_000]);
        assert!(source.carried_size("host/1.0.0/aa.root.erofs").unwrap() < 1000);
    }

    #[test]
    fn a_name_that_no_reader_takes_is_not_written() {
        let list = Manifest::new(vec!["1.0.0".parse().unwrap()], None);
        let mut writer = BundleWriter::new(Vec::new(), &list).unwrap();
        let long = "x".repeat(200);
        assert!(writer.metadata(&long, b"").is_err());
        assert!(writer.target(&long, None, 0, &mut &b""[..]).is_err());
        BundleSource::new(Cursor::new(writer.finish().unwrap())).unwrap();
    }

    #[test]
    fn members_without_a_place_are_refused() {
        assert!(bundle(&[MANIFEST]).is_ok());
        assert!(bundle(&[MANIFEST, ("site/metadata/x", b"")]).unwrap().carries_site());
        for name in [
            "extra",
            "metadata/sub/x",
            "targets/x",
            "else/x.zst",
            "site/x",
            "site/metadata",
            "site/metadata/sub/x",
            "site/targets/x.zst",
        ] {
            assert!(bundle(&[MANIFEST, (name, b"")]).is_err(), "{name}");
        }
        assert!(
            bundle(&[MANIFEST, ("targets/x.zst", b""), ("metadata/x", b"")]).is_err(),
            "order"
        );
        assert!(
            bundle(&[MANIFEST, ("site/metadata/x", b""), ("metadata/x", b"")]).is_err(),
            "order of the repositories"
        );
        assert!(bundle(&[("metadata/x", b""), MANIFEST]).is_err(), "manifest first");
        assert!(bundle(&[("metadata/x", b"")]).is_err(), "no manifest");
        assert!(bundle(&[("bundle.json", b"{\"format\":2,\"created_by\":\"\",\"releases\":[]}")]).is_err());
    }

    #[test]
    fn a_frame_with_a_huge_window_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        for _ in 0..100 {
            encoder.write_all(&[1; 1 << 20]).unwrap();
        }
        let bomb = encoder.finish().unwrap();
        let mut source = bundle(&[MANIFEST, ("targets/bomb.zst", &bomb)]).unwrap();
        let mut target = source.target("bomb").unwrap().unwrap();
        assert!(target.read(&mut [0; 10]).is_err());
    }

    #[test]
    fn a_damaged_frame_is_an_error_and_not_an_end() {
        let mut frame = zstd::encode_all(&[9u8; 5000][..], 3).unwrap();
        let last = frame.len() - 1;
        frame.truncate(last);
        let mut source = bundle(&[MANIFEST, ("targets/x.zst", &frame)]).unwrap();
        let mut target = source.target("x").unwrap().unwrap();
        assert!(target.read_to_end(&mut Vec::new()).is_err());
    }

    /// Two volumes of a target in three frames, and what `change` makes of their lists.
    fn volumes(change: impl Fn(&mut VolumeFacts)) -> Vec<Vec<u8>> {
        let frames = [1u8, 2, 3].map(|byte| zstd::encode_all(&[byte; 1000][..], 3).unwrap());
        let pieces = [[&frames[0][..], &frames[1]].concat(), frames[2].clone()];
        let volume = |(number, content): (u32, &Vec<u8>)| {
            let piece = Some(Piece { number, of: 2 });
            let mut facts = VolumeFacts {
                set: Sha256::of(b"set"),
                number,
                of: 2,
                members: vec![
                    MemberFacts {
                        name: "metadata/timestamp.json".into(),
                        size: 2,
                        sha256: Sha256::of(b"{}"),
                        piece: None,
                    },
                    MemberFacts {
                        name: member_name("host/x", piece),
                        size: content.len() as u64,
                        sha256: Sha256::of(content),
                        piece,
                    },
                ],
            };
            change(&mut facts);
            let list = Manifest::new(vec!["1.0.0".parse().unwrap()], Some(facts));
            let mut writer = BundleWriter::volume(Vec::new(), &list, "signature").unwrap();
            writer.metadata("timestamp.json", b"{}").unwrap();
            writer
                .target("host/x", piece, content.len() as u64, &mut &content[..])
                .unwrap();
            writer.finish().unwrap()
        };
        (1..).zip(&pieces).map(volume).collect()
    }

    fn open(bytes: &[u8]) -> Result<Volume<Cursor<Vec<u8>>>, TarError> {
        Volume::new(Cursor::new(bytes.to_vec()))
    }

    #[test]
    fn volumes_in_any_order_are_one_target_and_one_alone_is_none() {
        let both = volumes(|_| ());
        for order in [[0, 1], [1, 0]] {
            let opened = order.map(|index: usize| open(&both[index]).unwrap());
            let mut source = BundleSource::gather(opened.into(), Vec::new()).unwrap();
            let mut content = Vec::new();
            source
                .target("host/x")
                .unwrap()
                .unwrap()
                .read_to_end(&mut content)
                .unwrap();
            assert_eq!(content, [[1; 1000], [2; 1000], [3; 1000]].concat());
            assert_eq!(source.metadata("timestamp.json", 9).unwrap().unwrap(), b"{}");
        }
        let mut alone = BundleSource::gather(vec![open(&both[1]).unwrap()], Vec::new()).unwrap();
        assert!(alone.target_paths().is_empty() && alone.target("host/x").unwrap().is_none());
        let second = zstd::encode_all(&[3; 1000][..], 3).unwrap();
        let loose = Loose {
            path: "host/x".into(),
            piece: Piece { number: 2, of: 2 },
            size: second.len() as u64,
            reader: Cursor::new(second),
        };
        let source = BundleSource::gather(vec![open(&both[0]).unwrap()], vec![loose]).unwrap();
        assert_eq!(source.target_paths().len(), 1);
    }

    /// The recipe: each list says one thing that is not so.
    #[test]
    fn volumes_that_are_not_what_they_say_are_refused() {
        let changes: [fn(&mut VolumeFacts); 9] = [
            |facts| facts.number = 0,
            |facts| facts.number = 3,
            |facts| facts.of = 10_000,
            |facts| drop(facts.members.pop()),
            |facts| facts.members.reverse(),
            |facts| facts.members[1].size += 1,
            |facts| facts.members[1].piece = Some(Piece { number: 3, of: 2 }),
            |facts| facts.members[1].piece = Some(Piece { number: 1, of: 1 }),
            |facts| facts.members[1].piece = None,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            assert!(volumes(change).iter().any(|bytes| open(bytes).is_err()), "{index}");
        }
        let (both, other) = (volumes(|_| ()), volumes(|facts| facts.set = Sha256::of(b"other")));
        let gather = |volumes: [&[u8]; 2]| {
            BundleSource::gather(volumes.map(|bytes| open(bytes).unwrap()).into(), Vec::new()).map(drop)
        };
        assert!(gather([&both[0], &both[1]]).is_ok());
        assert!(gather([&both[0], &other[1]]).is_err(), "two sets");
        assert!(gather([&both[0], &both[0]]).is_err(), "one twice");
        let three = volumes(|facts| {
            facts.members[1].piece = Some(Piece {
                number: facts.number,
                of: 3,
            })
        });
        assert!(gather([&three[0], &both[1]]).is_err(), "another number of pieces");
    }

    #[test]
    fn a_damaged_member_is_named() {
        let mut bytes = volumes(|_| ()).remove(0);
        assert_eq!(open(&bytes).unwrap().damaged().unwrap(), None);
        let frame = bytes
            .windows(4)
            .position(|four| four == [0x28, 0xb5, 0x2f, 0xfd])
            .unwrap();
        bytes[frame + 9] ^= 1;
        let named = open(&bytes).unwrap().damaged().unwrap();
        assert_eq!(named.as_deref(), Some("targets/host/x.zst.0001"));
    }
}
