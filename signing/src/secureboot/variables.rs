// SPDX-License-Identifier: GPL-3.0-or-later
//! The variables PK, KEK and db: signature lists, and updates of them that firmware accepts.
//!
//! UEFI 2.10, sections 8.2.2 (EFI_VARIABLE_AUTHENTICATION_2) and 32.4.1 (EFI_SIGNATURE_LIST).

use chrono::{DateTime, Datelike, Timelike, Utc};
use cms::signed_data::SignedData;
use der::{Decode, Encode};

use super::{Certificate, Identity, SecureBootError, pkcs7, refused, structure};
use crate::guid::Guid;

/// A random GUID (RFC 9562, version 4).
///
/// # Errors
/// When there is no randomness.
pub fn random_guid() -> Result<Guid, SecureBootError> {
    let mut bytes = [0; 16];
    openssl::rand::rand_bytes(&mut bytes).map_err(|error| structure("GUID")(&error))?;
    // In EFI's order the version stands in byte 7.
    bytes[7] = (bytes[7] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    Ok(Guid(bytes))
}

/// EFI_GLOBAL_VARIABLE.
const GLOBAL: Guid = Guid::of(0x8be4df61_93ca_11d2_aa0d_00e098032b8c);
/// EFI_IMAGE_SECURITY_DATABASE_GUID.
const IMAGE_SECURITY: Guid = Guid::of(0xd719b2cb_3d3a_4596_a3bc_dad00e67656f);
/// EFI_CERT_X509_GUID.
const CERT_X509: Guid = Guid::of(0xa5c059a1_94e4_4aa7_87b5_ab155c2bf072);
/// EFI_CERT_TYPE_PKCS7_GUID.
const TYPE_PKCS7: Guid = Guid::of(0x4aafd29d_68df_49ee_8aa9_347d375665a7);

/// Non-volatile, boot and run-time access, time-based authenticated write.
const ATTRIBUTES: u32 = 0x27;
const TYPE_EFI_GUID: u16 = 0x0ef1;
const REVISION: u16 = 0x0200;
/// EFI_TIME, and the header of WIN_CERTIFICATE_UEFI_GUID.
const TIME: usize = 16;
const HEADER: usize = 24;
/// The largest variable that is read.
const MAX: usize = 1 << 20;
const LIST_HEADER: usize = 28;

/// The Secure Boot variables that a site sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    /// The platform key: who may change KEK. Writing it ends setup mode.
    Pk,
    /// Key exchange keys: who may change db.
    Kek,
    /// Whose boot images start.
    Db,
}

impl Variable {
    /// In the order in which setup mode takes them: PK last, as it ends that mode.
    pub const ENROLMENT_ORDER: [Self; 3] = [Self::Db, Self::Kek, Self::Pk];

    /// Its name in the firmware, which is also that of the `.auth` file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pk => "PK",
            Self::Kek => "KEK",
            Self::Db => "db",
        }
    }

    /// Its vendor GUID; the file under efivarfs is `NAME-GUID`.
    #[must_use]
    pub fn vendor(self) -> Guid {
        match self {
            Self::Pk | Self::Kek => GLOBAL,
            Self::Db => IMAGE_SECURITY,
        }
    }

    /// The attributes with which it is written; under efivarfs they come first, as four little-endian bytes.
    #[must_use]
    pub fn attributes(self) -> u32 {
        ATTRIBUTES
    }
}

/// An EFI_SIGNATURE_LIST with one X.509 certificate: the content of a variable, and the `.esl` file of other tools.
///
/// # Errors
/// When the certificate is longer than a variable may be.
pub fn signature_list(owner: Guid, certificate: &Certificate) -> Result<Vec<u8>, SecureBootError> {
    let der = certificate.to_der();
    let too_long = |_| structure("EFI signature list")(&"the certificate is too long");
    let size = u32::try_from(16 + der.len()).map_err(too_long)?;
    let mut list = Vec::with_capacity(LIST_HEADER + 16 + der.len());
    list.extend_from_slice(&CERT_X509.0);
    list.extend_from_slice(&(size + 28).to_le_bytes());
    list.extend_from_slice(&0u32.to_le_bytes());
    list.extend_from_slice(&size.to_le_bytes());
    list.extend_from_slice(&owner.0);
    list.extend_from_slice(der);
    Ok(list)
}

/// One entry of a variable that holds signature lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureList {
    /// Who put it there.
    pub owner: Guid,
    /// What kind of entry it is.
    pub kind: Guid,
    /// The certificate in DER, or the hash.
    pub data: Vec<u8>,
}

impl SignatureList {
    /// Whether the entry is an X.509 certificate.
    #[must_use]
    pub fn is_certificate(&self) -> bool {
        self.kind == CERT_X509
    }

    /// Reads all entries of a variable's content, without the four bytes of attributes that efivarfs puts before it.
    ///
    /// # Errors
    /// When the content is not a sequence of signature lists.
    pub fn parse(content: &[u8]) -> Result<Vec<Self>, SecureBootError> {
        let bad = || structure("EFI signature list")(&"it is malformed or cut off");
        if content.len() > MAX {
            return Err(bad());
        }
        let mut entries = Vec::new();
        let mut rest = content;
        while !rest.is_empty() {
            let (head, _) = rest.split_first_chunk::<LIST_HEADER>().ok_or_else(bad)?;
            let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
            let (size, header, each) = (number(16), number(20), number(24));
            let list = rest.get(..size).ok_or_else(bad)?;
            let body = header
                .checked_add(LIST_HEADER)
                .and_then(|start| list.get(start..))
                .ok_or_else(bad)?;
            if each <= 16 || body.len() % each != 0 {
                return Err(bad());
            }
            let mut kind = [0; 16];
            kind.copy_from_slice(&head[..16]);
            for entry in body.chunks_exact(each) {
                let mut owner = [0; 16];
                owner.copy_from_slice(&entry[..16]);
                entries.push(Self {
                    owner: Guid(owner),
                    kind: Guid(kind),
                    data: entry[16..].to_vec(),
                });
            }
            rest = &rest[size..];
        }
        Ok(entries)
    }
}

/// EFI_TIME with the fields that an authenticated update must leave zero.
fn efi_time(at: DateTime<Utc>) -> [u8; TIME] {
    let mut time = [0; TIME];
    // Years before 1 or after 65535 do not occur in certificates.
    let year = u16::try_from(at.year()).unwrap_or(0);
    time[..2].copy_from_slice(&year.to_le_bytes());
    for (byte, value) in time[2..7]
        .iter_mut()
        .zip([at.month(), at.day(), at.hour(), at.minute(), at.second()])
    {
        *byte = u8::try_from(value).unwrap_or(0);
    }
    time
}

/// What the signature covers: name, vendor, attributes, time, content.
fn message(variable: Variable, time: &[u8], content: &[u8]) -> Vec<u8> {
    let mut message: Vec<u8> = variable.name().encode_utf16().flat_map(u16::to_le_bytes).collect();
    message.extend_from_slice(&variable.vendor().0);
    message.extend_from_slice(&variable.attributes().to_le_bytes());
    message.extend_from_slice(time);
    message.extend_from_slice(content);
    message
}

/// Signs an update that sets `variable` to `content`: an `.auth` file (EFI_VARIABLE_AUTHENTICATION_2, then the content).
///
/// Firmware takes an update only if its time is later than that of the variable that stands; `at` is therefore given, and
/// fixed, by the caller.
///
/// # Errors
/// When the signature cannot be made.
pub fn sign_update(
    variable: Variable,
    content: &[u8],
    signer: &Identity,
    at: DateTime<Utc>,
) -> Result<Vec<u8>, SecureBootError> {
    let time = efi_time(at);
    let bad = structure("EFI variable update");
    let der = pkcs7::sign_detached(signer, &message(variable, &time, content))?
        .to_der()
        .map_err(|error| bad(&error))?;
    let length = u32::try_from(HEADER + der.len()).map_err(|error| bad(&error))?;
    let mut update = time.to_vec();
    update.extend_from_slice(&length.to_le_bytes());
    update.extend_from_slice(&REVISION.to_le_bytes());
    update.extend_from_slice(&TYPE_EFI_GUID.to_le_bytes());
    update.extend_from_slice(&TYPE_PKCS7.0);
    // The bare SignedData, without ContentInfo: what the specification says and all firmware takes.
    update.extend_from_slice(&der);
    update.extend_from_slice(content);
    Ok(update)
}

/// Verifies an `.auth` file against the certificate that must have signed it and returns the content that it sets.
///
/// # Errors
/// [`SecureBootError::Refused`] when it is malformed or the signature does not hold.
pub fn verify_update<'a>(
    variable: Variable,
    update: &'a [u8],
    signer: &Certificate,
) -> Result<&'a [u8], SecureBootError> {
    let cut = || refused(format!("the update of {} is malformed or cut off", variable.name()));
    if update.len() > MAX {
        return Err(cut());
    }
    let (time, rest) = update.split_first_chunk::<TIME>().ok_or_else(cut)?;
    let (header, _) = rest.split_first_chunk::<HEADER>().ok_or_else(cut)?;
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let fixed = [&REVISION.to_le_bytes()[..], &TYPE_EFI_GUID.to_le_bytes(), &TYPE_PKCS7.0].concat();
    if header[4..] != fixed || length > rest.len() {
        return Err(cut());
    }
    let der = rest.get(HEADER..length).ok_or_else(cut)?;
    let content = &rest[length..];
    let data = SignedData::from_der(der).map_err(|_| cut())?;
    if data.encap_content_info.econtent_type != pkcs7::DATA || data.encap_content_info.econtent.is_some() {
        return Err(cut());
    }
    pkcs7::verify(&data, signer, &message(variable, time, content))?;
    Ok(content)
}
