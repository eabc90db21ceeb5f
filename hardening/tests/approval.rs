// SPDX-License-Identifier: GPL-3.0-or-later
//! A site's approval beside the vendor's word: good ones, and each way of tampering with one, by recipe.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Duration, Utc};
use hardening::report::{Report, Subject};
use hardening::trace::release::Question;
use hardening::trace::trust::Trust;
use hardening::trace::{bundle, repository};
use hardening::verdict::Outcome;
use offline_repo::approve::{Options, approve};
use offline_repo::export::{Roots, Selection, export};
use offline_repo::import::{Believed, Mode as Import, import};
use offline_repo::publish::Mode;
use offline_repo::repository::Repository;
use serde_json::Value;
use signing::clock::now;
use signing::digest::Sha256;
use signing::site::Site;
use signing::tuf::author::TargetEntry;
use signing::tuf::repository::Repository as Editor;
use support::agree::{Judge, Table};
use support::world::{World, assert_fails, assert_pass};
use support::{Findings as _, Said, Tamper, bad, common, passphrase, trust};

fn office() -> Site {
    Site::open(&common::other_site()).unwrap()
}

/// A gateway that has imported the vendor's release, and whose officers approved it.
struct Gateway {
    world: World,
}

impl Gateway {
    fn approved() -> Self {
        let gateway = Self {
            world: World::new(Tamper::None),
        };
        let bundle = gateway.world.bundle();
        gateway.import(&bundle, "gateway", None);
        let vendor = signing::site::Trust::open(&trust()).unwrap();
        let options = Options {
            vendor: &vendor,
            site: &office(),
            passphrase: &passphrase(),
            version: Some("1.0.0".parse().unwrap()),
            expires: None,
            now: now(),
            mode: Mode::Write,
        };
        approve(&gateway.repository(), &options, &mut |_, _| ()).unwrap();
        gateway
    }

    fn at(&self, name: &str) -> PathBuf {
        self.world.directory.path().join(name)
    }

    fn repository(&self) -> Repository {
        Repository::create(&self.at("gateway")).unwrap()
    }

    fn import(&self, bundle: &Path, to: &str, site: Option<&Path>) {
        let open = |place: &Path| signing::site::Trust::open(place).unwrap();
        let believed = Believed {
            vendor: open(&trust()),
            site: site.map(open),
        };
        let to = Repository::create(&self.at(to)).unwrap();
        import(bundle, &to, &believed, now(), None, Import::Write, &mut |_, _| ()).unwrap();
    }

    fn export(&self) -> PathBuf {
        let place = self.at("approved.bundle");
        let roots = Roots {
            vendor: fs::read(trust().join("root.json")).unwrap(),
            site: Some(fs::read(office().trust_dir().join("root.json")).unwrap()),
        };
        export(
            &self.repository(),
            &roots,
            &Selection::Newest,
            1,
            &place,
            &mut |_, _| (),
        )
        .unwrap();
        place
    }

    /// The officers' keys sign the site's targets once more, as `change` leaves them.
    fn resign(&self, change: impl Fn(&str, &mut TargetEntry)) {
        let office = office();
        let site = self.at("gateway/site");
        let mut editor = Editor::open(&site, &fs::read(office.trust_dir().join("root.json")).unwrap()).unwrap();
        for (name, mut entry) in editor.targets().clone() {
            change(&name, &mut entry);
            editor.put(&name, entry).unwrap();
        }
        let expires = now() + Duration::days(300);
        office.publish(&mut editor, &passphrase(), expires, now()).unwrap();
    }

    fn audit(&self, place: &Path, site: Option<&Path>, at: DateTime<Utc>) -> Report {
        let vendor = Trust::open(&trust()).unwrap();
        let site = site.map(|site| Trust::open(site).unwrap());
        let policy = support::upstream().policy();
        let question = Question {
            trust: &vendor,
            site: site.as_ref(),
            now: at,
            complete: place.is_dir(),
            upstream: Some(&policy),
        };
        let audited = match place.is_dir() {
            true => repository::repository(place, question).unwrap(),
            false => bundle::bundle(place, question),
        };
        Report::new(Subject::new("test", "test"), at, audited.sections)
    }

    fn judge(&self, place: &Path) -> Report {
        self.audit(place, Some(&office().trust_dir()), now())
    }
}

/// A target that an attacker changes.
fn sbom(name: &str) -> bool {
    name.ends_with("sbom.cdx.json")
}

#[test]
fn an_approval_is_followed_in_every_artifact_that_carries_one() {
    let gateway = Gateway::approved();
    let bundle = gateway.export();
    gateway.import(&bundle, "next", Some(&office().trust_dir()));
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
        // Without the site's root nobody can tell, and the flag is named.
        let report = gateway.audit(&place, None, now());
        assert_eq!(report.outcome, Outcome::CouldNotCheck, "{}", bad(&report));
        assert!(bad(&report).contains("--site-trust"), "{}", bad(&report));
        // A root that is not the officers'.
        let stranger = common::make_site(&gateway.at(""), &format!("stranger-{name}")).join("trust");
        let report = gateway.audit(&place, Some(&stranger), now());
        assert_fails(&report, "tuf.stopped", "signed by 0 of the");
        assert_fails(&report, "approval.given", "");
    }
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
}

#[test]
fn a_stolen_key_of_the_site_approves_nothing_that_the_vendor_did_not_sign() {
    let gateway = Gateway::approved();
    let place = gateway.at("gateway");
    gateway.resign(|name, entry| {
        if sbom(name) {
            entry.sha256 = Sha256::of(b"evil");
        }
    });
    let report = gateway.judge(&place);
    assert_fails(&report, "approved.host/1.0.0/sbom.cdx.json", "different contents");
    assert_fails(&report, "approval.agreement", "different contents");

    let gateway = Gateway::approved();
    gateway.resign(|name, entry| {
        if sbom(name) {
            entry.length += 1;
        }
    });
    assert_fails(
        &gateway.judge(&gateway.at("gateway")),
        "approval.agreement",
        "different contents",
    );

    let gateway = Gateway::approved();
    gateway.resign(|name, entry| {
        if sbom(name) {
            let custom = entry.custom.as_mut().unwrap();
            custom.insert("channel".into(), Value::from("another"));
        }
    });
    assert_fails(
        &gateway.judge(&gateway.at("gateway")),
        "approval.agreement",
        "describe it differently",
    );

    // A release that the vendor never signed.
    let gateway = Gateway::approved();
    let office = office();
    let root = fs::read(office.trust_dir().join("root.json")).unwrap();
    let mut editor = Editor::open(&gateway.at("gateway/site"), &root).unwrap();
    let entry = editor.targets().values().next().unwrap().clone();
    editor.put("host/6.6.6/root.erofs", entry).unwrap();
    let expires = now() + Duration::days(300);
    office.publish(&mut editor, &passphrase(), expires, now()).unwrap();
    let report = gateway.judge(&gateway.at("gateway"));
    assert_fails(&report, "approved.host/6.6.6/root.erofs", "do not name it");
}

#[test]
fn an_approval_that_was_taken_away_or_changed_fails() {
    let gateway = Gateway::approved();
    let place = gateway.at("gateway");
    let site = place.join("site");
    // Metadata of the vendor that nobody approved, in the place of those that were.
    let seen = site.join("vendor/1.timestamp.json");
    let honest = fs::read(&seen).unwrap();
    fs::write(&seen, [&honest[..], b"\n"].concat()).unwrap();
    assert_fails(
        &gateway.judge(&place),
        "approval.vendor",
        "not the one that the site approved",
    );
    fs::write(&seen, honest).unwrap();
    // Hidden files, where nobody else looks.
    for (name, id) in [
        ("extra", "file.site.extra"),
        ("metadata/extra", "file.metadata.extra"),
        ("targets/extra", "file.targets.extra"),
        ("vendor/extra", "file.site.vendor.extra"),
    ] {
        fs::write(site.join(name), "hidden").unwrap();
        assert_fails(&gateway.judge(&place), id, "");
        fs::remove_file(site.join(name)).unwrap();
    }
    support::flip(&site.join("metadata/1.targets.json"));
    assert_fails(&gateway.judge(&place), "tuf.stopped", "");
    fs::remove_dir_all(&site).unwrap();
    assert_fails(&gateway.judge(&place), "approval", "nothing here carries one");
    // The vendor's own bundle carries none either.
    assert_fails(
        &gateway.judge(&gateway.at("x.bundle")),
        "approval",
        "nothing here carries one",
    );
}

#[test]
fn the_script_says_that_it_does_not_judge_an_approval() {
    let Some(mut table) = Table::new() else { return };
    let gateway = Gateway::approved();
    let by = Judge::default();
    for place in [gateway.export(), gateway.at("gateway")] {
        table.judge("approved by a site", &place, (4, "a site approves"), &by);
    }
    table.agree();
}

#[test]
fn what_carries_no_approval_is_not_asked_for_one() {
    let gateway = Gateway::approved();
    let run = |artifact: &Path, site: &Path| {
        let line = [
            artifact,
            Path::new("--trust"),
            &trust(),
            Path::new("--site-trust"),
            site,
        ]
        .map(Path::to_path_buf);
        support::audit([PathBuf::from("verify")].into_iter().chain(line))
    };
    let root = trust().join("root.json");
    run(&root, &office().trust_dir()).fails(2, &["only a bundle or a gateway"]);
    run(&gateway.at("gateway"), &trust()).fails(2, &["a root of its own"]);
}
