// SPDX-License-Identifier: GPL-3.0-or-later
//! The state partition: an ext4 file system that mke2fs fills from a directory, so that it is never mounted here.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use hypervisor::layout;
use signing::process::Cmd;

use super::Target;
use crate::plan::Plan;

/// The files that the state partition starts with, in a directory that becomes its root.
pub struct State {
    root: PathBuf,
    modes: BTreeMap<PathBuf, u32>,
}

impl State {
    /// Starts in an empty directory.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            modes: BTreeMap::new(),
        }
    }

    /// Where a path of the installed host, such as `/state/bastide/slots.json`, lies meanwhile.
    ///
    /// # Errors
    /// When the path is not below `/state`, or climbs.
    pub fn place(&self, path: &str) -> Result<PathBuf> {
        let below = Path::new(path)
            .strip_prefix(layout::STATE_MOUNT)
            .with_context(|| format!("{path} is not on the state partition"))?;
        if !below.components().all(|part| matches!(part, Component::Normal(_))) {
            bail!("{path} climbs out of the state partition");
        }
        Ok(self.root.join(below))
    }

    /// Makes a directory and those above it. Those above that are new are open to readers.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<PathBuf> {
        let place = self.place(path)?;
        fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        self.modes.insert(place.clone(), mode);
        Ok(place)
    }

    /// Writes a file, and the directories above it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&mut self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let place = self.place(path)?;
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        // Made before it is filled, so that a key is at no time open to others.
        fs::write(&place, b"")
            .and_then(|()| fs::set_permissions(&place, fs::Permissions::from_mode(mode)))
            .and_then(|()| fs::write(&place, bytes))
            .with_context(|| format!("cannot write {}", place.display()))?;
        self.modes.insert(place, mode);
        Ok(())
    }

    /// Gives every file and directory its mode, whatever the umask was: 0755 where nothing else was asked.
    fn finish(&self) -> Result<()> {
        let mut waiting = vec![self.root.clone()];
        while let Some(place) = waiting.pop() {
            let directory = fs::symlink_metadata(&place)?.is_dir();
            let usual = if directory { Some(0o755) } else { None };
            if let Some(mode) = self.modes.get(&place).copied().or(usual) {
                fs::set_permissions(&place, fs::Permissions::from_mode(mode))?;
            }
            if directory {
                for entry in fs::read_dir(&place)? {
                    waiting.push(entry?.path());
                }
            }
        }
        Ok(())
    }
}

/// Makes the state partition's file system with these files, brings it onto the disk and checks it.
///
/// # Errors
/// When it cannot be made, or the check finds a fault.
pub fn write_state(plan: &Plan, target: &Target, state: &State) -> Result<()> {
    let partition = plan
        .partition(layout::STATE_NAME)
        .context("the plan has no state partition")?;
    state.finish().context("cannot set the modes of the state's files")?;
    Cmd::new("mkfs.ext4")
        .args(["-q", "-F", "-F", "-m", "1", "-b", "4096", "-L", layout::STATE_NAME])
        .args(["-E", &format!("offset={},nodiscard", partition.start)])
        .arg("-d")
        .arg(&state.root)
        .arg(target.path())
        .arg((partition.size / 4096).to_string())
        .run()
        .context("cannot make the state partition's file system")?;
    target.sync()?;
    target.forget()?;
    Cmd::new("e2fsck")
        .args(["-f", "-n"])
        .arg(format!("{}?offset={}", target.path().display(), partition.start))
        .run()
        .context("the state partition's file system is faulty after it was written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_below_and_keep_their_modes() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = State::new(directory.path());
        state.file("/state/bastide/host-key.pem", b"k", 0o600).unwrap();
        state.directory("/state/root", 0o700).unwrap();
        state.finish().unwrap();
        let mode = |path: &str| {
            let metadata = fs::metadata(directory.path().join(path)).unwrap();
            metadata.permissions().mode() & 0o7777
        };
        assert_eq!(
            (mode("bastide/host-key.pem"), mode("bastide"), mode("root")),
            (0o600, 0o755, 0o700)
        );
        for path in ["/etc/shadow", "/state/../etc/shadow", "state/x", ""] {
            assert!(state.file(path, b"", 0o644).is_err(), "{path}");
        }
    }
}
