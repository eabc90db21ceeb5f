// SPDX-License-Identifier: GPL-3.0-or-later
//! An auditor whose root is newer than what an artifact begins with: he judges by his own root (TUF 5.3), and the older
//! ones are the way to it. The audit and its script must agree on each.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use hardening::facts::Recorded;
use hardening::report::{Report, Subject};
use hardening::trace::host::chain;
use hardening::trace::release::Question;
use hardening::trace::trust::Trust;
use hardening::verdict::Outcome;
use signing::clock::now;
use signing::site::Site;
use support::agree::{Judge, PASS, Table};
use support::medium::Recipe;
use support::rotation::{next_root, pin, second_root};
use support::world::World;
use support::{Tamper, bad, common, site};

/// What a case changes in a repository that has both roots.
type Change<'a> = &'a dyn Fn(&Path);

/// A repository with the roots 1 and 2, and an auditor who pins the second one.
fn rotated() -> (World, Judge, tempfile::TempDir) {
    let world = World::new(Tamper::None);
    let root = world.repository().join("metadata/2.root.json");
    second_root(&root);
    let trust = pin(&root);
    let by = Judge {
        trust: trust.path().to_path_buf(),
        ..Judge::default()
    };
    (world, by, trust)
}

#[test]
fn a_newer_pinned_root_judges_every_artifact() {
    let Some(mut table) = Table::new() else { return };
    let (world, by, trust) = rotated();
    let repository = world.repository();
    table.judge("pinned: the first root", &repository, PASS, &Judge::default());
    table.judge("pinned: the second root", &repository, PASS, &by);
    let bundle = world.bundle();
    table.judge("pinned: the second root", &bundle, PASS, &by);
    let iso = support::medium::iso(world.directory.path(), &repository, &Recipe::default());
    table.judge("pinned: the second root", &iso, PASS, &by);
    for (name, trust) in [
        ("of the first root", support::trust()),
        ("of the second root", trust.path().into()),
    ] {
        let gateway = world.directory.path().join(name);
        support::import_into(&gateway, &bundle, &trust, None);
        table.judge(&format!("a gateway {name}"), &gateway, PASS, &by);
    }
    table.agree();
}

#[test]
fn history_that_does_not_lead_to_the_pinned_root_fails() {
    let Some(mut table) = Table::new() else { return };
    let stranger = Site::open(&common::other_site()).unwrap();
    let foreign = |place: &Path, version| next_root(place, version, &stranger, false);
    let cases: [(&str, &str, Change<'_>); 6] = [
        ("an attacker's next root", "python-tuf: ", &|metadata| {
            foreign(&metadata.join("3.root.json"), 3);
        }),
        ("another site's first root", "leads to it", &|metadata| {
            foreign(&metadata.join("1.root.json"), 1);
        }),
        (
            "something under the name of the first root",
            "leads to it",
            &|metadata| {
                fs::write(metadata.join("1.root.json"), "hidden").unwrap();
            },
        ),
        (
            "the second root under the name of the first",
            "leads to it",
            &|metadata| {
                fs::copy(metadata.join("2.root.json"), metadata.join("1.root.json")).unwrap();
            },
        ),
        (
            "a broken signature of the first root",
            "1.root.json carries",
            &|metadata| {
                fs::write(metadata.join("1.root.json.asc"), "hidden").unwrap();
            },
        ),
        ("a second name of the first root", "a stranger", &|metadata| {
            fs::copy(metadata.join("1.root.json"), metadata.join("01.root.json")).unwrap();
        }),
    ];
    for (name, why, change) in cases {
        let (world, by, _trust) = rotated();
        change(&world.repository().join("metadata"));
        table.judge(name, &world.repository(), (3, why), &by);
    }
    table.agree();
}

/// By the client's workflow that there is no next root is no error, and the pinned root's keys decide. So it is no refusal;
/// and nobody can tell whether the artifact was put back, so it is no pass.
#[test]
fn what_ends_before_the_pinned_root_is_no_pass() {
    let Some(mut table) = Table::new() else { return };
    let (world, by, _trust) = rotated();
    let without = |name: &str| {
        for end in ["", ".asc"] {
            fs::remove_file(world.repository().join(format!("metadata/{name}{end}"))).unwrap();
        }
    };
    let third = world.directory.path().join("3.root.json");
    next_root(&third, 3, site(), false);
    let later = pin(&third);
    let later = Judge {
        trust: later.path().to_path_buf(),
        ..Judge::default()
    };
    let behind = (4, "older than the pinned 3");
    table.judge(
        "pinned: the third root, and two are here",
        &world.repository(),
        behind,
        &later,
    );
    without("2.root.json");
    let why = (4, "older than the pinned 2");
    table.judge(
        "pinned: the second root, and the first is here",
        &world.repository(),
        why,
        &by,
    );
    let why = (4, "versions between them are not here");
    table.judge(
        "pinned: the third root, and the first is here",
        &world.repository(),
        why,
        &later,
    );
    // Its keys were replaced: the pinned root vouches for nothing that is here.
    let replaced = world.directory.path().join("replaced.json");
    next_root(&replaced, 2, site(), true);
    let trust = pin(&replaced);
    let by = Judge {
        trust: trust.path().to_path_buf(),
        ..Judge::default()
    };
    table.judge(
        "pinned: a root with another timestamp key",
        &world.repository(),
        (3, "python-tuf: "),
        &by,
    );
    table.agree();
}

#[test]
fn a_host_from_before_the_pinned_root_is_no_pass_and_no_failure() {
    let (world, _, trust) = rotated();
    let judge = |host: &support::host::Host, trust: &Path| {
        let place = tempfile::tempdir().unwrap();
        host.record(place.path());
        let facts = Recorded::open(place.path()).unwrap();
        let trust = Trust::open(trust).unwrap();
        let question = Question {
            trust: &trust,
            site: None,
            now: now(),
            complete: false,
            upstream: None,
        };
        let sections = chain(&facts, question);
        Report::new(Subject::new("host", "test"), now(), sections)
    };
    let host = support::host::Host::of(&support::honest());
    let report = judge(&host, trust.path());
    assert_eq!(report.outcome, Outcome::CouldNotCheck, "{}", bad(&report));
    assert!(
        bad(&report).starts_with("tuf.behind: ") && bad(&report).lines().count() == 1,
        "{}",
        bad(&report)
    );
    // Another site's second root is none of its future.
    let stranger = Site::open(&common::other_site()).unwrap();
    let place = world.directory.path().join("foreign.json");
    next_root(&place, 2, &stranger, false);
    assert_eq!(judge(&host, pin(&place).path()).outcome, Outcome::Fail);
}
