// SPDX-License-Identifier: GPL-3.0-or-later
//! A waiver: the custodians' word that metadata which has expired may be taken all the same.
//!
//! Attacks: a forged waiver; an honest one replayed later, on another site, or with other metadata than it was made for;
//! one that is kept for the day on which a revoked key would be useful again.
//!
//! Defence: the strictest signature that a site has, the threshold of the root keys; no single key, not even the release
//! key, can waive. It names one root by its digest, so a newer root ends it with the keys that it revokes; each file by
//! role, version and digest, so it lifts nothing else; and a day, not later than ninety days after it was signed, which
//! must be later than the clock and than the floor. Root itself cannot be waived: the same custodians can renew it. The
//! versions that a client remembers still count, so a waiver brings back nothing that was replaced. Each use is recorded.
//!
//! Not defended: until its day, a site's host that has seen nothing newer takes what the waiver names, as it says.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use anyhow::Context;
use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::author::{self, SIGNED_AT, SPEC_VERSION, Signer};
use super::super::datastore::Datastore;
use super::super::error::TufError;
use super::super::json;
use super::super::limits::Limits;
use super::super::model::{Header, Object, Result, Root, SignedFile, malformed, read_root};
use super::super::names::check_role_name;
use super::super::trail::Trail;
use crate::digest::{Sha256, read_bounded};

/// The longest waiver.
pub const MAX_BYTES: u64 = 64 << 10;
/// The longest time from a waiver's signing to its end.
pub const MAX_SPAN: Duration = Duration::days(90);
/// The longest reason.
const MAX_REASON: usize = 200;
/// How many uses a datastore remembers.
const MAX_USES: usize = 64;
/// The record of uses in the datastore.
pub const USES: &str = "waivers.json";
const TYPE: &str = "waiver";
const FIELDS: [&str; 8] = [
    "_type",
    "spec_version",
    "version",
    SIGNED_AT,
    "expires",
    "root",
    "roles",
    "reason",
];

/// One metadata file, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Due {
    /// Its version.
    pub version: u64,
    /// The digest of its bytes.
    pub sha256: Sha256,
}

/// A waiver of the right form. Whether its signatures hold, [`Waiver::verify`] says.
#[derive(Debug, Clone)]
pub struct Waiver {
    file: SignedFile,
    bytes: Vec<u8>,
    /// When it was signed.
    pub signed_at: DateTime<Utc>,
    /// From when it lifts nothing.
    pub until: DateTime<Utc>,
    /// The root whose keys sign it.
    pub root: Due,
    /// What it lifts, by role.
    pub roles: BTreeMap<String, Due>,
    /// Why, in the custodians' words.
    pub reason: String,
}

/// What a waiver is to say.
#[derive(Debug, Clone)]
pub struct Draft {
    /// When it is signed.
    pub signed_at: DateTime<Utc>,
    /// From when it lifts nothing.
    pub until: DateTime<Utc>,
    /// Why.
    pub reason: String,
    /// The roles that it lifts; where none is named, all that will have expired on its last day.
    pub roles: Vec<String>,
}

/// How a client used a waiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Used {
    /// The time of the update, as it was decided.
    pub at: DateTime<Utc>,
    /// What the machine's clock said.
    pub clock: Option<DateTime<Utc>>,
    /// The stale files that were taken, by role.
    pub lifted: BTreeMap<String, Due>,
    /// The identifiers of the root keys that signed the waiver.
    pub signed_by: Vec<String>,
    /// The waiver itself, to be verified again.
    pub waiver: Value,
}

impl Draft {
    /// The waiver without signatures, for what a client has verified.
    ///
    /// # Errors
    /// When a role is not there, nothing will have expired, or the waiver would be refused.
    pub fn write(&self, trail: &Trail) -> Result<Waiver> {
        let due = |role: &str| {
            let file = trail.newest(role).ok_or_else(|| TufError::Waiver {
                why: format!("the metadata has no role {role:?}"),
            })?;
            Ok::<_, TufError>(Due {
                version: file.version,
                sha256: file.sha256,
            })
        };
        let mut roles = BTreeMap::new();
        for role in &self.roles {
            roles.insert(role.clone(), due(role)?);
        }
        if self.roles.is_empty() {
            let stale = trail
                .files
                .iter()
                .filter(|file| file.role != "root" && file.expires <= self.until);
            for file in stale {
                roles.insert(file.role.clone(), due(&file.role)?);
            }
        }
        if roles.is_empty() {
            return Err(TufError::Waiver {
                why: format!(
                    "nothing of this metadata expires by {}; --role ROLE names a role all the same",
                    author::seconds(self.until)
                ),
            });
        }
        let signed = serde_json::json!({
            "_type": TYPE,
            "spec_version": SPEC_VERSION,
            "version": 1,
            SIGNED_AT: author::seconds(self.signed_at),
            "expires": author::seconds(self.until),
            "root": due("root")?,
            "roles": roles,
            "reason": self.reason,
        });
        Waiver::read(&printed(&serde_json::json!({"signatures": [], "signed": signed}))?)
    }
}

impl Waiver {
    /// Reads a waiver.
    ///
    /// # Errors
    /// When it is not one, in every field.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        const WHAT: &str = "the waiver";
        let wrong = |why: &str| malformed(WHAT, why);
        if bytes.len() as u64 > MAX_BYTES {
            return Err(wrong("it is too long"));
        }
        let file = SignedFile::read(WHAT, bytes, &Limits::default())?;
        let (body, header) = file.header(TYPE)?;
        let Header { expires, version, .. } = header;
        let signed_at = header
            .signed_at
            .ok_or_else(|| wrong("it does not say when it was signed"))?;
        if let Some(stranger) = body.map.keys().find(|key| !FIELDS.contains(&key.as_str())) {
            return Err(wrong(&format!("it has the unknown field {stranger:?}")));
        }
        if version != 1 {
            return Err(wrong("it is of another version than 1"));
        }
        if expires - signed_at > MAX_SPAN {
            return Err(wrong(&format!(
                "it lifts for more than {} days after it is signed",
                MAX_SPAN.num_days()
            )));
        }
        let entries = body.object("roles")?;
        let mut roles = BTreeMap::new();
        for role in entries.map.keys() {
            if role == "root" {
                return Err(wrong("it lifts root, which its own custodians can renew"));
            }
            if !["timestamp", "snapshot", "targets"].contains(&role.as_str()) {
                check_role_name(role).map_err(|error| wrong(&error.to_string()))?;
            }
            roles.insert(role.clone(), due(&entries.object(role)?)?);
        }
        if roles.is_empty() {
            return Err(wrong("it lifts no role"));
        }
        let reason = body.text("reason")?;
        if reason.is_empty() || reason.len() > MAX_REASON || reason.chars().any(char::is_control) {
            return Err(wrong(&format!(
                "its reason is not one line of at most {MAX_REASON} bytes"
            )));
        }
        let (root, reason) = (due(&body.object("root")?)?, reason.to_owned());
        Ok(Self {
            file,
            bytes: bytes.to_vec(),
            signed_at,
            until: expires,
            root,
            roles,
            reason,
        })
    }

    /// Reads a waiver's file.
    ///
    /// # Errors
    /// When it cannot be read; a refusal when it is none.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let place = || format!("the waiver {}", path.display());
        let bytes = read_bounded(path, MAX_BYTES).with_context(|| format!("cannot read {}", place()))?;
        Self::read(&bytes).with_context(place)
    }

    /// The file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds the signature of one root key.
    ///
    /// # Errors
    /// When the key has signed already or cannot sign.
    pub fn sign(&self, signer: &dyn Signer) -> anyhow::Result<Self> {
        Ok(Self::read(&author::cosign(&self.bytes, signer)?)?)
    }

    /// Checks that it is for this root and signed by a threshold of its root keys; returns the identifiers of those.
    ///
    /// # Errors
    /// When it is not.
    pub fn verify(&self, root: &[u8]) -> Result<Vec<String>> {
        self.verify_for(&read_root("the root", root)?, Sha256::of(root))
    }

    /// The identifiers of the root keys that signed it so far, and how many must.
    ///
    /// # Errors
    /// When it is for another root.
    pub fn signers(&self, root: &[u8]) -> Result<(Vec<String>, u64)> {
        let parsed = read_root("the root", root)?;
        self.is_for(&parsed, Sha256::of(root))?;
        let threshold = parsed.root.threshold;
        Ok((self.file.signers(&parsed.root), threshold))
    }

    pub(in super::super) fn verify_for(&self, root: &Root, sha256: Sha256) -> Result<Vec<String>> {
        self.is_for(root, sha256)?;
        self.file.verify(TYPE, &root.root)
    }

    fn is_for(&self, root: &Root, sha256: Sha256) -> Result<()> {
        let trusted = Due {
            version: root.header.version,
            sha256,
        };
        if self.root == trusted {
            return Ok(());
        }
        Err(TufError::Waiver {
            why: format!(
                "it was made for root {} ({:.16}…), and root {} ({:.16}…) is trusted",
                self.root.version,
                self.root.sha256.to_string(),
                trusted.version,
                sha256.to_string()
            ),
        })
    }

    /// Whether it lifts this file at this time.
    ///
    /// # Errors
    /// When it does not, with the reason.
    pub(in super::super) fn lifts(&self, role: &str, offered: Due, now: DateTime<Utc>) -> Result<()> {
        let no = |why| Err(TufError::Waiver { why });
        if self.until <= now {
            return no(format!("it ended at {}, and it is {now} at least", self.until));
        }
        match self.roles.get(role) {
            Some(due) if *due == offered => Ok(()),
            Some(due) if due.version == offered.version => no(format!(
                "it lifts another {role} of version {} than the one that is offered",
                due.version
            )),
            Some(due) => no(format!(
                "it lifts {role} version {}, and version {} is offered",
                due.version, offered.version
            )),
            None => no(format!(
                "it does not lift {role}, whose version {} is stale",
                offered.version
            )),
        }
    }

    /// What is recorded of its use.
    pub(in super::super) fn used(&self, at: &super::Time, signed_by: Vec<String>) -> Result<Used> {
        Ok(Used {
            at: at.now(),
            clock: at.clock(),
            lifted: BTreeMap::new(),
            signed_by,
            waiver: json::parse_default(&self.bytes).map_err(|error| malformed("the waiver", error.to_string()))?,
        })
    }
}

impl Used {
    /// The waiver that was used. [`Waiver::verify`] judges it.
    ///
    /// # Errors
    /// When the record does not hold one.
    pub fn waiver(&self) -> Result<Waiver> {
        Waiver::read(&printed(&self.waiver)?)
    }

    /// Reads the record of a datastore.
    ///
    /// # Errors
    /// When it is not what a client wrote.
    pub fn read_all(bytes: &[u8]) -> Result<Vec<Self>> {
        json::parse_default(bytes)
            .and_then(serde_json::from_value)
            .map_err(|error| TufError::DatastoreDamaged {
                why: format!("{USES}: {error}"),
            })
    }
}

impl Datastore {
    /// The waivers that were used, the oldest first.
    ///
    /// # Errors
    /// When the record cannot be read or is damaged.
    pub fn used_waivers(&self) -> Result<Vec<Used>> {
        self.read(USES)?
            .map_or_else(|| Ok(Vec::new()), |bytes| Used::read_all(&bytes))
    }

    /// Records a use durably; what the same update lifted before is part of it.
    pub(in super::super) fn record_use(&mut self, used: &Used) -> Result<()> {
        let mut uses = self.used_waivers()?;
        uses.retain(|old| (old.at, &old.waiver) != (used.at, &used.waiver));
        uses.push(used.clone());
        let surplus = uses.len().saturating_sub(MAX_USES);
        self.write(USES, &printed(&uses.split_off(surplus))?)
    }
}

fn due(entry: &Object<'_>) -> Result<Due> {
    if entry.map.len() != 2 {
        return Err(malformed(
            entry.what,
            "a file in it is not named by version and sha256 alone",
        ));
    }
    Ok(Due {
        version: entry.positive("version")?,
        sha256: Sha256::from_str(entry.text("sha256")?)
            .map_err(|_| malformed(entry.what, "\"sha256\" is not a digest"))?,
    })
}

/// As all our metadata is printed.
pub(super) fn printed(value: &impl Serialize) -> Result<Vec<u8>> {
    let failed = |error: String| malformed("the record", error);
    let value = serde_json::to_value(value).map_err(|error| failed(error.to_string()))?;
    author::print(value).map_err(|error| failed(format!("{error:#}")))
}
