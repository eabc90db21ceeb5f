// SPDX-License-Identifier: GPL-3.0-or-later
//! Whom a host obeys besides the vendor: its trust policy, the site that it pins, and what that site approved.
//!
//! The attacks: a policy that was weakened or pins another site; an approval of a stolen key; a release that runs and that
//! nobody approved. The defence: the pinned site is held against the auditor's, its memory is followed from the auditor's
//! root as an artifact is, and vendor and site must agree on what runs. The policy is not signed: what weakened it to the
//! vendor alone is found where the auditor names the site that ought to be in it. Not defended: the installed release needs
//! no approval, and which one that was the host itself says.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use signing::digest::Sha256;
use signing::policy::{POLICY, Pinned, Policy};
use signing::release::Custom;
use signing::tuf::{Approval, Offer, VerifiedTarget};

use super::approval::{Compared, Judged, compare};
use super::history::{Way, way};
use super::release::Question;
use super::stored::Stored;
use super::trust::Trust;
use super::tuf::{Roots, follow};
use crate::check::running_root_hash;
use crate::facts::{Facts, Known, Unknown};
use crate::report::{Finding, Section};
use crate::verdict::Verdict;

/// Where a host keeps its policy, and in it the site.
const PLACE: &str = "/state/bastide/trust";
/// Where a host keeps the site's metadata that it trusts.
const MEMORY: &str = "/state/bastide/site-datastore";
/// The record of the installation.
const RECORD: &str = "/state/bastide/install-record.json";

/// The section, and as of when the vendor's metadata are to be judged: the approval's time, where there is one.
pub(super) fn section(
    facts: &dyn Facts,
    vendor: Stored<'_>,
    question: &Question<'_>,
) -> (Section, Option<DateTime<Utc>>) {
    let (findings, as_of) = judge(facts, vendor, question);
    let section = Section::new(
        "sovereigns",
        "Whose word this host takes, and what the site approved",
        "The policy was set at the installation. Where it demands the site's word beside the vendor's, an update is taken only \
         when both agree (TAP 4); the release of the installation itself is the vendor's alone.",
        findings,
    );
    (section, as_of)
}

fn judge(facts: &dyn Facts, vendor: Stored<'_>, question: &Question<'_>) -> (Vec<Finding>, Option<DateTime<Utc>>) {
    let (id, title) = ("policy", "Its trust policy is the one that was agreed");
    let said = |verdict| {
        Finding::new(id, title, verdict).guide(
            "Under a policy that demands less than it should, a stolen key of one side is enough to install anything.",
            &["TUF TAP 4"],
            "Hold the policy against the install record. What the installer did not write, somebody else did: install the host anew.",
        )
    };
    let path = format!("{PLACE}/{POLICY}");
    let policy = match facts.read(&path) {
        Err(Unknown(why)) => return (vec![said(Verdict::CouldNotCheck(why))], None),
        Ok(None) => {
            let why = format!("{path} is missing: the host takes no update without it");
            return (vec![said(Verdict::Fail(why))], None);
        }
        Ok(Some(bytes)) => match serde_json::from_slice::<Policy>(&bytes) {
            Ok(policy) => policy,
            Err(error) => return (vec![said(Verdict::Fail(format!("it is malformed: {error}")))], None),
        },
    };
    match (policy, question.site) {
        (Policy::Vendor, None) => (
            vec![said(Verdict::Pass("it demands the vendor's word alone".to_owned()))],
            None,
        ),
        (Policy::Vendor, Some(_)) => {
            let why = "it demands the vendor's word alone, and no site's as --site-trust says";
            (vec![said(Verdict::Fail(why.to_owned()))], None)
        }
        (Policy::VendorAndSite { .. }, None) => {
            let why = "it demands a site's word as well: name the site's trust directory with --site-trust";
            (vec![said(Verdict::CouldNotCheck(why.to_owned()))], None)
        }
        (Policy::VendorAndSite { site: pinned }, Some(site)) => {
            let mut findings = vec![said(Verdict::Pass(
                "it demands the vendor's and the site's word".to_owned(),
            ))];
            findings.extend(pins(facts, &pinned, site));
            let as_of = approvals(facts, vendor, site, question, &mut findings);
            (findings, as_of)
        }
    }
}

/// The site's files beside the policy: those that it pins, and the auditor's.
fn pins(facts: &dyn Facts, pinned: &Pinned, site: &Trust) -> [Finding; 2] {
    let judged = |name: &str, digest: Sha256, ours: &dyn Fn(&[u8]) -> Verdict| {
        let (id, title) = (
            format!("policy.site.{name}"),
            format!("The site's {name} is the one that the policy pins, and the auditor's"),
        );
        let path = format!("{PLACE}/site/{name}");
        let verdict = match facts.read(&path) {
            Err(Unknown(why)) => Verdict::CouldNotCheck(why),
            Ok(None) => Verdict::Fail(format!("{path} is missing")),
            Ok(Some(bytes)) if Sha256::of(&bytes) != digest => Verdict::Fail(format!(
                "{path} is another than the policy pins: the host takes no update with it"
            )),
            Ok(Some(bytes)) => ours(&bytes),
        };
        Finding::new(id, title, verdict).fact("pinned", digest)
    };
    let root = |bytes: &[u8]| match way(bytes, &site.root, &Roots::new()) {
        _ if bytes == site.root => Verdict::Pass("byte for byte".to_owned()),
        Way::Leads => Verdict::Pass("another version of it, by signatures".to_owned()),
        Way::Gap => Verdict::CouldNotCheck(
            "it is another version than the auditor's, and versions between them are not here".to_owned(),
        ),
        Way::None => Verdict::Fail("it is another root than the auditor's".to_owned()),
    };
    let certificate = |bytes: &[u8]| match signing::digest::read_bounded(&site.release_certificate(), 1 << 20) {
        Ok(ours) if ours == bytes => Verdict::Pass("byte for byte".to_owned()),
        Ok(_) => Verdict::Fail("it is another certificate than the auditor's".to_owned()),
        Err(error) => Verdict::CouldNotCheck(format!("cannot read {}: {error}", site.release_certificate().display())),
    };
    [
        judged("root.json", pinned.root_sha256, &root),
        judged("release.asc", pinned.certificate_sha256, &certificate),
    ]
}

/// What the host remembers of the site, and whether the site approved what runs.
fn approvals(
    facts: &dyn Facts,
    vendor: Stored<'_>,
    site: &Trust,
    question: &Question<'_>,
    findings: &mut Vec<Finding>,
) -> Option<DateTime<Utc>> {
    let read = |name: &str| facts.read(&format!("{MEMORY}/{name}")).map_err(|Unknown(why)| why);
    let (id, title) = ("approval.given", "The site approves what the host took");
    let names = match facts.list(MEMORY) {
        Ok(names) => names.unwrap_or_default(),
        Err(Unknown(why)) => {
            findings.push(Finding::unknown(id, title, why));
            return None;
        }
    };
    let mut approved = Vec::new();
    let mut judged = Judged::default();
    if names.iter().any(|name| name.starts_with("timestamp.")) {
        let stored = || Stored {
            names: names.clone(),
            read: &read,
            roots: vendor.roots,
        };
        let followed = follow(stored(), &site.root).apart();
        let whose = ("The host's memory of the site", site);
        findings.extend(stored().findings(&followed, whose, question.now, &mut |_| Vec::new()));
        let offer = Offer {
            vendor,
            site: Some(stored()),
        };
        let Compared { findings: compared, .. } = compare(&mut judged, offer, site, *question);
        findings.extend(compared);
        if judged.agreed.is_some() {
            approved = followed.targets.iter().filter_map(described).collect();
        }
    } else {
        let why = "the host has taken no update, and no approval, since its installation";
        findings.push(Finding::not_applicable(id, title, why));
    }
    findings.push(runs(facts, &approved));
    judged.approval.map(|approval| approval.at)
}

/// The vendor's description of a target that the site approved.
fn described(target: &VerifiedTarget) -> Option<Custom> {
    let (_, vendors) = Approval::take(target.custom.as_ref()?).ok()?;
    serde_json::from_value(vendors.into()).ok()
}

fn runs(facts: &dyn Facts, approved: &[Custom]) -> Finding {
    let (id, title) = ("approval.running", "The release that runs was approved");
    let judged = || -> Known<Finding> {
        let hash = running_root_hash(facts)?;
        if let Some(custom) = approved.iter().find(|custom| custom.root_hash.to_string() == hash) {
            return Ok(Finding::pass(id, title, format!("release {}", custom.version)));
        }
        Ok(match installed(facts)? {
            Some(installed) if installed.to_string() == hash => Finding::not_applicable(
                id,
                title,
                "it runs since the installation, which is the vendor's word alone",
            ),
            _ => Finding::fail(
                id,
                title,
                format!("neither an approval nor the installation brought root hash {hash}"),
            ),
        })
    };
    judged().unwrap_or_else(|Unknown(why)| Finding::unknown(id, title, why))
}

/// The root hash of the release that the installer laid down.
fn installed(facts: &dyn Facts) -> Known<Option<Sha256>> {
    #[derive(Deserialize)]
    struct Record {
        plan: Plan,
    }
    #[derive(Deserialize)]
    struct Plan {
        release: Release,
    }
    #[derive(Deserialize)]
    struct Release {
        root_hash: Sha256,
    }
    let Some(bytes) = facts.read(RECORD)? else {
        return Ok(None);
    };
    match serde_json::from_slice::<Record>(&bytes) {
        Ok(record) => Ok(Some(record.plan.release.root_hash)),
        Err(error) => Err(Unknown(format!("{RECORD} is malformed: {error}"))),
    }
}
