// SPDX-License-Identifier: GPL-3.0-or-later
//! The two kinds of PKCS #7 SignedData that firmware reads: with attributes over an image's digest, and bare over a variable.

use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::CmsVersion;
use cms::signed_data::{
    CertificateSet, EncapsulatedContentInfo, SignedAttributes, SignedData, SignerIdentifier, SignerInfo, SignerInfos,
};
use der::asn1::{ObjectIdentifier, OctetString, SetOfVec};
use der::{Any, Decode, Encode, Tag};
use x509_cert::attr::Attribute;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::{Certificate, Identity, SecureBootError, refused, structure};
use crate::digest::Sha256;

const SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const SHA_256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
/// id-data: the content is elsewhere.
pub(super) const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
/// id-signedData.
pub(super) const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");

const WHAT: &str = "PKCS #7 signature";

fn bad(error: der::Error) -> SecureBootError {
    structure(WHAT)(&error)
}

pub(super) fn sha256_algorithm() -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned {
        oid: SHA_256,
        parameters: Some(Any::null()),
    }
}

/// Signs `content` with attributes, as Authenticode wants it.
pub(super) fn sign_attached(
    identity: &Identity,
    content_type: ObjectIdentifier,
    content: Any,
) -> Result<SignedData, SecureBootError> {
    let digest = Sha256::of(content.value());
    let attributes = SetOfVec::try_from(vec![
        attribute(CONTENT_TYPE, Any::encode_from(&content_type).map_err(bad)?)?,
        attribute(MESSAGE_DIGEST, Any::new(Tag::OctetString, digest.0).map_err(bad)?)?,
    ])
    .map_err(bad)?;
    let signature = identity.key().sign(&attributes.to_der().map_err(bad)?)?;
    let encapsulated = EncapsulatedContentInfo {
        econtent_type: content_type,
        econtent: Some(content),
    };
    assemble(identity, encapsulated, Some(attributes), &signature)
}

/// Signs `message`, which stays outside, without attributes, as variable updates want it.
pub(super) fn sign_detached(identity: &Identity, message: &[u8]) -> Result<SignedData, SecureBootError> {
    let signature = identity.key().sign(message)?;
    let encapsulated = EncapsulatedContentInfo {
        econtent_type: DATA,
        econtent: None,
    };
    assemble(identity, encapsulated, None, &signature)
}

fn assemble(
    identity: &Identity,
    encap_content_info: EncapsulatedContentInfo,
    signed_attrs: Option<SignedAttributes>,
    signature: &[u8],
) -> Result<SignedData, SecureBootError> {
    let certificate = parsed(identity.certificate())?;
    let signer = SignerInfo {
        version: CmsVersion::V1,
        sid: SignerIdentifier::IssuerAndSerialNumber(issuer_and_serial(&certificate)),
        digest_alg: sha256_algorithm(),
        signed_attrs,
        signature_algorithm: AlgorithmIdentifierOwned {
            oid: RSA_ENCRYPTION,
            parameters: Some(Any::null()),
        },
        signature: OctetString::new(signature).map_err(bad)?,
        unsigned_attrs: None,
    };
    let certificates = CertificateSet::try_from(vec![CertificateChoices::Certificate(certificate)]).map_err(bad)?;
    Ok(SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::try_from(vec![sha256_algorithm()]).map_err(bad)?,
        encap_content_info,
        certificates: Some(certificates),
        crls: None,
        signer_infos: SignerInfos::try_from(vec![signer]).map_err(bad)?,
    })
}

/// Checks that the one signer of `data` is `certificate` and that its signature holds: over the attributes and through them
/// over `content`, or, without attributes, over `content` itself.
pub(super) fn verify(data: &SignedData, certificate: &Certificate, content: &[u8]) -> Result<(), SecureBootError> {
    let [signer] = data.signer_infos.0.as_slice() else {
        return Err(refused("it does not have exactly one signer"));
    };
    let expected = issuer_and_serial(&parsed(certificate)?);
    if signer.sid != SignerIdentifier::IssuerAndSerialNumber(expected) {
        return Err(refused(format!("it is not made by {}", describe(certificate))));
    }
    if signer.digest_alg.oid != SHA_256 {
        return Err(refused("its digest is not SHA-256"));
    }
    if ![RSA_ENCRYPTION, SHA_256_WITH_RSA].contains(&signer.signature_algorithm.oid) {
        return Err(refused("its algorithm is not RSA"));
    }
    let encoded;
    let message = match &signer.signed_attrs {
        None => content,
        Some(attributes) => {
            let value = |oid| single_attribute(attributes, oid);
            if value(MESSAGE_DIGEST)?.value() != Sha256::of(content).0 {
                return Err(refused("its signed digest is of other content"));
            }
            if value(CONTENT_TYPE)?.decode_as::<ObjectIdentifier>().ok() != Some(data.encap_content_info.econtent_type)
            {
                return Err(refused("its signed content type is another one"));
            }
            encoded = attributes.to_der().map_err(bad)?;
            &encoded
        }
    };
    if !certificate.verifies(message, signer.signature.as_bytes()) {
        return Err(refused(format!(
            "the RSA signature does not hold with the key of {}",
            describe(certificate)
        )));
    }
    Ok(())
}

pub(super) fn describe(certificate: &Certificate) -> String {
    format!("{:?} (SHA-256 {})", certificate.subject(), certificate.fingerprint())
}

fn single_attribute(attributes: &SignedAttributes, oid: ObjectIdentifier) -> Result<&Any, SecureBootError> {
    let mut found = attributes.iter().filter(|attribute| attribute.oid == oid);
    match (found.next().map(|attribute| attribute.values.as_slice()), found.next()) {
        (Some([value]), None) => Ok(value),
        _ => Err(refused(format!("its attribute {oid} does not stand exactly once"))),
    }
}

fn attribute(oid: ObjectIdentifier, value: Any) -> Result<Attribute, SecureBootError> {
    Ok(Attribute {
        oid,
        values: SetOfVec::try_from(vec![value]).map_err(bad)?,
    })
}

fn parsed(certificate: &Certificate) -> Result<x509_cert::Certificate, SecureBootError> {
    x509_cert::Certificate::from_der(certificate.to_der()).map_err(bad)
}

fn issuer_and_serial(certificate: &x509_cert::Certificate) -> IssuerAndSerialNumber {
    IssuerAndSerialNumber {
        issuer: certificate.tbs_certificate.issuer.clone(),
        serial_number: certificate.tbs_certificate.serial_number.clone(),
    }
}
