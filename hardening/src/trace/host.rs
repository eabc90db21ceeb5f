// SPDX-License-Identifier: GPL-3.0-or-later
//! A running host: from the root that runs to the release that the pinned root vouches for.

use signing::digest::{Sha256, read_to_limit};
use signing::release::{Custom, Part};
use signing::secureboot::{Certificate, SignatureList};
use signing::site::TRUST_DIRECTORY;
use signing::tuf::VerifiedTarget;
use signing::tuf::trail::TrailFile;

use super::baked;
use super::history::{Way, way};
use super::release::Question;
use super::sovereigns;
use super::stored::Stored;
use super::trust::Trust;
use super::tuf::{Roots, follow};
use crate::check::{drift, running_root_hash};
use crate::facts::{Facts, Kind, Known, Unknown, Walk};
use crate::profile::Profile;
use crate::report::{Finding, Section};
use crate::verdict::Verdict;

/// Where a host keeps the metadata that it trusts.
const DATASTORE: &str = "/state/bastide/datastore";
/// Where the ESP is mounted.
const ESP: &str = "/boot/efi";
/// The signature databases of the firmware, the file that goes into each, and the GUID of their variables.
const DATABASES: [(&str, &str, &str); 3] = [
    ("PK", "pk.der", "8be4df61-93ca-11d2-aa0d-00e098032b8c"),
    ("KEK", "kek.der", "8be4df61-93ca-11d2-aa0d-00e098032b8c"),
    ("db", "db.der", "d719b2cb-3d3a-4596-a3bc-dad00e67656f"),
];

/// Audits the host that `facts` shows: what it trusts and runs, and how it is hardened.
#[must_use]
pub fn host(facts: &dyn Facts, profile: &Profile, question: Question<'_>) -> Vec<Section> {
    let mut sections = chain(facts, question);
    sections.push(Section::new(
        "profile",
        &format!("Hardening profile: {}", profile.title),
        &profile.about,
        crate::check::run(profile, facts),
    ));
    sections.push(Section::new(
        "drift",
        "Drift: what differs from the signed image in /etc",
        "Every change to /etc since the installation is a file in one directory. Files that every host has of its own pass; \
         what decides over access or code fails; a person has to read the rest.",
        drift::findings(facts, &profile.drift),
    ));
    sections
}

/// From the root hash that runs to the pinned root.
#[must_use]
pub fn chain(facts: &dyn Facts, question: Question<'_>) -> Vec<Section> {
    let Question { trust, now, .. } = question;
    let mut sections = vec![trust.section(now)];
    let names = facts.list(DATASTORE);
    let read = |name: &str| {
        let found = facts.read(&format!("{DATASTORE}/{name}"));
        found.map_err(|Unknown(why)| why)
    };
    let roots = Roots::new();
    let stored = || Stored {
        names: names.clone().ok().flatten().unwrap_or_default(),
        read: &read,
        roots: &roots,
    };
    let followed = follow(stored(), &trust.root);
    let (obeyed, as_of) = sovereigns::section(facts, stored(), &question);
    let mut leaves = |role: &str| {
        let of_role = followed.targets.iter().filter(|target| target.role == role);
        of_role
            .map(|target| {
                Finding::pass(
                    format!("target.{}", target.name),
                    &target.name,
                    "named by verified metadata",
                )
                .fact("sha256", target.sha256)
            })
            .collect()
    };
    let signatures = match &names {
        Ok(Some(_)) => stored().findings(&followed, ("The host", trust), as_of.unwrap_or(now), &mut leaves),
        Ok(None) => vec![Finding::unknown(
            "datastore",
            "The host's trust record",
            format!("{DATASTORE} is not there"),
        )],
        Err(Unknown(why)) => vec![Finding::unknown("datastore", "The host's trust record", why.clone())],
    };
    sections.push(Section::new(
        "signatures",
        "Signatures, from the pinned root to the releases that this host trusts",
        "The metadata that the host recorded when it was installed or updated, verified again from the auditor's pinned root.",
        signatures,
    ));
    sections.push(obeyed);
    let mut findings = vec![check(
        "running.root",
        "The running root file system is a signed release",
        running(facts, &followed.targets),
    )];
    findings.push(Finding::not_applicable(
        "running.packages",
        "Packages, back to upstream's signature",
        "a host does not keep upstream's lists: verify the repository or the bundle that carries its release",
    ));
    findings.extend(image_trust(facts, trust, &followed.trail.files));
    findings.extend(firmware(facts, trust));
    findings.extend(esp(facts, trust, &followed.targets));
    sections.push(Section::new(
        "running",
        "What runs",
        "The root file system, the boot images on the disk and the firmware's key databases, each against what was signed.",
        findings,
    ));
    sections
}

fn check(id: &str, title: &str, result: Known<Verdict>) -> Finding {
    Finding::new(
        id,
        title,
        result.unwrap_or_else(|Unknown(why)| Verdict::CouldNotCheck(why)),
    )
}

fn custom(target: &VerifiedTarget) -> Option<Custom> {
    target
        .custom
        .clone()
        .and_then(|custom| serde_json::from_value(custom).ok())
}

fn running(facts: &dyn Facts, targets: &[VerifiedTarget]) -> Known<Verdict> {
    let hash = running_root_hash(facts)?;
    let known = targets
        .iter()
        .filter_map(custom)
        .find(|custom| custom.part == Part::Root && custom.root_hash.to_string() == hash);
    Ok(match known {
        Some(custom) => Verdict::Pass(format!(
            "root hash {hash} is that of release {} ({})",
            custom.version, custom.channel
        )),
        None if targets.is_empty() => {
            Verdict::CouldNotCheck(format!("root hash {hash}: no verified metadata to compare it with"))
        }
        None => Verdict::Fail(format!(
            "root hash {hash} is that of no release that the host's verified metadata names"
        )),
    })
}

/// The trust directory of the image that runs. Where its root is not the auditor's, the one that follows from it may be.
fn image_trust(facts: &dyn Facts, trust: &Trust, verified: &[TrailFile]) -> Vec<Finding> {
    let unknown = |Unknown(why)| Verdict::CouldNotCheck(why);
    let names = facts
        .list(TRUST_DIRECTORY)
        .map(Option::unwrap_or_default)
        .map_err(unknown);
    let read = |name: &str| facts.read(&format!("{TRUST_DIRECTORY}/{name}")).map_err(unknown);
    let follows = |root: &[u8]| {
        let sha256 = Sha256::of(root);
        if verified.iter().any(|file| file.role == "root" && file.sha256 == sha256) {
            return Way::Leads;
        }
        way(root, &trust.root, &Roots::new())
    };
    baked::findings("running.trust", names, &read, &follows, trust)
}

fn firmware(facts: &dyn Facts, trust: &Trust) -> Vec<Finding> {
    DATABASES
        .iter()
        .map(|&(name, file, guid)| {
            let result = database(facts, trust, name, file, guid);
            check(
                &format!("firmware.{name}"),
                &format!("The firmware's {name} holds the site's certificate and no other"),
                result,
            )
            .guide(
                "A second certificate in a database lets its owner start images, or change the keys, on this machine.",
                &["ANSSI BP-028 R4", "UEFI 2.10, section 32.4"],
                "Put the firmware into setup mode and enrol the site's keys alone.",
            )
        })
        .collect()
}

fn database(facts: &dyn Facts, trust: &Trust, name: &str, file: &str, guid: &str) -> Known<Verdict> {
    let Some(bytes) = facts.read(&format!("/sys/firmware/efi/efivars/{name}-{guid}"))? else {
        return Ok(Verdict::Fail(format!("the firmware has no variable {name}")));
    };
    let mut ours = Vec::new();
    trust
        .file(file)
        .and_then(|mut file| read_to_limit(&mut file, 1 << 20).map(|bytes| ours = bytes))
        .map_err(|error| Unknown(format!("cannot read {file} of the trust directory: {error}")))?;
    // efivarfs puts four bytes of attributes before the content.
    let entries = match SignatureList::parse(bytes.get(4..).unwrap_or_default()) {
        Ok(entries) => entries,
        Err(error) => return Ok(Verdict::Fail(error.to_string())),
    };
    let strange: Vec<String> = entries
        .iter()
        .filter(|entry| entry.data != ours)
        .map(|entry| match Certificate::from_der(&entry.data) {
            Ok(certificate) if entry.is_certificate() => certificate.subject(),
            _ => "a hash or another kind of entry".to_owned(),
        })
        .collect();
    Ok(if !entries.iter().any(|entry| entry.data == ours) {
        Verdict::Fail(format!("{name} does not hold {file}"))
    } else if strange.is_empty() {
        Verdict::Pass(format!("{file} alone"))
    } else {
        Verdict::Fail(format!("also trusted: {}", strange.join(", ")))
    })
}

/// Every file of the ESP is the Xen image of a signed release.
fn esp(facts: &dyn Facts, trust: &Trust, targets: &[VerifiedTarget]) -> Vec<Finding> {
    let entries = match facts.walk(ESP, Walk::All) {
        Ok(Some(entries)) if entries.iter().any(|entry| entry.kind == Kind::File) => entries,
        Ok(_) => {
            return vec![Finding::unknown(
                "esp",
                "Boot images on the disk",
                format!("nothing is mounted at {ESP}"),
            )];
        }
        Err(Unknown(why)) => return vec![Finding::unknown("esp", "Boot images on the disk", why)],
    };
    let images: Vec<(Custom, Sha256)> = targets
        .iter()
        .filter_map(|target| custom(target).map(|custom| (custom, target.sha256)))
        .filter(|(custom, _)| custom.part == Part::Xen)
        .collect();
    let mut findings = Vec::new();
    for entry in entries.iter().filter(|entry| entry.kind != Kind::Directory) {
        let id = format!("esp.{}", entry.path);
        let inner = entry
            .path
            .trim_start_matches(ESP)
            .trim_start_matches('/')
            .to_ascii_lowercase();
        let title = format!("{} is a signed release's Xen image", entry.path);
        if !matches!(
            inner.as_str(),
            "efi/bastide/slot-a.efi" | "efi/bastide/slot-b.efi" | "efi/boot/bootx64.efi"
        ) {
            findings.push(
                Finding::fail(id, &entry.path, "this file has no place on the ESP").guide(
                    "Firmware can be told to start any file of the ESP.",
                    &["ANSSI BP-028 R3"],
                    "Find out who put it there, and remove it.",
                ),
            );
            continue;
        }
        let Some(sha256) = entry.sha256 else {
            findings.push(Finding::unknown(id, title, "it was not read"));
            continue;
        };
        let known = images.iter().find(|(_, image)| *image == sha256);
        findings.push(match known {
            Some((custom, _)) => {
                Finding::pass(&id, title, format!("release {}", custom.version)).fact("sha256", sha256)
            }
            None if images.is_empty() => {
                Finding::unknown(&id, title, "no verified metadata to compare it with").fact("sha256", sha256)
            }
            None => Finding::fail(&id, title, "no verified metadata names this image").fact("sha256", sha256),
        });
        let title = format!("{} carries the site's Secure Boot signature", entry.path);
        let id = format!("{id}.signature");
        findings.push(
            match trust.db.as_deref().map(|db| facts.boot_signature(&entry.path, db)) {
                None => Finding::unknown(id, title, "the trust directory has no db.der"),
                Some(Err(Unknown(why))) => Finding::unknown(id, title, why),
                Some(Ok(None)) => Finding::unknown(id, title, "it went away while it was audited"),
                Some(Ok(Some(Ok(signer)))) => Finding::pass(id, title, format!("signed with {signer}")),
                Some(Ok(Some(Err(why)))) => Finding::fail(id, title, why),
            },
        );
    }
    findings
}
