// SPDX-License-Identifier: GPL-3.0-or-later
//! Private keys as signers of TUF metadata.

use tough::schema::key::Key;

use super::{KeyError, PrivateKey};
use crate::tuf::author::{Signer, ed25519_key};

/// An Ed25519 key that signs metadata.
#[derive(Debug)]
pub struct MetadataKey {
    key: PrivateKey,
    public: Key,
}

impl MetadataKey {
    /// Takes a key into this service.
    ///
    /// # Errors
    /// [`KeyError::Algorithm`] when it is not an Ed25519 key.
    pub fn new(key: PrivateKey) -> Result<Self, KeyError> {
        let public = ed25519_key(&key.public().ed25519_bytes()?);
        Ok(Self { key, public })
    }

    /// The key itself.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }
}

impl Signer for MetadataKey {
    fn public(&self) -> Key {
        self.public.clone()
    }

    fn sign(&self, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        Ok(self.key.sign(message)?)
    }
}
