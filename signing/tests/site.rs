// SPDX-License-Identifier: GPL-3.0-or-later
//! The site as a library sees it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use chrono::TimeDelta;
use common::passphrase;
use signing::clock::now;
use signing::durable::Lock;
use signing::openpgp;
use signing::secureboot::{SignatureList, Variable, verify_update};
use signing::site::{Plan, Role, RootOrigin, Site, Trust, init};
use signing::tuf::author::{Signer, key_id};

fn plan(directory: &Path) -> Plan {
    Plan {
        directory: directory.to_path_buf(),
        name: "Test".to_owned(),
        root: made(3, 2, 365),
        officers: Vec::new(),
    }
}

fn made(keys: usize, threshold: usize, days: i64) -> RootOrigin {
    RootOrigin::Made {
        keys,
        threshold,
        openpgp_threshold: 1,
        expires: now() + TimeDelta::days(days),
    }
}

fn site() -> Site {
    Site::open(common::site()).unwrap()
}

#[test]
fn a_site_has_exactly_the_planned_files_and_private_ones_are_private() {
    let site = site();
    let mut found = Vec::new();
    for part in ["", "private", "trust", "metadata"] {
        for entry in fs::read_dir(site.directory().join(part)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                found.push(path);
            }
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = directory.path().join("site");
    let mut planned: Vec<_> = plan(&elsewhere).check(now()).unwrap();
    for path in &mut planned {
        *path = site.directory().join(path.strip_prefix(&elsewhere).unwrap());
    }
    planned.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, planned);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&site.directory().join("private")), 0o700);
    for path in found {
        let private = path.starts_with(site.directory().join("private"));
        assert_eq!(mode(&path), if private { 0o600 } else { 0o644 }, "{}", path.display());
    }
}

#[test]
fn every_key_opens_and_is_the_recorded_one() {
    let site = site();
    let roles = (1..=3).map(Role::Root).chain(Role::SINGLE);
    for (role, facts) in roles.zip(&site.facts().keys) {
        let key = site.signer(role, &passphrase()).unwrap();
        assert_eq!(key_id(&key.public()).unwrap(), facts.keyid);
        assert_eq!(facts.role.parse::<Role>().unwrap(), role);
    }
    assert!(site.signer(Role::Root(4), &passphrase()).is_err());
    site.db_key(&passphrase()).unwrap();
    let signature = site
        .release_key(&passphrase())
        .unwrap()
        .sign_detached(&b"data"[..])
        .unwrap();
    let keyring = Trust::open(&site.trust_dir()).unwrap().release_keyring();
    openpgp::verify_detached(&keyring, &b"data"[..], signature.as_bytes(), now()).unwrap();
}

#[test]
fn the_root_is_two_of_three_and_signed_with_openpgp_too() {
    let trust = Trust::open(&site().trust_dir()).unwrap();
    let root = trust.root().unwrap();
    let value: serde_json::Value = serde_json::from_slice(&root).unwrap();
    assert_eq!(value["signed"]["roles"]["root"]["threshold"], 2);
    assert_eq!(value["signed"]["roles"]["root"]["keyids"].as_array().unwrap().len(), 3);
    assert_eq!(value["signatures"].as_array().unwrap().len(), 3);
    let signature = fs::read(trust.directory().join("root.json.asc")).unwrap();
    let found = openpgp::verify_detached(&trust.release_keyring(), &root[..], &signature, now()).unwrap();
    assert_eq!(found[0].fingerprint, site().facts().release_openpgp);
    assert_eq!(fs::read(site().metadata_dir().join("1.root.json")).unwrap(), root);
}

#[test]
fn the_updates_enrol_the_certificates() {
    let trust = Trust::open(&site().trust_dir()).unwrap();
    for (variable, signer) in [
        (Variable::Pk, Variable::Pk),
        (Variable::Kek, Variable::Pk),
        (Variable::Db, Variable::Kek),
    ] {
        let update = trust.update(variable).unwrap();
        let content = verify_update(variable, &update, &trust.certificate(signer).unwrap()).unwrap();
        let [entry] = &SignatureList::parse(content).unwrap()[..] else {
            panic!("one entry");
        };
        assert_eq!(entry.data, trust.certificate(variable).unwrap().to_der());
        assert_eq!(entry.owner, trust.owner().unwrap());
    }
}

#[test]
fn swapped_and_missing_files_are_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("copy");
    common::copy(site().directory(), &place);
    fs::copy(place.join("private/host.pem"), place.join("private/targets.pem")).unwrap();
    let copied = Site::open(&place).unwrap();
    let error = copied.signer(Role::Targets, &passphrase()).unwrap_err().to_string();
    assert!(
        error.contains("targets.pem") && error.contains("another key"),
        "{error}"
    );
    fs::copy(place.join("private/pk.pem"), place.join("private/db.pem")).unwrap();
    assert!(copied.db_key(&passphrase()).is_err());
    fs::copy(place.join("trust/pk.der"), place.join("trust/db.der")).unwrap();
    let error = copied.db_key(&passphrase()).unwrap_err().to_string();
    assert!(error.contains("another one than site.json records"), "{error}");
    fs::remove_file(place.join("trust/db.auth")).unwrap();
    let error = format!("{:#}", Site::open(&place).unwrap_err());
    assert!(error.contains("db.auth is missing"), "{error}");
}

#[test]
fn two_at_once_do_not_mix() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("site");
    let staging = directory.path().join(".site.incomplete");
    fs::create_dir(&staging).unwrap();
    let lock = Lock::take(&staging).unwrap();
    let error = format!(
        "{:#}",
        init(&plan(&place), &passphrase(), now(), &mut |_| ()).unwrap_err()
    );
    assert!(error.contains("locked by another process"), "{error}");
    drop(lock);
}

#[test]
fn impossible_plans_are_refused_before_anything_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("site");
    let refuse = |change: &dyn Fn(&mut Plan), reason: &str| {
        let mut plan = plan(&place);
        change(&mut plan);
        let error = format!("{:#}", plan.check(now()).unwrap_err());
        assert!(error.contains(reason), "{error}");
    };
    refuse(&|plan| plan.root = made(3, 4, 365), "threshold of 4");
    refuse(&|plan| plan.root = made(3, 0, 365), "threshold of 0");
    refuse(&|plan| plan.root = made(1000, 2, 365), "1000 root keys");
    refuse(&|plan| plan.name = String::new(), "name");
    refuse(&|plan| plan.name = "a <b>".to_owned(), "name");
    refuse(&|plan| plan.root = made(3, 2, -1), "expired");
    refuse(&|plan| plan.directory = "/".into(), "cannot name a site");
    refuse(&|plan| plan.directory = place.join("deeper"), "cannot be written");
    fs::create_dir(&place).unwrap();
    plan(&place).check(now()).unwrap();
    fs::write(place.join("file"), "").unwrap();
    refuse(&|_| (), "not empty");
}
