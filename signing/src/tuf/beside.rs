// SPDX-License-Identifier: GPL-3.0-or-later
//! OpenPGP beside TUF: the release key signs each root, and the timestamp, from which everything else of a repository hangs
//! by digests. So both kinds of signature vouch for a whole repository, a bundle and a medium.
//!
//! Where a root says so ([`super::author::OPENPGP_THRESHOLD`]), k of the n certificates of the trust directory must sign: each
//! timestamp by the trusted root, and a new root by the trusted one and by its own word, as with TUF's thresholds.
//!
//! Attacks: stolen TUF keys of every role, up to a threshold of root; a root or a timestamp with another one's signature; one
//! officer who signs as several, or alone; a root that lowers the number by itself.
//!
//! Defence: who demands it ([`super::Datastore::demanding`]) trusts nothing new without it. It lies beside the metadata, as
//! `N.root.json.asc` and, for `timestamp.json` of version N, `N.timestamp.json.asc`: written before the timestamp that it
//! is for, it leaves the old one with its own.
//!
//! Not defended: as many OpenPGP keys as must sign, and TUF's keys, in one hand.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use chrono::{DateTime, TimeDelta, Utc};
use sequoia_openpgp::Cert;

use super::error::TufError;
use super::model::{Result, Root, read_root};
use super::trail::TrailFile;
use crate::digest::Sha256;
use crate::openpgp::{OpenPgpError, verify_threshold};

/// OpenPGP signatures that hold, each by the digest of what it signs.
pub type Signatures = BTreeMap<Sha256, Vec<u8>>;

/// How many certificates sign a root that people compare.
pub(super) const PINNED: u64 = 1;

/// How long after the metadata's own date the second signature may be made.
const SAME_OCCASION: TimeDelta = TimeDelta::days(1);

/// The file of a root's signature.
#[must_use]
pub fn root(version: u64) -> String {
    format!("{version}.root.json.asc")
}

/// The file of a timestamp's signature.
#[must_use]
pub fn timestamp(version: u64) -> String {
    format!("{version}.timestamp.json.asc")
}

/// The file of the signature beside a verified file, where its role has one.
#[must_use]
pub fn signature_of(file: &TrailFile) -> Option<String> {
    match file.role.as_str() {
        "root" => Some(root(file.version)),
        "timestamp" => Some(timestamp(file.version)),
        _ => None,
    }
}

/// Removes, in a repository's directory of metadata, the signatures of timestamps other than the one that stands there.
///
/// # Errors
/// When the directory cannot be read, or one cannot be removed.
pub fn forget_replaced(metadata: &Path, standing: u64) -> io::Result<()> {
    for entry in fs::read_dir(metadata)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".timestamp.json.asc") && name != timestamp(standing) {
            fs::remove_file(metadata.join(name))?;
        }
    }
    Ok(())
}

/// The time by which a signature is judged at the least: a clock that is behind the verified metadata is not believed.
pub(super) fn latest(signed_at: Option<DateTime<Utc>>) -> DateTime<Utc> {
    signed_at
        .and_then(|signed_at| signed_at.checked_add_signed(SAME_OCCASION))
        .unwrap_or(DateTime::UNIX_EPOCH)
}

/// How many certificates sign a root that follows another: as many as that one demands, and as it demands itself.
pub(super) fn succession(old: &Root, new: &Root) -> u64 {
    old.openpgp_threshold.max(new.openpgp_threshold)
}

/// How many certificates sign a root: one that is pinned, without a predecessor, needs one signature.
///
/// # Errors
/// When one of the two is no root that its own threshold signed.
pub fn over_root(old: Option<&[u8]>, new: &[u8]) -> Result<u64> {
    let Some(old) = old else { return Ok(PINNED) };
    let read = |bytes| read_root("the root", bytes);
    Ok(succession(&read(old)?, &read(new)?))
}

/// How many certificates sign each timestamp under this root.
///
/// # Errors
/// When it is no root that its own threshold signed.
pub fn over_timestamp(root: &[u8]) -> Result<u64> {
    Ok(read_root("the root", root)?.openpgp_threshold)
}

/// Verifies one, which so many certificates must have made.
///
/// # Errors
/// [`TufError::NotCountersigned`].
pub(super) fn verify(
    (release, need): (&[Cert], u64),
    file: &str,
    bytes: &[u8],
    signature: &[u8],
    at: DateTime<Utc>,
) -> Result<()> {
    let why = match verify_threshold(release, bytes, signature, need, at) {
        Ok(_) => return Ok(()),
        Err(OpenPgpError::Refused(fault)) => fault.to_string(),
        Err(error) => error.to_string(),
    };
    Err(TufError::NotCountersigned {
        file: file.to_owned(),
        why,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_signatures_of_other_timestamps_go() {
        let directory = tempfile::tempdir().unwrap();
        let stay = [
            "2.root.json.asc",
            "3.timestamp.json.asc",
            "timestamp.json",
            "2.snapshot.json",
        ];
        // One that is newer than what stands there was written before a power cut, or by a thief who is locked out.
        let go = ["2.timestamp.json.asc", "4.timestamp.json.asc", "x.timestamp.json.asc"];
        for name in stay.iter().chain(&go) {
            fs::write(directory.path().join(name), name).unwrap();
        }
        forget_replaced(directory.path(), 3).unwrap();
        for name in stay {
            assert!(directory.path().join(name).exists(), "{name}");
        }
        for name in go {
            assert!(!directory.path().join(name).exists(), "{name}");
        }
    }
}
