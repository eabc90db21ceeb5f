// SPDX-License-Identifier: GPL-3.0-or-later
//! A site for the tests to copy. Ten key derivations and three RSA keys take seconds, so one is made for each build of the
//! program and shared by all tests, also by those that run in processes of their own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use signing::process::Cmd;

/// The passphrase of all its keys.
pub const SECRET: &str = "correct horse battery staple";

/// The shared site. Its own rule, whole or not at all, is what lets processes race for making it.
pub fn shared_site() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_bastide-sign"));
    let built = program.metadata().unwrap();
    let stamp = format!("site-{}-{}-{}", built.len(), built.mtime(), built.mtime_nsec());
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let site = cache.join(&stamp);
    let passphrase = cache.join("passphrase");
    while !site.join("site.json").exists() {
        fs::write(&passphrase, SECRET).unwrap();
        let (status, _, err) = Cmd::new(program)
            .args(["site", "init", "--name", "Test", "--dir"])
            .arg(&site)
            .arg("--passphrase-file")
            .arg(&passphrase)
            .status()
            .unwrap();
        let err = String::from_utf8_lossy(&err);
        let raced = err.contains("locked by another process") || site.join("site.json").exists();
        assert!(status.success() || raced, "{err}");
        if !status.success() {
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    site
}

/// Copies a tree, modes included.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
}
