// SPDX-License-Identifier: GPL-3.0-or-later
//! What a signature must be made of, for our own keys and for upstream's.
//!
//! | | house | upstream |
//! |---|---|---|
//! | for | releases, roots, bundles, transcripts, approvals | Debian's `InRelease` |
//! | hashes | SHA-2 and SHA-3, whatever the clock says | Sequoia's `StandardPolicy` as of the time of the judgement |
//! | RSA | from 3072 bits | from 2048 bits: Debian's older archive keys |
//! | DSA, ElGamal | never | as `StandardPolicy` |
//! | certificate and key alive and not revoked | when it was signed, and when it is judged | when it was signed |
//! | any fault in a known key's signature | refuses all | refuses all if it is in the signature itself |
//! | the same certificate twice | refuses all | counts once |
//!
//! The house is stricter since its keys are few and its own: whoever steals a key that was retired can date signatures
//! back, and a clock that was set back must not bring SHA-1 to life.

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use sequoia_openpgp::policy::{AsymmetricAlgorithm, StandardPolicy};
use sequoia_openpgp::types::HashAlgorithm;

/// The hashes for which two documents with one signature can be made.
pub(super) const WEAK_HASHES: [HashAlgorithm; 3] = [HashAlgorithm::MD5, HashAlgorithm::SHA1, HashAlgorithm::RipeMD];
/// The shortest RSA key of our own.
pub(super) const RSA_BITS: usize = 3072;

/// Whose signatures are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rules {
    /// Our own.
    House,
    /// Debian's.
    Upstream,
}

impl Rules {
    /// The part of the rules that Sequoia applies.
    pub(super) fn policy(self, at: DateTime<Utc>) -> StandardPolicy<'static> {
        let mut policy = StandardPolicy::at(SystemTime::from(at));
        if self == Self::House {
            for hash in WEAK_HASHES {
                policy.reject_hash(hash);
            }
            for algorithm in AsymmetricAlgorithm::variants().filter(|algorithm| is_weak(*algorithm)) {
                policy.reject_asymmetric_algo(algorithm);
            }
        }
        policy
    }
}

fn is_weak(algorithm: AsymmetricAlgorithm) -> bool {
    use AsymmetricAlgorithm::{
        DSA1024, DSA2048, DSA3072, DSA4096, ElGamal1024, ElGamal2048, ElGamal3072, ElGamal4096, RSA1024, RSA2048,
    };
    matches!(
        algorithm,
        RSA1024
            | RSA2048
            | DSA1024
            | DSA2048
            | DSA3072
            | DSA4096
            | ElGamal1024
            | ElGamal2048
            | ElGamal3072
            | ElGamal4096
    )
}
