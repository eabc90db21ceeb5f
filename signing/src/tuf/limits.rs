// SPDX-License-Identifier: GPL-3.0-or-later
//! Every bound of the client, by name.

use super::json::Bounds;

/// How much a client takes from a repository that it has not verified yet. The defaults carry 30,000 targets, for which a
/// client and their author together need some 250 MiB (`tests/scale.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one root (the specification's W, 5.3.3).
    pub root_bytes: u64,
    /// Bytes of the timestamp (X, 5.4.1).
    pub timestamp_bytes: u64,
    /// Bytes of the snapshot (Z, 5.5.1), also when the timestamp names a larger length.
    pub snapshot_bytes: u64,
    /// Bytes of one targets role (5.6.1), also when the snapshot names a larger length.
    pub targets_bytes: u64,
    /// New roots followed in one refresh (Y, 5.3.3).
    pub root_rotations: u64,
    /// Roles visited while one target is searched (5.6.7.1), and roles listed by one snapshot.
    pub roles: usize,
    /// Targets of all roles together, where all are listed.
    pub targets: usize,
    /// Bytes of one target, whatever its role says.
    pub target_bytes: u64,
    /// Objects and arrays inside one another in metadata.
    pub json_depth: usize,
    /// Values in one metadata file; 12 describe a target.
    pub json_values: usize,
    /// Signatures on one metadata file.
    pub signatures: usize,
    /// What a timestamp of the trusted version with other content is.
    pub same_version: SameVersion,
}

/// What to do with a timestamp that has the trusted version and another content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SameVersion {
    /// Report it: two contents under one version mean a signer that lies or is not alone.
    #[default]
    Refuse,
    /// Pass over it and keep the trusted one, as the specification says (5.4.3.1).
    Keep,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            root_bytes: 512 << 10,
            timestamp_bytes: 16 << 10,
            snapshot_bytes: 2 << 20,
            targets_bytes: 32 << 20,
            root_rotations: 1024,
            roles: 256,
            targets: 30_000 * 2,
            target_bytes: 16 << 30,
            json_depth: 24,
            json_values: 1_000_000,
            signatures: 64,
            same_version: SameVersion::Refuse,
        }
    }
}

impl Limits {
    pub(super) fn json(&self) -> Bounds {
        Bounds {
            depth: self.json_depth,
            values: self.json_values,
        }
    }
}
