// SPDX-License-Identifier: GPL-3.0-or-later
//! The tree of findings: unfolded where something is wrong, a table where many are alike.

use super::{Page, chip, escape, prose, put, tally};
use crate::report::Finding;
use crate::verdict::Outcome;

/// From this many findings of one shape on, a table reads better than a list.
const TABLE: usize = 9;
/// A heading over so few is unfolded, whatever is below them.
const FEW: usize = 4;
/// The largest tree of passes that is shown unfolded.
const UNFOLDED: usize = 40;

impl Page {
    pub(super) fn list(&mut self, findings: &[Finding], depth: usize) {
        if findings.len() >= TABLE && same_shape(findings) {
            self.table(findings);
            return;
        }
        // Anchors count in the order of the report; what is grave is shown first below a heading that is opened for it.
        let mut numbered = Vec::new();
        for finding in findings {
            numbered.push((self.number, finding));
            self.number += size(finding);
        }
        let after = self.number;
        if depth > 0 {
            numbered.sort_by_key(|(_, finding)| std::cmp::Reverse(finding.worst().max(Outcome::Pass)));
        }
        put!(self, "<ul{}>", if depth == 0 { " class=\"tree\"" } else { "" });
        for (number, finding) in numbered {
            self.number = number;
            self.node(finding, depth);
        }
        self.number = after;
        put!(self, "</ul>");
    }

    fn node(&mut self, finding: &Finding, depth: usize) {
        let anchor = self.number;
        self.number += 1;
        let own = finding.verdict.as_ref();
        // A heading shows the gravest verdict below it.
        let outcome = own.map_or_else(|| finding.worst(), |verdict| verdict.outcome());
        let mut say = format!("<span class=\"title\">{}</span>", escape(&finding.title));
        if finding.guidance.is_some() && finding.id.bytes().next().is_some_and(|byte| byte.is_ascii_uppercase()) {
            say += &format!("<span class=\"ident\">{}</span>", escape(&finding.id));
        }
        match own {
            Some(verdict) => say += &format!("<span class=\"detail\">{}</span>", escape(verdict.detail())),
            None => say += &format!("<span class=\"detail\">{}</span>", tally(finding.counts())),
        }
        let body = !finding.facts.is_empty() || finding.guidance.is_some() || !finding.children.is_empty();
        put!(self, "<li id=\"f{anchor}\">");
        if !body {
            put!(
                self,
                "<div class=\"row leaf\"><i class=\"mark\"></i>{}<span class=\"say\">{say}</span></div></li>",
                chip(outcome)
            );
            return;
        }
        // What is wrong is unfolded, and so is a small tree; a wall of passes is not.
        let most = if own.is_some() { UNFOLDED } else { TABLE };
        let open = finding.worst() >= Outcome::CouldNotCheck
            || (2..=most).contains(&size(finding))
            || own.is_none() && finding.children.len() <= FEW;
        let open = if open { " open" } else { "" };
        put!(
            self,
            "<details class=\"node\"{open}><summary><span class=\"row\"><span class=\"mark\" aria-hidden=\"true\"></span>{}<span class=\"say\">{say}</span></span></summary>",
            chip(outcome)
        );
        if !finding.facts.is_empty() || finding.guidance.is_some() {
            put!(self, "<div class=\"body\">");
            self.body(finding);
            put!(self, "</div>");
        }
        if !finding.children.is_empty() {
            self.list(&finding.children, depth + 1);
        }
        put!(self, "</details></li>");
    }

    fn body(&mut self, finding: &Finding) {
        if !finding.facts.is_empty() {
            put!(self, "<dl class=\"facts\">");
            for fact in &finding.facts {
                self.fact(&fact.label, &fact.value);
            }
            put!(self, "</dl>");
        }
        if let Some(guidance) = &finding.guidance {
            put!(self, "<div class=\"guide\"><p>{}</p>", prose(&guidance.rationale));
            put!(
                self,
                "<p class=\"remedy\"><b>What to do:</b> {}</p>",
                prose(&guidance.remedy)
            );
            put!(
                self,
                "<p class=\"refs\">{}</p></div>",
                escape(&guidance.references.join(" · "))
            );
        }
    }

    pub(super) fn fact(&mut self, label: &str, value: &str) {
        put!(
            self,
            "<dt>{}</dt><dd{}>{}</dd>",
            escape(label),
            if machine(value) { " class=\"mono\"" } else { "" },
            escape(value)
        );
    }

    fn table(&mut self, findings: &[Finding]) {
        let Some(first) = findings.first() else { return };
        let text = |finding: &Finding| finding.verdict.as_ref().map(|verdict| verdict.detail().to_owned());
        // What is the same in every line is said once.
        let same = findings.iter().all(|finding| text(finding) == text(first));
        let passes = findings.iter().all(|finding| finding.worst() == Outcome::Pass);
        put!(
            self,
            "<div class=\"list\"><table>\n<thead><tr><th scope=\"col\" class=\"v{}\">Verdict</th><th scope=\"col\" class=\"what\">{}</th>",
            if passes { "" } else { " wide" },
            escape(&text(first).filter(|_| same).unwrap_or_else(|| "what".to_owned()))
        );
        for fact in &first.facts {
            let class = if machine(&fact.value) { " class=\"hash\"" } else { "" };
            put!(self, "<th scope=\"col\"{class}>{}</th>", escape(&fact.label));
        }
        put!(self, "</tr></thead>\n<tbody>");
        for finding in findings {
            let anchor = self.number;
            self.number += 1;
            put!(self, "<tr id=\"f{anchor}\"><td>{}</td>", chip(finding.worst()));
            let detail = text(finding).filter(|_| !same);
            let detail = detail.map(|detail| format!("<span class=\"detail\">{}</span>", escape(&detail)));
            put!(
                self,
                "<td><span class=\"title\">{}</span>{}</td>",
                escape(&finding.title),
                detail.unwrap_or_default()
            );
            for fact in &finding.facts {
                let class = if machine(&fact.value) { " class=\"mono\"" } else { "" };
                put!(self, "<td{class}>{}</td>", escape(&fact.value));
            }
            put!(self, "</tr>");
        }
        put!(self, "</tbody></table></div>");
    }
}

/// How many findings a finding and all below it are.
fn size(finding: &Finding) -> usize {
    let mut size = 0;
    finding.visit(&mut |_| size += 1);
    size
}

/// Leaves with the same labels, and nothing to unfold.
fn same_shape(findings: &[Finding]) -> bool {
    let labels = |finding: &Finding| finding.facts.iter().map(|fact| fact.label.clone()).collect::<Vec<_>>();
    let Some(first) = findings.first().map(labels) else {
        return false;
    };
    findings
        .iter()
        .all(|finding| finding.children.is_empty() && finding.guidance.is_none() && labels(finding) == first)
}

/// A digest, fingerprint or path: for the eyes of a machine.
fn machine(value: &str) -> bool {
    let first = value.split(' ').next().unwrap_or_default();
    first.len() >= 32 && first.bytes().all(|byte| byte.is_ascii_hexdigit()) || first.len() > 12 && first.contains('/')
}
