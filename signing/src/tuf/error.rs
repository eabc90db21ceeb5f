// SPDX-License-Identifier: GPL-3.0-or-later
//! Why a client refuses, or could not finish.

use std::io;
use std::path::PathBuf;

use chrono::{DateTime, Utc};

use super::source::SourceError;

/// What went wrong while following a repository. Every message is one line and names the role or file.
#[derive(Debug, thiserror::Error)]
pub enum TufError {
    /// Too few valid signatures of distinct keys.
    #[error("{role} is signed by {have} of the {need} keys that must sign it: it is not authentic")]
    BelowThreshold {
        /// The role.
        role: String,
        /// Distinct keys whose signature is valid.
        have: u64,
        /// The threshold.
        need: u64,
    },
    /// An older version than the one already trusted.
    #[error("{role} version {offered} is older than version {have}, which was accepted before: a rollback is refused")]
    Rollback {
        /// The role.
        role: String,
        /// The trusted version.
        have: u64,
        /// The version that was offered.
        offered: u64,
    },
    /// A role that the trusted snapshot lists is gone from the new one.
    #[error("the new snapshot no longer lists {role}: a rollback is refused")]
    RoleRemoved {
        /// The role.
        role: String,
    },
    /// Another content under a version that was accepted before.
    #[error(
        "{role} version {version} differs from the version {version} that was accepted before: one of them is forged"
    )]
    Equivocation {
        /// The role.
        role: String,
        /// The version of both.
        version: u64,
    },
    /// Not the version that the signed index names.
    #[error("{role} has version {offered} where version {named} is required")]
    VersionMismatch {
        /// The role.
        role: String,
        /// The version that is required.
        named: u64,
        /// The version in the file.
        offered: u64,
    },
    /// The metadata is older than its signer lets it be.
    #[error("{role} is authentic but stale: it expired at {expires}, and it is {now} at least")]
    Expired {
        /// The role.
        role: String,
        /// When it expired.
        expires: DateTime<Utc>,
        /// The time of this update.
        now: DateTime<Utc>,
    },
    /// It was signed later than it is.
    #[error(
        "{role} is not yet valid: it was signed at {signed_at}, and this clock says {now}: set the clock right \
         (`timedatectl set-time`), or find out who signs ahead of time"
    )]
    NotYetValid {
        /// The role.
        role: String,
        /// When it was signed.
        signed_at: DateTime<Utc>,
        /// The time of this update.
        now: DateTime<Utc>,
    },
    /// By the clock it has expired, and the clock is so far ahead that it is doubted.
    #[error(
        "{role} expired at {expires} if this clock is right, but the clock is far ahead: it says {now}, and nothing shows \
         that it is later than {floor}: set the clock right (`timedatectl set-time`), or bring newer metadata"
    )]
    ClockFarAhead {
        /// The role.
        role: String,
        /// When it expires.
        expires: DateTime<Utc>,
        /// What the clock says.
        now: DateTime<Utc>,
        /// The floor of time.
        floor: DateTime<Utc>,
    },
    /// A waiver was given that lifts nothing here.
    #[error("the waiver is refused: {why}")]
    Waiver {
        /// Why.
        why: String,
    },
    /// The content is not what signed metadata says.
    #[error("{what} does not have the digest that signed metadata names: it was altered or damaged")]
    HashMismatch {
        /// The file or target.
        what: String,
    },
    /// The content is longer or shorter than allowed.
    #[error("{what} does not have the right length: {detail}")]
    Length {
        /// The file or target.
        what: String,
        /// What was expected.
        detail: String,
    },
    /// No role that may speak for this target names it.
    #[error("no trusted role names the target {name:?}")]
    UnknownTarget {
        /// The target.
        name: String,
    },
    /// The bytes are not metadata of this kind.
    #[error("{what} is malformed: {why}")]
    Malformed {
        /// The file.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// A file that signed metadata names is not there.
    #[error("{file} is missing from the repository: the copy is incomplete")]
    Missing {
        /// The file.
        file: String,
    },
    /// A delegated role that the snapshot does not list.
    #[error("the delegated role {role:?} is not listed in the snapshot")]
    NotInSnapshot {
        /// The role.
        role: String,
    },
    /// A bound of the client is reached.
    #[error("more than {limit} {what}: the repository is refused")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The release key did not sign it with OpenPGP.
    #[error("the OpenPGP signature of {file} is refused: {why}")]
    NotCountersigned {
        /// The file.
        file: String,
        /// Why.
        why: String,
    },
    /// The policy demands the site's approval, and there is nothing of the site.
    #[error(
        "the trust policy demands the site's approval, and nothing here carries one: the vendor's word alone is not enough"
    )]
    NoSite,
    /// Vendor and site do not say the same.
    #[error("vendor and site do not agree on {what}: {why}")]
    Disagreement {
        /// What they disagree on.
        what: String,
        /// How.
        why: String,
    },
    /// The repository cannot be reached or read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// What the client remembers cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    DatastoreIo {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// What the client remembers is not what it wrote.
    #[error("the trust datastore is damaged ({why}): restore it from a backup, or make it anew from the pinned root")]
    DatastoreDamaged {
        /// What is wrong.
        why: String,
    },
    /// The verified bytes could not be handed on.
    #[error("cannot write the target {name:?}: {source}")]
    Sink {
        /// The target.
        name: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl TufError {
    /// The reason in one line, for screens and records.
    #[must_use]
    pub fn reason(&self) -> String {
        self.to_string()
    }

    /// The kind of error as a word that programs may compare.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BelowThreshold { .. } => "below-threshold",
            Self::Rollback { .. } | Self::RoleRemoved { .. } => "rollback",
            Self::Equivocation { .. } => "equivocation",
            Self::VersionMismatch { .. } => "version-mismatch",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not-yet-valid",
            Self::ClockFarAhead { .. } => "clock-far-ahead",
            Self::Waiver { .. } => "waiver",
            // The carrier's own checksum failed before ours could: the bytes are as wrong.
            Self::HashMismatch { .. } | Self::Source(SourceError::Damaged { .. }) => "hash-mismatch",
            Self::Length { .. } | Self::Source(SourceError::TooLong { .. }) => "length",
            Self::UnknownTarget { .. } => "unknown-target",
            Self::Malformed { .. } => "malformed",
            Self::Missing { .. } | Self::NotInSnapshot { .. } => "incomplete",
            Self::TooMany { .. } => "too-many",
            Self::NoSite | Self::Source(SourceError::NotApproved { .. }) => "not-approved",
            Self::NotCountersigned { .. } => "openpgp",
            Self::Disagreement { .. } => "disagreement",
            Self::Source(SourceError::NoBase { .. }) => "no-base",
            Self::Source(_) => "source",
            Self::DatastoreIo { .. } | Self::DatastoreDamaged { .. } => "datastore",
            Self::Sink { .. } => "sink",
        }
    }

    /// Whether the repository was judged and refused, as against a judgement that could not be made.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        !matches!(
            self,
            Self::Source(SourceError::Io { .. } | SourceError::NoBase { .. })
                | Self::DatastoreIo { .. }
                | Self::DatastoreDamaged { .. }
                | Self::Sink { .. }
        )
    }
}
