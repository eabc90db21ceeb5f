// SPDX-License-Identifier: GPL-3.0-or-later
//! The install record's signature, for whoever reads the record: the installer that made it, and the host that obeys it.
//!
//! Attacks faced: a record that was altered, and one that is signed with another kind of key than hosts have. Defence not
//! made: the key stands in the record itself, so whoever replaces both is found out only by the key's fingerprint.

use serde::de::DeserializeOwned;
use signing::keys::{Algorithm, PublicKey};
use signing::output::Refused;

/// Reads a record whose signature by its own key holds; gives that key as well. `host_key` says where the key's PEM stands.
///
/// # Errors
/// When it is no record, or was altered after it was signed.
pub fn signed<R: DeserializeOwned>(
    bytes: &[u8],
    signature: &[u8],
    host_key: impl FnOnce(&R) -> &str,
) -> Result<(R, PublicKey), Refused> {
    let record: R = serde_json::from_slice(bytes).map_err(|error| Refused(format!("it is no record: {error}")))?;
    let key = PublicKey::from_pem("the record's key", host_key(&record).as_bytes())
        .map_err(|error| Refused(error.to_string()))?;
    if key.algorithm() != Algorithm::Ed25519 || !key.verifies(bytes, signature) {
        return Err(Refused(
            "its signature does not hold: it was altered after it was signed".into(),
        ));
    }
    Ok((record, key))
}
