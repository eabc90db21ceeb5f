// SPDX-License-Identifier: GPL-3.0-or-later
//! `approve`, and the way of an approved release to the next gateway, with everything that must be refused on it.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use serde_json::Value;
use support::common::{self, Said, contents};
use support::low::{Low, edit};
use support::{build, flip, other_site, passphrase_file, site};

const APPROVE: &str = "approve 1.0.0 --repo gateway --trust vendor --site office --passphrase-file passphrase";
const NEXT: &str = "--repo next --trust vendor --site-trust office/trust";

/// A vendor's repository, a gateway that has imported its release 1.0.0, and an office of officers.
fn gateway() -> Low {
    let low = Low::published();
    std::os::unix::fs::symlink(site().join("trust"), low.at("vendor")).unwrap();
    std::os::unix::fs::symlink(other_site(), low.at("office")).unwrap();
    fs::copy(passphrase_file(), low.at("passphrase")).unwrap();
    low.run("import 1.bundle --repo gateway --trust vendor").ok();
    low
}

/// The same with release 1.0.0 approved, and the bundle of it.
fn approved() -> Low {
    let low = gateway();
    low.run(APPROVE).ok();
    low.run("export --repo gateway --trust vendor --site-trust office/trust --out approved.bundle")
        .ok();
    low
}

/// The vendor's next release, in the gateway.
fn next_release(low: &Low) {
    low.publish_build(&build(low.directory.path(), "1.1.0"), &[]).ends(0);
    let bundle = low.export("2.bundle", &["--since", "1.0.0"]);
    low.run(&format!("import {} --repo gateway --trust vendor", bundle.display()))
        .ok();
}

fn refused(said: Said, why: &str) {
    said.fails(3, &["refused", why]);
}

#[test]
fn an_approved_release_reaches_the_next_gateway() {
    let low = gateway();
    let summary = low.run(&format!("{APPROVE} --json")).ends(0).json();
    let (outcome, seal) = (&summary["outcome"], &summary["release"]);
    assert_eq!((outcome, &seal["version"]), (&"approved".into(), &"1.0.0".into()));
    let roles: Vec<&str> = seal["vendor"]
        .as_array()
        .unwrap()
        .iter()
        .map(|seen| seen["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["root", "timestamp", "snapshot", "targets", "host"]);
    low.run("export --repo gateway --out approved.bundle").ok();
    let line = format!("import approved.bundle {NEXT}");
    low.run(&format!("{line} --dry-run")).ok();
    assert!(!low.at("next").exists());
    low.run(&line).ok();
    // And from there on, with the same bytes.
    low.run("export --repo next --out again.bundle").ok();
    assert!(fs::read(low.at("again.bundle")).unwrap() == fs::read(low.at("approved.bundle")).unwrap());
}

/// What the vendor makes after the approval waits for the next one, and the approved metadata are kept for it.
#[test]
fn what_is_not_approved_is_not_carried() {
    let low = approved();
    next_release(&low);
    low.run("export --repo gateway --out still.bundle").ok();
    assert!(fs::read(low.at("still.bundle")).unwrap() == fs::read(low.at("approved.bundle")).unwrap());
    low.run("export --repo gateway --version 1.1.0 --out no.bundle")
        .fails(1, &["there is no release 1.1.0"]);
    low.run(&APPROVE.replace("1.0.0", "1.1.0")).ok();
    low.run("export --repo gateway --since 0.9.0 --out both.bundle").ok();
    let summary = low.run(&format!("import both.bundle {NEXT} --json")).ends(0).json();
    assert_eq!(summary["new"], serde_json::json!(["1.0.0", "1.1.0"]));
    // The older approval, carried once more, is a rollback of the site's.
    refused(low.run(&format!("import approved.bundle {NEXT}")), "rollback");
}

#[test]
fn a_dry_run_signs_nothing() {
    let low = gateway();
    let before = contents(&low.at("gateway"));
    let said = low
        .run("approve 1.0.0 --repo gateway --trust vendor --site office --dry-run")
        .ok();
    assert!(
        said.contains("nothing was signed") && said.contains("vendor's timestamp 1"),
        "{said}"
    );
    assert_eq!(contents(&low.at("gateway")), before);
}

#[test]
fn signatures_are_renewed_without_a_release() {
    let low = gateway();
    let renew = APPROVE.replace(" 1.0.0", "");
    low.run(&renew).fails(1, &["nothing to renew"]);
    low.run(APPROVE).ok();
    let summary = low.run(&format!("{renew} --expires-days 30 --json")).ends(0).json();
    assert_eq!((&summary["release"], &summary["timestamp"]), (&Value::Null, &2.into()));
    assert_eq!(summary["approved"], serde_json::json!(["1.0.0"]));
}

#[test]
fn what_cannot_be_approved_is_refused_with_its_reason() {
    let low = gateway();
    low.run(&APPROVE.replace("1.0.0", "9.9.9"))
        .fails(1, &["no release 9.9.9 here (there are: 1.0.0)"]);
    low.run("approve nine --repo gateway --trust vendor --site office")
        .ends(2);
    let own = APPROVE.replace("--site office", "--site own");
    std::os::unix::fs::symlink(site(), low.at("own")).unwrap();
    refused(low.run(&own), "a root of its own");
    refused(
        low.run(&APPROVE.replace("--trust vendor", "--trust office/trust")),
        "not authentic",
    );

    let parts = low.at("gateway/targets/host/1.0.0");
    let part = fs::read_dir(&parts)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().ends_with("root.erofs"))
        .unwrap();
    flip(&part);
    refused(low.run(APPROVE), "does not have the digest");
    fs::remove_file(&part).unwrap();
    let said = low.run(APPROVE).ends(4);
    assert!(
        said.out.contains("could not check") && said.out.contains("root.erofs"),
        "{}",
        said.out
    );
    let told = low.run(&format!("{APPROVE} --json")).ends(4).json();
    assert_eq!(told["outcome"], "not-whole");
    assert!(!low.at("gateway/site").exists(), "nothing was signed");
}

/// The vendor signs another content under an approved version.
#[test]
fn what_the_vendors_release_key_did_not_sign_is_not_approved() {
    let low = gateway();
    let place = low.at("gateway/metadata/1.timestamp.json.asc");
    fs::write(&place, common::release_signature(b"something else")).unwrap();
    refused(low.run(APPROVE), "the OpenPGP signature of timestamp.json");
    fs::remove_file(&place).unwrap();
    refused(low.run(APPROVE), "1.timestamp.json.asc");
    assert!(!low.at("gateway/site").exists());
}

#[test]
fn a_version_is_approved_with_one_content() {
    let low = approved();
    let other = Low::new();
    let build = build(other.directory.path(), "1.0.0");
    support::replace_part(&build, signing::release::Part::Sbom, b"another bill");
    other.publish_build(&build, &[]).ends(0);
    drop(fs::remove_dir_all(low.at("gateway/metadata")));
    drop(fs::remove_dir_all(low.at("gateway/datastore")));
    common::copy(&other.at("repository"), &low.at("gateway"));
    refused(low.run(APPROVE), "approved with another content");
}

/// A stolen key of the vendor: newer metadata of the vendor beside the old approval.
#[test]
fn the_vendor_alone_passes_no_gateway_that_demands_both() {
    let low = approved();
    refused(low.run(&format!("import 1.bundle {NEXT}")), "nothing here carries one");
    next_release(&low);
    let newer = low.at("repository/metadata");
    let bundle = edit(
        &low.at("approved.bundle"),
        &low.at("forged.bundle"),
        |name, content| match name.strip_prefix("metadata/") {
            Some(file) if newer.join(file).exists() => Some(fs::read(newer.join(file)).unwrap()),
            _ => Some(content),
        },
    );
    let line = format!("import {} {NEXT}", bundle.display());
    refused(low.run(&line), "is not the one that the site approved");
    assert_eq!(support::only_refused(&low.at("next")), 2);
}

/// A stolen key of the site: its approval beside what another vendor signed.
#[test]
fn the_site_alone_passes_no_gateway_that_demands_both() {
    let low = gateway();
    // The officers' keys approve at a gateway of another vendor, who is no one to this site's hosts.
    std::os::unix::fs::symlink(site(), low.at("own")).unwrap();
    let stranger = common::make_site(low.directory.path(), "stranger");
    let line = "approve 1.0.0 --repo gateway --trust vendor --site stranger --passphrase-file passphrase";
    assert!(stranger.is_dir());
    low.run(line).ok();
    low.run("export --repo gateway --out strange.bundle").ok();
    // Approved by keys that this gateway does not know.
    refused(low.run(&format!("import strange.bundle {NEXT}")), "OpenPGP");
    // And what it knows of the site does not make up for the vendor.
    let line = "import strange.bundle --repo next --trust office/trust --site-trust stranger/trust";
    refused(low.run(line), "OpenPGP");
}

#[test]
fn an_approval_that_nobody_verifies_is_not_taken_in() {
    let low = approved();
    refused(
        low.run("import approved.bundle --repo next --trust vendor"),
        "--site-trust",
    );
    let without = edit(
        &low.at("approved.bundle"),
        &low.at("without.bundle"),
        |name, content| (!name.starts_with("site/")).then_some(content),
    );
    refused(
        low.run(&format!("import {} {NEXT}", without.display())),
        "the vendor's word alone",
    );
    refused(
        low.run("export --repo repository --site-trust office/trust --out no.bundle"),
        "carries no approval",
    );
}
