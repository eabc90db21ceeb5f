// SPDX-License-Identifier: GPL-3.0-or-later
//! Receipts in a repository: who acknowledged what, by the audit and by the script.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use hardening::verdict::Outcome;
use offline_repo::receipts::{enrol, receive};
use offline_repo::repository::Repository;
use serde_json::{Value, json};
use signing::digest::Sha256;
use signing::keys::{Algorithm, PrivateKey};
use signing::receipt::{GatewayState, Holder, Receipt, ReleaseHeld, SetSeen, Signed, Verdict};
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
        let state = GatewayState {
            releases,
            ..GatewayState::default()
        };
        let receipt = Receipt::new("g1", 1, signing::clock::now(), Holder::Gateway(state));
        receipt.sign(&self.gateway).unwrap()
    }

    /// The host's first receipt, of another release.
    fn host_ran(&self, version: &str) -> Signed {
        common::host_receipt("rack4", 1, version).sign(&self.host).unwrap()
    }

    /// A gateway's receipt that waits for volumes, changed before it is signed.
    fn waits(&self, change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let refused = Verdict {
            at: chrono::DateTime::UNIX_EPOCH,
            volumes: vec![2],
            files: vec!["1.bundle.002".to_owned()],
            reason: "it is damaged".to_owned(),
        };
        let set = SetSeen {
            set: Sha256::of(b"set"),
            releases: vec!["1.1.0".parse().unwrap()],
            of: 4,
            received: vec![1, 3],
            missing: vec![2, 4],
            refused: Some(refused),
        };
        let state = GatewayState {
            sets: vec![set],
            ..GatewayState::default()
        };
        let receipt = Receipt::new("g1", 1, signing::clock::now(), Holder::Gateway(state));
        let signed = receipt.sign(&self.gateway).unwrap();
        let mut file: Value = serde_json::from_slice(&signed.bytes).unwrap();
        change(&mut file["signed"]["holder"]["sets"][0]);
        // The canonical form escapes neither of these.
        let message = file["signed"]
            .to_string()
            .replace("\\n", "\n")
            .replace("\\u001b", "\u{1b}");
        file["signature"] = hex::encode(self.gateway.sign(message.as_bytes()).unwrap()).into();
        serde_json::to_vec(&file).unwrap()
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
    // What waits at a gateway is told, and holds nobody up.
    bench.with("g1/1.json", &bench.waits(|_| ()), |_| {
        let report = bench.world.audit_repository();
        assert_pass(&report);
        let told = report.findings(Outcome::Pass);
        let told = told.iter().find(|(_, finding)| finding.id == "receipts.g1").unwrap().1;
        let (verdict, facts) = (format!("{:?}", told.verdict), format!("{:?}", told.facts));
        let words =
            "has volume 1, 3 of 4, waits for volume 2, 4 of 4; volume 2 refused 1970-01-01 00:00 UTC: it is damaged";
        assert!(
            verdict.contains("holds no release") && verdict.contains(words),
            "{verdict}"
        );
        assert!(facts.contains(words), "{facts}");
        let words = words.replace(" 00:00 UTC", "T00:00:00Z");
        both("a gateway that waits", (0, &words));
    });
    type Change = fn(&mut Value);
    let changes: [(&str, Change, &str, &str); 7] = [
        (
            "a volume that came and is missing",
            |set| set["missing"] = json!([1, 2, 4]),
            "cannot be",
            "Refused",
        ),
        (
            "a volume of which nobody speaks",
            |set| set["missing"] = json!([2]),
            "cannot be",
            "Refused",
        ),
        (
            "volumes in disorder",
            |set| set["received"] = json!([3, 1]),
            "cannot be",
            "Refused",
        ),
        (
            "more volumes than can be",
            |set| set["of"] = json!(10_000),
            "cannot be",
            "Refused",
        ),
        (
            "a refused volume that is none",
            |set| set["refused"]["volumes"] = json!([5]),
            "cannot be",
            "Refused",
        ),
        (
            "a reason for a terminal",
            |set| set["refused"]["reason"] = json!("\u{1b}[2J"),
            "control characters",
            "Refused",
        ),
        (
            "no number of volumes",
            |set| set["of"] = Value::Null,
            "no receipt",
            "Refused",
        ),
    ];
    for (case, change, text, why) in changes {
        bench.with("g1/1.json", &bench.waits(change), |_| {
            assert_fails(&bench.world.audit_repository(), "receipts.g1", text);
            both(case, (3, &format!("receipts/g1: {why}")));
        });
    }
    // An older word that was wrong is not healed by a newer one.
    bench.with(
        "rack4/1.json",
        &bench.host_runs(1, Sha256::of(b"another root")).bytes,
        |_| {
            assert_fails(&bench.world.audit_repository(), "receipts.rack4", "another root hash");
            both(
                "an older receipt of another root",
                (3, "has another root hash than was signed"),
            );
        },
    );
    let newest = bench.hosts(2);
    bench.with("rack4/1.json", &bench.host_ran("0.9.0").bytes, |_| {
        let report = bench.world.audit_repository();
        assert_pass(&report);
        let passed = report.findings(Outcome::Pass);
        let told = passed
            .iter()
            .find(|(_, finding)| finding.id == "receipts.rack4")
            .unwrap()
            .1;
        let facts = format!("{:?}", told.facts);
        let date = newest.receipt.at.format("%Y-%m-%d").to_string();
        for version in ["0.9.0", "1.0.0"] {
            assert!(facts.contains(&format!("acknowledged {version}")), "{facts}");
        }
        assert!(facts.contains(&date), "{facts}");
        both("an older release that is gone", PASS);
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
