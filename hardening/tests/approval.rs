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
use support::agree::{Judge, PASS, Table};
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
        self.resign_for(300, change);
    }

    fn resign_for(&self, days: i64, change: impl Fn(&str, &mut TargetEntry)) {
        let office = office();
        let site = self.at("gateway/site");
        let mut editor = Editor::open(&site, &fs::read(office.trust_dir().join("root.json")).unwrap()).unwrap();
        for (name, mut entry) in editor.targets().clone() {
            change(&name, &mut entry);
            editor.put(&name, entry).unwrap();
        }
        let expires = now() + Duration::days(days);
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

/// The audit and the script, where python-tuf is at hand.
struct Both(Option<Table>);

impl Both {
    fn new() -> Self {
        Self(Table::new())
    }

    /// The script comes to this verdict, and the audit with it.
    fn judge(&mut self, case: &str, place: &Path, expected: (i32, &str), by: &Judge) {
        if let Some(table) = &mut self.0 {
            table.judge(case, place, expected, by);
        }
    }

    /// Both refuse: the audit with the finding of this identifier, the script in a line with these words.
    fn refuse(&mut self, gateway: &Gateway, place: &Path, (id, text): (&str, &str), why: &str) {
        assert_fails(&gateway.judge(place), id, text);
        self.judge(&format!("{id} {text}"), place, (3, why), &both());
    }

    fn agree(&self) {
        if let Some(table) = &self.0 {
            table.agree();
        }
    }
}

/// Who knows both roots.
fn both() -> Judge {
    Judge {
        site: Some(office().trust_dir()),
        ..Judge::default()
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
    let office = office();
    let root = fs::read(office.trust_dir().join("root.json")).unwrap();
    let mut editor = Editor::open(&gateway.at("gateway/site"), &root).unwrap();
    let entry = editor.targets().values().next().unwrap().clone();
    editor.put("host/6.6.6/root.erofs", entry).unwrap();
    let expires = now() + Duration::days(300);
    office.publish(&mut editor, &passphrase(), expires, now()).unwrap();
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
