// SPDX-License-Identifier: GPL-3.0-or-later
//! Facts of the running system.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::{self, Cursor};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::io::Errno;
use signing::digest::{self, Sha256};
use signing::process::Cmd;
use signing::secureboot::{self, pe_section};

use super::esp::{self, Esp};
use super::{FILE_LIMIT, Facts, Found, Kind, Known, Ran, SECTION_LIMIT, Unknown, Walk};

/// The most entries that one walk visits: a bound, far above any root file system of ours.
const WALK_LIMIT: usize = 4_000_000;
/// The largest boot image that is read whole.
pub(super) const BOOT_IMAGE_LIMIT: u64 = 192 << 20;

/// The running system. A program is run once, however many checks ask for its output, so that all judge the same moment.
#[derive(Debug, Default)]
pub struct Live {
    ran: RefCell<HashMap<String, Known<Ran>>>,
    esp: OnceCell<Known<Option<Esp>>>,
}

impl Live {
    /// The EFI system partition, when the path lies on it and nobody has mounted it.
    fn esp(&self, path: &str) -> Known<Option<(&Esp, String)>> {
        let Some(inner) = path.strip_prefix(esp::PLACE) else {
            return Ok(None);
        };
        let found = self
            .esp
            .get_or_init(|| Esp::find(self))
            .as_ref()
            .map_err(Clone::clone)?;
        Ok(found
            .as_ref()
            .map(|esp| (esp, inner.trim_start_matches('/').to_owned())))
    }
}

fn there<T>(path: &str, what: &str, result: io::Result<T>) -> Known<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Unknown(format!("cannot {what} {path}: {error}"))),
    }
}

impl Facts for Live {
    fn read(&self, path: &str) -> Known<Option<Vec<u8>>> {
        there(path, "read", digest::read_bounded(Path::new(path), FILE_LIMIT))
    }

    fn list(&self, path: &str) -> Known<Option<Vec<String>>> {
        let names = fs::read_dir(path).and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<Vec<_>>>()
        });
        let mut names = there(path, "list", names)?;
        if let Some(names) = &mut names {
            names.sort_unstable();
        }
        Ok(names)
    }

    fn stat(&self, path: &str) -> Known<Option<Found>> {
        Ok(there(path, "look at", fs::symlink_metadata(path))?.map(|metadata| found(path, &metadata)))
    }

    fn digest(&self, path: &str) -> Known<Option<(Sha256, u64)>> {
        there(path, "read", Sha256::of_file(Path::new(path)))
    }

    fn walk(&self, path: &str, walk: Walk) -> Known<Option<Vec<Found>>> {
        if let Some((esp, _)) = self.esp(path)? {
            return esp.walk().map(Some);
        }
        let Some(metadata) = there(path, "look at", fs::symlink_metadata(path))? else {
            return Ok(None);
        };
        let mut result = Vec::new();
        let mut seen = 0;
        let mut open = vec![path.trim_end_matches('/').to_owned()];
        while let Some(directory) = open.pop() {
            let shown = if directory.is_empty() { "/" } else { &directory };
            // A file that goes away while we look is no reason to give up on the others.
            let Some(names) = self.list(shown)? else { continue };
            for name in names {
                seen += 1;
                if seen > WALK_LIMIT {
                    return Err(Unknown(format!("more than {WALK_LIMIT} files under {path}")));
                }
                let path = format!("{directory}/{name}");
                let Some(status) = there(&path, "look at", fs::symlink_metadata(&path))? else {
                    continue;
                };
                let mut entry = found(&path, &status);
                if entry.kind == Kind::Directory && status.dev() == metadata.dev() {
                    open.push(path.clone());
                }
                // In an overlay only directories have the overlay's own device number.
                match walk {
                    Walk::Special if !special(&entry) => {}
                    Walk::Special => result.push(entry),
                    Walk::All => {
                        match entry.kind {
                            Kind::File => entry.sha256 = self.digest(&path)?.map(|(sha256, _)| sha256),
                            Kind::Directory => entry.opaque = opaque(&path)?,
                            _ => {}
                        }
                        result.push(entry);
                    }
                }
            }
        }
        result.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Some(result))
    }

    fn section(&self, path: &str, section: &str) -> Known<Option<Vec<u8>>> {
        let unknown = |error| Unknown(format!("cannot read {path}: {:#}", anyhow::Error::new(error)));
        if let Some((esp, inner)) = self.esp(path)? {
            let Some(image) = esp.read(&inner)? else {
                return Ok(None);
            };
            return pe_section(Cursor::new(image), section, SECTION_LIMIT).map_err(unknown);
        }
        match there(path, "read", fs::File::open(path))? {
            Some(file) => pe_section(file, section, SECTION_LIMIT).map_err(unknown),
            None => Ok(None),
        }
    }

    fn boot_signature(&self, path: &str, certificate: &[u8]) -> Known<Option<Result<String, String>>> {
        let image = match self.esp(path)? {
            Some((esp, inner)) => esp.read(&inner)?,
            None => there(path, "read", digest::read_bounded(Path::new(path), BOOT_IMAGE_LIMIT))?,
        };
        let Some(image) = image else { return Ok(None) };
        Ok(Some(match secureboot::verify_pe(&image, certificate) {
            Ok(signature) => Ok(signature.signer),
            Err(error) => Err(format!("{:#}", anyhow::Error::new(error))),
        }))
    }

    fn run(&self, command: &[&str]) -> Known<Ran> {
        let line = command.join(" ");
        if let Some(answer) = self.ran.borrow().get(&line) {
            return answer.clone();
        }
        let answer = start(command);
        self.ran.borrow_mut().insert(line, answer.clone());
        answer
    }
}

fn start(command: &[&str]) -> Known<Ran> {
    // `timeout` because a toolstack whose store is dead waits for ever, and an audit must end.
    let (status, stdout, stderr) = Cmd::new("timeout")
        .args(["-k", "2", "30"])
        .args(command)
        .status()
        .map_err(|error| Unknown(error.to_string()))?;
    let name = command.first().copied().unwrap_or_default();
    match status.code() {
        Some(124 | 137) => Err(Unknown(format!(
            "`{}` did not end within 30 seconds",
            command.join(" ")
        ))),
        Some(126 | 127) => Err(Unknown(format!("the program {name} is missing here"))),
        None => Err(Unknown(format!("`{}` was killed", command.join(" ")))),
        Some(code) => Ok(Ran {
            code,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }),
    }
}

/// Whether a directory carries the overlay's mark that nothing below it is merged (kernel: filesystems/overlayfs).
fn opaque(path: &str) -> Known<bool> {
    let mut value = [0; 8];
    match rustix::fs::lgetxattr(path, "trusted.overlay.opaque", &mut value) {
        Ok(length) => Ok(value[..length] == *b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(Unknown(format!("cannot read the overlay's mark of {path}: {error}"))),
    }
}

fn special(entry: &Found) -> bool {
    match entry.kind {
        Kind::File => entry.mode & 0o6002 != 0,
        // A sticky directory that everybody may write is what /tmp is; the check decides which of them may be.
        Kind::Directory | Kind::Other => entry.mode & 0o002 != 0,
        Kind::Link | Kind::Whiteout => false,
    }
}

fn found(path: &str, metadata: &Metadata) -> Found {
    let kind = metadata.file_type();
    let kind = if kind.is_file() {
        Kind::File
    } else if kind.is_dir() {
        Kind::Directory
    } else if kind.is_symlink() {
        Kind::Link
    } else if kind.is_char_device() && metadata.rdev() == 0 {
        Kind::Whiteout
    } else {
        Kind::Other
    };
    Found {
        path: path.to_owned(),
        kind,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        size: if kind == Kind::File { metadata.len() } else { 0 },
        sha256: None,
        opaque: false,
        target: (kind == Kind::Link)
            .then(|| {
                fs::read_link(path)
                    .ok()
                    .map(|target| target.to_string_lossy().into_owned())
            })
            .flatten(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn absent_is_a_fact_and_a_missing_program_is_unknown() {
        assert_eq!(Live::default().read("/no/such/file"), Ok(None));
        assert!(
            Live::default()
                .run(&["no-such-program-here"])
                .unwrap_err()
                .0
                .contains("missing")
        );
        assert_eq!(Live::default().run(&["false"]).unwrap().code, 1);
    }

    #[test]
    fn a_walk_finds_setuid_and_world_writable() {
        let directory = tempfile::tempdir().unwrap();
        for (name, mode) in [("plain", 0o644), ("setuid", 0o4755), ("open", 0o666)] {
            let path = directory.path().join(name);
            fs::write(&path, name).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let root = directory.path().to_str().unwrap();
        let names = |walk| {
            let found = Live::default().walk(root, walk).unwrap().unwrap();
            found
                .iter()
                .map(|entry| entry.path.rsplit('/').next().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(Walk::Special), ["open", "setuid"]);
        assert_eq!(names(Walk::All), ["open", "plain", "setuid"]);
    }
}
