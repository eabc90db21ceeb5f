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
use signing::keys::{Algorithm, PrivateKey};
use signing::receipt::{GatewayState, Receipt, ReleaseHeld, SlotHeld};
use signing::release::Part;
use support::common::{self, assert_closed_pipe, contents, files_below, killed};
use support::low::Low;
use support::shelf::{Shelf, many};
use support::{build, replace_part};

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

/// An enrolled host of a name, and its receipts for a repository.
struct Holder<'a> {
    low: &'a Low,
    name: &'a str,
    key: PrivateKey,
}

impl Holder<'_> {
    fn says(&self, receipt: Receipt) {
        let signed = receipt.sign(&self.key).unwrap();
        let file = self.low.at("said.json");
        fs::write(file, &signed.bytes).unwrap();
        let enrol = format!("enrol said.json --repo repository --fingerprint {}", signed.fingerprint);
        match signed.receipt.sequence {
            1 => self.low.run(&enrol).ok(),
            _ => self.low.run("receive said.json --repo repository").ok(),
        };
    }

    fn runs(&self, sequence: u64, version: &str) {
        self.says(common::host_receipt(self.name, sequence, version));
    }
}

/// A repository with releases 1.0.0 to 1.2.0, each built from a snapshot `of-VERSION` in the store beside it.
fn released() -> (Low, Shelf) {
    let (low, shelf) = (Low::new(), Shelf::new());
    let all = [("1.0.0", 0), ("1.1.0", 10), ("1.2.0", 20)];
    for (version, from) in all {
        let name = format!("of-{version}");
        shelf.put(&name, &some(from, from + 15));
        let build = build(low.directory.path(), version);
        let manifest = fs::read(shelf.at("store/snapshots").join(&name).join("snapshot.json")).unwrap();
        replace_part(&build, Part::Upstream, &support::upstream(&manifest));
        low.publish_build(&build, &[]).ends(0);
    }
    std::os::unix::fs::symlink(shelf.at("store"), low.at("store")).unwrap();
    (low, shelf)
}

fn enrolled<'a>(low: &'a Low, name: &'a str) -> Holder<'a> {
    let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
    Holder { low, name, key }
}

fn judged(low: &Low, more: &str) -> Value {
    low.run(&format!("prune --store store --acknowledged repository {more} --json"))
        .ends(0)
        .json()
}

#[test]
fn what_somebody_acknowledges_or_has_not_come_to_stays() {
    let (low, shelf) = released();
    shelf.put("unpublished", &some(100, 103));
    // Nobody has said anything: nothing goes.
    assert_eq!(judged(&low, "--dry-run")["removed"], json!([]));
    let (rack4, rack5, g1) = (enrolled(&low, "rack4"), enrolled(&low, "rack5"), enrolled(&low, "g1"));
    rack4.runs(1, "1.0.0");
    assert_eq!(judged(&low, "--dry-run")["removed"], json!([]));
    rack5.runs(1, "1.1.0");
    let empty = GatewayState::default();
    g1.says(Receipt::new("g1", 1, now(), signing::receipt::Holder::Gateway(empty)));
    rack4.runs(2, "1.1.0");
    // A gateway that holds nothing may still want every one.
    let said = judged(&low, "--dry-run");
    assert_eq!(said["removed"], json!([]));
    assert_eq!(
        said["acknowledged"]["releases"]["1.0.0"]["because"],
        json!(["g1 holds no release yet"])
    );
    // The way back in the other slot counts as well.
    let mut receipt = common::host_receipt("rack5", 2, "1.1.0");
    if let signing::receipt::Holder::Host(host) = &mut receipt.holder {
        host.slots = vec![SlotHeld {
            slot: "b".to_owned(),
            state: "confirmed".to_owned(),
            version: Some("1.0.0".parse().unwrap()),
            root_hash: None,
        }];
    }
    rack5.says(receipt);
    let holds = |version: &str| ReleaseHeld {
        version: version.parse().unwrap(),
        root_hash: support::root_hash(version),
        objects: Vec::new(),
    };
    let state = GatewayState {
        releases: vec![holds("1.1.0"), holds("1.2.0")],
        ..GatewayState::default()
    };
    g1.says(Receipt::new("g1", 2, now(), signing::receipt::Holder::Gateway(state)));
    let said = low.run("prune --store store --acknowledged repository --dry-run").ok();
    assert!(
        said.contains("release 1.0.0: rack5 has it in slot b (receipt 2 of 20"),
        "{said}"
    );
    assert!(said.contains("release 1.1.0: g1 holds it (receipt 2 of 20"), "{said}");
    assert!(
        said.contains("rack4 runs it, and its next update begins there (receipt 2 of"),
        "{said}"
    );
    assert!(
        said.contains("rack4 acknowledges 1.1.0 and no newer one; rack5"),
        "{said}"
    );
    assert!(
        said.contains("kept: unpublished, no release was published from it"),
        "{said}"
    );
    assert!(said.contains("kept: of-1.0.0, release 1.0.0: rack5 has it"), "{said}");
    // All have gone past 1.0.0.
    rack5.runs(3, "1.1.0");
    let before = contents(&shelf.at("store"));
    let would = judged(&low, "--dry-run");
    assert_eq!(contents(&shelf.at("store")), before, "a dry run changes nothing");
    let did = judged(&low, "");
    for said in [would, did] {
        assert_eq!(names(&said["removed"]), ["of-1.0.0"]);
        assert_eq!(names(&said["kept"]), ["of-1.1.0", "of-1.2.0", "unpublished"]);
        assert_eq!(said["acknowledged"]["releases"]["1.0.0"]["because"], json!([]));
        assert_eq!(said["objects_removed"], 10);
    }
    assert_whole(&shelf);
    // What belongs to no release is then judged by the other rule.
    let said = judged(&low, "--keep of-1.2.0 --dry-run");
    assert_eq!(names(&said["removed"]), ["unpublished"]);
    assert!(
        low.run("prune --store store --acknowledged repository")
            .ok()
            .contains("nobody needs it")
    );
}

#[test]
fn whoever_fell_silent_is_named_and_his_last_word_counts() {
    let (low, shelf) = released();
    let (old, new) = (enrolled(&low, "old"), enrolled(&low, "new"));
    let mut receipt = common::host_receipt("old", 1, "1.0.0");
    receipt.at = now() - Duration::days(40);
    old.says(receipt);
    new.runs(1, "1.2.0");
    let said = judged(&low, "--within 30 --dry-run");
    assert_eq!(names(&said["acknowledged"]["silent"]), ["old"]);
    assert_eq!(said["removed"], json!([]));
    let text = low
        .run("prune --store store --acknowledged repository --within 30 --dry-run")
        .ok();
    assert!(
        text.contains("old has given no receipt lately, the last one 20"),
        "{text}"
    );
    assert_eq!(
        judged(&low, "--within 50 --dry-run")["acknowledged"]["silent"],
        json!([])
    );
    // It comes back with a release that was never published here.
    old.runs(2, "0.5.0");
    let said = judged(&low, "--dry-run");
    assert_eq!(said["acknowledged"]["unnamed"], json!({"0.5.0": ["old"]}));
    assert_eq!(said["removed"], json!([]));
    // A key that was enrolled by a run that was cut off there: nobody knows what its owner holds.
    let places = ["1", "2"].map(|number| low.at(&format!("repository/receipts/old/{number}.json")));
    let kept = places.each_ref().map(|place| fs::read(place).unwrap());
    for place in &places {
        fs::remove_file(place).unwrap();
    }
    let said = judged(&low, "--dry-run");
    assert_eq!(said["acknowledged"]["silent"], json!([{"name": "old", "last": null}]));
    assert_eq!(said["removed"], json!([]));
    for (place, bytes) in places.iter().zip(kept) {
        fs::write(place, bytes).unwrap();
    }
    // Its snapshot has gone, or is another of that name: what the release was built from stays.
    fs::remove_dir_all(shelf.at("store/snapshots/of-1.0.0")).unwrap();
    let said = judged(&low, "--keep of-1.2.0");
    assert_eq!((&said["objects_removed"], objects(&shelf)), (&0.into(), 35));
    // What cannot be understood stops it: a forged receipt, a release that was altered.
    let before = contents(&shelf.at("store"));
    let place = low.at("repository/receipts/old/2.json");
    let honest = fs::read_to_string(&place).unwrap();
    fs::write(&place, honest.replace("0.5.0", "1.2.0")).unwrap();
    let line = "prune --store store --acknowledged repository";
    low.run(line).fails(3, &["nothing was removed", "altered"]);
    fs::write(&place, honest).unwrap();
    let all = files_below(&low.at("repository/targets/host/1.1.0"));
    let upstream = all
        .iter()
        .find(|path| path.to_str().unwrap().ends_with("upstream.tar"))
        .unwrap();
    support::flip(upstream);
    low.run(line).fails(3, &["nothing was removed", "1.1.0"]);
    assert_eq!(contents(&shelf.at("store")), before);
    low.run("prune --store store --within 3 --keep x").ends(2);
}

#[test]
fn the_newest_stays_where_all_have_gone_past_it() {
    let (low, _shelf) = released();
    enrolled(&low, "ahead").runs(1, "9.0.0");
    let said = judged(&low, "--dry-run");
    assert_eq!(names(&said["removed"]), ["of-1.0.0", "of-1.1.0"]);
    assert_eq!(names(&said["kept"]), ["of-1.2.0"]);
}
