// SPDX-License-Identifier: GPL-3.0-or-later
//! Receipts in a repository: who acknowledged what, by the audit and by the script.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use hardening::verdict::Outcome;
use offline_repo::receipts::{enrol, receive};
use offline_repo::repository::Repository;
use signing::digest::Sha256;
use signing::keys::{Algorithm, PrivateKey};
use signing::receipt::{Holder, Receipt, ReleaseHeld, Signed};
use support::agree::{Judge, PASS, Table};
use support::world::{World, assert_fails, assert_pass};
use support::{Tamper, common, trust};

/// A repository with release 1.0.0, and two holders who acknowledged it.
struct Bench {
    world: World,
    host: PrivateKey,
    gateway: PrivateKey,
    root_hash: Sha256,
}

impl Bench {
    fn new() -> Self {
        let world = World::new(Tamper::None);
        let repository = Repository::open(&world.repository()).unwrap();
        let root = fs::read(trust().join("root.json")).unwrap();
        let root_hash = repository.read(&root).unwrap().releases[0].root_hash;
        let [host, gateway] =
            [Algorithm::Ed25519, Algorithm::EcdsaP256].map(|kind| PrivateKey::generate(kind).unwrap());
        let bench = Self {
            world,
            host,
            gateway,
            root_hash,
        };
        for signed in [bench.hosts(1), bench.gateways("1.0.0", root_hash)] {
            let name = signed.receipt.name.parse().unwrap();
            enrol(&repository, &signed, &name, &signed.fingerprint.to_string()).unwrap();
        }
        receive(&repository, &bench.hosts(2)).unwrap();
        bench
    }

    fn hosts(&self, sequence: u64) -> Signed {
        self.host_runs(sequence, self.root_hash)
    }

    fn host_runs(&self, sequence: u64, root_hash: Sha256) -> Signed {
        let mut receipt = common::host_receipt("rack4", sequence, "1.0.0");
        if let Holder::Host(host) = &mut receipt.holder {
            host.root_hash = root_hash;
        }
        receipt.sign(&self.host).unwrap()
    }

    fn gateways(&self, version: &str, root_hash: Sha256) -> Signed {
        let releases = vec![ReleaseHeld {
            version: version.parse().unwrap(),
            root_hash,
            objects: Vec::new(),
        }];
        let receipt = Receipt::new("g1", 1, signing::clock::now(), Holder::Gateway { releases });
        receipt.sign(&self.gateway).unwrap()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.world.repository().join("receipts").join(name)
    }

    /// Judges the repository as it is while a file has this content.
    fn with(&self, name: &str, content: &[u8], judge: impl FnOnce(&Path)) {
        let place = self.at(name);
        let honest = fs::read(&place).ok();
        fs::write(&place, content).unwrap();
        judge(&self.world.repository());
        match honest {
            Some(honest) => fs::write(place, honest).unwrap(),
            None => fs::remove_file(place).unwrap(),
        }
    }
}

#[test]
fn audit_and_script_tell_who_acknowledged_what_and_miss_no_forgery() {
    let bench = Bench::new();
    let place = bench.world.repository();
    let mut table = Table::new();
    let mut both = |case: &str, expected: (i32, &str)| {
        if let Some(table) = &mut table {
            table.judge(case, &bench.world.repository(), expected, &Judge::default());
        }
    };
    let report = bench.world.audit_repository();
    assert_pass(&report);
    let passed = report.findings(Outcome::Pass);
    for (id, says) in [
        ("receipts.rack4", "runs 1.0.0, healthy"),
        ("receipts.g1", "holds 1.0.0"),
    ] {
        let found = passed.iter().find(|(_, finding)| finding.id == id);
        let told = format!("{:?}", found.unwrap().1.verdict);
        assert!(told.contains(says), "{told}");
    }
    both("two holders", PASS);
    fs::write(bench.at("own.json"), r#"{"sequence":1}"#).unwrap();
    both("a gateway's own count", PASS);

    let honest = String::from_utf8(fs::read(bench.at("rack4/2.json")).unwrap()).unwrap();
    let foreign = bench.gateways("1.0.0", bench.root_hash);
    let other = bench.host_runs(2, Sha256::of(b"another root"));
    let unnamed = bench.gateways("6.6.6", bench.root_hash);
    let hidden = "no receipt and no enrolled key";
    for (name, content, (id, text), why) in [
        (
            "rack4/2.json",
            honest.replace("\"healthy\": true", "\"healthy\": false").as_bytes(),
            ("receipts.rack4", "does not hold"),
            "receipts/rack4: InvalidSignature",
        ),
        (
            "rack4/2.json",
            &foreign.bytes[..],
            ("receipts.rack4", "another holder's"),
            "receipts/rack4: Refused",
        ),
        (
            "rack4/3.json",
            honest.as_bytes(),
            ("receipts.rack4", "another number"),
            "receipts/rack4: Refused",
        ),
        (
            "rack4/2.json",
            &other.bytes[..],
            ("receipts.rack4", "another root hash"),
            "has another root hash than was signed",
        ),
        (
            "rack4/1.json",
            b"{}",
            ("receipts.rack4", "this is no receipt"),
            "receipts/rack4: KeyError",
        ),
        (
            "rack4/note",
            b"x",
            ("receipts.rack4", "has no place"),
            "receipts/rack4: Refused",
        ),
        (
            "rack4/key.pem",
            b"x",
            ("receipts.rack4", ""),
            "receipts/rack4: ValueError",
        ),
        ("note", b"x", ("receipts.note", hidden), "receipts/note: Refused"),
    ] {
        bench.with(name, content, |_| {
            assert_fails(&bench.world.audit_repository(), id, text);
            both(&format!("{name}: {text}"), (3, why));
        });
    }
    bench.with("g1/1.json", &unnamed.bytes, |_| {
        assert_eq!(bench.world.audit_repository().outcome, Outcome::CouldNotCheck);
        both(
            "a release that nobody signed here",
            (4, "is none that this repository names"),
        );
    });
    let link = bench.at("linked");
    std::os::unix::fs::symlink("/etc", &link).unwrap();
    assert_fails(&bench.world.audit_repository(), "receipts.linked", hidden);
    both("a link", (3, "receipts/linked: Refused"));
    fs::remove_file(link).unwrap();
    both("put right again", PASS);
    fs::remove_dir_all(place.join("receipts")).unwrap();
    both("nobody acknowledged anything", PASS);
    if let Some(table) = &table {
        table.agree();
    }
}
