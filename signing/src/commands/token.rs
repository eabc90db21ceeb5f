// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-sign token`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use chrono::Timelike;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use signing::digest::Sha256;
use signing::keys::token::{KeyUri, TokenKey};
use signing::keys::{Algorithm, SigningKey};
use signing::output::Usage;
use signing::secureboot::Identity;
use signing::{clock, durable, openpgp, output};

use super::{PassphraseArgs, free};

#[derive(Subcommand)]
pub enum TokenCommand {
    /// Make a key in a token, which never leaves it
    Make(Make),
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// ECDSA on P-256, for TUF metadata and OpenPGP
    P256,
    /// RSA with 3072 bits, for Secure Boot
    Rsa3072,
}

#[derive(Args)]
#[command(after_long_help = "\
The passphrase is the token's PIN. The file *.uri stands wherever a key file
can: as ceremony's --key and --existing, and as SITE/private/NAME.uri in the
place of NAME.pem. An OpenPGP key needs its certificate too: as NAME.asc beside
NAME.uri, and for SITE/private/release-openpgp.uri as SITE/trust/release.asc.

Examples:
  bastide-sign token make --out timestamp.uri --passphrase-file pin \\
    'pkcs11:token=vault;object=timestamp?module-path=/usr/lib/x.so'
  bastide-sign token make --out db.uri --passphrase-file pin \\
    --kind rsa3072 --certificate db.der --name 'Example db' \\
    'pkcs11:token=vault;object=db?module-path=/usr/lib/x.so'
  bastide-sign token make --out anna.uri --passphrase-file pin \\
    --certificate anna.asc --name Anna \\
    'pkcs11:token=anna;object=openpgp?module-path=/usr/lib/x.so'")]
pub struct Make {
    /// Where the key is to lie (RFC 7512): token=, object= and ?module-path=
    uri: String,
    /// Kind of key
    #[arg(long, value_enum, default_value = "p256")]
    kind: Kind,
    /// Name the key that is there already, made by the token's own tools, as on an OpenPGP card
    #[arg(long, conflicts_with = "kind")]
    existing: bool,
    /// File that names the key from now on, *.uri
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Write a self-signed certificate: of --kind rsa3072 for Secure Boot (DER), of p256 for OpenPGP (armored, *.asc)
    #[arg(long, value_name = "FILE", requires = "name")]
    certificate: Option<PathBuf>,
    /// Name in the certificate
    #[arg(long, requires = "certificate")]
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(Serialize)]
struct Made<'a> {
    key: &'a Path,
    algorithm: Algorithm,
    public_sha256: Sha256,
    certificate: Option<&'a Path>,
}

pub fn run(command: &TokenCommand) -> Result<()> {
    let TokenCommand::Make(args) = command;
    if args.out.extension().is_none_or(|end| end != "uri") {
        bail!(Usage(format!("--out {} does not end in .uri", args.out.display())));
    }
    for place in [Some(&args.out), args.certificate.as_ref()].into_iter().flatten() {
        free(place, ": name another place")?;
    }
    let uri = KeyUri::parse(&args.uri)?;
    let pin = args.passphrase.obtain("PIN of the token: ")?;
    let key = match args.kind {
        _ if args.existing => TokenKey::open(&uri, &pin)?,
        Kind::P256 => TokenKey::generate(&uri, &pin, Algorithm::EcdsaP256)?,
        Kind::Rsa3072 => TokenKey::generate(&uri, &pin, Algorithm::Rsa3072)?,
    };
    let algorithm = key.public().algorithm();
    let public_sha256 = key.public().fingerprint();
    durable::write(&args.out, format!("{}\n", args.uri).as_bytes())
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    if let (Some(place), Some(name)) = (&args.certificate, &args.name) {
        let now = clock::now();
        let now = now.with_nanosecond(0).unwrap_or(now);
        let certificate = match algorithm {
            Algorithm::Rsa3072 => Identity::certify(name, key, now)?.certificate().to_der().to_vec(),
            _ => openpgp::certify(name, &key, now)?.into_bytes(),
        };
        durable::write(place, &certificate).with_context(|| format!("cannot write {}", place.display()))?;
    }
    if args.json {
        return Ok(output::json(&Made {
            key: &args.out,
            algorithm,
            public_sha256,
            certificate: args.certificate.as_deref(),
        })?);
    }
    output::line(&format!("{}: {algorithm} in the token", args.out.display()))?;
    Ok(output::line(&format!("  {public_sha256}"))?)
}
