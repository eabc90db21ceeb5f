// SPDX-License-Identifier: GPL-3.0-or-later
//! What an image and a gateway trust, by recipe: another site's trust directory, a memory that was changed.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use hardening::report::{Report, Subject};
use hardening::trace::repository;
use hardening::verdict::Outcome;
use signing::clock::now;
use support::medium::Recipe;
use support::world::{World, assert_fails, assert_pass};
use support::{Tamper, bad, common};

#[test]
fn an_image_that_trusts_another_site_fails() {
    let id = "boot.1.0.0.trust";
    let report = World::new(Tamper::ForeignTrust).audit_repository();
    assert_fails(&report, id, "another root than the auditor's");
    assert_fails(&report, &format!("{id}.others"), "db.der is another");
    let report = World::new(Tamper::ForeignCertificate).audit_repository();
    assert_fails(&report, &format!("{id}.others"), "release.asc is another");
    assert!(!bad(&report).contains("boot.1.0.0.trust:"), "{}", bad(&report));
    assert_fails(
        &World::new(Tamper::ForeignTrust).audit_iso(&Recipe::default()),
        id,
        "another root than the auditor's",
    );
}

#[test]
fn an_image_that_cannot_be_looked_into_is_not_passed() {
    let report = World::new(Tamper::UnknownForm).audit_repository();
    assert_eq!(report.outcome, Outcome::CouldNotCheck, "{}", bad(&report));
    assert!(
        bad(&report).contains("boot.1.0.0.trust: Some(CouldNotCheck"),
        "{}",
        bad(&report)
    );
}

/// A publisher, and a gateway that imports what it exports.
struct Gateway {
    world: World,
}

impl Gateway {
    fn new() -> Self {
        Self {
            world: World::new(Tamper::None),
        }
    }

    fn place(&self) -> PathBuf {
        self.world.directory.path().join("gateway")
    }

    fn memory(&self, name: &str) -> PathBuf {
        let files = fs::read_dir(self.place().join("datastore")).unwrap();
        let mut paths = files.map(|entry| entry.unwrap().path());
        paths
            .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(name))
            .unwrap()
    }

    fn publish(&self, version: &str) {
        let place = self.world.directory.path();
        support::publish_release(place, version, support::upstream(), Tamper::None, support::site());
    }

    /// The newest release, carried over.
    fn import(&self) {
        drop(fs::remove_file(self.world.directory.path().join("x.bundle")));
        let bundle = self.world.bundle();
        support::import_into(&self.place(), &bundle, &support::trust(), None);
    }

    fn audit(&self) -> Report {
        let audited = self
            .world
            .ask(true, |question| repository::repository(&self.place(), question));
        Report::new(Subject::new("repository", "test"), now(), audited.unwrap().sections)
    }
}

fn ids(report: &Report, outcome: Outcome) -> Vec<String> {
    let found = report.findings(outcome).into_iter();
    found.map(|(_, finding)| finding.id.clone()).collect()
}

#[test]
fn a_gateway_passes_after_each_import() {
    let gateway = Gateway::new();
    gateway.import();
    let report = gateway.audit();
    assert_pass(&report);
    let passed = ids(&report, Outcome::Pass);
    for role in ["root", "timestamp", "snapshot", "targets", "host"] {
        assert!(passed.contains(&format!("memory.{role}")), "{passed:?}");
    }
    gateway.publish("1.1.0");
    gateway.import();
    assert_pass(&gateway.audit());
}

#[test]
fn a_gateway_needs_no_release_that_was_never_carried_to_it() {
    let gateway = Gateway::new();
    gateway.publish("1.1.0");
    gateway.import();
    let report = gateway.audit();
    assert_pass(&report);
    assert!(ids(&report, Outcome::NotApplicable).contains(&"target.host/1.0.0/xen.efi".to_owned()));
}

#[test]
fn a_gateway_that_was_put_back_fails() {
    let gateway = Gateway::new();
    gateway.import();
    let (old, older) = (gateway.place(), gateway.world.directory.path().join("older"));
    support::copy(&old, &older);
    gateway.publish("1.1.0");
    gateway.import();
    let newer = gateway.world.directory.path().join("newer");
    support::copy(&old, &newer);
    // What is served was put back, the memory not.
    let mix = |memory: &Path, served: &Path| {
        fs::remove_dir_all(&old).unwrap();
        support::copy(served, &old);
        fs::remove_dir_all(old.join("datastore")).unwrap();
        support::copy(&memory.join("datastore"), &old.join("datastore"));
        gateway.audit()
    };
    assert_fails(&mix(&newer, &older), "memory.timestamp", "an older state was put back");
    // The other way round.
    assert_fails(&mix(&older, &newer), "memory.timestamp", "no import brought that");
    assert_fails(&mix(&older, &newer), "memory.host", "no import brought that");
}

#[test]
fn a_memory_of_another_site_or_none_that_reads_fails() {
    let gateway = Gateway::new();
    gateway.import();
    let root = gateway.memory("root.json");
    let own = fs::read(&root).unwrap();
    fs::write(&root, fs::read(common::other_site().join("trust/root.json")).unwrap()).unwrap();
    assert_fails(&gateway.audit(), "memory.root", "another root than the auditor's");
    fs::write(&root, "{").unwrap();
    assert_fails(&gateway.audit(), "memory.root", "another root than the auditor's");
    fs::remove_file(&root).unwrap();
    assert_fails(&gateway.audit(), "memory.root", "no root.json");
    fs::write(&root, own).unwrap();
    assert_pass(&gateway.audit());
    // A file among it that nobody wrote.
    let stray = root.with_file_name("notes");
    fs::write(&stray, "x").unwrap();
    assert_fails(&gateway.audit(), "memory.stranger.notes", "no place");
    fs::remove_file(stray).unwrap();
    // A signature that is none.
    let role = gateway.memory("role.host");
    let text = fs::read_to_string(&role).unwrap();
    fs::write(&role, text.replace("\"sig\"", "\"gis\"")).unwrap();
    assert_fails(&gateway.audit(), "memory.stopped", "");
    assert!(ids(&gateway.audit(), Outcome::CouldNotCheck).contains(&"memory.host".to_owned()));
    // The same content otherwise written: signed all the same, and not what was imported.
    fs::write(&role, format!("{text}\n")).unwrap();
    let report = gateway.audit();
    assert_eq!(report.outcome, Outcome::Fail, "{}", bad(&report));
}

#[test]
fn what_is_no_repository_is_refused_in_a_line() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a"), "x").unwrap();
    let said = support::audit([
        "verify",
        directory.path().to_str().unwrap(),
        "--trust",
        support::trust().to_str().unwrap(),
    ]);
    assert_eq!(said.err.lines().count(), 1, "{}", said.err);
    assert!(said.out.is_empty());
    said.fails(3, &["it is no repository", "metadata"]);
}

#[test]
fn a_pipe_in_a_gateways_memory_is_not_waited_for() {
    let gateway = Gateway::new();
    gateway.import();
    for name in ["root.json", "targets.json", "role.host.json"] {
        let place = gateway.memory(name);
        let kept = fs::read(&place).unwrap();
        common::pipe(&place);
        assert_ne!(gateway.audit().outcome, Outcome::Pass, "{name}");
        fs::remove_file(&place).unwrap();
        fs::write(&place, kept).unwrap();
    }
    assert_pass(&gateway.audit());
}
