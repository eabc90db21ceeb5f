// SPDX-License-Identifier: GPL-3.0-or-later
//! OpenPGP (RFC 9580) at the edges of the house: upstream's `InRelease`, and our own detached signatures.
//!
//! # Attacks faced
//! - Text outside the signed part of a cleartext message, taken for signed: the message must begin with its header and
//!   nothing but white space may follow the signature; callers get the text that the signature covers, never the file.
//! - Another kind of message (compressed, encrypted, nested) where a cleartext one is expected: exactly one layer, of
//!   signatures, through the cleartext framework.
//! - Signatures of strangers beside a good one: ignored, as an archive signs with keys that a keyring need not hold. A
//!   signature of a *known* key that does not hold refuses the whole.
//! - A text signature, which covers no line endings, passed off as one over binary data: the type must fit the use.
//! - Weak algorithms, revoked, expired and unbound keys, signatures from the future and given twice: refused, each with its
//!   own [`Fault`], by rules of the house for our own keys and by looser ones for upstream's; see `rules`.
//! - One person who signs as several: [`count_signers`] counts people.
//! - Endless input: keyrings, messages and signatures are bounded; detached data is streamed.
//!
//! # Defence not made
//! Which of a keyring's certificates may speak for what is the caller's decision: the fingerprints are returned for it.
//! An old message with a good signature is still good here; freshness is judged by what the message says.

mod encrypt;
mod fault;
mod held;
mod join;
mod judge;
mod key;
mod keyring;
mod rules;
mod sign;
mod threshold;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
pub use sequoia_openpgp::Cert;
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::parse::stream::{DetachedVerifierBuilder, VerifierBuilder};
use sequoia_openpgp::types::SignatureType;
use serde::Serialize;

pub use encrypt::{MAX_SECRET, decrypt, encrypt};
pub use fault::Fault;
pub use held::{certify, sign_cleartext_with, sign_detached_with};
pub use join::join;
pub use judge::may_sign;
pub use key::OpenPgpKey;
pub use keyring::{armored, parse_keyring, read_keyring};
pub use sign::{Generated, generate, sign_cleartext, sign_detached};
pub use threshold::{Counted, count_signers, verify_threshold};

use crate::digest::BLOCK;
use judge::{Judge, Verdict};
use rules::Rules;

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
    #[error("OpenPGP")]
    Refused(#[from] Fault),
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

/// Verifies a cleartext-signed message (`InRelease`) against a keyring file, as of the time `at`, by upstream's rules.
///
/// # Errors
/// [`OpenPgpError::Refused`] unless at least one key of the keyring made a signature that holds and no known key one that
/// does not fit the text; other variants when the keyring cannot be used.
pub fn verify_cleartext(keyring: &Path, message: &[u8], at: DateTime<Utc>) -> Result<CleartextVerified, OpenPgpError> {
    let certs = read_keyring(keyring)?;
    check_frame(message)?;
    let policy = Rules::Upstream.policy(at);
    let judge = Judge::new(&certs, Rules::Upstream, at, SignatureType::Text);
    let refuse = |error: anyhow::Error| malformed(format!("the message is refused: {}", flat(&error)));
    let mut verifier = VerifierBuilder::from_bytes(message)
        .and_then(|builder| builder.with_policy(&policy, SystemTime::from(at), judge))
        .map_err(refuse)?;
    let mut body = Vec::new();
    verifier
        .read_to_end(&mut body)
        .map_err(|error| malformed(format!("the message is refused: {error}")))?;
    if !verifier.message_processed() {
        return Err(malformed("the message does not end"));
    }
    let found = judge::any_holds(verifier.into_helper().verdicts)?;
    let signed_at = found
        .iter()
        .map(|signer| signer.signed_at)
        .max()
        .ok_or(Fault::NoSignature)?;
    let mut signers: Vec<_> = found.into_iter().map(|signer| signer.fingerprint).collect();
    signers.sort_unstable();
    signers.dedup();
    Ok(CleartextVerified {
        body,
        signers,
        signed_at,
    })
}

/// Verifies a detached signature (armored or binary) over streamed data, as of the time `at`, by the house's rules.
///
/// # Errors
/// [`OpenPgpError::Refused`] unless at least one key of the keyring made a signature that holds, and none one that does not,
/// and [`OpenPgpError::Data`] when the data cannot be read.
pub fn verify_detached(
    keyring: &Path,
    data: impl Read + Send + Sync,
    signature: &[u8],
    at: DateTime<Utc>,
) -> Result<Vec<Signer>, OpenPgpError> {
    verify_detached_by(&read_keyring(keyring)?, data, signature, at)
}

/// As [`verify_detached`], by certificates that are already in memory.
///
/// # Errors
/// As [`verify_detached`].
pub fn verify_detached_by(
    certs: &[Cert],
    data: impl Read + Send + Sync,
    signature: &[u8],
    at: DateTime<Utc>,
) -> Result<Vec<Signer>, OpenPgpError> {
    Ok(judge::all_hold(verdicts(certs, data, signature, at)?)?)
}

/// What is found of each signature of a detached one.
fn verdicts(
    certs: &[Cert],
    data: impl Read + Send + Sync,
    signature: &[u8],
    at: DateTime<Utc>,
) -> Result<Vec<Verdict>, OpenPgpError> {
    if signature.len() > MAX_SIGNATURE {
        return Err(malformed(format!("the signature is longer than {MAX_SIGNATURE} bytes")));
    }
    let policy = Rules::House.policy(at);
    let judge = Judge::new(certs, Rules::House, at, SignatureType::Binary);
    let mut verifier = DetachedVerifierBuilder::from_bytes(signature)
        .and_then(|builder| builder.with_policy(&policy, SystemTime::from(at), judge))
        .map_err(|error| malformed(format!("not a detached signature: {}", flat(&error))))?;
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
    result.map_err(|error| malformed(flat(&error)))?;
    Ok(verifier.into_helper().verdicts)
}

fn malformed(reason: impl Into<String>) -> OpenPgpError {
    Fault::Malformed(reason.into()).into()
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
        return Err(malformed(format!("the message is longer than {MAX_CLEARTEXT} bytes")));
    }
    if !message.starts_with(BEGIN) {
        return Err(malformed(
            "not a cleartext-signed message: its first line is not the OpenPGP header".to_owned(),
        ));
    }
    if !message.trim_ascii_end().ends_with(END) {
        return Err(malformed(
            "the message is cut off or followed by text that no signature covers".to_owned(),
        ));
    }
    // Dash escapes make a second header line inside the text impossible in an honest message.
    let count = |needle: &[u8]| message.windows(needle.len()).filter(|window| *window == needle).count();
    if count(SIGNATURE) != 1 || count(&[b"\n", BEGIN].concat()) != 0 {
        return Err(malformed("the file holds more than one message".to_owned()));
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

#[cfg(test)]
mod tests;
