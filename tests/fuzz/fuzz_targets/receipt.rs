// SPDX-License-Identifier: GPL-3.0-or-later
//! Receipts. The bytes are a file, or what a holder of a key signs: nothing that is taken says another thing than was signed.
#![no_main]

#[path = "../seeds.rs"]
mod seeds;

use std::sync::LazyLock;

use chrono::DateTime;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use signing::digest::Sha256;
use signing::keys::PrivateKey;
use signing::receipt::{GatewayState, Holder, HostState, Receipt, ReleaseHeld, Signed};

/// Always the same: RFC 8410's frame of a private key, and the key.
static KEY: LazyLock<PrivateKey> = LazyLock::new(|| {
    let frame = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    PrivateKey::from_pkcs8_der("the key", &[&frame[..], &[7; 32]].concat()).unwrap()
});

fn honest() -> Vec<Vec<u8>> {
    let (version, root_hash) = ("1.1.0".parse().unwrap(), Sha256::of(b"root"));
    let host = Holder::Host(HostState {
        version,
        root_hash,
        slots: Vec::new(),
        healthy: false,
        reasons: "xen: it does not answer".to_owned(),
        install_record: Sha256::of(b"record"),
    });
    let releases = vec![ReleaseHeld { version, root_hash, objects: vec![root_hash] }];
    let mut seeds = Vec::new();
    for holder in [host, Holder::Gateway(GatewayState { releases, ..GatewayState::default() })] {
        let receipt = Receipt::new("rack4", 7, DateTime::UNIX_EPOCH, holder);
        seeds.push(serde_json::to_vec(&receipt).unwrap());
        seeds.push(receipt.sign(&*KEY).unwrap().bytes);
    }
    seeds
}

fuzz_target!(init: seeds::write(honest), |data: &[u8]| {
    if let Ok(signed) = Signed::read(data) {
        let file: Value = serde_json::from_slice(data).unwrap();
        assert_eq!(serde_json::to_value(&signed.receipt).unwrap(), file["signed"], "it was read in another way");
    }
    if let Ok(receipt) = serde_json::from_slice::<Receipt>(data)
        && let Ok(signed) = receipt.clone().sign(&*KEY)
    {
        assert_eq!((signed.receipt.sequence, &signed.receipt.name), (receipt.sequence, &receipt.name));
        assert!(Signed::read(&signed.bytes).is_ok());
    }
});
