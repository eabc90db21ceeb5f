// SPDX-License-Identifier: GPL-3.0-or-later
//! The facts for a browser, also for one in a terminal: 80 columns, no script, nothing fetched. And the same for Prometheus.
//!
//! # Attacks faced
//! Text that others wrote (a channel, the reasons of a host's receipt) as markup, as control characters, or as further lines.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use chrono::{DateTime, Utc};
use signing::output::fold;
use signing::receipt::Holder;

use super::facts::Facts;
use super::meter::Totals;
use crate::archive::{ARCHIVE, CERTIFICATE, COMPONENT, Found};
use crate::words::{self, freshness, human};

/// The status page.
#[must_use]
pub fn html(facts: &Facts) -> String {
    let title = "Bastide repository";
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<h1>{title}</h1>\n{}</html>\n",
        sections(facts)
            .iter()
            .map(|(title, lines)| format!("<h2>{title}</h2>\n<pre>\n{}</pre>\n", escape(lines)))
            .collect::<String>()
    )
}

fn sections(facts: &Facts) -> Vec<(&'static str, String)> {
    let now = facts.at;
    let mut state = format!("{}, bastide-repo {}\n", time(now), facts.program);
    state += match facts.metadata_verified {
        true => "metadata verified from pinned roots, contents not read\n",
        false => "nothing verified from a pinned root\n",
    };
    if let Some(newest) = &facts.newest {
        state += &format!("newest {}: {}\n", newest.what, time(newest.at));
    }
    if let Some(disk) = &facts.disk {
        state += &format!("disk: {} free of {}\n", human(disk.free), human(disk.size));
    }
    let mut sections = vec![("State", state)];
    if !facts.problems.is_empty() {
        sections.push((
            "Problems",
            lines(&facts.problems, |problem| fold("", 2, &clean(problem))),
        ));
    }
    sections.push((
        "Releases",
        lines(&facts.releases, |release| {
            let whole = if release.whole {
                "whole"
            } else {
                "described only: its files are not here"
            };
            let approved = release.approved.map(|at| format!(", approved {}", time(at)));
            let text = format!(
                "{} {}, {}, {whole}{}",
                release.version,
                clean(&release.channel),
                human(release.bytes),
                approved.unwrap_or_default()
            );
            format!("{}\n  root {}", fold("", 2, &text), release.root_hash)
        }),
    ));
    sections.push((
        "Metadata",
        lines(&facts.metadata, |role| {
            let until = freshness(role.expires, now);
            fold(
                "",
                2,
                &format!("{} {} {}, {until}", role.of, clean(&role.role), role.version),
            )
        }),
    ));
    if let Some(apt) = &facts.apt {
        sections.push(("Packages for apt", packages(apt, now)));
    }
    sections.push((
        "Hosts and gateways",
        lines(&facts.holders, |holder| {
            let said = holder
                .newest
                .as_ref()
                .map_or("no receipt yet".to_owned(), words::receipt);
            fold("", 2, &format!("{}: {}", holder.name, clean(&said)))
        }),
    ));
    sections
}

fn packages(apt: &Found, now: DateTime<Utc>) -> String {
    let suites = lines(&apt.suites, |suite| {
        let until = freshness(suite.expires, now);
        fold(
            "",
            2,
            &format!("suite {}: {}, {until}", suite.suite, clean(&suite.description)),
        )
    });
    format!(
        "key /{ARCHIVE}/{CERTIFICATE}, to be compared with what the site's officers say:\n  {}\n{suites}\
         deb [signed-by=/etc/apt/keyrings/{CERTIFICATE}] https://GATEWAY:PORT/{ARCHIVE} SUITE {COMPONENT}\n",
        apt.fingerprint
    )
}

fn lines<T>(all: &[T], line: impl Fn(&T) -> String) -> String {
    match all {
        [] => "none\n".to_owned(),
        all => all.iter().map(|one| line(one) + "\n").collect(),
    }
}

fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M UTC").to_string()
}

/// Without what a terminal would obey and what turns the direction of reading, and with words that fit a line.
fn clean(text: &str) -> String {
    let mut cleaned = String::new();
    let mut column = 0;
    for c in text.chars() {
        let turns =
            matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let shown = if c.is_control() || turns { '?' } else { c };
        column = if c == ' ' { 0 } else { column + 1 };
        if column == 60 {
            cleaned.push(' ');
            column = 0;
        }
        cleaned.push(shown);
    }
    cleaned
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            c => escaped.push(c),
        }
    }
    escaped
}

/// The facts and the counters in the text format of Prometheus, version 0.0.4.
#[must_use]
pub fn metrics(facts: &Facts, totals: &Totals) -> String {
    let mut page = Metrics::default();
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed).to_string();
    page.family("info", "gauge", "The program.");
    page.sample("info", &[("version", facts.program)], "1");
    page.family(
        "requests_total",
        "counter",
        "Answers, by the first digit of their status.",
    );
    for (class, counter) in ["2xx", "3xx", "4xx", "5xx"].iter().zip(&totals.answers) {
        page.sample("requests_total", &[("status", class)], &count(counter));
    }
    for (name, kind, help, counter) in [
        (
            "sent_bytes_total",
            "counter",
            "Bytes of files that were sent.",
            &totals.bytes,
        ),
        (
            "connections_total",
            "counter",
            "Connections that were taken.",
            &totals.connections,
        ),
        ("connections", "gauge", "Connections that are open.", &totals.open),
        (
            "slow_total",
            "counter",
            "Connections dropped because they did not take what they asked for.",
            &totals.slow,
        ),
        (
            "idle_total",
            "counter",
            "Connections closed because nothing was asked for.",
            &totals.idle,
        ),
        (
            "handshakes_failed_total",
            "counter",
            "Connections whose TLS handshake failed.",
            &totals.strangers,
        ),
    ] {
        page.family(name, kind, help);
        page.sample(name, &[], &count(counter));
    }
    page.family(
        "problems",
        "gauge",
        "What cannot be read or does not verify; the status page names it.",
    );
    page.sample("problems", &[], &facts.problems.len().to_string());
    page.family(
        "releases",
        "gauge",
        "Releases, by whether all their files are here and the site approved them.",
    );
    for (whole, approved) in [(true, true), (true, false), (false, true), (false, false)] {
        let of =
            |release: &&super::facts::ReleaseFacts| release.whole == whole && release.approved.is_some() == approved;
        let number = facts.releases.iter().filter(of).count();
        let labels = [
            ("whole", if whole { "yes" } else { "no" }),
            ("approved", if approved { "yes" } else { "no" }),
        ];
        page.sample("releases", &labels, &number.to_string());
    }
    page.family(
        "metadata_expires_seconds",
        "gauge",
        "When a role's metadata expire, in Unix time.",
    );
    for role in &facts.metadata {
        let labels = [("of", role.of), ("role", &role.role)];
        page.sample(
            "metadata_expires_seconds",
            &labels,
            &role.expires.timestamp().to_string(),
        );
    }
    if let Some(apt) = &facts.apt {
        page.family(
            "apt_expires_seconds",
            "gauge",
            "When apt refuses a suite, in Unix time.",
        );
        for suite in &apt.suites {
            let labels = [("suite", suite.suite.as_str())];
            page.sample("apt_expires_seconds", &labels, &suite.expires.timestamp().to_string());
        }
    }
    if let Some(newest) = &facts.newest {
        page.family(
            "newest_seconds",
            "gauge",
            "When the newest import or publication was, in Unix time.",
        );
        page.sample(
            "newest_seconds",
            &[("what", newest.what)],
            &newest.at.timestamp().to_string(),
        );
    }
    if let Some(disk) = &facts.disk {
        page.family("disk_free_bytes", "gauge", "What the repository may still fill.");
        page.sample("disk_free_bytes", &[], &disk.free.to_string());
        page.family("disk_size_bytes", "gauge", "The size of its file system.");
        page.sample("disk_size_bytes", &[], &disk.size.to_string());
    }
    let receipts = || {
        facts
            .holders
            .iter()
            .filter_map(|one| Some((one.name.to_string(), one.newest.as_ref()?)))
    };
    page.family(
        "receipt_seconds",
        "gauge",
        "When the newest receipt of a holder was given, in Unix time.",
    );
    for (name, receipt) in receipts() {
        page.sample(
            "receipt_seconds",
            &[("name", &name)],
            &receipt.at.timestamp().to_string(),
        );
    }
    page.family(
        "host_healthy",
        "gauge",
        "Whether a host was healthy by its newest receipt.",
    );
    for (name, receipt) in receipts() {
        if let Holder::Host(host) = &receipt.holder {
            let labels = [("name", name.as_str()), ("version", &host.version.to_string())];
            page.sample("host_healthy", &labels, if host.healthy { "1" } else { "0" });
        }
    }
    page.text
}

#[derive(Default)]
struct Metrics {
    text: String,
}

impl Metrics {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = write!(
            self.text,
            "# HELP bastide_repo_{name} {help}\n# TYPE bastide_repo_{name} {kind}\n"
        );
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: &str) {
        let label = |(name, text): &(&str, &str)| {
            let text = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            format!("{name}=\"{text}\"")
        };
        let labels: Vec<String> = labels.iter().map(label).collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(self.text, "bastide_repo_{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_stays_text() {
        let lines = [format!("<b>&\u{1b}[2J\nState\u{202e} {}\u{9b}", "x".repeat(200))];
        let shown = escape(&super::lines(&lines, |line| fold("", 2, &clean(line))));
        assert!(shown.starts_with("&lt;b&gt;&amp;?[2J?State? "), "{shown}");
        assert!(shown.lines().all(|line| line.len() <= 80 + 9), "{shown}");
        assert!(shown.chars().all(|c| c == '\n' || !c.is_control()));
        let mut metrics = Metrics::default();
        metrics.sample("x", &[("of", "a\"b\\c\nd")], "1");
        assert_eq!(metrics.text, "bastide_repo_x{of=\"a\\\"b\\\\c\\nd\"} 1\n");
    }
}
