// SPDX-License-Identifier: GPL-3.0-or-later
//! Officers whose OpenPGP certificates stand beside the release key's in a trust directory, so that several must sign.
//!
//! # Attacks faced
//! One person as several: the same certificate twice is refused. A certificate that no verifier would count: refused now,
//! while it can still be replaced.
//!
//! # Defence not made
//! Whose a certificate is, only people can tell: its fingerprint is shown, to be compared with the officer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::ceremony::read_certificates;
use crate::openpgp::{self, Cert};
use crate::output::Refused;

/// One officer.
#[derive(Debug, Clone, Serialize)]
pub struct Officer {
    /// The file that the certificate was handed in with.
    pub file: PathBuf,
    /// The certificate's fingerprint, upper-case hexadecimal.
    pub fingerprint: String,
    #[serde(skip)]
    pub(super) certificate: Cert,
}

impl Officer {
    /// Reads what an officer handed in: a certificate, or the public file of a ceremony's key.
    ///
    /// # Errors
    /// When it cannot be read, or does not hold one certificate.
    pub fn read(file: &Path) -> Result<Self> {
        match &read_certificates(file)?[..] {
            [certificate] => Ok(Self {
                file: file.to_path_buf(),
                fingerprint: certificate.fingerprint().to_hex(),
                certificate: certificate.clone(),
            }),
            several => bail!(Refused(format!(
                "{} holds {} OpenPGP certificates: an officer hands in one",
                file.display(),
                several.len()
            ))),
        }
    }
}

/// Whether each counts by itself.
pub(super) fn check(officers: &[Officer], now: DateTime<Utc>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for officer in officers {
        let file = officer.file.display();
        if !seen.insert(&officer.fingerprint) {
            bail!(Refused(format!(
                "{file} is an officer's certificate that was given before"
            )));
        }
        if !openpgp::may_sign(&officer.certificate, now) {
            bail!(Refused(format!(
                "{file} has no key that may sign now: expired, revoked, weak, or for another use"
            )));
        }
    }
    Ok(())
}
