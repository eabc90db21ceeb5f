// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-sign ceremony keygen`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use signing::ceremony::{CustodianFile, check_name, short};
use signing::digest::Sha256;
use signing::keys::{self, Algorithm, Passphrase, PrivateKey, SigningKey};
use signing::{clock, durable, openpgp, output};

use crate::commands::site::new_passphrase;
use crate::commands::{PassphraseArgs, free};

#[derive(Args)]
#[command(after_long_help = "\
Makes NAME.key.pem and NAME.openpgp.asc, which stay with you, encrypted, and
NAME.public.json, which you hand in. Tell the fingerprint that is printed to
the others with your own voice. A role's key is made with --no-openpgp.

Examples:
  bastide-sign ceremony keygen --name Anna --dir anna \\
    --passphrase-file passphrase
  bastide-sign ceremony keygen --name timestamp --dir roles --no-openpgp \\
    --passphrase-file passphrase
  bastide-sign ceremony keygen --name targets --dir roles --no-openpgp \\
    --existing site/private/targets.pem --passphrase-file passphrase")]
pub struct Keygen {
    /// Custodian's name (or a role's), which stands in public metadata
    #[arg(long)]
    name: String,
    /// Directory for the files; it is made if there is none
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Key file that there is already, or the *.uri file of a key in a token:
    /// makes its public file only
    #[arg(long, value_name = "FILE")]
    existing: Option<PathBuf>,
    /// Make no OpenPGP key for transcripts
    #[arg(long)]
    no_openpgp: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(Serialize)]
struct Made<'a> {
    name: &'a str,
    keyid: Sha256,
    fingerprint: String,
    openpgp: Option<&'a str>,
    public: &'a Path,
    private: Vec<&'a Path>,
}

pub fn run(args: &Keygen) -> Result<()> {
    check_name(&args.name)?;
    let stem = args.name.to_lowercase().replace(' ', "-");
    let at = |end: &str| args.dir.join(format!("{stem}.{end}"));
    let (key_file, openpgp_file, public_file) = (at("key.pem"), at("openpgp.asc"), at("public.json"));
    for path in [&key_file, &openpgp_file, &public_file] {
        free(
            path,
            "; a key is never overwritten: choose another directory, or give it with --existing",
        )?;
    }
    let passphrase = match &args.existing {
        Some(_) => args.passphrase.obtain("Passphrase of the key: ")?,
        None => new_passphrase(&args.passphrase)?,
    };
    // Opened before anything is made.
    let key = match &args.existing {
        Some(path) => Some(keys::open_file(path, &passphrase)?),
        None => None,
    };
    std::fs::create_dir_all(&args.dir).with_context(|| format!("cannot make {}", args.dir.display()))?;
    let mut private: Vec<&Path> = Vec::new();
    let key: Box<dyn SigningKey> = match key {
        Some(key) => key,
        None => {
            let key = PrivateKey::generate(Algorithm::Ed25519)?;
            keys::write_new(&key_file, &key, &passphrase)?;
            private.push(&key_file);
            Box::new(key)
        }
    };
    let mut openpgp = None;
    if !args.no_openpgp {
        openpgp = Some(new_openpgp(&args.name, &openpgp_file, &passphrase)?);
        private.push(&openpgp_file);
    }
    let file = CustodianFile::new(&args.name, key, openpgp)?;
    let mut text = serde_json::to_string_pretty(&file)?;
    text.push('\n');
    durable::write(&public_file, text.as_bytes()).with_context(|| format!("cannot write {}", public_file.display()))?;
    let keyid = file.keyid()?;
    if args.json {
        return Ok(output::json(&Made {
            name: &args.name,
            keyid,
            fingerprint: short(&keyid),
            openpgp: file.openpgp.as_deref(),
            public: &public_file,
            private,
        })?);
    }
    output::line(&format!("Key of {}: {}", args.name, short(&keyid)))?;
    if let Some(openpgp) = &file.openpgp {
        output::line(&format!("  OpenPGP   {openpgp}"))?;
    }
    for path in private {
        output::line(&format!("  keep      {}", path.display()))?;
    }
    output::line(&format!("  hand in   {}", public_file.display()))?;
    Ok(())
}

fn new_openpgp(name: &str, place: &Path, passphrase: &Passphrase) -> Result<(String, String)> {
    let made = openpgp::generate(name, passphrase, clock::now())?;
    durable::write_private(place, made.key.as_bytes()).with_context(|| format!("cannot write {}", place.display()))?;
    Ok((made.fingerprint, made.certificate))
}
