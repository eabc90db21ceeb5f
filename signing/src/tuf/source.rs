// SPDX-License-Identifier: GPL-3.0-or-later
//! Where a client's bytes come from. Nothing here is trusted: a source only has to tell absent from unreachable.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::digest;

use super::names::check_target_name;

/// A source could not say.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be reached or read.
    #[error("cannot read {name} from the repository: {source}")]
    Io {
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// It was read, and its carrier (an archive, a compressed form, a length of its own) shows that it was altered or cut.
    #[error("{name} is damaged: {source}")]
    Damaged {
        /// The file.
        name: String,
        /// What is wrong.
        source: io::Error,
    },
    /// There is more than the client takes.
    #[error("{name} is longer than the {limit} bytes that are allowed")]
    TooLong {
        /// The file.
        name: String,
        /// The bound.
        limit: u64,
    },
    /// A host takes the vendor's metadata only as its site approved them.
    #[error("the vendor's {name} is not the one that the site approved")]
    NotApproved {
        /// The file.
        name: String,
    },
    /// It is carried as what it differs in from another file, and that one is not here.
    #[error(
        "{name} is carried as a delta to {base}, which is not here: ask for a bundle made for what is held here, or for a whole one"
    )]
    NoBase {
        /// The file.
        name: String,
        /// The path of the other one, as a target.
        base: String,
    },
    /// What stands there is not a regular file.
    #[error("{name} is not a regular file")]
    NotAFile {
        /// The file.
        name: String,
    },
}

impl SourceError {
    /// The error for a read that failed. Bytes that came and cannot be right are another thing than bytes that did not come:
    /// a source says so with [`io::ErrorKind::InvalidData`] or [`io::ErrorKind::UnexpectedEof`].
    #[must_use]
    pub fn of_read(name: &str, source: io::Error) -> Self {
        let name = name.to_owned();
        match source.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Damaged { name, source },
            _ => Self::Io { name, source },
        }
    }
}

/// A repository as seen by a client.
pub trait Source {
    /// The metadata file of this name, at most `max` bytes of it. `None` says that there is none; an error says that nobody
    /// knows.
    ///
    /// # Errors
    /// When the source cannot be read, or the file is longer than `max`.
    fn metadata(&mut self, name: &str, max: u64) -> Result<Option<Vec<u8>>, SourceError>;

    /// The content of a target, at its path in the repository, such as `host/1.0.0/<sha256>.root.erofs`.
    ///
    /// # Errors
    /// When the source cannot be read.
    fn target(&mut self, path: &str) -> Result<Option<Box<dyn Read + '_>>, SourceError>;

    /// That everything is here which a target that this source has is made of: to be asked before something is given up for it.
    ///
    /// # Errors
    /// [`SourceError::NoBase`] when it is not; else when the source cannot be read.
    fn ready(&mut self, _path: &str) -> Result<(), SourceError> {
        Ok(())
    }
}

impl<S: Source + ?Sized> Source for &mut S {
    fn metadata(&mut self, name: &str, max: u64) -> Result<Option<Vec<u8>>, SourceError> {
        (**self).metadata(name, max)
    }

    fn target(&mut self, path: &str) -> Result<Option<Box<dyn Read + '_>>, SourceError> {
        (**self).target(path)
    }

    fn ready(&mut self, path: &str) -> Result<(), SourceError> {
        (**self).ready(path)
    }
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn metadata(&mut self, name: &str, max: u64) -> Result<Option<Vec<u8>>, SourceError> {
        (**self).metadata(name, max)
    }

    fn target(&mut self, path: &str) -> Result<Option<Box<dyn Read + '_>>, SourceError> {
        (**self).target(path)
    }

    fn ready(&mut self, path: &str) -> Result<(), SourceError> {
        (**self).ready(path)
    }
}

/// A repository in two directories of the local file system.
///
/// Symbolic links and everything else that is no regular file are refused: a device or a pipe on a foreign medium could
/// hold the client for ever.
#[derive(Debug, Clone)]
pub struct DirectorySource {
    metadata: PathBuf,
    targets: PathBuf,
}

impl DirectorySource {
    /// Reads metadata and targets from these directories.
    #[must_use]
    pub fn new(metadata: impl Into<PathBuf>, targets: impl Into<PathBuf>) -> Self {
        Self {
            metadata: metadata.into(),
            targets: targets.into(),
        }
    }

    /// Opens a target as a file.
    ///
    /// # Errors
    /// As [`Source::target`].
    pub fn open_target(&self, path: &str) -> Result<Option<File>, SourceError> {
        open(&self.targets, path)
    }

    /// Reads from `metadata/` and `targets/` below one directory.
    #[must_use]
    pub fn below(directory: &Path) -> Self {
        Self::new(directory.join("metadata"), directory.join("targets"))
    }
}

fn open(directory: &Path, name: &str) -> Result<Option<File>, SourceError> {
    let io = |source| SourceError::of_read(name, source);
    if check_target_name(name).is_err() {
        return Err(SourceError::NotAFile { name: name.to_owned() });
    }
    // A medium that is gone must not look like one that lacks a file.
    if let Err(error) = fs::metadata(directory) {
        return Err(io(error));
    }
    let path = directory.join(name);
    match fs::symlink_metadata(&path) {
        // Who puts a pipe there in the meantime is not waited for.
        Ok(found) if found.is_file() => digest::open_regular(&path).map(Some).map_err(io),
        Ok(_) => Err(SourceError::NotAFile { name: name.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(error)),
    }
}

impl Source for DirectorySource {
    fn metadata(&mut self, name: &str, max: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let Some(mut file) = open(&self.metadata, name)? else {
            return Ok(None);
        };
        match digest::read_to_limit(&mut file, max) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(SourceError::TooLong {
                name: name.to_owned(),
                limit: max,
            }),
            Err(source) => Err(SourceError::of_read(name, source)),
        }
    }

    fn target(&mut self, path: &str) -> Result<Option<Box<dyn Read + '_>>, SourceError> {
        Ok(open(&self.targets, path)?.map(|file| Box::new(file) as Box<dyn Read>))
    }
}

#[cfg(test)]
mod tests {
    use super::super::TufError;
    use super::*;

    #[test]
    fn tells_absent_from_unreachable() {
        let directory = tempfile::tempdir().unwrap();
        let mut source = DirectorySource::new(directory.path(), directory.path());
        assert!(source.metadata("timestamp.json", 10).unwrap().is_none());
        let mut gone = DirectorySource::below(&directory.path().join("unplugged"));
        assert!(matches!(
            gone.metadata("timestamp.json", 10),
            Err(SourceError::Io { .. })
        ));
    }

    #[test]
    fn tells_damaged_from_unreachable() {
        let error = |kind: io::ErrorKind| TufError::from(SourceError::of_read("host/1.0.0/root.erofs", kind.into()));
        for kind in [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof] {
            let damaged = error(kind);
            assert!(damaged.is_refusal(), "{damaged}");
            assert_eq!(damaged.code(), "hash-mismatch");
            assert!(damaged.reason().starts_with("host/1.0.0/root.erofs is damaged"));
        }
        let unplugged = error(io::ErrorKind::Other);
        assert!(!unplugged.is_refusal(), "{unplugged}");
        assert_eq!(unplugged.code(), "source");
    }

    #[test]
    fn refuses_links_pipes_and_endless_files() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/zero", directory.path().join("zero")).unwrap();
        fs::create_dir(directory.path().join("directory")).unwrap();
        fs::write(directory.path().join("long"), [b'x'; 11]).unwrap();
        let mut source = DirectorySource::new(directory.path(), directory.path());
        assert!(matches!(source.target("zero"), Err(SourceError::NotAFile { .. })));
        assert!(matches!(
            source.metadata("directory", 10),
            Err(SourceError::NotAFile { .. })
        ));
        assert!(matches!(source.metadata("long", 10), Err(SourceError::TooLong { .. })));
        assert!(source.metadata("../long", 10).is_err());
    }
}
