// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-sign waiver`: the custodians' word that stale metadata may be taken.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand};
use serde::Serialize;
use signing::ceremony::short;
use signing::digest::read_bounded;
use signing::keys::{self, MetadataKey};
use signing::output::{self, Refused};
use signing::tuf::author::seconds;
use signing::tuf::time::waiver::Draft;
use signing::tuf::{Client, Datastore, DirectorySource, Limits, Waiver};
use signing::{clock, durable};

use super::PassphraseArgs;

#[derive(Subcommand)]
pub enum WaiverCommand {
    /// Write a waiver for the metadata of a repository; no key is needed
    Write(Write),
    /// Add the signatures of root keys
    Sign(Sign),
    /// Show a waiver, and who has signed it
    Show(Show),
}

#[derive(Args)]
#[command(after_long_help = "\
The metadata is verified from the root first, and the waiver names each file by
version and digest. It lifts nothing later than 90 days from now, and nothing
but what it names. Root is never waived: its custodians renew it.

Examples:
  bastide-sign waiver write --root site/trust/root.json \\
    repository/metadata --days 14 --reason late-courier \\
    --out waiver.json
  bastide-sign waiver write --root site/trust/root.json \\
    repository/metadata --days 14 --reason late-courier \\
    --role timestamp --role snapshot --dry-run")]
pub struct Write {
    /// A root that the site trusts; newer ones are followed in the metadata
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// Directory of the metadata
    #[arg(value_name = "DIR")]
    metadata: PathBuf,
    /// From when it lifts nothing
    #[arg(long, value_name = "TIME", value_parser = clock::parse, required_unless_present = "days")]
    until: Option<DateTime<Utc>>,
    /// For how many days it lifts
    #[arg(long, value_name = "N", conflicts_with = "until", value_parser = clap::value_parser!(u32).range(1..=90))]
    days: Option<u32>,
    /// Role to lift; may be given more than once [default: all that will have
    /// expired]
    #[arg(long, value_name = "ROLE")]
    role: Vec<String>,
    /// Why, in one line that every host records
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Where the waiver goes
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    out: Option<PathBuf>,
    /// Show it, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_long_help = "\
Each custodian signs alone and hands the file on. It lifts something as soon as
as many keys as root demands have signed.

Examples:
  bastide-sign waiver sign waiver.json --root site/trust/root.json --dry-run
  bastide-sign waiver sign waiver.json --root site/trust/root.json \\
    --key site/private/root-1.pem --passphrase-file passphrase")]
pub struct Sign {
    /// The waiver; the signatures are added to it
    waiver: PathBuf,
    /// The root that the waiver names
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// Root key; may be given more than once, if one passphrase opens them all
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    key: Vec<PathBuf>,
    /// Show what would be signed, and sign nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(Args)]
#[command(after_long_help = "\
Exit status: 0 enough root keys have signed it, 3 too few, or it is for another
root or has ended.

Examples:
  bastide-sign waiver show waiver.json --root site/trust/root.json
  bastide-sign waiver show waiver.json --root site/trust/root.json --json")]
pub struct Show {
    /// The waiver
    waiver: PathBuf,
    /// The root that the waiver names
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// Judge it at this time [default: now]
    #[arg(long, value_parser = clock::parse)]
    at: Option<DateTime<Utc>>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is shown.
#[derive(Serialize)]
struct Shown<'a> {
    file: Option<&'a Path>,
    signed_at: DateTime<Utc>,
    until: DateTime<Utc>,
    root: signing::tuf::time::Due,
    roles: &'a std::collections::BTreeMap<String, signing::tuf::time::Due>,
    reason: &'a str,
    signed_by: Vec<String>,
    threshold: u64,
    complete: bool,
}

pub fn run(command: &WaiverCommand) -> Result<()> {
    match command {
        WaiverCommand::Write(args) => write(args),
        WaiverCommand::Sign(args) => sign(args),
        WaiverCommand::Show(args) => show(args),
    }
}

fn write(args: &Write) -> Result<()> {
    let now = clock::now();
    let until = match (args.until, args.days) {
        (Some(until), _) => until,
        (None, days) => now + TimeDelta::days(days.unwrap_or_default().into()),
    };
    if until <= now {
        bail!(Refused(format!("--until {} is over", seconds(until))));
    }
    let root = read_root(&args.root)?;
    // At the beginning of time nothing has expired: who signed is judged here, the custodians judge the rest.
    let mut client = Client::open(
        Datastore::ephemeral(&root)?,
        DirectorySource::new(&args.metadata, &args.metadata),
        Limits::default(),
        DateTime::UNIX_EPOCH,
    )?;
    client
        .refresh()
        .and_then(|()| client.targets().map(drop))
        .with_context(|| format!("cannot trust the metadata in {}", args.metadata.display()))?;
    let draft = Draft {
        signed_at: now,
        until,
        reason: args.reason.clone(),
        roles: args.role.clone(),
    };
    let waiver = draft.write(client.trail()).context("cannot write this waiver")?;
    let root = client.datastore().trusted_root()?;
    let out = args.out.as_deref().filter(|_| !args.dry_run);
    if let Some(out) = out {
        // One that custodians have signed is not lost to a slip.
        if out.exists() {
            bail!(Refused(format!(
                "{} is there already: name another --out",
                out.display()
            )));
        }
        save(out, &waiver)?;
    }
    print(&waiver, &root, out, args.json)
}

fn sign(args: &Sign) -> Result<()> {
    let root = read_root(&args.root)?;
    let mut waiver = Waiver::load(&args.waiver)?;
    waiver.signers(&root).with_context(|| named(&args.waiver))?;
    if args.dry_run {
        return print(&waiver, &root, None, args.json);
    }
    if !args.json {
        print(&waiver, &root, None, false)?;
    }
    let passphrase = args
        .passphrase
        .obtain("To sign this, the passphrase of the root key: ")?;
    for path in &args.key {
        let key = MetadataKey::of(keys::open_file(path, &passphrase)?)?;
        let before = waiver.signers(&root)?.0.len();
        let signed = waiver
            .sign(&key)
            .map_err(|error| Refused(format!("{} does not sign: {error:#}", path.display())))?;
        if signed.signers(&root)?.0.len() == before {
            bail!(Refused(format!("{} is no key of this root", path.display())));
        }
        waiver = signed;
    }
    save(&args.waiver, &waiver)?;
    print(&waiver, &root, Some(&args.waiver), args.json)
}

fn show(args: &Show) -> Result<()> {
    let root = read_root(&args.root)?;
    let waiver = Waiver::load(&args.waiver)?;
    print(&waiver, &root, Some(&args.waiver), args.json).with_context(|| named(&args.waiver))?;
    waiver.verify(&root).with_context(|| named(&args.waiver))?;
    if waiver.until <= args.at.unwrap_or_else(clock::now) {
        bail!(Refused(format!(
            "{} ended at {}",
            named(&args.waiver),
            seconds(waiver.until)
        )));
    }
    Ok(())
}

fn print(waiver: &Waiver, root: &[u8], file: Option<&Path>, json: bool) -> Result<()> {
    let (signed_by, threshold) = waiver.signers(root)?;
    let shown = Shown {
        file,
        signed_at: waiver.signed_at,
        until: waiver.until,
        root: waiver.root,
        roles: &waiver.roles,
        reason: &waiver.reason,
        complete: waiver.verify(root).is_ok(),
        signed_by,
        threshold,
    };
    if json {
        return Ok(output::json(&shown)?);
    }
    output::line(&format!(
        "Waiver of root {} ({})\n  valid    from {} until {}\n  reason   {}",
        waiver.root.version,
        short(&waiver.root.sha256),
        seconds(waiver.signed_at),
        seconds(waiver.until),
        waiver.reason
    ))?;
    for (role, due) in &waiver.roles {
        output::line(&format!("  lifts    {role} {} ({})", due.version, short(&due.sha256)))?;
    }
    for keyid in &shown.signed_by {
        output::line(&format!("  signed   {keyid}"))?;
    }
    output::line(&format!(
        "  {} of {} signatures{}",
        shown.signed_by.len(),
        threshold,
        file.map_or_else(String::new, |file| format!(", in {}", file.display()))
    ))?;
    Ok(())
}

fn read_root(path: &Path) -> Result<Vec<u8>> {
    read_bounded(path, Limits::default().root_bytes).with_context(|| format!("cannot read the root {}", path.display()))
}

fn save(path: &Path, waiver: &Waiver) -> Result<()> {
    durable::write(path, waiver.bytes()).with_context(|| format!("cannot write {}", path.display()))
}

fn named(path: &Path) -> String {
    format!("the waiver {}", path.display())
}
