// SPDX-License-Identifier: GPL-3.0-or-later
//! Several detached signatures over one text in one file, as each officer adds one.
//!
//! Attacks: a file that unpacks to more than it should, or holds other packets: bounded, nothing is unpacked, and anything
//! but a signature is refused. Two signatures of one key, which would make verifiers refuse the whole: refused here.
//!
//! Not defended: whether the signatures hold is not looked at, nor over what: verifiers do that, with the certificates.

use sequoia_openpgp::packet::Signature;
use sequoia_openpgp::parse::{PacketParserBuilder, PacketParserResult, Parse};
use sequoia_openpgp::serialize::Serialize;
use sequoia_openpgp::{Packet, armor};

use super::sign::making;
use super::{Fault, MAX_SIGNATURE, OpenPgpError, flat, malformed};

/// The signatures of both files, armored, in one.
///
/// # Errors
/// [`OpenPgpError::Refused`] when one of the files holds anything else, or a key signs in both.
pub fn join(standing: &[u8], added: &[u8]) -> Result<String, OpenPgpError> {
    let mut all = read(standing)?;
    for signature in read(added)? {
        let issuers = signature.get_issuers();
        if let Some(twice) = all
            .iter()
            .flat_map(Signature::get_issuers)
            .find(|standing| issuers.iter().any(|issuer| issuer.aliases(standing)))
        {
            return Err(Fault::Duplicate {
                who: format!("{twice:X}"),
            }
            .into());
        }
        all.push(signature);
    }
    write(all).map_err(|error| making("join signatures", &error))
}

fn read(bytes: &[u8]) -> Result<Vec<Signature>, OpenPgpError> {
    if bytes.len() > MAX_SIGNATURE {
        return Err(malformed(format!("a signature is longer than {MAX_SIGNATURE} bytes")));
    }
    let parsed = || -> anyhow::Result<Vec<Signature>> {
        let mut found = Vec::new();
        let mut parser = PacketParserBuilder::from_bytes(bytes)?.max_recursion_depth(0).build()?;
        while let PacketParserResult::Some(packet) = parser {
            let (packet, next) = packet.next()?;
            match packet {
                Packet::Signature(signature) => found.push(signature),
                other => anyhow::bail!("it holds a {}", other.tag()),
            }
            parser = next;
        }
        Ok(found)
    };
    match parsed() {
        Ok(found) if found.is_empty() => Err(Fault::NoSignature.into()),
        Ok(found) => Ok(found),
        Err(error) => Err(malformed(format!(
            "not a file of detached signatures: {}",
            flat(&error)
        ))),
    }
}

fn write(signatures: Vec<Signature>) -> anyhow::Result<String> {
    let mut writer = armor::Writer::new(Vec::new(), armor::Kind::Signature)?;
    for signature in signatures {
        Packet::from(signature).serialize(&mut writer)?;
    }
    Ok(String::from_utf8(writer.finalize()?)?)
}
