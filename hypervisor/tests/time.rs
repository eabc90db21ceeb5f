// SPDX-License-Identifier: GPL-3.0-or-later
//! A host whose clock is wrong, both ways, and the custodians' waiver.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use anyhow::Result;
use chrono::{DateTime, TimeDelta};
use hypervisor::events::{Event, Phase};
use hypervisor::timekeeping::TimeStatus;
use hypervisor::update::{self, Depth, Order, Outcome, Step};
use offline_repo::repository::offer;
use signing::clock::{self, Reading};
use signing::output::Refused;
use signing::tuf::Waiver;
use signing::tuf::time::ClockState;
use support::Host;
use support::drive::{install, repository};
use support::repository::Terms;
use tempfile::TempDir;

fn behind() -> Reading {
    DateTime::UNIX_EPOCH.into()
}

fn ahead() -> Reading {
    (clock::now() + TimeDelta::days(1500)).into()
}

/// An update, and the warnings that were told on the way.
fn told(host: &Host, repository: &TempDir, order: Order) -> (Result<Outcome>, Vec<String>) {
    let mut warnings = Vec::new();
    let outcome = update::update(&host.machine, offer(repository.path()), order, &mut |event: Event<
        Step,
    >| {
        if event.state == Phase::Warning {
            warnings.push(event.detail);
        }
        Ok(())
    });
    (outcome, warnings)
}

fn refused(result: Result<Outcome>, words: &str) {
    let error = result.unwrap_err();
    assert!(error.chain().any(|cause| cause.is::<Refused>()), "{error:#}");
    assert!(format!("{error:#}").contains(words), "{error:#}");
}

#[test]
fn a_clock_years_ahead_is_named_and_once_right_locks_nobody_out() {
    let Some(mut host) = Host::install() else { return };
    let new = host.site.release("1.1.0", 2);
    let repository = repository(&host, &[&host.installed, &new], Terms::version(2));
    host.machine.clock = ahead;
    let before = host.fingerprint();
    let (result, warnings) = told(&host, &repository, Depth::Install.into());
    refused(result, "clock-far-ahead: ");
    assert!(warnings[0].contains("timedatectl set-time"), "{warnings:?}");
    assert_eq!(host.fingerprint(), before);
    assert_eq!(TimeStatus::record(&host.machine).unwrap().state, ClockState::FarAhead);
    host.machine.clock = clock::read;
    let status = TimeStatus::read(&host.machine).unwrap();
    assert_eq!((status.state, status.complaint), (ClockState::Plausible, None));
    assert!(matches!(install(&host, &repository).unwrap(), Outcome::OnTrial { .. }));
}

#[test]
fn a_clock_years_behind_updates_by_the_floor_and_brings_nothing_stale_back() {
    let Some(mut host) = Host::install() else { return };
    host.machine.clock = behind;
    let stale = Terms {
        version: 2,
        // Before the root was signed, which the host knows.
        expires: clock::now() - TimeDelta::days(3),
    };
    let old = host.site.release("1.1.0", 2);
    let (result, _) = told(&host, &repository(&host, &[&old], stale), Depth::Install.into());
    refused(result, "authentic but stale");

    let new = host.site.release("1.2.0", 3);
    let fresh = repository(&host, &[&host.installed, &new], Terms::version(3));
    let (result, warnings) = told(&host, &fresh, Depth::Install.into());
    assert!(matches!(result.unwrap(), Outcome::OnTrial { .. }));
    assert!(warnings[0].contains("is wrong: it is"), "{warnings:?}");
    // What it has verified is what it knows of the time now.
    let status = TimeStatus::read(&host.machine).unwrap();
    assert_eq!(status.state, ClockState::BehindFloor);
    assert!(clock::now() - status.now < TimeDelta::days(1), "{status:?}");
}

#[test]
fn a_waiver_lets_the_host_take_what_is_stale_and_is_seen_in_its_status() {
    let Some(host) = Host::install() else { return };
    let new = host.site.release("1.1.0", 2);
    let terms = Terms {
        version: 2,
        expires: clock::now() - TimeDelta::days(1),
    };
    let stale = repository(&host, &[&host.installed, &new], terms);
    let order = |waiver: &Waiver, depth| Order {
        depth,
        waiver: Some(waiver.clone()),
    };
    let waiver = host.site.waiver(stale.path(), 2);
    let by_one = host.site.waiver(stale.path(), 1);
    let before = host.fingerprint();
    refused(told(&host, &stale, Depth::Install.into()).0, "authentic but stale");
    refused(
        told(&host, &stale, order(&by_one, Depth::Install)).0,
        "signed by 1 of the 2",
    );
    let (result, warnings) = told(&host, &stale, order(&waiver, Depth::VerifyOnly));
    assert!(matches!(result.unwrap(), Outcome::Verified { .. }));
    assert!(
        warnings
            .iter()
            .any(|line| line.contains("timestamp 2 (the courier is late)")),
        "{warnings:?}"
    );
    assert_eq!(host.fingerprint(), before);
    assert!(TimeStatus::read(&host.machine).unwrap().waivers.is_empty());

    assert!(matches!(
        told(&host, &stale, order(&waiver, Depth::Install)).0.unwrap(),
        Outcome::OnTrial { .. }
    ));
    let used = TimeStatus::read(&host.machine).unwrap().waivers;
    assert_eq!(
        (used.len(), used[0].lifted.as_slice()),
        (1, &["timestamp 2".to_owned()][..])
    );
    assert_eq!(
        (used[0].reason.as_str(), used[0].signed_by.len()),
        ("the courier is late", 2)
    );
    let text = hypervisor::status::collect(&host.machine).text();
    assert!(text.contains("stale metadata was taken"), "{text}");
}
