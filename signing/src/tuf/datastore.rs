// SPDX-License-Identifier: GPL-3.0-or-later
//! What a client remembers: the metadata that it trusts, byte for byte as it was received.
//!
//! Attacks: a rollback after the memory was lost or cut short; two updates at once; a memory that was altered.
//!
//! Defence: every file is written beside its place, synced and renamed, in the order of the specification, so that after a
//! power cut at any moment each file is the old one or the new one. The files of timestamp and snapshot carry in their
//! names which keys they were trusted under: when a new root rotates those keys (5.3.11), the memory of the old keys is
//! left behind by the very write that makes the root trusted, and is removed afterwards. One lock. Everything is verified
//! again when it is read, and damage is an error of its own, never an empty memory.
//!
//! Not defended here: somebody who may write the directory can put the whole of it back to an older state. On a host it
//! lies on the encrypted state partition; the floor of time and a TPM counter are for that.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sequoia_openpgp::Cert;

use super::approval::Seen;
use super::error::TufError;
use super::limits::Limits;
use super::model::{Result, Root, SignedFile, read_root};
use super::names::encode_role;
use crate::{digest, durable};

const ROOT: &str = "root.json";
/// A stored file was within the client's limits when it was written; this bounds what a damaged disk can give back.
const MAX_STORED: u64 = 256 << 20;

/// Where the files lie. Each operation is atomic and durable when it returns.
pub(super) trait Disk: Send {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    fn remove(&mut self, name: &str) -> io::Result<()>;
    fn list(&self) -> io::Result<Vec<String>>;
    fn place(&self) -> PathBuf;
}

/// Whether a client remembers anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Its datastore was there.
    Kept,
    /// There was none, so it begins anew with the pinned root: what was signed before is not held against a rollback.
    Anew,
}

/// The trusted metadata of one client.
pub struct Datastore {
    disk: Box<dyn Disk>,
    release: Option<Vec<Cert>>,
}

impl Datastore {
    /// Demands an OpenPGP signature by one of these certificates beside TUF's, on each root and timestamp that is yet to be
    /// trusted ([`super::beside`]).
    #[must_use]
    pub fn demanding(mut self, release: Vec<Cert>) -> Self {
        self.release = Some(release);
        self
    }

    pub(super) fn release(&self) -> Option<&[Cert]> {
        self.release.as_deref()
    }

    /// Makes a datastore in `directory` that trusts this root, which came with the system or by hand.
    ///
    /// # Errors
    /// When there is one already, when the root is not signed by its own threshold, or when it cannot be written.
    pub fn create(directory: &Path, trusted_root: &[u8]) -> Result<Self> {
        let disk = Directory::open(directory)?;
        if disk
            .read(ROOT)
            .map_err(|source| disk.error("read", ROOT, source))?
            .is_some()
        {
            return Err(disk.error("make a datastore in", "", io::ErrorKind::AlreadyExists.into()));
        }
        Self::fill(Box::new(disk), trusted_root)
    }

    /// Opens the datastore in `directory` and locks it for as long as it is held.
    ///
    /// # Errors
    /// When there is none, when another process holds it, or when its root is damaged.
    pub fn open(directory: &Path) -> Result<Self> {
        if let Err(source) = fs::metadata(directory.join(ROOT)) {
            return Err(TufError::DatastoreIo {
                action: "open the trust datastore",
                path: directory.to_path_buf(),
                source,
            });
        }
        let store = Self::on(Box::new(Directory::open(directory)?));
        store.root()?;
        Ok(store)
    }

    /// Opens the datastore in `directory`, or makes it with this root when there is none yet. Which of the two happened is
    /// for the caller to judge: a client that should have a memory and has none has lost it.
    ///
    /// # Errors
    /// As [`Datastore::open`] and [`Datastore::create`].
    pub fn open_or_create(directory: &Path, trusted_root: &[u8]) -> Result<(Self, Memory)> {
        if Self::is_missing(directory) {
            return Ok((Self::create(directory, trusted_root)?, Memory::Anew));
        }
        Ok((Self::open(directory)?, Memory::Kept))
    }

    /// As [`Datastore::open_or_create`], in memory: for a rehearsal, which must not teach the client anything.
    ///
    /// # Errors
    /// As [`Datastore::open`] and [`Datastore::ephemeral`].
    pub fn rehearse(directory: &Path, trusted_root: &[u8]) -> Result<(Self, Memory)> {
        if Self::is_missing(directory) {
            return Ok((Self::ephemeral(trusted_root)?, Memory::Anew));
        }
        Ok((Self::open(directory)?.copy()?, Memory::Kept))
    }

    /// A copy in memory, to look at: without the lock, so that an update which begins meanwhile is not refused. Each file
    /// is one that was trusted; two of them may be of two updates.
    ///
    /// # Errors
    /// When there is no datastore, or it cannot be read or is damaged.
    pub fn look(directory: &Path) -> Result<Self> {
        let disk = Directory {
            path: directory.to_path_buf(),
            _lock: None,
        };
        let copy = Self::on(Box::new(disk)).copy()?;
        copy.root()?;
        Ok(copy)
    }

    fn copy(&self) -> Result<Self> {
        let disk = self.disk.as_ref();
        let mut copy = Files::default();
        let names = disk.list().map_err(|source| error(disk, "list", "", source))?;
        // Names with a dot are the lock and what is being written.
        for name in names.into_iter().filter(|name| !name.starts_with('.')) {
            if let Some(bytes) = self.read(&name)? {
                copy.0.insert(name, bytes);
            }
        }
        let mut copy = Self::on(Box::new(copy));
        copy.release.clone_from(&self.release);
        Ok(copy)
    }

    fn is_missing(directory: &Path) -> bool {
        fs::metadata(directory.join(ROOT)).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// A datastore that forgets: for a verifier that judges one medium by the pinned root alone.
    ///
    /// # Errors
    /// When the root is not signed by its own threshold.
    pub fn ephemeral(trusted_root: &[u8]) -> Result<Self> {
        Self::fill(Box::new(Files::default()), trusted_root)
    }

    fn fill(mut disk: Box<dyn Disk>, trusted_root: &[u8]) -> Result<Self> {
        read_root("the pinned root", trusted_root)?;
        disk.write(ROOT, trusted_root)
            .map_err(|source| error(disk.as_ref(), "write", ROOT, source))?;
        Ok(Self::on(disk))
    }

    pub(super) fn on(disk: Box<dyn Disk>) -> Self {
        Self { disk, release: None }
    }

    /// The version of the trusted root.
    ///
    /// # Errors
    /// When the datastore cannot be read or is damaged.
    pub fn root_version(&self) -> Result<u64> {
        Ok(self.root()?.1.header.version)
    }

    /// The trusted root, as it was received.
    ///
    /// # Errors
    /// When the datastore cannot be read or is damaged.
    pub fn trusted_root(&self) -> Result<Vec<u8>> {
        Ok(self.root()?.0)
    }

    /// Which metadata it remembers: root, and what was trusted under its keys of timestamp, snapshot and top-level targets.
    ///
    /// # Errors
    /// When the datastore cannot be read or is damaged.
    pub fn seen(&self) -> Result<Vec<Seen>> {
        let (bytes, root) = self.root()?;
        let seen = |role: &str, version, bytes: &[u8]| Seen {
            role: role.to_owned(),
            version,
            sha256: digest::Sha256::of(bytes),
        };
        let mut all = vec![seen("root", root.header.version, &bytes)];
        for (role, place) in [
            ("timestamp", timestamp_name(&root)),
            ("snapshot", snapshot_name(&root)),
            ("targets", role_name("targets")),
        ] {
            if let Some(bytes) = self.read(&place)? {
                let file = damaged(SignedFile::read(&place, &bytes, &Limits::default()))?;
                let (_, header) = damaged(file.header(role))?;
                all.push(seen(role, header.version, &bytes));
            }
        }
        Ok(all)
    }

    /// The trusted root, verified once more against itself.
    pub(super) fn root(&self) -> Result<(Vec<u8>, Root)> {
        let bytes = self.read(ROOT)?.ok_or_else(|| TufError::DatastoreDamaged {
            why: "there is no root.json in it".to_owned(),
        })?;
        let root = damaged(read_root("the stored root", &bytes))?;
        Ok((bytes, root))
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.disk
            .read(name)
            .map_err(|source| error(self.disk.as_ref(), "read", name, source))
    }

    pub(super) fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        match self.disk.write(name, bytes) {
            Ok(()) => Ok(()),
            Err(source) => Err(error(self.disk.as_ref(), "write", name, source)),
        }
    }

    /// 5.3.8: makes a verified root the trusted one. If it rotates the keys of timestamp or snapshot, their old files are
    /// no longer looked at from this write on, because their names no longer fit.
    pub(super) fn write_root(&mut self, bytes: &[u8]) -> Result<()> {
        self.write(ROOT, bytes)
    }

    /// 5.3.11: removes timestamps and snapshots that were trusted under other keys than this root's.
    pub(super) fn forget_other_keys(&mut self, root: &Root) -> Result<()> {
        let keep = [timestamp_name(root), snapshot_name(root)];
        let names = self
            .disk
            .list()
            .map_err(|source| error(self.disk.as_ref(), "list", "", source))?;
        for name in names {
            let online = name.starts_with("timestamp.") || name.starts_with("snapshot.");
            if online
                && !keep.contains(&name)
                && let Err(source) = self.disk.remove(&name)
            {
                return Err(error(self.disk.as_ref(), "remove", &name, source));
            }
        }
        Ok(())
    }
}

/// The file of the trusted timestamp under this root's keys.
pub(super) fn timestamp_name(root: &Root) -> String {
    format!("timestamp.{}.json", root.online_keys())
}

/// The file of the trusted snapshot under this root's keys.
pub(super) fn snapshot_name(root: &Root) -> String {
    format!("snapshot.{}.json", root.online_keys())
}

/// The file of a targets role.
pub(super) fn role_name(role: &str) -> String {
    match role {
        "targets" => "targets.json".to_owned(),
        _ => format!("role.{}.json", encode_role(role)),
    }
}

/// An error about a stored file that was good when it was written.
pub(super) fn damaged<T>(result: Result<T>) -> Result<T> {
    result.map_err(|error| TufError::DatastoreDamaged { why: error.reason() })
}

fn error(disk: &dyn Disk, action: &'static str, name: &str, source: io::Error) -> TufError {
    TufError::DatastoreIo {
        action,
        path: disk.place().join(name),
        source,
    }
}

/// Files in a directory.
pub(super) struct Directory {
    path: PathBuf,
    /// Held by who may write.
    _lock: Option<durable::Lock>,
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let io = |action| {
            move |source| TufError::DatastoreIo {
                action,
                path: path.to_path_buf(),
                source,
            }
        };
        fs::create_dir_all(path).map_err(io("make the trust datastore"))?;
        let lock = durable::Lock::take(path).map_err(io("lock the trust datastore"))?;
        // With the lock held, a temporary file can only be what a power cut left.
        for entry in fs::read_dir(path).map_err(io("list the trust datastore"))? {
            let entry = entry.map_err(io("list the trust datastore"))?;
            if entry.file_name().to_string_lossy().starts_with(".incomplete-") {
                fs::remove_file(entry.path()).map_err(io("clear the trust datastore"))?;
            }
        }
        Ok(Self {
            path: path.to_path_buf(),
            _lock: Some(lock),
        })
    }

    fn error(&self, action: &'static str, name: &str, source: io::Error) -> TufError {
        error(self, action, name, source)
    }
}

impl Disk for Directory {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match digest::read_regular(&self.path.join(name), MAX_STORED) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        durable::write(&self.path.join(name), bytes)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))?;
        durable::sync_directory(&self.path)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.path)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn place(&self) -> PathBuf {
        self.path.clone()
    }
}

/// Files in memory.
#[derive(Default)]
struct Files(BTreeMap<String, Vec<u8>>);

impl Disk for Files {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.get(name).cloned())
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.0.remove(name);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.keys().cloned().collect())
    }

    fn place(&self) -> PathBuf {
        PathBuf::from("(in memory)")
    }
}
