// SPDX-License-Identifier: GPL-3.0-or-later
//! The report on a terminal: the verdict, each chapter as its counts or as a tree, and what needs attention.

use std::io::{self, Write};

use signing::anchor::COMPARE;
use signing::output::fold;

use super::{Finding, Report, plain};
use crate::verdict::Outcome;

/// So many findings that pass and have nothing below them stand in a row; of more, the first ones are shown.
const MANY: usize = 12;

/// How much is said of what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The counts of each chapter.
    Counts,
    /// Every step, from the pinned root down.
    Tree,
}

/// Writes the report.
///
/// # Errors
/// When `to` does.
pub fn write(report: &Report, shape: Shape, to: &mut dyn Write) -> io::Result<()> {
    writeln!(
        to,
        "{}: {} {}",
        report.outcome, report.subject.kind, report.subject.name
    )?;
    // The one value that no program can judge.
    for fact in report.subject.facts.iter().filter(|fact| fact.label == COMPARE) {
        writeln!(to, "  {COMPARE}: {}", fact.value)?;
    }
    for section in &report.sections {
        if shape == Shape::Tree {
            writeln!(to, "\n{}", section.title)?;
            branches(&section.findings, "", to)?;
            continue;
        }
        let counts = section.counts;
        let first = format!("  {:<15} ", counts.outcome().word());
        let text = format!(
            "{} ({} pass, {} fail, {} could not check, {} not applicable)",
            section.title, counts.pass, counts.fail, counts.could_not_check, counts.not_applicable
        );
        writeln!(to, "{}", fold(&first, first.len(), &text))?;
    }
    if shape == Shape::Tree {
        writeln!(to)?;
    }
    for outcome in [Outcome::Fail, Outcome::CouldNotCheck] {
        for (_, finding) in report.findings(outcome) {
            line(finding, outcome, to)?;
        }
    }
    Ok(())
}

/// Findings below one another. `bars` stands before all of them.
fn branches(findings: &[Finding], bars: &str, to: &mut dyn Write) -> io::Result<()> {
    let plain_pass = |finding: &Finding| finding.children.is_empty() && finding.worst() == Outcome::Pass;
    let alike = findings.len() > MANY && findings.iter().all(plain_pass);
    let shown = if alike { &findings[..MANY / 2] } else { findings };
    for (index, finding) in shown.iter().enumerate() {
        let last = index + 1 == findings.len();
        let (branch, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let text = match &finding.verdict {
            Some(verdict) => format!("{}: {}: {}", verdict.outcome(), finding.title, verdict.detail()),
            None => finding.title.clone(),
        };
        let below = format!("{bars}{below}");
        let further = if finding.children.is_empty() { "   " } else { "│  " };
        let indent = below.chars().count() + 3;
        let folded = fold(&format!("{bars}{branch}"), indent, &plain(&text));
        for (number, line) in folded.lines().enumerate() {
            match number {
                0 => writeln!(to, "{line}")?,
                _ => writeln!(to, "{below}{further}{}", line.trim_start())?,
            }
        }
        branches(&finding.children, &below, to)?;
    }
    if alike {
        writeln!(
            to,
            "{bars}└─ and {} more that pass: --json and --html name them",
            findings.len() - shown.len()
        )?;
    }
    Ok(())
}

fn line(finding: &Finding, outcome: Outcome, to: &mut dyn Write) -> io::Result<()> {
    let detail = plain(finding.verdict.as_ref().map_or("", |verdict| verdict.detail()));
    let text = format!("{} [{}]: {detail}", plain(&finding.title), plain(&finding.id));
    writeln!(to, "{}", fold(&format!("{outcome}: "), 4, &text))?;
    if outcome == Outcome::Fail
        && let Some(guidance) = &finding.guidance
    {
        writeln!(to, "{}", fold("    remedy: ", 12, &guidance.remedy))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::report::{Section, Subject};
    use crate::verdict::Verdict;

    #[test]
    fn lines_break_between_words_and_long_words_stay_whole() {
        let word = "w".repeat(30);
        let text = format!("{word} {word} {word} {}", "x".repeat(90));
        let folded = fold("  why   ", 8, &text);
        let lines: Vec<&str> = folded.lines().collect();
        assert_eq!(lines[0], format!("  why   {word} {word}"));
        assert_eq!(lines[1], format!("        {word}"));
        assert_eq!(lines[2].trim(), "x".repeat(90));
        assert_eq!(fold("a: ", 4, ""), "a: ");
    }

    #[test]
    fn a_tree_shows_every_step_and_shortens_only_what_passes() {
        let row = |outcome: fn(String) -> Verdict| {
            let leaves = (0..20).map(|n| Finding::pass(format!("p{n}"), format!("package {n}"), "listed"));
            let odd = Finding::new("odd", "the odd one", outcome("seen".into()));
            let list = Finding::pass("list", "the list \u{1b}[2J", "signed").with(leaves.chain([odd]));
            let sections = vec![Section::new("s", "Packages", "", vec![list])];
            let report = Report::new(Subject::new("iso", "x"), chrono::DateTime::UNIX_EPOCH, sections);
            let mut out = Vec::new();
            write(&report, Shape::Tree, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let good = row(Verdict::Pass);
        assert!(good.contains("\n└─ pass: the list \u{fffd}[2J: signed\n"), "{good}");
        assert!(
            good.contains("\n   ├─ pass: package 5: listed\n   └─ and 15 more that pass"),
            "{good}"
        );
        // One that does not pass, and all are shown.
        let bad = row(Verdict::Fail);
        assert!(
            bad.contains("package 19") && bad.contains("\n   └─ fail: the odd one: seen\n"),
            "{bad}"
        );
    }
}
