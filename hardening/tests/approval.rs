// SPDX-License-Identifier: GPL-3.0-or-later
//! A site's approval beside the vendor's word: good ones, and each way of tampering with one, by recipe.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use chrono::Duration;
use hardening::verdict::Outcome;
use serde_json::Value;
use signing::clock::now;
use signing::digest::Sha256;
use signing::openpgp::join;
use signing::process::Cmd;
use signing::site::Site;
use support::agree::{Judge, PASS};
use support::office::{Both, Gateway, both, office, with_site};
use support::rotation::{pin, second_root};
use support::world::{assert_fails, assert_pass};
use support::{Findings as _, Said, Tamper, bad, common, trust};

/// A target that an attacker changes.
fn sbom(name: &str) -> bool {
    name.ends_with("sbom.cdx.json")
}

#[test]
fn an_approval_is_followed_in_every_artifact_that_carries_one() {
    let gateway = Gateway::approved();
    let bundle = gateway.export();
    gateway.import(&bundle, "next", Some(&office().trust_dir()));
    let mut table = Both::new();
    for name in ["gateway", "approved.bundle", "next"] {
        let place = gateway.at(name);
        let report = gateway.judge(&place);
        assert_pass(&report);
        let passed = report.findings(Outcome::Pass);
        for id in [
            "approval.given",
            "approval.vendor",
            "approval.agreement",
            "approved.host/1.0.0/root.erofs",
        ] {
            assert!(passed.iter().any(|(_, finding)| finding.id == id), "{name}: no {id}");
        }
        table.judge(name, &place, PASS, &both());
        // Without the site's root nobody can tell, and the flag is named.
        let report = gateway.audit(&place, None, now());
        assert_eq!(report.outcome, Outcome::CouldNotCheck, "{}", bad(&report));
        assert!(bad(&report).contains("--site-trust"), "{}", bad(&report));
        let unasked = (4, "a site approves what is here: write this script with --site-trust");
        table.judge(
            &format!("{name}, without --site-trust"),
            &place,
            unasked,
            &Judge::default(),
        );
        // A root that is not the officers'.
        let stranger = common::make_site(&gateway.at(""), &format!("stranger-{name}")).join("trust");
        let report = gateway.audit(&place, Some(&stranger), now());
        assert_fails(&report, "tuf.stopped", "signed by 0 of the");
        assert_fails(&report, "approval.given", "");
        let stranger = Judge {
            site: Some(stranger),
            ..Judge::default()
        };
        table.judge(
            &format!("{name}, another site"),
            &place,
            (3, "the site, python-tuf: "),
            &stranger,
        );
    }
    let memory = gateway.at("next/site/datastore");
    let root = fs::read(memory.join("root.json")).unwrap();
    fs::copy(trust().join("root.json"), memory.join("root.json")).unwrap();
    table.refuse(
        &gateway,
        &gateway.at("next"),
        ("memory.root", ""),
        "it remembers the root",
    );
    fs::write(memory.join("root.json"), root).unwrap();
    fs::write(memory.join("extra"), "hidden").unwrap();
    let extra = ("memory.stranger.extra", "");
    table.refuse(&gateway, &gateway.at("next"), extra, "a stranger: datastore/extra");
    table.agree();
    let said = support::audit([
        "verify",
        &bundle.display().to_string(),
        "--trust",
        &trust().display().to_string(),
        "--site-trust",
        &office().trust_dir().display().to_string(),
        "--json",
    ]);
    // The upstream of these tests is not Debian.
    let said: Said = said.ends(3);
    said.finding("approval.agreement", "pass");
    said.finding("approval.carried", "pass");
}

/// The vendor's metadata are judged as of the approval, the site's as of now.
#[test]
fn the_vendor_may_be_stale_and_the_site_not() {
    let gateway = Gateway::approved();
    let site = office().trust_dir();
    let bundle = gateway.export();
    let later = now() + Duration::days(400);
    let report = gateway.audit(&bundle, Some(&site), later);
    assert_fails(&report, "fresh.timestamp", "authentic but stale");
    let stale = report.findings(Outcome::Fail).into_iter();
    assert!(
        stale
            .map(|(section, _)| section)
            .all(|section| section.id == "approval"),
        "{}",
        bad(&report)
    );
    let mut table = Both::new();
    let by = Judge { days: 400, ..both() };
    table.judge("a stale site", &bundle, (3, "the site, python-tuf: Expired"), &by);
    let vendor = "python-tuf: Expired";
    let alone = Judge {
        days: 400,
        ..Judge::default()
    };
    table.judge("a stale vendor alone", &gateway.at("x.bundle"), (3, vendor), &alone);
    gateway.resign_for(700, |_, _| ());
    fs::remove_file(&bundle).unwrap();
    for place in [gateway.at("gateway"), gateway.export()] {
        assert_pass(&gateway.audit(&place, Some(&site), later));
        table.judge("a stale vendor under a fresh approval", &place, PASS, &by);
    }
    table.agree();
}

#[test]
fn a_stolen_key_of_the_site_approves_nothing_that_the_vendor_did_not_sign() {
    let gateway = Gateway::approved();
    let mut table = Both::new();
    let place = gateway.at("gateway");
    gateway.resign(|name, entry| {
        if sbom(name) {
            entry.sha256 = Sha256::of(b"evil");
        }
    });
    let report = gateway.judge(&place);
    assert_fails(&report, "approved.host/1.0.0/sbom.cdx.json", "different contents");
    let contents = ("approval.agreement", "different contents");
    table.refuse(&gateway, &place, contents, "vendor and site name different contents");

    let gateway = Gateway::approved();
    gateway.resign(|name, entry| {
        if sbom(name) {
            entry.length += 1;
        }
    });
    let place = gateway.at("gateway");
    table.refuse(&gateway, &place, contents, "vendor and site name different contents");

    let gateway = Gateway::approved();
    gateway.resign(|name, entry| {
        if sbom(name) {
            let custom = entry.custom.as_mut().unwrap();
            custom.insert("channel".into(), Value::from("another"));
        }
    });
    let description = ("approval.agreement", "describe it differently");
    table.refuse(&gateway, &gateway.at("gateway"), description, "describe it differently");

    // What carries no approval, and one that is dated after the site signed it.
    for (change, why) in [
        (None, "KeyError: \"'approval'\""),
        (Some("2999-01-01T00:00:00Z"), "after the site signed it"),
    ] {
        let gateway = Gateway::approved();
        gateway.resign(|name, entry| {
            let custom = entry.custom.as_mut().unwrap();
            match change {
                Some(at) => custom["approval"]["at"] = Value::from(at),
                None if sbom(name) => drop(custom.remove("approval")),
                None => {}
            }
        });
        table.refuse(&gateway, &gateway.at("gateway"), ("approval.given", ""), why);
    }
    // One that was given before the vendor signed.
    let gateway = Gateway::approved();
    gateway.resign(|_, entry| {
        entry.custom.as_mut().unwrap()["approval"]["at"] = Value::from("2020-01-01T00:00:00Z");
    });
    let place = gateway.at("gateway");
    table.refuse(
        &gateway,
        &place,
        ("approval.agreement", "were signed at"),
        "and the vendor signed at",
    );

    // A release that the vendor never signed.
    let gateway = Gateway::approved();
    gateway.edit(300, |editor| {
        let entry = editor.targets().values().next().unwrap().clone();
        editor.put("host/6.6.6/root.erofs", entry).unwrap();
    });
    let strange = ("approved.host/6.6.6/root.erofs", "do not name it");
    table.refuse(&gateway, &gateway.at("gateway"), strange, "the vendor does not name it");
    table.agree();
}

#[test]
fn an_approval_that_was_taken_away_or_changed_fails() {
    let gateway = Gateway::approved();
    let place = gateway.at("gateway");
    let site = place.join("site");
    let mut table = Both::new();
    // Metadata of the vendor that nobody approved, in the place of those that were.
    let seen = site.join("vendor/1.timestamp.json");
    let honest = fs::read(&seen).unwrap();
    fs::write(&seen, [&honest[..], b"\n"].concat()).unwrap();
    let other = ("approval.vendor", "not the one that the site approved");
    table.refuse(&gateway, &place, other, "not the one that the site approved");
    fs::write(&seen, honest).unwrap();
    // Hidden files, where nobody else looks.
    for (name, id) in [
        ("extra", "file.site.extra"),
        ("metadata/extra", "file.metadata.extra"),
        ("targets/extra", "file.targets.extra"),
        ("vendor/extra", "file.site.vendor.extra"),
    ] {
        fs::write(site.join(name), "hidden").unwrap();
        table.refuse(&gateway, &place, (id, ""), "a stranger: ");
        fs::remove_file(site.join(name)).unwrap();
    }
    // What nothing vouches for any more, and a file of an approval that is not there.
    fs::write(site.join("vendor/7.host.json"), "{}").unwrap();
    table.judge(
        "of a replaced approval",
        &place,
        (4, "that was replaced since"),
        &both(),
    );
    fs::remove_file(site.join("vendor/7.host.json")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", site.join("vendor/link")).unwrap();
    table.refuse(
        &gateway,
        &place,
        ("file.site.vendor/link", ""),
        "a stranger: site/vendor/link",
    );
    fs::remove_file(site.join("vendor/link")).unwrap();
    let honest = fs::read(site.join("vendor/1.host.json")).unwrap();
    fs::remove_file(site.join("vendor/1.host.json")).unwrap();
    table.refuse(
        &gateway,
        &place,
        ("approval.vendor", ""),
        "the vendor as approved, python-tuf: ",
    );
    fs::write(site.join("vendor/1.host.json"), honest).unwrap();
    table.judge("put right again", &place, PASS, &both());
    // The release key's signatures beside both.
    for (name, id, why) in [
        (
            "metadata/1.timestamp.json.asc",
            "openpgp.timestamp.1",
            "timestamp.json carries",
        ),
        ("metadata/1.root.json.asc", "openpgp.root.1", "1.root.json carries"),
        (
            "vendor/1.timestamp.json.asc",
            "file.site.vendor.1.timestamp.json.asc",
            "site/vendor/1.timestamp.json.asc",
        ),
    ] {
        let honest = fs::read(site.join(name)).unwrap();
        fs::write(site.join(name), common::release_signature(b"something else")).unwrap();
        table.refuse(&gateway, &place, (id, ""), why);
        fs::write(site.join(name), honest).unwrap();
    }
    let name = "vendor/1.timestamp.json.asc";
    let honest = fs::read(site.join(name)).unwrap();
    fs::remove_file(site.join(name)).unwrap();
    let gone = ("file.site.vendor.1.timestamp.json.asc", "it is not there");
    table.refuse(&gateway, &place, gone, "1.timestamp.json.asc: it is not there");
    fs::write(site.join(name), honest).unwrap();
    support::flip(&site.join("metadata/1.targets.json"));
    table.refuse(&gateway, &place, ("tuf.stopped", ""), "the site, python-tuf: ");
    fs::remove_dir_all(&site).unwrap();
    let none = ("approval", "nothing here carries one");
    table.refuse(&gateway, &place, none, "nothing here carries an approval");
    // The vendor's own bundle carries none either.
    table.refuse(
        &gateway,
        &gateway.at("x.bundle"),
        none,
        "nothing here carries an approval",
    );
    table.agree();
}

#[test]
fn what_is_not_approved_is_not_carried_by_a_bundle() {
    let gateway = Gateway::approved();
    let mut table = Both::new();
    let bundle = gateway.export();
    let site = gateway.at("gateway/site/metadata");
    fs::write(&bundle, with_site(&bundle, &site)).unwrap();
    table.judge("made anew", &bundle, PASS, &both());
    gateway.edit(300, |editor| {
        let name = editor.targets().keys().find(|name| sbom(name)).unwrap().clone();
        assert!(editor.remove(&name));
    });
    fs::write(&bundle, with_site(&bundle, &site)).unwrap();
    let carried = ("approval.carried", "not approved: host/1.0.0/");
    table.refuse(&gateway, &bundle, carried, "not approved: targets/host/1.0.0/");
    table.agree();
}

/// What the vendor signed since is served beside what was approved, and judged as of now.
#[test]
fn a_gateway_that_has_imported_since_keeps_its_approval() {
    let gateway = Gateway::approved();
    let mut table = Both::new();
    let world = &gateway.world;
    let (upstream, site) = (support::upstream(), support::site());
    support::publish_release(world.directory.path(), "1.1.0", upstream, Tamper::None, site);
    fs::remove_file(gateway.at("x.bundle")).unwrap();
    gateway.import(&world.bundle(), "gateway", None);
    let place = gateway.at("gateway");
    assert_pass(&gateway.judge(&place));
    table.judge("a newer release, not approved yet", &place, PASS, &both());
    gateway.resign_for(700, |_, _| ());
    let later = Judge { days: 400, ..both() };
    table.judge("which is stale", &place, (3, "python-tuf: Expired"), &later);
    let approved = gateway.at("gateway/site/vendor/1.timestamp.json");
    fs::copy(place.join("metadata/timestamp.json"), &approved).unwrap();
    let other = ("approval.vendor", "not the one that the site approved");
    table.refuse(&gateway, &place, other, "1.timestamp.json of the vendor is not the one");
    table.agree();
}

/// Two of three certificates sign: one alone, the same twice, or a stranger's beside it does not suffice.
#[test]
fn as_many_officers_sign_an_approval_as_the_sites_root_says() {
    let site = Site::open(&common::site_of_officers()).unwrap();
    let gateway = Gateway::approved_by(site);
    let (mut table, place) = (Both::new(), gateway.at("gateway"));
    let metadata = gateway.at("gateway/site/metadata");
    let (stamp, signature) = (metadata.join("timestamp.json"), metadata.join("1.timestamp.json.asc"));
    let few = ("openpgp.timestamp.1", "1 of the 2 certificates that must have signed");
    let why = "timestamp.json carries the release key's OpenPGP signature";
    table.refuse(&gateway, &place, few, why);
    let alone = fs::read(&signature).unwrap();
    let stranger = common::release_signature(&fs::read(&stamp).unwrap());
    fs::write(&signature, join(&alone, &stranger).unwrap()).unwrap();
    table.refuse(&gateway, &place, few, why);
    let dearmored = Cmd::new("gpg").arg("--dearmor").input(&alone[..]).output().unwrap();
    fs::write(&signature, dearmored.repeat(2)).unwrap();
    let twice = ("openpgp.timestamp.1", "has signed more than once");
    table.refuse(&gateway, &place, twice, why);
    fs::write(&signature, &alone).unwrap();
    common::officer_adds("anna", &stamp, &signature);
    let report = gateway.judge(&place);
    assert_pass(&report);
    let passed = report.findings(Outcome::Pass);
    let counted = passed.iter().map(|(_, finding)| format!("{:?}", finding.verdict));
    let said = "2 certificates signed, of which 2 must";
    assert_eq!(counted.filter(|verdict| verdict.contains(said)).count(), 1);
    table.judge("two officers", &place, PASS, &gateway.both());
    let bundle = gateway.export();
    table.judge("a bundle of it", &bundle, PASS, &gateway.both());
    common::officer_adds("ben", &stamp, &signature);
    table.judge("three officers", &place, PASS, &gateway.both());
    table.agree();
}

/// The vendor changes its root under an approval; auditors pin the first root or the second.
#[test]
fn an_approval_stands_over_a_change_of_the_vendors_root() {
    let gateway = Gateway::approved();
    let mut table = Both::new();
    let (world, place) = (&gateway.world, gateway.at("gateway"));
    let root = world.repository().join("metadata/2.root.json");
    second_root(&root);
    let pinned = pin(&root);
    let newer = Judge {
        trust: pinned.path().to_path_buf(),
        ..both()
    };
    fs::remove_file(gateway.at("x.bundle")).unwrap();
    gateway.import(&world.bundle(), "gateway", None);
    table.judge("root 2 came after the approval, root 1 pinned", &place, PASS, &both());
    // A host that pins the second root says so too: the officers never saw it.
    let unseen = (3, "and the vendor signed at");
    table.judge("root 2 came after the approval and is pinned", &place, unseen, &newer);
    gateway.approve();
    table.judge("root 2 is approved, root 1 pinned", &place, PASS, &both());
    table.judge("root 2 is approved and pinned", &place, PASS, &newer);
    let bundle = gateway.export();
    table.judge("a bundle of it, root 1 pinned", &bundle, PASS, &both());
    table.judge("a bundle of it, root 2 pinned", &bundle, PASS, &newer);
    gateway.import(&bundle, "next", Some(&office().trust_dir()));
    table.judge("the next gateway, root 1 pinned", &gateway.at("next"), PASS, &both());
    table.judge("the next gateway, root 2 pinned", &gateway.at("next"), PASS, &newer);
    let name = place.join("site/vendor/2.root.json.asc");
    let honest = fs::read(&name).unwrap();
    fs::remove_file(&name).unwrap();
    let gone = ("file.site.vendor.2.root.json.asc", "it is not there");
    table.refuse(&gateway, &place, gone, "2.root.json.asc: it is not there");
    fs::write(&name, honest).unwrap();
    table.agree();
}

#[test]
fn what_carries_no_approval_is_not_asked_for_one() {
    let gateway = Gateway::approved();
    let run = |command: &str, artifact: &Path, site: &Path| {
        let line = [
            artifact,
            Path::new("--trust"),
            &trust(),
            Path::new("--site-trust"),
            site,
        ]
        .map(Path::to_path_buf);
        support::audit([PathBuf::from(command)].into_iter().chain(line))
    };
    let root = trust().join("root.json");
    for command in ["verify", "recipe"] {
        run(command, &root, &office().trust_dir()).fails(2, &["only a bundle or a gateway"]);
        run(command, &gateway.at("gateway"), &trust()).fails(2, &["a root of its own"]);
    }
    let script = run("recipe", &gateway.at("gateway"), &office().trust_dir()).ok();
    for directory in [trust(), office().trust_dir()] {
        let fingerprint = signing::anchor::fingerprint(&directory).unwrap();
        assert!(script.contains(&fingerprint), "no {fingerprint}");
    }
}
