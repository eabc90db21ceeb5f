// SPDX-License-Identifier: GPL-3.0-or-later
//! `repair`: what another pool can put right, and what it must not.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use offline_repo::snapshot::KeptIndex;
use serde_json::{Value, json};
use signing::digest::Sha256;
use support::common::{self, assert_closed_pipe, contents, flip, killed, pipe};
use support::shelf::{Shelf, many};

const REPAIR: &str = "repair --store store --from other";

/// A store and a whole copy of it, `other`.
fn pair(number: usize) -> Shelf {
    let shelf = Shelf::with(number);
    common::copy(&shelf.at("store"), &shelf.at("other"));
    shelf
}

fn repair(shelf: &Shelf, code: i32) -> Value {
    shelf.run(&format!("{REPAIR} --json")).ends(code).json()
}

/// The place of an object in the other store.
fn other(shelf: &Shelf, content: &str) -> PathBuf {
    let place = shelf.object(content);
    shelf.at("other").join(
        place
            .strip_prefix(fs::canonicalize(shelf.at("store")).unwrap())
            .unwrap(),
    )
}

fn found(report: &Value, what: &str) -> BTreeSet<String> {
    let all = report[what].as_array().unwrap().iter();
    all.map(|one| one["sha256"].as_str().unwrap().to_owned()).collect()
}

fn digests(numbers: &[u32]) -> BTreeSet<String> {
    let digest = |number| Sha256::of(format!("content of {number}").as_bytes()).to_string();
    numbers.iter().map(digest).collect()
}

/// The recipes: a flipped bit, a file that is gone, one that grew, a link to the very content elsewhere, a pipe.
#[test]
fn what_the_other_pool_has_is_put_right() {
    let shelf = pair(20);
    let whole = contents(&shelf.at("store/pool"));
    flip(&shelf.object("content of 3"));
    fs::remove_file(shelf.object("content of 4")).unwrap();
    fs::remove_dir_all(shelf.object("content of 5").parent().unwrap()).unwrap();
    fs::write(shelf.object("content of 6"), "content of 6 and more").unwrap();
    fs::rename(shelf.object("content of 7"), shelf.at("elsewhere")).unwrap();
    symlink(shelf.at("elsewhere"), shelf.object("content of 7")).unwrap();
    pipe(&shelf.object("content of 8"));
    let report = repair(&shelf, 0);
    assert!(found(&report, "repaired").is_superset(&digests(&[3, 4, 5, 6, 7, 8])));
    assert_eq!((&report["unrepaired"], &report["whole"]), (&json!([]), &true.into()));
    assert!(
        report["repaired"][0]["needed_by"][0]
            .as_str()
            .unwrap()
            .starts_with("base: p")
    );
    assert_eq!(contents(&shelf.at("store/pool")), whole);
    assert!(!shelf.object("content of 7").is_symlink());
    // What the link named is somebody's, and is as it was.
    assert_eq!(fs::metadata(shelf.at("elsewhere")).unwrap().nlink(), 1);
    assert_eq!(fs::read_to_string(shelf.at("elsewhere")).unwrap(), "content of 7");
    shelf.run("verify --store store").ok();
    // The other store gave, and lost nothing.
    shelf.run("verify --store other").ok();
    let said = shelf.run(REPAIR).ok();
    assert!(said.contains("20 objects read: 0 repaired, 0 not repaired"), "{said}");
    assert_closed_pipe(shelf.command(REPAIR));
}

/// The recipes: the same damage in both, missing in both, a link and a pipe in the other pool, something else under the
/// right name, a directory in our place.
#[test]
fn what_cannot_be_put_right_is_named_and_left() {
    let shelf = pair(20);
    for number in [1, 2, 3, 4, 5] {
        flip(&shelf.object(&format!("content of {number}")));
    }
    let at = |number: u32| other(&shelf, &format!("content of {number}"));
    flip(&at(1));
    fs::remove_file(at(2)).unwrap();
    fs::rename(at(3), shelf.at("elsewhere")).unwrap();
    symlink(shelf.at("elsewhere"), at(3)).unwrap();
    pipe(&at(4));
    fs::write(at(5), "content of 6").unwrap();
    let directory = shelf.object("content of 7");
    fs::remove_file(&directory).unwrap();
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("mine"), "mine").unwrap();
    flip(&shelf.object("content of 8"));
    let before = fs::read(shelf.object("content of 1")).unwrap();
    let report = repair(&shelf, 3);
    assert_eq!(found(&report, "repaired"), digests(&[8]));
    assert_eq!(found(&report, "unrepaired"), digests(&[1, 2, 3, 4, 5, 7]));
    assert_eq!(report["whole"], false);
    assert_eq!(fs::read(shelf.object("content of 1")).unwrap(), before);
    assert!(directory.join("mine").exists());
    let said = shelf.run(REPAIR).ends(3).out;
    for reason in [
        "is damaged itself",
        "is not there",
        "is no regular file",
        "needed by base: p1 1.0-1",
    ] {
        assert!(said.contains(reason), "{reason}: {said}");
    }
    shelf.run("verify --store store").ends(3);
}

/// The recipe: a list of upstream, which a snapshot holds by a hard link to the object, rots in its one place on the disk.
#[test]
fn a_list_that_went_bad_with_its_object_is_put_right_in_the_snapshot() {
    let shelf = Shelf::with(3);
    let content = b"Package: p0\n";
    let file = "upstream/trixie/main_binary-amd64_Packages.xz";
    let store = shelf.store();
    let lock = store.lock().unwrap();
    let digest = Sha256::of(content);
    let size = content.len() as u64;
    store.ingest(&lock, &mut &content[..], &digest, size, "it").unwrap();
    let mut snapshot = store.snapshot("base").unwrap();
    snapshot.created_from[0].packages.push(KeptIndex {
        component: "main".into(),
        file: file.into(),
        sha256: digest,
        size,
    });
    let kept = [("upstream/trixie/InRelease".to_owned(), b"signed".to_vec())];
    store.put_snapshot(&lock, &snapshot, &kept).unwrap();
    drop((lock, store));
    common::copy(&shelf.at("store"), &shelf.at("other"));
    let linked = shelf.at("store/snapshots/base").join(file);
    let rot = || fs::write(shelf.store().object(&digest), b"Package: p1\n").unwrap();
    rot();
    assert_eq!(fs::read(&linked).unwrap(), b"Package: p1\n");
    let report = repair(&shelf, 0);
    assert_eq!(report["relinked"].as_array().unwrap().len(), 1);
    assert_eq!(fs::read(&linked).unwrap(), content);
    // Cut off between the two, the next run does the rest.
    fs::remove_file(&linked).unwrap();
    fs::write(linked.with_file_name(".incomplete-link"), "x").unwrap();
    let report = repair(&shelf, 0);
    assert_eq!(
        (&report["repaired"], fs::read(&linked).unwrap()),
        (&json!([]), content.to_vec())
    );
    assert_eq!(fs::metadata(&linked).unwrap().nlink(), 2);
    assert_eq!(repair(&shelf, 0)["relinked"], json!([]));
    // A list that cannot be had is not made up.
    rot();
    flip(
        &shelf.at("other").join(
            shelf
                .store()
                .object(&digest)
                .strip_prefix(shelf.store().root())
                .unwrap(),
        ),
    );
    assert_eq!(repair(&shelf, 3)["relinked"], json!([]));
}

#[test]
fn only_two_different_stores_and_one_writer() {
    let shelf = pair(3);
    shelf
        .run("repair --store store --from ./store/../store")
        .fails(2, &["cannot be repaired from itself"]);
    shelf
        .run("repair --store store --from nowhere")
        .fails(1, &["nowhere is not a store"]);
    let held = signing::durable::Lock::take(&shelf.at("store")).unwrap();
    shelf
        .run(REPAIR)
        .fails(1, &["cannot write to the store", "another process"]);
    drop(held);
    // The other store is only read: whoever writes there does not matter.
    let _held = signing::durable::Lock::take(&shelf.at("other")).unwrap();
    repair(&shelf, 0);
}

/// As an ordinary user: an object that may not be read is taken from the other pool, a manifest cannot be.
#[test]
fn what_cannot_be_read_is_taken_too() {
    let shelf = pair(3);
    for directory in common::files_below(&shelf.at("store")) {
        for above in directory
            .ancestors()
            .take_while(|path| path.starts_with(shelf.directory.path()))
        {
            if above.is_dir() {
                fs::set_permissions(above, Permissions::from_mode(0o777)).unwrap();
            }
        }
    }
    let closed = shelf.object("content of 1");
    fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
    drop(fs::remove_file(shelf.at("store/.lock")));
    for directory in ["store", "store/work", "store/snapshots"] {
        fs::set_permissions(shelf.at(directory), Permissions::from_mode(0o777)).unwrap();
    }
    let run = || common::as_nobody(support::PROGRAM, shelf.directory.path(), &format!("{REPAIR} --json"));
    let Some(said) = run() else { return };
    let report = said.ends(0).json();
    assert_eq!(found(&report, "repaired"), digests(&[1]));
    let manifest = shelf.at("store/snapshots/base/snapshot.json");
    fs::set_permissions(&manifest, Permissions::from_mode(0o000)).unwrap();
    let report = run().unwrap().ends(4).json();
    assert!(
        report["unread"][0]["path"]
            .as_str()
            .unwrap()
            .ends_with("snapshots/base"),
        "{report}"
    );
}

/// The recipe: killed while a large object is copied; the next run does it.
#[test]
fn a_killed_run_leaves_no_half_object() {
    let shelf = Shelf::with(3);
    let large = vec![7; 64 << 20];
    let digest = Sha256::of(&large);
    let store = shelf.store();
    let lock = store.lock().unwrap();
    store
        .ingest(&lock, &mut large.as_slice(), &digest, large.len() as u64, "it")
        .unwrap();
    drop((lock, store));
    common::copy(&shelf.at("store"), &shelf.at("other"));
    let place = shelf.store().object(&digest);
    File::create(&place).unwrap().set_len(9).unwrap();
    let begun = || {
        let mut names = fs::read_dir(place.parent().unwrap()).unwrap();
        names.any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with(".incomplete-"))
    };
    assert!(killed(shelf.command(REPAIR), &shelf.at("store"), begun));
    let length = fs::metadata(&place).unwrap().len();
    assert!(length == 9 || length == large.len() as u64, "{length}");
    repair(&shelf, 0);
    shelf.run("verify --store store").ok();
    assert!(!begun(), "what the killed run left is still there");
}

/// What `verify` says of damage is what `repair` needs.
#[test]
fn verify_names_the_way_out() {
    let shelf = pair(3);
    flip(&shelf.object(&format!("content of {}", many(3).len() - 1)));
    let said = shelf.run("verify --store store").ends(3).out;
    assert!(said.contains("repair --from STORE"), "{said}");
}
