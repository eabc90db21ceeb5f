// SPDX-License-Identifier: GPL-3.0-or-later
//! Drives `bastide-sign` as a user does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{SECRET, Said, boot_image, contents, files_below};
use serde_json::Value;
use signing::clock::now;
use signing::durable::write_private;
use signing::keys::Passphrase;
use signing::openpgp::{generate, sign_detached};
use signing::process::Cmd;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bastide-sign");

/// Runs the program in a directory; the arguments are split at spaces.
fn sign(directory: &Path, line: &str) -> Said {
    Said::of(common::command(PROGRAM, directory, line))
}

/// A directory with a site, a passphrase file, a wrong one and files to sign.
fn bench() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    common::copy(common::site(), &place.join("site"));
    write_private(&place.join("passphrase"), format!("{SECRET}\n").as_bytes()).unwrap();
    write_private(&place.join("wrong"), b"wrong\n").unwrap();
    fs::write(place.join("file"), "content\n").unwrap();
    fs::write(place.join("x.efi"), boot_image(".text", b"code")).unwrap();
    directory
}

#[test]
fn init_show_and_check_agree() {
    let bench = bench();
    let shown: Value = serde_json::from_str(&sign(bench.path(), "site show --site site --json").ok()).unwrap();
    assert_eq!(shown["threshold"], 2);
    assert_eq!(shown["keys"].as_array().unwrap().len(), 7);
    let text = sign(bench.path(), "site show --site site").ok();
    assert!(text.contains("2 of 3") && text.contains(shown["release_openpgp"].as_str().unwrap()));
    let compare = signing::anchor::fingerprint(&bench.path().join("site/trust")).unwrap();
    assert!(text.contains(&compare) && shown["anchor"] == compare.as_str());
    let checked = sign(
        bench.path(),
        "site check --site site --passphrase-file passphrase --json",
    )
    .ok();
    let checked: Value = serde_json::from_str(&checked).unwrap();
    assert_eq!(checked["keys_opened"], 11);
    assert_eq!(checked["root_signed_by"], shown["release_openpgp"]);
}

#[test]
fn key_files_are_private_encrypted_and_openssl_needs_the_passphrase() {
    let bench = bench();
    for path in files_below(&bench.path().join("site/private")) {
        assert_eq!(
            path.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{}",
            path.display()
        );
        let text = fs::read_to_string(&path).unwrap();
        if path.extension().is_some_and(|end| end == "asc") {
            assert!(text.starts_with("-----BEGIN PGP PRIVATE KEY BLOCK-----"));
            continue;
        }
        assert!(
            text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"),
            "{}",
            path.display()
        );
        let open = |secret: &str| {
            Cmd::new("openssl")
                .args(["pkey", "-noout", "-passin", "stdin", "-in"])
                .arg(&path)
                .input(format!("{secret}\n"))
                .run()
        };
        // Each opening is a key derivation; one key of each kind stands for its like.
        if path.ends_with("db.pem") || path.ends_with("root-1.pem") {
            open(SECRET).unwrap();
            assert!(open("wrong").is_err());
        }
    }
    // The passphrase itself is nowhere but in its own file.
    for path in files_below(&bench.path().join("site")) {
        let bytes = fs::read(&path).unwrap();
        assert!(
            !bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()),
            "{}",
            path.display()
        );
    }
}

#[test]
fn what_is_signed_verifies_and_what_is_changed_is_refused() {
    let bench = bench();
    let run = |line: &str| sign(bench.path(), line);
    run("openpgp --site site --passphrase-file passphrase file").ok();
    let holds = run("verify openpgp --trust site/trust file --json").ok();
    assert_eq!(serde_json::from_str::<Value>(&holds).unwrap()["verdict"], "pass");
    fs::write(bench.path().join("file"), "Content\n").unwrap();
    run("verify openpgp --trust site/trust file").fails(3, &["refused", "file", "does not hold"]);

    run("secureboot --site site --passphrase-file passphrase --in x.efi --out y.efi").ok();
    run("verify secureboot --trust site/trust y.efi").ok();
    run("verify secureboot --cert site/trust/kek.der y.efi").fails(3, &["not made by", "key exchange key"]);
    run("verify secureboot --trust site/trust x.efi").fails(3, &["not signed"]);
    let mut tampered = fs::read(bench.path().join("y.efi")).unwrap();
    tampered[0x300] ^= 1;
    fs::write(bench.path().join("y.efi"), tampered).unwrap();
    run("verify secureboot --trust site/trust y.efi").fails(3, &["changed after it was signed"]);
}

/// Two officers' keys in a keyring, and a text that both have signed.
fn officers(place: &Path) {
    let passphrase = Passphrase::new(SECRET.into()).unwrap();
    let text = b"release 1.0.0 may be used\n";
    fs::write(place.join("approval.txt"), text).unwrap();
    let mut keyring = String::new();
    for name in ["anna", "ben"] {
        let key = generate(name, &passphrase, now() - chrono::TimeDelta::hours(1)).unwrap();
        let signature = sign_detached(key.key.as_bytes(), &passphrase, &text[..], now()).unwrap();
        fs::write(place.join(format!("{name}.asc")), signature).unwrap();
        keyring += &key.certificate;
    }
    fs::write(place.join("officers.asc"), keyring).unwrap();
}

#[test]
fn as_many_people_as_must_have_signed() {
    let bench = bench();
    officers(bench.path());
    let verify = |rest: &str| {
        sign(
            bench.path(),
            &format!("verify openpgp --keyring officers.asc {rest} approval.txt"),
        )
    };
    let both = verify("--threshold 2 --signature anna.asc --signature ben.asc --json").json();
    assert_eq!(both["signers"].as_array().unwrap().len(), 2);
    let said = verify("--threshold 2 --signature anna.asc --signature anna.asc --json");
    assert_eq!(said.json()["code"], "openpgp-below-threshold");
    said.fails(3, &["1 of the 2", "more than once"]);
    verify("--signature anna.asc --signature ben.asc").ends(2);
    let signature = fs::read(bench.path().join("anna.asc")).unwrap();
    fs::write(bench.path().join("approval.txt.asc"), signature).unwrap();
    verify("--threshold 1").ok();
    verify("--threshold 2").fails(3, &["1 of the 2"]);
}

#[test]
fn a_secret_goes_to_the_vault_and_back() {
    let bench = bench();
    let run = |line: &str| sign(bench.path(), line);
    run("encrypt --trust site/trust file").ok();
    run("encrypt --trust site/trust file").fails(3, &["file.pgp exists"]);
    run("decrypt --site site --passphrase-file passphrase file.pgp").fails(3, &["file exists"]);
    run("decrypt --site site --passphrase-file wrong file.pgp --out back").fails(1, &["wrong passphrase"]);
    run("decrypt --site site --passphrase-file passphrase file.pgp --out back --json").ok();
    let back = bench.path().join("back");
    assert_eq!(fs::read(&back).unwrap(), b"content\n");
    assert_eq!(back.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    run("decrypt --site site --passphrase-file passphrase file").ends(2);
}

#[test]
fn a_wrong_passphrase_is_named_and_nothing_is_written() {
    let bench = bench();
    let run = |line: &str| sign(bench.path(), line);
    run("openpgp --site site --passphrase-file wrong file").fails(1, &["passphrase", "release-openpgp.asc"]);
    run("secureboot --site site --passphrase-file wrong --in x.efi --out y.efi").fails(1, &["passphrase", "db.pem"]);
    run("site check --site site --passphrase-file wrong").fails(1, &["passphrase", "root-1.pem"]);
    assert!(!bench.path().join("file.asc").exists() && !bench.path().join("y.efi").exists());
}

#[test]
fn bad_key_files_are_named() {
    let bench = bench();
    let run = || {
        sign(
            bench.path(),
            "secureboot --site site --passphrase-file passphrase --in x.efi --out y.efi",
        )
    };
    let key = bench.path().join("site/private/db.pem");
    let whole = fs::read(&key).unwrap();
    fs::write(&key, &whole[..whole.len() / 2]).unwrap();
    run().fails(1, &["db.pem", "not a whole PEM"]);
    fs::write(&key, "").unwrap();
    run().fails(1, &["db.pem", "not a whole PEM"]);
    fs::write(&key, vec![b'x'; 100_000]).unwrap();
    run().fails(1, &["db.pem", "limit"]);
    fs::remove_file(&key).unwrap();
    run().fails(1, &["db.pem", "No such file"]);
    fs::copy(bench.path().join("site/private/pk.pem"), &key).unwrap();
    run().fails(1, &["does not belong"]);
    fs::write(bench.path().join("site/private/release-openpgp.asc"), "x").unwrap();
    sign(bench.path(), "openpgp --site site --passphrase-file passphrase file").fails(1, &["release-openpgp.asc"]);
}

#[test]
fn missing_and_foreign_files_are_named() {
    let bench = bench();
    let run = |line: &str| sign(bench.path(), line);
    run("site show --site nowhere").fails(1, &["nowhere/site.json", "site init"]);
    run("openpgp --site site --passphrase-file passphrase none").fails(1, &["none", "No such file"]);
    run("openpgp --site site --passphrase-file none file").fails(1, &["passphrase file none"]);
    fs::set_permissions(bench.path().join("x.efi"), fs::Permissions::from_mode(0o600)).unwrap();
    run("openpgp --site site --passphrase-file x.efi file").fails(1, &["is it the right file"]);
    run("secureboot --site site --passphrase-file passphrase --in file --out y.efi").fails(1, &["file", "PE32+"]);
    run("verify openpgp --trust site/trust file").fails(1, &["file.asc"]);
    run("verify openpgp --trust nowhere file").fails(1, &["nowhere", "trust directory"]);
    run("verify openpgp --keyring file --signature x.efi file").fails(1, &["file", "keyring"]);
    run("verify openpgp --trust site/trust --signature x.efi file").fails(3, &["not a detached signature"]);
    run("verify openpgp --trust site/trust --cleartext file").fails(3, &["not a cleartext-signed message"]);
    run("verify secureboot --cert file x.efi").fails(1, &["certificate"]);
    fs::write(bench.path().join("site/site.json"), "{\"format\": 1, \"surprise\": 2}").unwrap();
    run("site show --site site").fails(1, &["site.json", "surprise"]);
}

#[test]
fn an_existing_site_is_refused_and_unharmed() {
    let bench = bench();
    let before = fs::read(bench.path().join("site/private/root-1.pem")).unwrap();
    let run = |line: &str| sign(bench.path(), line);
    run("site init --dir site --name Other --passphrase-file passphrase").fails(3, &["a site already"]);
    run("site init --dir site --name Other --dry-run").fails(3, &["a site already"]);
    fs::create_dir(bench.path().join("full")).unwrap();
    fs::write(bench.path().join("full/file"), "").unwrap();
    run("site init --dir full --name Other --passphrase-file passphrase").fails(3, &["not empty"]);
    run("site init --dir file --name Other --passphrase-file passphrase").fails(1, &["file", "Not a directory"]);
    assert_eq!(fs::read(bench.path().join("site/private/root-1.pem")).unwrap(), before);
}

#[test]
fn a_dry_run_makes_nothing_and_names_what_it_would_make() {
    let bench = bench();
    let text = sign(
        bench.path(),
        "site init --dir new --name New --keys 5 --threshold 3 --dry-run",
    )
    .ok();
    assert!(text.contains("3 of 5") && text.contains("new/private/root-5.pem") && text.contains("new/site.json"));
    let json = sign(bench.path(), "site init --dir new --name New --dry-run --json").ok();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["files"].as_array().unwrap().len(), 24);
    assert!(!bench.path().join("new").exists());
    sign(bench.path(), "site init --dir new --name New --threshold 4 --dry-run")
        .fails(2, &["threshold of 4", "3 root keys"]);
    sign(bench.path(), "site init --dir new --name New --root-days 0 --dry-run").fails(2, &["--root-days"]);
}

/// The recipe: start an init, kill it once a first key is there.
#[test]
fn a_killed_init_is_no_site_and_the_next_one_succeeds() {
    let bench = bench();
    let init = "site init --dir killed --name Killed --passphrase-file passphrase";
    let first = bench.path().join(".killed.incomplete/private/root-1.pem");
    let killed = common::killed(common::command(PROGRAM, bench.path(), init), bench.path(), || {
        first.exists()
    });
    assert!(killed && first.exists() && !bench.path().join("killed").exists());
    sign(bench.path(), "site show --site .killed.incomplete").fails(1, &["site.json"]);
    sign(bench.path(), init).ok();
    assert!(!bench.path().join(".killed.incomplete").exists());
    sign(bench.path(), "site check --site killed --passphrase-file passphrase").ok();
}

/// As an ordinary user, where the tests run as root: the super-user may write everywhere.
#[test]
fn no_permission_is_named() {
    let bench = bench();
    let run = |line: &str| common::as_nobody(PROGRAM, bench.path(), line);
    let Some(said) = run("site show --site site") else {
        return;
    };
    said.ok();
    let fails = |line: &str, reasons: &[&str]| run(line).unwrap().fails(1, reasons);
    fails(
        "site init --dir new --name New --passphrase-file passphrase",
        &["cannot be written"],
    );
    fails(
        "site check --site site --passphrase-file passphrase",
        &["site/private", "Permission denied"],
    );
    fails(
        "openpgp --site site --passphrase-file passphrase file",
        &["passphrase", "Permission denied"],
    );
}

/// A full disk: what cannot be written is named, and the old file stays.
#[test]
fn a_full_disk_loses_nothing() {
    let bench = bench();
    let full = bench.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("y.efi"), "old").unwrap();
    fs::write(full.join("filler"), vec![0; 24 << 10]).unwrap();
    let old = contents(&full);
    for (line, reason) in [
        (
            "secureboot --site site --passphrase-file passphrase --in x.efi --out full/y.efi",
            "full/y.efi",
        ),
        (
            "openpgp --site site --passphrase-file passphrase file --out full/y.efi",
            "full/y.efi",
        ),
        (
            "site init --dir full/site --name Full --passphrase-file passphrase",
            "full",
        ),
    ] {
        let Some((said, mut left)) = common::on_small_disk(PROGRAM, bench.path(), line, &full, "28k") else {
            return;
        };
        said.fails(1, &[reason, "No space left"]);
        // A site that was cut off stays hidden and is no site.
        left.retain(|name, _| !name.starts_with(".site.incomplete/"));
        assert_eq!(left, old, "{line}");
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let bench = bench();
    for line in [
        "",
        "frobnicate",
        "site",
        "site init --dir new",
        "openpgp --site site",
        "verify openpgp file",
        "verify openpgp --trust site/trust --at soon file",
        "verify openpgp --trust site/trust --cleartext --signature x file",
        "verify secureboot --trust site/trust --cert site/trust/db.der x.efi",
    ] {
        sign(bench.path(), line).ends(2);
    }
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let bench = bench();
    for line in [
        "site show --site site",
        "site show --site site --json",
        "verify openpgp --trust site/trust site/trust/root.json",
    ] {
        common::assert_closed_pipe(common::command(PROGRAM, bench.path(), line));
    }
}

/// Every example of the help, as it is printed, in an order in which each finds what it needs.
#[test]
fn the_examples_in_the_help_work() {
    let bench = bench();
    officers(bench.path());
    fs::write(bench.path().join("answer.toml"), "answer\n").unwrap();
    // What the examples of cleartext messages speak of: a message and its keyring, made by GnuPG.
    let home = bench.path().join("gnupg");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    let gpg = || {
        Cmd::new("gpg")
            .arg("--homedir")
            .arg(&home)
            .args(["--batch", "--quiet", "--yes"])
            .dir(bench.path())
    };
    let made = gpg()
        .args(["--passphrase", "", "--quick-generate-key", "archive", "ed25519", "sign"])
        .run()
        .and_then(|()| gpg().args(["--clearsign", "-o", "InRelease", "file"]).run())
        .and_then(|()| gpg().args(["--armor", "-o", "ring.asc", "--export"]).run());
    // The agent that GnuPG has started would outlive the test.
    drop(
        Cmd::new("gpgconf")
            .arg("--homedir")
            .arg(&home)
            .args(["--kill", "gpg-agent"])
            .run(),
    );
    if made.is_err() {
        eprintln!("gpg is not installed: the cleartext example is not run");
    }
    let mut helps = common::helps(PROGRAM, &[]);
    helps.sort_by_key(|help| {
        (
            help.command.starts_with("verify"),
            help.command == "decrypt",
            help.command.clone(),
        )
    });
    for line in helps.into_iter().flat_map(|help| help.examples) {
        let repeats_init = line.starts_with("site init --dir site ");
        // The ceremony has tests of its own, with its own people and officers, waivers with a repository, and the token must be
        // made first.
        let elsewhere = [
            "ceremony ",
            "token ",
            "waiver ",
            "site init --dir apart ",
            "site init --dir office ",
            "openpgp --key ",
        ];
        let elsewhere = elsewhere.iter().any(|start| line.starts_with(start));
        if elsewhere || repeats_init || (line.contains("--cleartext") && made.is_err()) {
            continue;
        }
        sign(bench.path(), &line).ok();
    }
}

#[test]
fn who_asks_for_json_is_told_of_a_failure_in_json() {
    let bench = bench();
    for (line, code, kind, word) in [
        (
            "verify secureboot --trust site/trust x.efi --json",
            3,
            "refused",
            "not signed",
        ),
        ("site show --site nowhere --json", 1, "failed", "nowhere"),
    ] {
        let said = sign(bench.path(), line).ends(code);
        let told = said.json();
        assert_eq!((&told["kind"], &told["exit"]), (&kind.into(), &code.into()), "{line}");
        assert!(told["error"].as_str().unwrap().contains(word), "{told}");
        assert!(said.err.contains(word) && said.err.lines().count() == 1, "{}", said.err);
    }
    let silent = sign(bench.path(), "site show --site nowhere").ends(1);
    assert_eq!(silent.out, "");
}
