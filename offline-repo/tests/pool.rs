// SPDX-License-Identifier: GPL-3.0-or-later
//! The care of a store's pool as its users meet it.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::symlink;

use signing::digest::Sha256;
use support::common::{self, assert_closed_pipe, flip};
use support::shelf::{Shelf, many};

const VERIFY: &str = "verify --store store";

#[test]
fn a_whole_pool_is_whole_and_nothing_is_left_behind() {
    let shelf = Shelf::with(600);
    let report = shelf.run("verify --store store --json").ends(0).json();
    let bytes: usize = many(600).iter().map(|(_, content)| content.len()).sum();
    assert_eq!((&report["objects"], &report["bytes"]), (&600.into(), &bytes.into()));
    assert_eq!(
        (&report["whole"], &report["objects_earlier"]),
        (&true.into(), &0.into())
    );
    assert!(!shelf.at("store/work/.verify/progress.json").exists());
    assert_closed_pipe(shelf.command(VERIFY));
}

#[test]
fn what_is_damaged_or_missing_is_named_with_who_needs_it() {
    let shelf = Shelf::with(20);
    flip(&shelf.object("content of 3"));
    fs::remove_file(shelf.object("content of 4")).unwrap();
    // A link to the very content is no object: what it names may change or go.
    fs::rename(shelf.object("content of 5"), shelf.at("elsewhere")).unwrap();
    symlink(shelf.at("elsewhere"), shelf.object("content of 5")).unwrap();
    let stray = shelf.object("content of 6").with_file_name("notes.txt");
    fs::write(&stray, "mine").unwrap();
    fs::write(stray.with_file_name(".incomplete-x"), "a writer's").unwrap();
    // An object in another one's directory is not found by its name.
    let misplaced = shelf
        .object("content of 8")
        .with_file_name(Sha256::of(b"content of 9").to_string());
    fs::copy(shelf.object("content of 9"), &misplaced).unwrap();
    let mut strangers = [stray, misplaced];
    strangers.sort();
    let report = shelf.run("verify --store store --json").ends(3).json();
    let named = |what: &str| -> Vec<String> {
        let all = report[what].as_array().unwrap().iter();
        all.map(|one| format!("{} {}", one["sha256"].as_str().unwrap(), one["needed_by"]))
            .collect()
    };
    let expected = |number: u32| {
        let digest = Sha256::of(format!("content of {number}").as_bytes());
        format!("{digest} [\"base: p{number} 1.0-1\"]")
    };
    let mut damaged = vec![expected(3), expected(5)];
    damaged.sort();
    assert_eq!((named("damaged"), named("missing")), (damaged, vec![expected(4)]));
    assert_eq!(report["strangers"], serde_json::json!(strangers));
    let said = shelf.run(VERIFY).ends(3).out;
    assert!(said.contains("2 damaged, 1 missing, 0 could not be read"), "{said}");
}

/// The recipe: a manifest that is none, and, for who is not root, an object that may not be read.
#[test]
fn what_could_not_be_read_is_not_called_whole() {
    let shelf = Shelf::with(5);
    fs::create_dir(shelf.at("store/snapshots/other")).unwrap();
    fs::write(shelf.at("store/snapshots/other/snapshot.json"), "{").unwrap();
    let said = shelf.run(VERIFY).ends(4).out;
    assert!(
        said.contains("could not read") && said.contains("snapshots/other"),
        "{said}"
    );
    fs::remove_dir_all(shelf.at("store/snapshots/other")).unwrap();
    let closed = shelf.object("content of 1");
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    fs::set_permissions(shelf.at(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let Some(said) = common::as_nobody(support::PROGRAM, shelf.directory.path(), VERIFY) else {
        return;
    };
    let said = said.ends(4).out;
    assert!(said.contains(closed.to_str().unwrap()), "{said}");
    // Nobody may not write here either, and is told what that costs.
    assert!(said.contains("the progress could not be kept"), "{said}");
}

/// The recipe: an object without end near the end of the pool holds a run up; it is killed there, and goes on.
#[test]
fn a_killed_run_goes_on_where_it_was() {
    let shelf = Shelf::with(300);
    flip(&shelf.object("content of 7"));
    let endless = shelf.store().object(&Sha256([0xff; 32]));
    fs::create_dir_all(endless.parent().unwrap()).unwrap();
    File::create(&endless).unwrap().set_len(1 << 42).unwrap();
    let record = shelf.at("store/work/.verify/progress.json");
    let waits = || fs::read_to_string(&record).is_ok_and(|text| text.contains(&"f".repeat(64)));
    assert!(common::killed(
        shelf.command(VERIFY),
        &shelf.at("store/work/.verify"),
        waits
    ));
    File::create(&endless).unwrap().set_len(10).unwrap();
    // What was found damaged is looked at again: mended in between, it is no longer.
    fs::write(shelf.object("content of 7"), "content of 7").unwrap();
    let report = shelf.run("verify --store store --resume --json").ends(3).json();
    assert_eq!(
        (&report["objects"], &report["objects_earlier"]),
        (&2.into(), &299.into())
    );
    assert_eq!(report["damaged"].as_array().unwrap().len(), 1, "{report}");
    assert!(!record.exists());
    // With nothing to go on from, all is read.
    fs::remove_file(&endless).unwrap();
    let report = shelf.run("verify --store store --resume --json").ends(0).json();
    assert_eq!(
        (&report["objects"], &report["objects_earlier"]),
        (&300.into(), &0.into())
    );
}

#[test]
fn a_record_that_is_none_is_refused_and_a_new_run_does_without_it() {
    let shelf = Shelf::with(3);
    fs::create_dir_all(shelf.at("store/work/.verify")).unwrap();
    let record = shelf.at("store/work/.verify/progress.json");
    for bad in [
        "{",
        "{\"format\": 2, \"began\": \"2026-01-01T00:00:00Z\", \"from\": \"\", \"again\": []}",
    ] {
        fs::write(&record, bad).unwrap();
        shelf
            .run("verify --store store --resume")
            .fails(1, &["without --resume"]);
    }
    shelf.run(VERIFY).ok();
}

#[test]
fn two_at_once_do_not_share_a_record() {
    let shelf = Shelf::with(3);
    fs::create_dir_all(shelf.at("store/work/.verify")).unwrap();
    let held = signing::durable::Lock::take(&shelf.at("store/work/.verify")).unwrap();
    shelf.run(VERIFY).fails(1, &["another process"]);
    drop(held);
    shelf.run(VERIFY).ok();
}
