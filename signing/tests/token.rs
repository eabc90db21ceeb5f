// SPDX-License-Identifier: GPL-3.0-or-later
//! Keys in a token: SoftHSM2, Debian's, which speaks the same PKCS #11 as a real one.
#![cfg(feature = "pkcs11")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::fs;
use std::path::Path;

use chrono::TimeDelta;
use common::Said;
use serde_json::{Value, json};
use signing::clock::now;
use signing::durable::write_private;
use signing::keys::{MetadataKey, Passphrase, open_file};
use signing::openpgp::{OpenPgpKey, verify_cleartext};
use signing::process::Cmd;
use signing::tuf::author::{self, Ed25519Signer, Header, KeySet, RootPlan, Signer};
use signing::tuf::root::judge_first;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bastide-sign");
const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const INSIDE: &str = "BASTIDE_TEST_TOKEN";

/// A directory with an empty token in it; nothing where SoftHSM2 is not installed.
fn token() -> Option<TempDir> {
    if !Path::new(MODULE).exists() {
        eprintln!("softhsm2 is not installed: no token to test with");
        return None;
    }
    let bench = tempfile::tempdir().unwrap();
    let place = bench.path();
    fs::create_dir(place.join("tokens")).unwrap();
    let text = format!("directories.tokendir = {}\n", place.join("tokens").display());
    fs::write(place.join("softhsm2.conf"), text).unwrap();
    write_private(&place.join("pin"), b"1234\n").unwrap();
    write_private(&place.join("wrong"), b"4321\n").unwrap();
    Cmd::new("softhsm2-util")
        .args([
            "--init-token",
            "--free",
            "--label",
            "vault",
            "--pin",
            "1234",
            "--so-pin",
            "5678",
        ])
        .env("SOFTHSM2_CONF", place.join("softhsm2.conf"))
        .run()
        .unwrap();
    Some(bench)
}

fn sign(bench: &TempDir, arguments: &[&str]) -> Said {
    let command = Cmd::new(PROGRAM)
        .args(arguments)
        .dir(bench.path())
        .env("SOFTHSM2_CONF", bench.path().join("softhsm2.conf"));
    Said::of(command)
}

fn uri(object: &str) -> String {
    format!("pkcs11:token=vault;object={object}?module-path={MODULE}")
}

fn make(bench: &TempDir, object: &str, more: &[&str]) -> Said {
    let (uri, out) = (uri(object), format!("{object}.uri"));
    let mut arguments = vec!["token", "make", "--out", &out, "--passphrase-file", "pin", &uri];
    arguments.extend(more);
    sign(bench, &arguments)
}

/// The boot image key lies in the token; firmware's rules are those of `verify secureboot`.
#[test]
fn a_token_signs_boot_images() {
    let Some(bench) = token() else { return };
    let at = |name: &str| bench.path().join(name);
    common::copy(common::site(), &at("site"));
    fs::write(at("x.efi"), common::boot_image(".text", b"code")).unwrap();
    make(
        &bench,
        "db",
        &["--kind", "rsa3072", "--certificate", "db.der", "--name", "Token db"],
    )
    .ok();
    // What an officer does by hand: the certificate, its fingerprint, and the URI in the place of the file.
    fs::copy(at("db.der"), at("site/trust/db.der")).unwrap();
    let mut facts: Value = serde_json::from_slice(&fs::read(at("site/site.json")).unwrap()).unwrap();
    let der = fs::read(at("db.der")).unwrap();
    facts["secure_boot"]["db_sha256"] = json!(signing::digest::Sha256::of(&der));
    fs::write(at("site/site.json"), facts.to_string()).unwrap();
    fs::copy(at("db.uri"), at("site/private/db.uri")).unwrap();
    let run = |pin: &str, out: &str| {
        let line = format!("secureboot --site site --passphrase-file {pin} --in x.efi --out {out}");
        sign(&bench, &line.split(' ').collect::<Vec<_>>())
    };
    run("pin", "y.efi").fails(1, &["db.pem is there too"]);
    fs::remove_file(at("site/private/db.pem")).unwrap();
    run("wrong", "y.efi").fails(1, &["wrong passphrase"]);
    run("pin", "y.efi").ok();
    sign(&bench, &["verify", "secureboot", "--cert", "db.der", "y.efi"]).ok();
    sign(
        &bench,
        &["verify", "secureboot", "--cert", "site/trust/kek.der", "y.efi"],
    )
    .ends(3);
}

#[test]
fn what_is_wrong_with_a_key_in_a_token_is_said() {
    let Some(bench) = token() else { return };
    make(&bench, "anna", &[]).ok();
    make(&bench, "anna", &[]).fails(3, &["anna.uri exists"]);
    fs::remove_file(bench.path().join("anna.uri")).unwrap();
    make(&bench, "anna", &[]).fails(1, &["such a key already"]);
    let with = |uri: &str| {
        sign(
            &bench,
            &["token", "make", "--out", "x.uri", "--passphrase-file", "pin", uri],
        )
    };
    for (uri, reason) in [
        ("object=x".to_owned(), "pkcs11:"),
        (
            format!("pkcs11:object=x?module-path={MODULE}&pin-value=1234"),
            "PIN has no place",
        ),
        (format!("pkcs11:object=x;object=y?module-path={MODULE}"), "twice"),
        (
            format!("pkcs11:object=x;colour=red?module-path={MODULE}"),
            "not understood",
        ),
        (format!("pkcs11:object=%zz?module-path={MODULE}"), "percent"),
        ("pkcs11:object=x?module-path=x.so".to_owned(), "absolute path"),
        (format!("pkcs11:token=vault?module-path={MODULE}"), "names no key"),
        (
            format!("pkcs11:token=other;object=x?module-path={MODULE}"),
            "0 tokens fit",
        ),
    ] {
        with(&uri).fails(1, &[reason]);
    }
    // A key that somebody made so that it can be taken out.
    let made = Cmd::new("pkcs11-tool")
        .args(["--module", MODULE, "--token-label", "vault", "--login", "--pin", "1234"])
        .args([
            "--keypairgen",
            "--key-type",
            "EC:prime256v1",
            "--label",
            "loose",
            "--extractable",
        ])
        .env("SOFTHSM2_CONF", bench.path().join("softhsm2.conf"))
        .run();
    if made.is_err() {
        eprintln!("pkcs11-tool is not installed: no extractable key is made");
        return;
    }
    fs::write(bench.path().join("loose.uri"), uri("loose")).unwrap();
    let line = "ceremony keygen --name L --dir l --no-openpgp --existing loose.uri --passphrase-file pin";
    sign(&bench, &line.split(' ').collect::<Vec<_>>()).fails(3, &["can be taken out"]);
}

/// A custodian hands in a key that lies in a token, and it signs the first root.
#[test]
fn a_token_takes_part_in_a_ceremony() {
    let Some(bench) = token() else { return };
    make(&bench, "anna", &[]).ok();
    let run = |line: &str| sign(&bench, &line.split(' ').collect::<Vec<_>>());
    run("ceremony keygen --name Anna --dir anna --no-openpgp --existing anna.uri --passphrase-file pin").ok();
    for role in ["targets", "snapshot", "timestamp"] {
        run(&format!(
            "ceremony keygen --name {role} --dir roles --no-openpgp --passphrase-file pin"
        ))
        .ok();
    }
    let roles = "--role-key targets=roles/targets.public.json --role-key snapshot=roles/snapshot.public.json \
                 --role-key timestamp=roles/timestamp.public.json";
    run(&format!(
        "ceremony plan --create --add anna/anna.public.json --threshold root=1 {roles} --days 100 --out request.json"
    ))
    .ok();
    run("ceremony sign request.json --key anna.uri --passphrase-file pin --out anna.fragment.json --no-qr").ok();
    run("ceremony assemble request.json --out made anna.fragment.json").ok();
    judge_first(&fs::read(bench.path().join("made/1.root.json")).unwrap()).unwrap();
    // Her OpenPGP key lies there too, and signs the transcript.
    make(&bench, "pgp", &["--certificate", "pgp.asc", "--name", "Anna"]).ok();
    let transcript = "made/transcript.txt";
    run(&format!(
        "ceremony sign-transcript {transcript} --key pgp.uri --passphrase-file pin"
    ))
    .ok();
    fs::create_dir(bench.path().join("certs")).unwrap();
    fs::copy(bench.path().join("pgp.asc"), bench.path().join("certs/anna.asc")).unwrap();
    run(&format!("ceremony verify {transcript} --certs certs --threshold 1")).ok();
}

/// The module reads its configuration from the environment, so that this test starts itself again in one of its own.
#[test]
fn a_token_signs_metadata() {
    if let Ok(place) = std::env::var(INSIDE) {
        return sign_root(Path::new(&place));
    }
    let Some(bench) = token() else { return };
    make(&bench, "root", &[]).ok();
    Cmd::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_token_signs_metadata", "--nocapture"])
        .env(INSIDE, bench.path())
        .env("SOFTHSM2_CONF", bench.path().join("softhsm2.conf"))
        .run()
        .unwrap();
}

fn sign_root(place: &Path) {
    let pin = Passphrase::from_file(&place.join("pin")).unwrap();
    let token = MetadataKey::of(open_file(&place.join("root.uri"), &pin).unwrap()).unwrap();
    let (online, _) = Ed25519Signer::generate().unwrap();
    let single = || KeySet::single(online.public());
    let plan = RootPlan {
        header: Header {
            version: 1,
            expires: now() + TimeDelta::days(9),
            signed_at: now(),
        },
        root: KeySet::single(token.public()),
        targets: single(),
        snapshot: single(),
        timestamp: single(),
    };
    // ECDSA's numbers are shorter now and then: their encoding must not depend on luck.
    for _ in 0..300 {
        let root = author::root(&plan, &[&token]).unwrap();
        judge_first(&root).unwrap();
    }
    let mut root: Value = serde_json::from_slice(&author::root(&plan, &[&token]).unwrap()).unwrap();
    root["signed"]["version"] = json!(2);
    judge_first(root.to_string().as_bytes()).unwrap_err();
}

/// As [`a_token_signs_metadata`]: what apt reads is signed in the clear.
#[test]
fn a_token_signs_in_the_clear() {
    if let Ok(place) = std::env::var(INSIDE) {
        return sign_text(Path::new(&place));
    }
    let Some(bench) = token() else { return };
    let certified = ["--certificate", "release.asc", "--name", "Token site"];
    make(&bench, "release", &certified).ok();
    Cmd::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_token_signs_in_the_clear", "--nocapture"])
        .env(INSIDE, bench.path())
        .env("SOFTHSM2_CONF", bench.path().join("softhsm2.conf"))
        .run()
        .unwrap();
}

fn sign_text(place: &Path) {
    let pin = Passphrase::from_file(&place.join("pin")).unwrap();
    let certificate = place.join("release.asc");
    let key = OpenPgpKey::open(&place.join("release.uri"), &certificate, &pin).unwrap();
    let signed = key.sign_cleartext("Origin: Test\n- dash\n").unwrap();
    let verified = verify_cleartext(&certificate, signed.as_bytes(), now()).unwrap();
    assert_eq!(
        String::from_utf8(verified.body).unwrap().trim_end(),
        "Origin: Test\n- dash"
    );
    assert_eq!(verified.signers, [key.fingerprint()]);
    let other = signed.replace("Origin: Test", "Origin: Rest");
    verify_cleartext(&certificate, other.as_bytes(), now()).unwrap_err();
}

/// The release key lies in the token: roots and timestamps are signed with it, and GnuPG agrees.
#[test]
fn a_token_signs_with_openpgp() {
    let Some(bench) = token() else { return };
    let at = |name: &str| bench.path().join(name);
    common::copy(common::site(), &at("site"));
    fs::write(at("text"), "said by the vault\n").unwrap();
    // Its own tools have made the key, and it is named afterwards.
    make(&bench, "release", &[]).ok();
    fs::remove_file(at("release.uri")).unwrap();
    let certified = ["--existing", "--certificate", "release.asc", "--name", "Token site"];
    make(&bench, "release", &certified).ok();
    make(&bench, "other", &[]).ok();
    let openpgp = |pin: &str| {
        let line = format!("openpgp --site site --passphrase-file {pin} text");
        sign(&bench, &line.split(' ').collect::<Vec<_>>())
    };
    let verify = || sign(&bench, &["verify", "openpgp", "--trust", "site/trust", "text"]);
    fs::copy(at("release.uri"), at("site/private/release-openpgp.uri")).unwrap();
    openpgp("pin").fails(1, &["release-openpgp.asc is there too"]);
    fs::remove_file(at("site/private/release-openpgp.asc")).unwrap();
    // The trust directory still has the old certificate: it is not this key's.
    openpgp("pin").fails(
        1,
        &["does not hold the certificate of site/private/release-openpgp.uri"],
    );
    fs::copy(at("release.asc"), at("site/trust/release.asc")).unwrap();
    openpgp("wrong").fails(1, &["wrong passphrase"]);
    openpgp("pin").ok();
    verify().ok();
    let home = at("gnupg");
    fs::create_dir(&home).unwrap();
    let gpg = |arguments: &[&str]| {
        let command = Cmd::new("gpg").args(["--batch", "--quiet", "--homedir"]).arg(&home);
        command.args(arguments).dir(bench.path()).status().unwrap()
    };
    let (status, _, err) = gpg(&["--import", "release.asc"]);
    assert!(status.success(), "{}", String::from_utf8_lossy(&err));
    let (status, _, err) = gpg(&["--verify", "text.asc", "text"]);
    assert!(status.success(), "{}", String::from_utf8_lossy(&err));
    fs::write(at("text"), "said by somebody else\n").unwrap();
    verify().ends(3);
    assert!(!gpg(&["--verify", "text.asc", "text"]).0.success());
    // Another key of the same token is not the certificate's.
    fs::copy(at("other.uri"), at("site/private/release-openpgp.uri")).unwrap();
    openpgp("pin").fails(
        1,
        &["does not hold the certificate of site/private/release-openpgp.uri"],
    );
}
