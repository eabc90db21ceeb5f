// SPDX-License-Identifier: GPL-3.0-or-later
//! The site's part of a gateway's repository: approvals, the vendor's metadata as they were approved, and, at the next
//! gateway, the memory of the site.
//!
//! The attacks: something hidden beside the approvals, for nobody looks there; a memory of another site. The defence: each
//! file there is one of the site's metadata, one that an approval names by its digest, or fails.

use std::io;
use std::path::Path;

use offline_repo::repository::offer;
use signing::digest::{Sha256, read_regular};
use signing::tuf::names::encode_role;
use signing::tuf::trail::{Origin, TrailFile};
use signing::tuf::{DirectorySource, beside};

use super::approval::{Judged, judge};
use super::release::{Audited, Question};
use super::repository::{files, sorted};
use super::trust::Trust;
use super::tuf::{Roots, roots};
use super::{Held, Inventory, history, memory};
use crate::report::{Finding, Section};
use crate::verdict::Verdict;

/// The largest of the vendor's metadata.
const LIMIT: u64 = 64 << 20;

/// Judges the approvals of the gateway in a directory, and everything below its `site/`.
///
/// # Errors
/// When it cannot be listed.
pub(super) fn approvals(root: &Path, site: &Trust, question: Question<'_>) -> io::Result<(Judged, Option<Section>)> {
    let place = root.join("site");
    let (mut inventory, mut strange) = (Inventory::default(), Vec::new());
    let mut kept = Vec::new();
    let mut remembers = false;
    if place.is_dir() {
        for entry in sorted(&place)? {
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            let list = match name.as_str() {
                "metadata" if kind.is_dir() => &mut inventory.metadata,
                "targets" if kind.is_dir() => &mut inventory.targets,
                "vendor" if kind.is_dir() => &mut kept,
                "datastore" if kind.is_dir() => {
                    remembers = true;
                    continue;
                }
                ".lock" if entry.metadata()?.len() == 0 => continue,
                _ => {
                    strange.push(name);
                    continue;
                }
            };
            files(&entry.path(), "", list, &mut strange, &name)?;
        }
    }
    let mut judged = judge(offer(root), &inventory, site, question);
    let asked = Question {
        trust: site,
        ..question
    };
    let memory = remembers.then(|| {
        let audited = Audited {
            verified: judged.site.0.clone(),
            roots: judged.site.1.clone(),
            ..Audited::default()
        };
        let mut section = memory::section(&place.join("datastore"), &audited, asked);
        "site-memory".clone_into(&mut section.id);
        section.title = format!("{} of the site", section.title);
        section
    });
    let beside = strange.iter().map(|name| {
        Finding::fail(
            format!("file.site.{name}"),
            format!("site/{name}"),
            "no approval writes it: it has no place here",
        )
    });
    let vendor = place.join("vendor");
    let copies = Inventory {
        metadata: kept,
        ..Inventory::default()
    };
    let roots = roots(&mut DirectorySource::new(&vendor, &vendor), &copies);
    let unsigned = unsigned(&copies, &judged.vendor);
    let copies = copies.metadata.iter();
    let copies = copies.filter_map(|held| copy(&vendor, held, &judged, (&question, &roots)));
    let below: Vec<Finding> = beside.chain(copies).chain(unsigned).collect();
    if !below.is_empty() {
        let title = "The vendor's metadata as they were approved, and what lies beside them";
        judged
            .findings
            .push(Finding::heading("approval.vendor.files", title, below));
    }
    Ok((judged, memory))
}

/// Approved metadata without the release key's signature beside them: no host takes them.
fn unsigned(copies: &Inventory, approved: &[TrailFile]) -> Vec<Finding> {
    let new = approved.iter().filter(|file| file.origin != Origin::Datastore);
    let due = new.filter_map(beside::signature_of);
    due.filter(|name| copies.metadata.iter().all(|held| held.name != *name))
        .map(|name| {
            Finding::fail(
                format!("file.site.vendor.{name}"),
                format!("site/vendor/{name}"),
                "it is not there: the release key's OpenPGP signature stands beside each root and timestamp",
            )
        })
        .collect()
}

/// A file among the vendor's metadata as they were approved, unless it is accounted for.
fn copy(place: &Path, held: &Held, judged: &Judged, (question, roots): (&Question<'_>, &Roots)) -> Option<Finding> {
    let (id, title) = (
        format!("file.site.vendor.{}", held.name),
        format!("site/vendor/{}", held.name),
    );
    let bytes = match read_regular(&place.join(&held.name), LIMIT) {
        Ok(bytes) => bytes,
        Err(error) => return Some(Finding::unknown(id, title, format!("cannot read it: {error}"))),
    };
    let sha256 = Sha256::of(&bytes);
    if judged.seen.contains(&sha256) || judged.vendor.iter().any(|file| file.sha256 == sha256) {
        return None;
    }
    let is_root = |name: &str| {
        let verified = judged
            .vendor
            .iter()
            .any(|file| file.role == "root" && file.file == name);
        verified || history::older(name, &question.trust.root).is_some()
    };
    // A timestamp is kept under its version, and judged by itself.
    let is_signed = |name: &&str| is_root(name) || name.ends_with(".timestamp.json");
    if let Some(name) = held.name.strip_suffix(".asc").filter(is_signed) {
        let content = read_regular(&place.join(name), LIMIT);
        return match content {
            Ok(content) => {
                // Of an approval that was replaced nobody reads them any more.
                let mut approved = judged.vendor.iter();
                let approved = approved.find(|file| beside::signature_of(file).as_ref() == Some(&held.name));
                let need = approved.map_or(1, |file| file.certificates);
                let finding = question
                    .trust
                    .openpgp((&id, &title), &content[..], &bytes, (need, question.now));
                (!matches!(finding.verdict, Some(Verdict::Pass(_)))).then_some(finding)
            }
            Err(error) => Some(Finding::unknown(id, title, format!("cannot read {name}: {error}"))),
        };
    }
    if let Some(version) = history::older(&held.name, &question.trust.root) {
        return history::root(version, &question.trust.root, roots);
    }
    let of_role = |role: &str| judged.vendor.iter().any(|file| encode_role(&file.role) == role);
    let replaced = held.name.strip_suffix(".json").and_then(|name| name.split_once('.'));
    Some(match replaced {
        Some((version, role)) if version.parse::<u64>().is_ok() && of_role(role) && role != "root" => Finding::unknown(
            id,
            title,
            "kept for an approval that was replaced since: nothing vouches for it, and nobody reads it any more",
        ),
        _ => Finding::fail(id, title, "no approval names it: it has no place here"),
    })
}
