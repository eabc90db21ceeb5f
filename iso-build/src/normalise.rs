// SPDX-License-Identifier: GPL-3.0-or-later
//! What tells one build from another and means nothing: removed, emptied or dated from the snapshot.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use walkdir::WalkDir;

/// Files that record when, where or by what a tree was made.
const TRACES: [&str; 21] = [
    "etc/.pwd.lock",
    "etc/apt/sources.list",
    "etc/apt/sources.list.d/0000sources.list",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "etc/ld.so.cache~",
    // A host makes its own when it first speaks NVMe over a fabric.
    "etc/nvme/hostid",
    "etc/nvme/hostnqn",
    "run/mount/utab",
    "var/cache/ldconfig/aux-cache",
    "var/lib/apt/extended_states",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/available",
    "var/lib/dpkg/available-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/systemd/catalog/database",
    "var/lib/systemd/random-seed",
];

/// Directories whose content belongs to a running system.
const EMPTY: [&str; 8] = [
    "dev",
    "proc",
    "run",
    "sys",
    "tmp",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/tmp",
];

/// Removes traces of the build from a tree and dates everything younger than the snapshot to it. Older dates are the
/// packages' own and stay: they are the same in every build, and an update then changes fewer inodes.
///
/// # Errors
/// When the tree cannot be changed.
pub fn normalise(tree: &Path, epoch: u64) -> Result<()> {
    for name in TRACES {
        remove(&tree.join(name))?;
    }
    for name in EMPTY {
        empty(&tree.join(name))?;
    }
    for entry in WalkDir::new(tree).contents_first(true) {
        let entry = entry.with_context(|| format!("cannot read {}", tree.display()))?;
        let name = entry.file_name().as_encoded_bytes();
        let compiled = name.ends_with(b".pyc") || name == b"__pycache__";
        let log = name.ends_with(b".log") && entry.path().starts_with(tree.join("var/log"));
        if compiled || (log && entry.file_type().is_file()) {
            remove(entry.path())?;
        } else if entry.file_type().is_file() {
            unprivileged(entry.path())?;
        }
    }
    clamp(tree, epoch)
}

/// Takes the setuid and setgid bits away: administrators are root by their key, and nobody else needs to become it.
fn unprivileged(path: &Path) -> Result<()> {
    let failed = || format!("cannot take the setuid bit of {} away", path.display());
    let mode = fs::symlink_metadata(path).with_context(failed)?.permissions().mode();
    if mode & 0o6000 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o1777)).with_context(failed)
}

/// Sets every date after `epoch` to it, deepest entries first, links themselves and not their targets.
///
/// # Errors
/// When an entry cannot be dated.
pub fn clamp(tree: &Path, epoch: u64) -> Result<()> {
    let limit = i64::try_from(epoch).context("the date of the build is out of range")?;
    let date = TimeSpec::new(limit, 0);
    for entry in WalkDir::new(tree).contents_first(true) {
        let entry = entry.with_context(|| format!("cannot read {}", tree.display()))?;
        let data = entry
            .metadata()
            .with_context(|| format!("cannot read {}", entry.path().display()))?;
        if data.mtime() > limit || (data.mtime() == limit && data.mtime_nsec() != 0) {
            utimensat(AT_FDCWD, entry.path(), &date, &date, UtimensatFlags::NoFollowSymlink)
                .with_context(|| format!("cannot date {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// Dates every entry of a tree `epoch`.
///
/// # Errors
/// As [`clamp`].
pub fn date_all(tree: &Path, epoch: u64) -> Result<()> {
    let date = TimeSpec::new(
        i64::try_from(epoch).context("the date of the build is out of range")?,
        0,
    );
    for entry in WalkDir::new(tree).contents_first(true) {
        let entry = entry.with_context(|| format!("cannot read {}", tree.display()))?;
        utimensat(AT_FDCWD, entry.path(), &date, &date, UtimensatFlags::NoFollowSymlink)
            .with_context(|| format!("cannot date {}", entry.path().display()))?;
    }
    Ok(())
}

/// Writes a file of the image: owned by root, its mode not left to a umask.
///
/// # Errors
/// When it cannot be written.
pub fn put(tree: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let place = tree.join(name);
    let parent = place.parent().unwrap_or(tree);
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    remove(&place)?;
    fs::write(&place, bytes)
        .and_then(|()| fs::set_permissions(&place, fs::Permissions::from_mode(mode)))
        .with_context(|| format!("cannot write {}", place.display()))
}

/// Removes a file or tree if it is there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn empty(directory: &Path) -> Result<()> {
    // A link in its place belongs to the packages.
    if !fs::symlink_metadata(directory).is_ok_and(|data| data.is_dir()) {
        return Ok(());
    }
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        remove(&entry?.path())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_program_runs_with_its_owners_rights() {
        let tree = tempfile::tempdir().unwrap();
        let program = tree.path().join("su");
        fs::write(&program, "program").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o6755)).unwrap();
        normalise(tree.path(), 1_000_000_000).unwrap();
        assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o7777, 0o755);
    }

    #[test]
    fn young_dates_are_clamped_and_old_ones_kept() {
        let tree = tempfile::tempdir().unwrap();
        let (old, young, link) = (
            tree.path().join("old"),
            tree.path().join("young"),
            tree.path().join("link"),
        );
        fs::write(&old, "").unwrap();
        fs::write(&young, "").unwrap();
        std::os::unix::fs::symlink("/nowhere", &link).unwrap();
        let date = TimeSpec::new(1_000_000, 0);
        utimensat(AT_FDCWD, &old, &date, &date, UtimensatFlags::NoFollowSymlink).unwrap();
        clamp(tree.path(), 1_500_000_000).unwrap();
        let of = |path: &Path| fs::symlink_metadata(path).unwrap().mtime();
        assert_eq!(of(&old), 1_000_000);
        for path in [&young, &link, &tree.path().to_owned()] {
            assert_eq!(of(path), 1_500_000_000);
        }
    }

    #[test]
    fn traces_of_the_build_are_removed() {
        let tree = tempfile::tempdir().unwrap();
        for name in [
            "var/lib/dpkg/status-old",
            "usr/lib/python3/a/__pycache__/b.cpython-313.pyc",
            "run/lock",
            "usr/bin/kept",
        ] {
            put(tree.path(), name, b"x", 0o644).unwrap();
        }
        normalise(tree.path(), 1).unwrap();
        let left: Vec<_> = WalkDir::new(tree.path())
            .into_iter()
            .flatten()
            .filter(|entry| entry.file_type().is_file())
            .map(|entry| entry.path().strip_prefix(tree.path()).unwrap().to_owned())
            .collect();
        assert_eq!(left, [Path::new("usr/bin/kept")]);
    }
}
