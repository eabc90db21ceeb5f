// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-audit verify`: one file by the keys that vouch for it, and every artifact as a tree.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use support::common::{self, Said};
use support::medium::sign;
use support::rotation::second_root;
use support::{Findings as _, PROGRAM};

fn verify(directory: &Path, line: &str) -> Said {
    let trust = support::trust();
    let line = format!("verify {line} --trust {}", trust.display());
    Said::of(common::command(PROGRAM, directory, &line))
}

#[test]
fn one_file_is_followed_to_the_keys_that_vouch_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let file = |name: &str| verify(directory.path(), &format!("{name} --json"));
    support::copy(&support::trust(), directory.path());
    let said = file("root.json").ends(0);
    assert!(said.finding("file.chain", "pass").contains("byte for byte"));
    assert_eq!(said.json()["subject"]["kind"], "file");
    // The next one, by its threshold and by OpenPGP.
    second_root(&at("2.root.json"));
    let said = file("2.root.json").ends(0);
    assert!(said.finding("file.chain", "pass").contains("leads to version 2"));
    let honest = fs::read(at("2.root.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&honest).unwrap();
    let signatures = json["signatures"].as_array_mut().unwrap();
    signatures.truncate(1);
    fs::write(at("2.root.json"), serde_json::to_vec(&json).unwrap()).unwrap();
    let said = file("2.root.json").ends(3);
    for id in ["file.chain", "file.openpgp"] {
        said.finding(id, "fail");
    }
    fs::write(at("2.root.json"), &honest).unwrap();
    fs::remove_file(at("2.root.json.asc")).unwrap();
    file("2.root.json").ends(4).finding("file.openpgp", "could-not-check");
    // What lies between is missing.
    json["signed"]["version"] = 4.into();
    fs::write(at("4.root.json"), serde_json::to_vec(&json).unwrap()).unwrap();
    file("4.root.json").ends(4).finding("file.chain", "could-not-check");
    // Another site's.
    fs::copy(common::other_site().join("trust/root.json"), at("root.json")).unwrap();
    file("root.json").ends(3).finding("file.chain", "fail");
    // Any other file, by the release key alone.
    fs::write(at("notes"), "release notes\n").unwrap();
    sign(&at("notes"));
    file("notes").ends(0);
    support::flip(&at("notes"));
    file("notes").ends(3).finding("file.openpgp", "fail");
    verify(directory.path(), "nothing").fails(1, &["nothing"]);
    // What it is not able to judge is no broken ISO.
    fs::write(at("page.html"), vec![b'x'; 1 << 20]).unwrap();
    verify(directory.path(), "page.html").fails(3, &["page.html", "of no kind that is known"]);
    verify(directory.path(), "notes --at tomorrow").fails(2, &["a time looks like 2026-"]);
}

#[test]
fn a_repository_is_a_tree_from_the_pinned_root_to_the_files() {
    let directory = tempfile::tempdir().unwrap();
    support::copy(&support::honest(), &directory.path().join("repository"));
    let said = verify(directory.path(), "repository").ends(3).out;
    let anchor = signing::anchor::fingerprint(&support::trust()).unwrap();
    let steps = [
        anchor.as_str(),
        "─ pass: Pinned root, version 1",
        "─ pass: Role targets, version 1",
        "─ pass: Role host, version 1",
        "─ pass: host/1.0.0/xen.efi",
        "─ pass: Secure Boot signature",
        "─ Release 1.0.0",
        // Its upstream is not Debian.
        "─ fail: Packages are upstream's",
    ];
    let mut rest = said.as_str();
    for step in steps {
        let at = rest.find(step);
        assert!(at.is_some(), "{step:?} is not in its place:\n{said}");
        rest = &rest[at.unwrap()..];
    }
    // It is the one command for every artifact, whatever it was called before.
    let old = common::command(
        PROGRAM,
        directory.path(),
        &format!("repo repository --trust {}", support::trust().display()),
    );
    assert_eq!(Said::of(old).ends(3).out.lines().count(), said.lines().count());
}
