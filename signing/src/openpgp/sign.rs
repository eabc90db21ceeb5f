// SPDX-License-Identifier: GPL-3.0-or-later
//! The site's release key: made here, kept encrypted, used for detached signatures.

use std::io::{Read, Write};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use sequoia_openpgp::cert::{CertBuilder, CipherSuite};
use sequoia_openpgp::crypto::{KeyPair, Password, Signer};
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::serialize::SerializeInto;
use sequoia_openpgp::serialize::stream::{Armorer, Message, Signer as MessageSigner};
use sequoia_openpgp::{Cert, Profile, armor};

use super::OpenPgpError;
use super::rules::Rules;
use crate::digest;
use crate::keys::Passphrase;

const OPERATION: &str = "sign with the OpenPGP key";

/// A new OpenPGP key in its two forms.
pub struct Generated {
    /// The certificate, armored: public.
    pub certificate: String,
    /// The key, armored, every secret part encrypted with the passphrase.
    pub key: String,
    /// Fingerprint of the primary key, upper-case hexadecimal.
    pub fingerprint: String,
}

/// Generates a release key: an Ed25519 primary key that certifies, an Ed25519 subkey that signs and an X25519 subkey to which
/// secrets are encrypted, in the version 4 format that every OpenPGP program reads, without an expiry (the metadata that it
/// signs expires).
///
/// # Errors
/// When the key cannot be generated or encrypted.
pub fn generate(user: &str, passphrase: &Passphrase, at: DateTime<Utc>) -> Result<Generated, OpenPgpError> {
    let make = |error: anyhow::Error| making("generate the OpenPGP key", &error);
    let (cert, _revocation) = CertBuilder::new()
        .add_userid(user)
        .set_profile(Profile::RFC4880)
        .map_err(make)?
        .set_cipher_suite(CipherSuite::Cv25519)
        .set_creation_time(SystemTime::from(at))
        .add_signing_subkey()
        .add_storage_encryption_subkey()
        .set_password(Some(password(passphrase)))
        .generate()
        .map_err(make)?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|error| make(error.into()));
    Ok(Generated {
        certificate: text(cert.armored().to_vec().map_err(make)?)?,
        key: text(cert.as_tsk().armored().to_vec().map_err(make)?)?,
        fingerprint: cert.fingerprint().to_hex(),
    })
}

/// Signs streamed data with the signing key of `key` (an armored or binary OpenPGP key) and returns the armored detached
/// signature, dated `at`.
///
/// # Errors
/// [`OpenPgpError::Passphrase`] when the passphrase does not unlock the key; else when the key holds no usable signing
/// key or the data cannot be read.
pub fn sign_detached(
    key: &[u8],
    passphrase: &Passphrase,
    data: impl Read,
    at: DateTime<Utc>,
) -> Result<String, OpenPgpError> {
    detached(unlocked(key, passphrase, at)?, data, at, OPERATION)
}

/// Signs a text with the signing key of `key` and returns it signed in the clear (RFC 9580, 7), dated `at`: as apt wants its
/// `InRelease`.
///
/// # Errors
/// As [`sign_detached`].
pub fn sign_cleartext(
    key: &[u8],
    passphrase: &Passphrase,
    text: &str,
    at: DateTime<Utc>,
) -> Result<String, OpenPgpError> {
    cleartext(unlocked(key, passphrase, at)?, text, at, OPERATION)
}

/// The signing key of `key`, opened.
fn unlocked(key: &[u8], passphrase: &Passphrase, at: DateTime<Utc>) -> Result<KeyPair, OpenPgpError> {
    let make = |error: anyhow::Error| making(OPERATION, &error);
    let cert = Cert::from_bytes(key).map_err(|error| making("read the OpenPGP key", &error))?;
    let policy = Rules::House.policy(at);
    let signing = cert
        .keys()
        .with_policy(&policy, SystemTime::from(at))
        .supported()
        .alive()
        .revoked(false)
        .for_signing()
        .secret()
        .next()
        .ok_or_else(|| OpenPgpError::Make {
            operation: OPERATION,
            reason: format!("{} holds no usable signing key", cert.fingerprint()),
        })?;
    signing
        .key()
        .clone()
        .decrypt_secret(&password(passphrase))
        .map_err(|_| OpenPgpError::Passphrase {
            fingerprint: cert.fingerprint().to_hex(),
        })?
        .into_keypair()
        .map_err(make)
}

pub(super) fn detached(
    signer: impl Signer + Send + Sync,
    mut data: impl Read,
    at: DateTime<Utc>,
    operation: &'static str,
) -> Result<String, OpenPgpError> {
    let make = |error: anyhow::Error| making(operation, &error);
    let mut armored = Vec::new();
    let sink = Armorer::new(Message::new(&mut armored))
        .kind(armor::Kind::Signature)
        .build()
        .map_err(make)?;
    let mut signer = MessageSigner::new(sink, signer)
        .map_err(make)?
        .creation_time(SystemTime::from(at))
        .detached()
        .build()
        .map_err(make)?;
    digest::copy(&mut data, &mut signer as &mut dyn Write).map_err(OpenPgpError::Data)?;
    signer.finalize().map_err(make)?;
    String::from_utf8(armored).map_err(|error| make(error.into()))
}

pub(super) fn cleartext(
    signer: impl Signer + Send + Sync,
    text: &str,
    at: DateTime<Utc>,
    operation: &'static str,
) -> Result<String, OpenPgpError> {
    let sign = || -> anyhow::Result<String> {
        let mut signed = Vec::new();
        let mut signer = MessageSigner::new(Message::new(&mut signed), signer)?
            .creation_time(SystemTime::from(at))
            .cleartext()
            .build()?;
        signer.write_all(text.as_bytes())?;
        signer.finalize()?;
        Ok(String::from_utf8(signed)?)
    };
    sign().map_err(|error| making(operation, &error))
}

pub(super) fn password(passphrase: &Passphrase) -> Password {
    Password::from(passphrase.expose())
}

pub(super) fn making(operation: &'static str, error: &anyhow::Error) -> OpenPgpError {
    OpenPgpError::Make {
        operation,
        reason: super::flat(error),
    }
}
