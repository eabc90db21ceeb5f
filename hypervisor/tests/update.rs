// SPDX-License-Identifier: GPL-3.0-or-later
//! Updates of a host on a disk image: made, cut off anywhere, kept and taken back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;

use anyhow::bail;
use hypervisor::confirm::{self, Guarded};
use hypervisor::events::{Event, Phase};
use hypervisor::layout::{self, Slot};
use hypervisor::slots::State;
use hypervisor::update::{self, Depth, Origin, Outcome, Step};
use offline_repo::repository::offer;
use signing::process::Cmd;
use support::drive::{install, repository, run, updated};
use support::repository::Terms;
use support::{AT_ONCE, Host, healthy, sick};

#[test]
fn an_update_is_tried_once_and_kept_when_healthy() {
    let Some((host, new)) = updated() else { return };
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

    let before = host.fingerprint();
    assert_eq!(confirm::rehearse_rollback(&host.machine).unwrap().slot, Slot::A);
    assert_eq!(host.fingerprint(), before);
    let back = confirm::rollback(&host.machine).unwrap();
    assert_eq!((back.slot, host.first()), (Slot::A, "Bastide A".into()));
    assert_eq!(host.esp(layout::FALLBACK_IMAGE).as_ref(), Some(&host.installed.xen));
}

#[test]
fn a_second_update_goes_back_into_the_first_slot() {
    let Some((host, new)) = updated() else { return };
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
    let Some((host, new)) = updated() else { return };
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
    let Some((host, _)) = updated() else { return };
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
    let Some(host) = Host::install() else { return };
    let new = host.site.release("1.1.0", 2);
    let repository = repository(&host, &[&new], Terms::version(2));
    let mut cut = |event: Event<Step>| {
        if event.step == Step::Record {
            bail!("power cut")
        } else {
            Ok(())
        }
    };
    update::update(&host.machine, offer(repository.path()), Depth::Install, &mut cut).unwrap_err();
    assert_eq!(host.slots().get(Slot::B).state, State::Empty);
    assert_eq!(host.would_start(), "Bastide B");
    host.start(&new);
    confirm::guard(&host.machine, AT_ONCE, healthy).unwrap();
    assert_eq!(host.slots().get(Slot::B).state, State::Confirmed);
    assert_eq!(host.slots().get(Slot::B).root_hash, Some(new.root_hash));
}

#[test]
fn a_power_cut_at_any_event_leaves_nothing_half_and_the_update_can_be_begun_again() {
    let Some(host) = Host::install() else { return };
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
        let result = update::update(&host.machine, offer(repository.path()), Depth::Install, &mut cut);
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

/// efibootmgr 17 and 18 refuse `--delete-bootnext` where there is no Boot0001.
#[test]
fn an_ordered_trial_is_taken_back_on_a_machine_without_boot0001() {
    let Some(host) = Host::install() else { return };
    host.firmware.add("0001", "A stick");
    let new = host.site.release("1.1.0", 2);
    install(&host, &repository(&host, &[&new], Terms::version(2))).unwrap();
    assert_eq!(host.firmware.next().as_deref(), Some("0002"));
    host.firmware.forget("0001");

    let third = host.site.release("1.2.0", 3);
    let repository = repository(&host, &[&third], Terms::version(3));
    let mut cut = |event: Event<Step>| {
        if (event.step, event.state) == (Step::Invalidate, Phase::Done) {
            bail!("power cut")
        } else {
            Ok(())
        }
    };
    let error = update::update(&host.machine, offer(repository.path()), Depth::Install, &mut cut).unwrap_err();
    assert!(format!("{error:#}").contains("power cut"), "{error:#}");
    assert_eq!(host.would_start(), "Bastide A");

    install(&host, &repository).unwrap();
    assert_eq!(
        (host.would_start(), host.first()),
        ("Bastide B".into(), "Bastide A".into())
    );
    host.assert_nothing_half(&third);
}

#[test]
fn a_dry_run_verifies_and_writes_nothing() {
    let Some(host) = Host::install() else { return };
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
fn a_dry_run_teaches_the_host_nothing() {
    let Some((host, _)) = updated() else { return };
    let third = host.site.release("1.2.0", 3);
    let older = repository(&host, &[&third], Terms::version(3));
    let newer = repository(&host, &[&third], Terms::version(4));
    let before = host.memory();
    assert!(before.len() > 3, "root, timestamp, snapshot and roles are remembered");
    run(&host, &newer, Depth::VerifyOnly).unwrap();
    assert_eq!(host.memory(), before);
    // What was only rehearsed is not held against an older repository, and what was installed is.
    install(&host, &older).unwrap();
    assert_ne!(host.memory(), before);
    let first = repository(&host, &[&third], Terms::version(1));
    let error = run(&host, &first, Depth::VerifyOnly).unwrap_err();
    assert!(format!("{error:#}").contains("rollback"), "{error:#}");
}

#[test]
fn a_host_that_lost_its_memory_says_so() {
    let Some((host, _)) = updated() else { return };
    let third = host.site.release("1.2.0", 3);
    let repository = repository(&host, &[&third], Terms::version(3));
    let warnings = |depth| {
        let mut told = Vec::new();
        let mut watch = |event: Event<Step>| {
            if event.state == Phase::Warning {
                told.push(event);
            }
            Ok(())
        };
        update::update(&host.machine, offer(repository.path()), depth, &mut watch).unwrap();
        told
    };
    assert_eq!(warnings(Depth::VerifyOnly), []);
    fs::remove_dir_all(host.machine.datastore()).unwrap();
    for depth in [Depth::VerifyOnly, Depth::Install] {
        let told = warnings(depth);
        let [event] = &told[..] else {
            panic!("{told:?}");
        };
        assert_eq!(
            event.to_string(),
            "verify metadata: warning: the host's memory of signed metadata was missing; began anew from the pinned root"
        );
        let line = serde_json::to_string(event).unwrap();
        assert!(
            line.contains("\"step\":\"verify\",\"state\":\"warning\",\"detail\":\"the host's memory"),
            "{line}"
        );
        // A rehearsal makes none.
        assert_eq!(host.machine.datastore().exists(), depth == Depth::Install);
    }
    assert_eq!(warnings(Depth::VerifyOnly), []);
}

#[test]
fn the_newest_release_needs_nothing() {
    let Some(host) = Host::install() else { return };
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
fn a_bundle_on_a_stick_is_found_and_installed() {
    let Some(host) = Host::install() else { return };
    let new = host.site.release("1.1.0", 2);
    let repository = repository(&host, &[&new], Terms::version(2));
    let image = repository.path().join("stick.img");
    let stick = support::stick(&image, &[("release.bundle", &support::bundle(repository.path()))]);
    let (source, mounted) = update::open(&host.machine, &Origin::Device(stick.0.clone())).unwrap();
    let place = host.machine.run.join("stick");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts
        .lines()
        .find(|line| line.contains(&*place.to_string_lossy()))
        .unwrap();
    for option in ["ro", "nodev", "nosuid", "noexec"] {
        assert!(line.split([' ', ',']).any(|word| word == option), "{line}");
    }
    let mut events = |_: Event<Step>| Ok(());
    let outcome = update::update(&host.machine, source, Depth::Install, &mut events).unwrap();
    assert!(matches!(outcome, Outcome::OnTrial { slot: Slot::B, .. }));
    host.assert_nothing_half(&new);
    assert!(host.content_is(Slot::B, &new));
    drop(mounted);
    assert!(fs::read_dir(place).unwrap().next().is_none(), "the stick is unmounted");
}

/// The recipe: deltas to the release that runs, and to one that does not.
#[test]
fn deltas_are_made_of_what_runs_and_of_nothing_else() {
    let Some(host) = Host::install() else { return };
    let new = host.site.release("1.1.0", 2);
    let repository = repository(&host, &[&new], Terms::version(2));
    let update = |deltas: Vec<u8>| {
        let file = repository.path().join("release.bundle");
        fs::write(&file, deltas).unwrap();
        let (source, _) = update::open(&host.machine, &Origin::File(file)).unwrap();
        update::update(&host.machine, source, Depth::Install, &mut |_: Event<Step>| Ok(()))
    };
    let before = host.fingerprint();
    let foreign = host.site.release("0.9.0", 9);
    // The boot image is the first that is looked at.
    let mut other_root = host.site.release("0.9.0", 9);
    other_root.xen.clone_from(&host.installed.xen);
    for held in [foreign, other_root] {
        let refused = update(support::deltas(repository.path(), &held)).unwrap_err();
        assert!(signing::output::is_refusal(&refused), "{refused:#}");
        assert!(refused.to_string().contains("no-base: "), "{refused:#}");
        assert_eq!(host.fingerprint(), before);
    }
    let outcome = update(support::deltas(repository.path(), &host.installed)).unwrap();
    assert!(matches!(outcome, Outcome::OnTrial { slot: Slot::B, .. }));
    host.assert_nothing_half(&new);
    assert!(host.content_is(Slot::B, &new));
}

/// What the parser of efibootmgr's output is tested on.
#[test]
fn the_recorded_output_is_what_efibootmgr_prints() {
    if !support::is_root() {
        return;
    }
    let said = Cmd::new("efibootmgr").arg("--version").output().unwrap();
    let recorded = match said.as_slice() {
        b"version 17\n" => include_str!("fixtures/efibootmgr-17.txt"),
        b"version 18\n" => include_str!("fixtures/efibootmgr-18.txt"),
        other => {
            eprintln!("could not check: {} was not recorded", String::from_utf8_lossy(other));
            return;
        }
    };
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/efibootmgr-record.sh");
    let printed = Cmd::new("sh").arg(recipe).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&printed), recorded);
}
