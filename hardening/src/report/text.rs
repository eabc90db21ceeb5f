// SPDX-License-Identifier: GPL-3.0-or-later
//! The report on a terminal: the verdict, what needs attention, and the counts of each chapter.

use std::io::{self, Write};

use signing::anchor::COMPARE;
use signing::output::fold;

use super::{Finding, Report, plain};
use crate::verdict::Outcome;

/// Writes the report's summary.
///
/// # Errors
/// When `to` does.
pub fn write(report: &Report, to: &mut dyn Write) -> io::Result<()> {
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
        let counts = section.counts;
        let first = format!("  {:<15} ", counts.outcome().word());
        let text = format!(
            "{} ({} pass, {} fail, {} could not check, {} not applicable)",
            section.title, counts.pass, counts.fail, counts.could_not_check, counts.not_applicable
        );
        writeln!(to, "{}", fold(&first, first.len(), &text))?;
    }
    for outcome in [Outcome::Fail, Outcome::CouldNotCheck] {
        for (_, finding) in report.findings(outcome) {
            line(finding, outcome, to)?;
        }
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
    use super::*;

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
}
