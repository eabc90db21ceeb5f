// SPDX-License-Identifier: GPL-3.0-or-later
//! A build with small parts, published, and a builder root that is the machine itself: assembling is the real thing.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../../signing/tests/common/mod.rs"]
pub mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use common::{Said, boot_image, passphrase};
use iso_build::image::{INSTALLER_UNSIGNED, XEN_UNSIGNED};
use iso_build::progress::Progress;
use iso_build::{build, roots, sign};
use offline_repo::publish::{Mode, Options, publish};
use offline_repo::repository::Repository;
use offline_repo::snapshot::Snapshot;
use serde_json::json;
use signing::clock::now;
use signing::digest::Sha256;
use signing::process::Cmd;
use signing::release::{Part, PartFile, Release};
use signing::site::{Site, TRUST_DIRECTORY};
use tempfile::TempDir;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_bastide-iso");

/// The workspace, whose programs a build would compile.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A directory in which the examples of the help are true: the workspace, a store, a site, a build, a repository.
pub struct Bench(TempDir);

impl Bench {
    /// The build is signed and published, and the ISO not made.
    pub fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        common::copy(&published(), bench.path());
        common::copy(common::site(), &bench.at("site"));
        fs::copy(common::passphrase_file(), bench.at("passphrase")).unwrap();
        for name in ["pool", "snapshots/base"] {
            fs::create_dir_all(bench.at("store").join(name)).unwrap();
        }
        fs::write(bench.manifest(), snapshot().to_bytes().unwrap()).unwrap();
        for entry in fs::read_dir(workspace()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            if entry.path().join("Cargo.toml").exists() || entry.path().is_file() {
                symlink(entry.path(), bench.path().join(name)).unwrap();
            }
        }
        let builder = roots::builder_key(&snapshot()).to_string();
        let root = bench.at("out/iso-work/builder").join(&builder[..32]);
        fs::create_dir_all(&root).unwrap();
        symlink("/", root.join("root")).unwrap();
        bench
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The manifest of the snapshot in the store.
    pub fn manifest(&self) -> PathBuf {
        self.at("store/snapshots/base/snapshot.json")
    }

    /// The command, with what leads to the Rust toolchain.
    pub fn command(&self, line: &str) -> Cmd {
        let mut cmd = common::command(PROGRAM, self.path(), line);
        for name in ["HOME", "RUSTUP_HOME", "CARGO_HOME"] {
            if let Some(value) = std::env::var_os(name) {
                cmd = cmd.env(name, value);
            }
        }
        cmd
    }

    pub fn run(&self, line: &str) -> Said {
        Said::of(self.command(line))
    }

    /// Replaces a piece of a file; that it was there is asserted.
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let path = self.at(name);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name} has no {from:?}");
        fs::remove_file(&path).unwrap();
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    }

    /// Takes the signed boot images away, as `bastide-iso build` leaves it.
    pub fn unsign(&self) {
        let directory = self.at("build-1.0.0");
        let mut release = build::read_release(&directory).unwrap();
        release
            .parts
            .retain(|part| !matches!(part.part, Part::Xen | Part::Installer));
        build::write_release(&directory, &release).unwrap();
        for part in [Part::Xen, Part::Installer] {
            fs::remove_file(directory.join(part.file())).unwrap();
        }
    }
}

/// A snapshot of two packages, which nothing here unpacks.
pub fn snapshot() -> Snapshot {
    let sha = |name: &str| Sha256::of(name.as_bytes());
    let package = |name: &str, role: &str| {
        json!({ "name": name, "version": "1-1", "architecture": "amd64", "source": name, "source_version": "1-1",
            "section": "misc", "filename": format!("pool/main/{name}.deb"), "size": 1000, "sha256": sha(name),
            "suite": "trixie", "component": "main", "roles": [role] })
    };
    let manifest = json!({
        "format": 1, "name": "base", "architecture": "amd64",
        "created_from": [{
            "suite": "trixie", "path": "debian", "components": ["main"],
            "inrelease": { "file": "upstream/trixie/InRelease", "sha256": sha("list"), "size": 1 },
            "signers": ["00"], "date": "2025-09-06T10:00:00Z", "signed_at": "2025-09-06T10:00:00Z",
            "packages": [],
        }],
        "packages": [package("mksquashfs", "builder"), package("xen", "host")],
    });
    Snapshot::parse(&serde_json::to_vec(&manifest).unwrap()).unwrap()
}

fn root_hash() -> Sha256 {
    Sha256::of(b"root hash")
}

/// An unsigned boot image of the build, by its file's name.
fn unsigned(name: &str) -> Vec<u8> {
    let section = if name == XEN_UNSIGNED { ".config" } else { ".cmdline" };
    boot_image(section, format!("{name} bastide.roothash={}", root_hash()).as_bytes())
}

/// A root image that carries the trust directory of this site in this place.
pub fn root_image(site: &Path, place: &str) -> Vec<u8> {
    let tree = tempfile::tempdir().unwrap();
    common::copy(&site.join("trust"), &tree.path().join(place.trim_start_matches('/')));
    fs::write(tree.path().join("filling"), [0x5a; 1 << 20]).unwrap();
    common::erofs(tree.path())
}

/// `build-1.0.0`, signed, and `repository` with it.
fn published() -> PathBuf {
    let sources = [
        "signing/src",
        "offline-repo/src",
        "iso-build/src",
        "iso-build/tests/support",
    ];
    common::shared("iso-build", &sources, |place| {
        let directory = place.join("build-1.0.0");
        fs::create_dir(&directory).unwrap();
        for name in [XEN_UNSIGNED, INSTALLER_UNSIGNED] {
            fs::write(directory.join(name), unsigned(name)).unwrap();
        }
        let mut archive = tar::Builder::new(Vec::new());
        let manifest = snapshot().to_bytes().unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(manifest.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, "snapshot.json", manifest.as_slice())
            .unwrap();
        let contents = [
            (Part::Root, root_image(common::site(), TRUST_DIRECTORY)),
            (Part::Verity, vec![0xa5; 8192]),
            (Part::Sbom, b"{}".to_vec()),
            (Part::Upstream, archive.into_inner().unwrap()),
        ];
        let parts = contents.map(|(part, bytes)| {
            fs::write(directory.join(part.file()), &bytes).unwrap();
            PartFile::of(part, &bytes)
        });
        let release = Release {
            format: 1,
            version: "1.0.0".parse().unwrap(),
            channel: "stable".into(),
            root_hash: root_hash(),
            snapshot: "base".into(),
            source_date_epoch: 1_757_152_800,
            parts: parts.into(),
        };
        build::write_release(&directory, &release).unwrap();
        let site = Site::open(common::site()).unwrap();
        sign::sign(&directory, &site, &passphrase(), &mut Progress::new(true)).unwrap();
        let options = Options {
            site: &site,
            passphrase: &passphrase(),
            build: Some(&directory),
            expires: None,
            now: now(),
            mode: Mode::Write,
        };
        let repository = Repository::create(&place.join("repository")).unwrap();
        publish(&repository, &options, &mut |_, _| ()).unwrap();
    })
}
