// SPDX-License-Identifier: GPL-3.0-or-later
//! The bill of materials (CycloneDX 1.6) against the manifest, both ways.

use std::collections::{BTreeMap, BTreeSet};

use offline_repo::snapshot::Snapshot;
use offline_repo::spec::Role;
use serde::Deserialize;

use crate::report::Finding;

/// What is in the image. The packages that build it are not.
const IN_IMAGE: [Role; 2] = [Role::Host, Role::Guest];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bill {
    bom_format: String,
    spec_version: String,
    #[serde(default)]
    components: Vec<Component>,
}

#[derive(Deserialize)]
struct Component {
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    purl: String,
    #[serde(default)]
    hashes: Vec<Hash>,
    #[serde(default)]
    licenses: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Hash {
    alg: String,
    content: String,
}

/// Compares a bill with the packages that are in the image: the host's, and those of the guest that it carries.
pub(crate) fn compare(id: &str, bill: &[u8], snapshot: &Snapshot) -> Finding {
    let title = "Bill of materials names exactly the packages of the image";
    let bill: Bill = match serde_json::from_slice(bill) {
        Ok(bill) => bill,
        Err(error) => return Finding::fail(id, title, format!("it is no CycloneDX JSON: {error}")),
    };
    if bill.bom_format != "CycloneDX" || bill.spec_version != "1.6" {
        return Finding::fail(
            id,
            title,
            format!("it is {} {}, not CycloneDX 1.6", bill.bom_format, bill.spec_version),
        );
    }
    let (packages, own): (Vec<_>, Vec<_>) = bill
        .components
        .iter()
        .partition(|component| component.purl.starts_with("pkg:deb/"));
    let mut said: BTreeMap<(&str, &str), Option<&str>> = BTreeMap::new();
    let mut children = Vec::new();
    for component in &packages {
        let hash = component
            .hashes
            .iter()
            .find(|hash| hash.alg == "SHA-256")
            .map(|hash| hash.content.as_str());
        if said.insert((&component.name, &component.version), hash).is_some() {
            children.push(odd(id, &component.name, "it stands in the bill twice"));
        }
        if component.licenses.is_empty() {
            children.push(odd(id, &component.name, "the bill names no licence for it"));
        }
    }
    let mut found = BTreeSet::new();
    for package in snapshot
        .packages
        .iter()
        .filter(|package| IN_IMAGE.iter().any(|role| package.roles.contains(role)))
    {
        let key = (package.name.as_str(), package.version.as_str());
        match said.get(&key) {
            None => children.push(odd(
                id,
                &package.name,
                &format!("version {} is in the manifest and not in the bill", package.version),
            )),
            Some(Some(hash)) if hash.eq_ignore_ascii_case(&package.sha256.to_string()) => {}
            Some(Some(hash)) => {
                children.push(odd(
                    id,
                    &package.name,
                    &format!("the bill says {hash}, the manifest {}", package.sha256),
                ));
            }
            Some(None) => children.push(odd(id, &package.name, "the bill names no SHA-256 digest for it")),
        }
        found.insert(key);
    }
    for (name, version) in said.keys().filter(|key| !found.contains(*key)) {
        children.push(odd(
            id,
            name,
            &format!("version {version} is in the bill and not among the packages of the image"),
        ));
    }
    let seen = format!(
        "{} packages with version, digest and licence, and {} programs and libraries of our own",
        packages.len(),
        own.len()
    );
    if children.is_empty() {
        Finding::pass(id, title, seen)
    } else {
        Finding::fail(id, title, format!("{} differences; the bill has {seen}", children.len())).with(children).guide(
            "A bill that leaves something out hides what has to be patched; one that adds something was made from another image.",
            &["CycloneDX 1.6", "ANSSI BP-028 R61"],
            "Build the release anew; do not edit the bill.",
        )
    }
}

fn odd(id: &str, name: &str, why: &str) -> Finding {
    Finding::fail(format!("{id}.{name}"), name, why)
}
