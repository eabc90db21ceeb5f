// SPDX-License-Identifier: GPL-3.0-or-later
//! The working directory: results of steps, each in a directory named by the content that it was made from.
//!
//! A result is made beside its place, as `KEY.partial`, and renamed when it is whole, so a killed run leaves nothing that
//! a later one takes for whole. A later run with the same inputs finds the result and makes nothing.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use signing::digest::{Hasher, Sha256};
use signing::durable::Lock;

/// How many results of one kind are kept: two releases are often built in turns.
const KEPT: usize = 3;

/// The working directory, locked for this process.
pub struct Work {
    directory: PathBuf,
    _lock: Lock,
}

/// The result of a step.
pub struct Made {
    /// Where it lies.
    pub path: PathBuf,
    /// Whether an earlier run made it.
    pub kept: bool,
}

impl Work {
    /// Opens the working directory, made if need be.
    ///
    /// # Errors
    /// When it cannot be made, or another build works in it.
    pub fn open(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make the working directory {}", directory.display()))?;
        let directory = directory
            .canonicalize()
            .with_context(|| format!("cannot resolve {}", directory.display()))?;
        let lock = Lock::take(&directory)
            .with_context(|| format!("cannot lock the working directory {}", directory.display()))?;
        Ok(Self { directory, _lock: lock })
    }

    /// A path in the working directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where the result of kind `kind` with this key lies or would lie.
    #[must_use]
    pub fn place(&self, kind: &str, key: &Sha256) -> PathBuf {
        self.directory.join(kind).join(&key.to_string()[..32])
    }

    /// Whether the result is there.
    #[must_use]
    pub fn has(&self, kind: &str, key: &Sha256) -> bool {
        self.place(kind, key).is_dir()
    }

    /// Finds the result of kind `kind` with this key, or makes it with `make`, which fills an empty directory.
    ///
    /// # Errors
    /// When `make` fails; nothing is then left that looks like a result.
    pub fn once(&self, kind: &str, key: &Sha256, make: impl FnOnce(&Path) -> Result<()>) -> Result<Made> {
        let place = self.place(kind, key);
        if place.is_dir() {
            touch(&place);
            return Ok(Made {
                path: place,
                kept: true,
            });
        }
        let parent = self.directory.join(kind);
        fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
        self.prune(&parent)?;
        let partial = place.with_extension("partial");
        fs::create_dir(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
        make(&partial)?;
        sync(&partial)?;
        fs::rename(&partial, &place).with_context(|| format!("cannot put {} into its place", place.display()))?;
        Ok(Made {
            path: place,
            kept: false,
        })
    }

    /// Removes what a killed run left, and the oldest results beyond those worth keeping.
    fn prune(&self, parent: &Path) -> Result<()> {
        let mut whole = Vec::new();
        for entry in fs::read_dir(parent).with_context(|| format!("cannot list {}", parent.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "partial") {
                remove(&path)?;
            } else {
                let used = fs::metadata(&path)
                    .and_then(|data| data.modified())
                    .unwrap_or(SystemTime::UNIX_EPOCH);
                whole.push((used, path));
            }
        }
        whole.sort();
        let surplus = (whole.len() + 1).saturating_sub(KEPT);
        whole.iter().take(surplus).try_for_each(|(_, path)| remove(path))
    }
}

/// Removes a tree if it is there.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes a file if it is there.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A result that was used now is the last to be removed.
fn touch(place: &Path) {
    let now = nix::sys::time::TimeSpec::UTIME_NOW;
    let _ = nix::sys::stat::utimensat(
        nix::fcntl::AT_FDCWD,
        place,
        &now,
        &now,
        nix::sys::stat::UtimensatFlags::FollowSymlink,
    );
}

/// Everything below is on the disk before the rename says that it is whole.
fn sync(path: &Path) -> Result<()> {
    let directory = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    nix::unistd::syncfs(&directory).with_context(|| format!("cannot sync {}", path.display()))
}

/// A key under construction: a hash over named, length-prefixed parts, so that no two lists of parts are alike.
pub struct Key(Hasher);

impl Key {
    /// A key of one kind of result. `recipe` counts changes of the code that makes it.
    #[must_use]
    pub fn new(kind: &str, recipe: u32) -> Self {
        Self(Hasher::new()).with(kind.as_bytes()).with(&recipe.to_le_bytes())
    }

    /// Takes in one part.
    #[must_use]
    pub fn with(mut self, part: &[u8]) -> Self {
        self.0.update(&(part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    /// Takes in a digest.
    #[must_use]
    pub fn digest(self, digest: &Sha256) -> Self {
        self.with(&digest.0)
    }

    /// Takes in a tree: names, kinds, permission to execute and content, but no dates and no owners.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub fn tree(mut self, root: &Path) -> Result<Self> {
        for entry in walkdir::WalkDir::new(root).sort_by_file_name() {
            let entry = entry.with_context(|| format!("cannot read {}", root.display()))?;
            let name = entry.path().strip_prefix(root).unwrap_or(entry.path());
            self = self.with(name.as_os_str().as_encoded_bytes());
            self = self.file(entry.path())?;
        }
        Ok(self)
    }

    /// Takes in one file's kind, permission to execute and content.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(self, path: &Path) -> Result<Self> {
        let data = fs::symlink_metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(if data.is_symlink() {
            let target = fs::read_link(path).with_context(|| format!("cannot read {}", path.display()))?;
            self.with(b"link").with(target.as_os_str().as_encoded_bytes())
        } else if data.is_file() {
            let (digest, _) = Sha256::of_file(path).with_context(|| format!("cannot read {}", path.display()))?;
            let kind = if data.mode() & 0o111 == 0 { "file" } else { "program" };
            self.with(kind.as_bytes()).digest(&digest)
        } else {
            self.with(b"directory")
        })
    }

    /// The finished key.
    #[must_use]
    pub fn finish(self) -> Sha256 {
        self.0.finish().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let key = |parts: &[&str]| {
            parts
                .iter()
                .fold(Key::new("test", 1), |key, part| key.with(part.as_bytes()))
                .finish()
        };
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["ab"]), key(&["ab", ""]));
    }

    #[test]
    fn a_failed_step_leaves_no_result_and_the_next_run_makes_it() {
        let directory = tempfile::tempdir().unwrap();
        let work = Work::open(directory.path()).unwrap();
        let key = Key::new("test", 1).finish();
        let failed = work.once("thing", &key, |path| {
            fs::write(path.join("half"), b"x")?;
            anyhow::bail!("no luck")
        });
        assert!(failed.is_err() && !work.has("thing", &key));
        let made = work
            .once("thing", &key, |path| Ok(fs::write(path.join("whole"), b"x")?))
            .unwrap();
        assert!(!made.kept && !made.path.join("half").exists());
        assert!(work.once("thing", &key, |_| anyhow::bail!("made twice")).unwrap().kept);
    }

    #[test]
    fn only_the_latest_results_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let work = Work::open(directory.path()).unwrap();
        for number in 0..6 {
            let key = Key::new("test", number).finish();
            work.once("thing", &key, |_| Ok(())).unwrap();
        }
        assert_eq!(fs::read_dir(directory.path().join("thing")).unwrap().count(), KEPT);
        assert!(work.has("thing", &Key::new("test", 5).finish()));
    }

    #[test]
    fn a_second_build_in_the_same_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let _first = Work::open(directory.path()).unwrap();
        assert!(Work::open(directory.path()).is_err());
    }
}
