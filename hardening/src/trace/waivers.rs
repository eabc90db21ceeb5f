// SPDX-License-Identifier: GPL-3.0-or-later
//! The waivers by which a client took stale metadata, judged again from the auditor's roots.
//!
//! The attacks: a record that was forged to explain stale metadata, and one that was taken away. The defence: each waiver is
//! kept whole and must carry a threshold of the root keys. Not defended: a use whose record was removed leaves stale
//! metadata, which is found by its dates alone.

use signing::digest::Sha256;
use signing::tuf::time::Used;

use super::of_tuf;
use super::tuf::version_of;
use crate::report::Finding;
use crate::verdict::Verdict;

/// A finding for each use in the record; `roots` are those that the auditor's root leads to.
pub(super) fn findings(record: Result<Option<Vec<u8>>, String>, roots: &[Vec<u8>]) -> Vec<Finding> {
    let (id, title) = ("waivers", "Stale metadata that was taken by a waiver");
    let uses = match record {
        Ok(None) => return vec![Finding::pass(id, title, "none is recorded")],
        Ok(Some(bytes)) => Used::read_all(&bytes),
        Err(why) => return vec![Finding::unknown(id, title, why)],
    };
    match uses {
        Ok(uses) => uses
            .iter()
            .enumerate()
            .map(|(at, used)| one(at + 1, used, roots))
            .collect(),
        Err(error) => vec![Finding::new(id, title, of_tuf(&error))],
    }
}

fn one(number: usize, used: &Used, roots: &[Vec<u8>]) -> Finding {
    let (id, title) = (
        format!("waivers.{number}"),
        format!("Stale metadata was taken by a waiver on {}", used.at.format("%Y-%m-%d")),
    );
    let waiver = match used.waiver() {
        Ok(waiver) => waiver,
        Err(error) => return Finding::new(id, title, of_tuf(&error)),
    };
    let root = roots.iter().find(|root| Sha256::of(root) == waiver.root.sha256);
    let named = |role: &String| used.lifted.get(role) == waiver.roles.get(role);
    let verdict = match root.map(|root| waiver.verify(root)) {
        _ if !used.lifted.keys().all(named) => Verdict::Fail("it was used for what it does not name".to_owned()),
        None => Verdict::CouldNotCheck(format!(
            "it was made for root {}, which is not here",
            waiver.root.version
        )),
        Some(Err(error)) => Verdict::Fail(error.reason()),
        Some(Ok(_)) if used.at >= waiver.until => Verdict::Fail("it was used after it had ended".to_owned()),
        Some(Ok(keys)) => Verdict::Pass(format!(
            "{} of root {} signed it: {}",
            signing::output::count(keys.len(), "key"),
            root.and_then(|root| version_of(root)).unwrap_or_default(),
            waiver.reason
        )),
    };
    let mut finding = Finding::new(id, title, verdict)
        .guide(
            "A waiver lets a host take metadata that hides newer releases and revoked keys, until its date.",
            &["TUF 1.0.34, section 5.4.4"],
            "Ask the custodians whether they signed it, and bring the host newer metadata.",
        )
        .fact("until", waiver.until.format("%Y-%m-%d %H:%M UTC"));
    for (role, due) in &used.lifted {
        finding = finding.fact("lifted", format!("{role} {}", due.version));
    }
    finding
}
