// SPDX-License-Identifier: GPL-3.0-or-later
//! A host that takes the vendor's word only with its site's: honest ones, and each way in which its policy or what it remembers
//! of the site was tampered with.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use chrono::Duration;
use hardening::facts::Recorded;
use hardening::report::{Report, Subject};
use hardening::trace::host::chain;
use hardening::trace::release::Question;
use hardening::trace::trust::Trust;
use hardening::verdict::Outcome;
use serde_json::json;
use signing::clock::now;
use signing::policy::{Policy, SiteFiles};
use support::host::Host;
use support::office::{Gateway, office};
use support::{bad, common, trust};

const POLICY: &str = "/state/bastide/trust/policy.json";
const MEMORY: &str = "/state/bastide/site-datastore";
const RECORD: &str = "/state/bastide/install-record.json";

/// A host that remembers what the next gateway remembers, for both are clients of one kind.
fn updated(gateway: &Gateway) -> Host {
    gateway.import(&gateway.export(), "next", Some(&office().trust_dir()));
    let mut host = installed();
    remember(&mut host, "/state/bastide/datastore", &gateway.at("next/datastore"));
    remember(&mut host, MEMORY, &gateway.at("next/site/datastore"));
    let other = signing::digest::Sha256::of(b"the release of the installation");
    host.text(RECORD, &json!({"plan": {"release": {"root_hash": other}}}).to_string());
    host
}

/// A host as the installer leaves it.
fn installed() -> Host {
    let mut host = Host::of(&support::honest());
    let site = office().trust_dir();
    let policy = Policy::VendorAndSite {
        site: SiteFiles::read(&site).unwrap().pinned(),
    };
    host.bytes(POLICY, &policy.to_file().unwrap());
    for name in ["root.json", "release.asc"] {
        let place = format!("/state/bastide/trust/site/{name}");
        host.bytes(&place, &fs::read(site.join(name)).unwrap());
    }
    host.absent(MEMORY);
    let root_hash = running(&host);
    host.text(
        RECORD,
        &json!({"plan": {"release": {"root_hash": root_hash}}}).to_string(),
    );
    host
}

fn running(host: &Host) -> String {
    host.lines().1.split("bastide.roothash=").nth(1).unwrap()[..64].to_owned()
}

fn remember(host: &mut Host, place: &str, memory: &Path) {
    let mut names = Vec::new();
    for file in common::files_below(memory) {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        host.bytes(&format!("{place}/{name}"), &fs::read(&file).unwrap());
        names.push(name);
    }
    names.sort();
    host.list(place, &names.iter().map(String::as_str).collect::<Vec<_>>());
}

fn audit(host: &Host, site: Option<&Path>, days: i64) -> Report {
    let directory = tempfile::tempdir().unwrap();
    host.record(directory.path());
    let facts = Recorded::open(directory.path()).unwrap();
    let vendor = Trust::open(&trust()).unwrap();
    let site = site.map(|site| Trust::open(site).unwrap());
    let at = now() + Duration::days(days);
    let question = Question {
        trust: &vendor,
        site: site.as_ref(),
        now: at,
        complete: false,
        upstream: None,
    };
    Report::new(Subject::new("host", "test"), at, chain(&facts, question))
}

fn ends(report: &Report, outcome: Outcome, id: &str, text: &str) {
    let found = report.findings(outcome).into_iter().any(|(_, finding)| {
        let said = finding.verdict.as_ref().map(|verdict| verdict.detail().to_owned());
        finding.id == id && said.is_some_and(|said| said.contains(text))
    });
    assert!(found, "no {id} that is {outcome} with {text:?}:\n{}", bad(report));
}

#[test]
fn an_honest_host_passes_before_and_after_its_first_update() {
    let gateway = Gateway::approved();
    let site = office().trust_dir();
    let before = audit(&installed(), Some(&site), 0);
    assert_eq!(before.outcome, Outcome::Pass, "{}", bad(&before));
    ends(
        &before,
        Outcome::NotApplicable,
        "approval.running",
        "since the installation",
    );
    let host = updated(&gateway);
    let after = audit(&host, Some(&site), 0);
    assert_eq!(after.outcome, Outcome::Pass, "{}", bad(&after));
    ends(&after, Outcome::Pass, "approval.running", "release 1.0.0");
    ends(&after, Outcome::Pass, "approval.agreement", "one length");
    // Without the site's trust directory nobody can tell.
    ends(&audit(&host, None, 0), Outcome::CouldNotCheck, "policy", "--site-trust");
    // A host of one sovereign where there ought to be two.
    let single = Host::of(&support::honest());
    assert_eq!(audit(&single, None, 0).outcome, Outcome::Pass);
    ends(
        &audit(&single, Some(&site), 0),
        Outcome::Fail,
        "policy",
        "the vendor's word alone",
    );
}

#[test]
fn a_policy_that_was_tampered_with_fails() {
    let site = office().trust_dir();
    let honest = installed();
    let refuse = |change: &dyn Fn(&mut Host), id: &str, why: &str| {
        let mut host = honest.clone();
        change(&mut host);
        ends(&audit(&host, Some(&site), 0), Outcome::Fail, id, why);
    };
    refuse(&|host| host.absent(POLICY), "policy", "is missing");
    refuse(&|host| host.text(POLICY, "{}"), "policy", "malformed");
    let weaker = Policy::Vendor.to_file().unwrap();
    refuse(&|host| host.bytes(POLICY, &weaker), "policy", "the vendor's word alone");
    for name in ["root.json", "release.asc"] {
        let (place, id) = (
            format!("/state/bastide/trust/site/{name}"),
            format!("policy.site.{name}"),
        );
        let other = fs::read(trust().join(name)).unwrap();
        refuse(&|host| host.bytes(&place, &other), &id, "another than the policy pins");
        refuse(&|host| host.absent(&place), &id, "is missing");
    }
    // Policy and files agree, on another site than the auditor's.
    let stranger = trust();
    let other = Policy::VendorAndSite {
        site: SiteFiles::read(&stranger).unwrap().pinned(),
    };
    let turned = |host: &mut Host| {
        host.bytes(POLICY, &other.to_file().unwrap());
        for name in ["root.json", "release.asc"] {
            let place = format!("/state/bastide/trust/site/{name}");
            host.bytes(&place, &fs::read(stranger.join(name)).unwrap());
        }
    };
    refuse(&turned, "policy.site.root.json", "another root than the auditor's");
    refuse(
        &turned,
        "policy.site.release.asc",
        "another certificate than the auditor's",
    );
}

#[test]
fn what_the_host_remembers_of_the_site_is_followed_from_the_auditors_root() {
    let gateway = Gateway::approved();
    let site = office().trust_dir();
    let honest = updated(&gateway);
    let mut host = honest.clone();
    host.edit(&format!("read {MEMORY}/targets.json"), "\"sig\"", "\"gis\"");
    ends(&audit(&host, Some(&site), 0), Outcome::Fail, "approval.given", "");
    // The site's memory of another vendor's metadata.
    let mut host = honest.clone();
    host.edit("read /state/bastide/datastore/targets.json", "\"sig\"", "\"gis\"");
    ends(&audit(&host, Some(&site), 0), Outcome::Fail, "approval.vendor", "");
    // A release that neither an approval nor the installation brought.
    let mut host = honest.clone();
    let (xen, kernel) = host.lines();
    host.command_lines(&xen, &kernel.replace(&running(&host), &"0".repeat(64)));
    ends(
        &audit(&host, Some(&site), 0),
        Outcome::Fail,
        "approval.running",
        "neither an approval",
    );
    // A memory that was taken away: what runs was not installed, and nothing approves it.
    let mut host = honest.clone();
    host.absent(MEMORY);
    ends(
        &audit(&host, Some(&site), 0),
        Outcome::Fail,
        "approval.running",
        "neither an approval",
    );
    let mut host = honest.clone();
    host.forget(&format!("list {MEMORY}"));
    ends(
        &audit(&host, Some(&site), 0),
        Outcome::CouldNotCheck,
        "approval.given",
        "",
    );
    let mut host = honest.clone();
    host.text(RECORD, "{}");
    host.absent(MEMORY);
    ends(
        &audit(&host, Some(&site), 0),
        Outcome::CouldNotCheck,
        "approval.running",
        "malformed",
    );
}

#[test]
fn the_vendor_is_judged_as_of_the_approval_and_the_site_as_of_now() {
    let gateway = Gateway::approved();
    gateway.resign_for(900, |_, _| ());
    let host = updated(&gateway);
    let report = audit(&host, Some(&office().trust_dir()), 500);
    ends(&report, Outcome::Pass, "approval.vendor", "as of");
    let stale: Vec<_> = [Outcome::Fail, Outcome::CouldNotCheck]
        .into_iter()
        .flat_map(|outcome| report.findings(outcome))
        .filter(|(section, _)| section.id == "signatures")
        .collect();
    assert!(stale.is_empty(), "{}", bad(&report));
}
