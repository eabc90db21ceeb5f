// SPDX-License-Identifier: GPL-3.0-or-later
//! OpenPGP (RFC 9580) at the edges of the house: upstream's `InRelease`, and our own detached signatures.
//!
//! # Attacks faced
//! - Text outside the signed part of a cleartext message, taken for signed: the message must begin with its header and
//!   nothing but white space may follow the signature; callers get the text that the signature covers, never the file.
//! - Another kind of message (compressed, encrypted, nested) where a cleartext one is expected: exactly one layer, of
//!   signatures, through the cleartext framework.
//! - Signatures of strangers beside a good one: ignored, as an archive signs with keys that a keyring need not hold. A
//!   signature of a *known* key that does not fit the data refuses the whole.
//! - A text signature, which covers no line endings, passed off as one over binary data: the type must fit the use.
//! - Weak algorithms, revoked, expired and unbound keys: Sequoia's `StandardPolicy`, at the time that the caller gives.
//! - Endless input: keyrings, messages and signatures are bounded; detached data is streamed.
//!
//! # Defence not made
//! Which of a keyring's certificates may speak for what is the caller's decision: the fingerprints are returned for it.
//! An old message with a good signature is still good here; freshness is judged by what the message says.

mod keyring;
mod sign;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
pub use sequoia_openpgp::Cert;
use sequoia_openpgp::KeyHandle;
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::parse::stream::{
    DetachedVerifierBuilder, GoodChecksum, MessageLayer, MessageStructure, VerificationError, VerificationHelper,
    VerifierBuilder,
};
use sequoia_openpgp::policy::StandardPolicy;
use sequoia_openpgp::types::SignatureType;
use serde::Serialize;

pub use keyring::{parse_keyring, read_keyring};
pub use sign::{Generated, generate, sign_detached};

use crate::digest::BLOCK;
use crate::output::Refused;

/// The longest keyring that is read.
pub const MAX_KEYRING: u64 = 8 << 20;
/// The longest cleartext-signed message; Debian's `InRelease` is about 200 KB.
pub const MAX_CLEARTEXT: usize = 32 << 20;
/// The longest detached signature.
pub const MAX_SIGNATURE: usize = 1 << 20;

/// Why an OpenPGP operation did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenPgpError {
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A keyring holds no usable certificate or is not OpenPGP at all.
    #[error("{path} is not an OpenPGP keyring that can be used: {reason}")]
    Keyring {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The data could not be read to its end, so that nothing is known about the signature.
    #[error("cannot read the signed data")]
    Data(#[source] std::io::Error),
    /// The signature does not hold, or holds by nobody that the keyring knows.
    #[error("OpenPGP signature")]
    Refused(#[source] Refused),
    /// A secret key could not be unlocked with the passphrase.
    #[error("cannot unlock the OpenPGP key {fingerprint}: wrong passphrase?")]
    Passphrase {
        /// The key.
        fingerprint: String,
    },
    /// A signature or key could not be made.
    #[error("cannot {operation}: {reason}")]
    Make {
        /// What was being done.
        operation: &'static str,
        /// Why it failed.
        reason: String,
    },
}

/// One verified signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signer {
    /// Fingerprint of the certificate (its primary key), upper-case hexadecimal.
    pub fingerprint: String,
    /// Fingerprint of the key that signed: the primary key or a signing subkey.
    pub key: String,
    /// When it was made, as the signature says.
    pub signed_at: DateTime<Utc>,
}

/// A verified cleartext-signed message.
#[derive(Debug, Clone)]
pub struct CleartextVerified {
    /// The text that the signatures cover, dash escapes removed.
    pub body: Vec<u8>,
    /// Fingerprints of the certificates that signed, upper-case hexadecimal, sorted.
    pub signers: Vec<String>,
    /// The newest of the verified signatures' dates.
    pub signed_at: DateTime<Utc>,
}

/// Verifies a cleartext-signed message (`InRelease`) against a keyring file, as of the time `at`.
///
/// # Errors
/// [`OpenPgpError::Refused`] unless at least one key of the keyring made a signature that holds and no known key one that
/// does not; other variants when the keyring cannot be used.
pub fn verify_cleartext(keyring: &Path, message: &[u8], at: DateTime<Utc>) -> Result<CleartextVerified, OpenPgpError> {
    let certs = read_keyring(keyring)?;
    check_frame(message)?;
    let policy = policy(at);
    let helper = Helper::new(certs, true);
    let refuse = |error: anyhow::Error| refused(format!("the message is refused: {}", flat(&error)));
    let mut verifier = VerifierBuilder::from_bytes(message)
        .and_then(|builder| builder.with_policy(&policy, SystemTime::from(at), helper))
        .map_err(refuse)?;
    let mut body = Vec::new();
    verifier
        .read_to_end(&mut body)
        .map_err(|error| refused(format!("the message is refused: {error}")))?;
    if !verifier.message_processed() {
        return Err(refused("the message does not end".to_owned()));
    }
    let found = verifier.into_helper().found;
    let Some(signed_at) = found.iter().map(|signer| signer.signed_at).max() else {
        return Err(refused("no signature of a known key".to_owned()));
    };
    let mut signers: Vec<_> = found.into_iter().map(|signer| signer.fingerprint).collect();
    signers.sort_unstable();
    signers.dedup();
    Ok(CleartextVerified {
        body,
        signers,
        signed_at,
    })
}

/// Verifies a detached signature (armored or binary) over streamed data, as of the time `at`.
///
/// # Errors
/// As [`verify_cleartext`], and [`OpenPgpError::Data`] when the data cannot be read.
pub fn verify_detached(
    keyring: &Path,
    data: impl Read + Send + Sync,
    signature: &[u8],
    at: DateTime<Utc>,
) -> Result<Vec<Signer>, OpenPgpError> {
    verify_detached_by(read_keyring(keyring)?, data, signature, at)
}

/// As [`verify_detached`], by certificates that are already in memory.
///
/// # Errors
/// As [`verify_detached`].
pub fn verify_detached_by(
    certs: Vec<Cert>,
    data: impl Read + Send + Sync,
    signature: &[u8],
    at: DateTime<Utc>,
) -> Result<Vec<Signer>, OpenPgpError> {
    if signature.len() > MAX_SIGNATURE {
        return Err(refused(format!("the signature is longer than {MAX_SIGNATURE} bytes")));
    }
    let policy = policy(at);
    let mut verifier = DetachedVerifierBuilder::from_bytes(signature)
        .and_then(|builder| builder.with_policy(&policy, SystemTime::from(at), Helper::new(certs, false)))
        .map_err(|error| refused(format!("not a detached signature: {}", flat(&error))))?;
    // A read error must not be mistaken for a bad signature: it is kept where this function can see it.
    let mut failed = None;
    let watched = Watched {
        inner: std::io::BufReader::with_capacity(BLOCK, data),
        failed: &mut failed,
    };
    let result = verifier.verify_reader(watched);
    if let Some(error) = failed {
        return Err(OpenPgpError::Data(error));
    }
    result.map_err(|error| refused(flat(&error)))?;
    let found = verifier.into_helper().found;
    if found.is_empty() {
        return Err(refused("no signature of a known key".to_owned()));
    }
    Ok(found)
}

fn policy(at: DateTime<Utc>) -> StandardPolicy<'static> {
    StandardPolicy::at(SystemTime::from(at))
}

fn refused(reason: String) -> OpenPgpError {
    OpenPgpError::Refused(Refused(reason))
}

/// The error chain on one line; Sequoia's own display shows only its head.
fn flat(error: &anyhow::Error) -> String {
    format!("{error:#}").replace('\n', " ")
}

/// The message starts with the cleartext header and ends with its signature: nothing unsigned around it.
fn check_frame(message: &[u8]) -> Result<(), OpenPgpError> {
    const BEGIN: &[u8] = b"-----BEGIN PGP SIGNED MESSAGE-----";
    const SIGNATURE: &[u8] = b"\n-----BEGIN PGP SIGNATURE-----";
    const END: &[u8] = b"-----END PGP SIGNATURE-----";
    if message.len() > MAX_CLEARTEXT {
        return Err(refused(format!("the message is longer than {MAX_CLEARTEXT} bytes")));
    }
    if !message.starts_with(BEGIN) {
        return Err(refused(
            "not a cleartext-signed message: its first line is not the OpenPGP header".to_owned(),
        ));
    }
    if !message.trim_ascii_end().ends_with(END) {
        return Err(refused(
            "the message is cut off or followed by text that no signature covers".to_owned(),
        ));
    }
    // Dash escapes make a second header line inside the text impossible in an honest message.
    let count = |needle: &[u8]| message.windows(needle.len()).filter(|window| *window == needle).count();
    if count(SIGNATURE) != 1 || count(&[b"\n", BEGIN].concat()) != 0 {
        return Err(refused("the file holds more than one message".to_owned()));
    }
    Ok(())
}

struct Watched<'a, R> {
    inner: R,
    failed: &'a mut Option<std::io::Error>,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            let told = std::io::Error::new(error.kind(), error.to_string());
            *self.failed = Some(error);
            told
        })
    }
}

/// Gives Sequoia the certificates, and judges what it found.
struct Helper {
    certs: Vec<Cert>,
    cleartext: bool,
    found: Vec<Signer>,
}

impl Helper {
    fn new(certs: Vec<Cert>, cleartext: bool) -> Self {
        Self {
            certs,
            cleartext,
            found: Vec::new(),
        }
    }
}

impl VerificationHelper for Helper {
    fn get_certs(&mut self, _ids: &[KeyHandle]) -> sequoia_openpgp::Result<Vec<Cert>> {
        Ok(self.certs.clone())
    }

    fn check(&mut self, structure: MessageStructure) -> sequoia_openpgp::Result<()> {
        if structure.processed_csf_message() != self.cleartext {
            anyhow::bail!("another kind of OpenPGP message than expected");
        }
        let mut layers = structure.into_iter();
        let (Some(MessageLayer::SignatureGroup { results }), None) = (layers.next(), layers.next()) else {
            anyhow::bail!("the message is not simply signed");
        };
        let mut passed_over = Vec::new();
        for result in results {
            match result {
                Ok(GoodChecksum { sig, ka, .. }) => {
                    // A text signature does not see how lines end, so it must not vouch for binary data.
                    let due = if self.cleartext {
                        SignatureType::Text
                    } else {
                        SignatureType::Binary
                    };
                    if sig.typ() != due {
                        anyhow::bail!("a signature of type {} where {due} is due", sig.typ());
                    }
                    let made = sig
                        .signature_creation_time()
                        .ok_or_else(|| anyhow::anyhow!("a signature without a date"))?;
                    self.found.push(Signer {
                        fingerprint: ka.cert().fingerprint().to_hex(),
                        key: ka.key().fingerprint().to_hex(),
                        signed_at: made.into(),
                    });
                }
                Err(VerificationError::BadSignature { ka, error, .. }) => {
                    anyhow::bail!(
                        "the signature of {} does not hold: {}",
                        ka.cert().fingerprint(),
                        flat(&error)
                    )
                }
                Err(other) => passed_over.push(other.to_string().replace('\n', " ")),
            }
        }
        if self.found.is_empty() {
            anyhow::bail!(
                "no signature of a known key holds ({})",
                if passed_over.is_empty() {
                    "there is none".to_owned()
                } else {
                    passed_over.join("; ")
                }
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
