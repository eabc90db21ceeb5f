// SPDX-License-Identifier: GPL-3.0-or-later
//! A bundle, read in place. Its own parser refuses what has no place in it; see [`offline_repo::bundle`].

use std::path::Path;

use offline_repo::bundle::BundleSource;
use signing::tuf::Offer;

use super::release::{Audited, Question, audit};
use super::{Held, Inventory, approval, of_chain};
use crate::report::{Finding, Section};
use crate::verdict::Verdict;

/// Audits a bundle file.
#[must_use]
pub fn bundle(path: &Path, question: Question<'_>) -> Audited {
    let Offer {
        vendor: mut source,
        mut site,
    } = match BundleSource::offer(path) {
        Ok(offer) => offer,
        Err(error) => {
            let finding = Finding::new("bundle", "The file is a bundle", of_chain(&error));
            let section = Section::new(
                "bundle",
                "Bundle",
                "The archive and what it says of itself.",
                vec![finding],
            );
            return Audited::of(vec![section]);
        }
    };
    if let Some(path) = source.deltas().next() {
        let why = format!(
            "it carries {path} as a delta to what its receiver holds: audit the gateway that took it in, or a bundle that \
             `bastide-repo export --whole` made"
        );
        let finding = Finding::new("bundle.deltas", "Every target is whole", Verdict::CouldNotCheck(why));
        let about = "Whether its targets can be checked without their receiver.";
        return Audited::of(vec![Section::new("bundle", "Bundle", about, vec![finding])]);
    }
    let mut inventory = metadata(&source);
    for name in source.target_paths() {
        let length = source.carried_size(&name).unwrap_or(0);
        inventory.targets.push(Held { name, length });
    }
    let promised: Vec<String> = source.manifest().releases.iter().map(ToString::to_string).collect();
    let carries_site = site.is_some();
    let (approval, as_of) = match question.site {
        Some(trust) => {
            let files = site.as_ref().map(metadata).unwrap_or_default();
            let offer = Offer {
                vendor: &mut source,
                site: site.as_mut(),
            };
            let mut judged = approval::judge(offer, &files, trust, question);
            judged.findings.extend(approval::carried(&judged, &inventory));
            let as_of = judged.as_of(&mut source);
            (Some(judged.findings), as_of)
        }
        None => (carries_site.then(|| vec![approval::unasked()]), None),
    };
    let mut audited = audit(&mut source, &inventory, question, as_of);
    audited.sections.extend(approval.map(approval::section));
    let title = "It carries the releases that it says it carries";
    let list = |names: &[String]| {
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    let finding = if promised == audited.versions {
        Finding::pass("bundle.releases", title, list(&promised))
    } else {
        Finding::fail(
            "bundle.releases",
            title,
            format!("it says {}, it carries {}", list(&promised), list(&audited.versions)),
        )
    };
    let findings = vec![
        Finding::pass(
            "bundle",
            "The file is a bundle and nothing else",
            "only regular members in the known places, each name once, nothing behind the end",
        ),
        finding,
    ];
    audited.sections.push(Section::new(
        "bundle",
        "Bundle",
        "What the bundle says of itself. Nothing is decided by it: the signed metadata decides.",
        findings,
    ));
    audited
}

/// The metadata files of one of its repositories.
fn metadata(source: &BundleSource) -> Inventory {
    let held = |name: &str| Held {
        name: name.to_owned(),
        length: source.metadata_size(name).unwrap_or(0),
    };
    Inventory {
        metadata: source.metadata_names().map(held).collect(),
        targets: Vec::new(),
    }
}
