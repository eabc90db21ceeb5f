// SPDX-License-Identifier: GPL-3.0-or-later
//! Authenticode signatures in boot images.

use cms::content_info::ContentInfo;
use cms::signed_data::SignedData;
use der::asn1::{ObjectIdentifier, OctetString};
use der::{Any, Decode, Encode, Reader, Sequence, SliceReader};
use serde::Serialize;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::pe::Layout;
use super::{Certificate, Identity, SecureBootError, pkcs7, refused, structure};
use crate::digest::Sha256;

/// SPC_INDIRECT_DATA_OBJID.
const INDIRECT_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.4");
/// SPC_PE_IMAGE_DATAOBJ_OBJID.
const PE_IMAGE_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.15");
/// SpcPeImageData with no flags and an empty file name, the form that every signer of boot images writes.
const EMPTY_PE_IMAGE_DATA: [u8; 11] = [0x30, 0x09, 0x03, 0x01, 0x00, 0xa0, 0x04, 0xa2, 0x02, 0x80, 0x00];

/// WIN_CERTIFICATE: length, revision 2.0, type PKCS #7 SignedData.
const HEADER: usize = 8;
const REVISION: u16 = 0x0200;
const TYPE_PKCS: u16 = 0x0002;
/// A boot image carries one signature, sometimes two or three.
const MAX_SIGNATURES: usize = 8;

#[derive(Sequence)]
struct IndirectData {
    data: TypeAndValue,
    digest: DigestInfo,
}

#[derive(Sequence)]
struct TypeAndValue {
    kind: ObjectIdentifier,
    value: Any,
}

#[derive(Sequence)]
struct DigestInfo {
    algorithm: AlgorithmIdentifierOwned,
    digest: OctetString,
}

/// A signature that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeSignature {
    /// The Authenticode digest that it covers.
    pub image_sha256: Sha256,
    /// Common name of the signing certificate.
    pub signer: String,
    /// SHA-256 of the signing certificate.
    pub certificate_sha256: Sha256,
}

fn bad(error: der::Error) -> SecureBootError {
    structure("Authenticode signature")(&error)
}

/// Signs a boot image. The same image and key give the same bytes.
///
/// # Errors
/// [`SecureBootError::Image`] when it is not a well-formed PE32+ image, [`SecureBootError::Signed`] when it is signed
/// already.
pub fn sign_pe(image: &[u8], identity: &Identity) -> Result<Vec<u8>, SecureBootError> {
    let mut signed = Vec::with_capacity(image.len() + 8192);
    signed.extend_from_slice(image);
    // The table starts at a multiple of 8, and the padding before it is part of what is hashed.
    signed.resize(image.len().next_multiple_of(8), 0);
    let layout = Layout::of(&signed)?;
    if !layout.table.is_empty() {
        return Err(SecureBootError::Signed);
    }
    let digest = layout.digest(&signed);
    let content = IndirectData {
        data: TypeAndValue {
            kind: PE_IMAGE_DATA,
            value: Any::from_der(&EMPTY_PE_IMAGE_DATA).map_err(bad)?,
        },
        digest: DigestInfo {
            algorithm: pkcs7::sha256_algorithm(),
            digest: OctetString::new(digest.0).map_err(bad)?,
        },
    };
    let data = pkcs7::sign_attached(identity, INDIRECT_DATA, Any::encode_from(&content).map_err(bad)?)?;
    let der = ContentInfo {
        content_type: pkcs7::SIGNED_DATA,
        content: Any::encode_from(&data).map_err(bad)?,
    }
    .to_der()
    .map_err(bad)?;
    let too_long = |_| SecureBootError::Image("it is longer than 4 GiB".to_owned());
    let start = u32::try_from(signed.len()).map_err(too_long)?;
    let length = u32::try_from(HEADER + der.len()).map_err(too_long)?;
    signed.extend_from_slice(&length.to_le_bytes());
    signed.extend_from_slice(&REVISION.to_le_bytes());
    signed.extend_from_slice(&TYPE_PKCS.to_le_bytes());
    signed.extend_from_slice(&der);
    signed.resize(signed.len().next_multiple_of(8), 0);
    let size = length.next_multiple_of(8);
    signed[layout.directory..layout.directory + 4].copy_from_slice(&start.to_le_bytes());
    signed[layout.directory + 4..layout.directory + 8].copy_from_slice(&size.to_le_bytes());
    Ok(signed)
}

/// Verifies that the image carries a signature of this very certificate (DER) over its content.
///
/// # Errors
/// [`SecureBootError::Refused`] when none holds; other variants when the image or the certificate cannot be read.
pub fn verify_pe(image: &[u8], certificate_der: &[u8]) -> Result<PeSignature, SecureBootError> {
    let certificate = Certificate::from_der(certificate_der)?;
    let layout = Layout::of(image)?;
    if layout.table.is_empty() {
        return Err(refused("the image is not signed"));
    }
    let digest = layout.digest(image);
    let mut why = None;
    for der in signatures(&image[layout.table.clone()])? {
        match verify_one(der, &certificate, digest) {
            Ok(()) => {
                return Ok(PeSignature {
                    image_sha256: digest,
                    signer: certificate.subject(),
                    certificate_sha256: certificate.fingerprint(),
                });
            }
            Err(error) => why = Some(error),
        }
    }
    Err(match why {
        Some(error @ SecureBootError::Refused(_)) => error,
        Some(error) => refused(format!("the image's signature cannot be read: {error}")),
        None => refused("the image's certificate table holds no signature"),
    })
}

/// The PKCS #7 signatures of a certificate table.
fn signatures(mut table: &[u8]) -> Result<Vec<&[u8]>, SecureBootError> {
    let cut = || refused("the image's certificate table is malformed");
    let mut found = Vec::new();
    while !table.is_empty() {
        let (header, _) = table.split_first_chunk::<HEADER>().ok_or_else(cut)?;
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let revision = u16::from_le_bytes([header[4], header[5]]);
        let kind = u16::from_le_bytes([header[6], header[7]]);
        if length < HEADER || length > table.len() || found.len() == MAX_SIGNATURES {
            return Err(cut());
        }
        if revision == REVISION && kind == TYPE_PKCS {
            found.push(&table[HEADER..length]);
        }
        table = table.get(length.next_multiple_of(8)..).ok_or_else(cut)?;
    }
    Ok(found)
}

fn verify_one(der: &[u8], certificate: &Certificate, digest: Sha256) -> Result<(), SecureBootError> {
    // Some signers count the padding to a multiple of 8 into the length.
    let mut reader = SliceReader::new(der).map_err(bad)?;
    let der = reader.tlv_bytes().map_err(bad)?;
    let info = ContentInfo::from_der(der).map_err(bad)?;
    if info.content_type != pkcs7::SIGNED_DATA {
        return Err(refused("not a signature"));
    }
    let data: SignedData = info.content.decode_as().map_err(bad)?;
    let content = data.encap_content_info.econtent.as_ref();
    let Some(content) = content.filter(|_| data.encap_content_info.econtent_type == INDIRECT_DATA) else {
        return Err(refused("not an Authenticode signature"));
    };
    let indirect: IndirectData = content.decode_as().map_err(bad)?;
    if indirect.digest.algorithm.oid != pkcs7::sha256_algorithm().oid {
        return Err(refused("the signature is over another digest than SHA-256"));
    }
    pkcs7::verify(&data, certificate, content.value())?;
    if indirect.digest.digest.as_bytes() != digest.0 {
        return Err(refused(format!(
            "the image was changed after it was signed (its Authenticode SHA-256 is {digest}, the signed one {})",
            hex::encode(indirect.digest.digest.as_bytes())
        )));
    }
    Ok(())
}
