// SPDX-License-Identifier: GPL-3.0-or-later
//! UEFI Secure Boot: certificates for PK, KEK and db, Authenticode signatures of boot images, signed variable updates.
//!
//! Signing is deterministic: RSA PKCS #1 v1.5, no signing time, so a rebuilder who has the key gets the same bits, and one
//! who has not gets the same bits up to the signature.
//!
//! # Attacks faced (a boot image or variable update from a medium)
//! - An image whose headers point outside it, whose sections overlap or leave gaps that no hash covers, or with data after
//!   the signature: refused, since firmware and we could disagree on what is signed.
//! - A signature of another certificate, or one over other bytes: the digest, the signed attributes and the RSA signature
//!   are each checked, against the one certificate that the caller trusts and no chain.
//! - Huge certificate tables: bounded.
//!
//! # Defence not made
//! Certificates' validity dates are ignored, as firmware ignores them: its clock is anybody's. Revocation (dbx) is not read
//! here; a key is withdrawn by enrolling a new db.

mod authenticode;
mod identity;
mod pe;
mod pkcs7;
mod variables;

pub use authenticode::{PeSignature, sign_pe, verify_pe};
pub use identity::{Certificate, Identity};
pub use pe::{Layout, PeHeaders, PeSection, authenticode_sha256, pe_section};
pub use variables::{SignatureList, Variable, random_guid, sign_update, signature_list, verify_update};

pub use crate::guid::Guid;
use crate::keys::KeyError;
use crate::output::Refused;

/// Why a Secure Boot operation did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecureBootError {
    /// The file is not a UEFI boot image that can be signed or verified.
    #[error("not a PE32+ image as UEFI wants it: {0}")]
    Image(String),
    /// The file cannot be read.
    #[error("cannot read the image")]
    Read(#[source] std::io::Error),
    /// The image already carries a signature.
    #[error("the image is signed already; sign the unsigned one")]
    Signed,
    /// The signature does not hold.
    #[error("Secure Boot signature")]
    Refused(#[source] Refused),
    /// A certificate or signed structure cannot be read or made.
    #[error("{what}: {reason}")]
    Structure {
        /// What it is.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate belongs to another key.
    #[error("the certificate {subject} does not belong to this private key")]
    Mismatch {
        /// The certificate's subject.
        subject: String,
    },
    /// A key operation failed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

fn refused(reason: impl Into<String>) -> SecureBootError {
    SecureBootError::Refused(Refused(reason.into()))
}

fn structure(what: &'static str) -> impl Fn(&dyn std::fmt::Display) -> SecureBootError {
    move |error| SecureBootError::Structure {
        what,
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
