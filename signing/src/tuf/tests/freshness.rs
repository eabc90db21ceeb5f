// SPDX-License-Identifier: GPL-3.0-or-later
//! Rollback, freeze and fast forward.

use chrono::Duration;
use serde_json::json;

use super::super::{Client, Limits, TufError};
use super::fixture::{Fixture, key, resign, today};

const ROOT: &str = "host/1.0.0/root.erofs";

fn rolled_back(error: &TufError, wanted: &str) {
    assert!(
        matches!(error, TufError::Rollback { role, .. } if role == wanted),
        "{error}"
    );
    assert!(error.is_refusal());
}

/// A repository at version 2 and a client that has seen it.
fn second() -> (Fixture, super::super::Datastore) {
    let mut fixture = Fixture::new();
    fixture.release(2, &[(ROOT, b"the second release")]);
    let store = fixture.accept(fixture.store());
    (fixture, store)
}

#[test]
fn rollback_of_the_timestamp_is_refused() {
    let (mut fixture, store) = second();
    fixture.stamp(1, 1);
    rolled_back(&fixture.refuse(store), "timestamp");
}

#[test]
fn rollback_of_the_snapshot_is_refused() {
    let (mut fixture, store) = second();
    fixture.stamp(3, 1);
    rolled_back(&fixture.refuse(store), "snapshot");
}

#[test]
fn rollback_of_targets_and_of_host_is_refused() {
    let (mut fixture, store) = second();
    fixture.index(3, &[("host", 2), ("targets", 1)]);
    rolled_back(&fixture.refuse(store), "targets");

    let (mut fixture, store) = second();
    fixture.index(3, &[("host", 1), ("targets", 2)]);
    rolled_back(&fixture.refuse(store), "host");
}

#[test]
fn a_role_that_disappears_from_the_snapshot_is_refused() {
    let (mut fixture, store) = second();
    fixture.index(3, &[("targets", 2)]);
    assert!(matches!(fixture.refuse(store), TufError::RoleRemoved { role } if role == "host"));
}

#[test]
fn rollback_of_the_root_is_refused() {
    let mut fixture = Fixture::new();
    fixture.put("2.root.json", fixture.file("1.root.json").to_vec());
    rolled_back(&fixture.refuse_new(), "root");

    fixture.put("2.root.json", fixture.make_root(3, &[0, 1]));
    assert!(matches!(
        fixture.refuse_new(),
        TufError::VersionMismatch {
            named: 2,
            offered: 3,
            ..
        }
    ));
}

#[test]
fn a_refused_rollback_leaves_the_memory_as_it_was() {
    let (mut fixture, store) = second();
    let newest = fixture.files.clone();
    fixture.stamp(1, 1);
    let mut client = fixture.client(store);
    assert!(client.refresh().is_err());
    let store = client.into_datastore();
    fixture.files = newest;
    fixture.accept(store);
}

#[test]
fn the_last_version_there_can_be_ends_nothing() {
    let mut fixture = Fixture::new();
    let last = resign(
        fixture.file("1.root.json"),
        &[&fixture.root[0], &fixture.root[1]],
        |signed| {
            signed["version"] = json!(i64::MAX);
        },
    );
    fixture.put("1.root.json", last);
    fixture.accept(fixture.store());
}

#[test]
fn freeze_each_expired_role_is_refused_by_name() {
    for (name, role) in [
        ("1.root.json", "root"),
        ("timestamp.json", "timestamp"),
        ("1.snapshot.json", "snapshot"),
        ("1.targets.json", "targets"),
        ("1.host.json", "host"),
    ] {
        let mut fixture = Fixture::new();
        let signers: &[&dyn super::super::author::Signer] = match role {
            "root" => &[&fixture.root[0], &fixture.root[1]],
            "timestamp" => &[&fixture.timestamp],
            "snapshot" => &[&fixture.snapshot],
            "targets" => &[&fixture.targets],
            _ => &[&fixture.host],
        };
        // It expires at the very start of the update: only later would do.
        let expired = resign(fixture.file(name), signers, |signed| {
            signed["expires"] = json!("2030-01-01T00:00:00Z")
        });
        fixture.put(name, expired);
        match role {
            "snapshot" => fixture.stamp(1, 1),
            "targets" | "host" => fixture.index(1, &[("host", 1), ("targets", 1)]),
            _ => {}
        }
        let error = fixture.refuse_new();
        assert!(
            matches!(&error, TufError::Expired { role: found, .. } if found == role),
            "{error}"
        );
    }
}

#[test]
fn an_expired_root_in_the_middle_of_the_chain_does_not_matter() {
    let mut fixture = Fixture::new();
    let signers: [&dyn super::super::author::Signer; 2] = [&fixture.root[0], &fixture.root[1]];
    let old = |signed: &mut serde_json::Value| signed["expires"] = json!("2029-12-31T00:00:01Z");
    let first = resign(&fixture.make_root(1, &[]), &signers, old);
    let second = resign(&fixture.make_root(2, &[]), &signers, old);
    fixture.put("1.root.json", first);
    fixture.put("2.root.json", second);
    assert!(matches!(fixture.refuse_new(), TufError::Expired { .. }));
    fixture.put("3.root.json", fixture.make_root(3, &[0, 1]));
    fixture.accept(fixture.store());
}

#[test]
fn a_trusted_timestamp_that_has_expired_still_allows_a_new_one() {
    let mut fixture = Fixture::new();
    let store = fixture.accept(fixture.store());
    let later = today() + Duration::days(40);
    let mut client = Client::open(store, fixture.files.clone(), Limits::default(), later).unwrap();
    assert!(matches!(client.refresh(), Err(TufError::Expired { .. })));
    let store = client.into_datastore();
    fixture.release(2, &[(ROOT, b"the second release")]);
    let expires = |signed: &mut serde_json::Value| signed["expires"] = json!("2030-06-01T00:00:00Z");
    for (name, signer) in [("2.host.json", &fixture.host), ("2.targets.json", &fixture.targets)] {
        let renewed = resign(&fixture.files.metadata[name], &[signer], expires);
        fixture.files.metadata.insert(name.to_owned(), renewed);
    }
    fixture.index(2, &[("host", 2), ("targets", 2)]);
    let snapshot = resign(fixture.file("2.snapshot.json"), &[&fixture.snapshot], expires);
    fixture.put("2.snapshot.json", snapshot);
    fixture.stamp(2, 2);
    let timestamp = resign(fixture.file("timestamp.json"), &[&fixture.timestamp], expires);
    fixture.put("timestamp.json", timestamp);
    let mut client = Client::open(store, fixture.files.clone(), Limits::default(), later).unwrap();
    client.refresh().unwrap();
}

/// Root 2 with a new key for the timestamp or the snapshot.
fn rotate(fixture: &mut Fixture, timestamp: bool) {
    if timestamp {
        fixture.timestamp = key();
    } else {
        fixture.snapshot = key();
    }
    fixture.put("2.root.json", fixture.make_root(2, &[0, 1]));
}

#[test]
fn fast_forward_is_recovered_from_by_rotating_a_key() {
    for timestamp in [true, false] {
        let mut fixture = Fixture::new();
        let honest = fixture.files.clone();
        // The thief of the online keys burns the versions.
        fixture.release(1_000_000, &[(ROOT, b"the first release")]);
        let store = fixture.accept(fixture.store());
        fixture.files = honest;
        let mut client = fixture.client(store);
        rolled_back(&client.refresh().unwrap_err(), "timestamp");
        let store = client.into_datastore();
        rotate(&mut fixture, timestamp);
        fixture.index(2, &[("host", 1), ("targets", 1)]);
        fixture.accept(store);
    }
}
