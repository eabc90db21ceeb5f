// SPDX-License-Identifier: GPL-3.0-or-later
//! A boot image: its Secure Boot signature, and the root that it names.

use std::io::Cursor;

use signing::digest::Sha256;
use signing::secureboot;

use super::of_error;
use super::trust::Trust;
use crate::facts::SECTION_LIMIT;
use crate::report::Finding;

/// Judges a boot image.
pub(crate) fn image(id: &str, title: &str, image: &[u8], root_hash: Option<Sha256>, trust: &Trust) -> Finding {
    let signature = match &trust.db {
        None => Finding::unknown(
            format!("{id}.signature"),
            "Secure Boot signature",
            "the trust directory has no db.der",
        ),
        Some(db) => match secureboot::verify_pe(image, db) {
            Ok(signature) => Finding::pass(
                format!("{id}.signature"),
                "Secure Boot signature",
                format!("signed with {}", signature.signer),
            )
            .fact("Authenticode digest", signature.image_sha256)
            .fact("sha256 of the certificate", signature.certificate_sha256),
            Err(error) => Finding::new(format!("{id}.signature"), "Secure Boot signature", of_error(error)).guide(
                "The firmware starts what db vouches for and nothing else.",
                &["ANSSI BP-028 R3", "UEFI 2.10, section 32.5.3"],
                "Do not use it. Keep it as it is, as evidence, and ask whoever sent it; a release of your own is signed with \
                 `bastide-iso sign`.",
            ),
        },
    };
    Finding::heading(id, title, vec![signature, names_root(id, image, root_hash)]).fact("sha256", Sha256::of(image))
}

/// The command line inside the signed image must name the root that the metadata names: the signature then covers both.
fn names_root(id: &str, image: &[u8], root_hash: Option<Sha256>) -> Finding {
    let id = format!("{id}.root");
    let title = "It boots the root file system of this release";
    let Some(hash) = root_hash else {
        return Finding::unknown(id, title, "the metadata names no root hash");
    };
    let mut line = None;
    // A unified Xen image has its configuration in `.config`, a unified kernel image its command line in `.cmdline`.
    for name in [".config", ".cmdline"] {
        match secureboot::pe_section(Cursor::new(image), name, SECTION_LIMIT) {
            Ok(Some(content)) => line = Some(String::from_utf8_lossy(&content).into_owned()),
            Ok(None) => {}
            Err(error) => return Finding::fail(id, title, error.to_string()),
        }
    }
    let Some(line) = line else {
        return Finding::fail(
            id,
            title,
            "it holds neither .config nor .cmdline: an unsigned command line would decide",
        );
    };
    let wanted = format!("bastide.roothash={hash}");
    if line.split_whitespace().any(|word| word.trim_matches('\0') == wanted) {
        Finding::pass(id, title, format!("its signed command line has {wanted}"))
    } else {
        Finding::fail(id, title, format!("its signed command line lacks {wanted}"))
    }
}
