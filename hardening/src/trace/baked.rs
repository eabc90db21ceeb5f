// SPDX-License-Identifier: GPL-3.0-or-later
//! The trust directory that is baked into an image: a host believes it, so it must be the auditor's.
//!
//! An image can be signed with a site's keys and still have been built with another site's trust directory: its hosts
//! would take that site's updates, and its firmware keys.

use std::collections::BTreeSet;
use std::io;

use signing::digest::Sha256;
use signing::openpgp;
use signing::site::TRUST_DIRECTORY;

use super::history::{Way, way};
use super::of_medium;
use super::trust::{LIMIT, Trust};
use super::tuf::Roots;
use crate::medium::Image;
use crate::medium::erofs::{Erofs, Kind};
use crate::report::Finding;
use crate::verdict::Verdict;

const ROOT: &str = "root.json";
const CERTIFICATE: &str = "release.asc";

/// Reads a file of a trust directory by its name.
pub(super) type Reader<'a> = &'a dyn Fn(&str) -> Result<Option<Vec<u8>>, Verdict>;

/// Judges the trust directory in the image of a root file system.
pub(super) fn image(id: &str, copy: io::Result<Image>, trust: &Trust, roots: &Roots) -> Vec<Finding> {
    let opened = copy.map_err(|error| Verdict::CouldNotCheck(format!("cannot keep a copy to look into: {error}")));
    let opened = opened.as_ref().map_err(Clone::clone);
    let erofs = opened.and_then(|image| Erofs::open(image).map_err(|error| of_medium(&error)));
    let names = erofs.as_ref().map_err(Clone::clone).and_then(|erofs| {
        let listed = erofs.list(TRUST_DIRECTORY).map_err(|error| of_medium(&error))?;
        let names = listed.unwrap_or_default().into_iter();
        Ok(names
            .filter(|(name, kind)| *kind != Kind::Directory || !matches!(name.as_str(), "." | ".."))
            .map(|(name, _)| name)
            .collect())
    });
    let read = |name: &str| {
        let erofs = erofs.as_ref().map_err(Clone::clone)?;
        let read = erofs.read(&format!("{TRUST_DIRECTORY}/{name}"), LIMIT);
        read.map_err(|error| of_medium(&error))
    };
    let related = |root: &[u8]| way(root, &trust.root, roots);
    findings(id, names, &read, &related, trust)
}

/// Judges a trust directory of an image, by its names and what they hold. `related` says whether another root than the
/// auditor's follows from his, or his from it.
pub(super) fn findings(
    id: &str,
    names: Result<Vec<String>, Verdict>,
    read: Reader<'_>,
    related: &dyn Fn(&[u8]) -> Way,
    trust: &Trust,
) -> Vec<Finding> {
    let root = root(read, related, trust).unwrap_or_else(|verdict| verdict);
    let others = names
        .and_then(|names| others(names, read, trust))
        .unwrap_or_else(|verdict| verdict);
    let guided = |finding: Finding| {
        finding.guide(
            "A host takes its updates, and its firmware its keys, from whom the trust directory in its image names.",
            &["TUF 1.0.34, section 5.2", "ANSSI BP-028 R59"],
            "Do not use it. Keep it as it is, as evidence, and ask whoever sent it; an image of your own is built anew with \
             `bastide-iso build --trust` and the site's own trust directory.",
        )
    };
    vec![
        guided(Finding::new(id, "The image trusts the same root as the auditor", root)),
        guided(Finding::new(
            format!("{id}.others"),
            "The image's certificates are those of the auditor",
            others,
        )),
    ]
}

fn root(read: Reader<'_>, related: &dyn Fn(&[u8]) -> Way, trust: &Trust) -> Result<Verdict, Verdict> {
    let at = format!("{TRUST_DIRECTORY}/{ROOT}");
    Ok(match read(ROOT)? {
        None => Verdict::Fail(format!("{at} is not there")),
        Some(bytes) if bytes == trust.root => Verdict::Pass(format!("{at} is byte for byte the auditor's {ROOT}")),
        Some(bytes) => match related(&bytes) {
            Way::Leads => Verdict::Pass(format!(
                "{at} is another version of the auditor's {ROOT}: one leads to the other by signatures"
            )),
            Way::Gap => Verdict::CouldNotCheck(format!(
                "{at} is another version than the auditor's {ROOT}, and versions between them are not here"
            )),
            Way::None => Verdict::Fail(format!(
                "{at} has sha256 {}: another root than the auditor's, and neither leads to the other",
                Sha256::of(&bytes)
            )),
        },
    })
}

/// Everything but the root: OpenPGP and Secure Boot.
fn others(names: Vec<String>, read: Reader<'_>, trust: &Trust) -> Result<Verdict, Verdict> {
    let unreadable = |name: &str, error: &io::Error| {
        Verdict::CouldNotCheck(format!("cannot read {name} of the auditor's trust directory: {error}"))
    };
    let ours = trust.names().map_err(|error| unreadable("the list", &error))?;
    let another_root = read(ROOT)?.is_some_and(|bytes| bytes != trust.root);
    let all: BTreeSet<String> = names.into_iter().chain(ours).collect();
    let (mut same, mut strange, mut unknown) = (0, Vec::new(), Vec::new());
    for name in all.iter().filter(|name| *name != ROOT) {
        // The signature of another version of the root is another one.
        if another_root && *name == "root.json.asc" {
            continue;
        }
        let ours = match trust.read(name) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(unreadable(name, &error)),
        };
        match (read(name)?, ours) {
            (Some(baked), Some(ours)) if baked == ours => same += 1,
            (Some(baked), Some(ours)) if *name == CERTIFICATE && same_certificates(&baked, &ours) => same += 1,
            (Some(_), Some(_)) => strange.push(format!("{name} is another than the auditor's")),
            (None, Some(_)) => strange.push(format!("{name} is not there")),
            (Some(_), None) => unknown.push(name.as_str()),
            (None, None) => {}
        }
    }
    Ok(if !strange.is_empty() {
        Verdict::Fail(format!("{TRUST_DIRECTORY}: {}", strange.join("; ")))
    } else if !unknown.is_empty() {
        Verdict::CouldNotCheck(format!(
            "the auditor's trust directory has none to compare with {}",
            unknown.join(", ")
        ))
    } else {
        Verdict::Pass(format!("{same} files of {TRUST_DIRECTORY} are those of the auditor"))
    })
}

/// A certificate can be given out again, with a later end, and is the same.
fn same_certificates(one: &[u8], other: &[u8]) -> bool {
    let fingerprints = |bytes: &[u8]| -> Option<Vec<String>> {
        let mut file = tempfile::NamedTempFile::new().ok()?;
        io::Write::write_all(&mut file, bytes).ok()?;
        let certs = openpgp::read_keyring(file.path()).ok()?;
        Some(certs.iter().map(|cert| cert.fingerprint().to_hex()).collect())
    };
    fingerprints(one).is_some_and(|one| fingerprints(other) == Some(one))
}
