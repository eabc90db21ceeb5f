// SPDX-License-Identifier: GPL-3.0-or-later
//! The custodians' waiver for stale metadata: what it lifts, and every way in which it must not.

use chrono::Duration;
use serde_json::{Value, json};

use super::super::author::Signer;
use super::super::time::waiver::Draft;
use super::super::{Client, Datastore, Limits, TufError, Waiver};
use super::fixture::{Files, Fixture, resign, today};
use super::time::clock;
use crate::clock::Reading;

/// The day on which the metadata of the fixture, valid for thirty days, has been stale for ten.
fn late() -> Reading {
    clock(today() + Duration::days(40))
}

/// A waiver for what the repository offers, signed on the day by some of the root keys.
fn waiver(fixture: &Fixture, signers: &[usize], roles: &[&str]) -> Waiver {
    let mut client = Client::open(
        fixture.store(),
        fixture.files.clone(),
        Limits::default(),
        today() - Duration::days(9),
    )
    .unwrap();
    client.refresh().unwrap();
    client.targets().unwrap();
    let draft = Draft {
        signed_at: late().clock,
        until: late().clock + Duration::days(14),
        reason: "the publisher moves house".to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
    };
    let mut waiver = draft.write(client.trail()).unwrap();
    for &at in signers {
        waiver = waiver.sign(&fixture.root[at]).unwrap();
    }
    waiver
}

/// The waiver with another content, signed again by two root keys.
fn altered(fixture: &Fixture, waiver: &Waiver, change: impl FnOnce(&mut Value)) -> Result<Waiver, TufError> {
    let signers: [&dyn Signer; 2] = [&fixture.root[0], &fixture.root[1]];
    Waiver::read(&resign(waiver.bytes(), &signers, change))
}

fn follow(
    files: &Files,
    store: Datastore,
    reading: &Reading,
    waiver: Option<Waiver>,
) -> (Result<(), TufError>, Datastore) {
    let time = store.time(reading, None).unwrap().with_waiver(waiver);
    let mut client = Client::open(store, files.clone(), Limits::default(), time).unwrap();
    let result = client.refresh().and_then(|()| client.targets().map(drop));
    (result, client.into_datastore())
}

/// Demands that the waiver is refused with these words, and that nothing stale was trusted.
fn refused(fixture: &Fixture, reading: &Reading, waiver: Waiver, words: &str) {
    let (result, store) = follow(&fixture.files, fixture.store(), reading, Some(waiver));
    let error = result.unwrap_err();
    assert!(error.is_refusal(), "{error}");
    assert!(error.reason().contains(words), "{error}");
    assert!(
        store
            .used_waivers()
            .unwrap()
            .iter()
            .all(|used| !used.lifted.contains_key("host"))
    );
}

#[test]
fn stale_metadata_is_taken_with_a_waiver_only_and_the_use_is_recorded() {
    let fixture = Fixture::new();
    let (result, store) = follow(&fixture.files, fixture.store(), &late(), None);
    assert!(matches!(result, Err(TufError::Expired { .. })));
    let waiver = waiver(&fixture, &[0, 2], &[]);
    let roles: Vec<_> = waiver.roles.keys().map(String::as_str).collect();
    assert_eq!(
        roles,
        ["host", "snapshot", "targets", "timestamp"],
        "all that is stale by then"
    );
    let (result, store) = follow(&fixture.files, store, &late(), Some(waiver.clone()));
    result.unwrap();
    let used = store.used_waivers().unwrap();
    assert_eq!(used.len(), 1);
    assert_eq!(used[0].lifted, waiver.roles);
    assert_eq!((used[0].at, used[0].clock), (late().clock, Some(late().clock)));
    let again = used[0].waiver().unwrap();
    assert_eq!(again.verify(fixture.file("1.root.json")).unwrap(), used[0].signed_by);
    // It has come to the day on which the custodians signed it, and no clock brings it back.
    let time = store.time(&clock(today()), None).unwrap();
    assert_eq!(time.now(), waiver.signed_at);
    // The next update without it is refused again: a waiver is no habit.
    let (result, _) = follow(&fixture.files, store, &late(), None);
    assert!(matches!(result, Err(TufError::Expired { .. })));
}

#[test]
fn a_waiver_that_is_not_needed_is_not_used() {
    let fixture = Fixture::new();
    let waiver = waiver(&fixture, &[0, 1], &[]);
    // Its own day is ahead of this clock.
    refused(&fixture, &clock(today()), waiver.clone(), "not yet valid");
    let before = altered(&fixture, &waiver, |signed| {
        signed["signed_at"] = json!("2029-12-31T00:00:00Z")
    })
    .unwrap();
    let (result, store) = follow(&fixture.files, fixture.store(), &clock(today()), Some(before));
    result.unwrap();
    assert!(store.used_waivers().unwrap().is_empty());
}

#[test]
fn fewer_than_the_threshold_of_root_keys_waive_nothing() {
    let fixture = Fixture::new();
    refused(&fixture, &late(), waiver(&fixture, &[], &[]), "signed by 0 of the 2");
    refused(&fixture, &late(), waiver(&fixture, &[1], &[]), "signed by 1 of the 2");
    // Keys that the site has for other ends, and one root key.
    let unsigned = waiver(&fixture, &[1], &[]);
    for signer in [&fixture.timestamp, &fixture.snapshot, &fixture.targets, &fixture.host] {
        refused(
            &fixture,
            &late(),
            unsigned.sign(signer).unwrap(),
            "signed by 1 of the 2",
        );
    }
    // One key cannot sign twice.
    assert!(unsigned.sign(&fixture.root[1]).is_err());
    // A signature over other words.
    let mut file: Value = serde_json::from_slice(waiver(&fixture, &[0, 1], &[]).bytes()).unwrap();
    file["signed"]["reason"] = json!("because");
    let forged = Waiver::read(&serde_json::to_vec(&file).unwrap()).unwrap();
    refused(&fixture, &late(), forged, "signed by 0 of the 2");
}

#[test]
fn a_forged_waiver_is_refused_even_where_none_is_needed() {
    let fixture = Fixture::new();
    refused(
        &fixture,
        &clock(today()),
        waiver(&fixture, &[0], &[]),
        "signed by 1 of the 2",
    );
}

#[test]
fn a_waiver_ends_on_its_day_by_the_clock_and_by_the_floor() {
    let fixture = Fixture::new();
    let waiver = waiver(&fixture, &[0, 1], &[]);
    let end = waiver.until;
    refused(&fixture, &clock(end), waiver.clone(), "it ended at");
    // The clock is set back, and the machine knows better: its image was built after that day.
    let store = fixture.store();
    let time = store
        .time(&clock(today()), Some(end))
        .unwrap()
        .with_waiver(Some(waiver));
    let mut client = Client::open(store, fixture.files.clone(), Limits::default(), time).unwrap();
    let error = client.refresh().unwrap_err();
    assert!(error.reason().contains("it ended at"), "{error}");
}

#[test]
fn a_waiver_lifts_what_it_names_and_nothing_else() {
    let mut fixture = Fixture::new();
    // Not all of the stale roles.
    refused(
        &fixture,
        &late(),
        waiver(&fixture, &[0, 1], &["timestamp"]),
        "it does not lift snapshot",
    );
    // An old waiver with a bundle that was made later.
    let old = waiver(&fixture, &[0, 1], &[]);
    fixture.release(2, &[]);
    refused(
        &fixture,
        &late(),
        old,
        "it lifts timestamp version 1, and version 2 is offered",
    );
    // The same version with another content, signed by a thief of the online key.
    let mut fixture = Fixture::new();
    let honest = waiver(&fixture, &[0, 1], &[]);
    let other = resign(fixture.file("timestamp.json"), &[&fixture.timestamp], |signed| {
        signed["signed_at"] = json!("2029-12-30T00:00:00Z");
    });
    fixture.put("timestamp.json", other);
    refused(&fixture, &late(), honest, "it lifts another timestamp of version 1");
}

#[test]
fn a_waiver_with_an_old_bundle_does_not_undo_what_was_seen() {
    let mut fixture = Fixture::new();
    let old = fixture.files.clone();
    let waiver = waiver(&fixture, &[0, 1], &[]);
    fixture.release(2, &[]);
    let store = fixture.accept(fixture.store());
    let (result, _) = follow(&old, store, &late(), Some(waiver));
    assert!(matches!(result, Err(TufError::Rollback { .. })), "{result:?}");
}

#[test]
fn a_new_root_ends_all_waivers_of_the_old_one() {
    let mut fixture = Fixture::new();
    let waiver = waiver(&fixture, &[0, 1], &[]);
    fixture.put("2.root.json", fixture.make_root(2, &[0, 1]));
    refused(&fixture, &late(), waiver.clone(), "it was made for root 1");
    let other = Fixture::new();
    refused(&other, &late(), waiver, "it was made for root 1");
}

#[test]
fn root_itself_is_never_waived() {
    let fixture = Fixture::new();
    let waiver = waiver(&fixture, &[0, 1], &[]);
    let error = altered(&fixture, &waiver, |signed| {
        signed["roles"]["root"] = signed["root"].clone()
    })
    .unwrap_err();
    assert!(error.reason().contains("it lifts root"), "{error}");
    // By then the root has expired too.
    let much_later = clock(today() + Duration::days(366));
    let moved = altered(&fixture, &waiver, |signed| {
        signed["signed_at"] = json!("2031-01-01T00:00:00Z");
        signed["expires"] = json!("2031-02-01T00:00:00Z");
    });
    let (result, _) = follow(&fixture.files, fixture.store(), &much_later, Some(moved.unwrap()));
    assert!(
        matches!(&result, Err(TufError::Expired { role, .. } | TufError::ClockFarAhead { role, .. }) if role == "root"),
        "{result:?}"
    );
}

#[test]
fn only_a_whole_waiver_is_one() {
    type Change = fn(&mut Value);
    let fixture = Fixture::new();
    let waiver = waiver(&fixture, &[0, 1], &[]);
    let cases: [(&str, Change); 12] = [
        ("its type", |signed| signed["_type"] = json!("root")),
        ("unknown field", |signed| signed["for"] = json!("ever")),
        ("another version", |signed| signed["version"] = json!(2)),
        ("when it was signed", |signed| {
            signed.as_object_mut().unwrap().remove("signed_at");
        }),
        ("more than 90 days", |signed| {
            signed["expires"] = json!("2030-05-12T00:00:01Z")
        }),
        ("expires before it is signed", |signed| {
            signed["expires"] = json!("2030-02-10T00:00:00Z")
        }),
        ("lifts no role", |signed| signed["roles"] = json!({})),
        ("role name", |signed| signed["roles"][""] = signed["root"].clone()),
        ("version and sha256 alone", |signed| {
            signed["roles"]["host"]["any"] = json!(true)
        }),
        ("is not a digest", |signed| {
            signed["roles"]["host"]["sha256"] = json!("*")
        }),
        ("one line", |signed| signed["reason"] = json!("a\nb")),
        ("one line", |signed| signed["reason"] = json!("")),
    ];
    for (words, change) in cases {
        let error = altered(&fixture, &waiver, change).unwrap_err();
        assert!(error.reason().contains(words), "{words}: {error}");
    }
    // A waiver is no metadata, and metadata no waiver.
    assert!(Waiver::read(fixture.file("1.root.json")).is_err());
    assert!(Datastore::ephemeral(waiver.bytes()).is_err());
    let mut twice = String::from_utf8(waiver.bytes().to_vec()).unwrap();
    twice = twice.replacen("\"version\": 1", "\"version\": 1, \"version\": 1", 1);
    assert!(Waiver::read(twice.as_bytes()).is_err());
    assert!(Waiver::read(&[b' '; 70_000]).is_err());
}

#[test]
fn the_record_of_uses_is_bounded_and_its_damage_is_seen() {
    let fixture = Fixture::new();
    let waiver = waiver(&fixture, &[0, 1], &[]);
    let mut store = fixture.store();
    for hours in 0..70 {
        let at = clock(late().clock + Duration::hours(hours));
        let (result, kept) = follow(&fixture.files, store, &at, Some(waiver.clone()));
        result.unwrap();
        store = kept;
    }
    let used = store.used_waivers().unwrap();
    assert_eq!(used.len(), 64);
    assert_eq!(used[63].at, late().clock + Duration::hours(69));
    store.write("waivers.json", b"[]{}").unwrap();
    assert!(matches!(store.used_waivers(), Err(TufError::DatastoreDamaged { .. })));
}
