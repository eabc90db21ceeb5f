// SPDX-License-Identifier: GPL-3.0-or-later
//! The ceremony as people type it, each in a directory of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;
use signing::durable::write_private;
use signing::process::Cmd;
use tempfile::TempDir;

use super::common::{self, SECRET, Said};

const PROGRAM: &str = env!("CARGO_BIN_EXE_bastide-sign");
const CREATE: &str = "ceremony plan --create --days 1825 --threshold root=2 --add anna.public.json \
                      --add ben.public.json --add cleo.public.json --role-key targets=targets.public.json \
                      --role-key snapshot=snapshot.public.json --role-key timestamp=timestamp.public.json --out first.json";
const RENEW: &str = "ceremony plan --root 1.root.json --days 4000 --out renewal.json";

pub fn run(directory: &Path, line: &str) -> Said {
    Said::of(common::command(PROGRAM, directory, line))
}

/// The keys of four custodians and the roles, and a first root, made once: each key is a key derivation.
pub fn bench() -> TempDir {
    let make = |place: &Path| {
        write_private(&place.join("passphrase"), format!("{SECRET}\n").as_bytes()).unwrap();
        write_private(&place.join("wrong"), b"wrong\n").unwrap();
        for name in ["Anna", "Ben", "Cleo", "Dora"] {
            let line = format!(
                "--name {name} --dir {} --passphrase-file passphrase",
                name.to_lowercase()
            );
            run(place, &format!("ceremony keygen {line}")).ok();
        }
        for name in ["targets", "snapshot", "timestamp", "new"] {
            let line = format!("--name {name} --dir roles --no-openpgp --passphrase-file passphrase");
            run(place, &format!("ceremony keygen {line}")).ok();
        }
        fs::create_dir(place.join("certs")).unwrap();
        for path in common::files_below(place) {
            let name = path.file_name().unwrap();
            if name.to_str().unwrap().ends_with(".public.json") {
                fs::copy(&path, place.join("certs").join(name)).unwrap();
                fs::rename(&path, place.join(name)).unwrap();
            }
        }
        run(place, CREATE).ok();
        for name in ["anna", "ben", "cleo"] {
            sign(place, name, "first.json", "", &format!("{name}.fragment.json")).ok();
        }
        run(
            place,
            "ceremony assemble first.json --out made anna.fragment.json ben.fragment.json",
        )
        .ok();
        for name in ["anna.fragment.json", "ben.fragment.json", "cleo.fragment.json"] {
            fs::remove_file(place.join(name)).unwrap();
        }
        fs::rename(place.join("made/1.root.json"), place.join("1.root.json")).unwrap();
        fs::rename(place.join("made/transcript.txt"), place.join("first.txt")).unwrap();
        fs::rename(place.join("first.json"), place.join("made-by.json")).unwrap();
    };
    let directory = tempfile::tempdir().unwrap();
    common::copy(
        &common::shared("ceremony", &["signing/src", "signing/tests/ceremony"], make),
        directory.path(),
    );
    directory
}

pub fn sign(place: &Path, name: &str, request: &str, root: &str, out: &str) -> Said {
    let key = format!("--key {name}/{name}.key.pem --passphrase-file passphrase");
    run(
        place,
        &format!("ceremony sign {request} {root} {key} --out {out} --no-qr"),
    )
}

#[test]
fn a_key_stays_private_and_openssl_opens_it() {
    let bench = bench();
    for name in ["anna.key.pem", "anna.openpgp.asc"] {
        let path = bench.path().join("anna").join(name);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    let key = fs::read_to_string(bench.path().join("anna/anna.key.pem")).unwrap();
    assert!(key.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    Cmd::new("openssl")
        .args(["pkey", "-noout", "-passin", "stdin", "-in"])
        .arg(bench.path().join("anna/anna.key.pem"))
        .input(format!("{SECRET}\n"))
        .run()
        .unwrap();
    let again = "ceremony keygen --name Anna --dir anna --passphrase-file passphrase";
    run(bench.path(), again).fails(3, &["anna.key.pem exists", "never overwritten"]);
    let before = fs::read_to_string(bench.path().join("anna/anna.key.pem")).unwrap();
    assert_eq!(before, key);
    run(
        bench.path(),
        "ceremony keygen --name A/B --dir x --passphrase-file passphrase",
    )
    .fails(3, &["no usable name"]);
    // The public file of a key that there is already names the same key.
    let line = "ceremony keygen --name Anna --dir again --existing anna/anna.key.pem --no-openpgp --json";
    let said = run(bench.path(), &format!("{line} --passphrase-file passphrase"))
        .ends(0)
        .json();
    let words = fs::read_to_string(bench.path().join("first.txt")).unwrap();
    assert!(words.contains(said["fingerprint"].as_str().unwrap()));
    assert_eq!(common::files_below(&bench.path().join("again")).len(), 1);
}

/// Three people in three directories; only small files travel.
#[test]
fn three_people_who_never_meet_renew_the_root() {
    let bench = bench();
    let at = |name: &str| bench.path().join(name);
    let shown = run(bench.path(), &format!("{RENEW} --json")).ends(0).json();
    let told = shown["short_fingerprint"].as_str().unwrap();
    assert_eq!(shown["changes"][0]["change"], "renew");
    for name in ["anna", "ben", "cleo"] {
        for file in ["1.root.json", "renewal.json", "passphrase"] {
            fs::copy(at(file), at(name).join(file)).unwrap();
        }
        let own = at(name);
        let look = run(&own, "ceremony sign renewal.json --root 1.root.json --dry-run").ok();
        assert!(
            look.contains(told) && look.contains("It is valid until") && look.contains('█'),
            "{look}"
        );
        let digits = told.replace(' ', "");
        let line = format!("--key {name}.key.pem --passphrase-file passphrase --fingerprint {digits} --json");
        let said = run(&own, &format!("ceremony sign renewal.json --root 1.root.json {line}"))
            .ends(0)
            .json();
        let fragment = own.join(said["fragment"].as_str().unwrap());
        assert!(fragment.metadata().unwrap().len() < 4096);
        fs::create_dir_all(at("fragments")).unwrap();
        // What is not there yet is missing by name, and no root is written before its time.
        fs::rename(&fragment, at("fragments").join(fragment.file_name().unwrap())).unwrap();
        let assemble = "ceremony assemble renewal.json --root 1.root.json --out renewed fragments --json";
        let code = if name == "anna" { 3 } else { 0 };
        let judged = run(bench.path(), assemble).ends(code).json();
        assert_eq!(judged["complete"], code == 0);
        assert_eq!(at("renewed/2.root.json").exists(), code == 0);
        let missing = judged["rules"][0]["missing"].as_object().unwrap();
        assert_eq!(missing.values().any(|name| name == "Ben"), name == "anna");
    }
    for name in ["anna", "ben"] {
        let line = format!("--root 1.root.json --key {name}/{name}.openpgp.asc --passphrase-file passphrase");
        run(
            bench.path(),
            &format!("ceremony sign-transcript renewed/transcript.txt {line}"),
        )
        .ok();
    }
    let verify = "ceremony verify renewed/transcript.txt --root 1.root.json --certs certs";
    let verified = run(bench.path(), &format!("{verify} --new renewed/2.root.json --json"))
        .ends(0)
        .json();
    assert_eq!(verified["signers"].as_array().unwrap().len(), 2);
    run(bench.path(), &format!("{verify} --threshold 3")).fails(3, &["2 of the 3 certificates"]);
    run(bench.path(), &format!("{verify} --new 1.root.json")).fails(3, &["is not the root of this transcript"]);
    // A transcript that somebody signed is not written over by another.
    fs::remove_file(common::files_below(&at("fragments")).remove(0)).unwrap();
    run(
        bench.path(),
        "ceremony assemble renewal.json --root 1.root.json --out renewed fragments",
    )
    .fails(3, &["have signed the other transcript"]);
}

#[test]
fn what_is_not_as_told_is_refused_and_nothing_is_written() {
    let bench = bench();
    let at = |name: &str| bench.path().join(name);
    run(bench.path(), RENEW).ok();
    run(bench.path(), RENEW).fails(3, &["renewal.json exists", "may be signing it"]);
    let key = "--key anna/anna.key.pem --out x.json";
    let line = format!("ceremony sign renewal.json --root 1.root.json {key}");
    run(bench.path(), &format!("{line} --passphrase-file wrong")).fails(1, &["wrong passphrase"]);
    run(
        bench.path(),
        &format!("{line} --passphrase-file passphrase --fingerprint 0123456789abcdef0123"),
    )
    .fails(3, &["you were told another"]);
    sign(bench.path(), "dora", "renewal.json", "--root 1.root.json", "x.json").fails(3, &["not among those"]);
    sign(bench.path(), "anna", "renewal.json", "", "x.json").fails(3, &["with --root"]);
    let openpgp = "--key anna/anna.openpgp.asc --passphrase-file passphrase --out x.json --no-qr";
    run(
        bench.path(),
        &format!("ceremony sign renewal.json --root 1.root.json {openpgp}"),
    )
    .fails(1, &["anna.openpgp.asc", "it is OpenPGP", "sign-transcript"]);
    let mut request: Value = serde_json::from_slice(&fs::read(at("renewal.json")).unwrap()).unwrap();
    request["changes"] = serde_json::json!([]);
    fs::write(at("lie.json"), request.to_string()).unwrap();
    sign(bench.path(), "anna", "lie.json", "--root 1.root.json", "x.json").fails(3, &["the request lies", "lie.json"]);
    fs::copy(at("1.root.json"), at("altered.json")).unwrap();
    let root = fs::read_to_string(at("1.root.json"))
        .unwrap()
        .replacen("\"threshold\": 2", "\"threshold\": 1", 1);
    fs::write(at("altered.json"), root).unwrap();
    sign(bench.path(), "anna", "renewal.json", "--root altered.json", "x.json")
        .fails(3, &["altered.json", "not authentic"]);
    assert!(!at("x.json").exists());
    // A bad fragment is named, and the good ones still make the root.
    for name in ["anna", "ben"] {
        let out = format!("{name}.fragment.json");
        sign(bench.path(), name, "renewal.json", "--root 1.root.json", &out).ok();
    }
    fs::write(at("cut.fragment.json"), "{\"format\": 1").unwrap();
    let assemble = "ceremony assemble renewal.json --root 1.root.json --out done";
    let said = run(bench.path(), &format!("{assemble} cut.fragment.json . none.json")).ok();
    assert!(
        said.contains("refused: cut.fragment.json: ") && said.contains("refused: none.json: "),
        "{said}"
    );
    assert!(said.contains("not a whole fragment") && at("done/2.root.json").exists());
    // An altered transcript gets no signature.
    let text = fs::read_to_string(at("done/transcript.txt")).unwrap();
    fs::write(at("done/transcript.txt"), text.replacen("Anna", "Eve", 1)).unwrap();
    let line = "--root 1.root.json --key anna/anna.openpgp.asc --passphrase-file passphrase";
    run(
        bench.path(),
        &format!("ceremony sign-transcript done/transcript.txt {line}"),
    )
    .fails(3, &["words differ"]);
    // Nor does a key that others can get at give one.
    fs::set_permissions(at("anna/anna.openpgp.asc"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(at("done/transcript.txt"), text).unwrap();
    run(
        bench.path(),
        &format!("ceremony sign-transcript done/transcript.txt {line}"),
    )
    .fails(3, &["is not private"]);
    assert_eq!(common::files_below(&at("done")).len(), 2);
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let bench = bench();
    for line in [
        "ceremony",
        "ceremony plan --out x.json",
        "ceremony plan --create --out x.json",
        "ceremony plan --create --days 3 --out x.json",
        "ceremony plan --create --root 1.root.json --out x.json",
        "ceremony plan --root 1.root.json --compromised Ben --out x.json",
        "ceremony plan --root 1.root.json --lost Zoe --out x.json",
        "ceremony plan --root 1.root.json --lost Ben --left Ben --out x.json",
        "ceremony plan --root 1.root.json --role-key root=anna.public.json --out x.json",
        "ceremony plan --root 1.root.json --threshold host=1 --out x.json",
        "ceremony plan --root 1.root.json --days 0 --out x.json",
        "ceremony sign renewal.json --root 1.root.json",
        "ceremony assemble renewal.json --out x",
        "ceremony verify first.txt --certs certs --threshold 0",
    ] {
        run(bench.path(), line).ends(2);
    }
    run(bench.path(), "ceremony verify first.txt --certs certs").fails(3, &["no signature", "first.txt.*.asc"]);
    run(bench.path(), "ceremony verify first.txt --certs anna").fails(3, &["no signature"]);
    fs::create_dir(bench.path().join("none")).unwrap();
    run(bench.path(), "ceremony verify first.txt --certs none").fails(3, &["no certificates in none"]);
    run(bench.path(), "ceremony verify none.txt --certs certs").fails(1, &["none.txt"]);
    assert!(!bench.path().join("x.json").exists());
}

/// From the site's own keys to three custodians, as the page for custodians tells it.
#[test]
fn a_site_hands_its_root_to_the_custodians() {
    let bench = bench();
    let at = |name: &str| bench.path().join(name);
    common::copy(common::site(), &at("site"));
    let add = "--add anna.public.json --add ben.public.json --add cleo.public.json";
    let plan = "ceremony plan --root site/trust/root.json --left root-1 --left root-2 --left root-3";
    run(bench.path(), &format!("{plan} {add} --out handover.json")).ok();
    for key in [
        "anna/anna.key.pem",
        "ben/ben.key.pem",
        "site/private/root-1.pem",
        "site/private/root-3.pem",
    ] {
        let line = "ceremony sign handover.json --root site/trust/root.json --passphrase-file passphrase --no-qr";
        let said = run(bench.path(), &format!("{line} --key {key}")).ok();
        assert!(said.contains("root-2: destroy every copy"), "{said}");
    }
    run(
        bench.path(),
        "ceremony assemble handover.json --root site/trust/root.json --out handover .",
    )
    .ok();
    // The keys that are gone are named, and need not be there any more.
    let check = "site check --site site --passphrase-file passphrase";
    assert!(run(bench.path(), check).ok().contains("11 keys open"));
    fs::copy(at("handover/2.root.json"), at("site/metadata/2.root.json")).unwrap();
    for number in 1..=3 {
        fs::remove_file(at(&format!("site/private/root-{number}.pem"))).unwrap();
    }
    let said = run(bench.path(), check).ok();
    assert!(said.contains("8 keys open"), "{said}");
    assert!(said.contains("root-2: taken out by root 2"), "{said}");
    assert!(!said.contains("targets: taken out"), "{said}");
    let shown = run(bench.path(), "site show --site site --json").ends(0).json();
    assert_eq!(
        shown["taken_out"],
        serde_json::json!({"root-1": 2, "root-2": 2, "root-3": 2})
    );
    // A root that does not follow takes nothing out.
    fs::copy(at("1.root.json"), at("site/metadata/2.root.json")).unwrap();
    run(bench.path(), check).fails(3, &["2.root.json"]);
}

/// Every example of the help, as it is printed, in the order of the work.
#[test]
fn the_examples_in_the_help_work() {
    let bench = bench();
    let keys = tempfile::tempdir().unwrap();
    fs::copy(bench.path().join("passphrase"), keys.path().join("passphrase")).unwrap();
    common::copy(common::site(), &keys.path().join("site"));
    let helps = common::helps(PROGRAM, &[]);
    let run_examples = |place: &Path, command: &str| {
        let help = helps.iter().find(|help| help.command == command).unwrap();
        for line in &help.examples {
            run(place, line).ok();
        }
    };
    run_examples(keys.path(), "ceremony keygen");
    run_examples(bench.path(), "ceremony plan");
    run_examples(bench.path(), "ceremony");
    run_examples(bench.path(), "ceremony sign");
    sign(
        bench.path(),
        "ben",
        "renewal.json",
        "--root 1.root.json",
        "ben.fragment.json",
    )
    .ok();
    fs::create_dir(bench.path().join("fragments")).unwrap();
    for name in ["anna.fragment.json", "ben.fragment.json"] {
        fs::copy(bench.path().join(name), bench.path().join("fragments").join(name)).unwrap();
    }
    run_examples(bench.path(), "ceremony assemble");
    run_examples(bench.path(), "ceremony sign-transcript");
    let line = "--root 1.root.json --key ben/ben.openpgp.asc --passphrase-file passphrase";
    run(
        bench.path(),
        &format!("ceremony sign-transcript renewed/transcript.txt {line}"),
    )
    .ok();
    run_examples(bench.path(), "ceremony verify");
}
