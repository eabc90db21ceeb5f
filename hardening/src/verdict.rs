// SPDX-License-Identifier: GPL-3.0-or-later
//! The four verdicts. "Failed" and "could not check" differ, and neither passes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What one check found. Each verdict says in its text what was seen, or why nothing was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "detail", rename_all = "kebab-case")]
pub enum Verdict {
    /// It was checked and holds.
    Pass(String),
    /// It was checked and does not hold.
    Fail(String),
    /// It could not be checked: a tool, a file or a right is missing.
    CouldNotCheck(String),
    /// The question does not arise here, for the reason given.
    NotApplicable(String),
}

/// A verdict without its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// See [`Verdict::NotApplicable`].
    NotApplicable,
    /// See [`Verdict::Pass`].
    Pass,
    /// See [`Verdict::CouldNotCheck`].
    CouldNotCheck,
    /// See [`Verdict::Fail`].
    Fail,
}

impl Verdict {
    /// The verdict alone.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Pass(_) => Outcome::Pass,
            Self::Fail(_) => Outcome::Fail,
            Self::CouldNotCheck(_) => Outcome::CouldNotCheck,
            Self::NotApplicable(_) => Outcome::NotApplicable,
        }
    }

    /// What was seen, or the reason.
    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Self::Pass(text) | Self::Fail(text) | Self::CouldNotCheck(text) | Self::NotApplicable(text) => text,
        }
    }
}

impl Outcome {
    /// The word for it on screen and in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::CouldNotCheck => "could-not-check",
            Self::NotApplicable => "not-applicable",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// How many checks ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// Checked and holds.
    pub pass: usize,
    /// Checked and does not hold.
    pub fail: usize,
    /// Could not be checked.
    pub could_not_check: usize,
    /// Does not arise.
    pub not_applicable: usize,
}

impl Counts {
    /// Counts one more.
    pub const fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Pass => self.pass += 1,
            Outcome::Fail => self.fail += 1,
            Outcome::CouldNotCheck => self.could_not_check += 1,
            Outcome::NotApplicable => self.not_applicable += 1,
        }
    }

    /// The verdict over all. An audit that passed nothing checked nothing, and that is not a pass.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        if self.fail > 0 {
            Outcome::Fail
        } else if self.could_not_check > 0 || self.pass == 0 {
            Outcome::CouldNotCheck
        } else {
            Outcome::Pass
        }
    }

    /// All of them.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.pass + self.fail + self.could_not_check + self.not_applicable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_checked_is_not_a_pass() {
        let mut counts = Counts::default();
        assert_eq!(counts.outcome(), Outcome::CouldNotCheck);
        counts.add(Outcome::NotApplicable);
        assert_eq!(counts.outcome(), Outcome::CouldNotCheck);
        counts.add(Outcome::Pass);
        assert_eq!(counts.outcome(), Outcome::Pass);
    }

    #[test]
    fn one_failure_outweighs_everything() {
        let mut counts = Counts {
            pass: 99,
            could_not_check: 5,
            ..Counts::default()
        };
        assert_eq!(counts.outcome(), Outcome::CouldNotCheck);
        counts.add(Outcome::Fail);
        assert_eq!(counts.outcome(), Outcome::Fail);
    }
}
