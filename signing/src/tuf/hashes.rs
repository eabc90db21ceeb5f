// SPDX-License-Identifier: GPL-3.0-or-later
//! The digests that metadata names for a file: every one that we know is checked.

use ring::digest::{Context, SHA256, SHA512};
use serde_json::{Map, Value};

use crate::digest::Sha256;

/// Digests of one file, at least one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashes {
    sha256: Option<[u8; 32]>,
    sha512: Option<[u8; 64]>,
}

impl Hashes {
    /// Reads a `hashes` object; algorithms that we do not know are passed over, but one that we know must be there.
    pub(super) fn read(map: &Map<String, Value>) -> Result<Self, String> {
        let mut hashes = Self {
            sha256: None,
            sha512: None,
        };
        for (name, value) in map {
            let text = value
                .as_str()
                .ok_or_else(|| format!("the digest {name:?} is not a text"))?;
            let wrong = |_| format!("the digest {name:?} has the wrong form");
            match name.as_str() {
                "sha256" => {
                    let mut bytes = [0; 32];
                    hex::decode_to_slice(text, &mut bytes).map_err(wrong)?;
                    hashes.sha256 = Some(bytes);
                }
                "sha512" => {
                    let mut bytes = [0; 64];
                    hex::decode_to_slice(text, &mut bytes).map_err(wrong)?;
                    hashes.sha512 = Some(bytes);
                }
                _ => {}
            }
        }
        if hashes.sha256.is_none() && hashes.sha512.is_none() {
            return Err("no digest of a known kind (sha256, sha512) is named".to_owned());
        }
        Ok(hashes)
    }

    /// The one digest.
    #[must_use]
    pub const fn of(sha256: Sha256) -> Self {
        Self {
            sha256: Some(sha256.0),
            sha512: None,
        }
    }

    /// The SHA-256 digest, where one is named.
    #[must_use]
    pub fn sha256(&self) -> Option<Sha256> {
        self.sha256.map(Sha256)
    }

    /// The digest that stands in the file's name in a consistent snapshot.
    #[must_use]
    pub fn in_name(&self) -> String {
        match (&self.sha256, &self.sha512) {
            (Some(bytes), _) => hex::encode(bytes),
            (None, Some(bytes)) => hex::encode(bytes),
            (None, None) => String::new(),
        }
    }

    /// Whether bytes in memory have all these digests.
    #[must_use]
    pub fn match_bytes(&self, bytes: &[u8]) -> bool {
        let mut check = self.check();
        check.update(bytes);
        check.holds()
    }

    /// Starts to check a stream.
    #[must_use]
    pub fn check(&self) -> Check {
        Check {
            sha256: self.sha256.map(|wanted| (Context::new(&SHA256), wanted)),
            sha512: self.sha512.map(|wanted| (Context::new(&SHA512), wanted)),
        }
    }
}

/// The digests of a stream, compared at its end.
pub struct Check {
    sha256: Option<(Context, [u8; 32])>,
    sha512: Option<(Context, [u8; 64])>,
}

impl Check {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some((context, _)) = &mut self.sha256 {
            context.update(bytes);
        }
        if let Some((context, _)) = &mut self.sha512 {
            context.update(bytes);
        }
    }

    /// Whether all bytes together have every digest that is named.
    #[must_use]
    pub fn holds(self) -> bool {
        let first = self
            .sha256
            .is_none_or(|(context, wanted)| context.finish().as_ref() == wanted);
        let second = self
            .sha512
            .is_none_or(|(context, wanted)| context.finish().as_ref() == wanted);
        first && second
    }
}
