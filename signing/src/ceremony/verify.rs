// SPDX-License-Identifier: GPL-3.0-or-later
//! Whether custodians signed a transcript with OpenPGP: people are counted, neither certificates nor signatures.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use chrono::{DateTime, Utc};
use sequoia_openpgp::Cert;
use serde::Serialize;

use super::state::{Reason, TrustedRoot};
use super::{Assembled, Transcript};
use crate::openpgp::count_signers;
use crate::tuf::root::signed_part;

/// A certificate that signed the transcript.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TranscriptSigner {
    /// Its fingerprint.
    pub fingerprint: String,
    /// The custodian to whom the old or the new root gives it.
    pub custodian: Option<String>,
    /// When it signed.
    pub signed_at: DateTime<Utc>,
}

/// What holds of a transcript.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// The ceremony, repeated.
    #[serde(flatten)]
    pub ceremony: Assembled,
    /// Who signed the transcript.
    pub signers: Vec<TranscriptSigner>,
    /// Signatures that were refused, and why.
    pub refused_signatures: BTreeMap<String, String>,
    /// How many certificates must have signed.
    pub threshold: usize,
}

/// Verifies a transcript and detached signatures over it by these certificates.
///
/// # Errors
/// A refusal when the transcript does not hold or fewer than `threshold` distinct certificates signed it.
pub fn verify(
    transcript: &[u8],
    old: Option<&TrustedRoot>,
    certs: &[Cert],
    signatures: &[(String, Vec<u8>)],
    threshold: usize,
    at: DateTime<Utc>,
) -> Result<Verified> {
    let ceremony = Transcript::verify(transcript, old)?;
    let (custodians, barred) = holders(&ceremony, old)?;
    let person = |fingerprint: &str| {
        if barred.contains(fingerprint) {
            return Err("belongs to a key that the new root calls compromised".to_owned());
        }
        // A custodian whose certificate is replaced is the same person with both.
        Ok(custodians
            .get(fingerprint)
            .cloned()
            .unwrap_or_else(|| fingerprint.to_owned()))
    };
    let counted = count_signers(certs, transcript, signatures, &person, at)?.reach(threshold)?;
    let mut signers: Vec<_> = counted
        .signers
        .into_iter()
        .map(|signer| TranscriptSigner {
            custodian: custodians.get(&signer.fingerprint).cloned(),
            fingerprint: signer.fingerprint,
            signed_at: signer.signed_at,
        })
        .collect();
    signers.sort_by(|one, other| one.fingerprint.cmp(&other.fingerprint));
    let mut refused_signatures: BTreeMap<String, String> = BTreeMap::new();
    for (name, fault) in counted.refused {
        let told = refused_signatures.entry(name).or_default();
        if !told.is_empty() {
            *told += "; ";
        }
        *told += &fault.to_string();
    }
    Ok(Verified {
        ceremony,
        signers,
        refused_signatures,
        threshold,
    })
}

/// Whose certificates the roots name, and which of them belong to compromised keys.
fn holders(ceremony: &Assembled, old: Option<&TrustedRoot>) -> Result<(BTreeMap<String, String>, BTreeSet<String>)> {
    let (file, _) = ceremony.complete()?;
    let new = super::RootState::read(&signed_part("the new root", file)?)?.record();
    let before = old.map(|old| old.state.record()).unwrap_or_default();
    let mut named = BTreeMap::new();
    let mut barred = BTreeSet::new();
    for (keyid, custodian) in before.custodians.iter().chain(&new.custodians) {
        let Some(openpgp) = custodian.openpgp.clone() else {
            continue;
        };
        let why = new.removed.get(keyid).map(|removed| removed.why);
        if matches!(why, Some(Reason::Compromised { .. })) {
            barred.insert(openpgp.clone());
        } else {
            // A custodian who got a new root key may have kept the certificate.
            barred.remove(&openpgp);
        }
        named.insert(openpgp, custodian.name.clone());
    }
    Ok((named, barred))
}
