// SPDX-License-Identifier: GPL-3.0-or-later
//! What one custodian hands back: a signature, for one request, by one key.

use std::path::Path;

use anyhow::Result;
use chrono::{DateTime, Timelike, Utc};
use serde::{Deserialize, Serialize};

use super::state::{RoleName, RootState, TrustedRoot};
use super::{FORMAT, Request, parse_json, pretty, read_json, refuse, rules, short};
use crate::digest::Sha256;
use crate::keys::{MetadataKey, SigningKey};
use crate::tuf::author::Signer;

const KIND: &str = "bastide-ceremony-fragment";

/// A custodian's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fragment {
    format: u32,
    kind: String,
    /// The request that was signed.
    pub request: Sha256,
    /// The version of the root in it.
    pub root_version: u64,
    /// The key.
    pub keyid: Sha256,
    /// The custodian's name as the roots have it.
    pub custodian: String,
    /// When it was made, by the custodian's clock.
    pub made: DateTime<Utc>,
    signature: String,
}

impl Fragment {
    /// Signs a request, after it was verified against the custodian's own old root.
    ///
    /// # Errors
    /// A refusal when the request does not hold or the key may not sign it.
    pub fn sign(
        request: &Request,
        old: Option<&TrustedRoot>,
        key: impl SigningKey + 'static,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let new = request.verify(old)?;
        let key = MetadataKey::new(key)?;
        let keyid = super::state::KeyObject::of(key.key().public())?.id()?;
        let custodian = entitled(old.map(|old| &old.state), &new, &keyid)?;
        Ok(Self {
            format: FORMAT,
            kind: KIND.to_owned(),
            request: request.fingerprint()?,
            root_version: new.version,
            keyid,
            custodian,
            made: now.with_nanosecond(0).unwrap_or(now),
            signature: hex::encode(key.sign(request.message())?),
        })
    }

    /// Reads a fragment, which [`Fragment::verify`] has to judge.
    ///
    /// # Errors
    /// When it is none of this format.
    pub fn read(path: &Path) -> Result<Self> {
        read_json(path, "fragment")
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        parse_json(bytes, "fragment")
    }

    /// The file.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn to_text(&self) -> Result<String> {
        pretty(self)
    }

    /// Judges the fragment for a request that was verified; `new` is what it makes.
    ///
    /// # Errors
    /// A refusal that says what is wrong.
    pub fn verify(&self, request: &Request, old: Option<&RootState>, new: &RootState) -> Result<()> {
        if self.kind != KIND || self.format != FORMAT {
            return refuse(format!("it is not a {KIND} of format {FORMAT}"));
        }
        let due = request.fingerprint()?;
        if self.request != due || self.root_version != new.version {
            return refuse(format!(
                "it is for another request ({}), not for this one ({})",
                short(&self.request),
                short(&due)
            ));
        }
        let name = entitled(old, new, &self.keyid)?;
        if name != self.custodian {
            return refuse(format!(
                "it bears the name {:?}, and its key is {name}'s",
                self.custodian
            ));
        }
        let known = new.keys.get(&self.keyid);
        let Some(key) = known.or_else(|| old.and_then(|old| old.keys.get(&self.keyid))) else {
            return refuse("its key is unknown");
        };
        if !key.public()?.verifies(request.message(), &self.signature()) {
            return refuse("its signature does not hold: it was altered, or made over something else");
        }
        Ok(())
    }

    pub(super) fn signature(&self) -> Vec<u8> {
        hex::decode(&self.signature).unwrap_or_default()
    }
}

/// Whose key it is, if its signature counts.
fn entitled(old: Option<&RootState>, new: &RootState, keyid: &Sha256) -> Result<String> {
    if new.role(RoleName::Root).keyids.contains(keyid) {
        return Ok(new.name_of(keyid));
    }
    match old {
        Some(old) if rules::able(old, new).contains(keyid) => Ok(old.name_of(keyid)),
        Some(old) if old.role(RoleName::Root).keyids.contains(keyid) => refuse(format!(
            "the key {} is lost or compromised by this very request: its signature does not count",
            short(keyid)
        )),
        _ => refuse(format!(
            "the key {} is not among those that may sign this",
            short(keyid)
        )),
    }
}
