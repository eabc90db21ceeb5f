// SPDX-License-Identifier: GPL-3.0-or-later
//! Files that survive a power cut: written beside their place, synced, renamed, and the directory synced.
//!
//! A reader sees the old file or the new one, whole, and never a part of either. [`Writer`] is for files that are quickly made
//! anew, [`Resumed`] for those that are not.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
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

/// A large file under construction that outlives its writer: cut off, the next one writes the same again, and what stands there
/// already is compared and not written. Nothing that stands there is believed: it is read, and goes from the first difference on.
pub struct Resumed {
    file: File,
    partial: PathBuf,
    place: PathBuf,
    standing: u64,
    at: u64,
    compared: Vec<u8>,
}

impl Resumed {
    /// Starts or goes on with a file that will stand at `place`. Until then it is `.partial-NAME` beside it, and one writer's.
    ///
    /// # Errors
    /// `WouldBlock` when somebody else writes it; as [`Writer::new`].
    pub fn new(place: &Path, mode: u32) -> io::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let place = replaceable(place)?;
        let partial = place.with_file_name(OsString::from_vec(
            [b".partial-", place.file_name().unwrap_or_default().as_bytes()].concat(),
        ));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(mode)
            .custom_flags((nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK).bits())
            .open(&partial)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} is not a regular file", partial.display()),
            ));
        }
        match file.try_lock() {
            Err(fs::TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    format!("{} is being written by another process", partial.display()),
                ));
            }
            // Where there are no locks, nobody is kept out.
            Ok(()) | Err(fs::TryLockError::Error(_)) => {}
        }
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        Ok(Self {
            standing: found.len(),
            file,
            partial,
            place,
            at: 0,
            compared: Vec::new(),
        })
    }

    /// Whether what stands at the current position is these bytes, as far as anything stands there.
    fn stands(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.compared.resize(bytes.len(), 0);
        self.file.read_exact_at(&mut self.compared, self.at)?;
        Ok(self.compared == bytes)
    }

    /// Syncs the content, puts it in its place and syncs the directory.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub fn commit(self) -> io::Result<()> {
        if self.standing > self.at {
            self.file.set_len(self.at)?;
        }
        self.file.sync_all()?;
        fs::rename(&self.partial, &self.place)?;
        sync_directory(parent(&self.place))
    }
}

impl Write for Resumed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = usize::try_from(self.standing - self.at).unwrap_or(usize::MAX);
        let known = bytes.len().min(left);
        let count = if known > 0 && self.stands(&bytes[..known])? {
            known
        } else {
            if known > 0 {
                self.file.set_len(self.at)?;
                self.standing = self.at;
            }
            let count = self.file.write_at(bytes, self.at)?;
            self.standing = self.at + count as u64;
            count
        };
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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

/// Makes a directory and those above it, each name durable.
///
/// # Errors
/// When one cannot be made or synced.
pub fn make_directories(directory: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = directory.ancestors().take_while(|above| !above.exists()).collect();
    fs::create_dir_all(directory)?;
    for made in missing.into_iter().rev() {
        sync_directory(parent(made))?;
    }
    Ok(())
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

    /// The recipe: the first half of a file, as a killed writer leaves it; another in its stead; more than the whole.
    #[test]
    fn a_cut_file_goes_on_and_an_altered_one_is_not_believed() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let (place, partial) = (directory.path().join("x"), directory.path().join(".partial-x"));
        let content: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let mut altered = content[..200_000].to_vec();
        altered[150_000] ^= 1;
        let more = [&content[..], b"more"].concat();
        for standing in [&content[..200_000], &altered, &more, &[][..], &content] {
            fs::write(&partial, standing).unwrap();
            let same_file = fs::metadata(&partial).unwrap().ino();
            let mut writer = Resumed::new(&place, 0o644).unwrap();
            assert_eq!(
                Resumed::new(&place, 0o644).err().unwrap().kind(),
                io::ErrorKind::WouldBlock
            );
            for block in content.chunks(7_001) {
                writer.write_all(block).unwrap();
            }
            writer.commit().unwrap();
            assert!(fs::read(&place).unwrap() == content && !partial.exists());
            assert_eq!(fs::metadata(&place).unwrap().ino(), same_file);
        }
        std::os::unix::fs::symlink(&place, &partial).unwrap();
        assert!(Resumed::new(&place, 0o644).is_err());
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
