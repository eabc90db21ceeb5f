// SPDX-License-Identifier: GPL-3.0-or-later
//! What a host refuses, with its reason in one line and no harm.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use chrono::TimeDelta;
use hypervisor::confirm;
use hypervisor::events::Event;
use hypervisor::layout::Slot;
use hypervisor::slots::State;
use hypervisor::update::{self, Depth, Origin, Outcome, Step};
use signing::clock;
use signing::output::is_refusal;
use support::Host;
use support::drive::{install, repository, updated};
use support::repository::{Terms, boot_image};
use tempfile::TempDir;

/// The reason, after checking that it is a refusal (exit code 3) of one line.
fn refusal(result: Result<Outcome>) -> String {
    let error = result.unwrap_err();
    let refused = is_refusal(&error);
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

#[test]
fn an_older_release_is_refused() {
    let Some(host) = Host::install() else { return };
    let old = host.site.release("0.9.0", 9);
    let repository = repository(&host, &[&old], Terms::version(2));
    refused_and_unharmed(&host, &repository, "0.9.0, older than 1.0.0 that runs");
}

#[test]
fn another_release_under_the_running_version_is_refused() {
    let Some(host) = Host::install() else { return };
    let other = host.site.release("1.0.0", 9);
    let repository = repository(&host, &[&other], Terms::version(2));
    refused_and_unharmed(&host, &repository, "another root hash");
}

#[test]
fn older_metadata_is_refused_after_newer_was_seen() {
    let Some((host, _)) = updated() else { return };
    let newest = host.site.release("1.2.0", 3);
    let repository = repository(&host, &[&newest], Terms::version(1));
    refused_and_unharmed(&host, &repository, "rollback");
}

#[test]
fn expired_metadata_is_refused_as_stale() {
    let Some(host) = Host::install() else { return };
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
    let Some(host) = Host::install() else { return };
    let stranger = support::Site::stranger();
    let new = stranger.release("1.1.0", 2);
    let directory = tempfile::tempdir().unwrap();
    stranger.publish(directory.path(), &[&new], Terms::version(2));
    refused_and_unharmed(&host, &directory, "is signed by 0 of the");
}

#[test]
fn a_boot_image_of_a_foreign_key_is_refused_before_anything_is_written() {
    let Some(host) = Host::install() else { return };
    let foreign = support::Site::stranger().release("1.1.0", 2);
    let repository = repository(&host, &[&foreign], Terms::version(2));
    refused_and_unharmed(&host, &repository, "Secure Boot key (db)");
}

#[test]
fn an_unsigned_boot_image_is_refused() {
    let Some(host) = Host::install() else { return };
    let mut new = host.site.release("1.1.0", 2);
    new.xen = boot_image(&new.root_hash);
    let repository = repository(&host, &[&new], Terms::version(2));
    refused_and_unharmed(&host, &repository, "not signed");
}

#[test]
fn a_boot_image_for_another_root_is_refused() {
    let Some(host) = Host::install() else { return };
    let mut new = host.site.release("1.1.0", 2);
    new.xen = host.installed.xen.clone();
    let repository = repository(&host, &[&new], Terms::version(2));
    refused_and_unharmed(&host, &repository, "does not start the root file system");
}

#[test]
fn a_release_larger_than_the_slot_is_refused() {
    let Some(host) = Host::install() else { return };
    let mut new = host.site.release("1.1.0", 2);
    new.root.resize(9 * support::MIB as usize, 7);
    let repository = repository(&host, &[&new], Terms::version(2));
    refused_and_unharmed(&host, &repository, "must be installed anew");
}

#[test]
fn a_flipped_bit_in_a_target_leaves_an_empty_slot_and_the_host_unharmed() {
    let Some(host) = Host::install() else { return };
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
    let Some(host) = Host::install() else { return };
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
    let Some((host, new)) = updated() else { return };
    host.start(&new);
    let next = host.site.release("1.2.0", 3);
    let repository = repository(&host, &[&next], Terms::version(3));
    refused_and_unharmed(&host, &repository, "slot b runs and is trial");
}

#[test]
fn a_slot_in_use_is_not_written() {
    let Some(host) = Host::install() else { return };
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
    nix::mount::umount2(place.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
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

#[test]
fn a_stick_without_a_bundle_or_with_two_is_refused() {
    let Some(host) = Host::install() else { return };
    let directory = tempfile::tempdir().unwrap();
    let open = |stick: &support::Loop| {
        let error = update::open(&host.machine, &Origin::Device(stick.0.clone()))
            .err()
            .unwrap();
        format!("{error:#}")
    };
    let empty = support::stick(&directory.path().join("empty.img"), &[("notes.txt", b"hello")]);
    assert!(open(&empty).contains("no file NAME.bundle"));
    let two = support::stick(
        &directory.path().join("two.img"),
        &[("a.bundle", b""), ("b.bundle", b"")],
    );
    assert!(open(&two).contains("a.bundle, b.bundle"));
    let image = directory.path().join("raw.img");
    fs::write(&image, vec![0; 4 << 20]).unwrap();
    assert!(open(&support::Loop::of(&image)).contains("no file system"));
}

#[test]
fn a_bundle_that_is_cut_short_is_refused_and_harms_nothing() {
    let Some(host) = Host::install() else { return };
    let new = host.site.release("1.1.0", 2);
    let repository = repository(&host, &[&new], Terms::version(2));
    let whole = support::bundle(repository.path());
    let place = repository.path().join("cut.bundle");
    for part in [whole.len() / 2, 5000, 512, 1] {
        fs::write(&place, &whole[..part]).unwrap();
        let result = update::open(&host.machine, &Origin::File(place.clone())).and_then(|(source, _)| {
            update::update(&host.machine, source, Depth::Install, &mut |_: Event<Step>| Ok(()))
        });
        refusal(result);
        host.assert_nothing_half(&new);
    }
    let before = host.fingerprint();
    assert_eq!(host.slots().get(Slot::B).state, State::Empty);
    assert_eq!(host.fingerprint(), before);
}

#[test]
fn a_new_root_below_its_threshold_is_refused() {
    let Some(host) = Host::install() else { return };
    let new = host.site.release("1.1.0", 2);
    let repository = repository(&host, &[&new], Terms::version(2));
    host.site.offer_root_by_one_key(repository.path());
    refused_and_unharmed(&host, &repository, "below-threshold: root is signed by 1 of the 2 keys");
}

#[test]
fn a_flipped_bit_in_a_bundle_is_refused_wherever_it_is() {
    let Some(host) = Host::install() else { return };
    let new = host.site.release("1.1.0", 2);
    let repository = repository(&host, &[&new], Terms::version(2));
    let whole = support::bundle(repository.path());
    let place = repository.path().join("flipped.bundle");
    for at in [whole.len() / 3, whole.len() / 2, whole.len() * 9 / 10] {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs::write(&place, &bytes).unwrap();
        let result = update::open(&host.machine, &Origin::File(place.clone())).and_then(|(source, _)| {
            update::update(&host.machine, source, Depth::Install, &mut |_: Event<Step>| Ok(()))
        });
        refusal(result);
        host.assert_nothing_half(&new);
    }
}

#[test]
fn an_esp_without_room_is_named_before_anything_is_written() {
    let Some(host) = Host::install() else { return };
    let mut new = host.site.release("1.1.0", 2);
    new.xen = host.site.padded_boot_image(&new.root_hash, 9 << 20);
    let repository = repository(&host, &[&new], Terms::version(2));
    let before = host.fingerprint();
    let error = install(&host, &repository).unwrap_err();
    assert!(format!("{error:#}").contains("has no room"), "{error:#}");
    assert_eq!(host.fingerprint(), before);
    assert!(host.esp_is_read_only());
}

#[test]
fn a_full_state_is_named_and_leaves_nothing_half() {
    let Some(host) = Host::install() else { return };
    let new = host.site.release("1.1.0", 2);
    let repository = repository(&host, &[&new], Terms::version(2));
    let filler = host.machine.state_mount.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    // To the last block: a large write that does not fit leaves room for smaller ones.
    for size in [1 << 20, 4096] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
    drop(file);
    let error = install(&host, &repository).unwrap_err();
    assert!(format!("{error:#}").contains("No space left"), "{error:#}");
    host.assert_nothing_half(&new);
    assert_eq!(host.slots().get(Slot::A).state, State::Confirmed);
    fs::remove_file(filler).unwrap();
    assert!(matches!(install(&host, &repository).unwrap(), Outcome::OnTrial { .. }));
}

#[test]
fn a_record_of_slots_that_is_cut_or_foreign_is_named_and_nothing_is_written() {
    let Some(host) = Host::install() else { return };
    let new = host.site.release("1.1.0", 2);
    let repository = repository(&host, &[&new], Terms::version(2));
    let place = host.machine.slots_file();
    let whole = fs::read(&place).unwrap();
    let before = host.fingerprint();
    for foreign in [&whole[..whole.len() / 2], b"", b"[]", &[0xff; 4096]] {
        fs::write(&place, foreign).unwrap();
        let said = [
            install(&host, &repository).map(drop),
            confirm::rollback(&host.machine).map(drop),
            confirm::confirm(&host.machine, support::AT_ONCE, support::healthy).map(drop),
        ];
        for error in said.map(Result::unwrap_err) {
            assert!(format!("{error:#}").contains("slots.json"), "{error:#}");
        }
    }
    fs::write(&place, whole).unwrap();
    assert_eq!(host.fingerprint(), before);
}

#[test]
fn two_updates_at_once_are_not_made() {
    let Some(host) = Host::install() else { return };
    let new = host.site.release("1.1.0", 2);
    let repository = repository(&host, &[&new], Terms::version(2));
    let _other = confirm::lock(&host.machine).unwrap();
    let error = install(&host, &repository).unwrap_err();
    assert!(format!("{error:#}").contains("locked by another process"), "{error:#}");
}
