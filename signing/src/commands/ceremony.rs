// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-sign ceremony`.

mod keygen;
mod plan;
mod sign;
mod transcript;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde::Serialize;
use signing::ceremony::{Change, Due, MAX_FILE, OldRoot, Request, TrustedRoot, qr_code, short};
use signing::digest::{Sha256, read_bounded};
use signing::output;
use signing::output::Usage;

#[derive(Subcommand)]
pub enum CeremonyCommand {
    /// Make one custodian's key, and the public file to hand in
    Keygen(keygen::Keygen),
    /// Write a signing request: what is to change in the root
    Plan(plan::PlanArgs),
    /// Read a request and sign it with one key
    Sign(sign::Sign),
    /// Count the fragments, say who is missing, give the new root
    Assemble(sign::Assemble),
    /// Sign a transcript with OpenPGP, after checking it
    SignTranscript(transcript::SignTranscript),
    /// Verify a transcript and the custodians' signatures over it
    Verify(transcript::Verify),
}

pub fn run(command: &CeremonyCommand) -> Result<()> {
    match command {
        CeremonyCommand::Keygen(args) => keygen::run(args),
        CeremonyCommand::Plan(args) => plan::run(args),
        CeremonyCommand::Sign(args) => sign::run(args),
        CeremonyCommand::Assemble(args) => sign::assemble(args),
        CeremonyCommand::SignTranscript(args) => transcript::sign(args),
        CeremonyCommand::Verify(args) => transcript::verify(args),
    }
}

#[derive(Args)]
struct RootArgs {
    /// Root that you trust today, from your own archive; left out for a
    /// first root only
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
}

impl RootArgs {
    fn read(&self) -> Result<Option<TrustedRoot>> {
        let Some(path) = &self.root else { return Ok(None) };
        let bytes = read_bounded(path, 2 * MAX_FILE).with_context(|| format!("cannot read {}", path.display()))?;
        let root = TrustedRoot::read(&bytes).with_context(|| format!("reading {}", path.display()))?;
        Ok(Some(root))
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    request: &'a Path,
    fingerprint: Sha256,
    short_fingerprint: String,
    root_version: u64,
    old: Option<OldRoot>,
    changes: &'a [Change],
    due: &'a [Due],
    #[serde(skip_serializing_if = "Option::is_none")]
    fragment: Option<&'a Path>,
    words: String,
}

/// Shows a request, computed anew, in words and as a QR code, or all of it as JSON.
fn show(
    request: &Request,
    path: &Path,
    old: Option<&TrustedRoot>,
    fragment: Option<&Path>,
    json: bool,
    qr: bool,
) -> Result<()> {
    let words = request.words(old)?;
    let fingerprint = request.fingerprint()?;
    if json {
        let shown = Shown {
            request: path,
            fingerprint,
            short_fingerprint: short(&fingerprint),
            root_version: request.verify(old)?.version,
            old: request.old,
            changes: &request.changes,
            due: &request.due,
            fragment,
            words,
        };
        return Ok(output::json(&shown)?);
    }
    output::line(words.trim_end())?;
    if qr {
        output::line(&format!("\n{}", qr_code(&fingerprint)?))?;
    }
    Ok(())
}

/// The files of a directory whose names fit, in the order of their names, or the one file.
fn files(path: &Path, fits: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let context = || format!("cannot list {}", path.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).with_context(context)? {
        let path = entry.with_context(context)?.path();
        if path.file_name().and_then(OsStr::to_str).is_some_and(&fits) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn usage<T>(reason: &str) -> Result<T> {
    Err(Usage(reason.to_owned()).into())
}
