// SPDX-License-Identifier: GPL-3.0-or-later
//! Builds and signs TUF metadata: the same input gives the same bytes.
//!
//! What is signed is the canonical JSON of `signed`; what is written is indented JSON with sorted keys, so that a person
//! can read it and two builds can be compared.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, SecondsFormat, Utc};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tough::TargetName;
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::key::{Ed25519Key, Ed25519Scheme, Key};
use tough::schema::{
    DelegatedRole, Delegations, Hashes, Metafile, PathPattern, PathSet, Role, RoleKeys, RoleType, Root, Snapshot,
    Target, Targets, Timestamp,
};
use zeroize::Zeroizing;

use crate::digest::Sha256;

/// The version of the specification that the metadata names.
pub const SPEC_VERSION: &str = "1.0.34";

/// The extra field in which our metadata says when it was signed. The specification lets clients ignore unknown fields;
/// ours raises its floor of time with it.
pub const SIGNED_AT: &str = "signed_at";

/// The extra field in which a root of ours says how many OpenPGP certificates sign beside it ([`super::beside`]).
pub const OPENPGP_THRESHOLD: &str = "openpgp_threshold";

/// A private key that can sign metadata, wherever it lies.
pub trait Signer {
    /// The public part, as it stands in root or in a delegation.
    fn public(&self) -> Key;

    /// Signs a message.
    ///
    /// # Errors
    /// When the key cannot be used.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>>;
}

/// An Ed25519 key in memory.
pub struct Ed25519Signer(Ed25519KeyPair);

impl Ed25519Signer {
    /// Reads an unencrypted PKCS#8 key (RFC 5958, with or without the public part).
    ///
    /// # Errors
    /// When it is not an Ed25519 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self> {
        match Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            Ok(pair) => Ok(Self(pair)),
            Err(error) => bail!("reading a signing key: not an Ed25519 key in PKCS#8 form ({error})"),
        }
    }

    /// Makes a new key; the second part is its PKCS#8 form, to be stored encrypted.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn generate() -> Result<(Self, Zeroizing<Vec<u8>>)> {
        let Ok(document) = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()) else {
            bail!("making a signing key: the system gives no random numbers");
        };
        let der = Zeroizing::new(document.as_ref().to_vec());
        Ok((Self::from_pkcs8(&der)?, der))
    }
}

impl Signer for Ed25519Signer {
    fn public(&self) -> Key {
        ed25519_key(self.0.public_key().as_ref())
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

/// The TUF form of an Ed25519 public key of 32 bytes.
#[must_use]
pub fn ed25519_key(public: &[u8]) -> Key {
    Key::Ed25519 {
        keyval: Ed25519Key {
            public: public.to_vec().into(),
            _extra: HashMap::new(),
        },
        scheme: Ed25519Scheme::Ed25519,
        _extra: HashMap::new(),
    }
}

/// The TUF form of an ECDSA public key on P-256, a PEM.
#[must_use]
pub fn ecdsa_key(pem: &str) -> Option<Key> {
    let key = serde_json::json!({
        "keytype": "ecdsa",
        "scheme": "ecdsa-sha2-nistp256",
        "keyval": {"public": pem},
    });
    serde_json::from_value(key).ok()
}

/// The identifier of a key: SHA-256 of its canonical form (section 4.2), in hexadecimal digits.
///
/// # Errors
/// When the key has no canonical form.
pub fn key_id(key: &Key) -> Result<String> {
    Ok(hex::encode(key.key_id().context("computing a key identifier")?))
}

/// The keys of one role and how many of them must sign.
#[derive(Debug, Clone)]
pub struct KeySet {
    /// The keys; each may stand once.
    pub keys: Vec<Key>,
    /// How many of them must sign.
    pub threshold: u64,
}

impl KeySet {
    /// One key that signs alone.
    #[must_use]
    pub fn single(key: Key) -> Self {
        Self {
            keys: vec![key],
            threshold: 1,
        }
    }
}

/// What every role's metadata carries.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// The version, from 1.
    pub version: u64,
    /// From when clients refuse it.
    pub expires: DateTime<Utc>,
    /// When it is signed.
    pub signed_at: DateTime<Utc>,
}

/// The content of a root (section 4.3). Consistent snapshots are always on.
#[derive(Debug, Clone)]
pub struct RootPlan {
    /// Version and times.
    pub header: Header,
    /// Keys of the root role.
    pub root: KeySet,
    /// Keys of the targets role.
    pub targets: KeySet,
    /// Keys of the snapshot role.
    pub snapshot: KeySet,
    /// Keys of the timestamp role.
    pub timestamp: KeySet,
}

/// A role to which targets are delegated (section 4.5).
#[derive(Debug, Clone)]
pub struct Delegation {
    /// The role's name, such as `host`.
    pub name: String,
    /// Its keys.
    pub keys: KeySet,
    /// The patterns of the target names that it may sign; `*` stops at `/`.
    pub paths: Vec<String>,
    /// Whether the search ends at this role for names that match.
    pub terminating: bool,
}

/// One target as its role describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetEntry {
    /// Its length in bytes.
    pub length: u64,
    /// Its digest.
    pub sha256: Sha256,
    /// The application's own object.
    pub custom: Option<serde_json::Map<String, Value>>,
}

/// What a snapshot or a timestamp says of another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetaEntry {
    /// Its version.
    pub version: u64,
    /// Its length in bytes.
    pub length: u64,
    /// Its digest.
    pub sha256: Sha256,
}

impl MetaEntry {
    /// Describes a metadata file.
    #[must_use]
    pub fn of(version: u64, bytes: &[u8]) -> Self {
        Self {
            version,
            length: bytes.len() as u64,
            sha256: Sha256::of(bytes),
        }
    }
}

/// Builds and signs a root. A successor must also be signed with the keys of its predecessor: hand in the signers of both.
///
/// # Errors
/// When a threshold cannot be reached, a key stands twice, or a signer fails.
pub fn root(plan: &RootPlan, signers: &[&dyn Signer]) -> Result<Vec<u8>> {
    let mut keys = HashMap::new();
    let mut roles = HashMap::new();
    for (role, set) in [
        (RoleType::Root, &plan.root),
        (RoleType::Targets, &plan.targets),
        (RoleType::Snapshot, &plan.snapshot),
        (RoleType::Timestamp, &plan.timestamp),
    ] {
        let (keyids, threshold) = add_keys(&format!("role {role}"), set, &mut keys)?;
        roles.insert(
            role,
            RoleKeys {
                keyids,
                threshold,
                _extra: HashMap::new(),
            },
        );
    }
    let signed = Root {
        spec_version: SPEC_VERSION.to_owned(),
        consistent_snapshot: true,
        version: plan.header.version()?,
        expires: plan.header.expires()?,
        keys,
        roles,
        _extra: plan.header.extra(),
    };
    envelope(&signed, signers).context("signing root")
}

/// Builds and signs a targets role, the top-level one or a delegated one.
///
/// # Errors
/// When a name or pattern is not valid, a threshold cannot be reached, or a signer fails.
pub fn targets(
    header: &Header,
    targets: &BTreeMap<String, TargetEntry>,
    delegations: &[Delegation],
    signers: &[&dyn Signer],
) -> Result<Vec<u8>> {
    let mut signed = Targets::new(SPEC_VERSION.to_owned(), header.version()?, header.expires()?);
    signed._extra = header.extra();
    signed.delegations = None;
    for (name, entry) in targets {
        super::names::check_target_name(name)?;
        signed.targets.insert(
            TargetName::new(name.as_str()).with_context(|| format!("target {name:?}"))?,
            Target {
                length: entry.length,
                hashes: hashes(entry.sha256),
                custom: entry.custom.clone().unwrap_or_default().into_iter().collect(),
                _extra: HashMap::new(),
            },
        );
    }
    if !delegations.is_empty() {
        let mut all = Delegations::new();
        for delegation in delegations {
            super::names::check_role_name(&delegation.name)?;
            let (keyids, threshold) = add_keys(
                &format!("delegated role {:?}", delegation.name),
                &delegation.keys,
                &mut all.keys,
            )?;
            let patterns: std::result::Result<Vec<_>, _> = delegation.paths.iter().map(PathPattern::new).collect();
            all.roles.push(DelegatedRole {
                name: delegation.name.clone(),
                keyids,
                threshold,
                paths: PathSet::Paths(patterns.with_context(|| format!("paths of role {:?}", delegation.name))?),
                terminating: delegation.terminating,
                targets: None,
            });
        }
        signed.delegations = Some(all);
    }
    envelope(&signed, signers).context("signing targets")
}

/// Builds and signs a snapshot. `meta` is keyed by file name without version, such as `targets.json`.
///
/// # Errors
/// When the version or a time is not valid, or a signer fails.
pub fn snapshot(header: &Header, meta: &BTreeMap<String, MetaEntry>, signers: &[&dyn Signer]) -> Result<Vec<u8>> {
    let mut signed = Snapshot::new(SPEC_VERSION.to_owned(), header.version()?, header.expires()?);
    signed._extra = header.extra();
    for (name, entry) in meta {
        signed.meta.insert(name.clone(), metafile(entry)?);
    }
    envelope(&signed, signers).context("signing snapshot")
}

/// Builds and signs a timestamp for a snapshot.
///
/// # Errors
/// As [`snapshot`].
pub fn timestamp(header: &Header, snapshot: &MetaEntry, signers: &[&dyn Signer]) -> Result<Vec<u8>> {
    let mut signed = Timestamp::new(SPEC_VERSION.to_owned(), header.version()?, header.expires()?);
    signed._extra = header.extra();
    signed.meta.insert("snapshot.json".to_owned(), metafile(snapshot)?);
    envelope(&signed, signers).context("signing timestamp")
}

/// Adds one signature to metadata that was built elsewhere, as custodians do who never meet in one place.
///
/// # Errors
/// When the bytes are not a signed file, the key has signed already, or the signer fails.
pub fn cosign(metadata: &[u8], signer: &dyn Signer) -> Result<Vec<u8>> {
    let mut file = super::json::parse_default(metadata).context("reading the file to be signed")?;
    let message = super::json::canonical(file.get("signed").context("no \"signed\" object in it")?)?;
    let signature = signature(&message, signer)?;
    let list = file
        .get_mut("signatures")
        .and_then(Value::as_array_mut)
        .context("no list of signatures in it")?;
    ensure!(
        list.iter().all(|old| old.get("keyid") != signature.get("keyid")),
        "this key has signed it already"
    );
    list.push(signature);
    list.sort_by_key(|entry| entry["keyid"].as_str().map(str::to_owned));
    print(file)
}

impl Header {
    fn version(&self) -> Result<NonZeroU64> {
        NonZeroU64::new(self.version).context("a version of metadata starts at 1")
    }

    fn expires<T: DeserializeOwned>(&self) -> Result<T> {
        ensure!(
            self.expires > self.signed_at,
            "metadata signed at {} must expire later than {}",
            self.signed_at,
            self.expires
        );
        Ok(serde_json::from_value(Value::String(seconds(self.expires)))?)
    }

    fn extra(&self) -> HashMap<String, Value> {
        HashMap::from([(SIGNED_AT.to_owned(), Value::String(seconds(self.signed_at)))])
    }
}

/// A time as section 4.1 wants it: UTC, whole seconds.
pub fn seconds(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn hashes(sha256: Sha256) -> Hashes {
    Hashes {
        sha256: sha256.0.to_vec().into(),
        _extra: HashMap::new(),
    }
}

fn metafile(entry: &MetaEntry) -> Result<Metafile> {
    Ok(Metafile {
        length: Some(entry.length),
        hashes: Some(hashes(entry.sha256)),
        version: NonZeroU64::new(entry.version).context("a version of metadata starts at 1")?,
        _extra: HashMap::new(),
    })
}

fn add_keys(
    owner: &str,
    set: &KeySet,
    keys: &mut HashMap<Decoded<Hex>, Key>,
) -> Result<(Vec<Decoded<Hex>>, NonZeroU64)> {
    let mut keyids = Vec::new();
    for key in &set.keys {
        let id = key.key_id().context("computing a key identifier")?;
        ensure!(!keyids.contains(&id), "{owner}: a key stands twice");
        keys.insert(id.clone(), key.clone());
        keyids.push(id);
    }
    ensure!(
        set.threshold <= keyids.len() as u64,
        "{owner}: {} of {} keys can never sign",
        set.threshold,
        keyids.len()
    );
    let threshold = NonZeroU64::new(set.threshold).with_context(|| format!("{owner}: the threshold is 0"))?;
    Ok((keyids, threshold))
}

fn signature(message: &[u8], signer: &dyn Signer) -> Result<Value> {
    Ok(serde_json::json!({
        "keyid": key_id(&signer.public())?,
        "sig": hex::encode(signer.sign(message)?),
    }))
}

fn envelope<T: Role + Serialize>(signed: &T, signers: &[&dyn Signer]) -> Result<Vec<u8>> {
    let signed = serde_json::to_value(signed)?;
    let message = super::json::canonical(&signed)?;
    let mut by_key = BTreeMap::new();
    for signer in signers {
        by_key.insert(key_id(&signer.public())?, signature(&message, *signer)?);
    }
    print(serde_json::json!({
        "signatures": by_key.into_values().collect::<Vec<_>>(),
        "signed": signed,
    }))
}

/// Indented JSON with sorted keys and a line feed at its end.
pub(crate) fn print(mut value: Value) -> Result<Vec<u8>> {
    value.sort_all_objects();
    let mut bytes = serde_json::to_vec_pretty(&value)?;
    bytes.push(b'\n');
    Ok(bytes)
}
