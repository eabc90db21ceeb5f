// SPDX-License-Identifier: GPL-3.0-or-later
//! Which release each host and gateway acknowledged, and when: the receipts that lie in a repository.
//!
//! The attacks: a receipt that was altered, exchanged for another holder's or renamed; a host that runs another root than was
//! signed for its release; a file hidden among the receipts. The defence: each receipt's own signature, by the key that was
//! enrolled for its holder, and the root hash that the repository's verified targets name. Not defended: whether the key is the
//! holder's, which the fingerprint here tells who compares it with the installer's record.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use signing::digest::{Sha256, read_regular};
use signing::keys::PublicKey;
use signing::output;
use signing::receipt::{Holder, MAX_RECEIPT, Receipt, Signed};
use signing::release::Version;

use super::date;
use super::release::Audited;
use crate::report::{Finding, Section};
use crate::verdict::Verdict;

const KEY: &str = "key.pem";
/// What a gateway counts its own receipts in.
const OWN: &str = "own.json";
/// A public key is some hundred bytes.
const MAX_KEY: u64 = 64 << 10;

/// Audits the receipts in a directory of the repository that was audited.
pub(super) fn section(directory: &Path, audited: &Audited) -> Section {
    let findings = match names(directory) {
        Ok(names) => names
            .into_iter()
            .filter_map(|name| entry(directory, &name, audited))
            .collect(),
        Err(error) => vec![Finding::unknown(
            "receipts",
            "The receipts",
            format!("cannot list {}: {error}", directory.display()),
        )],
    };
    Section::new(
        "receipts",
        "Receipts: who acknowledged which release, and when",
        "Hosts and gateways sign what they hold with keys of their own, which were enrolled here by their fingerprints. A receipt is \
         its holder's word, and no more.",
        findings,
    )
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    let mut names = fs::read_dir(directory)?.map(name).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn entry(directory: &Path, name: &str, audited: &Audited) -> Option<Finding> {
    let place = directory.join(name);
    let kind = place.symlink_metadata().map(|data| data.file_type());
    match kind {
        Ok(kind) if kind.is_file() && name == OWN => None,
        Ok(kind) if kind.is_dir() => Some(holder(&place, name, audited)),
        _ => Some(stranger(name)),
    }
}

fn stranger(name: &str) -> Finding {
    Finding::fail(
        format!("receipts.{name}"),
        format!("receipts/{name}"),
        "no receipt and no enrolled key: it has no place here",
    )
}

fn holder(place: &Path, name: &str, audited: &Audited) -> Finding {
    let (id, title) = (format!("receipts.{name}"), format!("{name}: its receipts"));
    match read(place) {
        Ok((key, receipts)) => {
            let count = receipts.len();
            let finding = match receipts.into_values().next_back() {
                None => Finding::pass(id, title, "enrolled; nothing was acknowledged yet"),
                Some(newest) => acknowledged(Finding::new(id, title, judge(&newest, &audited.root_hashes)), &newest),
            };
            finding
                .fact("key, as the installer showed it", key)
                .fact("receipts", count)
        }
        Err(error) => Finding::new(id, title, error),
    }
    .guide(
        "Who reads that a host was patched must be able to believe that the host said so.",
        &["ANSSI BP-028 R59"],
        "Ask the holder for a new receipt, and look for who wrote here.",
    )
}

/// The enrolled key, and every receipt by its number.
fn read(place: &Path) -> Result<(Sha256, BTreeMap<u64, Receipt>), Verdict> {
    let unread = |error: io::Error| Verdict::CouldNotCheck(format!("cannot read {}: {error}", place.display()));
    let bytes = |name: &str, limit| read_regular(&place.join(name), limit);
    let pem = bytes(KEY, MAX_KEY).map_err(unread)?;
    let key = PublicKey::from_pem("the enrolled key", &pem).map_err(|error| Verdict::Fail(error.to_string()))?;
    let mut receipts = BTreeMap::new();
    for name in names(place).map_err(unread)?.iter().filter(|name| *name != KEY) {
        let Some(number) = name.strip_suffix(".json").and_then(|number| number.parse().ok()) else {
            return Err(Verdict::Fail(format!("{name} has no place among its receipts")));
        };
        let signed = Signed::read(&bytes(name, MAX_RECEIPT).map_err(unread)?)
            .map_err(|error| Verdict::Fail(format!("{name}: {}", output::chain(&error))))?;
        if signed.fingerprint != key.fingerprint() || signed.receipt.sequence != number {
            return Err(Verdict::Fail(format!(
                "{name} is another holder's, or has another number"
            )));
        }
        receipts.insert(number, signed.receipt);
    }
    Ok((key.fingerprint(), receipts))
}

/// What is acknowledged, against what was signed.
fn judge(receipt: &Receipt, signed: &BTreeMap<Version, Sha256>) -> Verdict {
    let held: Vec<(Version, Sha256)> = match &receipt.holder {
        Holder::Host(host) => vec![(host.version, host.root_hash)],
        Holder::Gateway { releases } => releases.iter().map(|held| (held.version, held.root_hash)).collect(),
    };
    for (version, root_hash) in held {
        match signed.get(&version) {
            Some(signed) if *signed == root_hash => {}
            Some(_) => return Verdict::Fail(format!("release {version} has another root hash than was signed")),
            None => return Verdict::CouldNotCheck(format!("release {version} is none that this repository names")),
        }
    }
    let at = date(receipt.at);
    Verdict::Pass(match &receipt.holder {
        Holder::Host(host) if host.healthy => format!("runs {}, healthy, {at}", host.version),
        Holder::Host(host) => format!("runs {}, not healthy, {at}: {}", host.version, host.reasons),
        Holder::Gateway { releases } => {
            let versions: Vec<String> = releases.iter().map(|held| held.version.to_string()).collect();
            format!("holds {}, {at}", versions.join(", "))
        }
    })
}

fn acknowledged(finding: Finding, receipt: &Receipt) -> Finding {
    let mut finding = finding
        .fact("newest receipt", receipt.sequence)
        .fact("given", date(receipt.at));
    if let Holder::Host(host) = &receipt.holder {
        finding = finding
            .fact("root hash", host.root_hash)
            .fact("sha256 of its install record", host.install_record);
        for slot in &host.slots {
            let holds = slot.version.map_or_else(String::new, |version| format!(" {version}"));
            finding = finding.fact(format!("slot {}", slot.slot), format!("{}{holds}", slot.state));
        }
    }
    let all = [("vendor", &receipt.vendor), ("site", &receipt.site)];
    for (whose, seen) in all
        .iter()
        .flat_map(|(whose, all)| all.iter().map(move |seen| (whose, seen)))
    {
        finding = finding.fact(
            format!("remembers the {whose}'s {} {}", seen.role, seen.version),
            seen.sha256,
        );
    }
    finding
}
