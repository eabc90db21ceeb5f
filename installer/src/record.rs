// SPDX-License-Identifier: GPL-3.0-or-later
//! The record of an installation: what the machine was, what was planned, what was done, and the digests of all of it,
//! signed with the host's own key, which is made here and never leaves the host.
//!
//! Attacks faced by the verification: a record that was altered, or exchanged for one that another key signed. Defence:
//! the signature covers the file's bytes, and the key's fingerprint, which the installer showed on its screen and serial
//! console, can be demanded. Not defended: a record whose fingerprint nobody wrote down proves only that it is whole.

use std::path::Path;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use hypervisor::layout;
use hypervisor::record::signed;
use serde::{Deserialize, Serialize};
use signing::digest::{self, Sha256};
use signing::keys::{Algorithm, PrivateKey};
use signing::output::Refused;
use signing::policy::Policy;
use signing::tuf::Trail;

use crate::disk::State;
use crate::inventory::Inventory;
use crate::plan::Plan;
use crate::steps::Event;

/// An inventory of a large machine and all events are some hundred kilobytes.
const LIMIT: u64 = 16 * 1024 * 1024;

/// The record.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Always 1.
    pub format: u32,
    /// The program and its version.
    pub installer: String,
    /// When the record was closed, as the machine's clock said.
    pub time: DateTime<Utc>,
    /// The digest of the answer's bytes.
    pub answer_sha256: Sha256,
    /// The machine before.
    pub inventory: Inventory,
    /// The plan, with the release and the digests of its parts.
    pub plan: Plan,
    /// Which metadata was verified with which keys.
    pub trail: Trail,
    /// The OpenPGP keys that signed the root.
    pub openpgp_signers: Vec<String>,
    /// Whom the host believes: it compares its own policy with this one.
    pub policy: Policy,
    /// What was read back from the disk.
    pub read_back: Vec<ReadBack>,
    /// The Secure Boot variables that were written.
    pub enrolled: Vec<String>,
    /// The firmware's boot entry, if one could be made.
    pub boot_entry: Option<String>,
    /// The events until the record was closed. The boot files got their names after that.
    pub events: Vec<Event>,
    /// The host's public key, PEM.
    pub host_key: String,
}

/// One range that was read back from the disk past all caches, and was as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadBack {
    /// The partition or file.
    pub what: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest, as signed and as read.
    pub sha256: Sha256,
}

/// A record in its signed form.
pub struct Signed {
    /// The record's bytes.
    pub bytes: Vec<u8>,
    /// The signature, 64 bytes.
    pub signature: Vec<u8>,
    /// The key's fingerprint.
    pub fingerprint: Sha256,
}

/// Makes the host's key, signs the record with it, and puts record, signature and key onto the state partition.
///
/// # Errors
/// When the key cannot be made or a file cannot be written.
pub fn sign(mut record: Record, state: &mut State) -> Result<Signed> {
    let key = PrivateKey::generate(Algorithm::Ed25519).context("cannot make the host's key")?;
    record.host_key = key.public().to_pem()?;
    let mut bytes = serde_json::to_vec_pretty(&record)?;
    bytes.push(b'\n');
    let signature = key.sign(&bytes).context("cannot sign the record")?;
    state.file(layout::HOST_KEY, &key.to_unencrypted_pem()?, 0o600)?;
    state.file(layout::INSTALL_RECORD, &bytes, 0o644)?;
    state.file(layout::INSTALL_RECORD_SIGNATURE, &signature, 0o644)?;
    Ok(Signed {
        bytes,
        signature,
        fingerprint: key.public().fingerprint(),
    })
}

/// Verifies a record and its signature, and the key's fingerprint where one is demanded.
///
/// # Errors
/// When a file cannot be read, the signature does not hold, or the key is another.
pub fn verify(record: &Path, signature: &Path, fingerprint: Option<Sha256>) -> Result<(Record, Sha256)> {
    let read =
        |path: &Path| digest::read_bounded(path, LIMIT).with_context(|| format!("cannot read {}", path.display()));
    check(&read(record)?, &read(signature)?, fingerprint)
        .with_context(|| format!("cannot trust the record {}", record.display()))
}

fn check(bytes: &[u8], signature: &[u8], fingerprint: Option<Sha256>) -> Result<(Record, Sha256)> {
    let (record, key) = signed(bytes, signature, |record: &Record| &record.host_key)?;
    let own = key.fingerprint();
    if let Some(expected) = fingerprint
        && expected != own
    {
        bail!(Refused(format!("it is signed by the key {own}, not by {expected}")));
    }
    Ok((record, own))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::answer::Answer;
    use crate::inventory::{Disk, Firmware};

    pub(crate) fn example() -> Record {
        let answer = Answer::from_bytes(b"[network]\nhostname = \"h\"\n[disk]\nserial = \"S1\"".to_vec()).unwrap();
        let inventory = Inventory {
            firmware: Firmware {
                uefi: true,
                ..Firmware::default()
            },
            disks: vec![Disk {
                serial: Some("S1".into()),
                size: 20 << 30,
                sector: 512,
                ..Disk::default()
            }],
            ..Inventory::default()
        };
        let release = serde_json::json!({"version": "1.0.0", "channel": "stable", "root_hash": Sha256::of(b""), "parts": [
            {"part": "root", "size": 1, "sha256": Sha256::of(b"")},
            {"part": "verity", "size": 1, "sha256": Sha256::of(b"")},
            {"part": "xen", "size": 1, "sha256": Sha256::of(b"")},
        ]});
        let plan = Plan::new(&inventory, &answer.answer, &serde_json::from_value(release).unwrap()).unwrap();
        Record {
            format: 1,
            installer: "test".into(),
            time: DateTime::UNIX_EPOCH,
            answer_sha256: answer.sha256,
            inventory,
            plan,
            trail: Trail {
                now: DateTime::UNIX_EPOCH,
                files: Vec::new(),
            },
            openpgp_signers: Vec::new(),
            policy: Policy::Vendor,
            read_back: Vec::new(),
            enrolled: Vec::new(),
            boot_entry: None,
            events: Vec::new(),
            host_key: String::new(),
        }
    }

    #[test]
    fn a_record_holds_until_a_byte_changes() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = State::new(directory.path());
        let signed = sign(example(), &mut state).unwrap();
        let (record, key) = check(&signed.bytes, &signed.signature, Some(signed.fingerprint)).unwrap();
        assert_eq!((record.plan.hostname.as_str(), key), ("h", signed.fingerprint));
        let mut altered = signed.bytes.clone();
        let place = altered.windows(2).position(|pair| pair == b"S1").unwrap();
        altered[place + 1] = b'2';
        assert!(check(&altered, &signed.signature, None).is_err());
        assert!(check(&signed.bytes, &signed.signature[..63], None).is_err());
        assert!(check(&signed.bytes, b"", None).is_err());
        assert!(check(&signed.bytes, &signed.signature, Some(Sha256::of(b"other"))).is_err());
        assert!(check(b"{}", &signed.signature, None).is_err());
    }

    #[test]
    fn openssl_verifies_a_record_alone() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = State::new(directory.path());
        sign(example(), &mut state).unwrap();
        let place = |name: &str| directory.path().join("bastide").join(name);
        let key = place("key.pub.pem");
        let text = std::fs::read_to_string(place("install-record.json")).unwrap();
        let record: Record = serde_json::from_str(&text).unwrap();
        std::fs::write(&key, record.host_key).unwrap();
        signing::process::Cmd::new("openssl")
            .args(["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey"])
            .arg(&key)
            .arg("-in")
            .arg(place("install-record.json"))
            .arg("-sigfile")
            .arg(place("install-record.json.sig"))
            .run()
            .unwrap();
    }
}
