// SPDX-License-Identifier: GPL-3.0-or-later
//! A bundle: a TUF repository, or the new part of one, as one file for a stick.
//!
//! A plain tar with its members in this order: `bundle.json`, `metadata/*`, from a gateway whose officers approve also
//! `site/metadata/*`, `targets/*.zst` (zstd frames, RFC 8878).
//!
//! Attacks: those on the archive, see [`crate::tarindex`]; members in places where no reader looks, to smuggle something
//! over the gap; a frame that unpacks without end, or that wants a huge window; a `bundle.json` that promises what the
//! signed metadata does not.
//! Defence: nothing is unpacked to the disk from here: a bundle is a [`Source`] whose bytes the TUF client judges, with
//! its own bounds; names outside these places are refused; a window over 32 MiB is refused by zstd, and the client
//! stops reading at the signed length. `bundle.json` decides nothing: it is for a person, and for a check that what was
//! meant to be carried has arrived.
//! Not defended: a stick that is slow on purpose.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use signing::digest;
use signing::output::Refused;
use signing::release::Version;
use signing::tuf::{Offer, Source, SourceError};

use crate::tarindex::{TarError, TarIndex};

/// The format's number.
pub const FORMAT: u32 = 1;
/// The largest `bundle.json`.
const LARGEST_MANIFEST: u64 = 1 << 20;
/// The largest zstd window, as a power of two. Level 19 uses 2^23.
const WINDOW_LOG: u32 = 25;

/// `bundle.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always 1.
    pub format: u32,
    /// The program and its version.
    pub created_by: String,
    /// The releases whose parts are in the bundle.
    pub releases: Vec<Version>,
}

/// A bundle as a source for the TUF client.
#[derive(Debug)]
pub struct BundleSource<R = File> {
    tar: TarIndex<R>,
    manifest: Manifest,
    /// Where this repository's metadata stand.
    metadata: &'static str,
}

const METADATA: &str = "metadata/";
const SITE_METADATA: &str = "site/metadata/";

impl BundleSource<File> {
    /// Opens a bundle.
    ///
    /// # Errors
    /// [`Refused`] in the chain when the file is no bundle; else when it cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || format!("cannot use the bundle {}", path.display());
        let file = digest::open_regular(path).with_context(open)?;
        Self::new(file).with_context(open)
    }

    /// Opens a bundle with all of its repositories: the vendor's, and the site's where it carries one.
    ///
    /// # Errors
    /// As [`BundleSource::open`].
    pub fn offer(path: &Path) -> Result<Offer<Self>> {
        let vendor = Self::open(path)?;
        let site = match vendor.carries_site() {
            true => Some(Self {
                metadata: SITE_METADATA,
                ..Self::open(path)?
            }),
            false => None,
        };
        Ok(Offer { vendor, site })
    }
}

impl<R: Read + Seek> BundleSource<R> {
    /// Indexes a bundle.
    ///
    /// # Errors
    /// As [`BundleSource::open`].
    pub fn new(reader: R) -> Result<Self, TarError> {
        let refused = |why: String| TarError::Refused(Refused(why));
        let mut tar = TarIndex::open(reader)?;
        let mut stage = 0;
        for (index, name) in tar.names().iter().enumerate() {
            let next = match name.split_once('/') {
                None if index == 0 && name == "bundle.json" => 0,
                Some(("metadata", file)) if !file.contains('/') => 1,
                Some(("site", path))
                    if path
                        .strip_prefix("metadata/")
                        .is_some_and(|file| !file.is_empty() && !file.contains('/')) =>
                {
                    2
                }
                Some(("targets", path)) if path.ends_with(".zst") => 3,
                _ => return Err(refused(format!("{name} has no place in a bundle"))),
            };
            if next < stage {
                return Err(refused(format!("{name} stands in the wrong order")));
            }
            stage = next;
        }
        let manifest = match tar.read("bundle.json")? {
            Some(mut reader) => digest::read_to_limit(&mut reader, LARGEST_MANIFEST)?,
            None => return Err(refused("it is no bundle: bundle.json is missing".into())),
        };
        let manifest: Manifest =
            serde_json::from_slice(&manifest).map_err(|error| refused(format!("bundle.json is malformed: {error}")))?;
        if manifest.format != FORMAT {
            return Err(refused(format!(
                "the bundle has format {}, this program reads format {FORMAT}",
                manifest.format
            )));
        }
        Ok(Self {
            tar,
            manifest,
            metadata: METADATA,
        })
    }

    /// What the bundle says of itself, which nobody signed.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether it carries a site's approval of what is in it.
    #[must_use]
    pub fn carries_site(&self) -> bool {
        self.tar.names().iter().any(|name| name.starts_with(SITE_METADATA))
    }

    /// The names of this repository's metadata files.
    pub fn metadata_names(&self) -> impl Iterator<Item = &str> {
        self.tar
            .names()
            .iter()
            .filter_map(|name| name.strip_prefix(self.metadata))
    }

    /// The paths of the targets, as [`Source::target`] takes them.
    #[must_use]
    pub fn target_paths(&self) -> BTreeSet<String> {
        let paths = self.tar.names().iter();
        paths
            .filter_map(|name| name.strip_prefix("targets/")?.strip_suffix(".zst"))
            .map(str::to_owned)
            .collect()
    }

    /// The length of a metadata file.
    #[must_use]
    pub fn metadata_size(&self, name: &str) -> Option<u64> {
        let name = format!("{}{name}", self.metadata);
        self.tar.member(&name).map(|member| member.size)
    }

    /// The length of a target as it is carried, compressed.
    #[must_use]
    pub fn carried_size(&self, path: &str) -> Option<u64> {
        self.tar
            .member(&format!("targets/{path}.zst"))
            .map(|member| member.size)
    }
}

impl<R: Read + Seek> Source for BundleSource<R> {
    fn metadata(&mut self, name: &str, max: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let io = |source| SourceError::of_read(name, source);
        let Some(mut reader) = self.tar.read(&format!("{}{name}", self.metadata)).map_err(io)? else {
            return Ok(None);
        };
        if reader.limit() > max {
            return Err(SourceError::TooLong {
                name: name.to_owned(),
                limit: max,
            });
        }
        let wanted = reader.limit();
        let bytes = digest::read_to_limit(&mut reader, max).map_err(io)?;
        if bytes.len() as u64 == wanted {
            Ok(Some(bytes))
        } else {
            Err(io(io::ErrorKind::UnexpectedEof.into()))
        }
    }

    fn target(&mut self, path: &str) -> Result<Option<Box<dyn Read + '_>>, SourceError> {
        let io = |source| SourceError::of_read(path, source);
        let Some(reader) = self.tar.read(&format!("targets/{path}.zst")).map_err(io)? else {
            return Ok(None);
        };
        let mut decoder =
            zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(1 << 17, reader)).map_err(io)?;
        decoder.window_log_max(WINDOW_LOG).map_err(io)?;
        Ok(Some(Box::new(Unpacked(decoder))))
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

/// Writes a bundle, member by member; finished with [`BundleWriter::finish`].
pub struct BundleWriter<W: Write> {
    tar: tar::Builder<W>,
    scratch: PathBuf,
}

impl<W: Write> BundleWriter<W> {
    /// Starts a bundle. Compressed targets lie in `scratch`, without a name, until their length is known.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(to: W, scratch: &Path, releases: Vec<Version>) -> Result<Self> {
        let mut writer = Self {
            tar: tar::Builder::new(to),
            scratch: scratch.to_path_buf(),
        };
        let mut manifest = serde_json::to_vec_pretty(&Manifest {
            format: FORMAT,
            created_by: format!("bastide-repo {}", env!("CARGO_PKG_VERSION")),
            releases,
        })?;
        manifest.push(b'\n');
        writer.member("bundle.json", manifest.len() as u64, &mut manifest.as_slice())?;
        Ok(writer)
    }

    /// Adds a metadata file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn metadata(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.member(&format!("{METADATA}{name}"), bytes.len() as u64, &mut &bytes[..])
    }

    /// Adds a metadata file of the site's repository, after those of the vendor's.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn site_metadata(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.member(&format!("{SITE_METADATA}{name}"), bytes.len() as u64, &mut &bytes[..])
    }

    /// Adds a target: `give` writes its content, which is compressed on the way.
    ///
    /// # Errors
    /// When `give` fails or the bundle cannot be written.
    pub fn target(&mut self, path: &str, level: i32, give: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        let scratch = || format!("cannot compress {path} in {}", self.scratch.display());
        let file = tempfile::tempfile_in(&self.scratch).with_context(scratch)?;
        let mut encoder = zstd::stream::write::Encoder::new(file, level).with_context(scratch)?;
        encoder.include_checksum(true).with_context(scratch)?;
        give(&mut encoder)?;
        let mut file = encoder.finish().with_context(scratch)?;
        let size = file.stream_position().with_context(scratch)?;
        file.rewind().with_context(scratch)?;
        self.member(&format!("targets/{path}.zst"), size, &mut file)
    }

    /// Ends the archive and gives back what it was written to.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> Result<W> {
        self.tar.into_inner().context("cannot end the bundle")
    }

    /// The same content gives the same bytes: no owner, no date.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

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
        let scratch = tempfile::tempdir().unwrap();
        let write = || {
            let mut writer = BundleWriter::new(Vec::new(), scratch.path(), vec!["1.0.0".parse().unwrap()]).unwrap();
            writer.metadata("timestamp.json", b"{}").unwrap();
            let give = |to: &mut dyn Write| Ok(to.write_all(&[7; 100_000])?);
            writer.target("host/1.0.0/aa.root.erofs", 3, give).unwrap();
            writer.finish().unwrap()
        };
        let bytes = write();
        assert_eq!(bytes, write(), "two writes differ");
        let mut source = BundleSource::new(Cursor::new(bytes)).unwrap();
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
        let scratch = tempfile::tempdir().unwrap();
        let mut writer = BundleWriter::new(Vec::new(), scratch.path(), vec!["1.0.0".parse().unwrap()]).unwrap();
        let long = "x".repeat(200);
        assert!(writer.metadata(&long, b"").is_err());
        assert!(writer.target(&long, 1, |_| Ok(())).is_err());
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
}
