// SPDX-License-Identifier: GPL-3.0-or-later
//! The memory of a client through a power cut at every write.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::super::datastore::{Directory, Disk};
use super::super::{Client, Datastore, Limits, Memory, TufError};
use super::fixture::{Files, Fixture, key, today};
use crate::process::Cmd;

const ROOT: &str = "host/1.0.0/root.erofs";

/// The moment of the cut within one write.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Moment {
    /// A part of the temporary file is on the disk.
    Before,
    /// The file stands, and the program never heard of it.
    After,
}

/// A directory whose power fails at the n-th change and stays off.
struct Failing {
    disk: Directory,
    left: Arc<AtomicI64>,
    moment: Moment,
}

impl Failing {
    fn cut(&mut self, change: impl FnOnce(&mut Directory) -> io::Result<()>) -> io::Result<()> {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        if left > 0 {
            return change(&mut self.disk);
        }
        if left == 0 {
            match self.moment {
                Moment::Before => fs::write(self.disk.place().join(".incomplete-x"), b"{\"signed\":")?,
                Moment::After => change(&mut self.disk)?,
            }
        }
        Err(io::Error::other("the power is off"))
    }
}

impl Disk for Failing {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.disk.read(name)
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.cut(|disk| disk.write(name, bytes))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.cut(|disk| disk.remove(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn place(&self) -> PathBuf {
        self.disk.place()
    }
}

fn update(files: &Files, store: Datastore) -> Result<(), TufError> {
    let time = store.time(&super::time::clock(today()), None)?;
    let mut client = Client::open(store, files.clone(), Limits::default(), time)?;
    client.targets().map(drop)
}

/// Cuts the update to `after` at every change of the disk, and hands each outcome to `judge`.
fn cut_everywhere(before: &Files, after: &Files, judge: impl Fn(&Path, &str)) {
    let mut cuts = 0;
    for moment in [Moment::Before, Moment::After] {
        for at in 0.. {
            let directory = tempfile::tempdir().unwrap();
            let place = directory.path().join("store");
            update(
                before,
                Datastore::create(&place, &before.metadata["1.root.json"]).unwrap(),
            )
            .unwrap();
            let left = Arc::new(AtomicI64::new(at));
            let disk = Failing {
                disk: Directory::open(&place).unwrap(),
                left: Arc::clone(&left),
                moment,
            };
            let result = update(after, Datastore::on(Box::new(disk)));
            judge(&place, &format!("{moment:?} change {at}"));
            if left.load(Ordering::SeqCst) >= 0 {
                result.unwrap();
                break;
            }
            assert!(matches!(result, Err(TufError::DatastoreIo { .. })));
            cuts += 1;
        }
    }
    assert!(cuts >= 8, "only {cuts} cuts");
}

#[test]
fn rollback_memory_survives_a_cut_at_every_write() {
    let mut fixture = Fixture::new();
    // What the attacker offers after the cut: the first release, properly signed in its day.
    let ancient = fixture.files.clone();
    fixture.release(2, &[(ROOT, b"the second release")]);
    let before = fixture.files.clone();
    fixture.put("2.root.json", fixture.make_root(2, &[0, 1]));
    fixture.release(3, &[(ROOT, b"the third release")]);
    let after = fixture.files;
    cut_everywhere(&before, &after, |place, when| {
        let store = Datastore::open(place).unwrap_or_else(|error| panic!("{when}: {error}"));
        let mut client = Client::open(store, ancient.clone(), Limits::default(), today()).unwrap();
        let error = client.refresh().unwrap_err();
        assert!(matches!(error, TufError::Rollback { .. }), "{when}: {error}");
        update(&after, client.into_datastore()).unwrap_or_else(|error| panic!("{when}: {error}"));
    });
}

#[test]
fn fast_forward_recovery_survives_a_cut_at_every_write() {
    let mut fixture = Fixture::new();
    let honest = fixture.files.clone();
    fixture.release(1_000_000, &[(ROOT, b"the first release")]);
    let burnt = std::mem::replace(&mut fixture.files, honest);
    // The site rotates the timestamp's key and goes on from small versions.
    fixture.timestamp = key();
    fixture.put("2.root.json", fixture.make_root(2, &[0, 1]));
    fixture.release(2, &[(ROOT, b"the second release")]);
    let healed = fixture.files;
    cut_everywhere(&burnt, &healed, |place, when| {
        let store = Datastore::open(place).unwrap_or_else(|error| panic!("{when}: {error}"));
        update(&healed, store).unwrap_or_else(|error| panic!("{when}: {error}"));
    });
}

#[test]
fn a_datastore_has_one_owner() {
    let fixture = Fixture::new();
    let directory = tempfile::tempdir().unwrap();
    let store = Datastore::create(directory.path(), fixture.file("1.root.json")).unwrap();
    assert!(matches!(
        Datastore::open(directory.path()),
        Err(TufError::DatastoreIo { .. })
    ));
    drop(store);
    assert!(Datastore::open(directory.path()).is_ok());
    assert!(
        Datastore::create(directory.path(), fixture.file("1.root.json")).is_err(),
        "it is not made twice"
    );
}

#[test]
fn a_cut_while_the_datastore_is_made_leaves_none_or_a_whole_one() {
    let fixture = Fixture::new();
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("store");
    fs::create_dir(&place).unwrap();
    fs::write(place.join(".incomplete-x"), b"{").unwrap();
    assert!(Datastore::open(&place).is_err());
    let (store, memory) = Datastore::open_or_create(&place, fixture.file("1.root.json")).unwrap();
    assert_eq!(memory, Memory::Anew);
    drop(store);
    let (_, memory) = Datastore::open_or_create(&place, fixture.file("1.root.json")).unwrap();
    assert_eq!(memory, Memory::Kept);
    assert!(
        !place.join(".incomplete-x").exists(),
        "what the cut left is cleared away"
    );
}

#[test]
fn a_rehearsal_remembers_and_teaches_nothing() {
    let mut fixture = Fixture::new();
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("store");
    let root = fixture.file("1.root.json").to_vec();
    let rehearse = |files: &Files| {
        let (store, memory) = Datastore::rehearse(&place, &root).unwrap();
        (memory, update(files, store).map(drop))
    };
    assert!(matches!(rehearse(&fixture.files), (Memory::Anew, Ok(()))));
    assert!(!place.exists(), "a rehearsal makes no memory");

    let old = fixture.files.clone();
    fixture.release(2, &[]);
    update(&fixture.files, Datastore::create(&place, &root).unwrap()).unwrap();
    let stored = || {
        let mut files: Vec<_> = fs::read_dir(&place)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = stored();
    // It holds what the memory holds against a rollback, and what it follows does not stay.
    assert!(matches!(rehearse(&old), (Memory::Kept, Err(TufError::Rollback { .. }))));
    fixture.release(3, &[]);
    assert!(matches!(rehearse(&fixture.files), (Memory::Kept, Ok(()))));
    assert_eq!(stored(), before);
}

#[test]
fn a_damaged_memory_is_an_error_and_not_an_empty_memory() {
    let fixture = Fixture::new();
    for prefix in ["root.", "timestamp.", "snapshot."] {
        let directory = tempfile::tempdir().unwrap();
        let store = Datastore::create(directory.path(), fixture.file("1.root.json")).unwrap();
        update(&fixture.files, store).unwrap();
        let file = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.file_name().unwrap().to_string_lossy().starts_with(prefix))
            .unwrap();
        let mut bytes = fs::read(&file).unwrap();
        let at = bytes.iter().position(|&byte| byte == b'2').unwrap();
        bytes[at] = b'3';
        fs::write(&file, bytes).unwrap();
        let error = Datastore::open(directory.path())
            .and_then(|store| update(&fixture.files, store))
            .unwrap_err();
        assert!(matches!(error, TufError::DatastoreDamaged { .. }), "{prefix}: {error}");
        assert!(!error.is_refusal(), "the repository was not judged");
    }
}

#[test]
fn a_pipe_in_the_memory_is_not_waited_for() {
    let fixture = Fixture::new();
    for name in ["root.json", "targets.json", "role.host.json"] {
        let directory = tempfile::tempdir().unwrap();
        let root = fixture.file("1.root.json");
        update(&fixture.files, Datastore::create(directory.path(), root).unwrap()).unwrap();
        let place = directory.path().join(name);
        fs::remove_file(&place).unwrap();
        Cmd::new("mkfifo").arg(&place).run().unwrap();
        let error = Datastore::open(directory.path()).and_then(|store| update(&fixture.files, store));
        assert!(matches!(error, Err(TufError::DatastoreIo { .. })), "{name}: {error:?}");
    }
}

#[test]
fn a_damaged_role_is_only_read_again() {
    let fixture = Fixture::new();
    let directory = tempfile::tempdir().unwrap();
    update(
        &fixture.files,
        Datastore::create(directory.path(), fixture.file("1.root.json")).unwrap(),
    )
    .unwrap();
    fs::write(directory.path().join("role.host.json"), b"{").unwrap();
    update(&fixture.files, Datastore::open(directory.path()).unwrap()).unwrap();
    assert_eq!(
        fs::read(directory.path().join("role.host.json")).unwrap(),
        fixture.file("1.host.json")
    );
}
