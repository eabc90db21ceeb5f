// SPDX-License-Identifier: GPL-3.0-or-later
//! A site's TUF keys in memory and the repository that it signs with them, for recipes that steal some of the keys.
//!
//! The history is that of a small site: version 1 and 2 carry release 1.0.0, version 3 adds 1.1.0.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use signing::clock::now;
use signing::digest::Sha256;
use signing::release::{Custom, Part, Version};
use signing::tuf::author::{self, Delegation, Ed25519Signer, Header, KeySet, MetaEntry, RootPlan, Signer, TargetEntry};
use signing::tuf::beside;

use crate::common;

pub type Key = Rc<Ed25519Signer>;

pub fn key() -> Key {
    Rc::new(Ed25519Signer::generate().unwrap().0)
}

/// A release as the site built it.
#[derive(Clone)]
pub struct Built {
    pub version: Version,
    pub root_hash: Sha256,
    pub parts: Vec<(Part, Vec<u8>)>,
}

/// What stands at a place of a repository.
#[derive(Clone, PartialEq)]
pub enum Node {
    File(Vec<u8>),
    /// A file that goes on with this many zeros.
    Long(Vec<u8>, u64),
    /// A symbolic link.
    Link(PathBuf),
    /// A pipe into which nobody writes.
    Pipe,
}

impl Node {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::File(bytes) | Self::Long(bytes, _) => bytes,
            Self::Link(_) | Self::Pipe => &[],
        }
    }

    fn write(&self, place: &Path) {
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        match self {
            Self::File(bytes) => fs::write(place, bytes).unwrap(),
            Self::Long(bytes, more) => {
                fs::write(place, bytes).unwrap();
                let file = File::options().write(true).open(place).unwrap();
                file.set_len(bytes.len() as u64 + more).unwrap();
            }
            Self::Link(to) => std::os::unix::fs::symlink(to, place).unwrap(),
            Self::Pipe => common::pipe(place),
        }
    }
}

/// The keys, two custodians of three for the root, and all files that were ever published.
#[derive(Clone)]
pub struct Vault {
    pub custodians: Vec<Key>,
    pub targets: Key,
    pub host: Key,
    pub snapshot: Key,
    pub timestamp: Key,
    pub metadata: BTreeMap<String, Node>,
    pub contents: BTreeMap<String, Node>,
    pub entries: BTreeMap<String, TargetEntry>,
    /// The timestamps by their versions: a repository holds only the newest.
    pub timestamps: BTreeMap<u64, Vec<u8>>,
    releases: Rc<[Built; 2]>,
}

impl Vault {
    /// Keys, the first root, and nothing else.
    pub fn new(releases: [Built; 2]) -> Self {
        let mut vault = Self {
            custodians: vec![key(), key(), key()],
            targets: key(),
            host: key(),
            snapshot: key(),
            timestamp: key(),
            metadata: BTreeMap::new(),
            contents: BTreeMap::new(),
            entries: BTreeMap::new(),
            timestamps: BTreeMap::new(),
            releases: Rc::new(releases),
        };
        vault.put_root(1, &[0, 1]);
        vault
    }

    /// Another site with the same releases and keys of its own.
    pub fn stranger(&self) -> Self {
        let mut vault = Self::new((*self.releases).clone());
        vault.publish(3, 2);
        vault
    }

    /// What the victim has seen: the second version.
    pub fn seen(releases: [Built; 2]) -> Self {
        let mut vault = Self::new(releases);
        vault.publish(1, 1);
        vault.publish(2, 1);
        vault
    }

    pub fn file(&self, name: &str) -> &[u8] {
        self.metadata[name].bytes()
    }

    pub fn put(&mut self, name: &str, bytes: Vec<u8>) {
        self.metadata.insert(name.to_owned(), Node::File(bytes));
    }

    pub fn root_plan(&self, version: u64) -> RootPlan {
        let one = |key: &Key| KeySet::single(key.public());
        RootPlan {
            header: Header {
                expires: now() + TimeDelta::days(3000),
                ..header(version)
            },
            root: KeySet {
                keys: self.custodians.iter().map(|key| key.public()).collect(),
                threshold: 2,
            },
            targets: one(&self.targets),
            snapshot: one(&self.snapshot),
            timestamp: one(&self.timestamp),
        }
    }

    /// A root of this version, signed by some of the custodians.
    pub fn put_root(&mut self, version: u64, signers: &[usize]) {
        let signers: Vec<&dyn Signer> = signers.iter().map(|&at| &*self.custodians[at] as &dyn Signer).collect();
        let whole = author::root(&self.root_plan(version), &signers).unwrap();
        self.put(&format!("{version}.root.json"), whole);
    }

    /// Publishes the first so many releases, all roles at this version.
    pub fn publish(&mut self, version: u64, releases: usize) {
        let built = Rc::clone(&self.releases);
        for release in &built[..releases] {
            for (part, content) in &release.parts {
                self.put_target(release, *part, &part.target(release.version), content);
            }
        }
        self.delegate(version);
        self.put_host(version);
        self.index(version, &[("host", version), ("targets", version)]);
    }

    /// Adds a target to the role `host`, described as this part of this release.
    pub fn put_target(&mut self, release: &Built, part: Part, name: &str, content: &[u8]) {
        let place = self.describe(release, part, name, content);
        self.contents.insert(place, Node::File(content.to_vec()));
    }

    /// As [`Vault::put_target`], without its content; says where that belongs.
    pub fn describe(&mut self, release: &Built, part: Part, name: &str, content: &[u8]) -> String {
        let custom = Custom {
            version: release.version,
            channel: "stable".into(),
            part,
            root_hash: release.root_hash,
            size: content.len() as u64,
        };
        let sha256 = Sha256::of(content);
        let entry = TargetEntry {
            length: content.len() as u64,
            sha256,
            custom: serde_json::to_value(custom).unwrap().as_object().cloned(),
        };
        self.entries.insert(name.to_owned(), entry);
        place(name, sha256)
    }

    /// The newest release.
    pub fn newest(&self) -> Built {
        self.releases[1].clone()
    }

    /// What stands where the content of a part of the newest release belongs.
    pub fn content(&mut self, part: Part) -> &mut Node {
        let name = part.target(self.releases[1].version);
        let place = place(&name, self.entries[&name].sha256);
        self.contents.get_mut(&place).unwrap()
    }

    pub fn delegate(&mut self, version: u64) {
        let delegation = Delegation {
            name: "host".into(),
            keys: KeySet::single(self.host.public()),
            paths: vec!["host/*/*".into()],
            terminating: true,
        };
        let top = author::targets(&header(version), &BTreeMap::new(), &[delegation], &[&*self.targets]).unwrap();
        self.put(&format!("{version}.targets.json"), top);
    }

    pub fn put_host(&mut self, version: u64) {
        let host = author::targets(&header(version), &self.entries, &[], &[&*self.host]).unwrap();
        self.put(&format!("{version}.host.json"), host);
    }

    /// Snapshot and timestamp of this version for roles of these versions.
    pub fn index(&mut self, version: u64, roles: &[(&str, u64)]) {
        let meta = roles.iter().map(|(role, version)| {
            let bytes = self.file(&format!("{version}.{role}.json"));
            (format!("{role}.json"), MetaEntry::of(*version, bytes))
        });
        let snapshot = author::snapshot(&header(version), &meta.collect(), &[&*self.snapshot]).unwrap();
        self.put(&format!("{version}.snapshot.json"), snapshot);
        self.stamp(version, version);
    }

    /// A timestamp of this version for the snapshot of that one.
    pub fn stamp(&mut self, version: u64, snapshot: u64) {
        let meta = MetaEntry::of(snapshot, self.file(&format!("{snapshot}.snapshot.json")));
        let timestamp = author::timestamp(&header(version), &meta, &[&*self.timestamp]).unwrap();
        self.timestamps.insert(version, timestamp.clone());
        self.put("timestamp.json", timestamp);
    }

    /// Signs a file again with these keys, after a change.
    pub fn resign(&mut self, name: &str, signers: &[&Key], change: impl FnOnce(&mut Value)) {
        let mut value: Value = serde_json::from_slice(self.file(name)).unwrap();
        change(&mut value["signed"]);
        value["signatures"] = json!([]);
        let mut bytes = serde_json::to_vec(&value).unwrap();
        for signer in signers {
            bytes = author::cosign(&bytes, &***signer).unwrap();
        }
        self.put(name, bytes);
    }

    /// Puts a text in place of another, as somebody without any key does.
    pub fn replace(&mut self, name: &str, from: &str, to: &str) {
        let text = std::str::from_utf8(self.file(name)).unwrap();
        assert!(text.contains(from), "{name} does not hold {from:?}");
        let text = text.replacen(from, to, 1);
        self.put(name, text.into_bytes());
    }

    /// Lays the repository down: `metadata/` and `targets/` below a new directory.
    pub fn lay_down(&self) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (below, files) in [("metadata", &self.metadata), ("targets", &self.contents)] {
            for (name, node) in files {
                node.write(&directory.path().join(below).join(name));
            }
        }
        directory
    }

    /// The OpenPGP signatures beside its metadata. Even the OpenPGP key is the thief's: TUF alone must refuse. A timestamp
    /// without a version has none: nobody would know under which name to look for it.
    pub fn countersigned(&self) -> Vec<(String, Vec<u8>)> {
        let name = |file: &str, bytes: &[u8]| match file {
            "timestamp.json" => {
                let timestamp: serde_json::Value = serde_json::from_slice(bytes).ok()?;
                Some(beside::timestamp(timestamp["signed"]["version"].as_u64()?))
            }
            root if root.ends_with(".root.json") => Some(format!("{root}.asc")),
            _ => None,
        };
        let files = self.metadata.iter().map(|(file, node)| (file, node.bytes()));
        files
            .filter_map(|(file, bytes)| Some((name(file, bytes)?, common::release_signature(bytes))))
            .collect()
    }
}

fn header(version: u64) -> Header {
    Header {
        version,
        expires: now() + TimeDelta::days(30),
        signed_at: signed_at(),
    }
}

/// An hour ago: no floor of time rises above the clock.
fn signed_at() -> DateTime<Utc> {
    now() - TimeDelta::hours(1)
}

fn place(name: &str, sha256: Sha256) -> String {
    signing::tuf::client::consistent_path(name, &sha256.to_string())
}
