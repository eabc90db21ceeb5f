// SPDX-License-Identifier: GPL-3.0-or-later
//! k of n: how many different people signed one text, each in a file of its own or several in one.
//!
//! # Attacks faced
//! - One person who signs twice, with the same key, with two subkeys, or with two certificates: people are counted.
//! - A bad signature beside good ones: it is refused by itself and named; it neither counts nor hides the others.
//!
//! # Defence not made
//! Which certificates may sign, and whose they are, the caller says: a user ID is what its owner wrote.

use std::collections::BTreeSet;
use std::io::Read;

use chrono::{DateTime, Utc};
use sequoia_openpgp::Cert;

use super::{Fault, OpenPgpError, Signer, verdicts, verify_detached_by};

/// Who signed, and what was refused.
#[derive(Debug, Clone, Default)]
pub struct Counted {
    /// The first signature of each person.
    pub signers: Vec<Signer>,
    /// What did not count, with the names that the signatures were given under.
    pub refused: Vec<(String, Fault)>,
}

impl Counted {
    /// Whether enough people signed.
    ///
    /// # Errors
    /// [`Fault::BelowThreshold`], with all that was refused, when they did not.
    pub fn reach(self, threshold: usize) -> Result<Self, Fault> {
        // Nobody is never enough.
        let need = threshold.max(1);
        if self.signers.len() < need {
            return Err(Fault::BelowThreshold {
                have: self.signers.len(),
                need,
                refused: self.refused,
            });
        }
        Ok(self)
    }
}

/// As [`verify_detached_by`], where `need` certificates must have signed, each with a key of its own.
///
/// # Errors
/// As there; [`Fault::BelowThreshold`] when fewer did, and [`Fault::Duplicate`] when two share the key that signed.
pub fn verify_threshold(
    certs: &[Cert],
    data: impl Read + Send + Sync,
    signature: &[u8],
    need: u64,
    at: DateTime<Utc>,
) -> Result<Vec<Signer>, OpenPgpError> {
    let signers = verify_detached_by(certs, data, signature, at)?;
    let mut keys = BTreeSet::new();
    if let Some(twice) = signers.iter().find(|signer| !keys.insert(&signer.key)) {
        return Err(Fault::Duplicate { who: twice.key.clone() }.into());
    }
    let counted = Counted {
        signers,
        refused: Vec::new(),
    };
    Ok(counted.reach(usize::try_from(need).unwrap_or(usize::MAX))?.signers)
}

/// Judges detached signatures over `data` by the house's rules and counts people. Each signature has a name, for telling it
/// from others. `person` says whose a certificate (its fingerprint) is, or why it does not count.
///
/// # Errors
/// When the signatures could not be looked at. Those that do not hold are in [`Counted::refused`].
pub fn count_signers(
    certs: &[Cert],
    data: &[u8],
    signatures: &[(String, Vec<u8>)],
    person: &dyn Fn(&str) -> Result<String, String>,
    at: DateTime<Utc>,
) -> Result<Counted, OpenPgpError> {
    let mut counted = Counted::default();
    let mut people = Vec::new();
    for (name, signature) in signatures {
        let found = match verdicts(certs, data, signature, at) {
            Ok(found) if found.is_empty() => vec![Err(Fault::NoSignature)],
            Ok(found) => found,
            Err(OpenPgpError::Refused(fault)) => vec![Err(fault)],
            Err(other) => return Err(other),
        };
        for verdict in found {
            let judged = verdict.and_then(|signer| {
                let who = person(&signer.fingerprint).map_err(|reason| Fault::Barred {
                    certificate: signer.fingerprint.clone(),
                    reason,
                })?;
                if people.contains(&who) {
                    return Err(Fault::Duplicate { who });
                }
                people.push(who);
                Ok(signer)
            });
            match judged {
                Ok(signer) => counted.signers.push(signer),
                Err(fault) => counted.refused.push((name.clone(), fault)),
            }
        }
    }
    Ok(counted)
}
