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
use signing::receipt::{Holder, MAX_RECEIPT, Receipt, Signed, numbers};
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
            let finding = match receipts.values().next_back() {
                None => Finding::pass(id, title, "enrolled; nothing was acknowledged yet"),
                Some(newest) => {
                    let verdict = judge(&receipts, newest, &audited.root_hashes);
                    history(acknowledged(Finding::new(id, title, verdict), newest), &receipts)
                }
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

/// The releases that a receipt acknowledges.
fn held(receipt: &Receipt) -> Vec<(Version, Sha256)> {
    match &receipt.holder {
        Holder::Host(host) => vec![(host.version, host.root_hash)],
        Holder::Gateway(gateway) => {
            let releases = gateway.releases.iter();
            releases.map(|held| (held.version, held.root_hash)).collect()
        }
    }
}

/// What is acknowledged, against what was signed. Of a release that is not named here any more nothing can be said; only where
/// it is the newest word does that matter.
fn judge(receipts: &BTreeMap<u64, Receipt>, newest: &Receipt, signed: &BTreeMap<Version, Sha256>) -> Verdict {
    for (version, root_hash) in receipts.values().flat_map(held) {
        if signed.get(&version).is_some_and(|signed| *signed != root_hash) {
            return Verdict::Fail(format!("release {version} has another root hash than was signed"));
        }
    }
    if let Some((version, _)) = held(newest).iter().find(|(version, _)| !signed.contains_key(version)) {
        return Verdict::CouldNotCheck(format!("release {version} is none that this repository names"));
    }
    let at = date(newest.at);
    Verdict::Pass(match &newest.holder {
        Holder::Host(host) if host.healthy => format!("runs {}, healthy, {at}", host.version),
        Holder::Host(host) => format!("runs {}, not healthy, {at}: {}", host.version, host.reasons),
        Holder::Gateway(gateway) => {
            let sets: String = gateway.sets.iter().map(|set| format!("; {}", set.words())).collect();
            format!("holds {}, {at}{sets}", gateway.held())
        }
    })
}

/// When each release was acknowledged first, and when last.
fn history(mut finding: Finding, receipts: &BTreeMap<u64, Receipt>) -> Finding {
    let mut all: BTreeMap<Version, Vec<String>> = BTreeMap::new();
    for receipt in receipts.values() {
        for (version, _) in held(receipt) {
            all.entry(version).or_default().push(date(receipt.at));
        }
    }
    for (version, dates) in all {
        let (first, last) = (&dates[0], &dates[dates.len() - 1]);
        let when = if first == last {
            first.clone()
        } else {
            format!("{first} to {last}")
        };
        finding = finding.fact(format!("acknowledged {version}"), when);
    }
    finding
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
    if let Holder::Gateway(gateway) = &receipt.holder {
        for set in &gateway.sets {
            finding = finding.fact("waits or was refused", set.words());
        }
        for export in &gateway.exports {
            let written = export.volumes.iter().map(|volume| volume.number).collect::<Vec<_>>();
            finding = finding.fact(
                format!("exported set {:.16}", export.set.to_string()),
                format!(
                    "volume {} of {} read back from the medium",
                    numbers(&written),
                    export.of
                ),
            );
        }
        if gateway.untold > 0 {
            finding = finding.fact("more bundles, not told", gateway.untold);
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
