// SPDX-License-Identifier: GPL-3.0-or-later
//! Two of three officers sign an approval: nobody takes it before.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use signing::process::Cmd;
use support::common::{self, contents, officer_adds, site_of_officers};
use support::low::Low;
use support::{passphrase_file, site};

const APPROVE: &str = "approve 1.0.0 --repo gateway --trust vendor --site office --passphrase-file passphrase";
const EXPORT: &str = "export --repo gateway --trust vendor --site-trust office/trust --out approved.bundle";
const NEXT: &str = "import approved.bundle --repo next --trust vendor --site-trust office/trust";

/// A gateway whose officers demand two certificates, after the first has approved release 1.0.0.
fn approved_by_one() -> Low {
    let low = Low::published();
    std::os::unix::fs::symlink(site().join("trust"), low.at("vendor")).unwrap();
    std::os::unix::fs::symlink(site_of_officers(), low.at("office")).unwrap();
    fs::copy(passphrase_file(), low.at("passphrase")).unwrap();
    low.run("import 1.bundle --repo gateway --trust vendor").ok();
    let said = low.run(APPROVE).ok();
    for line in [
        "2 OpenPGP certificates must sign it, and only the release key's did",
        "bastide-sign openpgp --key KEY --add gateway/site/metadata/timestamp.json",
        "--out gateway/site/metadata/1.timestamp.json.asc",
    ] {
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
    low
}

fn add(low: &Low, officer: &str) {
    let metadata = low.at("gateway/site/metadata");
    officer_adds(
        officer,
        &metadata.join("timestamp.json"),
        &metadata.join("1.timestamp.json.asc"),
    );
}

#[test]
fn one_officer_alone_approves_nothing_and_two_do() {
    let low = approved_by_one();
    low.run(EXPORT).ok();
    low.run(NEXT).fails(
        3,
        &["timestamp.json", "1 of the 2 certificates that must have signed did"],
    );
    assert_eq!(support::only_refused(&low.at("next")), 1);
    fs::remove_file(low.at("approved.bundle")).unwrap();
    add(&low, "anna");
    low.run(EXPORT).ok();
    low.run(NEXT).ok();
    // The third may come later, and changes nothing that was taken.
    let before = contents(&low.at("next"));
    add(&low, "ben");
    fs::remove_file(low.at("approved.bundle")).unwrap();
    low.run(EXPORT).ok();
    low.run(NEXT).ok();
    let after = contents(&low.at("next"));
    assert_eq!(before.len(), after.len());
    let json = low.run(&format!("{APPROVE} --json")).ends(0).json();
    assert_eq!(json["certificates"], 2);
}

/// Whoever took the release key signs twice with it, or with keys of nobody.
#[test]
fn a_thief_of_one_officers_key_approves_nothing() {
    let low = approved_by_one();
    let metadata = low.at("gateway/site/metadata");
    let (stamp, signature) = (metadata.join("timestamp.json"), metadata.join("1.timestamp.json.asc"));
    let stranger = common::release_signature(&fs::read(&stamp).unwrap());
    let first = fs::read(&signature).unwrap();
    let joined = signing::openpgp::join(&first, &stranger).unwrap();
    let passphrase = common::passphrase();
    let office = signing::site::Site::open(&low.at("office")).unwrap();
    let again = office.release_key(&passphrase).unwrap();
    let again = again.sign_detached(&fs::read(&stamp).unwrap()[..]).unwrap();
    let twice = [dearmored(&first), dearmored(again.as_bytes())].concat();
    for (forged, why) in [
        (joined.as_bytes(), "1 of the 2 certificates"),
        (&twice[..], "has signed more than once"),
    ] {
        fs::write(&signature, forged).unwrap();
        low.run(EXPORT).ok();
        low.run(NEXT).fails(3, &["timestamp.json", why]);
        fs::remove_file(low.at("approved.bundle")).unwrap();
    }
}

/// GnuPG takes the armour off.
fn dearmored(signature: &[u8]) -> Vec<u8> {
    Cmd::new("gpg").arg("--dearmor").input(signature).output().unwrap()
}
