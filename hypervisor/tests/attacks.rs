// SPDX-License-Identifier: GPL-3.0-or-later
//! The table of attacks against `bastide-host update`: the third of its three doors.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../signing/tests/common/attacks/mod.rs"]
mod attacks;
#[path = "../../signing/tests/common/attacks/carried.rs"]
mod carried;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use attacks::vault::{Built, Vault};
use attacks::{Door, Go, Refusal, recover, remembered};
use hypervisor::events::{Event, Phase};
use hypervisor::layout::Slot;
use hypervisor::slots::State;
use hypervisor::update::{self, Depth, Origin, Outcome, Step};
use offline_repo::repository::offer;
use signing::release::Part;
use signing::tuf::{Datastore, Offer, Source};
use support::{Host, Release, common};

/// A host of a site whose TUF keys are in a vault.
struct Update {
    vault: Vault,
    host: Host,
    new: Release,
    directory: tempfile::TempDir,
}

fn built(release: &Release) -> Built {
    Built {
        version: release.version,
        root_hash: release.root_hash,
        parts: vec![
            (Part::Root, release.root.clone()),
            (Part::Verity, release.verity.clone()),
            (Part::Xen, release.xen.clone()),
        ],
    }
}

impl Update {
    /// Nothing where no host can be made.
    fn new() -> Option<Self> {
        let host = Host::install()?;
        let new = host.site.release("1.1.0", 2);
        let vault = Vault::seen([built(&host.installed), built(&new)]);
        let root = vault.file("1.root.json").to_vec();
        fs::write(host.machine.trust.join("root.json"), &root).unwrap();
        fs::remove_dir_all(host.machine.datastore()).unwrap();
        drop(Datastore::create(&host.machine.datastore(), &root).unwrap());
        let directory = tempfile::tempdir().unwrap();
        let mut door = Self {
            vault,
            host,
            new,
            directory,
        };
        let seen = door.vault.clone();
        door.offer(&seen, Go::Take).unwrap();
        common::copy(&door.host.machine.datastore(), &door.first());
        Some(door)
    }

    fn first(&self) -> PathBuf {
        self.directory.path().join("first")
    }

    fn take(&mut self, offer: Offer<impl Source>, go: Go) -> Result<(), Refusal> {
        let depth = match go {
            Go::Take => Depth::Install,
            Go::Look => Depth::VerifyOnly,
        };
        let before = self.host.fingerprint();
        let mut written = false;
        let mut watch = |event: Event<Step>| {
            written |= event.step == Step::Invalidate && event.state == Phase::Start;
            Ok(())
        };
        let result = update::update(&self.host.machine, offer, depth, &mut watch);
        self.host.assert_nothing_half(&self.new);
        assert_eq!(self.host.slots().get(Slot::B).state, State::Empty);
        let refusal = match result {
            Ok(Outcome::OnTrial { .. }) => panic!("it was installed"),
            Ok(_) => None,
            Err(error) => Some(Refusal::of(&error)),
        };
        if written {
            // Only what streams into the slot is found out there.
            let text = &refusal.as_ref().unwrap().text;
            assert!(text.contains("root.erofs") || text.contains("root.verity"), "{text}");
        } else {
            assert_eq!(self.host.fingerprint(), before);
        }
        refusal.map_or(Ok(()), Err)
    }

    /// As a stick brings it.
    fn take_bundle(&mut self, bundle: &[u8]) -> Result<(), Refusal> {
        let file = self.directory.path().join("x.bundle");
        fs::write(&file, bundle).unwrap();
        let offer = match update::open(&self.host.machine, &Origin::File(file)) {
            Ok((offer, _)) => offer,
            Err(error) => return Err(Refusal::of(&error)),
        };
        self.take(offer, Go::Take)
    }
}

impl Door for Update {
    fn vault(&self) -> &Vault {
        &self.vault
    }

    fn offer(&mut self, vault: &Vault, go: Go) -> Result<(), Refusal> {
        let laid = vault.lay_down();
        for (name, signature) in vault.countersigned() {
            fs::write(laid.path().join("metadata").join(name), signature).unwrap();
        }
        self.take(offer(laid.path()), go)
    }

    fn memory(&self) -> BTreeMap<String, Vec<u8>> {
        remembered(&self.host.machine.datastore())
    }

    fn harm(&self) -> String {
        let (host, firmware) = (&self.host, self.host.firmware.fingerprint());
        format!("{firmware} {:?} {:?}", host.slots(), host.would_start())
    }

    fn again(&mut self) {
        let store = self.host.machine.datastore();
        fs::remove_dir_all(&store).unwrap();
        common::copy(&self.first(), &store);
    }

    fn takes_files(&self) -> bool {
        true
    }
}

#[test]
fn every_attack_is_refused_by_update() {
    let Some(mut update) = Update::new() else { return };
    attacks::withstand(&mut update);
}

#[test]
fn a_host_recovers_from_a_fast_forward() {
    let Some(mut update) = Update::new() else { return };
    recover(&mut update);
}

#[test]
fn every_attack_on_the_archive_is_refused_by_update() {
    let Some(mut update) = Update::new() else { return };
    let mut honest = update.vault.clone();
    honest.publish(3, 2);
    let whole = carried::bundle(&honest);
    carried::withstand(&mut update, &whole, Update::take_bundle);
}

#[test]
fn a_thief_of_all_tuf_keys_lacks_the_release_key_at_an_update() {
    let Some(mut update) = Update::new() else { return };
    carried::without_release_key(&mut update, Update::take_bundle);
}

#[test]
fn a_pipe_in_the_place_of_a_bundle_is_not_waited_for() {
    let Some(update) = Update::new() else { return };
    let place = update.directory.path().join("pipe.bundle");
    common::pipe(&place);
    let error = update::open(&update.host.machine, &Origin::File(place)).err().unwrap();
    assert!(format!("{error:#}").contains("not a regular file"), "{error:#}");
}
