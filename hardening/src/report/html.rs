// SPDX-License-Identifier: GPL-3.0-or-later
//! The report as one page: no script, nothing fetched, nothing that a foreign name in it could make the browser do.
//!
//! The attacks: names and texts of a foreign medium that become markup, fetch something, or turn the reading direction
//! around. The defence: every text passes through [`escape`], a content security policy forbids all but this page's own style
//! (by its digest), and characters that steer the terminal or the direction of text are replaced.

use signing::digest::Sha256;

use super::{Report, Section, plain};

mod tree;
use crate::verdict::{Counts, Outcome, Verdict};

const STYLE: &str = include_str!("style.css");
const ORDER: [Outcome; 4] = [
    Outcome::Pass,
    Outcome::Fail,
    Outcome::CouldNotCheck,
    Outcome::NotApplicable,
];

/// Text that is safe inside an element and inside a quoted attribute.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in plain(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// Text of our own, in which what stands between backquotes is a command or a name.
fn prose(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    // An odd number of backquotes quotes nothing.
    if parts.len().is_multiple_of(2) {
        return escape(text);
    }
    let marked = parts.iter().enumerate().map(|(number, part)| match number % 2 {
        0 => escape(part),
        _ => format!("<code>{}</code>", escape(part)),
    });
    marked.collect()
}

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut page = Page {
        out: String::with_capacity(256 << 10),
        number: 0,
    };
    page.write(report);
    page.out
}

struct Page {
    out: String,
    /// The number of the next finding, which is its anchor: they are counted in the order of the report.
    number: usize,
}

macro_rules! put {
    ($page:expr, $($text:tt)*) => {{
        $page.out.push_str(&format!($($text)*));
        $page.out.push('\n');
    }};
}
use put;

impl Page {
    fn write(&mut self, report: &Report) {
        let subject = &report.subject;
        let outcome = report.outcome;
        let title = escape(&format!("Audit of {} {}", subject.kind, subject.name));
        put!(
            self,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">"
        );
        put!(
            self,
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'\">",
            base64(&Sha256::of(STYLE.as_bytes()).0)
        );
        put!(
            self,
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
        );
        put!(
            self,
            "<meta name=\"referrer\" content=\"no-referrer\">\n<meta name=\"generator\" content=\"{}\">",
            escape(&report.program)
        );
        put!(
            self,
            "<title>{}: {}</title>\n<style>{STYLE}</style>\n</head>\n<body>",
            word(outcome),
            title
        );
        put!(
            self,
            "<a class=\"skip\" href=\"#attention\">Skip to what needs attention</a>\n<header class=\"top\">"
        );
        put!(
            self,
            "<p class=\"kicker\">Bastide audit of {} {}</p>",
            article(&subject.kind),
            escape(&subject.kind)
        );
        put!(self, "<h1>{}</h1>", escape(&subject.name));
        put!(
            self,
            "<p class=\"meta\">{} by {}</p>\n</header>\n<main>",
            report.audited_at.format("%-d %B %Y, %H:%M UTC"),
            escape(&report.program)
        );
        put!(
            self,
            "<section class=\"sheet verdict {outcome}\" aria-label=\"Verdict\">\n<div>"
        );
        put!(
            self,
            "<p class=\"word\">{}</p>\n<p>{}</p>",
            headline(outcome),
            sentence(report.counts)
        );
        put!(self, "</div>\n<div>");
        self.bar(report.counts);
        self.counts(report.counts);
        put!(self, "</div>\n</section>");
        self.overview(report);
        self.attention(report);
        for section in &report.sections {
            self.section(section);
        }
        self.end(report);
    }

    fn bar(&mut self, counts: Counts) {
        let total = counts.total().max(1);
        let label: Vec<String> = ORDER
            .iter()
            .map(|&outcome| format!("{} {}", count(counts, outcome), word(outcome)))
            .collect();
        put!(
            self,
            "<svg class=\"bar\" viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">",
            label.join(", ")
        );
        let mut x = 0;
        for outcome in ORDER {
            let part = count(counts, outcome);
            if part > 0 {
                // One failure among thousands must still be seen.
                let width = (part * 1000 / total).max(8);
                put!(
                    self,
                    "<rect class=\"{outcome}\" x=\"{x}\" y=\"0\" width=\"{width}\" height=\"10\"/>"
                );
                x += width;
            }
        }
        put!(self, "</svg>");
    }

    fn counts(&mut self, counts: Counts) {
        put!(self, "<ul class=\"counts\">");
        for outcome in ORDER {
            let number = count(counts, outcome);
            let zero = if number == 0 { " zero" } else { "" };
            put!(
                self,
                "<li class=\"{outcome}{zero}\"><b>{number}</b>{}</li>",
                word(outcome)
            );
        }
        put!(self, "</ul>");
    }

    fn overview(&mut self, report: &Report) {
        put!(self, "<section class=\"sheet overview\" aria-label=\"Overview\">");
        if !report.subject.facts.is_empty() {
            put!(self, "<dl class=\"facts\">");
            for fact in &report.subject.facts {
                self.fact(&fact.label, &fact.value);
            }
            put!(self, "</dl>");
        }
        put!(
            self,
            "<table class=\"chapters\">\n<thead><tr><th scope=\"col\" class=\"name\">Chapter</th><th scope=\"col\" class=\"v\">Verdict</th><th scope=\"col\" class=\"wide\">Checks</th><th scope=\"col\" class=\"wide b\"><span class=\"skip\">Share</span></th></tr></thead>\n<tbody>"
        );
        for section in &report.sections {
            let outcome = section.counts.outcome();
            put!(
                self,
                "<tr><td class=\"name\"><a href=\"#{}\">{}</a></td><td>{}</td>",
                escape(&section.id),
                escape(&section.title),
                chip(outcome)
            );
            put!(
                self,
                "<td class=\"num wide\">{}</td><td class=\"wide\">",
                tally(section.counts)
            );
            self.bar(section.counts);
            put!(self, "</td></tr>");
        }
        put!(self, "</tbody></table>\n</section>");
    }

    fn attention(&mut self, report: &Report) {
        put!(
            self,
            "<section class=\"sheet\" id=\"attention\">\n<h2>What needs attention</h2>"
        );
        let mut found = Vec::new();
        let mut anchor = 0;
        for section in &report.sections {
            for finding in &section.findings {
                finding.visit(&mut |finding| {
                    if let Some(verdict) = &finding.verdict
                        && verdict.outcome() >= Outcome::CouldNotCheck
                    {
                        found.push((anchor, section, finding, verdict));
                    }
                    anchor += 1;
                });
            }
        }
        // Failures first, each kind in the order of the report.
        found.sort_by_key(|(anchor, _, _, verdict)| (std::cmp::Reverse(verdict.outcome()), *anchor));
        if found.is_empty() {
            put!(
                self,
                "<p class=\"about\">Nothing: no check failed, and none was left out.</p>\n</section>"
            );
            return;
        }
        put!(self, "<ul class=\"attention\">");
        for (anchor, section, finding, verdict) in found {
            put!(self, "<li>{}<div>", chip(verdict.outcome()));
            put!(
                self,
                "<h3><a href=\"#f{anchor}\">{}</a><span class=\"ident\">{}</span></h3>\n<p>{}</p>",
                escape(&finding.title),
                escape(&section.title),
                escape(verdict.detail())
            );
            if let (Verdict::Fail(_), Some(guidance)) = (verdict, &finding.guidance) {
                put!(
                    self,
                    "<p class=\"remedy\"><b>What to do:</b> {}</p>",
                    prose(&guidance.remedy)
                );
            }
            put!(self, "</div></li>");
        }
        put!(self, "</ul>\n</section>");
    }

    fn section(&mut self, section: &Section) {
        put!(self, "<section class=\"sheet chapter\" id=\"{}\">", escape(&section.id));
        put!(
            self,
            "<div class=\"head\"><h2>{}</h2>{}</div>",
            escape(&section.title),
            chip(section.counts.outcome())
        );
        put!(self, "<p class=\"about\">{}</p>", escape(&section.about));
        self.list(&section.findings, 0);
        put!(self, "</section>");
    }

    fn end(&mut self, report: &Report) {
        put!(
            self,
            "<section class=\"sheet\" id=\"by-hand\">\n<h2>The same, without this program</h2>"
        );
        put!(
            self,
            "<p class=\"about\">The formats are public, and so are the tools. Whoever does not trust this program comes to the same verdict with these.</p>\n<ol class=\"hand\">"
        );
        for step in &report.by_hand {
            put!(
                self,
                "<li><h3>{}</h3>\n<p>In {}:</p>\n<pre>{}</pre></li>",
                escape(&step.proves),
                escape(&step.directory),
                step.commands
                    .iter()
                    .map(|line| escape(line))
                    .collect::<Vec<_>>()
                    .join("\n")
            );
        }
        put!(
            self,
            "</ol>\n</section>\n<section class=\"sheet\" id=\"limits\">\n<h2>What this audit does not show</h2>\n<ul class=\"limits\">"
        );
        for limit in &report.limits {
            put!(self, "<li>{}</li>", escape(limit));
        }
        put!(self, "</ul>\n</section>\n</main>");
        put!(
            self,
            "<footer><p>Pass: it was checked and holds. Fail: it was checked and does not hold. Could not check: a tool, a file or a right was missing, and that is not a pass. Not applicable: the question does not arise, for the reason given.</p></footer>\n</body>\n</html>"
        );
    }
}

fn count(counts: Counts, outcome: Outcome) -> usize {
    match outcome {
        Outcome::Pass => counts.pass,
        Outcome::Fail => counts.fail,
        Outcome::CouldNotCheck => counts.could_not_check,
        Outcome::NotApplicable => counts.not_applicable,
    }
}

/// Only what is not zero, in words.
fn tally(counts: Counts) -> String {
    let parts: Vec<String> = ORDER
        .iter()
        .filter(|&&outcome| count(counts, outcome) > 0)
        .map(|&outcome| format!("{} {}", count(counts, outcome), word(outcome)))
        .collect();
    parts.join(" · ")
}

const fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "fail",
        Outcome::CouldNotCheck => "could not check",
        Outcome::NotApplicable => "not applicable",
    }
}

fn chip(outcome: Outcome) -> String {
    format!("<span class=\"chip {outcome}\">{}</span>", word(outcome))
}

const fn headline(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass | Outcome::NotApplicable => "Pass",
        Outcome::Fail => "Fail",
        Outcome::CouldNotCheck => "Could not check everything",
    }
}

fn sentence(counts: Counts) -> String {
    let plural = |number: usize, one: &str, many: &str| {
        if number == 1 {
            format!("1 {one}")
        } else {
            format!("{number} {many}")
        }
    };
    match counts.outcome() {
        Outcome::Fail if counts.could_not_check > 0 => format!(
            "{} not hold, and {} could not be made.",
            plural(counts.fail, "check does", "checks do"),
            plural(counts.could_not_check, "check", "checks")
        ),
        Outcome::Fail => format!("{} not hold.", plural(counts.fail, "check does", "checks do")),
        Outcome::CouldNotCheck if counts.pass == 0 => "Nothing could be checked.".to_owned(),
        Outcome::CouldNotCheck => {
            format!(
                "Nothing failed, but {} could not be made.",
                plural(counts.could_not_check, "check", "checks")
            )
        }
        Outcome::Pass | Outcome::NotApplicable => {
            format!("All {} that apply hold.", plural(counts.pass, "check", "checks"))
        }
    }
}

fn article(kind: &str) -> &'static str {
    if kind.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    }
}

/// Base64 (RFC 4648, section 4), for the one digest in the policy.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let value = word >> (18 - 6 * digit) & 63;
            text.push(if digit <= chunk.len() {
                char::from(DIGITS[value as usize])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::{Finding, Subject};
    use super::*;

    #[test]
    fn base64_as_in_the_rfc() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn a_foreign_name_stays_a_name() {
        let evil = "<script>alert(1)</script>\" onload='x' \u{202e}gpj.exe \u{1b}[2J";
        let finding = Finding::fail(evil, evil, evil)
            .fact(evil, evil)
            .guide(evil, &[evil], evil);
        let many = (0..20).map(|_| Finding::pass(evil, evil, evil)).collect();
        let sections = vec![
            Section::new("one", evil, evil, vec![finding]),
            Section::new("two", evil, evil, vec![Finding::heading(evil, evil, many)]),
        ];
        let report = Report::new(Subject::new("iso", evil), chrono::DateTime::UNIX_EPOCH, sections);
        let page = page(&report);
        assert!(!page.contains("<script") && !page.contains("\u{202e}") && !page.contains('\u{1b}'));
        assert!(!page.contains("onload='") && page.contains("&lt;script&gt;"));
    }

    #[test]
    fn nothing_is_fetched_and_nothing_runs() {
        let report = Report::new(Subject::new("iso", "x"), chrono::DateTime::UNIX_EPOCH, Vec::new());
        let page = page(&report);
        for word in [
            "http://",
            "https://",
            "<script",
            "<img",
            "<link",
            "url(",
            "@import",
            "style=\"",
            "javascript:",
        ] {
            assert!(!page.contains(word), "{word}");
        }
        assert!(page.contains("default-src 'none'"));
    }
}
