// SPDX-License-Identifier: GPL-3.0-or-later
//! A host that demands the site's approval beside the vendor's signature.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use anyhow::Result;
use hypervisor::layout::Slot;
use hypervisor::slots::State;
use hypervisor::update::{Depth, Outcome};
use signing::output::Refused;
use signing::policy::{POLICY, Policy};
use signing::tuf::beside;
use support::drive::{install, repository, run};
use support::repository::Terms;
use support::{Host, Release, Site, common};
use tempfile::TempDir;

/// A host of both, its officers, and the vendor's repository with a new release.
fn two() -> Option<(Host, Site, Release, TempDir)> {
    let host = Host::install()?;
    let officers = Site::new();
    host.pin_site(&officers);
    let new = host.site.release("1.1.0", 2);
    let repository = repository(&host, &[&host.installed, &new], Terms::version(2));
    Some((host, officers, new, repository))
}

fn refused(result: Result<Outcome>, why: &str) {
    let error = result.unwrap_err();
    assert!(error.chain().any(|cause| cause.is::<Refused>()), "{error:#}");
    assert!(format!("{error:#}").contains(why), "{error:#}");
}

#[test]
fn what_both_signed_is_installed() {
    let Some((host, officers, new, repository)) = two() else {
        return;
    };
    officers.approve(
        repository.path(),
        &host.site,
        &[&host.installed, &new],
        Terms::version(1),
    );
    let outcome = install(&host, &repository).unwrap();
    assert!(matches!(outcome, Outcome::OnTrial { slot: Slot::B, .. }));
    assert!(host.content_is(Slot::B, &new));
}

#[test]
fn a_vendor_only_update_is_refused() {
    let Some((host, officers, new, repository)) = two() else {
        return;
    };
    let before = host.fingerprint();
    for depth in [Depth::VerifyOnly, Depth::Install] {
        refused(run(&host, &repository, depth), "not-approved: the trust policy demands");
    }
    // The officers approved the running release; the vendor's key, stolen, signs a newer one.
    let forged = forge(&host, &officers, &repository);
    refused(install(&host, &repository), "not-approved: the vendor's timestamp.json");
    assert_eq!(host.slots().get(Slot::B).state, State::Empty);
    assert_eq!(host.fingerprint(), before);
    // What the officers approve then is installed as if nothing had been.
    officers.approve(
        repository.path(),
        &host.site,
        &[&host.installed, &new, &forged],
        Terms::version(2),
    );
    install(&host, &repository).unwrap();
}

/// Approves the installed release alone, and then publishes a newer one as the vendor.
fn forge(host: &Host, officers: &Site, repository: &TempDir) -> Release {
    officers.approve(repository.path(), &host.site, &[&host.installed], Terms::version(1));
    let forged = host.site.release("1.2.0", 3);
    let new = host.site.release("1.1.0", 2);
    host.site
        .publish(repository.path(), &[&host.installed, &new, &forged], Terms::version(3));
    // The courier's bundle carries the forged metadata in place of the approved ones.
    fs::remove_dir_all(repository.path().join("site/vendor")).unwrap();
    support::common::copy(
        &repository.path().join("metadata"),
        &repository.path().join("site/vendor"),
    );
    forged
}

#[test]
fn an_approval_of_what_the_vendor_never_signed_is_refused() {
    let Some((host, officers, _, repository)) = two() else {
        return;
    };
    let own = host.site.release("1.3.0", 9);
    officers.approve(
        repository.path(),
        &host.site,
        &[&host.installed, &own],
        Terms::version(1),
    );
    refused(
        install(&host, &repository),
        "disagreement: vendor and site do not agree on host/1.3.0/",
    );
    // Nor does a site that nobody here pinned.
    let stranger = Site::stranger();
    stranger.approve(repository.path(), &host.site, &[&host.installed], Terms::version(1));
    refused(install(&host, &repository), "below-threshold");
    assert_eq!(host.slots().get(Slot::B).state, State::Empty);
}

/// The site's root wants two of its officers' OpenPGP certificates over each approval.
#[test]
fn one_officer_alone_approves_nothing() {
    let Some(host) = Host::install() else { return };
    let officers = Site::of_officers();
    host.pin_site(&officers);
    let new = host.site.release("1.1.0", 2);
    let repository = repository(&host, &[&host.installed, &new], Terms::version(2));
    let releases = [&host.installed, &new];
    officers.approve(repository.path(), &host.site, &releases, Terms::version(1));
    let before = host.fingerprint();
    refused(
        install(&host, &repository),
        "1 of the 2 certificates that must have signed",
    );
    assert_eq!(host.fingerprint(), before);
    let metadata = repository.path().join("site/metadata");
    let signatures = metadata.join(beside::timestamp(1));
    common::officer_adds("ben", &metadata.join("timestamp.json"), &signatures);
    let outcome = install(&host, &repository).unwrap();
    assert!(matches!(outcome, Outcome::OnTrial { slot: Slot::B, .. }));
    assert!(host.content_is(Slot::B, &new));
}

/// Nothing that is lost or exchanged makes the vendor's word suffice.
#[test]
fn the_policy_cannot_be_weakened_by_a_file() {
    let Some((host, _, _, repository)) = two() else { return };
    let place = host.machine.policy().join(POLICY);
    let good = fs::read(&place).unwrap();
    fs::write(&place, Policy::Vendor.to_file().unwrap()).unwrap();
    refused(install(&host, &repository), "not the one of the install record");
    fs::remove_file(&place).unwrap();
    assert!(format!("{:#}", install(&host, &repository).unwrap_err()).contains("cannot read the trust policy"));
    fs::write(&place, good).unwrap();

    let record = host.machine.state.join("install-record.json");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, format!("{text} ")).unwrap();
    refused(install(&host, &repository), "its signature does not hold");
    fs::remove_file(&record).unwrap();
    let error = install(&host, &repository).unwrap_err();
    assert!(
        format!("{error:#}").contains("cannot tell whom this host believes"),
        "{error:#}"
    );
    fs::write(&record, text).unwrap();

    let root = host.machine.policy().join("site/root.json");
    fs::write(&root, &host.site.root).unwrap();
    refused(install(&host, &repository), "not the one that the trust policy pins");
}
