// SPDX-License-Identifier: GPL-3.0-or-later
//! The compressed forms of targets, kept in `REPO/work/export` until the export is done: the costly part of an export that was
//! cut off is not done again.
//!
//! Attack: somebody who may write there puts another form in its place. Nothing there is believed: each form is hashed against
//! the note beside it, which is written last, and a receiver judges what it unpacks by TUF's digest.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use signing::digest::{self, Hashing, Sha256};
use signing::durable;
use zstd::stream::write::Encoder;

use crate::bundle::Packing;
use crate::delta::Base;

/// A note has a line for each frame.
const LARGEST_NOTE: u64 = 16 << 20;
/// A signature over a volume's list.
const LARGEST_SIGNATURE: u64 = 1 << 20;

/// How targets are compressed.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// zstd's level.
    pub level: i32,
    /// Bytes of content after which a new frame begins, where targets may be cut.
    pub segment: Option<u64>,
}

/// A target's compressed form.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packed {
    /// The target's path, with its digest in it.
    pub path: String,
    /// In which form it is carried.
    #[serde(default)]
    pub packing: Packing,
    /// Its file, in the directory of this work.
    file: String,
    /// The digest of all frames.
    pub sha256: Sha256,
    /// The length of each frame in bytes.
    pub frames: Vec<u64>,
}

/// The directory of the work, one export's at a time.
pub struct Work {
    directory: PathBuf,
    _lock: durable::Lock,
}

impl Work {
    /// Begins it, or goes on with it.
    ///
    /// # Errors
    /// When it cannot be made, or another process exports from the same repository.
    pub fn open(repository: &Path) -> Result<Self> {
        let directory = repository.join("work/export");
        let what = || format!("cannot work in {}", directory.display());
        fs::create_dir_all(&directory).with_context(what)?;
        let lock = durable::Lock::take(&directory).with_context(what)?;
        crate::store::sweep(&directory)?;
        Ok(Self { directory, _lock: lock })
    }

    /// The compressed form of a target, or of its delta to these bases: the one that is here, or a new one of what `give`
    /// writes.
    ///
    /// # Errors
    /// When `give` fails, or there is no room.
    pub fn pack(
        &self,
        path: &str,
        bases: Option<&[Base]>,
        form: Form,
        give: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<Packed> {
        let key = serde_json::to_string(&(path, bases, form.level, form.segment))?;
        let file = format!("{}.zst", Sha256::of(key.as_bytes()));
        let note = self.directory.join(format!("{file}.json"));
        if let Some(packed) = self.whole(&note, path, &file) {
            return Ok(packed);
        }
        let place = self.directory.join(&file);
        let what = || format!("cannot compress {path} into {}", place.display());
        let to = Hashing::new(durable::Writer::new(&place, 0o644).with_context(what)?);
        let mut cut = Cut::new(to, form).with_context(what)?;
        give(&mut cut)?;
        let (to, frames) = cut.finish().with_context(what)?;
        let (writer, (sha256, _)) = to.finish();
        writer.commit().with_context(what)?;
        let packed = Packed {
            path: path.to_owned(),
            packing: if bases.is_some() {
                Packing::Delta
            } else {
                Packing::Whole
            },
            file,
            sha256,
            frames,
        };
        durable::write(&note, &serde_json::to_vec(&packed)?).with_context(what)?;
        Ok(packed)
    }

    /// A form that an earlier run finished.
    fn whole(&self, note: &Path, path: &str, file: &str) -> Option<Packed> {
        let bytes = digest::read_regular(note, LARGEST_NOTE).ok()?;
        let packed: Packed = serde_json::from_slice(&bytes).ok()?;
        let found = Sha256::of_file(&self.directory.join(file)).ok()?;
        (packed.path == path && packed.file == file && found == (packed.sha256, packed.size())).then_some(packed)
    }

    /// Opens a form.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, packed: &Packed) -> Result<File> {
        let place = self.directory.join(&packed.file);
        digest::open_regular(&place).with_context(|| format!("cannot read {}", place.display()))
    }

    /// The signature over a volume's list: the one that is here, or a new one. It would be another each time, and the volume
    /// with it.
    ///
    /// # Errors
    /// When `sign` fails, or it cannot be kept.
    pub fn signature(&self, list: &[u8], sign: impl FnOnce(&[u8]) -> Result<String>) -> Result<String> {
        let place = self.directory.join(format!("{}.asc", Sha256::of(list)));
        let kept = digest::read_regular(&place, LARGEST_SIGNATURE).ok();
        if let Some(signature) = kept.and_then(|bytes| String::from_utf8(bytes).ok()) {
            return Ok(signature);
        }
        let signature = sign(list)?;
        durable::write(&place, signature.as_bytes()).with_context(|| format!("cannot write {}", place.display()))?;
        Ok(signature)
    }

    /// Clears it away.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn done(self) -> Result<()> {
        fs::remove_dir_all(&self.directory).with_context(|| format!("cannot clear {}", self.directory.display()))
    }
}

impl Packed {
    /// Bytes of all frames.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frames.iter().sum()
    }
}

/// Where frames go.
type To = Hashing<durable::Writer>;

/// Compresses what is written to it into frames.
struct Cut {
    form: Form,
    encoder: Option<Encoder<'static, To>>,
    /// Content in the current frame.
    content: u64,
    frames: Vec<u64>,
}

impl Cut {
    fn new(to: To, form: Form) -> io::Result<Self> {
        Ok(Self {
            form,
            encoder: Some(encoder(to, form)?),
            content: 0,
            frames: Vec::new(),
        })
    }

    fn end_frame(&mut self) -> io::Result<To> {
        let encoder = self
            .encoder
            .take()
            .ok_or_else(|| io::Error::other("a frame failed before"))?;
        let to = encoder.finish()?;
        let before: u64 = self.frames.iter().sum();
        self.frames.push(to.length() - before);
        self.content = 0;
        Ok(to)
    }

    fn finish(mut self) -> io::Result<(To, Vec<u64>)> {
        let to = self.end_frame()?;
        Ok((to, self.frames))
    }
}

fn encoder(to: To, form: Form) -> io::Result<Encoder<'static, To>> {
    let mut encoder = Encoder::new(to, form.level)?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

impl Write for Cut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut wanted = bytes.len();
        if let Some(segment) = self.form.segment {
            if self.content == segment {
                let to = self.end_frame()?;
                self.encoder = Some(encoder(to, self.form)?);
            }
            wanted = wanted.min(usize::try_from(segment - self.content).unwrap_or(usize::MAX));
        }
        let encoder = self
            .encoder
            .as_mut()
            .ok_or_else(|| io::Error::other("a frame failed before"))?;
        let count = encoder.write(&bytes[..wanted])?;
        self.content += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.as_mut().map_or(Ok(()), Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The recipe: a form altered, its note gone, its note another's.
    #[test]
    fn what_is_whole_is_not_done_again_and_nothing_else_is_believed() {
        let directory = tempfile::tempdir().unwrap();
        let form = Form {
            level: 3,
            segment: Some(10_000),
        };
        let content: Vec<u8> = (0..25_000u32).map(|n| (n / 7) as u8).collect();
        let pack = |again: bool| {
            let work = Work::open(directory.path()).unwrap();
            let mut asked = false;
            let packed = work
                .pack("host/x", None, form, |to| {
                    asked = true;
                    Ok(to.write_all(&content)?)
                })
                .unwrap();
            assert_eq!(asked, again);
            let mut frames = Vec::new();
            io::copy(&mut work.read(&packed).unwrap(), &mut frames).unwrap();
            assert_eq!(zstd::decode_all(&frames[..]).unwrap(), content);
            packed
        };
        let packed = pack(true);
        assert_eq!(packed.frames.len(), 3);
        pack(false);
        let place = directory.path().join("work/export").join(&packed.file);
        let note = place.with_extension("zst.json");
        let mut altered = fs::read(&place).unwrap();
        altered[20] ^= 1;
        fs::write(&place, altered).unwrap();
        pack(true);
        fs::write(&note, fs::read_to_string(&note).unwrap().replace("host/x", "host/y")).unwrap();
        pack(true);
        fs::remove_file(&note).unwrap();
        pack(true);
        Work::open(directory.path()).unwrap().done().unwrap();
        assert!(!place.exists());
    }

    #[test]
    fn nothing_is_a_frame_too() {
        let directory = tempfile::tempdir().unwrap();
        let work = Work::open(directory.path()).unwrap();
        let form = Form {
            level: 3,
            segment: None,
        };
        let packed = work.pack("empty", None, form, |_| Ok(())).unwrap();
        assert_eq!(packed.frames.len(), 1);
        assert!(Work::open(directory.path()).is_err(), "two exports at once");
    }
}
