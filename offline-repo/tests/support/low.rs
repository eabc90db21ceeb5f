// SPDX-License-Identifier: GPL-3.0-or-later
//! A low side, its releases and its bundles, and the commands that work on them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use signing::digest::Sha256;
use signing::process::Cmd;
use signing::release::Part;

use super::common::{self, Said};
use super::{PROGRAM, build, other_site, passphrase_file, published, replace_part, repo, site, trust};

/// A low side with a repository.
pub struct Low {
    pub directory: tempfile::TempDir,
}

impl Low {
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// With release 1.0.0 and its bundle.
    pub fn published() -> Self {
        let low = Self::new();
        common::copy(&published(), low.directory.path());
        low
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command line in the directory, words split at spaces.
    pub fn command(&self, line: &str) -> Cmd {
        common::command(PROGRAM, self.directory.path(), line)
    }

    pub fn run(&self, line: &str) -> Said {
        Said::of(self.command(line))
    }

    pub fn repository(&self) -> PathBuf {
        self.at("repository")
    }

    pub fn publish_build(&self, build: &Path, more: &[&str]) -> Said {
        let mut args: Vec<PathBuf> = vec!["publish".into(), "--repo".into(), self.repository()];
        args.extend([
            "--site".into(),
            site().into(),
            "--passphrase-file".into(),
            passphrase_file(),
        ]);
        args.extend(["--release".into(), build.into()]);
        args.extend(more.iter().map(PathBuf::from));
        repo(args)
    }

    pub fn publish(&self, version: &str) -> Said {
        self.publish_build(&build(self.directory.path(), version), &[])
    }

    pub fn export(&self, name: &str, more: &[&str]) -> PathBuf {
        let out = self.at(name);
        let mut args: Vec<PathBuf> = vec!["export".into(), "--repo".into(), self.repository(), "--out".into()];
        args.push(out.clone());
        args.extend(more.iter().map(PathBuf::from));
        repo(args).ends(0);
        out
    }

    pub fn import(&self, bundle: &Path, more: &[&str]) -> Said {
        self.import_with(bundle, &trust(), more)
    }

    pub fn import_with(&self, bundle: &Path, trust: &Path, more: &[&str]) -> Said {
        let mut args: Vec<PathBuf> = vec!["import".into(), bundle.into(), "--repo".into(), self.at("gateway")];
        args.extend(["--trust".into(), trust.into()]);
        args.extend(more.iter().map(PathBuf::from));
        repo(args)
    }

    pub fn list(&self, path: &Path) -> serde_json::Value {
        let trust = trust().display().to_string();
        repo(["list", path.to_str().unwrap(), "--trust", &trust, "--json"])
            .ends(0)
            .json()
    }
}

/// With a release whose root file system fills several volumes, and does not compress.
pub fn large() -> Low {
    let low = Low::new();
    let build = build(low.directory.path(), "1.0.0");
    let blocks = (0..200_000u32).flat_map(|n| Sha256::of(&n.to_le_bytes()).0);
    replace_part(&build, Part::Root, &blocks.collect::<Vec<u8>>());
    low.publish_build(&build, &[]).ends(0);
    std::os::unix::fs::symlink(site(), low.at("site")).unwrap();
    std::os::unix::fs::symlink(other_site(), low.at("other")).unwrap();
    std::fs::copy(passphrase_file(), low.at("passphrase")).unwrap();
    std::fs::create_dir(low.at("discs")).unwrap();
    low
}

pub type Change<'a> = dyn Fn(&str, Vec<u8>) -> Option<Vec<u8>> + 'a;

/// Writes a bundle anew, each member through `edit`: changed, or left out where it gives none.
pub fn edit(from: &Path, to: &Path, edit: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>) -> PathBuf {
    let mut out = tar::Builder::new(File::create(to).unwrap());
    let mut archive = tar::Archive::new(File::open(from).unwrap());
    for member in archive.entries().unwrap() {
        let mut member = member.unwrap();
        let name = member.path().unwrap().display().to_string();
        let mut content = Vec::new();
        member.read_to_end(&mut content).unwrap();
        if let Some(content) = edit(&name, content) {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            out.append_data(&mut header, name, content.as_slice()).unwrap();
        }
    }
    out.finish().unwrap();
    to.to_path_buf()
}
