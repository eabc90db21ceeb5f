// SPDX-License-Identifier: GPL-3.0-or-later
//! A receipt: what a host or a gateway holds and has seen, signed with its own key, to be carried back over the gap.
//!
//! ```text
//! {"signature": "<hex>", "signed": {"_type": "bastide-receipt", "format": 1, "sequence": 7, ...}}
//! ```
//!
//! The signature covers the canonical JSON of `signed`, as TUF's do (section 4.2), so that others' tools can check it.
//!
//! # Attacks faced
//! - A receipt that was altered, or that nobody's key signed: the key stands in it, and its signature must hold.
//! - Another signed document of the same key passed off as a receipt: the type is part of what is signed.
//! - Endless or ambiguous JSON, unknown fields, control characters for an officer's terminal: bounded, strict, refused.
//!
//! # Defence not made
//! Whose the key is, and whether the receipt was seen before, only an inventory of enrolled keys can tell. A holder may lie:
//! who has root on a host signs what he likes with its key.

mod gateway;

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::digest::{Sha256, read_bounded, read_regular};
use crate::durable;
use crate::keys::{Algorithm, PublicKey, SigningKey};
use crate::output::Refused;
use crate::release::Version;
use crate::tuf::{Seen, author, json as strict};

pub use self::gateway::{
    Exported, GatewayState, MOST_FILES, MOST_NUMBERS, MOST_TOLD, MOST_VOLUMES, MOST_WRITTEN, SetSeen, Verdict, Written,
    numbers, plain,
};

/// The longest receipt: a gateway with hundreds of releases has 200 KiB.
pub const MAX_RECEIPT: u64 = 1 << 20;
const KIND: &str = "bastide-receipt";
const FORMAT: u32 = 1;
/// The longest name or reason.
const MAX_TEXT: usize = 500;

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    #[serde(rename = "_type")]
    kind: String,
    format: u32,
    /// What the holder calls itself; an inventory knows it by its key.
    pub name: String,
    /// The holder's public key, PEM.
    pub key: String,
    /// Counts the receipts of this key, from 1.
    pub sequence: u64,
    /// When it was given, by the holder's clock.
    pub at: DateTime<Utc>,
    /// The vendor's metadata that the holder has verified and remembers.
    pub vendor: Vec<Seen>,
    /// The site's, where its officers approve.
    pub site: Vec<Seen>,
    /// What it holds.
    pub holder: Holder,
}

/// Who gives a receipt, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Holder {
    /// A host.
    Host(HostState),
    /// A gateway's repository.
    Gateway(GatewayState),
}

/// What a host runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostState {
    /// The running release.
    pub version: Version,
    /// Its root hash, from the kernel's command line.
    pub root_hash: Sha256,
    /// What both slots hold.
    pub slots: Vec<SlotHeld>,
    /// Whether every check of its health passed.
    pub healthy: bool,
    /// Why not, where they did not.
    pub reasons: String,
    /// The digest of its install record.
    pub install_record: Sha256,
}

/// What a slot holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotHeld {
    /// `a` or `b`.
    pub slot: String,
    /// What it is good for, such as `confirmed`.
    pub state: String,
    /// The release in it.
    pub version: Option<Version>,
    /// And its root hash.
    pub root_hash: Option<Sha256>,
}

/// A release that a gateway holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseHeld {
    /// Its version.
    pub version: Version,
    /// Its root hash.
    pub root_hash: Sha256,
    /// The digests of its parts, each read and verified for this receipt.
    pub objects: Vec<Sha256>,
}

/// A receipt whose own key signed it.
#[derive(Debug, Clone)]
pub struct Signed {
    /// What it says.
    pub receipt: Receipt,
    /// The fingerprint of the key: SHA-256 of its SubjectPublicKeyInfo.
    pub fingerprint: Sha256,
    /// The file.
    pub bytes: Vec<u8>,
}

impl Receipt {
    /// A receipt that is yet to be signed.
    #[must_use]
    pub fn new(name: &str, sequence: u64, at: DateTime<Utc>, holder: Holder) -> Self {
        Self {
            kind: KIND.to_owned(),
            format: FORMAT,
            name: name.to_owned(),
            key: String::new(),
            sequence,
            at,
            vendor: Vec::new(),
            site: Vec::new(),
            holder,
        }
    }

    /// Signs it; gives the file.
    ///
    /// # Errors
    /// When the key cannot sign, or the receipt is one that nobody would take.
    pub fn sign(mut self, key: &dyn SigningKey) -> Result<Signed> {
        self.key = key.public().to_pem()?;
        let value = serde_json::to_value(&self)?;
        let signature = key.sign(&strict::canonical(&value)?)?;
        let bytes = author::print(json!({"signed": value, "signature": hex::encode(signature)}))?;
        Signed::read(&bytes).context("checking the receipt that was just made")
    }

    /// The release that its holder would want more than: what it runs, or the newest that it holds whole.
    #[must_use]
    pub fn newest(&self) -> Option<Version> {
        match &self.holder {
            Holder::Host(host) => Some(host.version),
            Holder::Gateway(gateway) => gateway.releases.iter().map(|release| release.version).max(),
        }
    }
}

impl Signed {
    /// Reads a receipt's file.
    ///
    /// # Errors
    /// As [`Signed::read`], and when the file cannot be read.
    pub fn load(path: &Path) -> Result<Self> {
        let reading = || format!("reading the receipt {}", path.display());
        let bytes = read_regular(path, MAX_RECEIPT).with_context(reading)?;
        Self::read(&bytes).with_context(reading)
    }

    /// Reads a receipt, and checks the signature of the key that stands in it.
    ///
    /// # Errors
    /// [`Refused`] when it is none, or was altered.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let refuse = |why: String| Refused(format!("this is no receipt: {why}"));
        let mut file = strict::parse_default(bytes).map_err(|error| refuse(error.to_string()))?;
        let signed = file.get_mut("signed").map_or(Value::Null, Value::take);
        let message = strict::canonical(&signed).map_err(|error| refuse(error.to_string()))?;
        let receipt: Receipt = serde_json::from_value(signed).map_err(|error| refuse(error.to_string()))?;
        if receipt.kind != KIND || receipt.format != FORMAT {
            bail!(refuse(format!("it is not a {KIND} of format {FORMAT}")));
        }
        receipt.check().map_err(refuse)?;
        let key = PublicKey::from_pem("the receipt's key", receipt.key.as_bytes())
            .map_err(|error| refuse(error.to_string()))?;
        if !matches!(key.algorithm(), Algorithm::Ed25519 | Algorithm::EcdsaP256) {
            bail!(refuse(format!(
                "its key is {}, and neither Ed25519 nor on P-256",
                key.algorithm()
            )));
        }
        // Others' readers of PEM might take another key from two, or from text around it.
        if key.to_pem()? != receipt.key {
            bail!(refuse("its key does not stand in its one form".to_owned()));
        }
        let signature = file["signature"].as_str().map(hex::decode);
        if !matches!(signature, Some(Ok(signature)) if key.verifies(&message, &signature)) {
            bail!(Refused(
                "the receipt's signature does not hold: it was altered after it was signed".to_owned()
            ));
        }
        Ok(Self {
            receipt,
            fingerprint: key.fingerprint(),
            bytes: bytes.to_vec(),
        })
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    sequence: u64,
}

/// The number of the next receipt, counted up for good in this file: after a power cut one may be missing, and none comes
/// twice. The caller holds a lock.
///
/// # Errors
/// When the file cannot be read or written.
pub fn next_number(place: &Path) -> Result<u64> {
    let counting = || format!("counting the receipt in {}", place.display());
    let mut count: Count = match read_bounded(place, MAX_TEXT as u64) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(counting)?,
        Err(error) if error.kind() == ErrorKind::NotFound => Count::default(),
        Err(error) => return Err(error).with_context(counting),
    };
    count.sequence += 1;
    durable::write(place, &serde_json::to_vec(&count)?).with_context(counting)?;
    Ok(count.sequence)
}

impl Receipt {
    /// What no honest holder writes.
    fn check(&self) -> Result<(), String> {
        let mut texts = vec![&self.name];
        match &self.holder {
            Holder::Host(host) => {
                texts.push(&host.reasons);
                texts.extend(host.slots.iter().flat_map(|slot| [&slot.slot, &slot.state]));
            }
            Holder::Gateway(gateway) => {
                gateway.check()?;
                texts.extend(gateway.texts());
            }
        }
        texts.extend(self.vendor.iter().chain(&self.site).map(|seen| &seen.role));
        let harmless = |text: &&String| text.len() <= MAX_TEXT && !text.chars().any(char::is_control);
        match texts.iter().find(|text| !harmless(text)) {
            Some(text) => Err(format!("{text:?} is too long, or holds control characters")),
            None if self.sequence == 0 => Err("its sequence begins at 1".to_owned()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::keys::PrivateKey;

    fn receipt() -> Receipt {
        let host = HostState {
            version: "1.1.0".parse().unwrap(),
            root_hash: Sha256::of(b"root"),
            slots: Vec::new(),
            healthy: true,
            reasons: String::new(),
            install_record: Sha256::of(b"record"),
        };
        Receipt::new("rack4", 7, DateTime::UNIX_EPOCH, Holder::Host(host))
    }

    fn why(bytes: &[u8]) -> String {
        let error = Signed::read(bytes).unwrap_err();
        assert!(error.is::<Refused>(), "{error:#}");
        error.to_string()
    }

    #[test]
    fn a_receipt_holds_as_it_was_signed_and_in_no_other_way() {
        for algorithm in [Algorithm::Ed25519, Algorithm::EcdsaP256] {
            let key = PrivateKey::generate(algorithm).unwrap();
            let signed = receipt().sign(&key).unwrap();
            assert_eq!(signed.fingerprint, key.public().fingerprint());
            let text = String::from_utf8(signed.bytes.clone()).unwrap();
            let forged = why(text.replace("rack4", "rack5").as_bytes());
            assert!(forged.contains("does not hold"), "{forged}");
            // Another spelling of the same JSON says the same.
            let value: Value = serde_json::from_str(&text).unwrap();
            Signed::read(&serde_json::to_vec(&value).unwrap()).unwrap();
            let cut = text.len() / 2;
            why(&text.as_bytes()[..cut]);
        }
    }

    #[test]
    fn what_is_signed_and_no_receipt_is_refused() {
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        let honest = receipt().sign(&key).unwrap();
        let honest: Value = serde_json::from_slice(&honest.bytes).unwrap();
        type Change = fn(&mut Value);
        let changes: [(Change, &str); 7] = [
            (|signed| signed["_type"] = "targets".into(), "not a bastide-receipt"),
            (|signed| signed["format"] = 2.into(), "not a bastide-receipt"),
            (|signed| signed["sequence"] = 0.into(), "begins at 1"),
            (|signed| signed["more"] = 1.into(), "unknown field"),
            (|signed| signed["name"] = "\u{1b}[2J".into(), "control characters"),
            (|signed| signed["name"] = "x".repeat(501).into(), "too long"),
            (
                |signed| signed["key"] = format!("see:\n{}", signed["key"].as_str().unwrap()).into(),
                "one form",
            ),
        ];
        for (change, expected) in changes {
            let mut signed = honest["signed"].clone();
            change(&mut signed);
            let signature = key.sign(&strict::canonical(&signed).unwrap()).unwrap();
            let file = json!({"signed": signed, "signature": hex::encode(signature)});
            let told = why(file.to_string().as_bytes());
            assert!(told.contains(expected), "{told}");
        }
        for bytes in [&b"{}"[..], b"", b"[]", b"{\"signed\": {}, \"signed\": {}}"] {
            why(bytes);
        }
    }
}
