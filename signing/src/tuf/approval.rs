// SPDX-License-Identifier: GPL-3.0-or-later
//! What a site's officers signed when they approved a release of the vendor: when, and which of the vendor's metadata
//! they saw.
//!
//! Attacks: a vendor's key that is stolen after the approval, with which newer metadata are signed; vendor metadata that are
//! offered with an approval of others, to make a host remember versions that nobody approved.
//!
//! Defence: [`Approved`] stands between the vendor's repository and the client that follows it. It hands on the metadata of
//! the approval by version and digest, so nothing else is looked at, and nothing else is remembered.

use std::io::Read;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::names::encode_role;
use super::source::{Source, SourceError};
use super::trail::{Trail, TrailFile};
use crate::digest::Sha256;

/// The field of a target's `custom` object in which the approval stands.
pub const APPROVAL: &str = "approval";

const ROOT: &str = "root";
const TIMESTAMP: &str = "timestamp";

/// An approval, as it stands in the site's targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// When it was given: the vendor's metadata are judged as of then.
    pub at: DateTime<Utc>,
    /// The vendor's metadata that were verified for it, from the root on.
    pub vendor: Vec<Seen>,
}

/// One of the vendor's metadata files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// The role that it speaks for.
    pub role: String,
    /// Its version.
    pub version: u64,
    /// The digest of its bytes.
    pub sha256: Sha256,
}

impl From<&TrailFile> for Seen {
    fn from(file: &TrailFile) -> Self {
        Self {
            role: file.role.clone(),
            version: file.version,
            sha256: file.sha256,
        }
    }
}

impl Seen {
    /// The file's name where several versions of it lie beside each other.
    #[must_use]
    pub fn kept_name(&self) -> String {
        format!("{}.{}.json", self.version, encode_role(&self.role))
    }
}

impl Approval {
    /// An approval of what a client verified, given at the time at which it did.
    #[must_use]
    pub fn of(trail: &Trail) -> Self {
        let mut vendor: Vec<Seen> = Vec::new();
        for file in &trail.files {
            // Of a chain of roots the last one counts.
            vendor.retain(|seen| seen.role != file.role);
            vendor.push(Seen::from(file));
        }
        Self { at: trail.now, vendor }
    }

    /// Reads the approval out of a target's `custom` object, and gives what else stands there: the vendor's own description.
    ///
    /// # Errors
    /// The reason why it is none.
    pub fn take(custom: &Value) -> Result<(Self, Map<String, Value>), String> {
        let mut description = custom.as_object().cloned().unwrap_or_default();
        let approval = description.remove(APPROVAL).ok_or("it carries no approval")?;
        let approval: Self =
            serde_json::from_value(approval).map_err(|error| format!("its approval is malformed: {error}"))?;
        for role in [ROOT, TIMESTAMP] {
            if approval.seen(role).is_none() {
                return Err(format!("its approval names no {role} of the vendor"));
            }
        }
        Ok((approval, description))
    }

    /// The version and digest of a role's file.
    #[must_use]
    pub fn seen(&self, role: &str) -> Option<&Seen> {
        self.vendor.iter().find(|seen| seen.role == role)
    }

    /// Which file a client asks for by this name, or why it may not have it. `None` says that it is to find none.
    fn wanted(&self, name: &str) -> Result<Option<Wanted<'_>>, SourceError> {
        let other = || SourceError::NotApproved { name: name.to_owned() };
        let root = self.seen(ROOT).ok_or_else(other)?;
        if let Some(version) = name.strip_suffix(".root.json").and_then(|text| text.parse().ok()) {
            return Ok(match root.version.cmp(&version) {
                // Signed by two thresholds on the way to the approved one.
                std::cmp::Ordering::Greater => Some(Wanted::Any),
                std::cmp::Ordering::Equal => Some(Wanted::This(root)),
                std::cmp::Ordering::Less => None,
            });
        }
        let mut all = self.vendor.iter();
        let seen = all.find(|seen| match seen.role.as_str() {
            TIMESTAMP => name == "timestamp.json",
            // With and without consistent snapshots.
            _ => name == seen.kept_name() || name == format!("{}.json", encode_role(&seen.role)),
        });
        seen.map(|seen| Some(Wanted::This(seen))).ok_or_else(other)
    }
}

enum Wanted<'a> {
    Any,
    This(&'a Seen),
}

/// The vendor's repository as it was approved; without an approval, as it is.
#[derive(Debug)]
pub struct Approved<S> {
    source: S,
    approval: Option<Approval>,
}

impl<S> Approved<S> {
    pub(super) const fn new(source: S, approval: Option<Approval>) -> Self {
        Self { source, approval }
    }

    pub(super) const fn unfiltered(&mut self) -> &mut S {
        &mut self.source
    }
}

impl<S: Source> Source for Approved<S> {
    fn metadata(&mut self, name: &str, max: u64) -> Result<Option<Vec<u8>>, SourceError> {
        // An OpenPGP signature is approved with what it signs.
        let Some(approval) = self.approval.as_ref().filter(|_| !name.ends_with(".asc")) else {
            return self.source.metadata(name, max);
        };
        match approval.wanted(name)? {
            None => Ok(None),
            Some(Wanted::Any) => self.source.metadata(name, max),
            Some(Wanted::This(seen)) => {
                // A gateway keeps the approved timestamp by its version, beside a newer one that is not approved yet.
                let kept = match seen.role.as_str() {
                    TIMESTAMP => self.source.metadata(&seen.kept_name(), max)?,
                    _ => None,
                };
                let bytes = match kept {
                    Some(bytes) => Some(bytes),
                    None => self.source.metadata(name, max)?,
                };
                match bytes {
                    Some(bytes) if Sha256::of(&bytes) != seen.sha256 => {
                        Err(SourceError::NotApproved { name: name.to_owned() })
                    }
                    bytes => Ok(bytes),
                }
            }
        }
    }

    fn target(&mut self, path: &str) -> Result<Option<Box<dyn Read + '_>>, SourceError> {
        self.source.target(path)
    }

    fn ready(&mut self, path: &str) -> Result<(), SourceError> {
        self.source.ready(path)
    }
}
