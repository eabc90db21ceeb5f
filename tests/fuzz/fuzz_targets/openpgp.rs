// SPDX-License-Identifier: GPL-3.0-or-later
//! OpenPGP: messages signed in the clear, detached signatures, keyrings.
#![no_main]

#[path = "../seeds.rs"]
mod seeds;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use libfuzzer_sys::fuzz_target;
use signing::keys::Passphrase;
use signing::openpgp;

/// Upstream's own keyring: real certificates, whose signatures no fuzzer makes.
static KEYRING: LazyLock<PathBuf> =
    LazyLock::new(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../offline-repo/keyrings/debian-trixie.asc"));
static NOW: LazyLock<DateTime<Utc>> = LazyLock::new(|| "2026-01-01T00:00:00Z".parse().unwrap());

fn honest() -> Vec<Vec<u8>> {
    let passphrase = Passphrase::new(b"correct horse battery staple".to_vec()).unwrap();
    let key = openpgp::generate("Fuzz <fuzz@example.org>", &passphrase, *NOW).unwrap();
    let signature = openpgp::sign_detached(key.key.as_bytes(), &passphrase, &b"data"[..], *NOW).unwrap();
    openpgp::parse_keyring(Path::new("seed"), key.certificate.as_bytes()).unwrap();
    let cleartext = format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\ndata\n{signature}");
    [key.certificate, key.key, signature, cleartext]
        .map(String::into_bytes)
        .into()
}

fuzz_target!(init: seeds::write(honest), |data: &[u8]| {
    assert!(openpgp::verify_cleartext(&KEYRING, data, *NOW).is_err(), "a signature out of nothing");
    assert!(openpgp::verify_detached(&KEYRING, &b"data"[..], data, *NOW).is_err(), "a signature out of nothing");
    drop(openpgp::parse_keyring(Path::new("fuzz"), data));
    if let Ok(joined) = openpgp::join(data, data) {
        assert!(joined.len() <= 4 * data.len() + 200, "it grew");
    }
});
