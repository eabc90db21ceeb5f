// SPDX-License-Identifier: GPL-3.0-or-later
//! Drift: everything in which `/etc` differs from the signed image is the content of its overlay's upper directory.

use crate::facts::{Facts, Found, Kind, Unknown, Walk};
use crate::profile::{Drift, matches};
use crate::report::Finding;

/// Where the overlay keeps what was changed.
pub const UPPER: &str = "/state/overlay/etc";

/// One finding for each file that differs from the image.
///
/// What installer and first boot always write passes; what decides over access and code fails; for the rest nobody signed,
/// and no rule says what it should be, so it could not be checked: a person has to read it.
#[must_use]
pub fn findings(facts: &dyn Facts, profile: &Drift) -> Vec<Finding> {
    let entries = match facts.walk(UPPER, Walk::All) {
        Ok(Some(entries)) => entries,
        Ok(None) => {
            return vec![Finding::unknown(
                "drift",
                "What differs from the signed image",
                format!("{UPPER} is not there"),
            )];
        }
        Err(Unknown(why)) => return vec![Finding::unknown("drift", "What differs from the signed image", why)],
    };
    let mut findings: Vec<Finding> = entries.iter().filter_map(|entry| judge(entry, profile)).collect();
    if findings.is_empty() {
        findings.push(Finding::pass(
            "drift",
            "What differs from the signed image",
            "nothing in /etc",
        ));
    }
    findings
}

fn judge(entry: &Found, profile: &Drift) -> Option<Finding> {
    // The directories above a changed file are in the upper layer only because it is, but one that is opaque hides all that
    // the image has below it.
    if entry.kind == Kind::Directory && !entry.opaque {
        return None;
    }
    let path = format!("/etc{}", entry.path.strip_prefix(UPPER)?);
    let what = match entry.kind {
        Kind::Whiteout => "removed".to_owned(),
        Kind::Link => format!("a link to {}", entry.target.as_deref().unwrap_or("?")),
        Kind::Directory => "replaced as a whole: it hides what the image has there".to_owned(),
        Kind::File => format!("a file of {} bytes", entry.size),
        Kind::Other => "a device, socket or pipe".to_owned(),
    };
    let is = |patterns: &[String]| {
        // A directory stands for whatever could be below it.
        let below = format!("{path}/x");
        patterns
            .iter()
            .any(|pattern| matches(pattern, &path) || entry.kind == Kind::Directory && matches(pattern, &below))
    };
    let finding = if is(&profile.expected) && matches!(entry.kind, Kind::File | Kind::Link) {
        Finding::pass(&path, &path, format!("{what}; every host has its own"))
    } else if is(&profile.critical) || entry.kind == Kind::Other {
        Finding::fail(
            &path,
            &path,
            format!("{what}; it decides over access or code and no signature covers it"),
        )
    } else {
        Finding::unknown(
            &path,
            &path,
            format!("{what}; no signature covers it and no rule knows it: read it"),
        )
    };
    let finding = finding.fact(
        "owner and mode",
        format!("{}:{} {:04o}", entry.uid, entry.gid, entry.mode),
    );
    Some(match entry.sha256 {
        Some(sha256) => finding.fact("sha256", sha256),
        None => finding,
    })
}
