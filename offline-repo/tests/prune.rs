// SPDX-License-Identifier: GPL-3.0-or-later
//! `prune`: what it removes, what it must not, and what is left when it is killed.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;

use chrono::{DateTime, Duration, Utc};
use offline_repo::snapshot::SnapshotPackage;
use offline_repo::store::Store;
use serde_json::{Value, json};
use signing::clock::now;
use signing::digest::Sha256;
use support::common::{assert_closed_pipe, contents, files_below, killed};
use support::shelf::{Shelf, many};

type Packages = Vec<(SnapshotPackage, Vec<u8>)>;

/// The packages from one number to another.
fn some(from: usize, to: usize) -> Packages {
    many(to).split_off(from)
}

fn prune(shelf: &Shelf, policy: &str) -> Value {
    let line = format!("prune --store store {policy} --json");
    shelf.run(&line).ends(0).json()
}

fn names(value: &Value) -> Vec<&str> {
    let all = value.as_array().unwrap().iter();
    all.map(|one| one["name"].as_str().unwrap_or_else(|| one.as_str().unwrap()))
        .collect()
}

/// The names in the pool.
fn objects(shelf: &Shelf) -> usize {
    files_below(&shelf.at("store/pool/sha256")).len()
}

/// A store with `base` (0 to 20) and `patched` (10 to 40), and three objects of no snapshot.
fn two() -> Shelf {
    let shelf = Shelf::with(20);
    shelf.put("patched", &some(10, 40));
    shelf.put("gone", &some(100, 103));
    fs::remove_dir_all(shelf.at("store/snapshots/gone")).unwrap();
    shelf
}

#[test]
fn what_is_not_kept_goes_and_what_a_kept_snapshot_needs_stays() {
    let shelf = two();
    let before = contents(&shelf.at("store"));
    let stray = shelf.object("content of 1").with_file_name("notes.txt");
    fs::write(&stray, "mine").unwrap();
    // A directory is no object, whatever its name.
    let directory = shelf.store().object(&Sha256([0xee; 32]));
    fs::create_dir_all(&directory).unwrap();
    let would = prune(&shelf, "--keep patched --dry-run");
    fs::remove_file(&stray).unwrap();
    assert_eq!(contents(&shelf.at("store")), before, "a dry run changes nothing");
    fs::write(&stray, "mine").unwrap();
    let did = prune(&shelf, "--keep patched");
    for said in [&would, &did] {
        assert_eq!(
            (names(&said["kept"]), names(&said["removed"])),
            (vec!["patched"], vec!["base"])
        );
        assert_eq!(
            (&said["objects_removed"], &said["objects_kept"]),
            (&13.into(), &30.into())
        );
        let mut strangers = [&stray, &directory];
        strangers.sort();
        assert_eq!(said["strangers"], json!(strangers));
    }
    assert_eq!((&would["dry_run"], &did["dry_run"]), (&true.into(), &false.into()));
    fs::remove_file(&stray).unwrap();
    fs::remove_dir(&directory).unwrap();
    let left = fs::read_dir(shelf.at("store/snapshots")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!((left, objects(&shelf)), (vec!["patched".into()], 30));
    let seen = shelf.run("verify --store store --json").ends(0).json();
    assert_eq!(seen["objects"], 30);
    // Again there is nothing to do.
    let again = prune(&shelf, "--keep patched");
    assert_eq!((&again["removed"], &again["objects_removed"]), (&json!([]), &0.into()));
    let said = shelf.run("prune --store store --keep-last 1").ok();
    assert!(
        said.contains("kept: patched, among the newest of patched* of trixie amd64")
            && said.ends_with("removed: 0 snapshots, 0 objects, 0 B; 30 objects kept\n"),
        "{said}"
    );
    assert_closed_pipe(shelf.command("prune --store store --keep patched"));
}

#[test]
fn the_newest_of_each_group_are_kept() {
    let shelf = Shelf::new();
    let today = now();
    let day = |number: i64| -> DateTime<Utc> { today - Duration::days(100 - number) };
    // Later lists make a snapshot newer; of the same lists, the greater number does.
    for (name, date) in [
        ("base-9", day(3)),
        ("base-10", day(3)),
        ("base-11", day(2)),
        ("base", day(1)),
        ("patched-20261101", day(1)),
        ("patched-20261102", day(2)),
    ] {
        shelf.put_of(name, date, &some(0, 1));
    }
    // The same name, another architecture.
    shelf.put_of("base-8", day(1), &some(1, 2));
    let manifest = shelf.at("store/snapshots/base-8/snapshot.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replacen("\"amd64\"", "\"arm64\"", 1)).unwrap();
    // And other suites.
    shelf.put_of("base-7", day(1), &some(2, 3));
    let manifest = shelf.at("store/snapshots/base-7/snapshot.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(
        &manifest,
        text.replacen("\"suite\": \"trixie\"", "\"suite\": \"forky\"", 1),
    )
    .unwrap();
    let two = prune(&shelf, "--keep-last 2 --dry-run");
    assert_eq!(names(&two["removed"]), ["base", "base-11"]);
    let one = prune(&shelf, "--keep-last 1 --keep base");
    assert_eq!(names(&one["removed"]), ["base-11", "base-9", "patched-20261101"]);
    assert_eq!(
        names(&one["kept"]),
        ["base", "base-10", "base-7", "base-8", "patched-20261102"]
    );
    assert_eq!(one["kept"][0]["newest_of"], Value::Null);
}

#[test]
fn a_policy_that_keeps_nothing_and_a_wrong_name_are_no_policy() {
    let shelf = two();
    let before = contents(&shelf.at("store"));
    for line in [
        "prune --store store",
        "prune --store store --keep-last 0",
        "prune --store store --dry-run",
    ] {
        shelf.run(line).ends(2);
    }
    shelf
        .run("prune --store store --keep-last 1 --keep bsae")
        .fails(2, &["bsae", "the store holds: base, patched", "nothing was removed"]);
    assert_eq!(contents(&shelf.at("store")), before);
}

/// The recipes: a manifest that is cut, one of a later format, none, a file, a name that no snapshot has.
#[test]
fn what_is_not_understood_stops_it() {
    let shelf = two();
    let at = |name: &str| shelf.at("store/snapshots").join(name);
    let manifest = fs::read_to_string(at("base/snapshot.json")).unwrap();
    let recipes: [(&str, &dyn Fn()); 5] = [
        ("base", &|| fs::write(at("base/snapshot.json"), "{").unwrap()),
        ("base", &|| {
            let later = manifest.replacen("\"format\": 1", "\"format\": 2", 1);
            fs::write(at("base/snapshot.json"), later).unwrap();
        }),
        ("empty", &|| fs::create_dir(at("empty")).unwrap()),
        ("file", &|| fs::write(at("file"), "x").unwrap()),
        ("Base.old", &|| fs::rename(at("base"), at("Base.old")).unwrap()),
    ];
    for (name, recipe) in recipes {
        recipe();
        let before = contents(&shelf.at("store"));
        for more in ["", " --dry-run"] {
            shelf
                .run(&format!("prune --store store --keep patched{more}"))
                .fails(3, &[name, "nothing was removed"]);
        }
        assert_eq!(contents(&shelf.at("store")), before, "{name}");
        fs::write(at("base/snapshot.json"), &manifest).ok();
        drop(fs::remove_dir_all(at("empty")));
        drop(fs::remove_file(at("file")));
    }
}

/// Whatever manifest is there, all that it needs is there.
fn assert_whole(shelf: &Shelf) {
    let report = shelf.run("verify --store store --json").ends(0).json();
    assert_eq!(report["missing"], json!([]));
}

/// The recipe: kill it when a random number of objects is left, or as soon as a snapshot has gone.
#[test]
fn a_killed_run_loses_nothing_that_a_snapshot_needs() {
    let mut killed_within = 0;
    for round in 0..8u8 {
        let shelf = Shelf::with(300);
        shelf.put("middle", &some(100, 400));
        shelf.put("patched", &some(250, 300));
        let seed = Sha256::of(format!("{} {round}", now()).as_bytes()).0;
        // Of 400 objects 50 are needed by what is kept.
        let left = 60 + usize::from(u16::from_be_bytes([seed[0], seed[1]])) % 341;
        let when = || {
            if round % 4 == 0 {
                !shelf.at("store/snapshots/base").exists()
            } else {
                objects_left(&shelf) <= left
            }
        };
        let prune = shelf.command("prune --store store --keep patched");
        let was_killed = killed(prune, &shelf.at("store"), when);
        let now_there = objects(&shelf);
        killed_within += u32::from(was_killed && now_there > 50);
        assert_whole(&shelf);
        assert!(shelf.at("store/snapshots/patched").is_dir(), "killed at {left}");
        shelf.run("prune --store store --keep patched").ok();
        assert_eq!(
            (
                objects(&shelf),
                fs::read_dir(shelf.at("store/snapshots")).unwrap().count()
            ),
            (50, 1)
        );
        assert_whole(&shelf);
    }
    assert!(killed_within > 0, "every run was over before it could be killed");
}

/// As [`objects`], while somebody takes them away.
fn objects_left(shelf: &Shelf) -> usize {
    let shards = fs::read_dir(shelf.at("store/pool/sha256")).unwrap();
    let count = |shard: std::io::Result<fs::DirEntry>| fs::read_dir(shard.unwrap().path()).unwrap().count();
    shards.map(count).sum()
}

#[test]
fn it_waits_for_nobody_and_nobody_reads_beside_it() {
    let shelf = two();
    let before = contents(&shelf.at("store"));
    let reader = shelf.store();
    let copy = reader.clone();
    drop(reader);
    shelf
        .run("prune --store store --keep patched")
        .fails(1, &["in use by another process"]);
    // Who only asks what would be done is a reader too.
    prune(&shelf, "--keep patched --dry-run");
    drop(copy);
    let alone = Store::open_alone(&shelf.at("store")).unwrap();
    for reader in [
        "verify --store store",
        "snapshot list --store store",
        "prune --store store --keep patched --dry-run",
        "prune --store store --keep patched",
    ] {
        shelf.run(reader).fails(1, &["by another process: wait for it to end"]);
    }
    drop(alone);
    assert_eq!(contents(&shelf.at("store")), before);
    prune(&shelf, "--keep patched");
}

/// Two at once, and a writer who holds the writer's lock alone: as a program before this lock was would.
#[test]
fn two_writers_are_one_after_the_other() {
    let shelf = two();
    let held = signing::durable::Lock::take(&shelf.at("store")).unwrap();
    shelf
        .run("prune --store store --keep patched")
        .fails(1, &["cannot write to the store", "another process"]);
    assert_eq!(objects(&shelf), 43);
    drop(held);
    let start = |_: usize| {
        let cmd = shelf.command("prune --store store --keep patched --json");
        cmd.spawn(Stdio::piped(), Stdio::piped()).unwrap()
    };
    let mut ended: BTreeMap<Option<i32>, usize> = BTreeMap::new();
    for child in (0..4).map(start).collect::<Vec<_>>() {
        let said = child.wait_with_output().unwrap();
        let err = String::from_utf8(said.stderr).unwrap();
        assert!(
            said.status.success() || err.contains("in use by another process"),
            "{err}"
        );
        *ended.entry(said.status.code()).or_default() += 1;
    }
    assert!(ended[&Some(0)] >= 1, "{ended:?}");
    assert_eq!(objects(&shelf), 30);
    assert_whole(&shelf);
}

/// Readers while it runs: each sees a snapshot with all its objects, or is told to wait, or that the snapshot is gone.
#[test]
fn readers_beside_it_see_all_or_nothing() {
    let shelf = Shelf::with(300);
    shelf.put("patched", &some(250, 600));
    let cmd = shelf.command("prune --store store --keep patched");
    let mut child = cmd.spawn(Stdio::null(), Stdio::piped()).unwrap();
    let mut told = 0;
    loop {
        let over = child.try_wait().unwrap();
        let said = shelf.run("snapshot list --store store --json");
        if said.code == Some(0) {
            for snapshot in said.json()["snapshots"].as_array().unwrap() {
                assert_eq!(snapshot["lacking"], 0, "{snapshot}");
            }
        } else {
            told += 1;
            said.fails(1, &["being pruned by another process"]);
        }
        match over {
            // A reader may have been there first.
            Some(status) if !status.success() => {
                let cmd = shelf.command("prune --store store --keep patched");
                child = cmd.spawn(Stdio::null(), Stdio::piped()).unwrap();
            }
            Some(_) => break,
            None => {}
        }
    }
    println!("readers that were told to wait: {told}");
    assert_eq!(objects(&shelf), 350);
    assert_whole(&shelf);
}
