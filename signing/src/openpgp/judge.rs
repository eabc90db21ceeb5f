// SPDX-License-Identifier: GPL-3.0-or-later
//! The judgement of each signature: Sequoia's, and above it what the house asks for and why something is refused.

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use sequoia_openpgp::cert::amalgamation::key::{ErasedKeyAmalgamation, PrimaryKey};
use sequoia_openpgp::cert::amalgamation::{ValidAmalgamation, ValidateAmalgamation};
use sequoia_openpgp::packet::key::{KeyRole, PublicParts};
use sequoia_openpgp::packet::{Key, Signature};
use sequoia_openpgp::parse::stream::{
    GoodChecksum, MessageLayer, MessageStructure, VerificationError, VerificationHelper, VerificationResult,
};
use sequoia_openpgp::types::{PublicKeyAlgorithm, RevocationStatus, SignatureType};
use sequoia_openpgp::{Cert, KeyHandle};

use super::rules::{RSA_BITS, Rules, WEAK_HASHES};
use super::{Fault, Signer, flat};

/// What is found of one signature.
pub(super) type Verdict = Result<Signer, Fault>;

/// Gives Sequoia the certificates, and keeps what it found. It never ends the reading: the caller weighs the verdicts.
pub(super) struct Judge<'a> {
    certs: &'a [Cert],
    rules: Rules,
    at: DateTime<Utc>,
    due: SignatureType,
    /// One for each signature.
    pub(super) verdicts: Vec<Verdict>,
}

impl<'a> Judge<'a> {
    /// `due` is the type that covers the data: text or binary.
    pub(super) fn new(certs: &'a [Cert], rules: Rules, at: DateTime<Utc>, due: SignatureType) -> Self {
        Self {
            certs,
            rules,
            at,
            due,
            verdicts: Vec::new(),
        }
    }

    fn judge(&self, result: VerificationResult<'_>) -> Verdict {
        match result {
            Ok(GoodChecksum { sig, ka, .. }) => {
                // A text signature does not see how lines end, so it must not vouch for binary data.
                if sig.typ() != self.due {
                    return Err(Fault::WrongType {
                        found: sig.typ().to_string(),
                        due: self.due.to_string(),
                    });
                }
                if self.rules == Rules::House
                    && let Some(fault) = self.examine(sig, ka.amalgamation())
                {
                    return Err(fault);
                }
                let made = made(sig).ok_or_else(|| Fault::Malformed("a signature without a date".to_owned()))?;
                Ok(Signer {
                    fingerprint: ka.cert().fingerprint().to_hex(),
                    key: ka.key().fingerprint().to_hex(),
                    signed_at: made,
                })
            }
            Err(VerificationError::MissingKey { sig }) => Err(Fault::Stranger {
                issuer: sig
                    .get_issuers()
                    .first()
                    .map_or("its key".to_owned(), |issuer| format!("{issuer:X}")),
            }),
            Err(VerificationError::BadSignature { sig, ka, error }) => Err(self
                .examine(sig, ka.amalgamation())
                .unwrap_or_else(|| Fault::DoesNotHold {
                    certificate: ka.cert().fingerprint().to_hex(),
                    reason: flat(&error),
                })),
            Err(VerificationError::BadKey { sig, ka, error }) => Err(self
                .examine(sig, ka.amalgamation())
                .unwrap_or_else(|| unbound(ka.cert(), &error))),
            Err(VerificationError::UnboundKey { sig, cert, error }) => {
                let key = cert.keys().key_handles(sig.get_issuers()).next();
                let fault = key.and_then(|key| self.examine(sig, &key));
                Err(fault.unwrap_or_else(|| unbound(cert, &error)))
            }
            Err(other) => Err(Fault::Malformed(other.to_string().replace('\n', " "))),
        }
    }

    /// What is wrong with a signature and the key that it names, the plainest reason first.
    fn examine(&self, sig: &Signature, key: &ErasedKeyAmalgamation<'_, PublicParts>) -> Option<Fault> {
        let cert = key.cert();
        let certificate = || cert.fingerprint().to_hex();
        let weak = |sig: &Signature| WEAK_HASHES.contains(&sig.hash_algo());
        let weak_hash = |what, sig: &Signature| {
            weak(sig).then(|| Fault::WeakHash {
                what,
                certificate: certificate(),
                hash: sig.hash_algo().to_string(),
            })
        };
        let made = made(sig)?;
        let time = SystemTime::from(self.at);
        if let Some(fault) = weak_hash("the signature", sig) {
            return Some(fault);
        }
        if made > self.at {
            return Some(Fault::FromTheFuture {
                certificate: certificate(),
                made,
                now: self.at,
            });
        }
        if let Some(expired) = sig.signature_expiration_time().filter(|expired| *expired <= time) {
            return Some(Fault::ExpiredSignature {
                certificate: certificate(),
                expired: expired.into(),
            });
        }
        if let Some(fault) = weak_key(cert.primary_key().key()).or_else(|| weak_key(key.key())) {
            return Some(fault);
        }
        if let Some(fault) = binding(key, &weak_hash) {
            return Some(fault);
        }
        self.alive(key, made)
    }

    /// Whether the certificate and the key are alive now, whatever they were when the signature says that it was made.
    fn alive(&self, key: &ErasedKeyAmalgamation<'_, PublicParts>, made: DateTime<Utc>) -> Option<Fault> {
        let (cert, time) = (key.cert(), SystemTime::from(self.at));
        // Revocations count by the looser rules: an old one must not be passed over for its hash.
        let loose = Rules::Upstream.policy(self.at);
        let fingerprints = (cert.fingerprint().to_hex(), key.key().fingerprint().to_hex());
        let of_key = key.clone().with_policy(&loose, time).ok();
        for (name, status) in [
            (&fingerprints.0, Some(cert.revocation_status(&loose, time))),
            (
                &fingerprints.1,
                of_key.as_ref().map(ValidAmalgamation::revocation_status),
            ),
        ] {
            if let Some(RevocationStatus::Revoked(revocations)) = status {
                let reason = revocations
                    .iter()
                    .find_map(|revocation| revocation.reason_for_revocation());
                return Some(Fault::Revoked {
                    key: name.clone(),
                    reason: reason.map_or("no reason is given".to_owned(), |(code, _)| code.to_string()),
                });
            }
        }
        if DateTime::<Utc>::from(key.key().creation_time()) > made {
            return Some(Fault::YoungKey { key: fingerprints.1 });
        }
        let policy = self.rules.policy(self.at);
        let valid = match key.clone().with_policy(&policy, time) {
            Ok(valid) => valid,
            Err(error) => return Some(unbound(cert, &error)),
        };
        let primary = valid.valid_cert().primary_key().key_expiration_time();
        for (name, expired) in [
            (fingerprints.0, primary),
            (fingerprints.1.clone(), valid.key_expiration_time()),
        ] {
            if let Some(expired) = expired.filter(|expired| *expired <= time) {
                return Some(Fault::ExpiredKey {
                    key: name,
                    expired: expired.into(),
                });
            }
        }
        (!valid.for_signing()).then_some(Fault::NotForSigning { key: fingerprints.1 })
    }
}

/// How the key belongs to its certificate.
fn binding(
    key: &ErasedKeyAmalgamation<'_, PublicParts>,
    weak_hash: &dyn Fn(&'static str, &Signature) -> Option<Fault>,
) -> Option<Fault> {
    let cert = key.cert();
    // Of several signatures the strong ones count: a fault is only where there is none.
    let all_weak = |what, signatures: Vec<&Signature>| -> Option<Fault> {
        let faults: Vec<_> = signatures.iter().map(|sig| weak_hash(what, sig)).collect();
        faults.into_iter().collect::<Option<Vec<_>>>()?.pop()
    };
    let own: Vec<_> = cert
        .primary_key()
        .self_signatures()
        .chain(cert.userids().flat_map(|user| user.self_signatures()))
        .collect();
    if let Some(fault) = all_weak("the self-signature", own) {
        return Some(fault);
    }
    if key.primary() {
        return None;
    }
    let bindings: Vec<_> = key.self_signatures().collect();
    if bindings.is_empty() && lacks_back_signature(key) {
        return Some(Fault::NoBackSignature {
            certificate: cert.fingerprint().to_hex(),
            key: key.key().fingerprint().to_hex(),
        });
    }
    let back = bindings.iter().flat_map(|sig| sig.embedded_signatures()).collect();
    all_weak("the binding of the signing subkey", bindings)
        .or_else(|| all_weak("the back signature of the subkey", back))
}

/// Whether the certificate claims this subkey for signing, by a signature that Sequoia holds for bad since the subkey does not
/// confirm it.
fn lacks_back_signature(key: &ErasedKeyAmalgamation<'_, PublicParts>) -> bool {
    let cert = key.cert();
    let primary = cert.primary_key().key();
    let subkey = key.key().role_as_subordinate();
    let claims = |sig: &&Signature| {
        let digest = || {
            let mut hash = sig.hash_algo().context()?.for_signature(sig.version());
            sig.hash_subkey_binding(&mut hash, primary, subkey)?;
            hash.into_digest()
        };
        sig.typ() == SignatureType::SubkeyBinding
            && sig.key_flags().is_some_and(|flags| flags.for_signing())
            && digest().is_ok_and(|digest| digest.starts_with(sig.digest_prefix()))
    };
    let confirmed = |sig: &Signature| {
        let mut back = sig.embedded_signatures();
        back.any(|back| back.verify_primary_key_binding(primary, subkey).is_ok())
    };
    cert.bad_signatures().filter(claims).any(|sig| !confirmed(sig))
}

fn weak_key<R: KeyRole>(key: &Key<PublicParts, R>) -> Option<Fault> {
    #[allow(deprecated)]
    let weak = match key.pk_algo() {
        PublicKeyAlgorithm::RSAEncryptSign | PublicKeyAlgorithm::RSASign | PublicKeyAlgorithm::RSAEncrypt => {
            key.mpis().bits().is_none_or(|bits| bits < RSA_BITS)
        }
        PublicKeyAlgorithm::DSA | PublicKeyAlgorithm::ElGamalEncrypt | PublicKeyAlgorithm::ElGamalEncryptSign => true,
        _ => false,
    };
    weak.then(|| Fault::WeakKey {
        key: key.fingerprint().to_hex(),
        algorithm: key.pk_algo().to_string(),
        bits: key.mpis().bits().unwrap_or(0),
    })
}

/// Whether a certificate has a key whose signatures the house's rules would count, as of the time `at`.
#[must_use]
pub fn may_sign(cert: &Cert, at: DateTime<Utc>) -> bool {
    let policy = Rules::House.policy(at);
    let keys = cert.keys().with_policy(&policy, SystemTime::from(at)).supported();
    let mut keys = keys.alive().revoked(false).for_signing();
    weak_key(cert.primary_key().key()).is_none() && keys.any(|key| weak_key(key.key()).is_none())
}

fn made(sig: &Signature) -> Option<DateTime<Utc>> {
    sig.signature_creation_time().map(Into::into)
}

fn unbound(cert: &Cert, error: &anyhow::Error) -> Fault {
    Fault::Unbound {
        certificate: cert.fingerprint().to_hex(),
        reason: flat(error),
    }
}

impl VerificationHelper for Judge<'_> {
    fn get_certs(&mut self, _ids: &[KeyHandle]) -> sequoia_openpgp::Result<Vec<Cert>> {
        Ok(self.certs.to_vec())
    }

    fn check(&mut self, structure: MessageStructure) -> sequoia_openpgp::Result<()> {
        if structure.processed_csf_message() != (self.due == SignatureType::Text) {
            anyhow::bail!("another kind of OpenPGP message than expected");
        }
        let mut layers = structure.into_iter();
        let (Some(MessageLayer::SignatureGroup { results }), None) = (layers.next(), layers.next()) else {
            anyhow::bail!("the message is not simply signed");
        };
        self.verdicts = results.into_iter().map(|result| self.judge(result)).collect();
        Ok(())
    }
}

/// The signers, where the house's rules hold: no signature of a known key is wrong, and no certificate signs twice.
/// Signatures of strangers beside good ones are passed over.
pub(super) fn all_hold(verdicts: Vec<Verdict>) -> Result<Vec<Signer>, Fault> {
    let mut signers: Vec<Signer> = Vec::new();
    let mut stranger = None;
    for verdict in verdicts {
        match verdict {
            Ok(signer) if signers.iter().any(|other| other.fingerprint == signer.fingerprint) => {
                return Err(Fault::Duplicate {
                    who: signer.fingerprint,
                });
            }
            Ok(signer) => signers.push(signer),
            Err(fault @ Fault::Stranger { .. }) => stranger = Some(fault),
            Err(fault) => return Err(fault),
        }
    }
    some(signers, stranger)
}

/// The signers, where upstream's rules hold: at least one known key made a signature that holds, and none one that does not
/// fit the data. An archive signs with keys of several ages, of which some may have ended.
pub(super) fn any_holds(verdicts: Vec<Verdict>) -> Result<Vec<Signer>, Fault> {
    let mut signers = Vec::new();
    let mut passed_over = None;
    for verdict in verdicts {
        match verdict {
            Ok(signer) => signers.push(signer),
            Err(
                fault @ (Fault::DoesNotHold { .. }
                | Fault::WrongType { .. }
                | Fault::FromTheFuture { .. }
                | Fault::ExpiredSignature { .. }),
            ) => return Err(fault),
            Err(fault) => {
                passed_over = Some(
                    passed_over
                        .filter(|old| !matches!(old, Fault::Stranger { .. }))
                        .unwrap_or(fault),
                )
            }
        }
    }
    some(signers, passed_over)
}

fn some(signers: Vec<Signer>, passed_over: Option<Fault>) -> Result<Vec<Signer>, Fault> {
    if signers.is_empty() {
        return Err(passed_over.unwrap_or(Fault::NoSignature));
    }
    Ok(signers)
}
