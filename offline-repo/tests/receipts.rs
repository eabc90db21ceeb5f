// SPDX-License-Identifier: GPL-3.0-or-later
//! Receipts that came back over the gap: taken once, of those who are enrolled, and what an export makes of them.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use serde_json::Value;
use signing::keys::{self, Algorithm, PrivateKey};
use signing::receipt::Signed;
use support::common::{self, contents, host_receipt};
use support::low::Low;
use support::{build, passphrase_file, site};

/// A published repository, a host's key, and its receipts 1 to 3 as `1.json` and so on.
fn bench() -> (Low, Signed) {
    let low = Low::published();
    let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
    let mut first = None;
    for sequence in 1..=3 {
        let signed = host_receipt("rack4", sequence, "1.0.0").sign(&key).unwrap();
        fs::write(low.at(&format!("{sequence}.json")), &signed.bytes).unwrap();
        first.get_or_insert(signed);
    }
    let twin = host_receipt("rack4", 2, "0.9.0").sign(&key).unwrap();
    fs::write(low.at("twin.json"), &twin.bytes).unwrap();
    let stranger = PrivateKey::generate(Algorithm::Ed25519).unwrap();
    let foreign = host_receipt("rack4", 9, "1.0.0").sign(&stranger).unwrap();
    fs::write(low.at("foreign.json"), &foreign.bytes).unwrap();
    let forged = String::from_utf8(first.as_ref().unwrap().bytes.clone()).unwrap();
    fs::write(low.at("forged.json"), forged.replace("1.0.0", "6.6.6")).unwrap();
    (low, first.unwrap())
}

fn enrol(low: &Low, file: &str, name: &str, fingerprint: &str) -> common::Said {
    low.run(&format!(
        "enrol {file} --repo repository --name {name} --fingerprint {fingerprint}"
    ))
}

#[test]
fn receipts_of_an_enrolled_host_are_taken_once_and_in_their_order() {
    let (low, first) = bench();
    let fingerprint = first.fingerprint.to_string();
    let receive = |files: &str| low.run(&format!("receive {files} --repo repository"));
    receive("1.json").fails(3, &["is not enrolled here", &fingerprint]);
    enrol(&low, "1.json", "rack4", &fingerprint[..20]).ok();
    let said = receive("1.json 3.json").ok();
    assert!(said.contains("rack4: receipt 1 was received before"), "{said}");
    assert!(said.contains("rack4: runs 1.0.0, healthy; receipt 3 of"), "{said}");
    let before = contents(&low.at("repository/receipts"));
    for (file, why) in [
        ("2.json", "comes after its receipt 3"),
        ("twin.json", "comes after its receipt 3"),
        ("foreign.json", "is not enrolled here"),
        ("forged.json", "was altered after it was signed"),
        ("repository/metadata/timestamp.json", "this is no receipt"),
    ] {
        receive(file).fails(3, &[why]);
        assert_eq!(contents(&low.at("repository/receipts")), before, "{file}");
    }
    // One that is refused does not hold back the others.
    let told = low
        .run("receive forged.json 3.json nowhere.json --repo repository --json")
        .ends(3);
    let told = told.json();
    assert!(told[0]["error"].as_str().unwrap().contains("altered"), "{told}");
    assert_eq!(told[1]["outcome"], "known");
    assert!(told[2]["error"].as_str().unwrap().contains("nowhere.json"), "{told}");

    let listed = low.run("receipts --repo repository --json").ends(0).json();
    assert_eq!(listed[0]["name"], "rack4");
    assert_eq!(listed[0]["fingerprint"], fingerprint.as_str());
    assert_eq!(listed[0]["newest"]["sequence"], 3);
    let text = low.run("receipts --repo repository").ok();
    assert!(text.starts_with("rack4: runs 1.0.0, healthy; receipt 3 of"), "{text}");
    // Somebody who writes the repository cannot put words into a host's mouth.
    fs::copy(low.at("foreign.json"), low.at("repository/receipts/rack4/9.json")).unwrap();
    low.run("receipts --repo repository")
        .fails(3, &["another holder's receipt"]);
}

#[test]
fn a_key_is_enrolled_by_its_fingerprint_and_once() {
    let (low, first) = bench();
    let fingerprint = first.fingerprint.to_string();
    let other = "0".repeat(64);
    for (given, why) in [
        (&fingerprint[..19], "compare at least 20 digits"),
        (&other[..], "and not with"),
    ] {
        enrol(&low, "1.json", "rack4", given).fails(3, &[why]);
    }
    for name in ["../rack4", "Rack4", "", ".hidden", "own.json", &"x".repeat(64)] {
        low.run(&format!(
            "enrol 1.json --repo repository --fingerprint {fingerprint} --name={name}"
        ))
        .ends(2);
    }
    enrol(&low, "forged.json", "rack4", &fingerprint).fails(3, &["altered"]);
    assert!(!low.at("repository/receipts/rack4").exists());
    // Without a name it is what the receipt calls its giver.
    low.run(&format!("enrol 1.json --repo repository --fingerprint {fingerprint}"))
        .ok();
    enrol(&low, "1.json", "rack5", &fingerprint).fails(3, &["is enrolled as rack4"]);
    let foreign = Signed::load(&low.at("foreign.json")).unwrap().fingerprint.to_string();
    enrol(&low, "foreign.json", "rack4", &foreign).fails(3, &["is enrolled as rack4"]);
    enrol(&low, "foreign.json", "rack5", &foreign).ok();
    let listed = low.run("receipts --repo repository --json").ends(0).json();
    let names: Vec<&Value> = listed.as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["rack4", "rack5"]);
}

/// A host's receipt and a gateway's say what the next bundle has to carry.
#[test]
fn an_export_carries_what_the_giver_of_a_receipt_lacks() {
    let (low, _) = bench();
    std::os::unix::fs::symlink(site().join("trust"), low.at("vendor")).unwrap();
    low.run("import 1.bundle --repo gateway --trust vendor").ok();
    let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
    keys::write_new(&low.at("g1.key.pem"), &key, &common::passphrase()).unwrap();
    let secret = passphrase_file().display().to_string();
    let give =
        format!("receipt --repo gateway --trust vendor --name g1 --key g1.key.pem --passphrase-file {secret} --out");
    let given = low.run(&format!("{give} g1.json --json")).ends(0).json();
    assert_eq!(given["receipt"]["holder"]["releases"][0]["version"], "1.0.0");
    assert_eq!(
        given["receipt"]["holder"]["releases"][0]["objects"]
            .as_array()
            .unwrap()
            .len(),
        6
    );
    assert_eq!(given["receipt"]["vendor"].as_array().unwrap().len(), 5);
    low.run(&format!("{give} g1.json")).fails(3, &["exists"]);
    for file in ["1.json", "g1.json"] {
        low.run(&format!("export --repo repository --out none.bundle --since {file}"))
            .fails(1, &["there is no release to export"]);
    }
    low.publish_build(&build(low.directory.path(), "1.1.0"), &[]).ends(0);
    for (number, file) in ["1.json", "g1.json"].iter().enumerate() {
        let line = format!("export --repo repository --out {number}.next.bundle --since {file} --json");
        let summary = low.run(&line).ends(0).json();
        assert_eq!(summary["releases"], serde_json::json!(["1.1.0"]));
    }
    low.run("import 0.next.bundle --repo gateway --trust vendor").ok();
    let second = low.run(&format!("{give} g2.json --json")).ends(0).json();
    assert_eq!(second["receipt"]["sequence"], 2);
    assert_eq!(second["receipt"]["holder"]["releases"].as_array().unwrap().len(), 2);
    low.run("export --repo repository --out no.bundle --since nowhere.json")
        .ends(2);
    low.run("export --repo repository --out no.bundle --since forged.json")
        .fails(3, &["altered"]);
    // What is damaged is not acknowledged.
    let part = common::files_below(&low.at("gateway/targets")).pop().unwrap();
    support::flip(&part);
    low.run(&format!("{give} g3.json")).fails(3, &["is not acknowledged"]);
    assert!(!low.at("g3.json").exists());
}
