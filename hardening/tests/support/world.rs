// SPDX-License-Identifier: GPL-3.0-or-later
//! A repository in a place of its own, and its audit in every shape.

use std::fs;
use std::path::{Path, PathBuf};

use hardening::report::{Report, Subject};
use hardening::trace::release::Question;
use hardening::trace::trust::Trust;
use hardening::trace::{iso, repository};
use hardening::verdict::{Outcome, Verdict};
use offline_repo::export::{Order, Roots, Selection, export};
use offline_repo::repository::Repository;
use offline_repo::upstream::Policy;
use signing::clock::now;

use super::medium::{self, Recipe};
use super::{Tamper, bad, copy, honest, trust};

/// A repository of one release.
pub struct World {
    pub directory: tempfile::TempDir,
}

impl World {
    pub fn new(tamper: Tamper) -> Self {
        let directory = tempfile::tempdir().unwrap();
        if tamper == Tamper::None {
            copy(&honest(), &directory.path().join("repository"));
        } else {
            super::repository(directory.path(), tamper);
        }
        Self { directory }
    }

    pub fn repository(&self) -> PathBuf {
        self.directory.path().join("repository")
    }

    /// The repository's newest release as a bundle, made anew.
    pub fn bundle(&self) -> PathBuf {
        let place = self.directory.path().join("x.bundle");
        let roots = Roots::vendor(fs::read(trust().join("root.json")).unwrap());
        let repository = Repository::open(&self.repository()).unwrap();
        export(
            &repository,
            &roots,
            &Order::whole(Selection::Newest, 1, &place),
            &mut |_, _, _| (),
        )
        .unwrap();
        place
    }

    pub fn ask<T>(&self, complete: bool, audit: impl FnOnce(Question<'_>) -> T) -> T {
        let trust = Trust::open(&trust()).unwrap();
        let policy: Policy = super::upstream().policy();
        audit(Question {
            trust: &trust,
            site: None,
            now: now(),
            complete,
            upstream: Some(&policy),
        })
    }

    pub fn audit_repository(&self) -> Report {
        let audited = self.ask(true, |question| {
            repository::repository(&self.repository(), question).unwrap()
        });
        Report::new(Subject::new("repository", "test"), now(), audited.sections)
    }

    pub fn audit_iso(&self, recipe: &Recipe<'_>) -> Report {
        self.audit_iso_file(&medium::iso(self.directory.path(), &self.repository(), recipe))
    }

    pub fn audit_iso_file(&self, path: &Path) -> Report {
        let mut subject = Subject::new("iso", "test");
        let audited = self.ask(false, |question| iso::iso(path, question, &mut subject).unwrap());
        Report::new(subject, now(), audited.sections)
    }
}

pub fn assert_pass(report: &Report) {
    assert_eq!(report.outcome, Outcome::Pass, "{}", bad(report));
}

/// Asserts that the finding of this identifier failed, with this in its text.
pub fn assert_fails(report: &Report, id: &str, text: &str) {
    assert_eq!(report.outcome, Outcome::Fail, "{}", bad(report));
    let hit = report.findings(Outcome::Fail).into_iter().any(|(_, finding)| {
        finding.id == id && matches!(&finding.verdict, Some(Verdict::Fail(why)) if why.contains(text))
    });
    assert!(hit, "no failed {id} with {text:?}:\n{}", bad(report));
}
