// SPDX-License-Identifier: GPL-3.0-or-later
//! Files that survive a power cut: written beside their place, synced, renamed, and the directory synced.
//!
//! A reader sees the old file or the new one, whole, and never a part of either.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A file under construction. Dropped without [`Writer::commit`], it leaves nothing behind.
pub struct Writer {
    file: NamedTempFile,
    place: PathBuf,
}

impl Writer {
    /// Starts a file that will stand at `place`, in whose directory the temporary lies. A symbolic link is followed: what it
    /// names is replaced, not the link.
    ///
    /// # Errors
    /// When the directory does not exist or cannot be written, or a device, a pipe or a directory stands at `place`: it would
    /// be replaced by a file, and nothing written to it.
    pub fn new(place: &Path, mode: u32) -> io::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let place = &replaceable(place)?;
        let file = tempfile::Builder::new()
            .prefix(&prefix(place))
            .permissions(fs::Permissions::from_mode(mode))
            .tempfile_in(parent(place))?;
        // While it is written nobody clears it away. Where there are no locks, nothing is cleared.
        let _ = file.as_file().try_lock();
        // The umask must not decide who may read what crosses the gap.
        file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
        Ok(Self {
            file,
            place: place.to_path_buf(),
        })
    }

    /// Syncs the content, puts it in its place and syncs the directory.
    ///
    /// # Errors
    /// When any of the three fails; the old file, if any, then still stands or the new one does, whole.
    pub fn commit(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist(&self.place).map_err(|error| error.error)?;
        sync_directory(parent(&self.place))
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a small file durably, readable by all.
///
/// # Errors
/// As [`Writer::new`] and [`Writer::commit`].
pub fn write(place: &Path, bytes: &[u8]) -> io::Result<()> {
    write_mode(place, bytes, 0o644)
}

/// Writes a small file durably, readable by its owner only.
///
/// # Errors
/// As [`write`].
pub fn write_private(place: &Path, bytes: &[u8]) -> io::Result<()> {
    write_mode(place, bytes, 0o600)
}

fn write_mode(place: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut writer = Writer::new(place, mode)?;
    writer.write_all(bytes)?;
    writer.commit()
}

/// Syncs a directory, so that the names in it survive a power cut.
///
/// # Errors
/// When the directory cannot be opened or synced.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The place itself, or what a link at it names, if a file may stand there.
fn replaceable(place: &Path) -> io::Result<PathBuf> {
    let Ok(standing) = fs::symlink_metadata(place) else {
        return Ok(place.to_path_buf());
    };
    let real = if standing.is_symlink() {
        fs::canonicalize(place).unwrap_or_else(|_| place.to_path_buf())
    } else {
        place.to_path_buf()
    };
    if fs::symlink_metadata(&real)?.is_file() {
        return Ok(real);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{} is not a regular file and is not replaced by one", place.display()),
    ))
}

fn parent(place: &Path) -> &Path {
    match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// An exclusive lock on a directory's `.lock` file, held until dropped. The kernel releases it when the process dies.
pub struct Lock {
    file: File,
}

impl Drop for Lock {
    /// Unlocks and does not only close: a process that another thread is just starting still holds a copy of the
    /// descriptor until it executes its program, and would keep the lock (flock(2)).
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl Lock {
    /// Takes the lock, or says at once that another process holds it.
    ///
    /// # Errors
    /// `WouldBlock` when it is held; else when the lock file cannot be made.
    pub fn take(directory: &Path) -> io::Result<Self> {
        let path = directory.join(".lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(fs::TryLockError::WouldBlock) => Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("{} is locked by another process: wait for it to end", path.display()),
            )),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

/// How unfinished files for a place begin.
fn prefix(place: &Path) -> OsString {
    let name = place.file_name().unwrap_or_default().as_bytes();
    // A name has at most 255 bytes.
    let name = &name[..name.len().min(200)];
    OsString::from_vec([b".incomplete-", name, b"-"].concat())
}

/// Removes the unfinished files that killed writers of this very place left beside it. One that is being written stays.
///
/// # Errors
/// When the directory cannot be read or a file not be removed.
pub fn clear_stale(place: &Path) -> io::Result<()> {
    let prefix = prefix(place);
    for entry in fs::read_dir(parent(place))? {
        let entry = entry?;
        let name = entry.file_name();
        // What follows is six random letters: a longer rest belongs to another place.
        let ours = name
            .as_bytes()
            .strip_prefix(prefix.as_bytes())
            .is_some_and(|rest| rest.len() == 6);
        if ours && entry.file_type()?.is_file() && File::open(entry.path())?.try_lock().is_ok() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abandoned_writer_leaves_the_old_file() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("file");
        write(&place, b"old").unwrap();
        let mut writer = Writer::new(&place, 0o644).unwrap();
        writer.write_all(b"new").unwrap();
        drop(writer);
        assert_eq!(fs::read(&place).unwrap(), b"old");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_a_regular_file_is_replaced_and_a_link_to_one_stays() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        write(&at("file"), b"old").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        write(&at("link"), b"new").unwrap();
        assert_eq!(fs::read(at("file")).unwrap(), b"new");
        assert!(at("link").is_symlink());
        let socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        std::os::unix::fs::symlink("/dev/null", at("null")).unwrap();
        std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        for name in ["socket", "null", "dangling", "directory"] {
            let error = write(&at(name), b"x").unwrap_err();
            assert!(error.to_string().contains("not a regular file"), "{name}: {error}");
        }
        drop(socket);
    }

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let first = Lock::take(directory.path()).unwrap();
        assert_eq!(
            Lock::take(directory.path()).err().unwrap().kind(),
            io::ErrorKind::WouldBlock
        );
        // What a process that is just being started holds: it must not outlive the lock.
        let copy = first.file.try_clone().unwrap();
        drop(first);
        assert!(Lock::take(directory.path()).is_ok());
        drop(copy);
    }

    /// The recipe: what a killed writer leaves, by its name; one that still writes; one of another place.
    #[test]
    fn leftovers_of_the_same_place_are_cleared_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let other = [
            ".incomplete-x-y-abcdef",
            ".incomplete-y-abcdef",
            ".incomplete-x-ab",
            "x",
        ];
        for name in other.iter().chain(&[".incomplete-x-abcdef"]) {
            fs::write(at(name), "half").unwrap();
        }
        let mut writing = Writer::new(&at("x"), 0o644).unwrap();
        clear_stale(&at("x")).unwrap();
        assert!(!at(".incomplete-x-abcdef").exists());
        assert!(other.iter().all(|name| at(name).exists()));
        writing.write_all(b"whole").unwrap();
        writing.commit().unwrap();
        assert_eq!(fs::read(at("x")).unwrap(), b"whole");
    }
}
