// SPDX-License-Identifier: GPL-3.0-or-later
//! A bundle, read in place. Its own parser refuses what has no place in it; see [`offline_repo::bundle`].

use std::path::Path;

use offline_repo::bundle::BundleSource;

use super::release::{Audited, Question, audit};
use super::{Held, Inventory, of_chain};
use crate::report::{Finding, Section};

/// Audits a bundle file.
#[must_use]
pub fn bundle(path: &Path, question: Question<'_>) -> Audited {
    let mut source = match BundleSource::open(path) {
        Ok(source) => source,
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
    let mut inventory = Inventory::default();
    for name in source.metadata_names().map(str::to_owned).collect::<Vec<_>>() {
        let length = source.metadata_size(&name).unwrap_or(0);
        inventory.metadata.push(Held { name, length });
    }
    for name in source.target_paths() {
        let length = source.carried_size(&name).unwrap_or(0);
        inventory.targets.push(Held { name, length });
    }
    let promised: Vec<String> = source.manifest().releases.iter().map(ToString::to_string).collect();
    let mut audited = audit(&mut source, &inventory, question);
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
    let mut findings = vec![
        Finding::pass(
            "bundle",
            "The file is a bundle and nothing else",
            "only regular members in the known places, each name once, nothing behind the end",
        ),
        finding,
    ];
    if source.carries_site() {
        findings.push(Finding::unknown(
            "bundle.approval",
            "A site approves what it carries",
            "it carries an approval, and this audit knows the root of the publisher alone: \
             `bastide-repo import --dry-run --site-trust DIR` verifies both",
        ));
    }
    audited.sections.push(Section::new(
        "bundle",
        "Bundle",
        "What the bundle says of itself. Nothing is decided by it: the signed metadata decides.",
        findings,
    ));
    audited
}
