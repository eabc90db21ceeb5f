// SPDX-License-Identifier: GPL-3.0-or-later
//! What a host acknowledges, on a real disk.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use hypervisor::receipt::give;
use signing::digest::Sha256;
use signing::durable::Lock;
use signing::keys::PublicKey;
use signing::output::Refused;
use signing::receipt::{Holder, HostState, Receipt, Signed};
use support::drive::{install, repository};
use support::repository::Terms;
use support::{Host, Site};

fn host_state(receipt: &Receipt) -> &HostState {
    match &receipt.holder {
        Holder::Host(host) => host,
        Holder::Gateway(_) => unreachable!("a host gave it"),
    }
}

fn version(receipt: &Receipt, role: &str) -> Option<u64> {
    let mut seen = receipt.vendor.iter();
    seen.find(|seen| seen.role == role).map(|seen| seen.version)
}

#[test]
fn a_host_signs_what_it_runs_holds_and_has_seen() {
    let Some(host) = Host::install() else { return };
    let out = host.machine.state.join("first.json");
    let given = give(&host.machine, &out).unwrap();
    // What was given is what lies there, signed with the key of the install record.
    let signed = Signed::load(&out).unwrap();
    assert_eq!((&signed.receipt, signed.fingerprint), (&given.receipt, given.host_key));
    let record = fs::read(host.machine.state.join("install-record.json")).unwrap();
    let recorded: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let recorded = recorded["host_key"].as_str().unwrap();
    let recorded = PublicKey::from_pem("the record's key", recorded.as_bytes()).unwrap();
    assert_eq!(signed.fingerprint, recorded.fingerprint());
    let receipt = signed.receipt;
    let state = host_state(&receipt);
    assert_eq!(
        (state.version, state.root_hash),
        (host.installed.version, host.installed.root_hash)
    );
    assert_eq!(state.install_record, Sha256::of(&record));
    let slots: Vec<_> = state
        .slots
        .iter()
        .map(|slot| (&slot.slot[..], &slot.state[..]))
        .collect();
    assert_eq!(slots, [("a", "confirmed"), ("b", "empty")]);
    assert_eq!((receipt.sequence, version(&receipt, "root")), (1, Some(1)));
    assert_eq!(version(&receipt, "timestamp"), None);

    // After an update is written it says what waits for its trial, and what the host remembers.
    let new = host.site.release("1.1.0", 2);
    let offered = repository(&host, &[&host.installed, &new], Terms::version(5));
    install(&host, &offered).unwrap();
    let second = give(&host.machine, &host.machine.state.join("second.json"))
        .unwrap()
        .receipt;
    assert_eq!((second.sequence, version(&second, "timestamp")), (2, Some(5)));
    let b = &host_state(&second).slots[1];
    assert_eq!(
        (&b.state[..], b.version, b.root_hash),
        ("trial", Some(new.version), Some(new.root_hash))
    );
    assert!(second.site.is_empty());
}

#[test]
fn a_host_of_two_sovereigns_says_what_it_saw_of_the_site() {
    let Some(host) = Host::install() else { return };
    let officers = Site::new();
    host.pin_site(&officers);
    let receipt = give(&host.machine, &host.machine.state.join("r.json")).unwrap().receipt;
    let root = receipt.site.iter().find(|seen| seen.role == "root").unwrap();
    assert_eq!(root.sha256, Sha256::of(&officers.root));
}

#[test]
fn a_receipt_that_cannot_be_whole_is_not_given() {
    let Some(host) = Host::install() else { return };
    let state = &host.machine.state;
    let out = state.join("r.json");
    fs::write(&out, "something").unwrap();
    assert!(give(&host.machine, &out).unwrap_err().is::<Refused>());
    fs::remove_file(&out).unwrap();
    // Two at once would have one number.
    fs::create_dir(state.join("receipts")).unwrap();
    let lock = Lock::take(&state.join("receipts")).unwrap();
    give(&host.machine, &out).unwrap_err();
    drop(lock);
    for name in [
        "host-key.pem",
        "slots.json",
        "install-record.json",
        "datastore/root.json",
    ] {
        let content = fs::read(state.join(name)).unwrap();
        fs::write(state.join(name), "damaged").unwrap();
        let error = give(&host.machine, &out).map(|given| given.receipt);
        // The record is acknowledged by its digest alone: judging it is the audit's work.
        if name != "install-record.json" {
            error.unwrap_err();
            assert!(!out.exists(), "{name}");
        } else {
            error.unwrap();
            fs::remove_file(&out).unwrap();
        }
        fs::write(state.join(name), content).unwrap();
    }
    // No number comes twice, whatever failed in between.
    let sequence = give(&host.machine, &out).unwrap().receipt.sequence;
    assert!(sequence >= 2, "{sequence}");
    fs::write(state.join("receipts/count.json"), "{").unwrap();
    fs::remove_file(&out).unwrap();
    give(&host.machine, &out).unwrap_err();
}
