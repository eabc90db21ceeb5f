// SPDX-License-Identifier: GPL-3.0-or-later
//! TUF metadata. The first byte chooses the role; the rest is its file, or, where it is a JSON value, its signed part,
//! which is then signed with the role's own key: what an insider could make the client read.
#![no_main]

#[path = "../seeds.rs"]
mod seeds;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::LazyLock;

use chrono::{DateTime, TimeDelta, Utc};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use signing::digest::Sha256;
use signing::tuf::author::{self, Delegation, Ed25519Signer, Header, KeySet, MetaEntry, RootPlan, Signer, TargetEntry};
use signing::tuf::{Client, Datastore, Limits, Source, SourceError, names};

const NAMES: [&str; 5] = [
    "2.root.json",
    "timestamp.json",
    "1.snapshot.json",
    "1.targets.json",
    "1.host.json",
];

/// Always the same, so that seeds and findings mean the same in every run: RFC 8410's frame of a private key, and the key.
static KEY: LazyLock<Ed25519Signer> = LazyLock::new(|| {
    let frame = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    Ed25519Signer::from_pkcs8(&[&frame[..], &[7; 32]].concat()).unwrap()
});
static TODAY: LazyLock<DateTime<Utc>> = LazyLock::new(|| "2030-01-01T00:00:00Z".parse().unwrap());
static HONEST: LazyLock<BTreeMap<String, Vec<u8>>> = LazyLock::new(honest);

struct Files(BTreeMap<String, Vec<u8>>);

impl Source for Files {
    fn metadata(&mut self, name: &str, _: u64) -> Result<Option<Vec<u8>>, SourceError> {
        Ok(self.0.get(name).cloned())
    }

    fn target(&mut self, _: &str) -> Result<Option<Box<dyn Read + '_>>, SourceError> {
        Ok(None)
    }
}

fn header() -> Header {
    Header {
        version: 1,
        expires: *TODAY + TimeDelta::days(30),
        signed_at: *TODAY - TimeDelta::days(1),
    }
}

fn honest() -> BTreeMap<String, Vec<u8>> {
    let keys = || KeySet::single(KEY.public());
    let plan = RootPlan {
        header: header(),
        root: keys(),
        targets: keys(),
        snapshot: keys(),
        timestamp: keys(),
    };
    let host = Delegation {
        name: "host".into(),
        keys: keys(),
        paths: vec!["host/*/*".into()],
        terminating: true,
    };
    let target = TargetEntry {
        length: 4,
        sha256: Sha256::of(b"data"),
        custom: json!({"version": "1.0.0"}).as_object().cloned(),
    };
    let target = ("host/1.0.0/data".to_owned(), target);
    let mut files = BTreeMap::from([
        ("1.root.json".to_owned(), author::root(&plan, &[&*KEY]).unwrap()),
        (
            "1.targets.json".to_owned(),
            author::targets(&header(), &BTreeMap::new(), &[host], &[&*KEY]).unwrap(),
        ),
        (
            "1.host.json".to_owned(),
            author::targets(&header(), &BTreeMap::from([target]), &[], &[&*KEY]).unwrap(),
        ),
    ]);
    index(&mut files, true);
    files
}

/// Names the files as they are, as an index does that was signed in good faith.
fn index(files: &mut BTreeMap<String, Vec<u8>>, snapshot: bool) {
    if snapshot {
        let entry = |role: &str| {
            (
                format!("{role}.json"),
                MetaEntry::of(1, &files[&format!("1.{role}.json")]),
            )
        };
        let meta = BTreeMap::from([entry("host"), entry("targets")]);
        let snapshot = author::snapshot(&header(), &meta, &[&*KEY]).unwrap();
        files.insert("1.snapshot.json".to_owned(), snapshot);
    }
    let timestamp = author::timestamp(&header(), &MetaEntry::of(1, &files["1.snapshot.json"]), &[&*KEY]).unwrap();
    files.insert("timestamp.json".to_owned(), timestamp);
}

fn client(files: BTreeMap<String, Vec<u8>>) -> Client<Files> {
    let store = Datastore::ephemeral(&HONEST["1.root.json"]).unwrap();
    Client::open(store, Files(files), Limits::default(), *TODAY).unwrap()
}

/// Each role's file and its signed part alone; for the successor of the root the first one stands in, made the second.
fn seeds() -> Vec<Vec<u8>> {
    assert_eq!(
        client(HONEST.clone()).targets().unwrap().len(),
        1,
        "what is honest is not read"
    );
    let mut seeds = Vec::new();
    for (role, name) in (0..).zip(NAMES) {
        let file = HONEST.get(name).unwrap_or(&HONEST["1.root.json"]);
        let mut envelope: Value = serde_json::from_slice(file).unwrap();
        let signed = &mut envelope["signed"];
        if name.ends_with(".root.json") {
            signed["version"] = json!(2);
        }
        seeds.push([&[role][..], &serde_json::to_vec(signed).unwrap()].concat());
        seeds.push([&[role][..], file].concat());
    }
    seeds
}

fuzz_target!(init: seeds::write(seeds), |data: &[u8]| {
    let Some((role, bytes)) = data.split_first() else { return };
    let role = usize::from(*role) % NAMES.len();
    let mut files = HONEST.clone();
    let signed = serde_json::from_slice::<Value>(bytes).ok().and_then(|signed| {
        let envelope = serde_json::to_vec(&json!({"signed": signed, "signatures": []})).ok()?;
        author::cosign(&envelope, &*KEY).ok()
    });
    files.insert(NAMES[role].to_owned(), signed.unwrap_or_else(|| bytes.to_vec()));
    match NAMES[role] {
        "1.snapshot.json" => index(&mut files, false),
        "1.targets.json" | "1.host.json" => index(&mut files, true),
        _ => {}
    }
    drop(Datastore::ephemeral(bytes));
    let Ok(targets) = client(files).targets() else { return };
    for target in targets {
        names::check_target_name(&target.name).unwrap();
        assert!(target.role != "host" || target.name.starts_with("host/"));
    }
});
