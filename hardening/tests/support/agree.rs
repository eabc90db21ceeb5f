// SPDX-License-Identifier: GPL-3.0-or-later
//! The audit and the script of `bastide-audit recipe` on one artifact, and a table of what each said.

use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Duration, Utc};
use hardening::recipe::{Kind, Trusted, script};
use hardening::report::{Report, Subject};
use hardening::trace::release::Question;
use hardening::trace::trust::Trust;
use hardening::trace::{bundle, iso, repository};
use hardening::verdict::Outcome;
use signing::clock::now;
use signing::process::Cmd;

use super::bad;
use super::common::{self, Said};

/// A python that has python-tuf: the system's, or one made with pip for the tests.
pub fn python() -> Option<PathBuf> {
    let knows = |python: &Path| {
        let cmd = Cmd::new(python).args(["-I", "-c", "import tuf.ngclient, cryptography"]);
        cmd.run().is_ok()
    };
    let system = PathBuf::from("python3");
    if knows(&system) {
        return Some(system);
    }
    let place = common::shared("python-tuf", &[], |place| {
        let made = Cmd::new("python3").args(["-m", "venv"]).arg(place).run();
        let pip = place.join("bin/pip");
        drop(made.and_then(|()| {
            Cmd::new(pip)
                .args(["install", "-q", "tuf==7.0.1", "cryptography"])
                .run()
        }));
    });
    let own = place.join("bin/python");
    let found = knows(&own).then_some(own);
    if found.is_none() {
        eprintln!("could not check: neither Debian's python3-tuf nor pip gives python-tuf here");
    }
    found
}

/// Nothing is wrong.
pub const PASS: (i32, &str) = (0, "");

/// Both verdicts on every case.
pub struct Table {
    python: PathBuf,
    lines: Vec<String>,
    differ: usize,
}

/// Who judges, and when.
pub struct Judge {
    pub trust: PathBuf,
    pub site: Option<PathBuf>,
    pub days: i64,
    pub debian: bool,
}

impl Default for Judge {
    fn default() -> Self {
        Self {
            trust: super::trust(),
            site: None,
            days: 0,
            debian: false,
        }
    }
}

impl Table {
    pub fn new() -> Option<Self> {
        Some(Self {
            python: python()?,
            lines: Vec::new(),
            differ: 0,
        })
    }

    /// Lets both judge an artifact. Each must come to the expected verdict, the script in a line with these words.
    pub fn judge(&mut self, case: &str, artifact: &Path, (expected, why): (i32, &str), by: &Judge) {
        let trust = Trust::open(&by.trust).unwrap();
        let site = by.site.as_deref().map(|site| Trust::open(site).unwrap());
        let policy = super::upstream().policy();
        let upstream = (!by.debian).then_some(&policy);
        let kind = Kind::of(artifact).unwrap();
        let at: DateTime<Utc> = now() + Duration::days(by.days);
        let question = Question {
            trust: &trust,
            site: site.as_ref(),
            now: at,
            complete: kind == Kind::Repository,
            upstream,
        };
        let mut subject = Subject::new(kind.name(), "test");
        let audited = match kind {
            Kind::Repository => repository::repository(artifact, question).unwrap(),
            Kind::Bundle => bundle::bundle(artifact, question),
            Kind::Iso => iso::iso(artifact, question, &mut subject).unwrap(),
            Kind::File => panic!("there is no recipe for one file"),
        };
        let report = Report::new(subject, at, audited.sections);
        let ours = match report.outcome {
            Outcome::Fail => 3,
            Outcome::CouldNotCheck => 4,
            Outcome::Pass | Outcome::NotApplicable => 0,
        };
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("check.sh");
        let trusted = Trusted {
            vendor: &trust,
            site: site.as_ref(),
        };
        fs::write(&file, script(kind, artifact, trusted, upstream).unwrap()).unwrap();
        let cmd = match by.days {
            0 => Cmd::new("sh"),
            days => Cmd::new("faketime").args([&format!("+{days} days"), "sh"]),
        };
        let said = Said::of(cmd.arg(&file).env("PYTHON", &self.python).env("TMPDIR", place.path()));
        assert_eq!(
            fs::read_dir(place.path()).unwrap().count(),
            1,
            "it left something behind"
        );
        let theirs = said.code.unwrap_or(-1);
        let words = |code| match code {
            0 => "pass",
            3 => "refused",
            4 => "could not check",
            _ => "broke down",
        };
        let line = format!(
            "{:<10}  {case:<50}  {:<15}  {}",
            kind.name(),
            words(ours),
            words(theirs)
        );
        println!("{line}");
        self.lines.push(line);
        let start = match expected {
            3 => "  REFUSED  ",
            4 => "  could not check  ",
            _ => "",
        };
        let told = said
            .out
            .lines()
            .any(|line| line.starts_with(start) && line.contains(why));
        if (ours, theirs) != (expected, expected) || !told {
            self.differ += 1;
            self.lines.push(format!("{}\n{}\n{}", bad(&report), said.out, said.err));
        }
    }

    pub fn agree(&self) {
        assert_eq!(self.differ, 0, "\n{}", self.lines.join("\n"));
    }
}
