// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-sign waiver` as custodians use it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::fs;

use chrono::TimeDelta;
use common::{SECRET, Said};
use signing::clock::now;
use signing::durable::write_private;
use signing::keys::Passphrase;
use signing::site::{Role, Site};
use signing::tuf::author::{KeySet, Signer};
use signing::tuf::repository::{Expiry, Signers};
use signing::tuf::{Client, Datastore, DirectorySource, Limits, Repository, Waiver};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bastide-sign");
const SIGN: &str = "waiver sign waiver.json --root site/trust/root.json --passphrase-file passphrase";
const SHOW: &str = "waiver show waiver.json --root site/trust/root.json";

/// A site and its repository, whose metadata expires in two days.
fn bench() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    common::copy(common::site(), &place.join("site"));
    write_private(&place.join("passphrase"), format!("{SECRET}\n").as_bytes()).unwrap();
    let site = Site::open(&place.join("site")).unwrap();
    let passphrase = Passphrase::obtain(Some(&place.join("passphrase")), "").unwrap();
    let key = |role| site.signer(role, &passphrase).unwrap();
    let (targets, host) = (key(Role::Targets), key(Role::Host));
    let (snapshot, timestamp) = (key(Role::Snapshot), key(Role::Timestamp));
    let root = fs::read(place.join("site/trust/root.json")).unwrap();
    let mut repository = Repository::create(&place.join("repository"), &root).unwrap();
    let signers = Signers {
        targets: &[&targets],
        host: &[&host],
        snapshot: &[&snapshot],
        timestamp: &[&timestamp],
        release: None,
    };
    let expiry = Expiry::all(now() + TimeDelta::days(2));
    repository
        .publish(&KeySet::single(host.public()), &signers, &expiry, now())
        .unwrap();
    directory
}

fn sign(bench: &TempDir, line: &str) -> Said {
    Said::of(common::command(PROGRAM, bench.path(), line))
}

#[test]
fn the_examples_in_the_help_make_a_waiver_that_a_client_takes() {
    let bench = bench();
    let helps = common::helps(PROGRAM, &[]);
    let of = |command: &str| {
        let help = helps.iter().find(|help| help.command == command).unwrap();
        help.examples.clone()
    };
    for line in of("waiver write").iter().chain(&of("waiver sign")) {
        sign(&bench, line).ok();
    }
    // One of two that must.
    sign(&bench, SHOW).fails(3, &["refused", "1 of the 2"]);
    let told = sign(&bench, &format!("{SIGN} --key site/private/root-3.pem --json"))
        .ends(0)
        .json();
    assert_eq!((&told["complete"], &told["threshold"]), (&true.into(), &2.into()));
    for line in of("waiver show").iter().chain(&of("waiver")) {
        let said = sign(&bench, line).ok();
        assert!(
            said.lines().all(|line| line.chars().count() <= 80) || line.contains("--json"),
            "{said}"
        );
    }
    let later = (now() + TimeDelta::days(15)).format("%Y-%m-%dT%H:%M:%SZ");
    sign(&bench, &format!("{SHOW} --at {later}")).fails(3, &["ended at"]);

    let root = fs::read(bench.path().join("site/trust/root.json")).unwrap();
    let follow = |waiver| {
        let store = Datastore::ephemeral(&root).unwrap();
        let time = store.time(&(now() + TimeDelta::days(7)).into(), None).unwrap();
        let source = DirectorySource::below(&bench.path().join("repository"));
        let mut client = Client::open(store, source, Limits::default(), time.with_waiver(waiver)).unwrap();
        client.refresh().and_then(|()| client.targets().map(drop))
    };
    assert_eq!(follow(None).unwrap_err().code(), "expired");
    follow(Some(Waiver::load(&bench.path().join("waiver.json")).unwrap())).unwrap();
}

#[test]
fn what_does_not_make_a_waiver_is_refused_and_writes_nothing() {
    let bench = bench();
    let write = |more: &str| {
        let line = "waiver write --root site/trust/root.json repository/metadata --reason x";
        sign(&bench, &format!("{line} {more}"))
    };
    write("--days 14 --dry-run --out waiver.json").ok();
    assert!(!bench.path().join("waiver.json").exists());
    write("--days 14").ends(2);
    write("--out waiver.json").ends(2);
    write("--days 91 --out waiver.json").ends(2);
    write("--until 2020-01-01T00:00:00Z --out waiver.json").fails(3, &["is over"]);
    write("--until 2999-01-01T00:00:00Z --out waiver.json").fails(3, &["90 days"]);
    write("--days 1 --out waiver.json").fails(3, &["nothing of this metadata expires by", "--role"]);
    write("--days 14 --role root --out waiver.json").fails(3, &["it lifts root"]);
    write("--days 14 --role guests --out waiver.json").fails(3, &["no role \"guests\""]);
    assert!(!bench.path().join("waiver.json").exists());

    write("--days 14 --role timestamp --out waiver.json").ok();
    write("--days 14 --out waiver.json").fails(3, &["is there already"]);
    let before = fs::read(bench.path().join("waiver.json")).unwrap();
    sign(&bench, &format!("{SIGN} --key site/private/timestamp.pem")).fails(3, &["no key of this root"]);
    sign(
        &bench,
        &format!("{SIGN} --key site/private/root-1.pem --key site/private/root-1.pem"),
    )
    .fails(3, &["signed it already"]);
    assert_eq!(fs::read(bench.path().join("waiver.json")).unwrap(), before);
    // Another site's root, and metadata that the site did not sign.
    fs::write(bench.path().join("waiver.txt"), "x").unwrap();
    sign(&bench, "waiver show waiver.txt --root site/trust/root.json").fails(3, &["waiver.txt"]);
    sign(&bench, "waiver show none.json --root site/trust/root.json").fails(1, &["none.json"]);
    let timestamp = bench.path().join("repository/metadata/timestamp.json");
    let text = fs::read_to_string(&timestamp).unwrap();
    fs::write(&timestamp, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
    write("--days 14 --out other.json").fails(3, &["cannot trust the metadata"]);
}
