// SPDX-License-Identifier: GPL-3.0-or-later
//! A small repository in memory, and the recipes that tamper with it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::rc::Rc;

use chrono::{DateTime, Duration, Utc};
use serde_json::Value;

use super::super::author::{self, Delegation, Ed25519Signer, Header, KeySet, MetaEntry, RootPlan, Signer, TargetEntry};
use super::super::client::consistent_path;
use super::super::json;
use super::super::{Client, Datastore, Limits, Source, SourceError, TufError};
use crate::digest::Sha256;

/// The day on which all tests happen.
pub fn today() -> DateTime<Utc> {
    "2030-01-01T00:00:00Z".parse().unwrap()
}

pub fn key() -> Ed25519Signer {
    Ed25519Signer::generate().unwrap().0
}

/// A repository's files, a log of what was asked for, and faults.
#[derive(Clone, Default)]
pub struct Files {
    pub metadata: BTreeMap<String, Vec<u8>>,
    pub targets: BTreeMap<String, Vec<u8>>,
    /// This file never ends.
    pub endless: Option<String>,
    /// Nobody can say whether this file is there.
    pub unreachable: Option<String>,
    pub log: Rc<RefCell<Vec<String>>>,
}

impl Source for Files {
    fn metadata(&mut self, name: &str, max: u64) -> Result<Option<Vec<u8>>, SourceError> {
        self.log.borrow_mut().push(name.to_owned());
        if self.unreachable.as_deref() == Some(name) {
            return Err(SourceError::Io {
                name: name.to_owned(),
                source: io::ErrorKind::TimedOut.into(),
            });
        }
        if self.endless.as_deref() == Some(name) {
            return Ok(Some(vec![b' '; usize::try_from(max + 1).unwrap()]));
        }
        Ok(self.metadata.get(name).cloned())
    }

    fn target(&mut self, path: &str) -> Result<Option<Box<dyn Read + '_>>, SourceError> {
        if self.endless.as_deref() == Some(path) {
            return Ok(Some(Box::new(io::repeat(b'x'))));
        }
        Ok(self
            .targets
            .get(path)
            .map(|bytes| Box::new(&bytes[..]) as Box<dyn Read>))
    }
}

/// The keys of a site, two of three for root.
pub struct Fixture {
    pub root: Vec<Ed25519Signer>,
    pub targets: Ed25519Signer,
    pub host: Ed25519Signer,
    pub snapshot: Ed25519Signer,
    pub timestamp: Ed25519Signer,
    pub files: Files,
}

impl Fixture {
    /// Root 1, one target `host/1.0.0/root.erofs`, everything at version 1.
    pub fn new() -> Self {
        let mut fixture = Self {
            root: vec![key(), key(), key()],
            targets: key(),
            host: key(),
            snapshot: key(),
            timestamp: key(),
            files: Files::default(),
        };
        let root = fixture.make_root(1, &[0, 1]);
        fixture.put("1.root.json", root);
        fixture.release(1, &[("host/1.0.0/root.erofs", b"the first release")]);
        fixture
    }

    pub fn header(version: u64) -> Header {
        Header {
            version,
            expires: today() + Duration::days(30),
            signed_at: today() - Duration::days(1),
        }
    }

    pub fn plan(&self, version: u64) -> RootPlan {
        RootPlan {
            header: Header {
                expires: today() + Duration::days(365),
                ..Self::header(version)
            },
            root: KeySet {
                keys: self.root.iter().map(Signer::public).collect(),
                threshold: 2,
            },
            targets: KeySet::single(self.targets.public()),
            snapshot: KeySet::single(self.snapshot.public()),
            timestamp: KeySet::single(self.timestamp.public()),
        }
    }

    /// A root of this version, signed by some of the three root keys.
    pub fn make_root(&self, version: u64, signers: &[usize]) -> Vec<u8> {
        let signers: Vec<&dyn Signer> = signers.iter().map(|&at| &self.root[at] as &dyn Signer).collect();
        author::root(&self.plan(version), &signers).unwrap()
    }

    pub fn put(&mut self, name: &str, bytes: Vec<u8>) {
        self.files.metadata.insert(name.to_owned(), bytes);
    }

    pub fn file(&self, name: &str) -> &[u8] {
        &self.files.metadata[name]
    }

    pub fn host_delegation(&self) -> Delegation {
        Delegation {
            name: "host".to_owned(),
            keys: KeySet::single(self.host.public()),
            paths: vec!["host/*/*".to_owned()],
            terminating: true,
        }
    }

    /// Stores contents and describes them.
    pub fn entries(&mut self, contents: &[(&str, &[u8])]) -> BTreeMap<String, TargetEntry> {
        let mut entries = BTreeMap::new();
        for (name, content) in contents {
            let sha256 = Sha256::of(content);
            self.files
                .targets
                .insert(consistent_path(name, &sha256.to_string()), content.to_vec());
            entries.insert(
                (*name).to_owned(),
                TargetEntry {
                    length: content.len() as u64,
                    sha256,
                    custom: None,
                },
            );
        }
        entries
    }

    /// All roles at one version, with these targets in the role host.
    pub fn release(&mut self, version: u64, contents: &[(&str, &[u8])]) {
        let entries = self.entries(contents);
        let host = author::targets(&Self::header(version), &entries, &[], &[&self.host]).unwrap();
        self.put(&format!("{version}.host.json"), host);
        let delegation = self.host_delegation();
        let targets = author::targets(
            &Self::header(version),
            &BTreeMap::new(),
            &[delegation],
            &[&self.targets],
        )
        .unwrap();
        self.put(&format!("{version}.targets.json"), targets);
        self.index(version, &[("host", version), ("targets", version)]);
    }

    /// A role of its own making.
    pub fn role(
        &mut self,
        name: &str,
        version: u64,
        contents: &[(&str, &[u8])],
        to: &[Delegation],
        signer: &dyn Signer,
    ) {
        let entries = self.entries(contents);
        let bytes = author::targets(&Self::header(version), &entries, to, &[signer]).unwrap();
        self.put(&format!("{version}.{name}.json"), bytes);
    }

    /// Snapshot and timestamp of this version for the files as they are.
    pub fn index(&mut self, version: u64, roles: &[(&str, u64)]) {
        let meta = roles
            .iter()
            .map(|(role, version)| {
                let bytes = self.file(&format!("{version}.{role}.json"));
                (format!("{role}.json"), MetaEntry::of(*version, bytes))
            })
            .collect();
        let snapshot = author::snapshot(&Self::header(version), &meta, &[&self.snapshot]).unwrap();
        self.put(&format!("{version}.snapshot.json"), snapshot);
        self.stamp(version, version);
    }

    /// A timestamp for the snapshot of this version.
    pub fn stamp(&mut self, version: u64, snapshot: u64) {
        let meta = MetaEntry::of(snapshot, self.file(&format!("{snapshot}.snapshot.json")));
        let timestamp = author::timestamp(&Self::header(version), &meta, &[&self.timestamp]).unwrap();
        self.put("timestamp.json", timestamp);
    }

    pub fn store(&self) -> Datastore {
        Datastore::ephemeral(self.file("1.root.json")).unwrap()
    }

    pub fn client(&self, store: Datastore) -> Client<Files> {
        Client::open(store, self.files.clone(), Limits::default(), today()).unwrap()
    }

    /// A refresh that must be good; gives back the memory.
    pub fn accept(&self, store: Datastore) -> Datastore {
        let mut client = self.client(store);
        client.refresh().unwrap();
        client.targets().unwrap();
        client.into_datastore()
    }

    /// A refresh, and a look at every target, that must fail.
    pub fn refuse(&self, store: Datastore) -> TufError {
        let mut client = self.client(store);
        match client.refresh() {
            Err(error) => error,
            Ok(()) => client.targets().expect_err("the repository was accepted"),
        }
    }

    /// As [`Fixture::refuse`], for a client that sees the repository for the first time.
    pub fn refuse_new(&self) -> TufError {
        self.refuse(self.store())
    }
}

/// The file with its signed part changed, and signed by these keys only.
pub fn resign(bytes: &[u8], signers: &[&dyn Signer], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(bytes).unwrap();
    change(&mut value["signed"]);
    let message = json::canonical(&value["signed"]).unwrap();
    value["signatures"] = signers
        .iter()
        .map(|signer| {
            serde_json::json!({
                "keyid": author::key_id(&signer.public()).unwrap(),
                "sig": hex::encode(signer.sign(&message).unwrap()),
            })
        })
        .collect();
    serde_json::to_vec(&value).unwrap()
}
