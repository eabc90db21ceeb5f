// SPDX-License-Identifier: GPL-3.0-or-later
//! What a root says, as a type in which nothing is left over that a custodian would not be shown.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::{canonical, refuse};
use crate::digest::Sha256;
use crate::keys::{Algorithm, PublicKey};
use crate::output::Refused;
use crate::tuf::author::{SPEC_VERSION, seconds};
use crate::tuf::root;

/// A role that root names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    /// The custodians.
    Root,
    /// The top-level targets role.
    Targets,
    /// The snapshot role.
    Snapshot,
    /// The timestamp role.
    Timestamp,
}

impl RoleName {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Root, Self::Targets, Self::Snapshot, Self::Timestamp];
    /// Those whose keys are not the custodians'.
    pub const OTHERS: [Self; 3] = [Self::Targets, Self::Snapshot, Self::Timestamp];
}

impl std::fmt::Display for RoleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::Targets => "targets",
            Self::Snapshot => "snapshot",
            Self::Timestamp => "timestamp",
        })
    }
}

impl std::str::FromStr for RoleName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.to_string() == text);
        found.ok_or_else(|| format!("{text:?} is not a role; they are root, targets, snapshot, timestamp"))
    }
}

/// The keys of a role and how many of them must sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleKeys {
    /// Identifiers of the keys.
    pub keyids: BTreeSet<Sha256>,
    /// How many must sign.
    pub threshold: u64,
}

/// An Ed25519 key as metadata has it; a ceremony knows no other kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyObject {
    keytype: String,
    keyval: KeyValue,
    scheme: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyValue {
    public: String,
}

impl KeyObject {
    /// The form of a key in metadata.
    pub(super) fn of(key: &PublicKey) -> Result<Self> {
        let (keytype, scheme, public) = match key.algorithm() {
            Algorithm::EcdsaP256 => ("ecdsa", "ecdsa-sha2-nistp256", key.to_pem()?),
            _ => ("ed25519", "ed25519", hex::encode(key.ed25519_bytes()?)),
        };
        Ok(Self {
            keytype: keytype.to_owned(),
            keyval: KeyValue { public },
            scheme: scheme.to_owned(),
        })
    }

    /// The key, if it is one that a ceremony knows and stands here in its one form.
    pub(super) fn public(&self) -> Result<PublicKey> {
        const WHAT: &str = "a key of a root";
        let text = &self.keyval.public;
        let key = match self.keytype.as_str() {
            "ecdsa" => PublicKey::from_pem(WHAT, text.as_bytes()),
            _ => PublicKey::from_ed25519(WHAT, &hex::decode(text).unwrap_or_default()),
        };
        match key {
            Ok(key) if Self::of(&key).is_ok_and(|form| form == *self) => Ok(key),
            _ => refuse(
                "a key in it is neither an Ed25519 key nor an ECDSA one on P-256: a ceremony knows no other kind",
            ),
        }
    }

    /// Its identifier in metadata.
    pub(super) fn id(&self) -> Result<Sha256> {
        Ok(Sha256::of(&canonical(self)?))
    }
}

/// Who holds a root key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Custodian {
    /// The name, which stands in public metadata.
    pub name: String,
    /// Fingerprint of the custodian's OpenPGP certificate, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub openpgp: Option<String>,
}

/// Why a key was taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reason {
    /// Another key took its place.
    Replaced,
    /// Its custodian left.
    Left,
    /// It is lost, and nobody else has it.
    Lost,
    /// Somebody else may have it.
    Compromised {
        /// The last version of what it signed that is to be trusted; 0 is none.
        last_trusted_version: u64,
    },
    /// The repository was ended.
    Ended,
}

/// A key that was taken out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removed {
    /// The custodian's name, if it was one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The root that took it out.
    pub version: u64,
    /// Why.
    pub why: Reason,
}

/// What ceremonies add to a root; clients pass over it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Who holds which root key.
    pub custodians: BTreeMap<Sha256, Custodian>,
    /// Whether the repository was ended by this root.
    pub ended: bool,
    /// Every key that was ever taken out: none comes back.
    pub removed: BTreeMap<Sha256, Removed>,
}

/// The signed part of a root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootState {
    #[serde(rename = "_type")]
    pub(super) kind: String,
    /// What ceremonies add.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceremony: Option<Record>,
    pub(super) consistent_snapshot: bool,
    /// From when clients refuse it.
    #[serde(serialize_with = "time")]
    pub expires: DateTime<Utc>,
    pub(super) keys: BTreeMap<Sha256, KeyObject>,
    /// How many OpenPGP certificates sign each timestamp, and each root that follows ([`crate::tuf::beside`]).
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub openpgp_threshold: u64,
    /// Who may sign what.
    pub(super) roles: BTreeMap<RoleName, RoleKeys>,
    /// When it was planned.
    #[serde(serialize_with = "time")]
    pub signed_at: DateTime<Utc>,
    pub(super) spec_version: String,
    /// Its version.
    pub version: u64,
}

const fn one() -> u64 {
    1
}

// Serde hands over a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_one(count: &u64) -> bool {
    *count == 1
}

fn time<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&seconds(*time))
}

impl RootState {
    /// A root without any key, which no rule lets pass.
    pub(super) fn empty(version: u64, signed_at: DateTime<Utc>, expires: DateTime<Utc>) -> Self {
        let none = RoleKeys {
            keyids: BTreeSet::new(),
            threshold: 1,
        };
        Self {
            kind: "root".to_owned(),
            ceremony: Some(Record::default()),
            consistent_snapshot: true,
            expires,
            keys: BTreeMap::new(),
            openpgp_threshold: one(),
            roles: RoleName::ALL.into_iter().map(|role| (role, none.clone())).collect(),
            signed_at,
            spec_version: SPEC_VERSION.to_owned(),
            version,
        }
    }

    /// Reads a signed part.
    ///
    /// # Errors
    /// When it says anything that a ceremony has no words for.
    pub fn read(signed: &Value) -> Result<Self> {
        let state: Self = serde_json::from_value(signed.clone())
            .map_err(|error| Refused(format!("this root cannot be shown in words: {error}")))?;
        if state.kind != "root" || RoleName::ALL.iter().any(|role| !state.roles.contains_key(role)) {
            return refuse("this is not a root with its four roles");
        }
        for (keyid, key) in &state.keys {
            key.public()?;
            if key.id()? != *keyid {
                return refuse(format!("{keyid} is not the identifier of its key"));
            }
        }
        Ok(state)
    }

    /// The bytes that signatures cover.
    ///
    /// # Errors
    /// When they cannot be encoded.
    pub fn message(&self) -> Result<Vec<u8>> {
        canonical(self)
    }

    /// A role. A state that was read has all of them.
    #[must_use]
    pub fn role(&self, role: RoleName) -> &RoleKeys {
        &self.roles[&role]
    }

    pub(super) fn role_mut(&mut self, role: RoleName) -> &mut RoleKeys {
        self.roles.entry(role).or_insert_with(|| RoleKeys {
            keyids: BTreeSet::new(),
            threshold: 1,
        })
    }

    /// Every key that may sign anything.
    pub(super) fn in_use(&self) -> BTreeSet<Sha256> {
        self.roles
            .values()
            .flat_map(|role| role.keyids.iter().copied())
            .collect()
    }

    pub(super) fn record(&self) -> Record {
        self.ceremony.clone().unwrap_or_default()
    }

    /// The custodian's name, or what stands for it.
    pub(super) fn name_of(&self, keyid: &Sha256) -> String {
        let record = self.ceremony.as_ref();
        let named = record.and_then(|record| {
            let holder = record.custodians.get(keyid).map(|custodian| &custodian.name);
            holder.or_else(|| record.removed.get(keyid).and_then(|removed| removed.name.as_ref()))
        });
        named.cloned().unwrap_or_else(|| "(no name)".to_owned())
    }
}

/// The root that a custodian trusts today, verified against itself.
#[derive(Debug, Clone)]
pub struct TrustedRoot {
    pub(super) bytes: Vec<u8>,
    /// What it says.
    pub state: RootState,
    /// The digest of its signed part, which is the same whoever of the custodians signed.
    pub digest: Sha256,
}

impl TrustedRoot {
    /// Reads a root file.
    ///
    /// # Errors
    /// When a client would not trust it, or a ceremony has no words for what it says.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        root::judge_first(bytes).context("judging the root")?;
        let signed = root::signed_part("the root", bytes)?;
        Ok(Self {
            bytes: bytes.to_vec(),
            state: RootState::read(&signed).context("reading the root")?,
            digest: Sha256::of(&canonical(&signed)?),
        })
    }

    /// The file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Judges a successor as a client does that trusts this root, at the time when the successor was planned.
    ///
    /// # Errors
    /// What the client says when it refuses.
    pub fn judge(&self, version: u64, new: &[u8]) -> Result<()> {
        let at = RootState::read(&root::signed_part("the new root", new)?)?.signed_at;
        Ok(root::judge_successor(&self.bytes, version, new, at)?)
    }
}
