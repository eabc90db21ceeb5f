// SPDX-License-Identifier: GPL-3.0-or-later
//! What an audit says: a tree of findings, written as JSON for machines and as one page for people.

pub mod byhand;
pub mod html;
pub mod text;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::verdict::{Counts, Outcome, Verdict};

/// The version of the JSON form. Fields may be added within it; none changes its meaning.
pub const FORMAT: u32 = 1;

/// Text without what would steer a terminal or turn the direction of reading: names come from foreign media.
#[must_use]
pub fn plain(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().map(|c| if steers(c) { '\u{fffd}' } else { c }).collect()
}

/// A labelled value shown beside a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is.
    pub label: String,
    /// The value, as text.
    pub value: String,
}

/// Why a check exists and what to do when it fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guidance {
    /// Why it matters.
    pub rationale: String,
    /// Where it is written: guides, specifications.
    pub references: Vec<String>,
    /// What to do.
    pub remedy: String,
}

/// One node of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A stable name for machines, unique among its siblings.
    pub id: String,
    /// One line for people.
    pub title: String,
    /// Its own verdict; a heading has none and stands for what is below it.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Details.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<Fact>,
    /// Rationale and remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance: Option<Guidance>,
    /// What hangs on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Self>,
}

impl Finding {
    /// A checked finding.
    #[must_use]
    pub fn new(id: impl Into<String>, title: impl Into<String>, verdict: Verdict) -> Self {
        Self {
            verdict: Some(verdict),
            ..Self::heading(id, title, Vec::new())
        }
    }

    /// A heading over others.
    #[must_use]
    pub fn heading(id: impl Into<String>, title: impl Into<String>, children: Vec<Self>) -> Self {
        Self {
            id: id.into(),
            title: title.into(),
            verdict: None,
            facts: Vec::new(),
            guidance: None,
            children,
        }
    }

    /// Passed.
    #[must_use]
    pub fn pass(id: impl Into<String>, title: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::new(id, title, Verdict::Pass(seen.into()))
    }

    /// Failed.
    #[must_use]
    pub fn fail(id: impl Into<String>, title: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::new(id, title, Verdict::Fail(seen.into()))
    }

    /// Not checked, and why.
    #[must_use]
    pub fn unknown(id: impl Into<String>, title: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(id, title, Verdict::CouldNotCheck(why.into()))
    }

    /// Not applicable, and why.
    #[must_use]
    pub fn not_applicable(id: impl Into<String>, title: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(id, title, Verdict::NotApplicable(why.into()))
    }

    /// Adds a detail.
    #[must_use]
    pub fn fact(mut self, label: impl Into<String>, value: impl ToString) -> Self {
        self.facts.push(Fact {
            label: label.into(),
            value: value.to_string(),
        });
        self
    }

    /// Says what to do when it fails.
    #[must_use]
    pub fn guide(mut self, rationale: &str, references: &[&str], remedy: &str) -> Self {
        self.guidance = Some(Guidance {
            rationale: rationale.to_owned(),
            references: references.iter().map(|&text| text.to_owned()).collect(),
            remedy: remedy.to_owned(),
        });
        self
    }

    /// Hangs findings below it.
    #[must_use]
    pub fn with(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.children.extend(children);
        self
    }

    /// The counts of this finding and all below it.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.visit(&mut |finding| {
            if let Some(verdict) = &finding.verdict {
                counts.add(verdict.outcome());
            }
        });
        counts
    }

    /// The gravest verdict here or below.
    #[must_use]
    pub fn worst(&self) -> Outcome {
        let mut worst = Outcome::NotApplicable;
        self.visit(&mut |finding| {
            if let Some(verdict) = &finding.verdict {
                worst = worst.max(verdict.outcome());
            }
        });
        worst
    }

    /// Calls `change` for this finding and all below it, in order.
    pub(crate) fn amend(&mut self, change: &mut dyn FnMut(&mut Self)) {
        change(self);
        for child in &mut self.children {
            child.amend(change);
        }
    }

    /// Calls `see` for this finding and all below it, in order.
    pub fn visit<'a>(&'a self, see: &mut dyn FnMut(&'a Self)) {
        see(self);
        for child in &self.children {
            child.visit(see);
        }
    }
}

/// One chapter of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// A stable name.
    pub id: String,
    /// Its title.
    pub title: String,
    /// What question it answers, in a sentence or two.
    pub about: String,
    /// How its findings ended.
    pub counts: Counts,
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Section {
    /// A chapter; the counts are made here.
    #[must_use]
    pub fn new(id: &str, title: &str, about: &str, findings: Vec<Finding>) -> Self {
        let mut counts = Counts::default();
        for finding in &findings {
            finding.visit(&mut |finding| {
                if let Some(verdict) = &finding.verdict {
                    counts.add(verdict.outcome());
                }
            });
        }
        Self {
            id: id.to_owned(),
            title: title.to_owned(),
            about: about.to_owned(),
            counts,
            findings,
        }
    }
}

/// What was audited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// `iso`, `repository`, `bundle` or `host`.
    pub kind: String,
    /// Its file, directory or host name.
    pub name: String,
    /// Details: size, digest, version.
    pub facts: Vec<Fact>,
}

impl Subject {
    /// A subject without details yet.
    #[must_use]
    pub fn new(kind: &str, name: impl Into<String>) -> Self {
        Self {
            kind: kind.to_owned(),
            name: name.into(),
            facts: Vec::new(),
        }
    }

    /// Adds a detail.
    pub fn fact(&mut self, label: &str, value: impl ToString) {
        self.facts.push(Fact {
            label: label.to_owned(),
            value: value.to_string(),
        });
    }
}

/// A step that repeats part of the audit with public tools only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByHand {
    /// What it proves.
    pub proves: String,
    /// In which directory.
    #[serde(default)]
    pub directory: String,
    /// What to type.
    pub commands: Vec<String>,
}

/// A whole audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Always [`FORMAT`].
    pub format: u32,
    /// The program and its version.
    pub program: String,
    /// When, by the clock of the machine that audited.
    pub audited_at: DateTime<Utc>,
    /// What.
    pub subject: Subject,
    /// The verdict over all.
    pub outcome: Outcome,
    /// How many checks ended how.
    pub counts: Counts,
    /// The chapters.
    pub sections: Vec<Section>,
    /// How to repeat it without this program.
    pub by_hand: Vec<ByHand>,
    /// What this audit does not show.
    pub limits: Vec<String>,
}

impl Report {
    /// A report; the totals are made here.
    #[must_use]
    pub fn new(subject: Subject, audited_at: DateTime<Utc>, sections: Vec<Section>) -> Self {
        let mut counts = Counts::default();
        for section in &sections {
            counts.pass += section.counts.pass;
            counts.fail += section.counts.fail;
            counts.could_not_check += section.counts.could_not_check;
            counts.not_applicable += section.counts.not_applicable;
        }
        Self {
            format: FORMAT,
            program: concat!("bastide-audit ", env!("CARGO_PKG_VERSION")).to_owned(),
            audited_at,
            subject,
            outcome: counts.outcome(),
            counts,
            sections,
            by_hand: Vec::new(),
            limits: Vec::new(),
        }
    }

    /// Every finding of the report that has the given verdict, with the section that it stands in.
    #[must_use]
    pub fn findings(&self, outcome: Outcome) -> Vec<(&Section, &Finding)> {
        let mut found = Vec::new();
        for section in &self.sections {
            for finding in &section.findings {
                finding.visit(&mut |finding| {
                    if finding
                        .verdict
                        .as_ref()
                        .is_some_and(|verdict| verdict.outcome() == outcome)
                    {
                        found.push((section, finding));
                    }
                });
            }
        }
        found
    }
}
