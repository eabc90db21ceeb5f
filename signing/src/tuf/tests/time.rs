// SPDX-License-Identifier: GPL-3.0-or-later
//! What time it is: every state of the table, and the floor that only rises.

use std::time::Duration as Span;

use chrono::{DateTime, Duration, Utc};
use serde_json::json;

use super::super::time::{ClockState, State};
use super::super::{Client, Datastore, Limits, Time, TufError};
use super::fixture::{Files, Fixture, key, resign, today};
use crate::clock::{Reading, Uptime};

/// Days from the day on which the tests happen.
fn day(days: i64) -> DateTime<Utc> {
    today() + Duration::days(days)
}

/// A machine whose clock says this, and which cannot say how long it has run.
pub fn clock(time: DateTime<Utc>) -> Reading {
    Reading {
        clock: time,
        uptime: None,
    }
}

/// A machine whose clock is lost, in one of its starts, after so many days.
fn run(boot: &str, days: u64) -> Reading {
    Reading {
        uptime: Some(Uptime {
            boot: boot.to_owned(),
            since: Span::from_secs(days * 86_400),
        }),
        ..clock(DateTime::UNIX_EPOCH)
    }
}

/// A refresh at the time that the datastore decides on.
fn follow(files: &Files, store: Datastore, reading: &Reading) -> (Result<(), TufError>, Datastore) {
    let time = store.time(reading, None).unwrap();
    let mut client = Client::open(store, files.clone(), Limits::default(), time).unwrap();
    let result = client.refresh().and_then(|()| client.targets().map(drop));
    (result, client.into_datastore())
}

#[test]
fn the_table_of_states() {
    let fixture = Fixture::new();
    // The floor stands on the day before: when everything was signed.
    let store = fixture.accept(fixture.store());
    for (days, signed, expires, state, why) in [
        (0, -1, 30, State::Fresh, "the usual"),
        (0, -400, 30, State::Fresh, "signed long ago, for long"),
        (0, 1, 30, State::Fresh, "the signer's clock is a day ahead"),
        (
            -2,
            -1,
            30,
            State::Fresh,
            "the clock is behind the floor by no more than it may",
        ),
        (
            0,
            2,
            30,
            State::NotYetValid,
            "signed in the future of a clock that may be right",
        ),
        (0, -9, 0, State::Stale, "it expires at this very moment"),
        (0, -9, -1, State::Stale, "it had expired when the floor was reached"),
        (300, -1, 30, State::Stale, "the clock may be right"),
        (364, -9, 30, State::Stale, "the clock may still be right"),
        (365, -9, 30, State::ClockFarAhead, "the clock has run away by years"),
        (365, -9, 366, State::Fresh, "a clock far ahead that decides nothing"),
        (
            500,
            300,
            330,
            State::Stale,
            "its own signature shows that the clock is not so far ahead",
        ),
        (-4000, -1, 30, State::ClockBehindFloor, "the battery is empty"),
        (
            -4000,
            9,
            30,
            State::ClockBehindFloor,
            "the floor lags, and the signature is newer",
        ),
        (
            -4000,
            -9,
            -1,
            State::Stale,
            "a clock that was set back brings nothing back",
        ),
        (-4000, -9, -2, State::Stale, "nor does it here"),
    ] {
        let time = store.time(&clock(day(days)), None).unwrap();
        assert_eq!(time.judge(Some(day(signed)), day(expires)), state, "{why}");
        if state != State::NotYetValid {
            // Metadata of others, which does not say when it was signed.
            let expected = if days == 500 { State::ClockFarAhead } else { state };
            assert_eq!(time.judge(None, day(expires)), expected, "{why}");
        }
    }
}

#[test]
fn a_moment_that_the_caller_names_is_judged_by_expiry_alone() {
    let time = Time::from(day(0));
    for (signed, expires, state) in [(5, 30, State::Fresh), (-999, 0, State::Stale)] {
        assert_eq!(time.judge(Some(day(signed)), day(expires)), state);
    }
    assert_eq!((time.clock(), time.clock_state()), (None, ClockState::Plausible));
}

#[test]
fn the_clock_is_judged_by_the_floor() {
    let fixture = Fixture::new();
    let store = fixture.accept(fixture.store());
    for (days, now, state) in [
        (-4000, -1, ClockState::BehindFloor),
        (-3, -1, ClockState::BehindFloor),
        (-2, -1, ClockState::Plausible),
        (0, 0, ClockState::Plausible),
        (364, 364, ClockState::Plausible),
        (365, 365, ClockState::FarAhead),
    ] {
        let time = store.time(&clock(day(days)), None).unwrap();
        assert_eq!((time.now(), time.clock_state()), (day(now), state), "{days}");
    }
}

#[test]
fn the_floor_rises_with_what_was_verified_and_a_clock_moves_it_neither_way() {
    let fixture = Fixture::new();
    let mut store = fixture.accept(fixture.store());
    let floor = |store: &Datastore, days, built| store.time(&clock(day(days)), built).unwrap().floor().unwrap().time();
    assert_eq!(floor(&store, 0, None), day(-1));
    for days in [-20_000, 9_000, -20_000] {
        let time = store.time(&clock(day(days)), None).unwrap();
        store.keep_time(&time).unwrap();
        assert_eq!(floor(&store, days, None), day(-1), "the clock left a trace");
    }
    // A newer image raises it for good, whichever image is started later.
    let time = store.time(&clock(day(0)), Some(day(2))).unwrap();
    assert_eq!(time.now(), day(2));
    store.keep_time(&time).unwrap();
    assert_eq!(floor(&store, 0, Some(day(-50))), day(2));
}

#[test]
fn the_time_that_a_machine_runs_is_counted_whatever_its_clock_says() {
    let fixture = Fixture::new();
    let mut store = fixture.store();
    let mut step = |boot, days, floor| {
        let time = store.time(&run(boot, days), None).unwrap();
        assert_eq!(time.now(), day(floor), "{boot} {days}");
        store.keep_time(&time).unwrap();
    };
    step("first", 100, -1);
    step("first", 110, 9);
    step("first", 115, 14);
    // After a start, and on another machine, it is counted from there on.
    step("second", 3, 14);
    step("second", 4, 15);
    step("other machine", 4_000, 15);
    // Nothing counts backwards.
    step("other machine", 1, 15);
}

#[test]
fn a_clock_set_back_does_not_revive_what_expired_while_the_machine_ran() {
    let mut fixture = Fixture::new();
    let (result, store) = follow(&fixture.files, fixture.store(), &run("first", 1));
    result.unwrap();
    // A newer release that the host has not seen, valid for the same thirty days.
    fixture.release(2, &[("host/1.0.0/root.erofs", b"the second release")]);
    let (result, store) = follow(&fixture.files, store, &run("first", 20));
    result.unwrap();
    fixture.release(3, &[("host/1.0.0/root.erofs", b"the third release")]);
    let (result, _) = follow(&fixture.files, store, &run("first", 40));
    assert!(matches!(result, Err(TufError::Expired { .. })), "{result:?}");
}

#[test]
fn a_clock_set_ahead_by_a_year_and_put_right_locks_nobody_out() {
    let mut fixture = Fixture::new();
    let (result, store) = follow(&fixture.files, fixture.store(), &clock(day(0)));
    result.unwrap();
    let (result, store) = follow(&fixture.files, store, &clock(day(365)));
    assert!(matches!(
        result,
        Err(TufError::Expired { .. } | TufError::ClockFarAhead { .. })
    ));
    let (result, store) = follow(&fixture.files, store, &clock(day(3650)));
    let error = result.unwrap_err();
    assert!(matches!(error, TufError::ClockFarAhead { .. }), "{error}");
    assert!(error.is_refusal() && error.reason().contains("timedatectl set-time"));
    let (result, store) = follow(&fixture.files, store, &clock(day(1)));
    result.unwrap();
    fixture.release(2, &[("host/1.0.0/root.erofs", b"the second release")]);
    follow(&fixture.files, store, &clock(day(2))).0.unwrap();
}

#[test]
fn a_clock_years_behind_takes_what_is_newer_than_the_floor() {
    let fixture = Fixture::new();
    follow(&fixture.files, fixture.store(), &clock(day(-9000))).0.unwrap();
}

#[test]
fn what_is_signed_in_the_future_of_a_sound_clock_is_refused_and_not_trusted() {
    // The root that would raise the floor for good.
    let mut fixture = Fixture::new();
    let ahead = |signed: &mut serde_json::Value| signed["signed_at"] = json!("2030-06-01T00:00:00Z");
    let root = resign(&fixture.make_root(2, &[]), &[&fixture.root[0], &fixture.root[1]], ahead);
    fixture.put("2.root.json", root);
    let (result, store) = follow(&fixture.files, fixture.store(), &clock(day(0)));
    assert!(
        matches!(&result, Err(TufError::NotYetValid { role, .. }) if role == "root"),
        "{result:?}"
    );
    assert_eq!(store.root_version().unwrap(), 1);

    // The thief of the timestamp's key.
    let mut fixture = Fixture::new();
    let timestamp = resign(fixture.file("timestamp.json"), &[&fixture.timestamp], |signed| {
        signed["expires"] = json!("2031-01-01T00:00:00Z");
        ahead(signed);
    });
    fixture.put("timestamp.json", timestamp);
    let (result, store) = follow(&fixture.files, fixture.store(), &clock(day(0)));
    assert!(
        matches!(&result, Err(TufError::NotYetValid { role, .. }) if role == "timestamp"),
        "{result:?}"
    );
    assert_eq!(store.time(&clock(day(0)), None).unwrap().now(), day(0));
}

#[test]
fn a_stolen_online_key_cannot_push_the_floor_beyond_recovery() {
    let mut fixture = Fixture::new();
    let far = resign(fixture.file("timestamp.json"), &[&fixture.timestamp], |signed| {
        signed["expires"] = json!("2999-01-01T00:00:00Z");
        signed["signed_at"] = json!("2998-01-01T00:00:00Z");
        signed["version"] = json!(7);
    });
    fixture.put("timestamp.json", far);
    // The clock is lost, so that nothing speaks against the thief.
    let (result, store) = follow(&fixture.files, fixture.store(), &run("first", 0));
    result.unwrap();
    let (result, mut store) = follow(&fixture.files, store, &run("first", 0));
    assert!(matches!(result, Err(TufError::Expired { .. })), "{result:?}");
    // It is counted on and recorded, and still ends with the root that names the key.
    for days in 1..9 {
        let time = store.time(&run("first", days), None).unwrap();
        store.keep_time(&time).unwrap();
        assert!(time.now() < day(365), "the root is still valid at {}", time.now());
    }
    // The new root is accepted at that floor, and with the thief's key his floor is gone.
    fixture.timestamp = key();
    let later = resign(
        &fixture.make_root(2, &[]),
        &[&fixture.root[0], &fixture.root[1]],
        |signed| signed["expires"] = json!("2040-01-01T00:00:00Z"),
    );
    fixture.put("2.root.json", later);
    fixture.index(2, &[("host", 1), ("targets", 1)]);
    let (_, store) = follow(&fixture.files, store, &run("first", 9));
    assert_eq!(store.root_version().unwrap(), 2);
    assert_eq!(
        store.time(&run("first", 9), None).unwrap().now(),
        day(8),
        "what the custodians and the machine say"
    );
    follow(&fixture.files, store, &run("first", 9)).0.unwrap();
}

#[test]
fn an_altered_record_is_damage_and_not_an_empty_memory() {
    let fixture = Fixture::new();
    let directory = tempfile::tempdir().unwrap();
    let store = Datastore::create(directory.path(), fixture.file("1.root.json")).unwrap();
    let (result, store) = follow(&fixture.files, store, &run("first", 5));
    result.unwrap();
    drop(store);
    let place = directory.path().join("time.json");
    let good = std::fs::read_to_string(&place).unwrap();
    for bad in [
        String::new(),
        good.replace("\"format\": 1", "\"format\": 2"),
        good.replace("uptime", "downtime"),
        good.replace("2029", "early"),
    ] {
        assert_ne!(bad, good);
        std::fs::write(&place, bad).unwrap();
        let store = Datastore::open(directory.path()).unwrap();
        let error = store.time(&clock(day(0)), None).unwrap_err();
        assert!(matches!(error, TufError::DatastoreDamaged { .. }), "{error}");
    }
    std::fs::write(&place, good).unwrap();
    let store = Datastore::open(directory.path()).unwrap();
    assert_eq!(store.time(&run("first", 6), None).unwrap().now(), day(0));
}
