// SPDX-License-Identifier: GPL-3.0-or-later
//! Going on after a root was added and nothing was published under it.
//!
//! A root that replaces the keys of timestamp or snapshot takes effect when it is written: from then on no client goes
//! further, which is what revoking a key means. Who publishes next, perhaps after a power cut, has to read what the keys
//! before it signed.
//!
//! Attacks: somebody with replaced keys puts old or forged metadata back, so that the next signature would bless it.
//!
//! Defence: only keys of timestamp and snapshot may have been replaced, so every target is vouched for by keys that count
//! today; and clients see nothing that the newest root does not verify.

use std::path::Path;

use chrono::DateTime;

use super::super::client::Client;
use super::super::datastore::Datastore;
use super::super::error::TufError;
use super::super::limits::Limits;
use super::super::model::Result;
use super::super::role_keys::RoleKeys;
use super::super::source::DirectorySource;

/// The limits with which somebody who publishes next follows a repository: the usual ones, or those that end at the root under
/// which it was published last.
///
/// # Errors
/// When the trusted root is none.
pub fn limits(directory: &Path, trusted_root: &[u8]) -> Result<Limits> {
    let follow = |limits| {
        let memory = Datastore::ephemeral(trusted_root)?;
        let first = memory.root_version()?;
        let source = DirectorySource::below(directory);
        // At the beginning of time nothing has expired.
        let mut client = Client::open(memory, source, limits, DateTime::UNIX_EPOCH)?;
        let result = client.refresh();
        Ok::<_, TufError>((client.root().clone(), first, result))
    };
    let usual = Limits::default();
    let (newest, first, result) = follow(usual)?;
    let replaced =
        matches!(result, Err(TufError::BelowThreshold { role, .. }) if role == "timestamp" || role == "snapshot");
    if !replaced {
        // Whoever follows it hears of any other error.
        return Ok(usual);
    }
    for root_rotations in (0..newest.header.version - first).rev() {
        let limits = Limits {
            root_rotations,
            ..usual
        };
        let (root, _, result) = follow(limits)?;
        if !same(&root.targets, &newest.targets) {
            break;
        }
        if result.is_ok() {
            return Ok(limits);
        }
    }
    Ok(usual)
}

/// An identifier is the digest of its key.
fn same(one: &RoleKeys, other: &RoleKeys) -> bool {
    one.threshold == other.threshold && one.keys.keys().eq(other.keys.keys())
}
