// SPDX-License-Identifier: GPL-3.0-or-later
//! Each reason for which a signature is refused, with the recipe of a signature that has it.

use std::time::SystemTime;

use chrono::{DateTime, TimeDelta, Timelike, Utc};
use sequoia_openpgp::cert::{CertBuilder, CipherSuite, SubkeyRevocationBuilder};
use sequoia_openpgp::packet::key::{SecretParts, UnspecifiedRole};
use sequoia_openpgp::packet::signature::SignatureBuilder;
use sequoia_openpgp::packet::{Key, Packet, Signature, UserID};
use sequoia_openpgp::serialize::Serialize as _;
use sequoia_openpgp::types::{HashAlgorithm, KeyFlags, ReasonForRevocation, SignatureType};
use sequoia_openpgp::{Cert, Profile};

use super::super::*;
use crate::clock::now;

const DATA: &[u8] = b"what is signed";

/// Whole seconds, as signatures have them.
fn hours_ago(hours: i64) -> DateTime<Utc> {
    (now() - TimeDelta::hours(hours)).with_nanosecond(0).unwrap()
}

fn builder(made: DateTime<Utc>) -> CertBuilder<'static> {
    CertBuilder::new()
        .add_userid("Somebody")
        .set_profile(Profile::RFC4880)
        .unwrap()
        .set_creation_time(SystemTime::from(made))
        .add_signing_subkey()
}

fn cert(builder: CertBuilder<'_>) -> Cert {
    builder.generate().unwrap().0
}

/// The subkeys, or the primary key where there is none.
fn signing_keys(cert: &Cert) -> Vec<Key<SecretParts, UnspecifiedRole>> {
    let keys = cert.keys().subkeys().secret();
    let mut keys: Vec<_> = keys.map(|key| key.key().clone().role_into_unspecified()).collect();
    if keys.is_empty() {
        keys.push(primary(cert));
    }
    keys
}

fn primary(cert: &Cert) -> Key<SecretParts, UnspecifiedRole> {
    let key = cert.primary_key().key().clone();
    key.parts_into_secret().unwrap().role_into_unspecified()
}

/// A detached signature as nobody's program makes it: any hash, any date.
fn signature(key: &Key<SecretParts, UnspecifiedRole>, hash: HashAlgorithm, at: DateTime<Utc>) -> Vec<u8> {
    let mut pair = key.clone().into_keypair().unwrap();
    let made = SignatureBuilder::new(SignatureType::Binary)
        .set_hash_algo(hash)
        .set_signature_creation_time(SystemTime::from(at))
        .unwrap()
        .sign_message(&mut pair, DATA)
        .unwrap();
    bytes(made)
}

fn bytes(signature: Signature) -> Vec<u8> {
    let mut bytes = Vec::new();
    Packet::from(signature).serialize(&mut bytes).unwrap();
    bytes
}

fn sound(cert: &Cert, at: DateTime<Utc>) -> Vec<u8> {
    signature(&signing_keys(cert)[0], HashAlgorithm::SHA512, at)
}

fn judge(cert: &Cert, signature: &[u8]) -> Result<Vec<Signer>, Fault> {
    verify_detached_by(std::slice::from_ref(cert), DATA, signature, now()).map_err(|error| match error {
        OpenPgpError::Refused(fault) => fault,
        other => panic!("not judged: {other:?}"),
    })
}

fn fault(cert: &Cert, signature: &[u8]) -> Fault {
    judge(cert, signature).unwrap_err()
}

#[test]
fn the_sound_signature_of_every_recipe_holds() {
    let cert = cert(builder(hours_ago(3)));
    judge(&cert, &sound(&cert, hours_ago(1))).unwrap();
}

#[test]
fn weak_hashes() {
    let cert = cert(builder(hours_ago(3)));
    for hash in [HashAlgorithm::MD5, HashAlgorithm::SHA1] {
        let signature = signature(&signing_keys(&cert)[0], hash, hours_ago(1));
        let fault = fault(&cert, &signature);
        assert!(
            matches!(&fault, Fault::WeakHash { what: "the signature", hash: told, .. } if *told == hash.to_string()),
            "{fault:?}"
        );
    }
}

/// A clock that was set back to when SHA-1 was good enough does not bring it to life.
#[test]
fn weak_hashes_of_old() {
    let then = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().to_utc();
    let cert = cert(builder(then("2001-01-01T00:00:00Z")));
    let signature = signature(
        &signing_keys(&cert)[0],
        HashAlgorithm::SHA1,
        then("2001-02-01T00:00:00Z"),
    );
    let at = then("2001-03-01T00:00:00Z");
    let found = verify_detached_by(std::slice::from_ref(&cert), DATA, &signature, at).unwrap_err();
    assert!(
        matches!(found, OpenPgpError::Refused(Fault::WeakHash { .. })),
        "{found:?}"
    );
}

/// A certificate whose self-signature is made with SHA-1, so that another with the same digest may exist.
#[test]
fn a_certificate_of_weak_hashes() {
    let made = hours_ago(3);
    let strong = cert(builder(made));
    let mut pair = primary(&strong).into_keypair().unwrap();
    let user = UserID::from("Somebody");
    let weak = SignatureBuilder::new(SignatureType::PositiveCertification)
        .set_hash_algo(HashAlgorithm::SHA1)
        .set_signature_creation_time(SystemTime::from(made))
        .unwrap()
        .set_key_flags(KeyFlags::empty().set_certification())
        .unwrap()
        .sign_userid_binding(&mut pair, None, &user)
        .unwrap();
    let bare: Vec<Packet> = strong
        .clone()
        .into_packets()
        .filter(|packet| match packet {
            Packet::UserID(_) => false,
            Packet::Signature(signature) => signature.typ() == SignatureType::SubkeyBinding,
            _ => true,
        })
        .collect();
    let (cert, _) = Cert::from_packets(bare.into_iter())
        .unwrap()
        .insert_packets([Packet::from(user), Packet::from(weak)])
        .unwrap();
    let fault = fault(&cert, &sound(&strong, hours_ago(1)));
    assert!(
        matches!(
            &fault,
            Fault::WeakHash {
                what: "the self-signature",
                ..
            }
        ),
        "{fault:?}"
    );
}

#[test]
fn short_rsa_keys_of_our_own() {
    let made = |suite| cert(builder(hours_ago(3)).set_cipher_suite(suite));
    let short = made(CipherSuite::RSA2k);
    let fault = fault(&short, &sound(&short, hours_ago(1)));
    assert!(matches!(&fault, Fault::WeakKey { bits: 2048, .. }), "{fault:?}");
    let long = made(CipherSuite::RSA3k);
    judge(&long, &sound(&long, hours_ago(1))).unwrap();
}

/// Revoked now, whenever the signature says that it was made: who has stolen a retired key can date it back.
#[test]
fn revoked_certificates_and_subkeys() {
    let cert = cert(builder(hours_ago(3)));
    let signature = sound(&cert, hours_ago(2));
    let mut pair = primary(&cert).into_keypair().unwrap();
    for code in [ReasonForRevocation::KeyCompromised, ReasonForRevocation::KeyRetired] {
        let revocation = cert.revoke(&mut pair, code, b"").unwrap();
        let (revoked, _) = cert.clone().insert_packets(Some(Packet::from(revocation))).unwrap();
        let fault = fault(&revoked, &signature);
        assert!(
            matches!(&fault, Fault::Revoked { key, reason } if *key == cert.fingerprint().to_hex() && *reason == code.to_string()),
            "{fault:?}"
        );
    }
    let subkey = cert.keys().subkeys().next().unwrap();
    let revocation = SubkeyRevocationBuilder::new()
        .set_reason_for_revocation(ReasonForRevocation::KeyCompromised, b"")
        .unwrap()
        .build(&mut pair, &cert, subkey.key(), None)
        .unwrap();
    let (revoked, _) = cert.clone().insert_packets(Some(Packet::from(revocation))).unwrap();
    let fault = fault(&revoked, &signature);
    assert!(
        matches!(&fault, Fault::Revoked { key, .. } if *key == subkey.key().fingerprint().to_hex()),
        "{fault:?}"
    );
}

#[test]
fn expired_certificates_and_signatures() {
    let short_lived = cert(builder(hours_ago(3)).set_validity_period(std::time::Duration::from_secs(7200)));
    // Made while the certificate was alive, or so it says.
    let found = fault(&short_lived, &sound(&short_lived, hours_ago(2)));
    assert!(
        matches!(&found, Fault::ExpiredKey { expired, .. } if *expired == hours_ago(1)),
        "{found:?}"
    );
    let found = fault(&short_lived, &sound(&short_lived, hours_ago(0)));
    assert!(matches!(&found, Fault::ExpiredKey { .. }), "{found:?}");

    let cert = cert(builder(hours_ago(3)));
    let mut pair = signing_keys(&cert)[0].clone().into_keypair().unwrap();
    let signature = SignatureBuilder::new(SignatureType::Binary)
        .set_signature_creation_time(SystemTime::from(hours_ago(2)))
        .unwrap()
        .set_signature_validity_period(std::time::Duration::from_secs(60))
        .unwrap()
        .sign_message(&mut pair, DATA)
        .unwrap();
    let found = fault(&cert, &bytes(signature));
    assert!(matches!(found, Fault::ExpiredSignature { .. }), "{found:?}");
}

#[test]
fn dates_that_cannot_be() {
    let cert = cert(builder(hours_ago(3)));
    let future = now() + TimeDelta::minutes(10);
    let found = fault(&cert, &sound(&cert, future));
    assert!(matches!(found, Fault::FromTheFuture { .. }), "{found:?}");
    let found = fault(&cert, &sound(&cert, hours_ago(5)));
    assert!(matches!(found, Fault::YoungKey { .. }), "{found:?}");
}

#[test]
fn duplicate_signatures() {
    let cert = cert(builder(hours_ago(3)).add_signing_subkey());
    let keys = signing_keys(&cert);
    let one = sound(&cert, hours_ago(1));
    let same_key = sound(&cert, hours_ago(2));
    let other_subkey = signature(&keys[1], HashAlgorithm::SHA512, hours_ago(1));
    for again in [&one, &same_key, &other_subkey] {
        let found = fault(&cert, &[&one[..], again].concat());
        assert!(
            matches!(&found, Fault::Duplicate { who } if *who == cert.fingerprint().to_hex()),
            "{found:?}"
        );
    }
}

/// Eve puts Anna's signing subkey under her own certificate, so that Anna's signatures look like hers.
#[test]
fn a_subkey_without_a_back_signature() {
    let (anna, eve) = (cert(builder(hours_ago(3))), cert(builder(hours_ago(3))));
    let subkey = anna.keys().subkeys().next().unwrap().key().clone();
    let mut pair = primary(&eve).into_keypair().unwrap();
    let binding = SignatureBuilder::new(SignatureType::SubkeyBinding)
        .set_signature_creation_time(SystemTime::from(hours_ago(2)))
        .unwrap()
        .set_key_flags(KeyFlags::empty().set_signing())
        .unwrap()
        .sign_subkey_binding(&mut pair, None, &subkey)
        .unwrap();
    let (claimed, _) = eve
        .strip_secret_key_material()
        .insert_packets([Packet::from(subkey.clone()), Packet::from(binding)])
        .unwrap();
    let found = fault(&claimed, &sound(&anna, hours_ago(1)));
    assert!(
        matches!(&found, Fault::NoBackSignature { key, certificate }
            if *key == subkey.fingerprint().to_hex() && *certificate == claimed.fingerprint().to_hex()),
        "{found:?}"
    );
}

#[test]
fn other_signatures() {
    let (known, stranger) = (cert(builder(hours_ago(3))), cert(builder(hours_ago(3))));
    let found = fault(&known, &sound(&stranger, hours_ago(1)));
    assert!(matches!(found, Fault::Stranger { .. }), "{found:?}");
    // A stranger's beside a good one changes nothing; a bad one of a known key does.
    judge(
        &known,
        &[sound(&known, hours_ago(1)), sound(&stranger, hours_ago(1))].concat(),
    )
    .unwrap();
    let mut broken = sound(&known, hours_ago(1));
    *broken.last_mut().unwrap() ^= 1;
    let found = fault(&known, &[sound(&stranger, hours_ago(1)), broken].concat());
    assert!(matches!(found, Fault::DoesNotHold { .. }), "{found:?}");
    assert!(matches!(fault(&known, b""), Fault::Malformed(_) | Fault::NoSignature));

    let mut pair = signing_keys(&known)[0].clone().into_keypair().unwrap();
    let text = SignatureBuilder::new(SignatureType::Text)
        .sign_message(&mut pair, DATA)
        .unwrap();
    let at = now() + TimeDelta::minutes(1);
    let found = verify_detached_by(std::slice::from_ref(&known), DATA, &bytes(text), at).unwrap_err();
    assert!(
        matches!(found, OpenPgpError::Refused(Fault::WrongType { .. })),
        "{found:?}"
    );

    // A key that may certify and not sign.
    let certifier = cert(
        CertBuilder::new()
            .add_userid("Somebody")
            .set_creation_time(SystemTime::from(hours_ago(3))),
    );
    let found = fault(&certifier, &sound(&certifier, hours_ago(1)));
    assert!(matches!(found, Fault::NotForSigning { .. }), "{found:?}");
}

/// Debian's keys are judged by upstream's rules, which the house's do not loosen: RSA-2048 passes there alone.
#[test]
fn upstreams_rules_are_their_own() {
    use sequoia_openpgp::serialize::stream::{Message, Signer as MessageSigner};
    use std::io::Write;
    let archive = cert(builder(hours_ago(3)).set_cipher_suite(CipherSuite::RSA2k));
    let mut message = Vec::new();
    let pair = signing_keys(&archive)[0].clone().into_keypair().unwrap();
    let mut signer = MessageSigner::new(Message::new(&mut message), pair)
        .unwrap()
        .creation_time(SystemTime::from(hours_ago(1)))
        .cleartext()
        .build()
        .unwrap();
    signer.write_all(b"Origin: Test\n").unwrap();
    signer.finalize().unwrap();
    let keyring = tempfile::NamedTempFile::new().unwrap();
    archive.serialize(&mut keyring.as_file()).unwrap();
    verify_cleartext(keyring.path(), &message, now()).unwrap();
    let found = fault(&archive, &sound(&archive, hours_ago(1)));
    assert!(matches!(found, Fault::WeakKey { .. }), "{found:?}");
}

/// Anna's signing subkey is taken into Ben's certificate too, with her consent and later: one key, at two times of two officers.
#[test]
fn one_key_under_two_certificates() {
    let (anna, ben) = (cert(builder(hours_ago(9))), cert(builder(hours_ago(9))));
    let shared = signing_keys(&anna).remove(0);
    let subkey = shared.clone().parts_into_public().role_into_subordinate();
    let at = SystemTime::from(hours_ago(5));
    let bens = ben.primary_key().key().clone();
    let back = SignatureBuilder::new(SignatureType::PrimaryKeyBinding)
        .set_signature_creation_time(at)
        .unwrap()
        .sign_primary_key_binding(&mut shared.clone().into_keypair().unwrap(), &bens, &subkey)
        .unwrap();
    let binding = SignatureBuilder::new(SignatureType::SubkeyBinding)
        .set_signature_creation_time(at)
        .unwrap()
        .set_key_flags(KeyFlags::empty().set_signing())
        .unwrap()
        .set_embedded_signature(back)
        .unwrap()
        .sign_subkey_binding(&mut primary(&ben).into_keypair().unwrap(), None, &subkey)
        .unwrap();
    let ben = ben.strip_secret_key_material();
    let (ben, _) = ben
        .insert_packets([Packet::from(subkey), Packet::from(binding)])
        .unwrap();
    let certs = [ben, anna];
    let signed = |hours| signature(&shared, HashAlgorithm::SHA512, hours_ago(hours));
    let both = [signed(7), signed(1)].concat();
    assert_eq!(verify_detached_by(&certs, DATA, &both, now()).unwrap().len(), 2);
    let found = verify_threshold(&certs, DATA, &both, 2, now()).unwrap_err();
    let key = shared.fingerprint().to_hex();
    assert!(
        matches!(&found, OpenPgpError::Refused(Fault::Duplicate { who }) if *who == key),
        "{found:?}"
    );
}

/// People are counted: not signatures, not subkeys, not certificates.
#[test]
fn thresholds() {
    let [anna, ben, eve] = [1, 2, 3].map(|_| cert(builder(hours_ago(3)).add_signing_subkey()));
    let annas_other = cert(builder(hours_ago(3)));
    let known = [anna.clone(), ben.clone(), annas_other.clone()];
    let named = |cert: &Cert, name: &str| (name.to_owned(), sound(cert, hours_ago(1)));
    let person = |fingerprint: &str| {
        let annas = [&anna, &annas_other].map(|cert| cert.fingerprint().to_hex());
        Ok(if annas.contains(&fingerprint.to_owned()) {
            "Anna".to_owned()
        } else {
            fingerprint.to_owned()
        })
    };
    let count = |signatures: &[(String, Vec<u8>)]| count_signers(&known, DATA, signatures, &person, now()).unwrap();
    let both = count(&[named(&anna, "a"), named(&ben, "b"), named(&eve, "e")])
        .reach(2)
        .unwrap();
    assert_eq!(both.signers.len(), 2);
    assert!(matches!(&both.refused[..], [(name, Fault::Stranger { .. })] if name == "e"));

    let keys = signing_keys(&anna);
    let two_subkeys = [0, 1]
        .map(|at: usize| signature(&keys[at], HashAlgorithm::SHA512, hours_ago(1)))
        .concat();
    for twice in [
        vec![named(&anna, "a"), named(&anna, "again")],
        vec![("a".to_owned(), two_subkeys)],
        vec![named(&anna, "a"), named(&annas_other, "other certificate")],
    ] {
        let counted = count(&twice);
        assert_eq!(counted.signers.len(), 1);
        assert!(
            matches!(&counted.refused[..], [(_, Fault::Duplicate { .. })]),
            "{counted:?}"
        );
        let fault = counted.reach(2).unwrap_err();
        assert!(
            matches!(&fault, Fault::BelowThreshold { have: 1, need: 2, .. }),
            "{fault:?}"
        );
        assert!(fault.to_string().contains("more than once"), "{fault}");
    }
    // Nobody is not enough for a threshold of nothing.
    count(&[]).reach(0).unwrap_err();
    let barred = |_: &str| Err("may not speak for this".to_owned());
    let counted = count_signers(&known, DATA, &[named(&anna, "a")], &barred, now()).unwrap();
    assert!(counted.signers.is_empty() && matches!(&counted.refused[..], [(_, Fault::Barred { .. })]));
}
