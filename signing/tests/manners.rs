// SPDX-License-Identifier: GPL-3.0-or-later
//! Secrets that others can read, files that are no boot images, command lines that cannot be meant, lines that fit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{SECRET, Said, boot_image};
use signing::durable::write_private;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bastide-sign");
const CHECK: &str = "site check --site site --passphrase-file passphrase";
const SIGN: &str = "secureboot --site site --passphrase-file passphrase --in x.efi --out y.efi";

fn bench() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    common::copy(common::site(), &place.join("site"));
    write_private(&place.join("passphrase"), format!("{SECRET}\n").as_bytes()).unwrap();
    fs::write(place.join("x.efi"), boot_image(".text", b"code")).unwrap();
    directory
}

fn sign(bench: &TempDir, line: &str) -> Said {
    Said::of(common::command(PROGRAM, bench.path(), line))
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn secrets_that_others_can_read_are_not_used() {
    let bench = bench();
    for (name, line, fix) in [
        ("passphrase", SIGN, "chmod 600 passphrase"),
        ("site/private/db.pem", SIGN, "chmod 600 site/private/db.pem"),
        (
            "site/private/release-openpgp.asc",
            "openpgp --site site --passphrase-file passphrase x.efi",
            "chmod 600 site/private/release-openpgp.asc",
        ),
    ] {
        for mode in [0o644, 0o640, 0o666] {
            chmod(&bench.path().join(name), mode);
            sign(&bench, line).fails(3, &["refused", fix, &format!("{mode:04o}")]);
        }
        chmod(&bench.path().join(name), 0o600);
        sign(&bench, line).ok();
    }
}

#[test]
fn a_site_check_looks_at_modes_and_at_the_owner() {
    let bench = bench();
    for (name, bad, good) in [
        ("site/private", 0o755, 0o700),
        ("site/private/host.pem", 0o640, 0o600),
        ("site/trust", 0o777, 0o755),
        ("site/trust/db.der", 0o666, 0o644),
    ] {
        chmod(&bench.path().join(name), bad);
        sign(&bench, CHECK).fails(3, &[name, "chmod -R"]);
        chmod(&bench.path().join(name), good);
    }
    let owner = bench.path().join("site/trust/owner.guid");
    let right = fs::read(&owner).unwrap();
    for (text, code) in [("11111111-2222-3333-4444-555555555555\n", 3), ("nobody\n", 1)] {
        fs::write(&owner, text).unwrap();
        sign(&bench, CHECK).ends(code);
    }
    fs::write(&owner, right).unwrap();
    sign(&bench, CHECK).ok();
}

#[test]
fn what_is_no_boot_image_is_refused_with_its_reason() {
    let bench = bench();
    let at = |name: &str| bench.path().join(name);
    fs::write(at("text"), "#!/bin/sh\n").unwrap();
    fs::write(at("empty"), "").unwrap();
    let verify = |name: &str| sign(&bench, &format!("verify secureboot --trust site/trust {name}"));
    verify("text").fails(3, &["text", "PE32+"]);
    verify("empty").fails(3, &["empty", "PE32+"]);
    verify("x.efi").fails(3, &["not signed"]);
    let long = fs::File::create(at("long")).unwrap();
    long.set_len((256 << 20) + 1).unwrap();
    verify("long").fails(3, &["longer than any boot image"]);
    verify("/dev/zero").fails(1, &["not a regular file"]);
    verify("none").fails(1, &["none"]);
}

#[test]
fn a_threshold_that_cannot_be_reached_is_a_usage_error() {
    let bench = bench();
    for keys in [
        "--threshold 3 --keys 2",
        "--threshold 0 --keys 3",
        "--threshold 2 --keys 1",
        "--keys 33",
    ] {
        let line = format!("site init --dir new --name New --passphrase-file passphrase {keys}");
        sign(&bench, &line).fails(2, &["threshold"]);
        let told = sign(&bench, &format!("{line} --json")).ends(2).json();
        assert_eq!(told["kind"], "usage");
    }
    sign(&bench, "site init --dir new --name New --root-days 0").ends(2);
    assert!(!bench.path().join("new").exists());
}

#[test]
fn lines_fit_a_screen() {
    let bench = bench();
    sign(&bench, SIGN).ok();
    for line in [
        "site show --site site",
        SIGN,
        "verify secureboot --trust site/trust y.efi",
    ] {
        let said = sign(&bench, line).ok();
        assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    }
}
