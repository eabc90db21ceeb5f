// SPDX-License-Identifier: GPL-3.0-or-later
//! Secrets that leave a machine for the vault: recovery keys, and answers that hold passwords, encrypted to the site's
//! certificate. Whoever has `trust/release.asc` can encrypt; only the vault can read.
//!
//! # Attacks faced
//! - A message altered on its way, to make a reader tell what is in it (EFAIL): messages without integrity protection are
//!   refused, and nothing is given back before the whole was verified.
//! - A message that unpacks to more than it should: bounded.
//!
//! # Defence not made
//! Encryption does not say who encrypted: everybody can. What must be authentic is signed, or verified by its use.

use std::io::Write;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use sequoia_openpgp::Cert;
use sequoia_openpgp::KeyHandle;
use sequoia_openpgp::crypto::SessionKey;
use sequoia_openpgp::packet::{PKESK, SKESK};
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::parse::stream::{
    DecryptionHelper, DecryptorBuilder, MessageLayer, MessageStructure, VerificationHelper,
};
use sequoia_openpgp::serialize::stream::{Armorer, Encryptor, LiteralWriter, Message, Recipient};
use sequoia_openpgp::types::{KeyFlags, SymmetricAlgorithm};
use zeroize::Zeroizing;

use super::rules::Rules;
use super::sign::{making, password};
use super::{Fault, OpenPgpError, flat};
use crate::digest::read_to_limit;
use crate::keys::Passphrase;

/// The longest text that is encrypted or decrypted: answers and keys are kilobytes.
pub const MAX_SECRET: u64 = 1 << 20;

/// Encrypts to every certificate of `certs`, armored. The text itself is not signed.
///
/// # Errors
/// When a certificate has no key for encryption that is alive and not revoked.
pub fn encrypt(certs: &[Cert], text: &[u8], at: DateTime<Utc>) -> Result<String, OpenPgpError> {
    let make = |error: anyhow::Error| making("encrypt", &error);
    let policy = Rules::House.policy(at);
    let purpose = KeyFlags::empty().set_storage_encryption().set_transport_encryption();
    let mut recipients: Vec<Recipient<'_>> = Vec::new();
    for cert in certs {
        let valid = cert.with_policy(&policy, SystemTime::from(at)).map_err(make)?;
        let usable = valid.alive().is_ok()
            && !matches!(
                cert.revocation_status(&Rules::Upstream.policy(at), SystemTime::from(at)),
                sequoia_openpgp::types::RevocationStatus::Revoked(_)
            );
        let before = recipients.len();
        if usable {
            let keys = valid.keys().supported().alive().revoked(false).key_flags(&purpose);
            recipients.extend(keys.map(Recipient::from));
        }
        if recipients.len() == before {
            return Err(OpenPgpError::Make {
                operation: "encrypt",
                reason: format!(
                    "{} has no key for encryption, or none that is neither expired nor revoked",
                    cert.fingerprint()
                ),
            });
        }
    }
    let mut armored = Vec::new();
    let sink = Armorer::new(Message::new(&mut armored)).build().map_err(make)?;
    let sink = Encryptor::for_recipients(sink, recipients)
        .symmetric_algo(SymmetricAlgorithm::AES256)
        .build()
        .map_err(make)?;
    let mut literal = LiteralWriter::new(sink).build().map_err(make)?;
    literal.write_all(text).map_err(OpenPgpError::Data)?;
    literal.finalize().map_err(make)?;
    String::from_utf8(armored).map_err(|error| make(error.into()))
}

/// Decrypts a message with an OpenPGP key. The text is wiped from memory when it is dropped.
///
/// # Errors
/// [`OpenPgpError::Refused`] when the message is for another key, altered, or longer than [`MAX_SECRET`];
/// [`OpenPgpError::Passphrase`] when the passphrase does not open the key.
pub fn decrypt(
    key: &[u8],
    passphrase: &Passphrase,
    message: &[u8],
    at: DateTime<Utc>,
) -> Result<Zeroizing<Vec<u8>>, OpenPgpError> {
    let cert = Cert::from_bytes(key).map_err(|error| making("read the OpenPGP key", &error))?;
    let policy = Rules::House.policy(at);
    let mut failed = None;
    let helper = Opener {
        cert: &cert,
        passphrase,
        failed: &mut failed,
    };
    let opened = DecryptorBuilder::from_bytes(message)
        .and_then(|builder| builder.with_policy(&policy, SystemTime::from(at), helper));
    let mut reader = match opened {
        Ok(reader) => reader,
        Err(error) => {
            return Err(
                failed.unwrap_or_else(|| Fault::Malformed(format!("it cannot be decrypted: {}", flat(&error))).into())
            );
        }
    };
    let why = match read_to_limit(&mut reader, MAX_SECRET).map(Zeroizing::new) {
        Ok(text) if reader.message_processed() => return Ok(text),
        Ok(_) => "it does not end".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Fault::Malformed(format!("it cannot be decrypted: {why}")).into())
}

/// Finds the session key; why it did not is kept where the caller can see it.
struct Opener<'a> {
    cert: &'a Cert,
    passphrase: &'a Passphrase,
    failed: &'a mut Option<OpenPgpError>,
}

impl DecryptionHelper for Opener<'_> {
    fn decrypt(
        &mut self,
        pkesks: &[PKESK],
        _skesks: &[SKESK],
        algorithm: Option<SymmetricAlgorithm>,
        decrypt: &mut dyn FnMut(Option<SymmetricAlgorithm>, &SessionKey) -> bool,
    ) -> sequoia_openpgp::Result<Option<Cert>> {
        for pkesk in pkesks {
            // Whatever became of the key since: what was encrypted to it must stay readable.
            for key in self.cert.keys().key_handles(pkesk.recipient().iter()).secret() {
                let key = key.key().clone();
                let open = if key.secret().is_encrypted() {
                    key.decrypt_secret(&password(self.passphrase))
                } else {
                    Ok(key)
                };
                let Ok(open) = open else {
                    *self.failed = Some(OpenPgpError::Passphrase {
                        fingerprint: self.cert.fingerprint().to_hex(),
                    });
                    anyhow::bail!("the passphrase does not open the key");
                };
                let mut pair = open.into_keypair()?;
                if pkesk
                    .decrypt(&mut pair, algorithm)
                    .is_some_and(|(algorithm, session)| decrypt(algorithm, &session))
                {
                    return Ok(Some(self.cert.clone()));
                }
            }
        }
        let recipients: Vec<String> = pkesks
            .iter()
            .map(|pkesk| {
                pkesk
                    .recipient()
                    .map_or("somebody".to_owned(), |key| format!("{key:X}"))
            })
            .collect();
        *self.failed = Some(Fault::AnotherRecipient { recipients }.into());
        anyhow::bail!("no key decrypts it")
    }
}

impl VerificationHelper for Opener<'_> {
    fn get_certs(&mut self, _ids: &[KeyHandle]) -> sequoia_openpgp::Result<Vec<Cert>> {
        Ok(Vec::new())
    }

    fn check(&mut self, structure: MessageStructure) -> sequoia_openpgp::Result<()> {
        // What is only signed is no secret that was kept.
        if !matches!(structure.iter().next(), Some(MessageLayer::Encryption { .. })) {
            anyhow::bail!("it is not encrypted");
        }
        Ok(())
    }
}
