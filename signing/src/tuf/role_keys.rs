// SPDX-License-Identifier: GPL-3.0-or-later
//! The keys of a role, as root or a delegation names them.

use std::collections::BTreeMap;

use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, RSA_PSS_2048_8192_SHA256, VerificationAlgorithm};
use tough::schema::key::Key;

use super::json;
use super::model::{Object, Result, malformed};
use crate::digest::Sha256;

#[derive(Debug, Clone)]
pub(super) enum PublicKey {
    Known(Box<Key>),
    /// A kind or scheme that this client does not know: it can stand in metadata, but it verifies nothing.
    Unknown,
}

/// The keys of one role, by identifier, and how many of them must sign.
#[derive(Debug, Clone)]
pub(super) struct RoleKeys {
    pub keys: BTreeMap<String, PublicKey>,
    pub threshold: u64,
}

/// The algorithm and the public part of a key.
pub(super) fn material(key: &Key) -> (&'static dyn VerificationAlgorithm, &[u8]) {
    match key {
        Key::Ed25519 { keyval, .. } => (&ED25519, &keyval.public),
        Key::Ecdsa { keyval, .. } | Key::EcdsaOld { keyval, .. } => (&ECDSA_P256_SHA256_ASN1, &keyval.public),
        Key::Rsa { keyval, .. } => (&RSA_PSS_2048_8192_SHA256, &keyval.public),
    }
}

pub(super) fn read_keys(object: &Object<'_>) -> Result<BTreeMap<String, PublicKey>> {
    let mut keys = BTreeMap::new();
    for (keyid, value) in object.object("keys")?.map {
        let form = json::canonical(value).map_err(|error| malformed(object.what, error.to_string()))?;
        // 4.3: clients must calculate each identifier to verify that it is correct for its key.
        if Sha256::of(&form).to_string() != *keyid {
            return Err(malformed(
                object.what,
                format!("{keyid:?} is not the identifier of its key"),
            ));
        }
        let key = match serde_json::from_value(value.clone()) {
            Ok(key) => PublicKey::Known(Box::new(key)),
            Err(_) => PublicKey::Unknown,
        };
        keys.insert(keyid.clone(), key);
    }
    Ok(keys)
}

pub(super) fn read_role_keys(object: &Object<'_>, all: &BTreeMap<String, PublicKey>) -> Result<RoleKeys> {
    let mut keys = BTreeMap::new();
    for keyid in object.strings("keyids")? {
        // An identifier without its key can never sign.
        let key = all.get(&keyid).cloned().unwrap_or(PublicKey::Unknown);
        if keys.insert(keyid, key).is_some() {
            return Err(malformed(object.what, "a role lists one key twice"));
        }
    }
    Ok(RoleKeys {
        keys,
        threshold: object.positive("threshold")?,
    })
}
