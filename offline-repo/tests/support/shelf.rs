// SPDX-License-Identifier: GPL-3.0-or-later
//! A store with objects and snapshots, made by the library and without upstream's proof.

use std::collections::BTreeSet;
use std::path::PathBuf;

use offline_repo::snapshot::{FORMAT, KeptFile, Origin, Snapshot, SnapshotPackage};
use offline_repo::spec::Role;
use offline_repo::store::Store;
use signing::clock::now;
use signing::digest::Sha256;

use super::PROGRAM;
use super::common::{self, Said};

pub struct Shelf {
    pub directory: tempfile::TempDir,
}

/// A package of a snapshot and its content.
pub fn package(name: &str, version: &str, content: &[u8]) -> (SnapshotPackage, Vec<u8>) {
    let package = SnapshotPackage {
        name: name.into(),
        version: version.into(),
        architecture: "amd64".into(),
        source: name.into(),
        source_version: version.into(),
        section: None,
        filename: format!("pool/main/{name}_{version}_amd64.deb"),
        size: content.len() as u64,
        sha256: Sha256::of(content),
        suite: "trixie".into(),
        component: "main".into(),
        roles: BTreeSet::from([Role::Host]),
    };
    (package, content.to_vec())
}

/// Many small packages whose content is their name.
pub fn many(number: usize) -> Vec<(SnapshotPackage, Vec<u8>)> {
    let one = |index| package(&format!("p{index}"), "1.0-1", format!("content of {index}").as_bytes());
    (0..number).map(one).collect()
}

impl Shelf {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Store::create(&directory.path().join("store")).unwrap();
        Self { directory }
    }

    /// With a snapshot `base` of so many small packages.
    pub fn with(number: usize) -> Self {
        let shelf = Self::new();
        shelf.put("base", &many(number));
        shelf
    }

    pub fn store(&self) -> Store {
        Store::open(&self.directory.path().join("store")).unwrap()
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Takes packages into the pool and names them in a snapshot.
    pub fn put(&self, name: &str, packages: &[(SnapshotPackage, Vec<u8>)]) {
        self.put_of(name, now(), packages);
    }

    /// As [`Shelf::put`], from lists of this date.
    pub fn put_of(&self, name: &str, date: chrono::DateTime<chrono::Utc>, packages: &[(SnapshotPackage, Vec<u8>)]) {
        let store = self.store();
        let lock = store.lock().unwrap();
        for (package, content) in packages {
            let (digest, size) = (&package.sha256, package.size);
            store
                .ingest(&lock, &mut content.as_slice(), digest, size, "it")
                .unwrap();
        }
        let inrelease = KeptFile {
            file: Snapshot::inrelease_file("trixie"),
            sha256: Sha256::of(b"signed"),
            size: 6,
        };
        let kept = [(inrelease.file.clone(), b"signed".to_vec())];
        let origin = Origin {
            suite: "trixie".into(),
            path: "debian".into(),
            components: vec!["main".into()],
            inrelease,
            signers: Vec::new(),
            date,
            signed_at: date,
            packages: Vec::new(),
        };
        let snapshot = Snapshot {
            format: FORMAT,
            name: name.into(),
            architecture: "amd64".into(),
            created_from: vec![origin],
            packages: packages.iter().map(|(package, _)| package.clone()).collect(),
        };
        store.put_snapshot(&lock, &snapshot, &kept).unwrap();
    }

    /// Where the object of such a content lies.
    pub fn object(&self, content: &str) -> PathBuf {
        self.store().object(&Sha256::of(content.as_bytes()))
    }

    /// A command line in the directory that holds `store`.
    pub fn command(&self, line: &str) -> signing::process::Cmd {
        common::command(PROGRAM, self.directory.path(), line)
    }

    pub fn run(&self, line: &str) -> Said {
        Said::of(self.command(line))
    }
}
