// SPDX-License-Identifier: GPL-3.0-or-later
//! The keys of a role, as root or a delegation names them.

use std::collections::BTreeMap;

use openssl::ec::PointConversionForm;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use serde::Deserialize;
use serde_json::Value;
use tough::schema::key::Key;

use super::json;
use super::model::{Object, Result, malformed};
use crate::digest::Sha256;

#[derive(Debug, Clone)]
pub(super) enum PublicKey {
    Known(KnownKey),
    /// A kind or scheme that this client does not know: it can stand in metadata, but it verifies nothing.
    Unknown,
}

/// The keys of one role, by identifier, and how many of them must sign.
#[derive(Debug, Clone)]
pub(super) struct RoleKeys {
    pub keys: BTreeMap<String, PublicKey>,
    pub threshold: u64,
}

/// A key that can verify.
#[derive(Debug, Clone)]
pub(super) struct KnownKey {
    algorithm: &'static dyn VerificationAlgorithm,
    /// The key itself, by which keys are told apart.
    pub public: Vec<u8>,
}

impl KnownKey {
    /// 4.2: the kinds of key and their schemes. `ecdsa-sha2-nistp384` stands in no list of the specification's and in the
    /// reference implementation's; `tough` does not know it.
    fn read(value: &Value) -> Option<Self> {
        let (algorithm, public): (&'static dyn VerificationAlgorithm, _) = match Key::deserialize(value) {
            Ok(Key::Ed25519 { keyval, .. }) => (&ED25519, keyval.public.to_vec()),
            Ok(Key::Ecdsa { keyval, .. } | Key::EcdsaOld { keyval, .. }) => {
                (&ECDSA_P256_SHA256_ASN1, keyval.public.to_vec())
            }
            Ok(Key::Rsa { keyval, .. }) => (&RSA_PSS_2048_8192_SHA256, keyval.public.to_vec()),
            Err(_) => (&ECDSA_P384_SHA384_ASN1, p384(value)?),
        };
        Some(Self { algorithm, public })
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm, &self.public)
            .verify(message, signature)
            .is_ok()
    }
}

/// The point of an ECDSA key on P-384, which metadata gives as PEM.
fn p384(value: &Value) -> Option<Vec<u8>> {
    const SCHEME: &str = "ecdsa-sha2-nistp384";
    let kind = value["keytype"].as_str()?;
    if value["scheme"] != SCHEME || !["ecdsa", SCHEME].contains(&kind) {
        return None;
    }
    let pem = value["keyval"]["public"].as_str()?;
    let key = PKey::public_key_from_pem(pem.as_bytes()).ok()?.ec_key().ok()?;
    if key.group().curve_name() != Some(Nid::SECP384R1) {
        return None;
    }
    let mut context = openssl::bn::BigNumContext::new().ok()?;
    let form = PointConversionForm::UNCOMPRESSED;
    key.public_key().to_bytes(key.group(), form, &mut context).ok()
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
        let key = KnownKey::read(value).map_or(PublicKey::Unknown, PublicKey::Known);
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
