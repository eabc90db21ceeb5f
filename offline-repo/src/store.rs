// SPDX-License-Identifier: GPL-3.0-or-later
//! The store of the low side: a pool of immutable objects named by their content, and snapshots that name them.
//!
//! ```text
//! STORE/.lock                        one writer at a time
//! STORE/pool/sha256/ab/<64 digits>   packages and upstream's Packages files
//! STORE/snapshots/<name>/            snapshot.json, upstream/<suite>/...
//! STORE/work/<name>/                 apt's private root and unfinished downloads; may be deleted at any time
//! ```
//!
//! An object comes into the pool only whole: hashed while it is copied or before it is moved, synced, renamed. A killed
//! writer leaves temporaries that nobody reads.
//!
//! Who has a store open holds a shared lock (flock(2)) on `pool`, so that nobody takes objects away meanwhile; who takes them
//! away holds it alone, and the writer's lock with it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use signing::digest::{self, Sha256};
use signing::durable;
use signing::output::Refused;
use tempfile::TempDir;

use crate::snapshot::{self, Snapshot};
use crate::spec::is_name;

/// How the names of what is not finished begin, or is being taken away.
pub const TEMPORARY: &str = ".incomplete-";

/// The one writer of a store, until dropped.
pub struct Lock {
    _lock: durable::Lock,
}

/// A store's directory. While it or a copy of it is there, nobody takes objects away.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    _present: Arc<Present>,
}

/// The lock on `pool`, shared or not.
#[derive(Debug)]
struct Present(File);

impl Drop for Present {
    /// Unlocks and does not only close, as [`durable::Lock`] does.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// A store that nobody else has open: objects and snapshots may be taken away.
pub struct Alone {
    store: Store,
    _lock: Lock,
}

impl Alone {
    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }
}

/// What a directory of the pool holds.
#[derive(Debug, Default)]
pub struct Listed {
    /// The names of the objects.
    pub objects: Vec<Sha256>,
    /// What has no object's name, and is no writer's temporary.
    pub strangers: Vec<PathBuf>,
}

impl Store {
    /// Opens a store that exists.
    ///
    /// # Errors
    /// When the directory is not a store, or objects are just taken away from it.
    pub fn open(root: &Path) -> Result<Self> {
        Self::present(root, |pool| match pool.try_lock_shared() {
            Err(fs::TryLockError::WouldBlock) => {
                bail!("it is being pruned by another process: wait for it to end")
            }
            // Where there are no locks, nobody is kept out; nothing is taken away there either.
            Ok(()) | Err(fs::TryLockError::Error(_)) => Ok(()),
        })
    }

    /// Opens a store that exists, and that nobody else has open.
    ///
    /// # Errors
    /// When the directory is not a store, somebody has it open, or there are no locks.
    pub fn open_alone(root: &Path) -> Result<Alone> {
        let store = Self::present(root, |pool| match pool.try_lock() {
            Err(fs::TryLockError::WouldBlock) => bail!("it is in use by another process: wait for it to end"),
            other => other.context("it cannot be locked"),
        })?;
        let lock = store.lock()?;
        Ok(Alone { store, _lock: lock })
    }

    fn present(root: &Path, lock: impl FnOnce(&File) -> Result<()>) -> Result<Self> {
        if !root.join("pool").is_dir() {
            bail!(
                "{} is not a store: make one with `bastide-repo mirror SPEC --store {0}`",
                root.display()
            );
        }
        let open = || format!("cannot open the store {}", root.display());
        let root = fs::canonicalize(root).with_context(open)?;
        let pool = File::open(root.join("pool")).with_context(open)?;
        lock(&pool).with_context(open)?;
        let present = Arc::new(Present(pool));
        Ok(Self {
            root,
            _present: present,
        })
    }

    /// Opens a store, made where there is none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(root: &Path) -> Result<Self> {
        for part in ["pool/sha256", "snapshots", "work"] {
            let directory = root.join(part);
            fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        Self::open(root)
    }

    /// The store's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Becomes the one writer.
    ///
    /// # Errors
    /// When another process is.
    pub fn lock(&self) -> Result<Lock> {
        let lock = durable::Lock::take(&self.root)
            .with_context(|| format!("cannot write to the store {}", self.root.display()))?;
        Ok(Lock { _lock: lock })
    }

    /// The place of an object, whether it is there or not.
    #[must_use]
    pub fn object(&self, sha256: &Sha256) -> PathBuf {
        let name = sha256.to_string();
        self.root.join("pool/sha256").join(&name[..2]).join(name)
    }

    /// Lists the objects whose names begin with this byte.
    ///
    /// # Errors
    /// When the directory is there and cannot be read.
    pub fn listed(&self, first: u8) -> io::Result<Listed> {
        let directory = self.root.join("pool/sha256").join(format!("{first:02x}"));
        let mut listed = Listed::default();
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(listed),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            match name.parse::<Sha256>() {
                Ok(digest) if digest.to_string() == name && digest.0[0] == first => listed.objects.push(digest),
                // A writer's: the next one clears it away.
                _ if name.starts_with(TEMPORARY) => (),
                _ => listed.strangers.push(entry.path()),
            }
        }
        Ok(listed)
    }

    /// Whether an object of this size is there. Its content was checked when it came in; [`Store::check`] reads it.
    #[must_use]
    pub fn has(&self, sha256: &Sha256, size: u64) -> bool {
        fs::symlink_metadata(self.object(sha256)).is_ok_and(|meta| meta.is_file() && meta.len() == size)
    }

    /// Reads an object and refuses it where its content is not its name.
    ///
    /// # Errors
    /// [`Refused`] when it is altered, else when it is missing or cannot be read.
    pub fn check(&self, sha256: &Sha256, size: u64) -> Result<()> {
        let path = self.object(sha256);
        let mut file = digest::open_regular(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let (found, length) =
            digest::copy(&mut file, &mut io::sink()).with_context(|| format!("cannot read {}", path.display()))?;
        if (found, length) == (*sha256, size) {
            return Ok(());
        }
        Err(anyhow!(Refused(format!(
            "the pool object {sha256} has been altered (its content is {length} bytes with digest {found}): delete {} and mirror again",
            path.display()
        ))))
    }

    /// Takes a file into the pool by copying, if it is what it should be. Needs the lock.
    ///
    /// # Errors
    /// [`Refused`] when its content is another, else when it cannot be read or written.
    pub fn ingest(&self, _lock: &Lock, from: &mut dyn Read, sha256: &Sha256, size: u64, what: &str) -> Result<()> {
        let place = self.object(sha256);
        let write = || format!("cannot store {what} as {}", place.display());
        self.make_shard(&place).with_context(write)?;
        let mut writer = durable::Writer::new(&place, 0o644).with_context(write)?;
        let (found, length) = digest::copy(&mut from.take(size.saturating_add(1)), &mut writer).with_context(write)?;
        if (found, length) != (*sha256, size) {
            return Err(anyhow!(Refused(format!(
                "{what} has digest {found} and {length} bytes, upstream's signed lists say {sha256} and {size} bytes"
            ))));
        }
        writer.commit().with_context(write)
    }

    /// Takes a downloaded file into the pool by moving it, once it has been found to be what it should be. The file lies
    /// in the store, so that a rename suffices. Needs the lock.
    ///
    /// # Errors
    /// When it cannot be synced or moved.
    pub fn adopt(&self, _lock: &Lock, file: &Path, sha256: &Sha256) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let place = self.object(sha256);
        let adopt = || -> io::Result<()> {
            self.make_shard(&place)?;
            let open = File::open(file)?;
            open.set_permissions(fs::Permissions::from_mode(0o644))?;
            open.sync_all()?;
            fs::rename(file, &place)?;
            durable::sync_directory(place.parent().unwrap_or(&self.root))
        };
        adopt().with_context(|| format!("cannot move {} to {}", file.display(), place.display()))
    }

    fn make_shard(&self, place: &Path) -> io::Result<()> {
        let shard = place.parent().unwrap_or(&self.root);
        if !shard.is_dir() {
            fs::create_dir_all(shard)?;
            durable::sync_directory(&self.root.join("pool/sha256"))?;
        }
        Ok(())
    }

    /// The directory of a snapshot, whether it is there or not.
    ///
    /// # Errors
    /// When the name is none.
    pub fn snapshot_directory(&self, name: &str) -> Result<PathBuf> {
        if !is_name(name) {
            bail!("{name:?} is not a snapshot's name");
        }
        Ok(self.root.join("snapshots").join(name))
    }

    /// Reads a snapshot's manifest.
    ///
    /// # Errors
    /// When it is missing or malformed.
    pub fn snapshot(&self, name: &str) -> Result<Snapshot> {
        let path = self.snapshot_directory(name)?.join("snapshot.json");
        let bytes = digest::read_bounded(&path, snapshot::LARGEST).with_context(|| {
            let known = self.snapshots().unwrap_or_default().join(", ");
            format!("cannot read {} (the store holds: {known})", path.display())
        })?;
        let snapshot = Snapshot::parse(&bytes).with_context(|| format!("{} is no snapshot", path.display()))?;
        Ok(snapshot)
    }

    /// The names of the snapshots, sorted.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn snapshots(&self) -> Result<Vec<String>> {
        let directory = self.root.join("snapshots");
        let read = || format!("cannot read {}", directory.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&directory).with_context(read)? {
            let name = entry.with_context(read)?.file_name().to_string_lossy().into_owned();
            if is_name(&name) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Puts a snapshot in its place: a whole directory, exchanged for the old one in one step. `kept` are the upstream
    /// files as path and content-addressed object or bytes.
    ///
    /// # Errors
    /// When it cannot be written; the old snapshot then still stands.
    pub fn put_snapshot(&self, _lock: &Lock, snapshot: &Snapshot, inreleases: &[(String, Vec<u8>)]) -> Result<()> {
        let place = self.snapshot_directory(&snapshot.name)?;
        let parent = self.root.join("snapshots");
        let put = || -> Result<()> {
            let fresh = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(&parent)?;
            for (file, bytes) in inreleases {
                let path = fresh.path().join(file);
                fs::create_dir_all(path.parent().unwrap_or(&parent))?;
                durable::write(&path, bytes)?;
            }
            for index in snapshot.created_from.iter().flat_map(|origin| &origin.packages) {
                let path = fresh.path().join(&index.file);
                fs::create_dir_all(path.parent().unwrap_or(&parent))?;
                link_or_copy(&self.object(&index.sha256), &path)?;
            }
            durable::write(&fresh.path().join("snapshot.json"), &snapshot.to_bytes()?)?;
            exchange(fresh, &place)?;
            Ok(())
        };
        put().with_context(|| format!("cannot write the snapshot {}", place.display()))
    }

    /// A directory for apt and for unfinished downloads of one snapshot.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn work_directory(&self, _lock: &Lock, name: &str) -> Result<PathBuf> {
        let directory = self.root.join("work").join(name);
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(directory)
    }
}

/// Puts a new directory in its place, exchanged for the old one in one step, and lets everybody read it. The names in it are
/// synced; both lie in one directory.
///
/// # Errors
/// When it cannot be; the old one then still stands.
pub fn exchange(fresh: TempDir, place: &Path) -> io::Result<()> {
    fs::set_permissions(fresh.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    durable::sync_directory(fresh.path())?;
    if place.exists() {
        nix::fcntl::renameat2(
            nix::fcntl::AT_FDCWD,
            fresh.path(),
            nix::fcntl::AT_FDCWD,
            place,
            nix::fcntl::RenameFlags::RENAME_EXCHANGE,
        )?;
        // The old one now has the temporary's name and goes with it.
    } else {
        fs::rename(fresh.keep(), place)?;
    }
    durable::sync_directory(place.parent().unwrap_or(place))
}

/// Deletes the temporaries that a killed writer has left below a directory. Needs the lock of whatever the directory is.
///
/// # Errors
/// When a directory cannot be read or a temporary not be deleted.
pub fn sweep(directory: &Path) -> Result<()> {
    let failed = || format!("cannot clear {} of unfinished files", directory.display());
    for entry in fs::read_dir(directory).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let is_directory = entry.file_type().with_context(failed)?.is_dir();
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
            let gone = if is_directory {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            gone.with_context(failed)?;
        } else if is_directory {
            sweep(&path)?;
        }
    }
    Ok(())
}

/// A hard link, or a copy where the file systems differ or links are not allowed.
///
/// # Errors
/// When neither can be made.
pub fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(to)?;
            fs::hard_link(from, to)
        }
        Err(_) => {
            let mut writer = durable::Writer::new(to, 0o644)?;
            io::copy(&mut File::open(from)?, &mut writer)?;
            writer.flush()?;
            writer.commit()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join("store")).unwrap();
        (directory, store)
    }

    #[test]
    fn an_object_enters_only_under_its_own_name() {
        let (_directory, store) = store();
        let lock = store.lock().unwrap();
        let digest = Sha256::of(b"content");
        let error = store.ingest(&lock, &mut &b"consent"[..], &digest, 7, "it").unwrap_err();
        assert!(error.downcast_ref::<Refused>().is_some());
        let longer = store.ingest(&lock, &mut &b"content and more"[..], &digest, 7, "it");
        assert!(longer.is_err());
        assert!(!store.has(&digest, 7));
        store.ingest(&lock, &mut &b"content"[..], &digest, 7, "it").unwrap();
        assert!(store.has(&digest, 7));
        store.check(&digest, 7).unwrap();
        let left = walk(store.root())
            .into_iter()
            .filter(|name| name.contains("incomplete"))
            .count();
        assert_eq!(left, 0);
    }

    #[test]
    fn a_flipped_byte_in_an_object_is_refused() {
        let (_directory, store) = store();
        let lock = store.lock().unwrap();
        let digest = Sha256::of(b"content");
        store.ingest(&lock, &mut &b"content"[..], &digest, 7, "it").unwrap();
        fs::write(store.object(&digest), b"c0ntent").unwrap();
        let error = store.check(&digest, 7).unwrap_err();
        assert!(error.downcast_ref::<Refused>().is_some(), "{error:#}");
    }

    #[test]
    fn what_a_killed_writer_left_is_swept() {
        let (_directory, store) = store();
        let lock = store.lock().unwrap();
        let digest = Sha256::of(b"content");
        store.ingest(&lock, &mut &b"content"[..], &digest, 7, "it").unwrap();
        fs::write(store.object(&digest).with_file_name(".incomplete-x"), b"con").unwrap();
        fs::create_dir_all(store.root().join("snapshots/.incomplete-y/upstream")).unwrap();
        sweep(store.root()).unwrap();
        assert!(store.has(&digest, 7));
        assert!(!walk(store.root()).iter().any(|name| name.contains("incomplete")));
    }

    #[test]
    fn a_second_writer_is_told_so() {
        let (_directory, store) = store();
        let _lock = store.lock().unwrap();
        let error = format!("{:#}", store.lock().err().unwrap());
        assert!(error.contains("another process"), "{error}");
    }

    fn walk(directory: &Path) -> Vec<String> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            names.push(path.display().to_string());
            if path.is_dir() {
                names.extend(walk(&path));
            }
        }
        names
    }
}
