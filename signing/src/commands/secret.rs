// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-sign encrypt` and `bastide-sign decrypt`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use signing::digest::read_bounded;
use signing::keys::read_private;
use signing::openpgp::{self, MAX_SECRET, read_keyring};
use signing::output::Usage;
use signing::site::Site;
use signing::{clock, durable, output};

use super::{Certificates, PassphraseArgs, free};

/// Armor makes a message a third longer.
const MAX_MESSAGE: u64 = 2 * MAX_SECRET;
const SUFFIX: &str = "pgp";

#[derive(Args)]
#[command(after_long_help = "\
For what only the vault may read: recovery keys, answers with passwords in
them. Everybody with the trust directory can encrypt, and every certificate of
a keyring can read it. GnuPG decrypts it too.
The file itself stays where it is: destroy it yourself.

Examples:
  bastide-sign encrypt --trust site/trust answer.toml
  bastide-sign encrypt --keyring site/trust/release.asc answer.toml \\
    --out answer.asc")]
pub struct Encrypt {
    #[command(flatten)]
    certificates: Certificates,
    /// File to encrypt, of at most 1 MiB
    file: PathBuf,
    /// Where the armored message goes [default: FILE.pgp]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_long_help = "\
The result is readable by its owner alone, and nothing is overwritten.

Examples:
  bastide-sign decrypt --site site --passphrase-file passphrase \\
    answer.toml.pgp --out answer.decrypted.toml")]
pub struct Decrypt {
    /// The site whose release key reads it
    #[arg(long, value_name = "DIR", required_unless_present = "key")]
    site: Option<PathBuf>,
    /// OpenPGP key that reads it
    #[arg(long, value_name = "FILE", conflicts_with = "site")]
    key: Option<PathBuf>,
    /// Encrypted file
    file: PathBuf,
    /// Where the text goes [default: FILE without .pgp]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(Serialize)]
struct Encrypted<'a> {
    file: &'a Path,
    message: &'a Path,
    recipients: Vec<String>,
}

#[derive(Serialize)]
struct Decrypted<'a> {
    message: &'a Path,
    file: &'a Path,
}

pub fn encrypt(args: &Encrypt) -> Result<()> {
    let mut certs = read_keyring(&args.certificates.keyring()?)?;
    if args.certificates.trust.is_some() {
        // Officers sign beside the release key, whose certificate comes first; the vault alone reads.
        certs.truncate(1);
    }
    let context = || format!("cannot encrypt {}", args.file.display());
    let text = zeroize::Zeroizing::new(read_bounded(&args.file, MAX_SECRET).with_context(context)?);
    let message = openpgp::encrypt(&certs, &text, clock::now()).with_context(context)?;
    let out = args.out.clone().unwrap_or_else(|| {
        let mut name = OsString::from(&args.file);
        name.push(format!(".{SUFFIX}"));
        name.into()
    });
    free(&out, ": name another --out")?;
    durable::write(&out, message.as_bytes()).with_context(|| format!("cannot write {}", out.display()))?;
    let recipients: Vec<_> = certs.iter().map(|cert| cert.fingerprint().to_hex()).collect();
    if args.json {
        return Ok(output::json(&Encrypted {
            file: &args.file,
            message: &out,
            recipients,
        })?);
    }
    for recipient in recipients {
        output::line(&format!("{}: encrypted to {recipient}", out.display()))?;
    }
    Ok(())
}

pub fn decrypt(args: &Decrypt) -> Result<()> {
    let out = match &args.out {
        Some(out) => out.clone(),
        None if args.file.extension().is_some_and(|end| end == SUFFIX) => args.file.with_extension(""),
        None => bail!(Usage(format!(
            "{} does not end in .{SUFFIX}: name the place of the text with --out",
            args.file.display()
        ))),
    };
    free(&out, ": name another --out")?;
    let place = match (&args.site, &args.key) {
        (Some(site), _) => Site::open(site)?.release_key_file(),
        (None, Some(key)) => key.clone(),
        // clap demands one of the two.
        (None, None) => PathBuf::new(),
    };
    let key = read_private(&place, MAX_SECRET)?;
    let context = || format!("cannot decrypt {}", args.file.display());
    let message = read_bounded(&args.file, MAX_MESSAGE).with_context(context)?;
    let passphrase = args.passphrase.obtain("Passphrase of the OpenPGP key: ")?;
    let text = openpgp::decrypt(&key, &passphrase, &message, clock::now()).with_context(context)?;
    durable::write_private(&out, &text).with_context(|| format!("cannot write {}", out.display()))?;
    if args.json {
        return Ok(output::json(&Decrypted {
            message: &args.file,
            file: &out,
        })?);
    }
    Ok(output::line(&format!("{}: decrypted", out.display()))?)
}
