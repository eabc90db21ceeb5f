// SPDX-License-Identifier: GPL-3.0-or-later
//! Updates of a host on a disk image: made, refused, cut off anywhere, kept and taken back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use chrono::TimeDelta;
use hypervisor::confirm::{self, Guarded};
use hypervisor::events::{Event, Phase};
use hypervisor::layout::{self, Slot};
use hypervisor::slots::State;
use hypervisor::update::{self, Depth, Outcome, Step};
use signing::clock;
use signing::output::Refused;
use signing::tuf::{DirectorySource, TufError};
use support::repository::{Terms, boot_image};
use support::{AT_ONCE, Host, Release, healthy, sick};
use tempfile::TempDir;

fn repository(host: &Host, releases: &[&Release], terms: Terms) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    host.site.publish(directory.path(), releases, terms);
    directory
}

fn run(host: &Host, repository: &TempDir, depth: Depth) -> Result<Outcome> {
    let mut events = |_: Event<Step>| Ok(());
    update::update(
        &host.machine,
        DirectorySource::below(repository.path()),
        depth,
        &mut events,
    )
}

fn install(host: &Host, repository: &TempDir) -> Result<Outcome> {
    run(host, repository, Depth::Install)
}

/// The reason, after checking that it is a refusal (exit code 3) of one line.
fn refusal(result: Result<Outcome>) -> String {
    let error = result.unwrap_err();
    let refused = error
        .chain()
        .any(|cause| cause.is::<Refused>() || cause.downcast_ref::<TufError>().is_some_and(TufError::is_refusal));
    let text = format!("{error:#}");
    assert!(refused, "no refusal: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// A refusal that leaves everything as it was.
fn refused_and_unharmed(host: &Host, repository: &TempDir, reason: &str) {
    let before = host.fingerprint();
    let text = refusal(install(host, repository));
    assert!(text.contains(reason), "{text}");
    assert_eq!(host.fingerprint(), before);
}

fn updated() -> (Host, Release) {
    let host = Host::install();
    let new = host.site.release("1.1.0", 2);
    let repository = repository(&host, &[&host.installed, &new], Terms::version(2));
    install(&host, &repository).unwrap();
    (host, new)
}

#[test]
fn an_update_is_tried_once_and_kept_when_healthy() {
    let (host, new) = updated();
    assert!(host.content_is(Slot::B, &new));
    assert!(host.table().slot(Slot::B).unwrap().hold(&new.root_hash));
    assert_eq!(host.slots().get(Slot::B).state, State::Trial);
    assert_eq!(
        (host.would_start(), host.first()),
        ("Bastide B".into(), "Bastide A".into())
    );
    host.assert_nothing_half(&new);

    host.start(&new);
    assert!(matches!(
        confirm::guard(&host.machine, AT_ONCE, healthy).unwrap(),
        Guarded::Kept { slot: Slot::B }
    ));
    assert_eq!(host.first(), "Bastide B");
    assert_eq!(host.order(), ["0001", "0003", "0000"]);
    assert_eq!(host.esp(layout::FALLBACK_IMAGE), Some(new.xen.clone()));
    assert_eq!(host.slots().get(Slot::B).state, State::Confirmed);
    assert_eq!(host.slots().get(Slot::B).version, Some(new.version));
    assert!(host.esp_is_read_only());

    let back = confirm::rollback(&host.machine).unwrap();
    assert_eq!((back.slot, host.first()), (Slot::A, "Bastide A".into()));
    assert_eq!(host.esp(layout::FALLBACK_IMAGE).as_ref(), Some(&host.installed.xen));
}

#[test]
fn a_second_update_goes_back_into_the_first_slot() {
    let (host, new) = updated();
    host.start(&new);
    confirm::confirm(&host.machine, AT_ONCE, healthy).unwrap();
    // Ordered and not started: the update must not overwrite what would start.
    confirm::rollback(&host.machine).unwrap();
    let third = host.site.release("1.2.0", 3);
    let repository = repository(&host, &[&third], Terms::version(3));
    assert!(matches!(
        install(&host, &repository).unwrap(),
        Outcome::OnTrial { slot: Slot::A, .. }
    ));
    assert_eq!(
        (host.first(), host.would_start()),
        ("Bastide B".into(), "Bastide A".into())
    );
    assert!(host.content_is(Slot::A, &third) && host.content_is(Slot::B, &new));
}

#[test]
fn a_release_that_is_not_healthy_goes_back() {
    let (host, new) = updated();
    host.start(&new);
    let Guarded::GoBack { slot, reason } = confirm::guard(&host.machine, AT_ONCE, sick).unwrap() else {
        panic!("it was kept");
    };
    assert_eq!((slot, reason.as_str()), (Slot::B, "xenstored: it does not answer"));
    assert_eq!(
        (host.first(), host.would_start()),
        ("Bastide A".into(), "Bastide A".into())
    );
    assert_eq!(host.slots().get(Slot::B).state, State::Bad);
    assert!(
        confirm::confirm(&host.machine, AT_ONCE, healthy)
            .unwrap_err()
            .to_string()
            .contains("found bad")
    );

    host.start(&host.installed);
    assert!(matches!(
        confirm::guard(&host.machine, AT_ONCE, healthy).unwrap(),
        Guarded::Looked { other_failed: None, .. }
    ));
    assert!(
        confirm::rollback(&host.machine)
            .unwrap_err()
            .to_string()
            .contains("it is bad")
    );
    // What was bad may be tried again when somebody asks for it.
    let repository = repository(&host, &[&new], Terms::version(3));
    install(&host, &repository).unwrap();
    host.assert_nothing_half(&new);
}

#[test]
fn a_trial_that_never_came_up_is_found_by_the_old_slot() {
    let (host, _) = updated();
    // The order for the next start still stands: nothing has failed yet.
    assert!(matches!(
        confirm::guard(&host.machine, AT_ONCE, healthy).unwrap(),
        Guarded::Looked { other_failed: None, .. }
    ));
    assert_eq!(host.slots().get(Slot::B).state, State::Trial);
    // The firmware took it, and the old slot is up again.
    host.start(&host.installed);
    let guarded = confirm::guard(&host.machine, AT_ONCE, healthy).unwrap();
    assert!(matches!(
        guarded,
        Guarded::Looked {
            other_failed: Some(Slot::B),
            ..
        }
    ));
    assert_eq!(host.slots().get(Slot::B).state, State::Bad);
}

#[test]
fn a_cut_before_the_record_is_still_a_trial() {
    let host = Host::install();
    let new = host.site.release("1.1.0", 2);
    let repository = repository(&host, &[&new], Terms::version(2));
    let mut cut = |event: Event<Step>| {
        if event.step == Step::Record {
            bail!("power cut")
        } else {
            Ok(())
        }
    };
    update::update(
        &host.machine,
        DirectorySource::below(repository.path()),
        Depth::Install,
        &mut cut,
    )
    .unwrap_err();
    assert_eq!(host.slots().get(Slot::B).state, State::Empty);
    assert_eq!(host.would_start(), "Bastide B");
    host.start(&new);
    confirm::guard(&host.machine, AT_ONCE, healthy).unwrap();
    assert_eq!(host.slots().get(Slot::B).state, State::Confirmed);
    assert_eq!(host.slots().get(Slot::B).root_hash, Some(new.root_hash));
}

#[test]
fn a_power_cut_at_any_event_leaves_nothing_half_and_the_update_can_be_begun_again() {
    let host = Host::install();
    let new = host.site.release("1.1.0", 2);
    let repository = repository(&host, &[&new], Terms::version(2));
    let mut cuts = 0;
    loop {
        let mut left = cuts;
        let mut last = None;
        let mut cut = |event: Event<Step>| {
            last = Some((event.step, event.state));
            if left == 0 {
                bail!("power cut")
            }
            left -= 1;
            Ok(())
        };
        let result = update::update(
            &host.machine,
            DirectorySource::below(repository.path()),
            Depth::Install,
            &mut cut,
        );
        host.assert_nothing_half(&new);
        if result.is_ok() {
            assert_eq!(last, Some((Step::Record, Phase::Done)));
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 24, "only {cuts} places to cut were seen");
    assert_eq!(host.slots().get(Slot::B).state, State::Trial);
}

#[test]
fn a_dry_run_verifies_and_writes_nothing() {
    let host = Host::install();
    let new = host.site.release("1.1.0", 2);
    let repository = repository(&host, &[&new], Terms::version(2));
    let before = host.fingerprint();
    let outcome = run(&host, &repository, Depth::VerifyOnly).unwrap();
    assert_eq!(
        outcome,
        Outcome::Verified {
            version: new.version,
            root_hash: new.root_hash,
            slot: Slot::B
        }
    );
    assert_eq!(host.fingerprint(), before);
}

#[test]
fn the_newest_release_needs_nothing() {
    let host = Host::install();
    let repository = repository(&host, &[&host.installed], Terms::version(2));
    let before = host.fingerprint();
    assert_eq!(
        install(&host, &repository).unwrap(),
        Outcome::UpToDate {
            version: host.installed.version
        }
    );
    assert_eq!(host.fingerprint(), before);
}

#[test]
fn an_older_release_is_refused() {
    let host = Host::install();
    let old = host.site.release("0.9.0", 9);
    let repository = repository(&host, &[&old], Terms::version(2));
    refused_and_unharmed(&host, &repository, "0.9.0, older than 1.0.0 that runs");
}

#[test]
fn another_release_under_the_running_version_is_refused() {
    let host = Host::install();
    let other = host.site.release("1.0.0", 9);
    let repository = repository(&host, &[&other], Terms::version(2));
    refused_and_unharmed(&host, &repository, "another root hash");
}

#[test]
fn older_metadata_is_refused_after_newer_was_seen() {
    let (host, _) = updated();
    let newest = host.site.release("1.2.0", 3);
    let repository = repository(&host, &[&newest], Terms::version(1));
    refused_and_unharmed(&host, &repository, "rollback");
}

#[test]
fn expired_metadata_is_refused_as_stale() {
    let host = Host::install();
    let new = host.site.release("1.1.0", 2);
    let terms = Terms {
        version: 2,
        expires: clock::now() - TimeDelta::days(1),
    };
    let repository = repository(&host, &[&new], terms);
    refused_and_unharmed(&host, &repository, "authentic but stale");
}

#[test]
fn metadata_of_another_site_is_refused() {
    let host = Host::install();
    let stranger = support::Site::new();
    let new = stranger.release("1.1.0", 2);
    let directory = tempfile::tempdir().unwrap();
    stranger.publish(directory.path(), &[&new], Terms::version(2));
    refused_and_unharmed(&host, &directory, "is signed by 0 of the 1 keys");
}

#[test]
fn a_boot_image_of_a_foreign_key_is_refused_before_anything_is_written() {
    let host = Host::install();
    let foreign = support::Site::new().release("1.1.0", 2);
    let repository = repository(&host, &[&foreign], Terms::version(2));
    refused_and_unharmed(&host, &repository, "would not start under Secure Boot");
}

#[test]
fn an_unsigned_boot_image_is_refused() {
    let host = Host::install();
    let mut new = host.site.release("1.1.0", 2);
    new.xen = boot_image(&new.root_hash);
    let repository = repository(&host, &[&new], Terms::version(2));
    refused_and_unharmed(&host, &repository, "not signed");
}

#[test]
fn a_boot_image_for_another_root_is_refused() {
    let host = Host::install();
    let mut new = host.site.release("1.1.0", 2);
    new.xen = host.installed.xen.clone();
    let repository = repository(&host, &[&new], Terms::version(2));
    refused_and_unharmed(&host, &repository, "does not start the root file system");
}

#[test]
fn a_release_larger_than_the_slot_is_refused() {
    let host = Host::install();
    let mut new = host.site.release("1.1.0", 2);
    new.root.resize(9 * support::MIB as usize, 7);
    let repository = repository(&host, &[&new], Terms::version(2));
    refused_and_unharmed(&host, &repository, "must be installed anew");
}

#[test]
fn a_flipped_bit_in_a_target_leaves_an_empty_slot_and_the_host_unharmed() {
    let host = Host::install();
    let new = host.site.release("1.1.0", 2);
    let repository = repository(&host, &[&new], Terms::version(2));
    let place = target_file(repository.path(), "root.erofs");
    let mut bytes = fs::read(&place).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&place, bytes).unwrap();
    let text = refusal(install(&host, &repository));
    assert!(text.contains("root.erofs") && text.contains("digest"), "{text}");
    host.assert_nothing_half(&new);
    assert_eq!(host.slots().get(Slot::B).state, State::Empty);
}

#[test]
fn a_truncated_target_leaves_an_empty_slot() {
    let host = Host::install();
    let new = host.site.release("1.1.0", 2);
    let repository = repository(&host, &[&new], Terms::version(2));
    let place = target_file(repository.path(), "root.verity");
    let bytes = fs::read(&place).unwrap();
    fs::write(&place, &bytes[..bytes.len() / 2]).unwrap();
    refusal(install(&host, &repository));
    host.assert_nothing_half(&new);
    assert_eq!(host.slots().get(Slot::B).state, State::Empty);
}

#[test]
fn a_slot_on_trial_is_not_updated_from() {
    let (host, new) = updated();
    host.start(&new);
    let next = host.site.release("1.2.0", 3);
    let repository = repository(&host, &[&next], Terms::version(3));
    refused_and_unharmed(&host, &repository, "slot b runs and is trial");
}

#[test]
fn a_slot_in_use_is_not_written() {
    let host = Host::install();
    let new = host.site.release("1.1.0", 2);
    let repository = repository(&host, &[&new], Terms::version(2));
    let node = host.table().slot(Slot::B).unwrap().root.node;
    signing::process::Cmd::new("mkfs.ext4")
        .args(["-q", "-F"])
        .arg(&node)
        .run()
        .unwrap();
    let place = tempfile::tempdir().unwrap();
    signing::process::Cmd::new("mount")
        .arg(&node)
        .arg(place.path())
        .run()
        .unwrap();
    let error = install(&host, &repository);
    nix::mount::umount(place.path()).unwrap();
    assert!(format!("{:#}", error.unwrap_err()).contains("busy"));
}

fn target_file(repository: &Path, part: &str) -> PathBuf {
    let directory = repository.join("targets/host/1.1.0");
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().ends_with(part))
        .unwrap()
}
