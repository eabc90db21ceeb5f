// SPDX-License-Identifier: GPL-3.0-or-later
//! PE images with their Authenticode signatures, EFI signature lists, certificates.
#![no_main]

#[path = "../../../signing/tests/common/mod.rs"]
mod common;
#[path = "../seeds.rs"]
mod seeds;

use std::io::Cursor;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use signing::secureboot::{
    Certificate, Identity, SignatureList, Variable, authenticode_sha256, pe_section, random_guid, sign_pe, sign_update,
    signature_list, verify_pe, verify_update,
};

static IDENTITY: LazyLock<Identity> =
    LazyLock::new(|| Identity::generate("Fuzz", "2026-01-01T00:00:00Z".parse().unwrap()).unwrap());

fn honest() -> Vec<Vec<u8>> {
    // Another's, so that nothing here verifies with our own.
    let at = "2026-01-01T00:00:00Z".parse().unwrap();
    let other = Identity::generate("Other", at).unwrap();
    let image = common::boot_image(".cmdline", b"quiet");
    let list = signature_list(random_guid().unwrap(), other.certificate()).unwrap();
    vec![
        sign_pe(&image, &other).unwrap(),
        image,
        sign_update(Variable::Db, &list, &other, at).unwrap(),
        list,
        other.certificate().to_der().to_vec(),
    ]
}

fuzz_target!(init: seeds::write(honest), |data: &[u8]| {
    let own = IDENTITY.certificate().to_der();
    assert!(verify_pe(data, own).is_err(), "a signature out of nothing");
    drop(authenticode_sha256(data));
    drop(pe_section(Cursor::new(data), ".cmdline", 1 << 16));
    // What can be signed verifies. RSA is slow: one in many.
    if data.len() % 16 == 0
        && let Ok(signed) = sign_pe(data, &IDENTITY)
    {
        verify_pe(&signed, own).unwrap();
    }
    drop(SignatureList::parse(data));
    drop(Certificate::from_der(data));
    let update = verify_update(Variable::Db, data, IDENTITY.certificate());
    assert!(update.is_err(), "a signature out of nothing");
});
