// SPDX-License-Identifier: GPL-3.0-or-later
//! The search: in order, on demand, ended by a terminating delegation, and never on borrowed trust.

use super::super::Client;
use super::super::author::{Delegation, KeySet, Signer};
use super::super::{Limits, TufError};
use super::fixture::{Files, Fixture, key, today};

fn to(name: &str, signer: &dyn Signer, paths: &[&str], terminating: bool) -> Delegation {
    Delegation {
        name: name.to_owned(),
        keys: KeySet::single(signer.public()),
        paths: paths.iter().map(|&path| path.to_owned()).collect(),
        terminating,
    }
}

/// A repository whose top-level role has these targets and delegations; the other roles stand already.
fn with_top(fixture: &mut Fixture, targets: &[(&str, &[u8])], delegations: &[Delegation], roles: &[&str]) {
    let signer = std::mem::replace(&mut fixture.targets, key());
    fixture.role("targets", 1, targets, delegations, &signer);
    fixture.targets = signer;
    let mut all = vec![("targets", 1)];
    all.extend(roles.iter().map(|&role| (role, 1)));
    fixture.index(1, &all);
}

fn who(client: &mut Client<Files>, name: &str) -> Option<String> {
    client.target(name).unwrap().map(|target| target.role)
}

#[test]
fn the_first_role_in_order_wins_and_later_ones_are_not_loaded() {
    let mut fixture = Fixture::new();
    let (a, b) = (key(), key());
    fixture.role("a", 1, &[("x", b"from a")], &[], &a);
    fixture.role("b", 1, &[("x", b"from b"), ("y", b"from b")], &[], &b);
    with_top(
        &mut fixture,
        &[],
        &[to("a", &a, &["*"], false), to("b", &b, &["*"], false)],
        &["a", "b"],
    );
    let mut client = fixture.client(fixture.store());
    assert_eq!(who(&mut client, "x").as_deref(), Some("a"));
    assert!(
        !fixture.files.log.borrow().contains(&"1.b.json".to_owned()),
        "loaded on demand only"
    );
    assert_eq!(who(&mut client, "y").as_deref(), Some("b"));
    assert_eq!(who(&mut client, "z"), None);
}

#[test]
fn nothing_is_searched_after_a_terminating_delegation() {
    let mut fixture = Fixture::new();
    let (a, b) = (key(), key());
    fixture.role("a", 1, &[], &[], &a);
    fixture.role("b", 1, &[("x", b"from b"), ("y", b"from b")], &[], &b);
    with_top(
        &mut fixture,
        &[],
        &[to("a", &a, &["x"], true), to("b", &b, &["*"], false)],
        &["a", "b"],
    );
    let mut client = fixture.client(fixture.store());
    assert_eq!(who(&mut client, "x"), None);
    assert_eq!(who(&mut client, "y").as_deref(), Some("b"));
    let all: Vec<_> = client
        .targets()
        .unwrap()
        .into_iter()
        .map(|target| target.name)
        .collect();
    assert_eq!(all, ["y"]);
}

#[test]
fn a_target_outside_its_roles_paths_is_not_found_and_harms_nobody() {
    let mut fixture = Fixture::new();
    let a = key();
    fixture.role(
        "a",
        1,
        &[("a/x", b"mine"), ("b/x", b"not mine"), ("a/b/x", b"too deep")],
        &[],
        &a,
    );
    with_top(&mut fixture, &[], &[to("a", &a, &["a/*"], false)], &["a"]);
    let mut client = fixture.client(fixture.store());
    assert_eq!(who(&mut client, "a/x").as_deref(), Some("a"));
    assert_eq!(who(&mut client, "b/x"), None);
    assert_eq!(who(&mut client, "a/b/x"), None, "a star stops at a slash");
    assert_eq!(client.targets().unwrap().len(), 1);
}

#[test]
fn every_role_in_the_chain_must_cover_the_target() {
    let mut fixture = Fixture::new();
    let (a, b) = (key(), key());
    fixture.role("b", 1, &[("a/x", b"inside"), ("c/x", b"outside of a")], &[], &b);
    fixture.role("a", 1, &[], &[to("b", &b, &["*/*"], false)], &a);
    with_top(&mut fixture, &[], &[to("a", &a, &["a/*"], false)], &["a", "b"]);
    let mut client = fixture.client(fixture.store());
    assert_eq!(who(&mut client, "a/x").as_deref(), Some("b"));
    assert_eq!(who(&mut client, "c/x"), None);
}

#[test]
fn a_cycle_of_delegations_ends() {
    let mut fixture = Fixture::new();
    let (a, b) = (key(), key());
    fixture.role("a", 1, &[], &[to("b", &b, &["*"], false)], &a);
    fixture.role("b", 1, &[], &[to("a", &a, &["*"], false)], &b);
    with_top(&mut fixture, &[], &[to("a", &a, &["*"], false)], &["a", "b"]);
    let mut client = fixture.client(fixture.store());
    assert_eq!(who(&mut client, "x"), None);
    assert!(client.targets().unwrap().is_empty());
}

#[test]
fn too_many_roles_are_refused() {
    let mut fixture = Fixture::new();
    let (a, b) = (key(), key());
    fixture.role("a", 1, &[], &[to("b", &b, &["*"], false)], &a);
    fixture.role("b", 1, &[], &[], &b);
    with_top(&mut fixture, &[], &[to("a", &a, &["*"], false)], &["a", "b"]);
    let limits = Limits {
        roles: 2,
        ..Limits::default()
    };
    let mut client = Client::open(fixture.store(), fixture.files.clone(), limits, today()).unwrap();
    assert!(matches!(client.target("x"), Err(TufError::TooMany { .. })));
}

#[test]
fn one_bad_role_harms_only_the_searches_that_reach_it() {
    let mut fixture = Fixture::new();
    let (a, b, thief) = (key(), key(), key());
    fixture.role("a", 1, &[("a/x", b"from a")], &[], &a);
    fixture.role("b", 1, &[("b/x", b"forged")], &[], &thief);
    with_top(
        &mut fixture,
        &[],
        &[to("a", &a, &["a/*"], false), to("b", &b, &["b/*"], false)],
        &["a", "b"],
    );
    let mut client = fixture.client(fixture.store());
    assert_eq!(who(&mut client, "a/x").as_deref(), Some("a"));
    assert!(matches!(client.target("b/x"), Err(TufError::BelowThreshold { .. })));
    assert!(client.targets().is_err(), "a list of all targets vouches for all roles");
}

#[test]
fn a_role_trusted_by_one_delegator_is_not_trusted_by_another() {
    let mut fixture = Fixture::new();
    let (a, b, release, other) = (key(), key(), key(), key());
    fixture.role("release", 1, &[("a/x", b"good"), ("b/x", b"evil")], &[], &release);
    fixture.role("a", 1, &[], &[to("release", &release, &["a/*"], false)], &a);
    fixture.role("b", 1, &[], &[to("release", &other, &["b/*"], false)], &b);
    with_top(
        &mut fixture,
        &[],
        &[to("a", &a, &["a/*"], false), to("b", &b, &["b/*"], false)],
        &["a", "b", "release"],
    );
    let mut client = fixture.client(fixture.store());
    assert_eq!(who(&mut client, "a/x").as_deref(), Some("release"));
    assert!(matches!(client.target("b/x"), Err(TufError::BelowThreshold { .. })));
}

#[test]
fn unusual_role_names_become_harmless_file_names() {
    for name in ["?", "#", "/delegated", "../delegated", "..", ".lock", "a b"] {
        let mut fixture = Fixture::new();
        let a = key();
        let encoded = super::super::names::encode_role(name);
        fixture.role(&encoded, 1, &[("x", b"content")], &[], &a);
        with_top(&mut fixture, &[], &[to(name, &a, &["*"], false)], &[&encoded]);
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("store");
        let store = super::super::Datastore::create(&place, fixture.file("1.root.json")).unwrap();
        let mut client = fixture.client(store);
        assert_eq!(who(&mut client, "x").as_deref(), Some(name));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "{name}");
        drop(client);
        super::super::Datastore::open(&place).unwrap();
    }
}

#[test]
fn hash_prefixes_are_followed() {
    let mut fixture = Fixture::new();
    let a = key();
    fixture.role("a", 1, &[("x", b"content")], &[], &a);
    with_top(&mut fixture, &[], &[to("a", &a, &["*"], false)], &["a"]);
    // SHA-256 of "x" begins with 2d71.
    for (prefix, found) in [("2d71", true), ("2d72", false)] {
        let targets = super::fixture::resign(fixture.file("1.targets.json"), &[&fixture.targets], |signed| {
            let role = signed["delegations"]["roles"][0].as_object_mut().unwrap();
            role.remove("paths");
            role.insert("path_hash_prefixes".to_owned(), serde_json::json!([prefix]));
        });
        fixture.put("1.targets.json", targets);
        fixture.index(1, &[("a", 1), ("targets", 1)]);
        let mut client = fixture.client(fixture.store());
        assert_eq!(who(&mut client, "x").is_some(), found, "{prefix}");
    }
}
