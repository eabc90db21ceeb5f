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
use signing::{clock, durable, output};

use super::{PassphraseArgs, free};

#[derive(Subcommand)]
pub enum TokenCommand {
    /// Make a key in a token, which never leaves it
    Make(Make),
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// ECDSA on P-256, for TUF metadata
    P256,
    /// RSA with 3072 bits, for Secure Boot
    Rsa3072,
}

#[derive(Args)]
#[command(after_long_help = "\
The passphrase is the token's PIN. The file *.uri stands wherever a key file
can: as ceremony's --key and --existing, and as SITE/private/NAME.uri in the
place of NAME.pem.

Examples:
  bastide-sign token make --out timestamp.uri --passphrase-file pin \\
    'pkcs11:token=vault;object=timestamp?module-path=/usr/lib/x.so'
  bastide-sign token make --out db.uri --passphrase-file pin \\
    --kind rsa3072 --certificate db.der --name 'Example db' \\
    'pkcs11:token=vault;object=db?module-path=/usr/lib/x.so'")]
pub struct Make {
    /// Where the key is to lie (RFC 7512): token=, object= and ?module-path=
    uri: String,
    /// Kind of key
    #[arg(long, value_enum, default_value = "p256")]
    kind: Kind,
    /// File that names the key from now on, *.uri
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Write a self-signed certificate, for Secure Boot
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
    let algorithm = match args.kind {
        Kind::P256 => Algorithm::EcdsaP256,
        Kind::Rsa3072 => Algorithm::Rsa3072,
    };
    if args.certificate.is_some() && algorithm != Algorithm::Rsa3072 {
        bail!(Usage("a certificate is for a key of --kind rsa3072".to_owned()));
    }
    let pin = args.passphrase.obtain("PIN of the token: ")?;
    let key = TokenKey::generate(&uri, &pin, algorithm)?;
    let public_sha256 = key.public().fingerprint();
    durable::write(&args.out, format!("{}\n", args.uri).as_bytes())
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    if let (Some(place), Some(name)) = (&args.certificate, &args.name) {
        let now = clock::now();
        let identity = Identity::certify(name, key, now.with_nanosecond(0).unwrap_or(now))?;
        durable::write(place, identity.certificate().to_der())
            .with_context(|| format!("cannot write {}", place.display()))?;
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
