// SPDX-License-Identifier: GPL-3.0-or-later
//! Content that is not what was signed, and metadata that is not what it seems.

use serde_json::json;

use super::super::limits::SameVersion;
use super::super::{Client, Datastore, Limits, TufError};
use super::fixture::{Fixture, today};
use crate::digest::Sha256;

const ROOT: &str = "host/1.0.0/root.erofs";

fn install(fixture: &Fixture) -> Result<Vec<u8>, TufError> {
    let mut client = fixture.client(fixture.store());
    let target = client.target(ROOT)?.expect("the target is known");
    let mut content = Vec::new();
    client.fetch(&target, &mut content).map(|()| content)
}

#[test]
fn an_honest_repository_is_installed_from() {
    let fixture = Fixture::new();
    assert_eq!(install(&fixture).unwrap(), b"the first release");
}

#[test]
fn arbitrary_installation_other_content_of_the_same_length() {
    let mut fixture = Fixture::new();
    for content in fixture.files.targets.values_mut() {
        content[0] ^= 1;
    }
    assert!(matches!(install(&fixture), Err(TufError::HashMismatch { .. })));
}

#[test]
fn arbitrary_installation_truncated_content() {
    let mut fixture = Fixture::new();
    for content in fixture.files.targets.values_mut() {
        content.pop();
    }
    assert!(matches!(install(&fixture), Err(TufError::Length { .. })));
}

#[test]
fn endless_data_in_a_target_stops_at_its_length() {
    let mut fixture = Fixture::new();
    fixture.files.endless = fixture.files.targets.keys().next().cloned();
    assert!(matches!(install(&fixture), Err(TufError::Length { .. })));
}

#[test]
fn endless_data_in_any_metadata_file_stops_at_the_limit() {
    for name in [
        "2.root.json",
        "timestamp.json",
        "1.snapshot.json",
        "1.targets.json",
        "1.host.json",
    ] {
        let mut fixture = Fixture::new();
        fixture.files.endless = Some(name.to_owned());
        assert!(matches!(fixture.refuse_new(), TufError::Length { .. }), "{name}");
    }
}

#[test]
fn mix_and_match_a_signed_snapshot_that_the_timestamp_does_not_name() {
    let mut fixture = Fixture::new();
    let before = fixture.file("1.snapshot.json").to_vec();
    fixture.release(2, &[(ROOT, b"the second release")]);
    // Properly signed, but of another moment.
    fixture.put("2.snapshot.json", before);
    // Its length may differ as well as its digest.
    assert!(matches!(
        fixture.refuse_new(),
        TufError::HashMismatch { .. } | TufError::Length { .. }
    ));
}

#[test]
fn mix_and_match_an_older_role_under_a_newer_name() {
    let mut fixture = Fixture::new();
    let before = fixture.file("1.host.json").to_vec();
    fixture.release(2, &[(ROOT, b"the 2nd release!!")]);
    fixture.put("2.host.json", before);
    assert!(matches!(
        fixture.refuse_new(),
        TufError::HashMismatch { .. } | TufError::Length { .. }
    ));
}

#[test]
fn mix_and_match_an_older_role_when_no_digest_is_named() {
    let mut fixture = Fixture::new();
    let before = fixture.file("1.host.json").to_vec();
    fixture.release(2, &[(ROOT, b"the second release")]);
    fixture.put("2.host.json", before);
    let snapshot = super::fixture::resign(fixture.file("2.snapshot.json"), &[&fixture.snapshot], |signed| {
        signed["meta"]["host.json"] = json!({"version": 2});
    });
    fixture.put("2.snapshot.json", snapshot);
    fixture.stamp(2, 2);
    let error = fixture.refuse_new();
    assert!(
        matches!(&error, TufError::VersionMismatch { role, named: 2, offered: 1 } if role == "host"),
        "{error}"
    );
}

#[test]
fn a_missing_file_makes_the_copy_incomplete() {
    for name in ["timestamp.json", "1.snapshot.json", "1.targets.json", "1.host.json"] {
        let mut fixture = Fixture::new();
        fixture.files.metadata.remove(name);
        assert!(matches!(fixture.refuse_new(), TufError::Missing { .. }), "{name}");
    }
}

#[test]
fn a_role_that_the_snapshot_does_not_list_is_not_used() {
    let mut fixture = Fixture::new();
    fixture.index(2, &[("targets", 1)]);
    assert!(matches!(fixture.refuse_new(), TufError::NotInSnapshot { .. }));
}

#[test]
fn sha512_is_checked_where_it_is_named() {
    let mut fixture = Fixture::new();
    let host = super::fixture::resign(fixture.file("1.host.json"), &[&fixture.host], |signed| {
        signed["targets"][ROOT]["hashes"]["sha512"] = json!("00".repeat(64));
    });
    fixture.put("1.host.json", host);
    fixture.index(2, &[("host", 1), ("targets", 1)]);
    assert!(matches!(install(&fixture), Err(TufError::HashMismatch { .. })));

    let mut fixture = Fixture::new();
    let snapshot = super::fixture::resign(fixture.file("1.snapshot.json"), &[&fixture.snapshot], |signed| {
        signed["meta"]["host.json"]["hashes"]["sha512"] = json!("00".repeat(64));
    });
    fixture.put("1.snapshot.json", snapshot);
    fixture.stamp(2, 1);
    assert!(matches!(fixture.refuse_new(), TufError::HashMismatch { .. }));
}

#[test]
fn digests_of_unknown_kinds_alone_are_refused() {
    let mut fixture = Fixture::new();
    let host = super::fixture::resign(fixture.file("1.host.json"), &[&fixture.host], |signed| {
        signed["targets"][ROOT]["hashes"] = json!({"crc32": "00000000"});
    });
    fixture.put("1.host.json", host);
    fixture.index(2, &[("host", 1), ("targets", 1)]);
    assert!(matches!(fixture.refuse_new(), TufError::Malformed { .. }));
}

/// Puts a text in place of another in a file that is not signed again.
fn replace(fixture: &mut Fixture, name: &str, from: &str, to: &str) {
    let text = String::from_utf8(fixture.file(name).to_vec()).unwrap();
    assert!(text.contains(from));
    fixture.put(name, text.replacen(from, to, 1).into_bytes());
}

#[test]
fn one_json_key_twice_is_refused() {
    let mut fixture = Fixture::new();
    replace(
        &mut fixture,
        "timestamp.json",
        "\"version\": 1",
        "\"version\": 9, \"version\": 1",
    );
    let error = fixture.refuse_new();
    assert!(error.reason().contains("stands twice"), "{error}");
}

#[test]
fn deep_nesting_is_refused() {
    let mut fixture = Fixture::new();
    let deep = format!("\"x\": {}{}, \"version\": 1", "[".repeat(100_000), "]".repeat(100_000));
    replace(&mut fixture, "1.snapshot.json", "\"version\": 1", &deep);
    // The length no longer fits either, so the client is handed a timestamp that names it.
    fixture.stamp(1, 1);
    let error = fixture.refuse_new();
    assert!(error.reason().contains("nested"), "{error}");
}

#[test]
fn numbers_that_lose_digits_are_refused() {
    for number in ["1e3", "1.0", "99999999999999999999999999"] {
        let mut fixture = Fixture::new();
        replace(
            &mut fixture,
            "timestamp.json",
            "\"version\": 1",
            &format!("\"version\": {number}"),
        );
        assert!(matches!(fixture.refuse_new(), TufError::Malformed { .. }), "{number}");
    }
}

#[test]
fn a_name_that_canonical_json_would_change_cannot_be_slipped_in() {
    let mut fixture = Fixture::new();
    let name = "host/1.0.0/caf\u{e9}";
    fixture.release(1, &[(name, b"good")]);
    // The same signature would cover the decomposed name, because the canonical form composes it.
    replace(&mut fixture, "1.host.json", name, "host/1.0.0/cafe\u{301}");
    fixture.index(1, &[("host", 1), ("targets", 1)]);
    let error = fixture.refuse_new();
    assert!(error.reason().contains("normalization"), "{error}");
}

#[test]
fn bad_target_names_are_refused_even_when_they_are_signed() {
    let long = "a".repeat(4096);
    for name in [
        "../../etc/passwd",
        "/etc/passwd",
        "",
        &long,
        "host/1.0.0/..",
        "host//x",
        "a\\b",
        "a\u{7}b",
    ] {
        let mut fixture = Fixture::new();
        let host = super::fixture::resign(fixture.file("1.host.json"), &[&fixture.host], |signed| {
            let entry = signed["targets"][ROOT].clone();
            signed["targets"][name] = entry;
        });
        fixture.put("1.host.json", host);
        fixture.index(2, &[("host", 1), ("targets", 1)]);
        assert!(matches!(fixture.refuse_new(), TufError::Malformed { .. }), "{name:?}");
        assert!(fixture.client(fixture.store()).target(name).is_err(), "{name:?}");
    }
}

#[test]
fn a_role_called_like_a_top_level_one_is_refused() {
    let mut fixture = Fixture::new();
    let targets = super::fixture::resign(fixture.file("1.targets.json"), &[&fixture.targets], |signed| {
        signed["delegations"]["roles"][0]["name"] = json!("timestamp");
    });
    fixture.put("1.targets.json", targets);
    fixture.index(2, &[("host", 1), ("targets", 1)]);
    assert!(matches!(fixture.refuse_new(), TufError::Malformed { .. }));
}

#[test]
fn metadata_of_another_type_is_refused() {
    let mut fixture = Fixture::new();
    let fake = super::fixture::resign(fixture.file("1.snapshot.json"), &[&fixture.timestamp], |signed| {
        signed["meta"] = json!({"snapshot.json": {"version": 1}});
    });
    fixture.put("timestamp.json", fake);
    let error = fixture.refuse_new();
    assert!(error.reason().contains("type"), "{error}");
}

#[test]
fn a_specification_of_another_major_version_is_refused() {
    let mut fixture = Fixture::new();
    let changed = super::fixture::resign(fixture.file("timestamp.json"), &[&fixture.timestamp], |signed| {
        signed["spec_version"] = json!("2.0.0");
    });
    fixture.put("timestamp.json", changed);
    assert!(matches!(fixture.refuse_new(), TufError::Malformed { .. }));
}

#[test]
fn bytes_that_are_no_metadata_are_refused() {
    for bytes in [
        &b""[..],
        b"null",
        b"[]",
        b"{}",
        b"\x00\xff",
        b"{\"signed\":{}}",
        b"{\"signed\":1,\"signatures\":{}}",
    ] {
        let mut fixture = Fixture::new();
        fixture.put("timestamp.json", bytes.to_vec());
        assert!(matches!(fixture.refuse_new(), TufError::Malformed { .. }), "{bytes:?}");
        assert!(Datastore::ephemeral(bytes).is_err());
    }
}

#[test]
fn another_content_under_the_trusted_version_is_reported_or_passed_over() {
    let mut fixture = Fixture::new();
    let store = fixture.accept(fixture.store());
    let trusted = fixture.file("timestamp.json").to_vec();
    let forged = super::fixture::resign(&trusted, &[&fixture.timestamp], |signed| {
        signed["expires"] = json!("2099-01-01T00:00:00Z");
    });
    fixture.put("timestamp.json", forged);
    let mut client = fixture.client(store);
    assert!(matches!(client.refresh(), Err(TufError::Equivocation { .. })));

    let limits = Limits {
        same_version: SameVersion::Keep,
        ..Limits::default()
    };
    let mut client = Client::open(client.into_datastore(), fixture.files.clone(), limits, today()).unwrap();
    client.refresh().unwrap();
    let timestamp = client
        .trail()
        .files
        .iter()
        .find(|file| file.role == "timestamp")
        .unwrap();
    assert_eq!(timestamp.sha256, Sha256::of(&trusted));
}

#[test]
fn another_digest_for_a_version_that_was_named_before_is_refused() {
    let mut fixture = Fixture::new();
    let store = fixture.accept(fixture.store());
    let host = super::fixture::resign(fixture.file("1.host.json"), &[&fixture.host], |signed| {
        signed["targets"] = json!({});
    });
    fixture.put("1.host.json", host);
    fixture.index(2, &[("host", 1), ("targets", 1)]);
    let error = fixture.refuse(store);
    assert!(
        matches!(&error, TufError::Equivocation { role, .. } if role == "host"),
        "{error}"
    );
}

#[test]
fn metadata_is_kept_as_it_was_received() {
    let mut fixture = Fixture::new();
    let mut bytes = fixture.file("timestamp.json").to_vec();
    bytes.extend_from_slice(b"  \n");
    fixture.put("timestamp.json", bytes.clone());
    let client = fixture.client(fixture.accept(fixture.store()));
    let (_, root) = client.datastore().root().unwrap();
    let name = super::super::datastore::timestamp_name(&root);
    assert_eq!(client.datastore().read(&name).unwrap().unwrap(), bytes);
}
