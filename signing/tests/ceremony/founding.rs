// SPDX-License-Identifier: GPL-3.0-or-later
//! A site on a ceremony's root: the custodians keep its keys, and the site signs for the roles that it names.

use std::fs;

use signing::site::{Role, Site};
use signing::tuf::author::{Signer, key_id};

use super::command_line::{bench, run, sign};
use super::common::{self, Said, passphrase};

const INIT: &str = "site init --dir site --name Apart --passphrase-file passphrase --root 1.root.json --roles roles";

fn says(said: Said, words: &[&str]) {
    let out = said.ok();
    for word in words {
        assert!(out.contains(word), "{word:?} is not in {out:?}");
    }
}

#[test]
fn a_site_takes_a_ceremonys_root_and_has_none_of_its_keys() {
    let bench = bench();
    let at = |name: &str| bench.path().join(name);
    says(
        run(bench.path(), &format!("{INIT} --dry-run")),
        &["the root 1.root.json", "private/timestamp.pem"],
    );
    assert!(!at("site").exists());
    says(
        run(bench.path(), INIT),
        &["root threshold   2, the keys are with their custodians"],
    );
    for name in ["trust/root.json", "metadata/1.root.json"] {
        let root = fs::read(at("site").join(name)).unwrap();
        assert_eq!(root, fs::read(at("1.root.json")).unwrap(), "{name}");
    }
    assert!(!at("site/private/root-1.pem").exists());
    let roles: serde_json::Value = serde_json::from_slice(&fs::read(at("1.root.json")).unwrap()).unwrap();
    let site = Site::open(&at("site")).unwrap();
    assert!(site.signer(Role::Root(1), &passphrase()).is_err());
    for role in [Role::Targets, Role::Snapshot, Role::Timestamp] {
        let keyid = key_id(&site.signer(role, &passphrase()).unwrap().public()).unwrap();
        assert_eq!(roles["signed"]["roles"][role.to_string()]["keyids"][0], keyid);
    }
    let check = "site check --site site --passphrase-file passphrase";
    says(run(bench.path(), check), &["the trust directory belongs to them"]);
    run(bench.path(), "verify openpgp --trust site/trust site/trust/root.json").ok();
    // What is to be taken out is named as the root names it.
    let plan = "ceremony plan --root site/trust/root.json --left root-1 --out x.json";
    run(bench.path(), plan).fails(2, &["its custodians' are Anna, Ben, Cleo"]);
}

#[test]
fn a_root_or_a_key_that_is_not_the_ceremonys_makes_no_site() {
    let refused = |change: &dyn Fn(&std::path::Path), code: i32, why: &str| {
        let bench = bench();
        change(bench.path());
        run(bench.path(), INIT).fails(code, &[why]);
        assert!(!bench.path().join("site").exists(), "{why}");
    };
    refused(
        &|place| {
            drop(fs::copy(
                place.join("roles/new.key.pem"),
                place.join("roles/targets.key.pem"),
            ))
        },
        3,
        "is not the key that the root names for targets",
    );
    refused(
        &|place| fs::remove_file(place.join("roles/snapshot.key.pem")).unwrap(),
        1,
        "ceremony keygen --name snapshot --no-openpgp",
    );
    refused(
        &|place| {
            let path = place.join("1.root.json");
            let text = fs::read_to_string(&path).unwrap();
            fs::write(
                &path,
                text.replacen("\"version\":1", "\"version\":2", 1)
                    .replacen("\"version\": 1", "\"version\": 2", 1),
            )
            .unwrap();
        },
        3,
        "root is signed by 0 of the 2 keys",
    );
    let bench = bench();
    run(bench.path(), &format!("{INIT} --keys 3")).ends(2);
    // The second root leads from the first, which nobody could follow from here.
    run(
        bench.path(),
        "ceremony plan --root 1.root.json --days 4000 --out request.json",
    )
    .ok();
    for name in ["anna", "ben"] {
        let fragment = format!("{name}.fragment.json");
        sign(bench.path(), name, "request.json", "--root 1.root.json", &fragment).ok();
    }
    run(
        bench.path(),
        "ceremony assemble request.json --root 1.root.json --out made anna.fragment.json ben.fragment.json",
    )
    .ok();
    run(bench.path(), &INIT.replace("1.root.json", "made/2.root.json")).fails(3, &["is root 2"]);
    run(bench.path(), "site init --dir site --name Apart --root 1.root.json").ends(2);
    assert!(
        common::files_below(bench.path())
            .iter()
            .all(|path| !path.ends_with("site.json"))
    );
}
