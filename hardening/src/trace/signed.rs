// SPDX-License-Identifier: GPL-3.0-or-later
//! One signed file: a version of the root, or anything that lies beside the release key's signature over it.
//!
//! The attacks: a root that the pinned one does not lead to, with good signatures of its own; a signature of another file.
//! The defence: both ways to trust are asked for each by itself, and a root needs both. Other metadata says nothing alone:
//! only with the rest of its repository can it be followed.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;
use signing::digest::{self, Sha256};

use super::release::{Question, SIGNATURE};
use super::trust::LIMIT;
use super::tuf::{Roots, led, version_of};
use super::{bytes, date, left};
use crate::report::{Finding, Section, Subject};

/// Where the detached signature over a file lies.
pub(crate) fn signature_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".asc");
    name.into()
}

/// Audits one file.
///
/// # Errors
/// When it cannot be read.
pub fn signed(path: &Path, question: Question<'_>, subject: &mut Subject) -> Result<Vec<Section>> {
    let mut file = File::open(path)?;
    let (sha256, length) = digest::Sha256::of_file(path)?;
    subject.fact("size", bytes(length));
    subject.fact("sha256", sha256);
    let mut content = Vec::new();
    (&mut file).take(LIMIT).read_to_end(&mut content)?;
    file.rewind()?;
    let metadata = serde_json::from_slice::<Value>(&content).ok();
    let kind = metadata.as_ref().and_then(|json| json["signed"]["_type"].as_str());

    let mut findings = Vec::new();
    let mut need = 1;
    match kind {
        Some("root") => {
            let (finding, certificates) = follows(path, &content, &question);
            need = certificates;
            findings.push(finding);
            findings.push(fresh(metadata.as_ref(), &question));
        }
        Some(role) => findings.push(Finding::unknown(
            "file.chain",
            format!("The keys that the pinned root names for {role} signed it"),
            "metadata of one role says nothing by itself: verify the repository or the bundle that it is from",
        )),
        None => {}
    }
    let title = "It carries the release key's OpenPGP signature";
    let place = signature_of(path);
    findings.push(match digest::read_bounded(&place, SIGNATURE) {
        Ok(signature) => question
            .trust
            .openpgp(("file.openpgp", title), file, &signature, (need, question.now)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Finding::unknown("file.openpgp", title, format!("there is no {}", place.display()))
        }
        Err(error) => Finding::unknown(
            "file.openpgp",
            title,
            format!("cannot read {}: {error}", place.display()),
        ),
    });
    Ok(vec![
        question.trust.section(question.now),
        Section::new(
            "file",
            "Who vouches for this file",
            "The way from the pinned root to a version of the root, and the release key's signature over any file.",
            findings,
        ),
    ])
}

/// Whether the pinned root leads to this one, by the versions that lie beside it; and how many OpenPGP certificates must
/// have signed it then.
fn follows(path: &Path, root: &[u8], question: &Question<'_>) -> (Finding, u64) {
    let (id, title) = ("file.chain", "It is the pinned root, or follows from it");
    let pinned = &question.trust.root;
    if root == pinned {
        return (Finding::pass(id, title, "byte for byte the pinned root"), 1);
    }
    let (Some(from), Some(to)) = (version_of(pinned), version_of(root)) else {
        return (Finding::fail(id, title, "it names no version"), 1);
    };
    if to <= from {
        let why = format!("version {to} is no successor of the pinned version {from}, and not the same file");
        return (Finding::fail(id, title, why), 1);
    }
    // One that is missing or a stranger leads nowhere.
    let between = from.saturating_add(1)..to.min(from.saturating_add(1024));
    let beside: Roots = between
        .filter_map(|version| {
            let place = path.with_file_name(format!("{version}.root.json"));
            Some((version, digest::read_bounded(&place, LIMIT).ok()?))
        })
        .collect();
    if let Some(verified) = led(pinned, root, &beside) {
        let why = format!(
            "the pinned version {from} leads to version {to}: each signed by the keys of the one before and its own"
        );
        let finding = Finding::pass(id, title, why).fact("sha256", Sha256::of(root));
        return (finding, verified.certificates);
    }
    if beside.len() as u64 == to - from - 1 {
        let why = format!("version {to} is not signed as the pinned version {from} demands");
        return (Finding::fail(id, title, why), 1);
    }
    let why = format!("versions between the pinned {from} and {to} are needed beside it, each as N.root.json");
    (Finding::unknown(id, title, why), 1)
}

/// Whether a root is current.
fn fresh(metadata: Option<&Value>, question: &Question<'_>) -> Finding {
    let (id, title) = ("file.fresh", "It is current");
    let expires = metadata.and_then(|json| json["signed"]["expires"].as_str());
    match expires.map(chrono::DateTime::parse_from_rfc3339) {
        Some(Ok(expires)) if expires > question.now => {
            let expires = expires.to_utc();
            let in_time = format!("expires {}, in {}", date(expires), left(question.now, expires));
            Finding::pass(id, title, in_time)
        }
        Some(Ok(expires)) => Finding::unknown(id, title, format!("it expired {}", date(expires.to_utc()))),
        _ => Finding::fail(id, title, "it names no expiry"),
    }
}
