// SPDX-License-Identifier: GPL-3.0-or-later
//! What the tests of this crate are made of: a small Debian archive with its own key, a site, and builds.

#![allow(dead_code, unused_imports, clippy::unwrap_used)]

#[path = "../../../signing/tests/common/mod.rs"]
pub mod common;

#[path = "../../../signing/tests/common/archive.rs"]
mod archive;
pub mod debs;
#[path = "../../../signing/tests/common/insider.rs"]
pub mod insider;
pub mod low;
pub mod served;
pub mod shelf;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use chrono::{DateTime, Duration, Utc};
pub use common::{Said, flip, other_site, passphrase_file, site, trust};
use offline_repo::export::{LEVEL, Order, Roots, Selection, export};
use offline_repo::publish;
use offline_repo::repository::Repository;
use offline_repo::snapshot::{FORMAT, Snapshot};
use sequoia_openpgp as openpgp;
use sequoia_openpgp::serialize::SerializeInto;
use signing::clock::now;
use signing::digest::Sha256;
use signing::process::Cmd;
use signing::release::{Part, PartFile, Release};
use signing::secureboot::{Identity, sign_pe};
use signing::site::Site;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_bastide-repo");

/// Runs `bastide-repo`.
pub fn repo<A: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = A>) -> Said {
    Said::of(Cmd::new(PROGRAM).args(args))
}

/// A package of the archive.
#[derive(Clone)]
pub struct Deb {
    pub name: &'static str,
    pub version: &'static str,
    pub depends: &'static str,
    pub content: Vec<u8>,
}

pub fn deb(name: &'static str, version: &'static str, depends: &'static str) -> Deb {
    // Only the hash of a package counts here: nobody unpacks it.
    let content = format!("{name} {version}\n").repeat(1000).into_bytes();
    Deb {
        name,
        version,
        depends,
        content,
    }
}

/// An upstream: a directory with an archive `debian`, and a specification that pins its key.
pub struct Archive {
    pub directory: tempfile::TempDir,
    key: openpgp::Cert,
    pub date: DateTime<Utc>,
    pub valid_until: Option<DateTime<Utc>>,
    pub codename: &'static str,
}

impl Archive {
    pub fn new() -> Self {
        let archive = Self {
            directory: tempfile::tempdir().unwrap(),
            key: archive::key(),
            date: now() - Duration::hours(1),
            valid_until: None,
            codename: "small",
        };
        let public = archive.key.armored().to_vec().unwrap();
        fs::write(archive.at("key.asc"), public).unwrap();
        archive
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    pub fn upstream(&self) -> String {
        format!("file:{}", self.directory.path().display())
    }

    /// Writes the specification and gives its path.
    pub fn spec(&self, host: &[&str], guest: &[&str]) -> PathBuf {
        let text = format!(
            "name = \"test\"\narchitecture = \"amd64\"\nkeyring = \"key.asc\"\n\n[[suite]]\npath = \"debian\"\n\
             name = \"small\"\ncomponents = [\"main\"]\nsigned_by = [\"{}\"]\n\n[packages]\nhost = {host:?}\nguest = {guest:?}\n",
            self.key.fingerprint().to_hex()
        );
        let path = self.at("spec.toml");
        fs::write(&path, text).unwrap();
        path
    }

    /// Writes packages and lists, and signs them.
    pub fn publish(&self, debs: &[Deb]) {
        let mut packages = String::new();
        for deb in debs {
            let file = format!("pool/main/{}_{}_amd64.deb", deb.name, deb.version);
            let place = self.at("debian").join(&file);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, &deb.content).unwrap();
            packages.push_str(&format!(
                "Package: {}\nVersion: {}\nArchitecture: amd64\nMaintainer: Test <test@example.org>\nSection: misc\n\
                 Depends: {}\nFilename: {file}\nSize: {}\nSHA256: {}\nDescription: test\n\n",
                deb.name,
                deb.version,
                deb.depends,
                deb.content.len(),
                Sha256::of(&deb.content)
            ));
        }
        let packages = packages.replace("Depends: \n", "");
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
        encoder.write_all(packages.as_bytes()).unwrap();
        self.publish_index(packages.as_bytes(), &encoder.finish().unwrap());
    }

    /// Signs these bytes as the index, whatever they are.
    pub fn publish_index(&self, plain: &[u8], compressed: &[u8]) {
        let dists = self.at("debian/dists/small");
        fs::create_dir_all(dists.join("main/binary-amd64")).unwrap();
        fs::write(dists.join("main/binary-amd64/Packages.xz"), compressed).unwrap();
        let stamp = |time: DateTime<Utc>| time.format("%a, %d %b %Y %H:%M:%S UTC").to_string();
        let until = self.valid_until.map(|time| format!("Valid-Until: {}\n", stamp(time)));
        let release = format!(
            "Origin: Test\nSuite: small\nCodename: {}\nDate: {}\n{}Architectures: amd64\nComponents: main\nSHA256:\n \
             {} {} main/binary-amd64/Packages\n {} {} main/binary-amd64/Packages.xz\n",
            self.codename,
            stamp(self.date),
            until.unwrap_or_default(),
            Sha256::of(plain),
            plain.len(),
            Sha256::of(compressed),
            compressed.len()
        );
        fs::write(dists.join("InRelease"), archive::sign(&self.key, &release)).unwrap();
    }
}

/// The repository of one release, 1.0.0, and the bundle with it. They are not to be changed, but copied.
pub fn published() -> PathBuf {
    let sources = ["signing/src", "offline-repo/src", "offline-repo/tests/support"];
    common::shared("offline-repo", &sources, |place| {
        let site = Site::open(site()).unwrap();
        let repository = Repository::create(&place.join("repository")).unwrap();
        let options = publish::Options {
            site: &site,
            passphrase: &common::passphrase(),
            build: Some(&build(place, "1.0.0")),
            expires: None,
            now: now(),
            mode: publish::Mode::Write,
        };
        publish::publish(&repository, &options, &mut |_, _| ()).unwrap();
        let root = repository.own_root().unwrap();
        let out = place.join("1.bundle");
        export(
            &repository,
            &Roots::vendor(root),
            &Order::whole(Selection::Newest, LEVEL, &out),
            &mut |_, _, _| (),
        )
        .unwrap();
    })
}

/// How many refusals are written down in a place where nothing was ever taken in, and nothing else is.
pub fn only_refused(gateway: &Path) -> usize {
    let files = common::files_below(gateway);
    assert!(files.iter().all(|path| path.ends_with("refused.json")), "{files:?}");
    files.len()
}

/// The root hash of the build of a version.
pub fn root_hash(version: &str) -> Sha256 {
    Sha256::of(version.as_bytes())
}

/// A small boot image that starts this root file system.
pub fn unsigned_boot_image(section: &str, version: &str, root_hash: &Sha256) -> Vec<u8> {
    let filler = format!("{section} of {version}\n").repeat(5000);
    let content = format!("bastide.roothash={root_hash} quiet\0{filler}");
    common::boot_image(section, &content.into_bytes()[..60_000])
}

fn signed_boot_image(section: &str, version: &str, root_hash: &Sha256) -> Vec<u8> {
    static DB: OnceLock<Identity> = OnceLock::new();
    let open = || Site::open(site()).unwrap().db_key(&common::passphrase()).unwrap();
    let image = unsigned_boot_image(section, version, root_hash);
    sign_pe(&image, DB.get_or_init(open)).unwrap()
}

/// The recipe: one part of a build is another, and its facts agree.
pub fn replace_part(build: &Path, part: Part, content: &[u8]) {
    fs::write(build.join(part.file()), content).unwrap();
    let path = build.join("release.json");
    let mut release: Release = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let facts = release.parts.iter_mut().find(|one| one.part == part).unwrap();
    (facts.size, facts.sha256) = (content.len() as u64, Sha256::of(content));
    fs::write(path, serde_json::to_vec(&release).unwrap()).unwrap();
}

/// What a build keeps of upstream, where this is its snapshot's manifest.
pub fn upstream(manifest: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(manifest.len() as u64);
    tar.append_data(&mut header, "snapshot.json", manifest).unwrap();
    tar.into_inner().unwrap()
}

fn empty_snapshot() -> Vec<u8> {
    let snapshot = Snapshot {
        format: FORMAT,
        name: "base".into(),
        architecture: "amd64".into(),
        created_from: Vec::new(),
        packages: Vec::new(),
    };
    serde_json::to_vec(&snapshot).unwrap()
}

/// A build's directory with small parts.
pub fn build(directory: &Path, version: &str) -> PathBuf {
    let build = directory.join(format!("build-{version}"));
    fs::create_dir_all(&build).unwrap();
    let mut parts = Vec::new();
    for part in Part::ALL {
        let content = match part.command_line() {
            Some(section) => signed_boot_image(section, version, &root_hash(version)),
            None if part == Part::Upstream => upstream(&empty_snapshot()),
            None => format!("{} of {version}\n", part.file()).repeat(5000).into_bytes(),
        };
        fs::write(build.join(part.file()), &content).unwrap();
        parts.push(PartFile::of(part, &content));
    }
    let release = Release {
        format: 1,
        version: version.parse().unwrap(),
        channel: "stable".into(),
        root_hash: root_hash(version),
        snapshot: "base".into(),
        source_date_epoch: 1_700_000_000,
        parts,
    };
    fs::write(build.join("release.json"), serde_json::to_vec(&release).unwrap()).unwrap();
    build
}
