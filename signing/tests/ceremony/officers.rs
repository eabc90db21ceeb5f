// SPDX-License-Identifier: GPL-3.0-or-later
//! Several officers sign beside a site's release key, and a ceremony changes how many must.

use std::fs;

use serde_json::Value;
use signing::openpgp::{parse_keyring, verify_threshold};
use signing::site::Site;

use super::command_line::{bench, run, sign};

const INIT: &str = "site init --dir office --name Office --passphrase-file passphrase";
const OFFICERS: &str = "--officer certs/anna.public.json --officer certs/ben.public.json";

#[test]
fn a_site_of_officers_wants_as_many_signatures_as_its_root_says() {
    let bench = bench();
    let at = |name: &str| bench.path().join(name);
    let line = format!("{INIT} {OFFICERS} --openpgp-threshold 2");
    run(bench.path(), &line).ok();
    let site = Site::open(&at("office")).unwrap();
    let root: Value = serde_json::from_slice(&fs::read(at("office/trust/root.json")).unwrap()).unwrap();
    assert_eq!(root["signed"]["openpgp_threshold"], 2);
    let shown = run(bench.path(), "site show --site office").ok();
    assert!(shown.contains("OpenPGP signers  2 of 3"), "{shown}");
    for officer in &site.facts().officers {
        assert!(shown.contains(&format!("OpenPGP officer\n    {officer}")), "{shown}");
    }
    run(bench.path(), "site check --site office --passphrase-file passphrase").ok();

    let keyring = at("office/trust/release.asc");
    let certs = parse_keyring(&keyring, &fs::read(&keyring).unwrap()).unwrap();
    assert_eq!(certs.len(), 3);
    fs::write(at("timestamp.json"), "{}").unwrap();
    let count = |need| {
        let signature = fs::read(at("1.timestamp.json.asc")).unwrap();
        verify_threshold(&certs, &b"{}"[..], &signature, need, signing::clock::now()).map(|signers| signers.len())
    };
    let add = "--passphrase-file passphrase --add timestamp.json --out 1.timestamp.json.asc";
    let by_anna = format!("openpgp --key anna/anna.openpgp.asc {add}");
    // There is nothing to add to.
    run(bench.path(), &by_anna).fails(1, &["cannot add to the signatures 1.timestamp.json.asc"]);
    let release = format!("openpgp --site office {}", add.replace("--add ", ""));
    let said = run(bench.path(), &release).ok();
    assert!(said.contains(&site.facts().release_openpgp), "{said}");
    assert_eq!(count(1).unwrap(), 1);
    assert!(format!("{:?}", count(2).unwrap_err()).contains("BelowThreshold"));
    let said = run(bench.path(), &format!("{by_anna} --json")).ends(0).json();
    assert_eq!(said["signer"], site.facts().officers[0].as_str());
    assert_eq!(count(2).unwrap(), 2);
    // Nobody counts twice, and a file that verifiers would refuse is not written.
    let before = fs::read(at("1.timestamp.json.asc")).unwrap();
    run(bench.path(), &by_anna).fails(3, &["has signed more than once"]);
    assert_eq!(fs::read(at("1.timestamp.json.asc")).unwrap(), before);
    run(bench.path(), &format!("openpgp --key ben/ben.openpgp.asc {add}")).ok();
    assert_eq!(count(3).unwrap(), 3);
    run(
        bench.path(),
        "verify openpgp --trust office/trust --threshold 3 --signature 1.timestamp.json.asc timestamp.json",
    )
    .ok();
    run(bench.path(), &format!("openpgp {add}")).ends(2);

    // Secrets are for the vault alone.
    fs::write(at("answer.toml"), "secret").unwrap();
    run(bench.path(), "encrypt --trust office/trust answer.toml").ok();
    run(
        bench.path(),
        "decrypt --key anna/anna.openpgp.asc --passphrase-file passphrase answer.toml.pgp --out x",
    )
    .ends(3);
    run(
        bench.path(),
        "decrypt --site office --passphrase-file passphrase answer.toml.pgp --out read.toml",
    )
    .ok();
}

#[test]
fn officers_who_could_never_be_enough_make_no_site() {
    let bench = bench();
    let anna = "--officer certs/anna.public.json";
    for (line, code, why) in [
        (
            "--openpgp-threshold 2".to_owned(),
            2,
            "2 OpenPGP certificates must sign and there are 1",
        ),
        (
            format!("{OFFICERS} --openpgp-threshold 4"),
            2,
            "4 OpenPGP certificates must sign and there are 3",
        ),
        (
            format!("{OFFICERS} --openpgp-threshold 0"),
            2,
            "0 OpenPGP certificates must sign",
        ),
        (format!("{anna} {anna}"), 3, "that was given before"),
        (
            "--officer certs/targets.public.json".to_owned(),
            3,
            "holds 0 OpenPGP certificates",
        ),
    ] {
        run(bench.path(), &format!("{INIT} {line}")).fails(code, &[why]);
        assert!(!bench.path().join("office").exists(), "{why}");
    }
}

#[test]
fn a_ceremony_says_how_many_must_sign_and_the_words_say_it() {
    let bench = bench();
    let plan = "ceremony plan --root 1.root.json --openpgp-threshold 2 --out request.json --no-qr";
    let words = run(bench.path(), plan).ok();
    for line in [
        "Beside each timestamp and root 2 OpenPGP certificates must sign, until now 1.",
        "beside each timestamp and root: 2 OpenPGP certificates",
        "Look into every trust directory",
    ] {
        let flat = words.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(line), "{line:?} is not in {words}");
    }
    for name in ["anna", "ben"] {
        let fragment = format!("{name}.fragment.json");
        sign(bench.path(), name, "request.json", "--root 1.root.json", &fragment).ok();
    }
    let assemble =
        "ceremony assemble request.json --root 1.root.json --out second anna.fragment.json ben.fragment.json";
    run(bench.path(), assemble).ok();
    let root: Value = serde_json::from_slice(&fs::read(bench.path().join("second/2.root.json")).unwrap()).unwrap();
    assert_eq!(root["signed"]["openpgp_threshold"], 2);
    // And back again, in words too.
    let plan = "ceremony plan --root second/2.root.json --openpgp-threshold 1 --out back.json --no-qr";
    let words = run(bench.path(), plan).ok();
    let flat = words.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        flat.contains("root 1 OpenPGP certificate must sign, until now 2."),
        "{words}"
    );
    run(bench.path(), &plan.replace("threshold 1", "threshold 0")).ends(2);
}

/// A first root of a ceremony that wants two certificates makes a site of officers only.
#[test]
fn the_first_root_of_a_ceremony_may_want_officers() {
    let bench = bench();
    let roles = "--role-key targets=certs/targets.public.json --role-key snapshot=certs/snapshot.public.json \
                 --role-key timestamp=certs/timestamp.public.json";
    let custodians = "--add certs/anna.public.json --add certs/ben.public.json";
    let plan = format!(
        "ceremony plan --create --days 9 --threshold root=2 {custodians} {roles} --openpgp-threshold 2 --out first.json"
    );
    run(bench.path(), &plan).ok();
    for name in ["anna", "ben"] {
        sign(bench.path(), name, "first.json", "", &format!("{name}.fragment.json")).ok();
    }
    run(
        bench.path(),
        "ceremony assemble first.json --out first anna.fragment.json ben.fragment.json",
    )
    .ok();
    let init = format!("{INIT} --root first/1.root.json --roles roles");
    run(bench.path(), &init).fails(2, &["2 OpenPGP certificates must sign and there are 1"]);
    run(bench.path(), &format!("{init} --openpgp-threshold 2")).ends(2);
    run(bench.path(), &format!("{init} {OFFICERS}")).ok();
}
