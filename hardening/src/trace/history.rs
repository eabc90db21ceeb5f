// SPDX-License-Identifier: GPL-3.0-or-later
//! Roots that are older than the pinned one: history, which no client reads that starts from the pinned root.
//!
//! A client starts from the root that it trusts and asks for the next version alone (TUF 5.3.2). So an auditor whose root
//! is newer than what an artifact begins with judges by his own, and the older roots need only be the way to it.
//!
//! The attacks: something hidden under the name of an old root; an artifact from before the pinned root, shown as if
//! nothing had happened since. The defence: an old root must lead to the pinned one, each version signed by the keys of the
//! one before. An artifact that ends before the pinned root is followed by the pinned root's keys as by any client (5.3.3:
//! that there is no next version is no error), and never passes: nobody can tell whether it was put back.

use super::tuf::{Roots, leads, root_name, version_of};
use crate::report::Finding;
use crate::verdict::Verdict;

/// How two roots stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// One leads to the other, each version signed as the one before it demands.
    Leads,
    /// Versions between them are not here, so nobody can tell.
    Gap,
    /// Neither leads to the other.
    None,
}

/// How two roots stand to each other, through these.
pub(super) fn way(one: &[u8], other: &[u8], roots: &Roots) -> Way {
    if leads(one, other, roots) || leads(other, one, roots) {
        return Way::Leads;
    }
    let (Some(one), Some(other)) = (version_of(one), version_of(other)) else {
        return Way::None;
    };
    let mut between = one.min(other).saturating_add(1)..one.max(other);
    if between.all(|version| roots.contains_key(&version)) {
        Way::None
    } else {
        Way::Gap
    }
}

/// The version of a root that is older than the pinned one, from the name of the root or of its detached signature.
pub(super) fn older(name: &str, pinned: &[u8]) -> Option<u64> {
    let root = name.strip_suffix(".asc").unwrap_or(name);
    let version = root_name(root).filter(|version| format!("{version}.root.json") == root)?;
    (version < version_of(pinned)?).then_some(version)
}

/// Whether the newest of these roots is older than the pinned one.
pub(super) fn ends_before(roots: &Roots, pinned: &[u8]) -> bool {
    let newest = roots.keys().next_back().copied();
    newest
        .zip(version_of(pinned))
        .is_some_and(|(newest, pinned)| newest < pinned)
}

/// Judges one root that is older than the pinned one; `None` if it cannot be read.
pub(super) fn root(version: u64, pinned: &[u8], roots: &Roots) -> Option<Finding> {
    let bytes = roots.get(&version)?;
    let now = version_of(pinned).unwrap_or_default();
    let verdict = match way(bytes, pinned, roots) {
        _ if version_of(bytes) != Some(version) => Verdict::Fail("it is no root of that version".to_owned()),
        Way::Leads => Verdict::Pass(format!(
            "root {version} leads to the pinned root {now} by signatures, and no client that has that one reads it any more"
        )),
        Way::Gap => Verdict::CouldNotCheck(format!("versions between it and the pinned root {now} are not here")),
        Way::None => Verdict::Fail(format!(
            "it does not lead to the pinned root {now}: it is another site's, or altered"
        )),
    };
    let name = format!("{version}.root.json");
    Some(Finding::new(
        format!("file.metadata.{name}"),
        format!("metadata/{name}"),
        verdict,
    ))
}

/// Says so where whatever is audited, `what`, knows no root as new as the pinned one; `newest` is the newest that it has.
pub(super) fn behind(what: &str, newest: &[u8], pinned: &[u8], roots: &Roots) -> Option<Finding> {
    let (have, now) = (version_of(newest)?, version_of(pinned)?);
    if have >= now {
        return None;
    }
    let verdict = match way(newest, pinned, roots) {
        Way::None => Verdict::Fail(format!(
            "its newest root is {have}, which does not lead to the pinned root {now}"
        )),
        Way::Leads | Way::Gap => Verdict::CouldNotCheck(format!(
            "its newest root is {have}, and the pinned one is {now}: it is from before the pinned root, or was put back. What \
             stands under the pinned root is signed by the keys of that one"
        )),
    };
    Some(
        Finding::new(
            "tuf.behind",
            format!("{what} has a root as new as the pinned one"),
            verdict,
        )
        .guide(
            "Whoever starts from the older root cannot learn of the newer one here, nor which keys it replaced.",
            &["TUF 1.0.34, section 5.3.3"],
            "Get a newer one from its origin: it carries every version of the root.",
        ),
    )
}
