// SPDX-License-Identifier: GPL-3.0-or-later
//! From a ceremony to a gateway: a site that holds no root key publishes, its custodians change the root apart, and who
//! pinned the first one follows.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;

use chrono::Duration;
use signing::ceremony::{CustodianFile, Fragment, Plan, Request, RoleName, ThresholdChange, TrustedRoot, assemble};
use signing::clock::now;
use signing::keys::{self, Algorithm, PrivateKey};
use signing::release::Part;
use signing::secureboot::sign_pe;
use signing::site::{self, RootOrigin};
use support::low::Low;
use support::{build, common, passphrase_file, replace_part, root_hash, unsigned_boot_image};

fn sign(request: &Request, old: Option<&TrustedRoot>, custodians: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let fragments = custodians.iter().map(|(name, pem)| {
        let key = PrivateKey::from_unencrypted_pem(name, pem).unwrap();
        ((*name).to_owned(), Fragment::sign(request, old, key, now()))
    });
    assemble(request, old, fragments)
        .unwrap()
        .complete()
        .unwrap()
        .0
        .to_vec()
}

#[test]
fn a_ceremonys_root_carries_a_release_and_the_next_root_over_the_gap() {
    let low = Low::new();
    let custodians = ["Anna", "Ben"].map(|name| {
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        (name, key.to_unencrypted_pem().unwrap().to_vec())
    });
    let public = |(name, pem): &(&str, Vec<u8>)| {
        CustodianFile::new(name, PrivateKey::from_unencrypted_pem(name, pem).unwrap(), None).unwrap()
    };
    let roles = low.at("roles");
    fs::create_dir(&roles).unwrap();
    let mut role_keys = BTreeMap::new();
    for role in RoleName::OTHERS {
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        keys::write_new(&roles.join(format!("{role}.key.pem")), &key, &common::passphrase()).unwrap();
        role_keys.insert(role, vec![CustodianFile::new(&role.to_string(), key, None).unwrap()]);
    }
    let first = Plan {
        add: custodians.iter().map(public).collect(),
        roles: role_keys,
        thresholds: vec![ThresholdChange {
            role: RoleName::Root,
            count: 2,
        }],
        expires: Some(now() + Duration::days(300)),
        ..Plan::default()
    };
    let first = sign(
        &first.request(None, now() - Duration::hours(1)).unwrap(),
        None,
        &custodians,
    );
    fs::write(low.at("1.root.json"), &first).unwrap();
    let plan = site::Plan {
        directory: low.at("site"),
        name: "Apart".to_owned(),
        root: RootOrigin::ceremony(&low.at("1.root.json"), &roles).unwrap(),
        officers: Vec::new(),
    };
    let passphrase = common::passphrase();
    let site = site::init(&plan, &passphrase, now(), &mut |_| ()).unwrap();
    common::copy(&site.trust_dir(), &low.at("pinned"));

    let build = build(low.directory.path(), "1.0.0");
    let db = site.db_key(&passphrase).unwrap();
    for part in [Part::Xen, Part::Installer] {
        let image = unsigned_boot_image(part.command_line().unwrap(), "1.0.0", &root_hash("1.0.0"));
        replace_part(&build, part, &sign_pe(&image, &db).unwrap());
    }
    let publish = |more: &str| {
        let secret = passphrase_file().display().to_string();
        low.run(&format!(
            "publish --repo repo --site site --passphrase-file {secret} {more}"
        ))
    };
    publish(&format!("--release {}", build.display())).ok();
    let carry = |name: &str| {
        low.run(&format!("export --repo repo --out {name}")).ok();
        low.run(&format!("import {name} --repo gateway --trust pinned")).ok();
    };
    carry("first.bundle");

    // Both custodians renew it; the site puts it into its metadata and signs it with OpenPGP.
    let old = TrustedRoot::read(&first).unwrap();
    let renewal = Plan {
        expires: Some(now() + Duration::days(900)),
        ..Plan::default()
    };
    let second = sign(&renewal.request(Some(&old), now()).unwrap(), Some(&old), &custodians);
    let place = site.metadata_dir().join("2.root.json");
    fs::write(&place, &second).unwrap();
    let signature = site
        .release_key(&passphrase)
        .unwrap()
        .sign_detached(&second[..])
        .unwrap();
    fs::write(place.with_extension("json.asc"), signature).unwrap();
    publish("").ok();
    carry("second.bundle");
    assert_eq!(fs::read(low.at("gateway/metadata/2.root.json")).unwrap(), second);
    let list = low.run("list gateway --trust pinned --json").ends(0).json();
    assert_eq!(list["releases"][0]["version"], "1.0.0");
}
