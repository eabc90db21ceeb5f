// SPDX-License-Identifier: GPL-3.0-or-later
//! A repository as large as the default limits promise, and what the client needs for it. A process of its own: its memory
//! is measured.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/attacks/mod.rs"]
mod attacks;
mod common;

use attacks::plain;
use attacks::vault::Vault;
use signing::clock::now;
use signing::release::Part;
use signing::tuf::{Client, Datastore, DirectorySource, Limits, TufError};

/// As many packages as a Debian release has for one architecture, more or less half of them.
const TARGETS: usize = 30_000;
/// What all of this process may take: the client, and before it the making of the repository.
const MEMORY: u64 = 320 << 20;

/// The most memory that this process ever had.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn thirty_thousand_targets_are_followed_within_bounds() {
    let mut vault = Vault::seen([plain("1.0.0"), plain("1.1.0")]);
    let release = vault.newest();
    for at in 0..TARGETS {
        let name = format!("host/1.1.0/a-package-with-a-name-{at}_1.2.3-4_amd64.deb");
        vault.describe(&release, Part::Sbom, &name, at.to_string().as_bytes());
    }
    vault.put_host(3);
    vault.delegate(3);
    vault.index(3, &[("host", 3), ("targets", 3)]);
    let laid = vault.lay_down();
    let (root, wanted) = (vault.file("1.root.json").to_vec(), vault.entries.len());
    drop(vault);

    let directory = tempfile::tempdir().unwrap();
    let follow = |limits| {
        let store = Datastore::open_or_create(directory.path(), &root).unwrap().0;
        let mut client = Client::open(store, DirectorySource::below(laid.path()), limits, now()).unwrap();
        client.targets().map(|targets| targets.len())
    };
    assert_eq!(follow(Limits::default()).unwrap(), wanted);
    // And again from the memory.
    assert_eq!(follow(Limits::default()).unwrap(), wanted);
    let taken = peak();
    println!("{TARGETS} targets: {} MiB", taken >> 20);
    assert!(taken < MEMORY, "{} MiB", taken >> 20);

    // Each bound that a large repository meets stands, and is one by name.
    let short = [
        Limits {
            targets: TARGETS,
            ..Limits::default()
        },
        Limits {
            json_values: TARGETS,
            ..Limits::default()
        },
    ];
    for limits in short {
        let error = follow(limits).unwrap_err();
        assert!(
            matches!(error, TufError::TooMany { .. } | TufError::Malformed { .. }),
            "{error}"
        );
    }
}
