// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-sign openpgp` and `bastide-sign secureboot`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use signing::digest::{Sha256, read_bounded};
use signing::durable;
use signing::openpgp::{MAX_SIGNATURE, OpenPgpKey, join};
use signing::output::{self, Usage};
use signing::secureboot::{sign_pe, verify_pe};
use signing::site::Site;

use super::{PassphraseArgs, open};

/// The largest boot image; ours are a quarter of it.
pub const MAX_IMAGE: u64 = 256 << 20;

#[derive(Args)]
#[command(after_long_help = "\
GnuPG verifies the signature with the certificate trust/release.asc.
Where several officers must sign, each adds a signature with a key of his own:
beside timestamp.json of version N they lie in N.timestamp.json.asc.

Examples:
  bastide-sign openpgp --site site --passphrase-file passphrase file
  bastide-sign openpgp --site site --passphrase-file passphrase file \\
    --out file.sig --json
  bastide-sign openpgp --key anna.openpgp.asc --add timestamp.json \\
    --out 3.timestamp.json.asc")]
pub struct OpenPgp {
    /// The site's directory, to sign with its release key
    #[arg(long, value_name = "DIR", required_unless_present = "key")]
    site: Option<PathBuf>,
    /// Your own OpenPGP key; of one in a token (anna.uri) the certificate
    /// lies beside it (anna.asc)
    #[arg(long, value_name = "FILE", conflicts_with = "site")]
    key: Option<PathBuf>,
    /// Add to the signatures that are there, instead of replacing them
    #[arg(long)]
    add: bool,
    /// File to sign
    file: PathBuf,
    /// Where the armored signature goes [default: FILE.asc]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(Args)]
#[command(after_long_help = "\
The signature carries no time: the same image and key give the same bytes.
Firmware, and sbverify, verify it with the certificate trust/db.der.

Examples:
  bastide-sign secureboot --site site --passphrase-file passphrase \\
    --in x.efi --out x.signed.efi")]
pub struct SecureBoot {
    /// The site's directory
    #[arg(long, value_name = "DIR")]
    site: PathBuf,
    /// Unsigned boot image
    #[arg(long = "in", value_name = "FILE")]
    input: PathBuf,
    /// Where the signed image goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(Serialize)]
struct Signed<'a> {
    file: &'a Path,
    signature: &'a Path,
    signer: &'a str,
}

pub fn openpgp(args: &OpenPgp) -> Result<()> {
    let site = args.site.as_deref().map(Site::open).transpose()?;
    let file = open(&args.file)?;
    let out = args.out.clone().unwrap_or_else(|| signature_of(&args.file));
    if out
        .canonicalize()
        .is_ok_and(|out| args.file.canonicalize().is_ok_and(|file| file == out))
    {
        bail!(
            "the signature would replace the signed file {}: name another --out",
            out.display()
        );
    }
    let adding = || format!("cannot add to the signatures {}", out.display());
    let standing = match args.add {
        true => Some(read_bounded(&out, MAX_SIGNATURE as u64).with_context(adding)?),
        false => None,
    };
    let passphrase = args.passphrase.obtain(match &site {
        Some(_) => "Passphrase of the release key: ",
        None => "Passphrase of your OpenPGP key: ",
    })?;
    let key = match (&site, &args.key) {
        (Some(site), _) => site.release_key(&passphrase)?,
        (None, Some(path)) => OpenPgpKey::own(path, &passphrase)?,
        (None, None) => bail!(Usage("name --site or --key".to_owned())),
    };
    let mut signature = key
        .sign_detached(file)
        .with_context(|| format!("cannot sign {}", args.file.display()))?;
    if let Some(standing) = standing {
        signature = join(&standing, signature.as_bytes()).with_context(adding)?;
    }
    durable::write(&out, signature.as_bytes()).with_context(|| format!("cannot write {}", out.display()))?;
    let signer = key.fingerprint();
    if args.json {
        return Ok(output::json(&Signed {
            file: &args.file,
            signature: &out,
            signer,
        })?);
    }
    Ok(output::line(&format!("{}: signature of {signer}", out.display()))?)
}

/// `FILE.asc`.
pub fn signature_of(file: &Path) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(".asc");
    name.into()
}

#[derive(Serialize)]
struct SignedImage<'a> {
    image: &'a Path,
    sha256: Sha256,
    #[serde(flatten)]
    signature: signing::secureboot::PeSignature,
}

pub fn secure_boot(args: &SecureBoot) -> Result<()> {
    let site = Site::open(&args.site)?;
    let image =
        read_bounded(&args.input, MAX_IMAGE).with_context(|| format!("cannot read {}", args.input.display()))?;
    let passphrase = args.passphrase.obtain("Passphrase of the db key: ")?;
    let identity = site.db_key(&passphrase)?;
    let signed = sign_pe(&image, &identity).with_context(|| format!("cannot sign {}", args.input.display()))?;
    drop(image);
    // A signature that does not verify must not leave the vault.
    let signature = verify_pe(&signed, identity.certificate().to_der())
        .with_context(|| format!("checking the signature just made of {}", args.input.display()))?;
    durable::write(&args.out, &signed).with_context(|| format!("cannot write {}", args.out.display()))?;
    if args.json {
        return Ok(output::json(&SignedImage {
            image: &args.out,
            sha256: Sha256::of(&signed),
            signature,
        })?);
    }
    Ok(output::line(&format!(
        "{}: signed by {:?}\n  Authenticode {}",
        args.out.display(),
        signature.signer,
        signature.image_sha256
    ))?)
}
