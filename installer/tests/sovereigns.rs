// SPDX-License-Identifier: GPL-3.0-or-later
//! An installation whose answer names a site beside the vendor.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::path::PathBuf;

use signing::digest::Sha256;
use signing::policy::{POLICY, Policy, SiteFiles, Sovereign};
use signing::tuf::Datastore;
use support::{Disk, Medium, can_check, common, run};

/// An answer that names this digest, with the files of a site beside it.
fn answer(medium: &Medium, root: &str) -> PathBuf {
    let place = medium.at("answer");
    fs::create_dir_all(place.join("site")).unwrap();
    for name in ["root.json", "root.json.asc", "release.asc"] {
        let from = common::other_site().join("trust").join(name);
        fs::copy(from, place.join("site").join(name)).unwrap();
    }
    let text = support::answer("");
    let file = place.join("answer.toml");
    fs::write(&file, format!("{text}\n[trust]\nsite_root = \"{root}\"\n")).unwrap();
    file
}

fn office() -> Sha256 {
    let site = SiteFiles::read(&common::other_site().join("trust")).unwrap();
    site.pinned().root_sha256
}

#[test]
fn a_named_site_is_pinned_and_recorded() {
    if !can_check() {
        return;
    }
    let (medium, disk) = (Medium::new(), Disk::new());
    let answer = answer(&medium, &office().to_string());
    let plan = run(medium.program("plan", &[&disk.node]).arg("--answer").arg(&answer));
    assert_eq!(plan.code, Some(0), "{}", plan.err);
    let shown = format!("and     the approval of the site with the root {}", office());
    assert!(plan.out.contains(&shown), "{}", plan.out);

    let install = medium.program("run", &[&disk.node]).arg("--answer").arg(&answer);
    let ended = run(install.args(["--yes", "--json"]));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let out = tempfile::tempdir().unwrap();
    for directory in ["trust", "site-datastore"] {
        disk.state(&format!("rdump /bastide/{directory} {}", out.path().display()));
    }
    let trust = out.path().join("trust");
    assert!(trust.join(POLICY).is_file());
    let policy = Policy::read(&trust).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&disk.state("cat /bastide/install-record.json")).unwrap();
    assert_eq!(
        serde_json::from_value::<Policy>(record["policy"].clone()).unwrap(),
        policy
    );
    let vendor = Sovereign {
        root: Vec::new(),
        certificate: Vec::new(),
    };
    policy.sovereigns(&trust, vendor).unwrap();
    let Policy::VendorAndSite { site } = policy else {
        panic!("{policy:?}")
    };
    assert_eq!(site.root_sha256, office());
    Datastore::open(&out.path().join("site-datastore")).unwrap();
}

#[test]
fn a_site_that_cannot_be_pinned_leaves_the_disk_alone() {
    if !can_check() {
        return;
    }
    let (medium, disk) = (Medium::new(), Disk::new());
    let refuse = |answer: &PathBuf, why: &str| {
        let install = medium.program("run", &[&disk.node]).arg("--answer").arg(answer);
        let ended = run(install.args(["--yes", "--json"]));
        assert_eq!(ended.code, Some(3), "{}", ended.err);
        assert!(ended.err.contains(why), "{why:?} is not in {}", ended.err);
        assert!(!disk.boots());
    };
    refuse(&answer(&medium, &"0".repeat(64)), "ask its officers");

    let named = answer(&medium, &office().to_string());
    let signature = medium.at("answer/site/root.json.asc");
    let vendors = fs::read(medium.at("trust/root.json.asc")).unwrap();
    fs::write(&signature, vendors).unwrap();
    refuse(&named, "cannot pin the site's root");
    fs::remove_file(&signature).unwrap();
    refuse(&named, "the answer names a site");

    // The vendor's own root as the site's.
    let root = fs::read(medium.at("trust/root.json")).unwrap();
    let own = answer(&medium, &Sha256::of(&root).to_string());
    for name in ["root.json", "root.json.asc", "release.asc"] {
        fs::copy(medium.at("trust").join(name), medium.at("answer/site").join(name)).unwrap();
    }
    refuse(&own, "the site's root is the vendor's");
}
