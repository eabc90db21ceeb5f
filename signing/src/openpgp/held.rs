// SPDX-License-Identifier: GPL-3.0-or-later
//! An OpenPGP key whose secret part is held elsewhere, as in a token: ECDSA on P-256 with SHA-256 (RFC 4880 and RFC 6637).
//!
//! The token holds a number and nothing of OpenPGP; what makes it an OpenPGP key is the certificate, which is public. So the
//! two are given together, and must be of one key.

use std::io::Read;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use sequoia_openpgp::crypto::{Signer, mpi};
use sequoia_openpgp::packet::key::{Key4, PrimaryRole, PublicParts, UnspecifiedRole};
use sequoia_openpgp::packet::signature::SignatureBuilder;
use sequoia_openpgp::packet::{Key, UserID};
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::serialize::SerializeInto;
use sequoia_openpgp::types::{Curve, Features, HashAlgorithm, KeyFlags, PublicKeyAlgorithm, SignatureType};
use sequoia_openpgp::{Cert, Packet};

use super::OpenPgpError;
use super::rules::Rules;
use super::sign::{cleartext, detached, making};
use crate::digest::Sha256;
use crate::keys::SigningKey;

const OPERATION: &str = "sign with the OpenPGP key in the token";

/// The key with the packet that names it.
struct Held<'a> {
    key: &'a dyn SigningKey,
    public: Key<PublicParts, UnspecifiedRole>,
}

impl Signer for Held<'_> {
    fn public(&self) -> &Key<PublicParts, UnspecifiedRole> {
        &self.public
    }

    fn acceptable_hashes(&self) -> &[HashAlgorithm] {
        &[HashAlgorithm::SHA256]
    }

    fn sign(&mut self, hash: HashAlgorithm, digest: &[u8]) -> anyhow::Result<mpi::Signature> {
        anyhow::ensure!(hash == HashAlgorithm::SHA256, "the token signs SHA-256, not {hash}");
        let raw = self.key.sign_digest(Sha256(digest.try_into()?))?;
        let (r, s) = raw.split_at(raw.len() / 2);
        let (r, s) = (mpi::MPI::new(r), mpi::MPI::new(s));
        Ok(mpi::Signature::ECDSA { r, s })
    }
}

/// Makes the armored certificate of a key on P-256: one primary key that certifies and signs, dated `at`.
///
/// # Errors
/// When it is another kind of key, or the token does not sign.
pub fn certify(user: &str, key: &dyn SigningKey, at: DateTime<Utc>) -> Result<String, OpenPgpError> {
    let made = || -> anyhow::Result<String> {
        let at = SystemTime::from(at);
        let primary: Key<PublicParts, PrimaryRole> = Key4::new(at, PublicKeyAlgorithm::ECDSA, point(key)?)?.into();
        let mut signer = Held {
            key,
            public: primary.clone().role_into_unspecified(),
        };
        let bare = Cert::try_from(Packet::from(primary))?;
        let template = |kind| -> anyhow::Result<SignatureBuilder> {
            SignatureBuilder::new(kind)
                .set_signature_creation_time(at)?
                .set_hash_algo(HashAlgorithm::SHA256)
                .set_key_flags(KeyFlags::empty().set_certification().set_signing())?
                .set_features(Features::empty().set_seipdv1())?
                .set_preferred_hash_algorithms(vec![HashAlgorithm::SHA512, HashAlgorithm::SHA256])
        };
        let direct = template(SignatureType::DirectKey)?.sign_direct_key(&mut signer, bare.primary_key().key())?;
        let user = UserID::from(user);
        let binding = user.bind(&mut signer, &bare, template(SignatureType::PositiveCertification)?)?;
        let packets = [Packet::from(direct), Packet::from(user), Packet::from(binding)];
        let (cert, _) = bare.insert_packets(packets)?;
        Ok(String::from_utf8(cert.armored().to_vec()?)?)
    };
    made().map_err(|error| making("make the OpenPGP certificate", &error))
}

/// As [`super::sign_detached`], with a key that is held elsewhere and the certificate of it.
///
/// # Errors
/// When the certificate has no usable signing key that is this one, or the token does not sign.
pub fn sign_detached_with(
    certificate: &[u8],
    key: &dyn SigningKey,
    data: impl Read,
    at: DateTime<Utc>,
) -> Result<String, OpenPgpError> {
    detached(held(certificate, key, at)?, data, at, OPERATION)
}

/// As [`super::sign_cleartext`], with a key that is held elsewhere and the certificate of it.
///
/// # Errors
/// As [`sign_detached_with`].
pub fn sign_cleartext_with(
    certificate: &[u8],
    key: &dyn SigningKey,
    text: &str,
    at: DateTime<Utc>,
) -> Result<String, OpenPgpError> {
    cleartext(held(certificate, key, at)?, text, at, OPERATION)
}

/// The signer that is the key of this certificate.
fn held<'a>(certificate: &[u8], key: &'a dyn SigningKey, at: DateTime<Utc>) -> Result<Held<'a>, OpenPgpError> {
    let make = |error: anyhow::Error| making(OPERATION, &error);
    let cert = Cert::from_bytes(certificate).map_err(|error| making("read the OpenPGP certificate", &error))?;
    let own = point(key).map_err(make)?;
    let policy = Rules::House.policy(at);
    let mut usable = cert
        .keys()
        .with_policy(&policy, SystemTime::from(at))
        .supported()
        .alive()
        .revoked(false)
        .for_signing();
    let public = usable
        .find(|usable| *usable.key().mpis() == own)
        .ok_or_else(|| OpenPgpError::Make {
            operation: OPERATION,
            reason: format!("{} has no usable signing key that is the token's", cert.fingerprint()),
        })?;
    let public = public.key().clone().role_into_unspecified();
    Ok(Held { key, public })
}

/// Which of these certificates is the key's, whether it may sign or not.
pub(super) fn certificate_of<'a>(certs: &'a [Cert], key: &dyn SigningKey) -> Option<&'a Cert> {
    let own = point(key).ok()?;
    certs
        .iter()
        .find(|cert| cert.keys().any(|part| *part.key().mpis() == own))
}

fn point(key: &dyn SigningKey) -> anyhow::Result<mpi::PublicKey> {
    let (x, y) = key.public().p256_point()?;
    Ok(mpi::PublicKey::ECDSA {
        curve: Curve::NistP256,
        q: mpi::MPI::new_point(&x, &y, 256),
    })
}
