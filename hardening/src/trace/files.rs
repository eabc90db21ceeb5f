// SPDX-License-Identifier: GPL-3.0-or-later
//! Every file of a repository must be accounted for, and every root and the timestamp be signed with OpenPGP as well.

use std::collections::BTreeMap;

use signing::digest::Sha256;
use signing::tuf::beside;
use signing::tuf::trail::{Origin, TrailFile};
use signing::tuf::{Limits, Source, SourceError, TufError};

use super::release::{Question, SIGNATURE};
use super::tuf::{Followed, Roots};
use super::{Inventory, bytes, history, of_tuf};
use crate::report::{Finding, Section};

/// The most OpenPGP signatures that are looked at.
const SIGNATURES: usize = 1024;

/// A file that is signed with OpenPGP, and its detached signature.
pub(super) type Signed = Result<(Option<Vec<u8>>, Option<Vec<u8>>), SourceError>;

/// Reads the signatures beside the metadata by their names, before a client takes the source.
pub(super) fn signatures<S: Source>(source: &mut S, inventory: &Inventory) -> BTreeMap<String, Signed> {
    let limits = Limits::default();
    let held = inventory.metadata.iter().map(|held| held.name.as_str());
    let signed = held.filter_map(|name| {
        let file = name.strip_suffix(".asc")?;
        let timestamp = file.ends_with(".timestamp.json");
        let file = if timestamp { "timestamp.json" } else { file };
        (timestamp || file.ends_with(".root.json")).then_some((name, file))
    });
    let mut signatures = BTreeMap::new();
    for (name, file) in signed.take(SIGNATURES) {
        let content = source.metadata(file, limits.root_bytes);
        let signature = source.metadata(name, SIGNATURE);
        signatures.insert(name.to_owned(), content.and_then(|content| Ok((content, signature?))));
    }
    signatures
}

/// Every root version and the timestamp carry a detached OpenPGP signature as well; roots older than the pinned one, where
/// they have one.
pub(super) fn openpgp<S>(
    followed: &Followed<S>,
    signatures: &BTreeMap<String, Signed>,
    roots: &Roots,
    question: Question<'_>,
) -> Section {
    let pinned = &question.trust.root;
    let mut findings = Vec::new();
    for (name, signed) in signatures {
        let file = name.trim_end_matches(".asc");
        let (Some(version), Ok((Some(content), Some(signature)))) = (history::older(file, pinned), signed) else {
            continue;
        };
        let id = format!("openpgp.root.{version}");
        let title = format!("{file}, older than the pinned root, carries the release key's OpenPGP signature");
        findings.push(
            question
                .trust
                .openpgp((&id, &title), &content[..], signature, (1, question.now)),
        );
    }
    // An artifact from before the pinned root cannot hold it; that is said elsewhere.
    let behind = history::ends_before(roots, pinned);
    for verified in &followed.trail.files {
        let Some(name) = beside::signature_of(verified) else {
            continue;
        };
        if behind && verified.role == "root" && verified.origin == Origin::Datastore {
            continue;
        }
        let file = &verified.file;
        let id = format!("openpgp.{}.{}", verified.role, verified.version);
        let title = format!("{file} carries the release key's OpenPGP signature");
        findings.push(match signatures.get(&name) {
            Some(Ok((Some(content), Some(signature)))) if Sha256::of(content) == verified.sha256 => {
                question
                    .trust
                    .openpgp((&id, &title), &content[..], signature, (verified.certificates, question.now))
            }
            Some(Ok((Some(_), Some(_)))) => {
                Finding::fail(id, title, format!("{file} here is not the one that was verified"))
            }
            Some(Err(error)) => Finding::unknown(id, title, error.to_string()),
            Some(Ok(_)) | None => Finding::fail(id, title, format!("{name} is not there")).guide(
                "Two kinds of signature of two kinds of key are asked for on every root and on what a repository holds.",
                &["ANSSI BP-028 R59"],
                "Ask whoever sent it for the signature; a repository of your own is signed with `bastide-sign openpgp`, and the \
                 signature published beside the file.",
            ),
        });
    }
    if findings.is_empty() {
        findings.push(Finding::unknown(
            "openpgp.root",
            "OpenPGP signatures of roots and timestamp",
            "no root was verified",
        ));
    }
    Section::new(
        "openpgp",
        "OpenPGP signatures of roots and timestamp",
        "A second, independent kind of signature, made with the release key, over each version of the root and over the \
         timestamp, from which all else hangs by digests.",
        findings,
    )
}

/// Each file must be one that the signatures account for.
pub(super) fn accounting<S: Source>(
    followed: &mut Followed<S>,
    inventory: &Inventory,
    named: &BTreeMap<String, (Sha256, u64)>,
    (pinned, roots): (&[u8], &Roots),
) -> Section {
    let trail = followed.trail.files.clone();
    let mut findings = Vec::new();
    let mut known = 0;
    for held in &inventory.metadata {
        let is = |file: &TrailFile| file.file == held.name || beside::signature_of(file).as_ref() == Some(&held.name);
        if trail.iter().any(is) {
            known += 1;
        } else if let Some(version) = history::older(&held.name, pinned) {
            match history::root(version, pinned, roots) {
                None => findings.push(stranger("metadata", &held.name, held.length)),
                // Its signature was judged by itself.
                Some(_) if held.name.ends_with(".asc") => known += 1,
                Some(finding) => findings.push(finding),
            }
        } else if let Some((role, version, newest)) = superseded(&held.name, followed) {
            let (id, title) = (
                format!("file.metadata.{}", held.name),
                format!("metadata/{}", held.name),
            );
            let replaced = format!("{role} {version}, replaced by {role} {newest}");
            let checked = followed
                .client
                .as_mut()
                .map(|client| client.check_superseded(role, version));
            findings.push(match checked {
                Some(Ok(())) => Finding::pass(id, title, format!("{replaced}: signed by the role's keys, and no client reads it any more")),
                Some(Err(TufError::BelowThreshold { .. })) => Finding::unknown(
                    id,
                    title,
                    format!("{replaced}: not signed by the keys that the role has today; remove it if those keys were replaced"),
                ),
                Some(Err(error)) => Finding::new(id, title, of_tuf(&error)),
                None => Finding::unknown(id, title, replaced),
            });
        } else {
            findings.push(stranger("metadata", &held.name, held.length));
        }
    }
    for held in &inventory.targets {
        if named.contains_key(&held.name) {
            known += 1;
        } else {
            findings.push(stranger("targets", &held.name, held.length));
        }
    }
    let total = inventory.metadata.len() + inventory.targets.len();
    let title = "Every file is accounted for";
    let finding = if followed.error.is_some() {
        Finding::unknown(
            "files",
            title,
            "the chain of signatures broke, so files without a place cannot be told from others",
        )
    } else {
        Finding::pass(
            "files",
            title,
            format!("{known} of {total} files are metadata that was verified or targets that it names"),
        )
    };
    findings.insert(0, finding);
    Section::new(
        "files",
        "Files",
        "A file that no signature accounts for has no place on a medium, whatever it is.",
        findings,
    )
}

fn stranger(folder: &str, name: &str, length: u64) -> Finding {
    Finding::fail(
        format!("file.{folder}.{name}"),
        format!("{folder}/{name}"),
        format!("{}; no signature accounts for it", bytes(length)),
    )
    .guide(
        "An extra file is how something crosses the gap that nobody approved.",
        &["ANSSI BP-028 R59"],
        "Find out who put it there; make the medium anew from its origin.",
    )
}

/// Role, version and newest version, when a name is that of metadata that a newer version replaced.
fn superseded<'a, S>(name: &'a str, followed: &Followed<S>) -> Option<(&'a str, u64, u64)> {
    let (version, role) = name.strip_suffix(".json")?.split_once('.')?;
    let version: u64 = version.parse().ok()?;
    let newest = followed
        .trail
        .files
        .iter()
        .filter(|file| file.role == role)
        .map(|file| file.version)
        .max()?;
    (version < newest).then_some((role, version, newest))
}
