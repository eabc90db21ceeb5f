// SPDX-License-Identifier: GPL-3.0-or-later
//! Private keys as signers of TUF metadata.

use tough::schema::key::Key;

use super::{Algorithm, KeyError, SigningKey};
use crate::tuf::author::{Signer, ecdsa_key, ed25519_key};

/// A key that signs metadata: Ed25519, or ECDSA on P-256 in a token.
#[derive(Debug)]
pub struct MetadataKey {
    key: Box<dyn SigningKey>,
    public: Key,
}

impl MetadataKey {
    /// Takes a key into this service.
    ///
    /// # Errors
    /// [`KeyError::Algorithm`] when it is of another kind.
    pub fn new(key: impl SigningKey + 'static) -> Result<Self, KeyError> {
        Self::of(Box::new(key))
    }

    /// As [`MetadataKey::new`], for a key wherever it lies.
    ///
    /// # Errors
    /// As [`MetadataKey::new`].
    pub fn of(key: Box<dyn SigningKey>) -> Result<Self, KeyError> {
        let public = match key.public().algorithm() {
            Algorithm::EcdsaP256 => ecdsa_key(&key.public().to_pem()?),
            _ => Some(ed25519_key(&key.public().ed25519_bytes()?)),
        };
        let public = public.ok_or_else(|| KeyError::Malformed {
            what: "the key".to_owned(),
            reason: "metadata cannot name it".to_owned(),
        })?;
        Ok(Self { key, public })
    }

    /// The key itself.
    #[must_use]
    pub fn key(&self) -> &dyn SigningKey {
        &*self.key
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
