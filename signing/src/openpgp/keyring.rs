// SPDX-License-Identifier: GPL-3.0-or-later
//! Keyring files: certificates, binary or armored, one armor block or several.

use std::path::Path;

use sequoia_openpgp::Cert;
use sequoia_openpgp::armor;
use sequoia_openpgp::cert::CertParser;
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::serialize::Serialize;

use super::sign::making;
use super::{MAX_KEYRING, OpenPgpError};
use crate::digest::read_bounded;

const BLOCK: &[u8] = b"-----BEGIN PGP PUBLIC KEY BLOCK-----";

/// Reads every certificate of a keyring file. Secret parts, if any, are left behind.
///
/// # Errors
/// When the file cannot be read, is longer than [`MAX_KEYRING`], or holds anything that is not a certificate.
pub fn read_keyring(path: &Path) -> Result<Vec<Cert>, OpenPgpError> {
    let bytes = read_bounded(path, MAX_KEYRING).map_err(|source| OpenPgpError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    parse_keyring(path, &bytes)
}

/// As [`read_keyring`], for the content of a file that was read; `path` names it in errors.
///
/// # Errors
/// When it holds anything that is not a certificate.
pub fn parse_keyring(path: &Path, bytes: &[u8]) -> Result<Vec<Cert>, OpenPgpError> {
    let unusable = |reason: String| OpenPgpError::Keyring {
        path: path.to_path_buf(),
        reason,
    };
    let mut certs = Vec::new();
    for block in blocks(bytes) {
        let parser = CertParser::from_bytes(block).map_err(|error| unusable(super::flat(&error)))?;
        for cert in parser {
            certs.push(
                cert.map_err(|error| unusable(super::flat(&error)))?
                    .strip_secret_key_material(),
            );
        }
    }
    if certs.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    Ok(certs)
}

/// The public parts of certificates as one armored block, which every OpenPGP program reads whole.
///
/// # Errors
/// When it cannot be encoded.
pub fn armored(certs: &[Cert]) -> Result<String, OpenPgpError> {
    let write = || -> anyhow::Result<String> {
        let mut writer = armor::Writer::new(Vec::new(), armor::Kind::PublicKey)?;
        for cert in certs {
            cert.serialize(&mut writer)?;
        }
        Ok(String::from_utf8(writer.finalize()?)?)
    };
    write().map_err(|error| making("write the keyring", &error))
}

/// An armored keyring may be several blocks one after the other; Sequoia reads one.
fn blocks(bytes: &[u8]) -> Vec<&[u8]> {
    let mut starts: Vec<usize> = bytes
        .windows(BLOCK.len())
        .enumerate()
        .filter(|(_, window)| *window == BLOCK)
        .map(|(at, _)| at)
        .collect();
    if starts.is_empty() {
        return vec![bytes];
    }
    starts.push(bytes.len());
    starts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}
