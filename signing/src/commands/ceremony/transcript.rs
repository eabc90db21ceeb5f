// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-sign ceremony sign-transcript` and `bastide-sign ceremony verify`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;
use signing::ceremony::{self, MAX_FILE, MAX_TRANSCRIPT, Transcript, Verified, short};
use signing::digest::read_bounded;
use signing::openpgp::{Cert, MAX_SIGNATURE, OpenPgpKey};
use signing::output::Refused;
use signing::tuf::root::signed_part;
use signing::{clock, durable, output};

use super::{RootArgs, files};
use crate::commands::PassphraseArgs;

/// The most signatures and certificates that are looked at.
const MAX_FILES: usize = 256;

#[derive(Args)]
#[command(after_long_help = "\
The ceremony that the transcript tells of is repeated before it is signed.
GnuPG makes such a signature too: gpg --armor --detach-sign transcript.txt

Examples:
  bastide-sign ceremony sign-transcript renewed/transcript.txt \\
    --root 1.root.json --key anna/anna.openpgp.asc \\
    --passphrase-file passphrase")]
pub struct SignTranscript {
    /// Transcript
    transcript: PathBuf,
    #[command(flatten)]
    root: RootArgs,
    /// Your OpenPGP key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where the signature goes [default: TRANSCRIPT.KEY.asc]
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
Needs no key. The ceremony is repeated from the transcript and the old root,
its words are written anew and compared, and distinct certificates are counted.
Exit status: 0 all holds, 3 something does not, 1 it could not be looked at.

Examples:
  bastide-sign ceremony verify renewed/transcript.txt --root 1.root.json \\
    --certs certs --threshold 2
  bastide-sign ceremony verify renewed/transcript.txt --root 1.root.json \\
    --certs certs --new renewed/2.root.json --json")]
pub struct Verify {
    /// Transcript
    transcript: PathBuf,
    #[command(flatten)]
    root: RootArgs,
    /// Directory or file with the custodians' certificates: *.asc, and the
    /// *.public.json that they handed in
    #[arg(long, value_name = "DIR")]
    certs: PathBuf,
    /// How many certificates must have signed [default: as many as keys had
    /// to sign the root]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    threshold: Option<u64>,
    /// Detached signature [default: all TRANSCRIPT.*.asc]
    #[arg(long, value_name = "FILE")]
    signature: Vec<PathBuf>,
    /// New root that is to be the one of the transcript
    #[arg(long, value_name = "FILE")]
    new: Option<PathBuf>,
    /// Judge as of this time instead of now
    #[arg(long, value_parser = clock::parse)]
    at: Option<DateTime<Utc>>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Signed<'a> {
    transcript: &'a Path,
    signature: &'a Path,
    signer: &'a str,
}

pub fn sign(args: &SignTranscript) -> Result<()> {
    let old = args.root.read()?;
    let text = read(&args.transcript)?;
    let context = || format!("checking {}", args.transcript.display());
    Transcript::verify(&text, old.as_ref()).with_context(context)?;
    let same = |out: &PathBuf| {
        let out = out.canonicalize();
        out.is_ok_and(|out| args.transcript.canonicalize().is_ok_and(|text| text == out))
    };
    if args.out.as_ref().is_some_and(same) {
        return super::usage("the signature would replace the transcript: name another --out");
    }
    let passphrase = args.passphrase.obtain("Passphrase of your OpenPGP key: ")?;
    let key = OpenPgpKey::own(&args.key, &passphrase)?;
    let fingerprint = key.fingerprint();
    let out = args.out.clone().unwrap_or_else(|| {
        let mut name = OsString::from(&args.transcript);
        name.push(format!(".{}.asc", &fingerprint[..16]));
        name.into()
    });
    let signature = key.sign_detached(&text[..])?;
    durable::write(&out, signature.as_bytes()).with_context(|| format!("cannot write {}", out.display()))?;
    if args.json {
        return Ok(output::json(&Signed {
            transcript: &args.transcript,
            signature: &out,
            signer: fingerprint,
        })?);
    }
    Ok(output::line(&format!("{}: signature of {fingerprint}", out.display()))?)
}

pub fn verify(args: &Verify) -> Result<()> {
    let old = args.root.read()?;
    let text = read(&args.transcript)?;
    let context = || format!("verifying {}", args.transcript.display());
    let certs = read_certs(&args.certs)?;
    let signatures = signatures(args)?;
    let threshold = match args.threshold {
        Some(threshold) => threshold,
        None => {
            let told = Transcript::verify(&text, old.as_ref()).with_context(context)?;
            told.rules.iter().map(|rule| rule.due.threshold).max().unwrap_or(1)
        }
    };
    let at = args.at.unwrap_or_else(clock::now);
    let threshold = usize::try_from(threshold)?;
    let verified = ceremony::verify(&text, old.as_ref(), &certs, &signatures, threshold, at).with_context(context)?;
    if let Some(path) = &args.new {
        let new = read_bounded(path, MAX_FILE).with_context(|| format!("cannot read {}", path.display()))?;
        let (told, _) = verified.ceremony.complete()?;
        if signed_part("the new root", &new)? != signed_part("the transcript's root", told)? {
            return Err(Refused(format!("{} is not the root of this transcript", path.display())).into());
        }
        match &old {
            Some(old) => old.judge(verified.ceremony.root_version, &new)?,
            None => signing::tuf::root::judge_first(&new)?,
        }
    }
    if args.json {
        return Ok(output::json(&verified)?);
    }
    print(&args.transcript, &verified)
}

fn print(path: &Path, verified: &Verified) -> Result<()> {
    let ceremony = &verified.ceremony;
    output::line(&format!(
        "{}: root {}, request {}",
        path.display(),
        ceremony.root_version,
        short(&ceremony.request)
    ))?;
    for rule in &ceremony.rules {
        output::line(&format!(
            "  by the rules of root {}: {} keys signed, {} must",
            rule.due.root,
            rule.signed.len(),
            rule.due.threshold
        ))?;
    }
    output::line(&format!(
        "  the transcript is signed by {} certificates, {} must",
        verified.signers.len(),
        verified.threshold
    ))?;
    for signer in &verified.signers {
        let name = signer.custodian.as_deref().unwrap_or("(not named in the root)");
        output::line(&format!("    {}  {name}", signer.fingerprint))?;
    }
    for (name, why) in &verified.refused_signatures {
        output::line(&format!("  refused: {name}: {why}"))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    read_bounded(path, MAX_TRANSCRIPT).with_context(|| format!("cannot read {}", path.display()))
}

fn read_certs(path: &Path) -> Result<Vec<Cert>> {
    let paths = files(path, |name| name.ends_with(".asc") || name.ends_with(".public.json"))?;
    ensure!(paths.len() <= MAX_FILES, "more than {MAX_FILES} certificate files");
    let looked = path.display();
    let mut certs = Vec::new();
    for path in paths {
        certs.extend(ceremony::read_certificates(&path)?);
    }
    if certs.is_empty() {
        return Err(Refused(format!(
            "no certificates in {looked}: put all custodians' *.public.json or *.asc there"
        ))
        .into());
    }
    Ok(certs)
}

fn signatures(args: &Verify) -> Result<Vec<(String, Vec<u8>)>> {
    let mut paths = args.signature.clone();
    if paths.is_empty() {
        let name = args
            .transcript
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
            + ".";
        let directory = match args.transcript.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        paths = files(directory, |found| found.starts_with(&name) && found.ends_with(".asc"))?;
        if paths.is_empty() {
            return Err(Refused(format!(
                "no signature of this transcript in {}, where {name}*.asc was looked for: put the custodians' there, or name \
                 them with --signature",
                directory.display()
            ))
            .into());
        }
    }
    ensure!(paths.len() <= MAX_FILES, "more than {MAX_FILES} signatures");
    let read = |path: &PathBuf| {
        let bytes = read_bounded(path, MAX_SIGNATURE as u64);
        Ok((
            path.display().to_string(),
            bytes.with_context(|| format!("cannot read {}", path.display()))?,
        ))
    };
    paths.iter().map(read).collect()
}
