// SPDX-License-Identifier: GPL-3.0-or-later
//! Reads signed metadata (section 4) from the tree that the strict reader made, and checks its signatures.
//!
//! The tree is read here and not through `tough`'s types, because those drop fields that signatures cover, demand SHA-256
//! everywhere, and refuse a whole root for one key of an unknown kind. Keys are `tough`'s.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::author::{OPENPGP_THRESHOLD, SIGNED_AT};
use super::error::TufError;
use super::hashes::Hashes;
use super::json;
use super::limits::Limits;
use super::names::{check_role_name, check_target_name, pattern_matches};
use super::role_keys::{PublicKey, RoleKeys, read_keys, read_role_keys};
use crate::digest::Sha256;

pub(super) type Result<T> = std::result::Result<T, TufError>;

/// A metadata file whose signatures nobody has checked yet.
#[derive(Debug, Clone)]
pub(super) struct SignedFile {
    what: String,
    signed: Value,
    message: Vec<u8>,
    signatures: Vec<(String, Vec<u8>)>,
}

/// A reader of one object that names the file in its errors.
pub(super) struct Object<'a> {
    pub what: &'a str,
    pub map: &'a Map<String, Value>,
}

pub(super) fn malformed(what: &str, why: impl Into<String>) -> TufError {
    TufError::Malformed {
        what: what.to_owned(),
        why: why.into(),
    }
}

impl<'a> Object<'a> {
    fn of(what: &'a str, name: &str, value: &'a Value) -> Result<Self> {
        match value.as_object() {
            Some(map) => Ok(Self { what, map }),
            None => Err(malformed(what, format!("{name:?} is not an object"))),
        }
    }

    fn wrong(&self, key: &str, wanted: &str) -> TufError {
        malformed(self.what, format!("{key:?} is not {wanted}"))
    }

    pub(super) fn object(&self, key: &str) -> Result<Object<'a>> {
        match self.map.get(key).and_then(Value::as_object) {
            Some(map) => Ok(Object { what: self.what, map }),
            None => Err(self.wrong(key, "an object")),
        }
    }

    fn list(&self, key: &str) -> Result<&'a [Value]> {
        match self.map.get(key).and_then(Value::as_array) {
            Some(list) => Ok(list),
            None => Err(self.wrong(key, "a list")),
        }
    }

    pub(super) fn strings(&self, key: &str) -> Result<Vec<String>> {
        self.list(key)?
            .iter()
            .map(|value| {
                value
                    .as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| self.wrong(key, "a list of texts"))
            })
            .collect()
    }

    pub(super) fn text(&self, key: &str) -> Result<&'a str> {
        match self.map.get(key).and_then(Value::as_str) {
            Some(text) => Ok(text),
            None => Err(self.wrong(key, "a text")),
        }
    }

    fn number(&self, key: &str) -> Result<u64> {
        match self.map.get(key).and_then(Value::as_u64) {
            Some(number) => Ok(number),
            None => Err(self.wrong(key, "a number from 0 on")),
        }
    }

    pub(super) fn positive(&self, key: &str) -> Result<u64> {
        match self.number(key)? {
            0 => Err(self.wrong(key, "a number from 1 on")),
            number => Ok(number),
        }
    }

    fn time(&self, key: &str) -> Result<DateTime<Utc>> {
        match DateTime::parse_from_rfc3339(self.text(key)?) {
            Ok(time) => Ok(time.with_timezone(&Utc)),
            Err(_) => Err(self.wrong(key, "a time as in 2030-01-31T00:00:00Z")),
        }
    }
}

impl SignedFile {
    /// Reads the envelope (section 4.2). `what` names the file in errors.
    pub(super) fn read(what: &str, bytes: &[u8], limits: &Limits) -> Result<Self> {
        let mut value = json::parse(bytes, limits.json()).map_err(|error| malformed(what, error.to_string()))?;
        let envelope = Object::of(what, "the file", &value)?;
        let list = envelope.list("signatures")?;
        if list.len() > limits.signatures {
            return Err(malformed(what, "too many signatures"));
        }
        let mut signatures = Vec::with_capacity(list.len());
        let mut seen = BTreeSet::new();
        for entry in list {
            let entry = Object::of(what, "signatures", entry)?;
            let keyid = entry.text("keyid")?;
            // 4.2: the key identifier must be unique in the list of signatures.
            if !seen.insert(keyid.to_owned()) {
                return Err(malformed(what, "two signatures name the same key"));
            }
            // A signature that is no hexadecimal text is one that does not verify; the others may suffice.
            signatures.push((keyid.to_owned(), hex::decode(entry.text("sig")?).unwrap_or_default()));
        }
        let signed = value
            .get_mut("signed")
            .map(Value::take)
            .ok_or_else(|| malformed(what, "there is no \"signed\""))?;
        let message = json::canonical(&signed).map_err(|error| malformed(what, error.to_string()))?;
        Ok(Self {
            what: what.to_owned(),
            signed,
            message,
            signatures,
        })
    }

    /// The bytes that the signatures cover.
    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }

    /// Checks that a threshold of distinct keys signed, and returns the identifiers of those that did.
    ///
    /// A key counts once, under however many identifiers it stands: the public part decides.
    pub(super) fn verify(&self, role: &str, keys: &RoleKeys) -> Result<Vec<String>> {
        let signed = self.signatures_of(keys);
        let have = signed.iter().map(|(_, public)| public).collect::<BTreeSet<_>>().len() as u64;
        if have < keys.threshold {
            return Err(TufError::BelowThreshold {
                role: role.to_owned(),
                have,
                need: keys.threshold,
            });
        }
        Ok(signed.into_iter().map(|(keyid, _)| keyid.clone()).collect())
    }

    /// The identifiers of the keys of a role that signed, whether they are enough or not.
    pub(super) fn signers(&self, keys: &RoleKeys) -> Vec<String> {
        let signed = self.signatures_of(keys);
        signed.into_iter().map(|(keyid, _)| keyid.clone()).collect()
    }

    /// The valid signatures: identifier and public part of the key.
    fn signatures_of<'a>(&'a self, keys: &'a RoleKeys) -> Vec<(&'a String, &'a [u8])> {
        let valid = |(keyid, signature): &'a (String, Vec<u8>)| {
            let PublicKey::Known(key) = keys.keys.get(keyid)? else {
                return None;
            };
            key.verifies(&self.message, signature)
                .then_some((keyid, &key.public[..]))
        };
        self.signatures.iter().filter_map(valid).collect()
    }

    fn body(&self) -> Result<Object<'_>> {
        Object::of(&self.what, "signed", &self.signed)
    }

    pub(super) fn header(&self, kind: &str) -> Result<(Object<'_>, Header)> {
        let body = self.body()?;
        if body.text("_type")? != kind {
            return Err(malformed(&self.what, format!("its type is not {kind:?}")));
        }
        // 4.1: a client refuses a major version of the specification that it does not know.
        if body.text("spec_version")?.split('.').next() != Some("1") {
            return Err(malformed(&self.what, "it follows a specification other than 1.x"));
        }
        let header = Header {
            version: body.positive("version")?,
            expires: body.time("expires")?,
            signed_at: match body.map.get(SIGNED_AT) {
                Some(_) => Some(body.time(SIGNED_AT)?),
                None => None,
            },
        };
        if header.signed_at.is_some_and(|signed_at| signed_at >= header.expires) {
            return Err(malformed(&self.what, "it expires before it is signed"));
        }
        Ok((body, header))
    }
}

/// What every role carries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub version: u64,
    pub expires: DateTime<Utc>,
    pub signed_at: Option<DateTime<Utc>>,
}

/// Section 4.3.
#[derive(Debug, Clone)]
pub(super) struct Root {
    pub header: Header,
    pub consistent_snapshot: bool,
    /// How many OpenPGP certificates sign each timestamp, and each root that follows.
    pub openpgp_threshold: u64,
    pub root: RoleKeys,
    pub timestamp: RoleKeys,
    pub snapshot: RoleKeys,
    pub targets: RoleKeys,
}

impl Root {
    pub(super) fn read(file: &SignedFile) -> Result<Self> {
        let (body, header) = file.header("root")?;
        let all = read_keys(&body)?;
        let roles = body.object("roles")?;
        let role = |name| read_role_keys(&roles.object(name)?, &all);
        Ok(Self {
            header,
            consistent_snapshot: match body.map.get("consistent_snapshot") {
                None => false,
                Some(value) => value
                    .as_bool()
                    .ok_or_else(|| body.wrong("consistent_snapshot", "true or false"))?,
            },
            openpgp_threshold: match body.map.get(OPENPGP_THRESHOLD) {
                None => 1,
                Some(_) => body.positive(OPENPGP_THRESHOLD)?,
            },
            root: role("root")?,
            timestamp: role("timestamp")?,
            snapshot: role("snapshot")?,
            targets: role("targets")?,
        })
    }

    /// Stands for the keys and thresholds of timestamp and snapshot: another value is a rotation in the sense of 5.3.11.
    pub(super) fn online_keys(&self) -> String {
        let mut text = String::new();
        for role in [&self.timestamp, &self.snapshot] {
            text.push_str(&role.threshold.to_string());
            for keyid in role.keys.keys() {
                text.push(' ');
                text.push_str(keyid);
            }
            text.push('\n');
        }
        Sha256::of(text.as_bytes()).to_string()[..16].to_owned()
    }
}

/// Reads a root and checks that its own threshold signed it.
pub(super) fn read_root(what: &str, bytes: &[u8]) -> Result<Root> {
    let file = SignedFile::read(what, bytes, &Limits::default())?;
    let root = Root::read(&file)?;
    file.verify("root", &root.root)?;
    Ok(root)
}

/// What timestamp and snapshot say of another file (section 4.4).
#[derive(Debug, Clone)]
pub(super) struct MetaFile {
    pub version: u64,
    pub length: Option<u64>,
    pub hashes: Option<Hashes>,
}

impl MetaFile {
    fn read(object: &Object<'_>) -> Result<Self> {
        Ok(Self {
            version: object.positive("version")?,
            length: match object.map.get("length") {
                Some(_) => Some(object.number("length")?),
                None => None,
            },
            hashes: match object.map.get("hashes") {
                Some(_) => Some(read_hashes(object)?),
                None => None,
            },
        })
    }
}

fn read_hashes(object: &Object<'_>) -> Result<Hashes> {
    Hashes::read(object.object("hashes")?.map).map_err(|why| malformed(object.what, why))
}

/// Section 4.6.
#[derive(Debug, Clone)]
pub(super) struct Timestamp {
    pub header: Header,
    pub snapshot: MetaFile,
}

impl Timestamp {
    pub(super) fn read(file: &SignedFile) -> Result<Self> {
        let (body, header) = file.header("timestamp")?;
        let snapshot = MetaFile::read(&body.object("meta")?.object("snapshot.json")?)?;
        Ok(Self { header, snapshot })
    }
}

/// Section 4.4.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub header: Header,
    /// By file name without version, such as `targets.json`.
    pub meta: BTreeMap<String, MetaFile>,
}

impl Snapshot {
    pub(super) fn read(file: &SignedFile, limits: &Limits) -> Result<Self> {
        let (body, header) = file.header("snapshot")?;
        let entries = body.object("meta")?;
        if entries.map.len() > limits.roles {
            return Err(TufError::TooMany {
                what: "roles in a snapshot",
                limit: limits.roles as u64,
            });
        }
        let mut meta = BTreeMap::new();
        for name in entries.map.keys() {
            meta.insert(name.clone(), MetaFile::read(&entries.object(name)?)?);
        }
        Ok(Self { header, meta })
    }
}

/// One target of a role (section 4.5).
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub length: u64,
    pub hashes: Hashes,
    pub custom: Option<Value>,
}

/// For which targets a delegation speaks.
#[derive(Debug, Clone)]
pub(super) enum Paths {
    Patterns(Vec<String>),
    HashPrefixes(Vec<String>),
}

impl Paths {
    pub(super) fn cover(&self, name: &str) -> bool {
        match self {
            Self::Patterns(patterns) => patterns.iter().any(|pattern| pattern_matches(pattern, name)),
            Self::HashPrefixes(prefixes) => {
                let digest = Sha256::of(name.as_bytes()).to_string();
                prefixes.iter().any(|prefix| digest.starts_with(prefix.as_str()))
            }
        }
    }
}

/// A delegation to another role.
#[derive(Debug, Clone)]
pub(super) struct Delegation {
    pub name: String,
    pub keys: RoleKeys,
    pub paths: Paths,
    pub terminating: bool,
}

/// Section 4.5, top-level or delegated.
#[derive(Debug)]
pub(super) struct Targets {
    pub header: Header,
    pub targets: BTreeMap<String, Target>,
    pub delegations: Vec<Delegation>,
}

impl Targets {
    pub(super) fn read(file: &SignedFile) -> Result<Self> {
        let (body, header) = file.header("targets")?;
        let mut targets = BTreeMap::new();
        let entries = body.object("targets")?;
        for name in entries.map.keys() {
            check_target_name(name).map_err(|error| malformed(body.what, error.to_string()))?;
            let entry = entries.object(name)?;
            targets.insert(
                name.clone(),
                Target {
                    length: entry.number("length")?,
                    hashes: read_hashes(&entry)?,
                    custom: match entry.map.get("custom") {
                        Some(_) => Some(Value::Object(entry.object("custom")?.map.clone())),
                        None => None,
                    },
                },
            );
        }
        Ok(Self {
            header,
            targets,
            delegations: match body.map.get("delegations") {
                Some(_) => read_delegations(&body.object("delegations")?)?,
                None => Vec::new(),
            },
        })
    }
}

fn read_delegations(object: &Object<'_>) -> Result<Vec<Delegation>> {
    let keys = read_keys(object)?;
    if object.map.contains_key("succinct_roles") {
        return Err(malformed(object.what, "succinct roles (TAP 15) are not supported"));
    }
    let mut names = BTreeSet::new();
    let mut delegations = Vec::new();
    for entry in object.list("roles")? {
        let entry = Object::of(object.what, "roles", entry)?;
        let name = entry.text("name")?;
        check_role_name(name).map_err(|error| malformed(object.what, error.to_string()))?;
        if !names.insert(name) {
            return Err(malformed(object.what, format!("it delegates to {name:?} twice")));
        }
        // 4.5: exactly one of the two.
        let paths = match (
            entry.map.contains_key("paths"),
            entry.map.contains_key("path_hash_prefixes"),
        ) {
            (true, false) => Paths::Patterns(entry.strings("paths")?),
            (false, true) => Paths::HashPrefixes(entry.strings("path_hash_prefixes")?),
            _ => {
                return Err(malformed(
                    object.what,
                    format!("the delegation to {name:?} needs either \"paths\" or \"path_hash_prefixes\""),
                ));
            }
        };
        delegations.push(Delegation {
            name: name.to_owned(),
            keys: read_role_keys(&entry, &keys)?,
            paths,
            terminating: entry
                .map
                .get("terminating")
                .and_then(Value::as_bool)
                .ok_or_else(|| entry.wrong("terminating", "true or false"))?,
        });
    }
    Ok(delegations)
}
