// SPDX-License-Identifier: GPL-3.0-or-later
//! The checks that several clauses share.

use super::super::error::TufError;
use super::super::model::{Header, MetaFile, Result};
use super::super::role_keys::RoleKeys;
use super::super::source::{Source, SourceError};
use super::super::trail::TrailCheck;

pub(super) fn fetch(source: &mut impl Source, name: &str, max: u64) -> Result<Option<Vec<u8>>> {
    let too_long = || TufError::Length {
        what: name.to_owned(),
        detail: format!("it is longer than the {max} bytes that are allowed"),
    };
    match source.metadata(name, max) {
        Ok(Some(bytes)) if bytes.len() as u64 > max => Err(too_long()),
        Ok(bytes) => Ok(bytes),
        Err(SourceError::TooLong { .. }) => Err(too_long()),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn missing(file: &str) -> TufError {
    TufError::Missing { file: file.to_owned() }
}

pub(super) fn check(named_by: String, keys: &RoleKeys, signed_by: Vec<String>) -> TrailCheck {
    TrailCheck {
        named_by,
        threshold: keys.threshold,
        signed_by,
        keys: keys.keys.keys().cloned().collect(),
    }
}

pub(super) fn exact_version(role: &str, named: u64, header: Header) -> Result<()> {
    if header.version == named {
        Ok(())
    } else {
        Err(TufError::VersionMismatch {
            role: role.to_owned(),
            named,
            offered: header.version,
        })
    }
}

pub(super) fn no_rollback(role: &str, have: u64, offered: u64) -> Result<()> {
    if offered >= have {
        Ok(())
    } else {
        Err(TufError::Rollback {
            role: role.to_owned(),
            have,
            offered,
        })
    }
}

/// Neither an older version nor the same version with another digest.
pub(super) fn unchanged_or_newer(role: &str, old: &MetaFile, new: &MetaFile) -> Result<()> {
    no_rollback(role, old.version, new.version)?;
    match (&old.hashes, &new.hashes) {
        (Some(old_hashes), Some(new_hashes)) if old.version == new.version && old_hashes != new_hashes => {
            Err(TufError::Equivocation {
                role: role.to_owned(),
                version: old.version,
            })
        }
        _ => Ok(()),
    }
}

/// Checks length and digests where the index names them.
pub(super) fn content(what: &str, meta: &MetaFile, bytes: &[u8]) -> Result<()> {
    if let Some(length) = meta.length
        && length != bytes.len() as u64
    {
        return Err(TufError::Length {
            what: what.to_owned(),
            detail: format!("{} bytes where {length} are signed", bytes.len()),
        });
    }
    match &meta.hashes {
        Some(hashes) if !hashes.match_bytes(bytes) => Err(TufError::HashMismatch { what: what.to_owned() }),
        _ => Ok(()),
    }
}
