// SPDX-License-Identifier: GPL-3.0-or-later
//! The report on a terminal: the verdict, what needs attention, and the counts of each chapter.

use std::io::{self, Write};

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
    for section in &report.sections {
        let counts = section.counts;
        writeln!(
            to,
            "  {:<15} {} ({} pass, {} fail, {} could not check, {} not applicable)",
            counts.outcome().word(),
            section.title,
            counts.pass,
            counts.fail,
            counts.could_not_check,
            counts.not_applicable
        )?;
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
    writeln!(
        to,
        "{outcome}: {} [{}]: {detail}",
        plain(&finding.title),
        plain(&finding.id)
    )?;
    if outcome == Outcome::Fail
        && let Some(guidance) = &finding.guidance
    {
        writeln!(to, "    remedy: {}", guidance.remedy)?;
    }
    Ok(())
}
