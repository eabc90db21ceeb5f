// SPDX-License-Identifier: GPL-3.0-or-later
//! The table of attacks against the client itself: the first of its three doors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/attacks/mod.rs"]
mod attacks;
mod common;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use anyhow::Result;
use attacks::vault::Vault;
use attacks::{Door, Go, Refusal, plain, recover, remembered, withstand};
use signing::clock::now;
use signing::release::{Part, newest, offered};
use signing::tuf::{Client, Datastore, DirectorySource, Limits};

/// A client with a datastore, and an application that takes every part of the newest release, as ours do.
struct Itself {
    vault: Vault,
    directory: tempfile::TempDir,
}

impl Itself {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let vault = Vault::seen([plain("1.0.0"), plain("1.1.0")]);
        let mut door = Self { vault, directory };
        Datastore::create(&door.at("store"), door.vault.file("1.root.json")).unwrap();
        let seen = door.vault.clone();
        door.offer(&seen, Go::Take).unwrap();
        common::copy(&door.at("store"), &door.at("first"));
        door
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn follow(&self, vault: &Vault, go: Go) -> Result<()> {
        let laid = vault.lay_down();
        let root = self.vault.file("1.root.json");
        let store = match go {
            Go::Take => Datastore::open(&self.at("store"))?,
            Go::Look => Datastore::rehearse(&self.at("store"), root)?.0,
        };
        let time = store.time(&now().into(), None)?;
        let mut client = Client::open(store, DirectorySource::below(laid.path()), Limits::default(), time)?;
        client.refresh()?;
        let release = newest(offered(&client.targets()?)?, "stable").unwrap();
        release.require(&Part::ALL)?;
        for target in release.parts.values() {
            client.fetch(target, &mut io::sink())?;
        }
        Ok(())
    }
}

impl Door for Itself {
    fn vault(&self) -> &Vault {
        &self.vault
    }

    fn offer(&mut self, vault: &Vault, go: Go) -> Result<(), Refusal> {
        self.follow(vault, go).map_err(|error| Refusal::of(&error))
    }

    fn memory(&self) -> BTreeMap<String, Vec<u8>> {
        remembered(&self.at("store"))
    }

    fn harm(&self) -> String {
        String::from("what a client fetches is in its caller's hands")
    }

    fn again(&mut self) {
        std::fs::remove_dir_all(self.at("store")).unwrap();
        common::copy(&self.at("first"), &self.at("store"));
    }

    fn takes_files(&self) -> bool {
        true
    }
}

#[test]
fn every_attack_is_refused_by_the_client() {
    withstand(&mut Itself::new());
}

#[test]
fn the_client_recovers_from_a_fast_forward() {
    recover(&mut Itself::new());
}
