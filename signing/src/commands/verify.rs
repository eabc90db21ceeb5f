// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-sign verify`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde::Serialize;
use signing::digest::{open_regular, read_bounded, read_to_limit};
use signing::openpgp::{
    MAX_CLEARTEXT, MAX_SIGNATURE, Signer, count_signers, read_keyring, verify_cleartext, verify_detached,
};
use signing::output::{Refused, Usage};
use signing::secureboot::{PeSignature, SecureBootError, Variable, verify_pe};
use signing::site::Trust;
use signing::{clock, durable, output};

use super::sign::{MAX_IMAGE, signature_of};
use super::{Certificates, open};

/// A certificate is a kilobyte or two.
const MAX_CERTIFICATE: u64 = 64 << 10;
/// What several people sign is a text that they read.
const MAX_COUNTED: u64 = 64 << 20;

#[derive(Subcommand)]
pub enum VerifyCommand {
    /// Verify an OpenPGP signature
    Openpgp(OpenPgp),
    /// Verify the Authenticode signature of a UEFI boot image
    Secureboot(SecureBoot),
}

#[derive(Args)]
#[command(after_long_help = "\
Exit status: 0 the signature holds, 3 it does not, 1 it could not be looked at.

Examples:
  bastide-sign verify openpgp --trust site/trust site/trust/root.json
  bastide-sign verify openpgp --keyring site/trust/release.asc \\
    --signature file.asc file
  bastide-sign verify openpgp --keyring officers.asc --threshold 2 \\
    --signature anna.asc --signature ben.asc approval.txt
  bastide-sign verify openpgp --keyring ring.asc --cleartext InRelease \\
    --out text")]
pub struct OpenPgp {
    #[command(flatten)]
    certificates: Certificates,
    /// Signed file
    file: PathBuf,
    /// Detached signature, more than one with --threshold [default: FILE.asc]
    #[arg(long, value_name = "FILE")]
    signature: Vec<PathBuf>,
    /// How many certificates of the keyring must have signed
    #[arg(long, value_name = "K", conflicts_with = "cleartext", value_parser = clap::value_parser!(u16).range(1..))]
    threshold: Option<u16>,
    /// FILE is a cleartext-signed message, such as InRelease
    #[arg(long, conflicts_with = "signature")]
    cleartext: bool,
    /// Where the text goes that a cleartext signature covers
    #[arg(long, value_name = "FILE", requires = "cleartext")]
    out: Option<PathBuf>,
    /// Judge as of this time instead of now
    #[arg(long, value_parser = clock::parse)]
    at: Option<DateTime<Utc>>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_long_help = "\
Exit status: 0 the signature holds, 3 it does not, 1 it could not be looked at.

Examples:
  bastide-sign verify secureboot --trust site/trust x.signed.efi
  bastide-sign verify secureboot --cert site/trust/db.der x.signed.efi")]
pub struct SecureBoot {
    /// Trust directory of a site, for its db certificate
    #[arg(long, value_name = "DIR", required_unless_present = "cert")]
    trust: Option<PathBuf>,
    /// Certificate in DER
    #[arg(long, value_name = "FILE", conflicts_with = "trust")]
    cert: Option<PathBuf>,
    /// Boot image
    image: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(command: &VerifyCommand) -> Result<()> {
    match command {
        VerifyCommand::Openpgp(args) => openpgp(args),
        VerifyCommand::Secureboot(args) => secure_boot(args),
    }
}

#[derive(Serialize)]
struct Holds<'a> {
    verdict: &'static str,
    file: &'a Path,
    signers: Vec<String>,
    signed_at: Option<DateTime<Utc>>,
}

fn openpgp(args: &OpenPgp) -> Result<()> {
    let keyring = args.certificates.keyring()?;
    let at = args.at.unwrap_or_else(clock::now);
    let context = || format!("verifying {}", args.file.display());
    let (signers, signed_at) = if args.cleartext {
        let message = read_bounded(&args.file, MAX_CLEARTEXT as u64).with_context(context)?;
        let verified = verify_cleartext(&keyring, &message, at).with_context(context)?;
        if let Some(out) = &args.out {
            durable::write(out, &verified.body).with_context(|| format!("cannot write {}", out.display()))?;
        }
        (verified.signers, Some(verified.signed_at))
    } else {
        let signers = detached(args, &keyring, at).with_context(context)?;
        let signed_at = signers.iter().map(|signer| signer.signed_at).max();
        (
            signers.into_iter().map(|signer| signer.fingerprint).collect(),
            signed_at,
        )
    };
    if args.json {
        return Ok(output::json(&Holds {
            verdict: "pass",
            file: &args.file,
            signers,
            signed_at,
        })?);
    }
    for signer in signers {
        output::line(&format!("{}: good signature of {signer}", args.file.display()))?;
    }
    Ok(())
}

/// One signature by the rules for one, or so many people as must sign.
fn detached(args: &OpenPgp, keyring: &Path, at: DateTime<Utc>) -> Result<Vec<Signer>> {
    let mut signatures = Vec::new();
    let paths = match &args.signature[..] {
        [] => &[signature_of(&args.file)],
        given => given,
    };
    for path in paths {
        let name = path.display().to_string();
        let signature =
            read_bounded(path, MAX_SIGNATURE as u64).with_context(|| format!("cannot read the signature {name}"))?;
        signatures.push((name, signature));
    }
    let file = open(&args.file)?;
    let Some(threshold) = args.threshold else {
        let [(_, signature)] = &signatures[..] else {
            bail!(Usage("several signatures go with --threshold".to_owned()));
        };
        return Ok(verify_detached(keyring, file, signature, at)?);
    };
    let data = read_to_limit(&mut &file, MAX_COUNTED)?;
    let person = |fingerprint: &str| Ok(fingerprint.to_owned());
    let counted = count_signers(&read_keyring(keyring)?, &data, &signatures, &person, at)?;
    Ok(counted.reach(threshold.into())?.signers)
}

#[derive(Serialize)]
struct ImageHolds<'a> {
    verdict: &'static str,
    image: &'a Path,
    #[serde(flatten)]
    signature: PeSignature,
}

fn secure_boot(args: &SecureBoot) -> Result<()> {
    let certificate = match (&args.trust, &args.cert) {
        (Some(trust), _) => Trust::open(trust)?.certificate(Variable::Db)?.to_der().to_vec(),
        (None, Some(path)) => {
            read_bounded(path, MAX_CERTIFICATE).with_context(|| format!("cannot read {}", path.display()))?
        }
        // clap demands one of the two.
        (None, None) => Vec::new(),
    };
    let context = || format!("verifying {}", args.image.display());
    let mut file = open_regular(&args.image).with_context(context)?;
    if file.metadata().with_context(context)?.len() > MAX_IMAGE {
        let refused = Refused(format!("it is longer than any boot image ({} MiB)", MAX_IMAGE >> 20));
        return Err(refused).with_context(context);
    }
    let image = read_to_limit(&mut file, MAX_IMAGE).with_context(context)?;
    let signature = match verify_pe(&image, &certificate) {
        // What is no boot image carries no signature that holds.
        Err(error @ SecureBootError::Image(_)) => Err(Refused(error.to_string())).with_context(context)?,
        judged => judged.with_context(context)?,
    };
    if args.json {
        return Ok(output::json(&ImageHolds {
            verdict: "pass",
            image: &args.image,
            signature,
        })?);
    }
    Ok(output::line(&format!(
        "{}: good signature of {:?}\n  Authenticode {}",
        args.image.display(),
        signature.signer,
        signature.image_sha256
    ))?)
}
