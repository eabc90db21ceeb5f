// SPDX-License-Identifier: GPL-3.0-or-later
//! The record of what a client verified, made for auditors: which file, which role, which keys, named by whom.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::digest::Sha256;

/// Everything that a client verified, in the order in which trust flows, from the pinned root on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trail {
    /// The time against which expiry was judged.
    pub now: DateTime<Utc>,
    /// The verified files.
    pub files: Vec<TrailFile>,
}

impl Trail {
    /// The newest file of a role: of a chain of roots the last one counts.
    #[must_use]
    pub fn newest(&self, role: &str) -> Option<&TrailFile> {
        self.files.iter().rev().find(|file| file.role == role)
    }
}

/// One verified metadata file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrailFile {
    /// The role that it speaks for.
    pub role: String,
    /// Its name in the repository.
    pub file: String,
    /// Its version.
    pub version: u64,
    /// When it expires.
    pub expires: DateTime<Utc>,
    /// When it says that it was signed, in our own metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_at: Option<DateTime<Utc>>,
    /// Its length in bytes.
    pub length: u64,
    /// The digest of its bytes as received.
    pub sha256: Sha256,
    /// Where the bytes came from.
    pub origin: Origin,
    /// How many OpenPGP certificates must have signed it where that is demanded ([`super::beside`]); 0 for a file that hangs
    /// from one that they signed.
    #[serde(default)]
    pub certificates: u64,
    /// The thresholds that it had to reach: one, or two for a new root.
    pub checks: Vec<TrailCheck>,
}

/// Where verified bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// From what the client trusted before this update; for a root, the one that everything hangs from.
    Datastore,
    /// From the repository.
    Source,
}

/// One threshold that was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrailCheck {
    /// The role and version that names the keys, such as `root 2` or `targets 7`.
    pub named_by: String,
    /// How many keys had to sign.
    pub threshold: u64,
    /// The identifiers of the keys that did.
    pub signed_by: Vec<String>,
    /// The identifiers of the keys that could have.
    pub keys: Vec<String>,
}
