// SPDX-License-Identifier: GPL-3.0-or-later
//! A host as the image makes it passes, and every rule of the profile has a host that breaks it.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use hardening::facts::Recorded;
use hardening::profile::{Profile, Rule};
use hardening::report::{Report, Subject};
use hardening::trace::host::host;
use hardening::trace::release::Question;
use hardening::trace::trust::Trust;
use hardening::verdict::{Outcome, Verdict};
use signing::clock::now;
use support::bad;
use support::host::{Host, SLOT_B, UPPER};

fn good() -> Host {
    Host::of(&support::honest())
}

fn recorded(host: &Host) -> (tempfile::TempDir, Recorded) {
    let directory = tempfile::tempdir().unwrap();
    host.record(directory.path());
    let recorded = Recorded::open(directory.path()).unwrap();
    (directory, recorded)
}

fn audit(subject: &Host) -> Report {
    let (_directory, facts) = recorded(subject);
    let profile = Profile::shipped("base").unwrap();
    let trust = Trust::open(&support::trust()).unwrap();
    Report::new(
        Subject::new("host", "test"),
        now(),
        host(&facts, &profile, question(&trust)),
    )
}

fn question(trust: &Trust) -> Question<'_> {
    Question {
        trust,
        site: None,
        now: now(),
        complete: false,
        upstream: None,
    }
}

fn assert_ends(report: &Report, id: &str, outcome: Outcome, text: &str) {
    let hit = report.findings(outcome).into_iter().any(|(_, finding)| {
        finding.id == id
            && finding
                .verdict
                .as_ref()
                .is_some_and(|verdict| verdict.detail().contains(text))
    });
    assert!(hit, "no {id} that is {outcome} with {text:?}:\n{}", bad(report));
}

#[test]
fn a_host_as_the_image_makes_it_passes() {
    let report = audit(&good());
    assert_eq!(report.outcome, Outcome::Pass, "{}", bad(&report));
}

#[test]
fn every_rule_has_a_host_that_breaks_it() {
    let profile = Profile::shipped("base").unwrap();
    let good = good();
    for check in &profile.checks {
        let broken = good.broken(&check.rule);
        assert!(
            !broken.is_empty() || matches!(check.rule, Rule::NotHere { .. }),
            "{} has no tampered host",
            check.id
        );
        for (number, (host, text)) in broken.iter().enumerate() {
            let (_directory, facts) = recorded(host);
            let verdict = hardening::check::judge(check, &facts);
            assert!(
                matches!(&verdict, Verdict::Fail(why) if why.contains(text)),
                "{} {} ({number}): {text:?} expected, {verdict:?} found",
                check.id,
                check.title
            );
        }
    }
}

#[test]
fn what_cannot_be_read_is_never_a_pass() {
    let profile = Profile::shipped("base").unwrap();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("index.json"), r#"{"format":1,"answers":{}}"#).unwrap();
    let nothing = Recorded::open(directory.path()).unwrap();
    for check in &profile.checks {
        let verdict = hardening::check::judge(check, &nothing);
        let fine = matches!(verdict, Verdict::CouldNotCheck(_))
            || (matches!(verdict, Verdict::NotApplicable(_)) && matches!(check.rule, Rule::NotHere { .. }));
        assert!(fine, "{}: {verdict:?}", check.id);
    }
}

#[test]
fn a_check_of_xen_does_not_apply_without_xen() {
    let mut host = good();
    host.absent("/sys/hypervisor/type");
    let report = audit(&host);
    assert_ends(&report, "XEN-01", Outcome::NotApplicable, "does not run under Xen");
}

#[test]
fn a_log_without_its_beginning_proves_nothing() {
    let mut host = good();
    host.run("xl dmesg", "(XEN) later\n");
    assert_ends(&audit(&host), "XEN-03", Outcome::CouldNotCheck, "overwritten");
}

#[test]
fn another_root_than_a_signed_one_fails() {
    let mut host = good();
    let (xen, kernel) = host.lines();
    let other = "0".repeat(64);
    let hash = kernel.split("bastide.roothash=").nth(1).unwrap()[..64].to_owned();
    host.command_lines(&xen, &kernel.replace(&hash, &other));
    assert_ends(&audit(&host), "running.root", Outcome::Fail, "no release");
}

#[test]
fn a_trust_record_that_was_altered_fails() {
    let mut host = good();
    host.edit("read /state/bastide/datastore/role.host.json", "\"sig\"", "\"gis\"");
    let report = audit(&host);
    assert_ends(&report, "tuf.stopped", Outcome::Fail, "");
    assert_ends(&report, "running.root", Outcome::CouldNotCheck, "no verified metadata");
    let mut host = good();
    host.text("/usr/share/bastide/trust/root.json", "{}");
    assert_ends(&audit(&host), "running.trust", Outcome::Fail, "another root");
}

#[test]
fn an_image_that_trusts_another_site_fails() {
    let other = support::common::other_site().join("trust");
    let mut host = good();
    host.image_trust(&other);
    let report = audit(&host);
    assert_ends(&report, "running.trust", Outcome::Fail, "another root");
    assert_ends(&report, "running.trust.others", Outcome::Fail, "db.der is another");
    let mut host = good();
    let certificate = fs::read(other.join("release.asc")).unwrap();
    host.bytes("/usr/share/bastide/trust/release.asc", &certificate);
    let report = audit(&host);
    assert_ends(&report, "running.trust", Outcome::Pass, "byte for byte");
    assert_ends(&report, "running.trust.others", Outcome::Fail, "release.asc is another");
    let mut host = good();
    host.forget("list /usr/share/bastide/trust");
    assert_ends(&audit(&host), "running.trust.others", Outcome::CouldNotCheck, "");
}

#[test]
fn a_boot_image_on_the_disk_that_nobody_signed_fails() {
    let mut host = good();
    host.found("all", "/boot/efi", Host::entry(SLOT_B, "file", 0o755, b"evil"));
    assert_ends(
        &audit(&host),
        &format!("esp.{SLOT_B}"),
        Outcome::Fail,
        "no verified metadata",
    );
    let mut host = good();
    host.found(
        "all",
        "/boot/efi",
        Host::entry("/boot/efi/EFI/evil.efi", "file", 0o755, b"evil"),
    );
    assert_ends(&audit(&host), "esp./boot/efi/EFI/evil.efi", Outcome::Fail, "no place");
    let mut host = good();
    host.absent("/boot/efi");
    assert_ends(&audit(&host), "esp", Outcome::CouldNotCheck, "nothing is mounted");
}

#[test]
fn a_second_certificate_in_the_firmware_fails() {
    let db = "/sys/firmware/efi/efivars/db-d719b2cb-3d3a-4596-a3bc-dad00e67656f";
    let pk = "/sys/firmware/efi/efivars/PK-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    let bytes = |name: &str| {
        let certificate = fs::read(support::trust().join(name)).unwrap();
        let certificate = signing::secureboot::Certificate::from_der(&certificate).unwrap();
        signing::secureboot::signature_list(signing::secureboot::Guid([7; 16]), &certificate).unwrap()
    };
    let mut host = good();
    host.bytes(db, &[&[39, 0, 0, 0][..], &bytes("db.der"), &bytes("kek.der")].concat());
    assert_ends(&audit(&host), "firmware.db", Outcome::Fail, "also trusted");
    let mut host = good();
    host.bytes(pk, &[&[39, 0, 0, 0][..], &bytes("db.der")].concat());
    assert_ends(&audit(&host), "firmware.PK", Outcome::Fail, "does not hold");
    let mut host = good();
    host.absent(pk);
    assert_ends(&audit(&host), "firmware.PK", Outcome::Fail, "no variable");
}

#[test]
fn drift_is_told_by_what_it_decides() {
    let mut host = good();
    host.found(
        "all",
        UPPER,
        Host::entry(
            &format!("{UPPER}/pam.d/sshd"),
            "file",
            0o644,
            b"auth sufficient pam_permit.so",
        ),
    );
    host.found(
        "all",
        UPPER,
        Host::entry(&format!("{UPPER}/motd"), "file", 0o644, b"hello"),
    );
    host.found(
        "all",
        UPPER,
        Host::entry(&format!("{UPPER}/nftables.conf"), "whiteout", 0, b""),
    );
    let report = audit(&host);
    assert_ends(&report, "/etc/pam.d/sshd", Outcome::Fail, "decides over access");
    assert_ends(&report, "/etc/nftables.conf", Outcome::Fail, "removed");
    assert_ends(&report, "/etc/motd", Outcome::CouldNotCheck, "read it");
    assert_ends(&report, "/etc/hostname", Outcome::Pass, "every host has its own");
}

/// A recording of a real host: an image of ours under Xen 4.20 in QEMU, whose firmware was left in setup mode, whose boot
/// image was not signed and whose setuid bits were still there. Recipe: `bastide-audit host --record DIR --trust TRUST`.
#[test]
fn a_recording_of_a_real_host_is_judged_as_it_was() {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recorded-host");
    let facts = Recorded::open(&place).unwrap();
    let profile = Profile::shipped("base").unwrap();
    let mut not_passed = Vec::new();
    for check in &profile.checks {
        match hardening::check::judge(check, &facts) {
            Verdict::Pass(_) | Verdict::NotApplicable(_) => {}
            Verdict::Fail(_) => not_passed.push(format!("{} fails", check.id)),
            Verdict::CouldNotCheck(why) => not_passed.push(format!("{} unknown: {why}", check.id)),
        }
    }
    assert_eq!(not_passed, ["BOOT-01 fails", "PERM-13 fails"]);
}
