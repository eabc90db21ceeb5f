// SPDX-License-Identifier: GPL-3.0-or-later
//! Why a signature, or a message, is refused: one reason each.

use chrono::{DateTime, Utc};

/// The reason of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes are not what was expected: no detached signature, no cleartext-signed message, no encrypted one.
    #[error("{0}")]
    Malformed(String),
    /// There is no signature at all.
    #[error("no signature of a known key holds (there is none)")]
    NoSignature,
    /// All signatures are by keys that the keyring does not hold.
    #[error("no signature of a known key holds (the keyring lacks {issuer})")]
    Stranger {
        /// Whose it says it is.
        issuer: String,
    },
    /// The signature does not fit the data.
    #[error("the signature of {certificate} does not hold: {reason}")]
    DoesNotHold {
        /// Whose it says it is.
        certificate: String,
        /// Sequoia's words.
        reason: String,
    },
    /// A signature of another kind, such as one over text with its line endings left out.
    #[error("a signature of type {found} where {due} is due")]
    WrongType {
        /// Its type.
        found: String,
        /// The type that covers this data.
        due: String,
    },
    /// The signature, or one by which its key belongs to the certificate, is made with a hash that forgers can collide.
    #[error("{what} of {certificate} is made with {hash}, which is too weak")]
    WeakHash {
        /// Which signature.
        what: &'static str,
        /// The certificate.
        certificate: String,
        /// The hash function.
        hash: String,
    },
    /// The key is too short or of an outdated kind.
    #[error("the key {key} ({algorithm}, {bits} bits) is too weak")]
    WeakKey {
        /// The key that signed, or its certificate's primary key.
        key: String,
        /// Its algorithm.
        algorithm: String,
        /// Its size.
        bits: usize,
    },
    /// The certificate or the signing key was revoked.
    #[error("the key {key} is revoked: {reason}")]
    Revoked {
        /// The key that was revoked.
        key: String,
        /// What the revocation says.
        reason: String,
    },
    /// The certificate or the signing key has expired.
    #[error("the key {key} has expired on {expired}")]
    ExpiredKey {
        /// The key.
        key: String,
        /// Since when.
        expired: DateTime<Utc>,
    },
    /// The key was made after the signature.
    #[error("the key {key} is younger than the signature")]
    YoungKey {
        /// The key.
        key: String,
    },
    /// The signature itself has expired.
    #[error("the signature of {certificate} has expired on {expired}")]
    ExpiredSignature {
        /// Whose it is.
        certificate: String,
        /// Since when.
        expired: DateTime<Utc>,
    },
    /// The signature is dated after the time at which it is judged.
    #[error("the signature of {certificate} is from the future: it is dated {made}, and it is {now}")]
    FromTheFuture {
        /// Whose it is.
        certificate: String,
        /// Its date.
        made: DateTime<Utc>,
        /// The time of the judgement.
        now: DateTime<Utc>,
    },
    /// Who has signed already signs again.
    #[error("{who} has signed more than once")]
    Duplicate {
        /// The certificate, or the person who holds several.
        who: String,
    },
    /// A subkey that never confirmed that it belongs to the certificate: its owner may be somebody else.
    #[error("the subkey {key} of {certificate} carries no signature of its own over that certificate (back signature)")]
    NoBackSignature {
        /// The certificate that claims it.
        certificate: String,
        /// The subkey.
        key: String,
    },
    /// The key may not sign data.
    #[error("the key {key} is not for signing")]
    NotForSigning {
        /// The key.
        key: String,
    },
    /// The key does not belong to its certificate for another reason.
    #[error("a key of {certificate} is not bound to it: {reason}")]
    Unbound {
        /// The certificate.
        certificate: String,
        /// Sequoia's words.
        reason: String,
    },
    /// The certificate may not speak for this, as the caller says.
    #[error("{certificate} {reason}")]
    Barred {
        /// The certificate.
        certificate: String,
        /// Why.
        reason: String,
    },
    /// Too few signed.
    #[error("{have} of the {need} certificates that must have signed did{}", told(.refused))]
    BelowThreshold {
        /// How many did.
        have: usize,
        /// How many must.
        need: usize,
        /// What was refused, with the names of the files.
        refused: Vec<(String, Fault)>,
    },
    /// The message is not encrypted to this key.
    #[error("it is encrypted to {}, not to this key", .recipients.join(", "))]
    AnotherRecipient {
        /// To whom it is.
        recipients: Vec<String>,
    },
}

impl Fault {
    /// One word for it, the same in every version.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "openpgp-malformed",
            Self::NoSignature => "openpgp-no-signature",
            Self::Stranger { .. } => "openpgp-stranger",
            Self::DoesNotHold { .. } => "openpgp-does-not-hold",
            Self::WrongType { .. } => "openpgp-wrong-type",
            Self::WeakHash { .. } => "openpgp-weak-hash",
            Self::WeakKey { .. } => "openpgp-weak-key",
            Self::Revoked { .. } => "openpgp-revoked",
            Self::ExpiredKey { .. } => "openpgp-expired-key",
            Self::YoungKey { .. } => "openpgp-young-key",
            Self::ExpiredSignature { .. } => "openpgp-expired-signature",
            Self::FromTheFuture { .. } => "openpgp-future",
            Self::Duplicate { .. } => "openpgp-duplicate",
            Self::NoBackSignature { .. } => "openpgp-no-back-signature",
            Self::NotForSigning { .. } => "openpgp-not-for-signing",
            Self::Unbound { .. } => "openpgp-unbound",
            Self::Barred { .. } => "openpgp-barred",
            Self::BelowThreshold { .. } => "openpgp-below-threshold",
            Self::AnotherRecipient { .. } => "openpgp-another-recipient",
        }
    }
}

fn told(refused: &[(String, Fault)]) -> String {
    let told = refused.iter().map(|(name, fault)| format!("; {name}: {fault}"));
    told.collect()
}
