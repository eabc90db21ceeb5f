// SPDX-License-Identifier: GPL-3.0-or-later
//! A repository on disk, edited and followed.

use std::fs;
use std::path::Path;

use chrono::Duration;

use super::super::author::{self, KeySet, Signer};
use super::super::repository::{Expiry, Published, Repository, Signers};
use super::super::{Client, Datastore, DirectorySource, Limits, TufError};
use super::fixture::{Fixture, key, today};

const ROOT: &str = "host/1.0.0/root.erofs";

fn publish(repository: &mut Repository, fixture: &Fixture) -> anyhow::Result<Published> {
    repository.publish(
        &KeySet::single(fixture.host.public()),
        &Signers {
            targets: &[&fixture.targets],
            host: &[&fixture.host],
            snapshot: &[&fixture.snapshot],
            timestamp: &[&fixture.timestamp],
            release: None,
        },
        &Expiry::all(today() + Duration::days(30)),
        today(),
    )
}

fn follow(directory: &Path, fixture: &Fixture) -> Result<Vec<u8>, TufError> {
    let source = DirectorySource::below(directory);
    let mut client = Client::open(fixture.store(), source, Limits::default(), today())?;
    let target = client
        .target(ROOT)?
        .ok_or(TufError::UnknownTarget { name: ROOT.to_owned() })?;
    let mut content = Vec::new();
    client.fetch(&target, &mut content)?;
    Ok(content)
}

/// A repository with one release.
fn first(directory: &Path, fixture: &Fixture) -> Repository {
    let mut repository = Repository::create(directory, fixture.file("1.root.json")).unwrap();
    let part = directory.join("part");
    fs::write(&part, b"the first release").unwrap();
    repository.add_file(ROOT, &part, None).unwrap();
    publish(&mut repository, fixture).unwrap();
    repository
}

#[test]
fn what_is_published_is_followed() {
    let fixture = Fixture::new();
    let directory = tempfile::tempdir().unwrap();
    drop(first(directory.path(), &fixture));
    assert_eq!(follow(directory.path(), &fixture).unwrap(), b"the first release");
    let place = directory.path().join("targets/host/1.0.0");
    let name = fs::read_dir(place).unwrap().next().unwrap().unwrap().file_name();
    assert!(name.to_string_lossy().ends_with(".root.erofs"));
}

#[test]
fn the_second_publication_raises_only_what_changed() {
    let fixture = Fixture::new();
    let directory = tempfile::tempdir().unwrap();
    drop(first(directory.path(), &fixture));
    let mut repository = Repository::open(directory.path(), fixture.file("1.root.json")).unwrap();
    assert_eq!(repository.targets().len(), 1);
    let published = publish(&mut repository, &fixture).unwrap();
    let wanted = Published {
        root: 1,
        targets: 1,
        host: 1,
        snapshot: 2,
        timestamp: 2,
    };
    assert_eq!(published, wanted, "the same content is not signed again");
    repository.remove(ROOT);
    let published = publish(&mut repository, &fixture).unwrap();
    assert_eq!((published.host, published.targets, published.timestamp), (2, 1, 3));
    assert!(matches!(
        follow(directory.path(), &fixture),
        Err(TufError::UnknownTarget { .. })
    ));
}

#[test]
fn a_new_host_key_makes_a_new_delegation() {
    let mut fixture = Fixture::new();
    let directory = tempfile::tempdir().unwrap();
    let mut repository = first(directory.path(), &fixture);
    fixture.host = key();
    // The old signature on the role no longer counts, and nothing becomes visible.
    let error = publish(&mut repository, &fixture).unwrap_err();
    assert!(format!("{error:#}").contains("nothing was changed"), "{error:#}");
    assert!(follow(directory.path(), &fixture).is_ok());
    let mut other = repository.targets()[ROOT].clone();
    other.custom = serde_json::json!({"channel": "stable"}).as_object().cloned();
    repository.put(ROOT, other).unwrap();
    let published = publish(&mut repository, &fixture).unwrap();
    assert_eq!((published.host, published.targets), (2, 2));
    assert!(follow(directory.path(), &fixture).is_ok());
}

#[test]
fn nothing_is_signed_over_metadata_that_was_altered() {
    let fixture = Fixture::new();
    let directory = tempfile::tempdir().unwrap();
    drop(first(directory.path(), &fixture));
    let place = directory.path().join("metadata/1.host.json");
    let text = fs::read_to_string(&place).unwrap();
    fs::write(&place, text.replace("\"length\": 17", "\"length\": 18")).unwrap();
    let error = Repository::open(directory.path(), fixture.file("1.root.json"))
        .err()
        .unwrap();
    assert!(format!("{error:#}").contains("1.host.json"), "{error:#}");
}

#[test]
fn what_a_thief_of_no_key_signs_is_not_published() {
    let mut fixture = Fixture::new();
    let directory = tempfile::tempdir().unwrap();
    let mut repository = first(directory.path(), &fixture);
    let timestamp = fs::read(directory.path().join("metadata/timestamp.json")).unwrap();
    let honest = std::mem::replace(&mut fixture.timestamp, key());
    assert!(publish(&mut repository, &fixture).is_err());
    fixture.timestamp = honest;
    assert_eq!(
        fs::read(directory.path().join("metadata/timestamp.json")).unwrap(),
        timestamp
    );
}

#[test]
fn files_of_a_publication_that_was_cut_off_do_no_harm() {
    let fixture = Fixture::new();
    let directory = tempfile::tempdir().unwrap();
    drop(first(directory.path(), &fixture));
    for name in ["2.host.json", "2.snapshot.json", ".incomplete-x"] {
        fs::write(directory.path().join("metadata").join(name), b"{").unwrap();
    }
    assert!(follow(directory.path(), &fixture).is_ok());
    let mut repository = Repository::open(directory.path(), fixture.file("1.root.json")).unwrap();
    repository.remove(ROOT);
    assert_eq!(publish(&mut repository, &fixture).unwrap().host, 2);
}

#[test]
fn a_new_root_is_added_only_when_it_verifies() {
    let mut fixture = Fixture::new();
    let directory = tempfile::tempdir().unwrap();
    let mut repository = first(directory.path(), &fixture);
    assert!(repository.add_root(&fixture.make_root(2, &[0])).is_err());
    assert!(!directory.path().join("metadata/2.root.json").exists());
    fixture.timestamp = key();
    repository.add_root(&fixture.make_root(2, &[0, 1])).unwrap();
    assert_eq!(publish(&mut repository, &fixture).unwrap().root, 2);
    assert!(follow(directory.path(), &fixture).is_ok());
}

/// The recipe: the power is cut between a root that replaces keys and what is published under it.
#[test]
fn a_publication_that_was_cut_behind_its_root_is_gone_on_with() {
    for (timestamp, snapshot) in [(true, false), (false, true), (true, true)] {
        let mut fixture = Fixture::new();
        let directory = tempfile::tempdir().unwrap();
        let mut repository = first(directory.path(), &fixture);
        let root = fixture.file("1.root.json").to_vec();
        if timestamp {
            fixture.timestamp = key();
        }
        if snapshot {
            fixture.snapshot = key();
        }
        repository.add_root(&fixture.make_root(2, &[0, 1])).unwrap();
        // One more that replaces nothing: what is published lies two roots behind.
        repository.add_root(&fixture.make_root(3, &[1, 2])).unwrap();
        drop(repository);
        assert!(matches!(
            follow(directory.path(), &fixture),
            Err(TufError::BelowThreshold { .. })
        ));
        let mut repository = Repository::open(directory.path(), &root).unwrap();
        assert_eq!((repository.root_version(), repository.targets().len()), (3, 1));
        let published = publish(&mut repository, &fixture).unwrap();
        assert_eq!(
            (published.root, published.host, published.snapshot, published.timestamp),
            (3, 1, 2, 2)
        );
        assert_eq!(follow(directory.path(), &fixture).unwrap(), b"the first release");
        drop(repository);
        assert!(Repository::open(directory.path(), &root).is_ok());
    }
}

#[test]
fn what_replaced_keys_signed_is_gone_on_with_only_where_the_targets_keys_are_the_same() {
    let mut fixture = Fixture::new();
    let directory = tempfile::tempdir().unwrap();
    let mut repository = first(directory.path(), &fixture);
    let root = fixture.file("1.root.json").to_vec();
    let honest = fs::read(directory.path().join("metadata/timestamp.json")).unwrap();
    fixture.timestamp = key();
    repository.add_root(&fixture.make_root(2, &[0, 1])).unwrap();
    drop(repository);
    // A stranger's timestamp is nobody's.
    let forged = super::fixture::resign(&honest, &[&key()], |_| {});
    fs::write(directory.path().join("metadata/timestamp.json"), forged).unwrap();
    assert!(Repository::open(directory.path(), &root).is_err());
    fs::write(directory.path().join("metadata/timestamp.json"), honest).unwrap();
    let mut repository = Repository::open(directory.path(), &root).unwrap();
    fixture.targets = key();
    repository.add_root(&fixture.make_root(3, &[0, 1])).unwrap();
    drop(repository);
    let error = Repository::open(directory.path(), &root).err().unwrap();
    assert!(format!("{error:#}").contains("timestamp is signed by 0"), "{error:#}");
}

#[test]
fn names_that_the_role_may_not_use_are_refused() {
    let fixture = Fixture::new();
    let directory = tempfile::tempdir().unwrap();
    let mut repository = first(directory.path(), &fixture);
    let entry = repository.targets()[ROOT].clone();
    for name in ["guest/1.0.0/x", "host/x", "host/1/2/3", "../x", ""] {
        assert!(repository.put(name, entry.clone()).is_err(), "{name:?}");
    }
}

#[test]
fn expired_metadata_can_be_renewed() {
    let fixture = Fixture::new();
    let directory = tempfile::tempdir().unwrap();
    drop(first(directory.path(), &fixture));
    let later = today() + Duration::days(60);
    let client = |now| {
        let source = DirectorySource::below(directory.path());
        let mut client = Client::open(fixture.store(), source, Limits::default(), now).unwrap();
        client.refresh()
    };
    assert!(matches!(client(later), Err(TufError::Expired { .. })));
    let mut repository = Repository::open(directory.path(), fixture.file("1.root.json")).unwrap();
    let signers = Signers {
        targets: &[&fixture.targets],
        host: &[&fixture.host],
        snapshot: &[&fixture.snapshot],
        timestamp: &[&fixture.timestamp],
        release: None,
    };
    let expires = Expiry::all(later + Duration::days(30));
    repository
        .publish(&KeySet::single(fixture.host.public()), &signers, &expires, later)
        .unwrap();
    client(later).unwrap();
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let fixture = Fixture::new();
    let plan = fixture.plan(1);
    let signers: [&dyn Signer; 2] = [&fixture.root[0], &fixture.root[1]];
    let once = author::root(&plan, &signers).unwrap();
    let again = author::root(&plan, &[signers[1], signers[0]]).unwrap();
    assert_eq!(once, again);
    let alone = author::root(&plan, &signers[..1]).unwrap();
    assert_eq!(author::cosign(&alone, signers[1]).unwrap(), once);
    assert!(author::cosign(&once, signers[1]).is_err(), "a key signs once");
    Datastore::ephemeral(&once).unwrap();
}
