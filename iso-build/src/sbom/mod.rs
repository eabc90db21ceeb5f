// SPDX-License-Identifier: GPL-3.0-or-later
//! `sbom.cdx.json`: the bill of materials of an image (CycloneDX 1.6), the same bytes for the same image.
//!
//! It names every package of the host as the snapshot has it, what the guest is made of, our programs and the crates in
//! them. Licences are those that packages declare; where none is declared in a form that a program can read, the bill
//! says so and where the text is.

pub mod copyright;
pub mod licences;
pub mod model;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, SecondsFormat};
use offline_repo::snapshot::{Snapshot, SnapshotPackage};
use offline_repo::spec::Role;
use signing::digest::Sha256;
use signing::durable;
use signing::release::Version;

use self::copyright::Copyright;
use self::model::{Bill, Component, Dependency, Hash, LicenceChoice, Lifecycle, Metadata, Property, Supplier, Tools};
use crate::crates::Locked;
use crate::guest;
use crate::programs::PROGRAMS;
use crate::rootimage::Identity;

/// What a bill is made from.
pub struct Inputs<'a> {
    /// The snapshot.
    pub snapshot: &'a Snapshot,
    /// The tree of the image, with the copyright files.
    pub tree: &'a Path,
    /// The directory of our programs and of the list of their crates.
    pub programs: &'a Path,
    /// The crates of `Cargo.lock`.
    pub locked: &'a [Locked],
    /// The release's version.
    pub version: Version,
    /// The release's channel.
    pub channel: &'a str,
    /// The root hash of the image.
    pub root_hash: &'a Sha256,
    /// Seconds since 1970 of the build.
    pub epoch: u64,
}

/// Writes the bill of an image.
///
/// # Errors
/// When a copyright file is hostile, the programs' crates are not those of `Cargo.lock`, or a file cannot be read or written.
pub fn write(inputs: &Inputs<'_>, out: &Path) -> Result<()> {
    let mut bill = bill(inputs)?;
    let content = Sha256::of(&serde_json::to_vec(&bill)?);
    bill.serial_number = Some(format!("urn:uuid:{}", Identity::new(&content).uuid("sbom")));
    let mut bytes = serde_json::to_vec_pretty(&bill)?;
    bytes.push(b'\n');
    durable::write(out, &bytes).with_context(|| format!("cannot write {}", out.display()))
}

fn bill(inputs: &Inputs<'_>) -> Result<Bill> {
    let image = format!("image:bastide@{}", inputs.version);
    let mut components = Vec::new();
    let mut in_guest = Vec::new();
    for one in &inputs.snapshot.packages {
        if one.roles.contains(&Role::Guest) {
            in_guest.push(purl_of(one));
        }
        if one.roles.contains(&Role::Host) || one.roles.contains(&Role::Guest) {
            components.push(package(inputs, one)?);
        }
    }
    let guest = guest_image(inputs)?;
    let guest_depends = Dependency {
        reference: guest.reference.clone(),
        depends_on: in_guest,
    };
    components.push(guest);
    components.extend(own(inputs)?);

    let mut parts: Vec<_> = components.iter().map(|one| one.reference.clone()).collect();
    parts.sort();
    let dependencies = vec![
        Dependency {
            reference: image.clone(),
            depends_on: parts,
        },
        guest_depends,
    ];
    let seconds = i64::try_from(inputs.epoch).context("the date of the build is out of range")?;
    let date = DateTime::from_timestamp(seconds, 0).context("the date of the build is out of range")?;
    Ok(Bill {
        bom_format: "CycloneDX",
        spec_version: "1.6",
        serial_number: None,
        version: 1,
        metadata: Metadata {
            timestamp: date.to_rfc3339_opts(SecondsFormat::Secs, true),
            lifecycles: vec![Lifecycle { phase: "build" }],
            tools: Tools {
                components: vec![Component {
                    kind: "application",
                    reference: "tool:bastide-iso".to_owned(),
                    name: "bastide-iso".to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    ..Component::default()
                }],
            },
            component: Component {
                kind: "operating-system",
                reference: image,
                name: "bastide".to_owned(),
                version: inputs.version.to_string(),
                properties: vec![
                    Property::new("channel", inputs.channel),
                    Property::new("root-hash", inputs.root_hash.to_string()),
                    Property::new("snapshot", &inputs.snapshot.name),
                ],
                ..Component::default()
            },
        },
        components,
        dependencies,
    })
}

/// A package of the snapshot.
fn package(inputs: &Inputs<'_>, package: &SnapshotPackage) -> Result<Component> {
    let copyright = copyright::of_package(inputs.tree, &package.name)
        .with_context(|| format!("cannot read the licences of {}", package.name))?;
    let mut properties = vec![
        Property::new("source-package", &package.source),
        Property::new("source-version", &package.source_version),
    ];
    if let Some(copyright) = &copyright {
        let file = format!("/usr/share/doc/{}/copyright", package.name);
        properties.push(Property::new("copyright-file", file));
        if let Copyright::Prose(names) = copyright {
            properties.extend(names.iter().map(|name| Property::new("copyright-refers-to", name)));
        }
    }
    let purl = purl_of(package);
    Ok(Component {
        kind: "library",
        reference: purl.clone(),
        supplier: Some(Supplier { name: "Debian" }),
        name: package.name.clone(),
        version: package.version.clone(),
        hashes: Hash::sha256(&package.sha256),
        licenses: LicenceChoice::of_package(copyright.as_ref()),
        purl: Some(purl),
        properties,
    })
}

/// The guest's initrd, a file of the host that no package of the host brings.
fn guest_image(inputs: &Inputs<'_>) -> Result<Component> {
    let name = format!("{}/initrd.img", guest::DIRECTORY);
    let file = inputs.tree.join(&name);
    let (digest, _) = Sha256::of_file(&file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Component {
        kind: "file",
        reference: "guest:initrd".to_owned(),
        name: format!("/{name}"),
        version: inputs.version.to_string(),
        hashes: Hash::sha256(&digest),
        ..Component::default()
    })
}

/// Our programs and the crates in them.
fn own(inputs: &Inputs<'_>) -> Result<Vec<Component>> {
    let list = inputs.programs.join("crates");
    let text = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let mut ours = None;
    let mut crates = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let entry =
            Entry::parse(line).with_context(|| format!("{} holds {line:?}, which names no crate", list.display()))?;
        if entry.local {
            // All members of the workspace have its version.
            ours = Some((entry.version, entry.licence));
        } else {
            crates.insert((entry.name, entry.version), entry.licence);
        }
    }
    let (version, licence) = ours.with_context(|| format!("{} names none of our own packages", list.display()))?;
    let mut components = Vec::new();
    for program in PROGRAMS {
        let file = inputs.programs.join(program);
        let (digest, _) = Sha256::of_file(&file).with_context(|| format!("cannot read {}", file.display()))?;
        components.push(Component {
            kind: "application",
            reference: format!("program:{program}"),
            name: program.to_owned(),
            version: version.to_owned(),
            hashes: Hash::sha256(&digest),
            licenses: LicenceChoice::of_crate(licence),
            ..Component::default()
        });
    }
    for ((name, version), licence) in crates {
        let locked = inputs
            .locked
            .iter()
            .find(|locked| locked.name == name && locked.version == version)
            .and_then(|locked| locked.checksum);
        let Some(checksum) = locked else {
            bail!("the programs hold the crate {name} {version}, which Cargo.lock does not lock");
        };
        let purl = format!("pkg:cargo/{}@{}", escape(name), escape(version));
        components.push(Component {
            kind: "library",
            reference: purl.clone(),
            name: name.to_owned(),
            version: version.to_owned(),
            hashes: Hash::sha256(&checksum),
            licenses: LicenceChoice::of_crate(licence),
            purl: Some(purl),
            ..Component::default()
        });
    }
    Ok(components)
}

/// A line of `cargo tree --format '{p}|{l}'`: `NAME vVERSION [(what)]|LICENCE [(*)]`.
struct Entry<'a> {
    name: &'a str,
    version: &'a str,
    licence: &'a str,
    local: bool,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (package, licence) = line.split_once('|')?;
        let mut words = package.split(' ');
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        Some(Self {
            name,
            version,
            licence: licence.trim_end_matches(" (*)"),
            local: words.any(|word| word.starts_with("(/")),
        })
    }
}

/// The package URL of a Debian package, its qualifiers in order; `upstream` names the source where it differs.
fn purl_of(package: &SnapshotPackage) -> String {
    let distribution = package.suite.split('-').next().unwrap_or(&package.suite);
    let mut purl = format!(
        "pkg:deb/debian/{}@{}?arch={}&distro={}",
        escape(&package.name),
        escape(&package.version),
        escape(&package.architecture),
        escape(distribution)
    );
    if package.source_version != package.version {
        purl.push_str(&format!(
            "&upstream={}%40{}",
            escape(&package.source),
            escape(&package.source_version)
        ));
    } else if package.source != package.name {
        purl.push_str(&format!("&upstream={}", escape(&package.source)));
    }
    purl
}

/// Percent-encodes a part of a package URL: everything but letters, digits, `-._~` and the colon.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
