// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-sign ceremony sign` and `bastide-sign ceremony assemble`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use signing::ceremony::{self, Assembled, Fragment, MAX_FRAGMENTS, Request};
use signing::digest::Sha256;
use signing::output::Refused;
use signing::{clock, durable, keys, output};

use super::{RootArgs, files, show};
use crate::commands::PassphraseArgs;

#[derive(Args)]
#[command(after_long_help = "\
Every word that is shown is computed from your own copy of the old root and
from the bytes to be signed. Compare the fingerprint with the other custodians
before you give your passphrase, or hand it in with --fingerprint.

Examples:
  bastide-sign ceremony sign renewal.json --root 1.root.json --dry-run
  bastide-sign ceremony sign renewal.json --root 1.root.json \\
    --key anna/anna.key.pem --passphrase-file passphrase \\
    --out anna.fragment.json
  bastide-sign ceremony sign first.json --key anna/anna.key.pem \\
    --passphrase-file passphrase")]
pub struct Sign {
    /// Signing request
    request: PathBuf,
    #[command(flatten)]
    root: RootArgs,
    /// Your key file, or the *.uri file of your key in a token
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    key: Option<PathBuf>,
    /// Fingerprint that you were told, short or whole: sign nothing else
    #[arg(long, value_name = "DIGITS")]
    fingerprint: Option<String>,
    /// Where the fragment goes [default: VERSION.KEY.fragment.json]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Show the request, check it, and sign nothing
    #[arg(long)]
    dry_run: bool,
    /// Print no QR code
    #[arg(long)]
    no_qr: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(Args)]
#[command(after_long_help = "\
Needs no key. Give all fragments that have come, in any order, as often as you
like: the fragments are all that it remembers. A fragment that does not hold
is named and passed over. Writes N.root.json and transcript.txt once enough
keys have signed; until then it says who is missing and ends with 3.

Examples:
  bastide-sign ceremony assemble renewal.json --root 1.root.json \\
    --out renewed anna.fragment.json ben.fragment.json
  bastide-sign ceremony assemble renewal.json --root 1.root.json \\
    --out renewed fragments --json")]
pub struct Assemble {
    /// Signing request
    request: PathBuf,
    #[command(flatten)]
    root: RootArgs,
    /// Fragments, and directories with *.fragment.json in them
    #[arg(required = true, value_name = "FILE")]
    fragments: Vec<PathBuf>,
    /// Directory for the new root and the transcript
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Sign) -> Result<()> {
    let old = args.root.read()?;
    let request = Request::read(&args.request)?;
    let context = || format!("reading the signing request {}", args.request.display());
    let new = request.verify(old.as_ref()).with_context(context)?;
    if let Some(told) = &args.fingerprint {
        let digits = told.replace(|c: char| c.is_whitespace(), "").to_ascii_lowercase();
        let due = request.fingerprint()?.to_string();
        if digits.len() < 20 || !due.starts_with(&digits) {
            return Err(Refused(format!(
                "{} has the fingerprint {}, and you were told another or fewer than 20 digits",
                args.request.display(),
                ceremony::short(&request.fingerprint()?)
            ))
            .into());
        }
    }
    let show = |fragment: Option<&Path>, json| show(&request, &args.request, old.as_ref(), fragment, json, !args.no_qr);
    let (Some(key), false) = (&args.key, args.dry_run) else {
        return show(None, args.json);
    };
    if !args.json {
        show(None, false)?;
    }
    let passphrase = args.passphrase.obtain("To sign this, the passphrase of your key: ")?;
    let fragment = Fragment::sign(&request, old.as_ref(), keys::open_file(key, &passphrase)?, clock::now())?;
    let out = args.out.clone().unwrap_or_else(|| {
        let keyid = fragment.keyid.to_string();
        format!("{}.{}.fragment.json", new.version, &keyid[..8]).into()
    });
    durable::write(&out, fragment.to_text()?.as_bytes()).with_context(|| format!("cannot write {}", out.display()))?;
    if args.json {
        return show(Some(&out), true);
    }
    output::line(&format!(
        "\n{}: signed by {}; hand it in",
        out.display(),
        fragment.custodian
    ))?;
    Ok(())
}

#[derive(Serialize)]
struct Outcome<'a> {
    complete: bool,
    #[serde(flatten)]
    assembled: &'a Assembled,
    root: Option<PathBuf>,
    root_sha256: Option<Sha256>,
    transcript: Option<PathBuf>,
}

pub fn assemble(args: &Assemble) -> Result<()> {
    let old = args.root.read()?;
    let request = Request::read(&args.request)?;
    let mut paths = Vec::new();
    for path in &args.fragments {
        paths.extend(files(path, |name| name.ends_with("fragment.json"))?);
    }
    ensure!(
        paths.len() <= MAX_FRAGMENTS,
        "{} fragments are more than the {MAX_FRAGMENTS} that are looked at",
        paths.len()
    );
    let fragments = paths
        .iter()
        .map(|path| (path.display().to_string(), Fragment::read(path)));
    let assembled = ceremony::assemble(&request, old.as_ref(), fragments)
        .with_context(|| format!("assembling {}", args.request.display()))?;
    let mut told = Outcome {
        complete: assembled.root.is_some(),
        assembled: &assembled,
        root: None,
        root_sha256: None,
        transcript: None,
    };
    if let Ok((root, transcript)) = assembled.complete() {
        let place = args.out.join(format!("{}.root.json", assembled.root_version));
        let text = args.out.join("transcript.txt");
        std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
        put(&args.out, &text, transcript.text().as_bytes())?;
        durable::write(&place, root).with_context(|| format!("cannot write {}", place.display()))?;
        told.root_sha256 = Some(Sha256::of(root));
        (told.root, told.transcript) = (Some(place), Some(text));
    }
    if args.json {
        output::json(&told)?;
    } else {
        print(&told)?;
    }
    assembled.complete().map(drop)
}

/// Writes the transcript, unless custodians have signed another one that stands there.
fn put(directory: &Path, place: &Path, text: &[u8]) -> Result<()> {
    if std::fs::read(place).is_ok_and(|standing| standing != text) {
        let signed = files(directory, |name| {
            name.starts_with("transcript.txt.") && name.ends_with(".asc")
        })?;
        if !signed.is_empty() {
            return Err(Refused(format!(
                "custodians have signed the other transcript that stands at {}: name another --out",
                place.display()
            ))
            .into());
        }
    }
    durable::write(place, text).with_context(|| format!("cannot write {}", place.display()))
}

fn print(told: &Outcome<'_>) -> Result<()> {
    for rule in &told.assembled.rules {
        output::line(&format!(
            "By the rules of root {}: {} of {} keys signed, {} must",
            rule.due.root,
            rule.signed.len(),
            rule.due.keys.len(),
            rule.due.threshold
        ))?;
        for (what, keys) in [("signed", &rule.signed), ("missing", &rule.missing)] {
            for (keyid, name) in keys {
                output::line(&format!("  {what:<8} {}  {name}", ceremony::short(keyid)))?;
            }
        }
    }
    for (name, why) in &told.assembled.refused {
        output::line(&format!("refused: {name}: {why}"))?;
    }
    for path in [&told.root, &told.transcript].into_iter().flatten() {
        output::line(&format!("wrote {}", path.display()))?;
    }
    Ok(())
}
