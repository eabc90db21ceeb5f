// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-sign site`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use chrono::TimeDelta;
use clap::{Args, Subcommand};
use serde::Serialize;
use signing::keys::Passphrase;
use signing::openpgp::verify_detached;
use signing::output::{Refused, Usage};
use signing::secureboot::{Variable, verify_update};
use signing::site::{Officer, Plan, Role, RootOrigin, Site, SiteFacts, Trust, init};
use signing::tuf::beside;
use signing::{anchor, clock, output};

use super::PassphraseArgs;

/// Metadata that never expires could be served for ever; longer than a century is a mistake.
const MAX_ROOT_DAYS: i64 = 36_500;

#[derive(Subcommand)]
pub enum SiteCommand {
    /// Make all keys of a new site and its trust directory
    Init(Init),
    /// Show what a site is: names, fingerprints, threshold
    Show(Show),
    /// Open every key and verify the trust directory
    Check(Check),
}

#[derive(Args)]
#[command(after_long_help = "\
The site is made whole or not at all: an interrupted run leaves only a hidden
directory, which is no site and which the next run throws away. An existing
site is never touched.

Examples:
  bastide-sign site init --dir example --name Example --dry-run
  bastide-sign site init --dir example --name Example \\
    --passphrase-file passphrase --threshold 2 --keys 3
  bastide-sign site init --dir office --name Office \\
    --passphrase-file passphrase --officer anna.public.json \\
    --officer ben.public.json --openpgp-threshold 2
  bastide-sign site init --dir apart --name Apart \\
    --passphrase-file passphrase --root 1.root.json --roles roles")]
pub struct Init {
    /// Directory to make; it must not exist, or be empty
    #[arg(long, visible_alias = "site", value_name = "DIR")]
    dir: PathBuf,
    /// The site's name, which stands in its certificates
    #[arg(long)]
    name: String,
    /// Number of root keys
    #[arg(long, default_value_t = 3, value_name = "N")]
    keys: usize,
    /// How many root keys must sign a new root
    #[arg(long, default_value_t = 2, value_name = "M")]
    threshold: usize,
    /// OpenPGP certificate of an officer, or what a custodian handed in
    /// (*.public.json); once for each, beside the release key
    #[arg(long, value_name = "FILE")]
    officer: Vec<PathBuf>,
    /// How many of the release key and the officers must sign each
    /// timestamp, and each later root
    #[arg(long, default_value_t = 1, value_name = "K")]
    openpgp_threshold: u64,
    /// Days until the first root expires
    #[arg(long, default_value_t = 1825, value_name = "DAYS")]
    root_days: i64,
    /// Root that a ceremony made; its keys stay with the custodians
    #[arg(long, value_name = "FILE", requires = "roles", conflicts_with_all = ["keys", "threshold", "openpgp_threshold", "root_days"])]
    root: Option<PathBuf>,
    /// Directory with the keys of the roles that the root names
    /// (targets.key.pem or targets.uri, …), under the same passphrase
    #[arg(long, value_name = "DIR", requires = "root")]
    roles: Option<PathBuf>,
    /// Check everything and print what would be made
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
Examples:
  bastide-sign site show --site site
  bastide-sign site show --site site --json")]
pub struct Show {
    /// The site's directory
    #[arg(long, value_name = "DIR")]
    site: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_long_help = "\
Run it on a backup before you rely on it.

Examples:
  bastide-sign site check --site site --passphrase-file passphrase")]
pub struct Check {
    /// The site's directory
    #[arg(long, value_name = "DIR")]
    site: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub fn run(command: &SiteCommand) -> Result<()> {
    match command {
        SiteCommand::Init(args) => make(args),
        SiteCommand::Show(args) => {
            let site = Site::open(&args.site)?;
            show(&site, args.json)
        }
        SiteCommand::Check(args) => check(args),
    }
}

#[derive(Serialize)]
struct DryRun<'a> {
    dry_run: bool,
    plan: &'a Plan,
    files: Vec<PathBuf>,
}

fn make(args: &Init) -> Result<()> {
    if !(1..=MAX_ROOT_DAYS).contains(&args.root_days) {
        bail!(Usage(format!("--root-days must be between 1 and {MAX_ROOT_DAYS}")));
    }
    let now = clock::now();
    let plan = Plan {
        directory: args.dir.clone(),
        name: args.name.clone(),
        root: match (&args.root, &args.roles) {
            (Some(file), Some(roles)) => RootOrigin::ceremony(file, roles)?,
            _ => RootOrigin::Made {
                keys: args.keys,
                threshold: args.threshold,
                openpgp_threshold: args.openpgp_threshold,
                expires: now + TimeDelta::days(args.root_days),
            },
        },
        officers: args
            .officer
            .iter()
            .map(|file| Officer::read(file))
            .collect::<Result<_>>()?,
    };
    let files = plan.check(now)?;
    if args.dry_run {
        if args.json {
            return Ok(output::json(&DryRun {
                dry_run: true,
                plan: &plan,
                files,
            })?);
        }
        let root = match &plan.root {
            RootOrigin::Made { keys, threshold, .. } => format!("{threshold} of {keys} root keys"),
            RootOrigin::Ceremony { file, .. } => format!("the root {}", file.display()),
        };
        output::line(&format!("would make the site {:?} ({root}):", plan.name))?;
        for file in files {
            output::line(&format!("  {}", file.display()))?;
        }
        return Ok(());
    }
    let passphrase = new_passphrase(&args.passphrase)?;
    let site = init(&plan, &passphrase, now, &mut |step| {
        if !args.json {
            eprintln!("making: {step}");
        }
    })?;
    show(&site, args.json)
}

/// A passphrase for new keys: typed twice, as a typing error would lose them all.
pub fn new_passphrase(args: &PassphraseArgs) -> Result<Passphrase> {
    let first = args.obtain("Passphrase for the new keys: ")?;
    if args.passphrase_file.is_none() && !first.same_as(&Passphrase::ask("The same again: ")?) {
        bail!("the two passphrases differ; nothing was made");
    }
    Ok(first)
}

#[derive(Serialize)]
struct Shown<'a> {
    directory: &'a Path,
    trust: PathBuf,
    anchor: String,
    taken_out: &'a BTreeMap<String, u64>,
    #[serde(flatten)]
    facts: &'a SiteFacts,
}

fn show(site: &Site, json: bool) -> Result<()> {
    let facts = site.facts();
    let trust = site.trust_dir();
    let taken_out = site.taken_out()?;
    let anchor = anchor::fingerprint(&trust).with_context(|| format!("cannot read {}", trust.display()))?;
    if json {
        return Ok(output::json(&Shown {
            directory: site.directory(),
            trust,
            anchor,
            taken_out: &taken_out,
            facts,
        })?);
    }
    output::line(&format!(
        "Site {:?}, made {}",
        facts.name,
        facts.created.format("%Y-%m-%d %H:%M:%S UTC")
    ))?;
    output::line(&format!("  trust directory  {}", trust.display()))?;
    output::line(&format!("    {}: {anchor}", anchor::COMPARE))?;
    output::line(&match site.root_keys() {
        0 => format!(
            "  root threshold   {}, the keys are with their custodians",
            facts.threshold
        ),
        keys => format!("  root threshold   {} of {keys}", facts.threshold),
    })?;
    for key in &facts.keys {
        let gone = taken_out.get(&key.role);
        let gone = gone.map_or_else(String::new, |version| format!(", taken out by root {version}"));
        output::line(&format!(
            "  {:<16} {}{gone}\n    {}",
            key.role, key.algorithm, key.keyid
        ))?;
    }
    output::line(&format!("  OpenPGP release\n    {}", facts.release_openpgp))?;
    if !facts.officers.is_empty() {
        let need = beside::over_timestamp(&Trust::open(&trust)?.root()?)?;
        let all = facts.officers.len() + 1;
        output::line(&format!("  OpenPGP signers  {need} of {all}, by the first root"))?;
    }
    for officer in &facts.officers {
        output::line(&format!("  OpenPGP officer\n    {officer}"))?;
    }
    let secure_boot = &facts.secure_boot;
    for (name, fingerprint) in [
        ("PK", secure_boot.pk_sha256),
        ("KEK", secure_boot.kek_sha256),
        ("db", secure_boot.db_sha256),
    ] {
        output::line(&format!("  {name:<16} RSA-3072\n    {fingerprint}"))?;
    }
    output::line(&format!("  owner GUID       {}", secure_boot.owner))?;
    Ok(())
}

/// Keys are for their owner alone, and what verifiers trust is written by the owner alone.
fn check_modes(site: &Path) -> Result<()> {
    for (name, forbidden, right) in [
        ("private", 0o077, "go="),
        ("metadata", 0o022, "go-w"),
        ("trust", 0o022, "go-w"),
    ] {
        let directory = site.join(name);
        let looking = || format!("looking at {}", directory.display());
        let mut paths = vec![directory.clone()];
        for entry in fs::read_dir(&directory).with_context(looking)? {
            paths.push(entry.with_context(looking)?.path());
        }
        for path in paths {
            let mode = fs::metadata(&path).with_context(looking)?.permissions().mode() & 0o777;
            if mode & forbidden != 0 {
                bail!(Refused(format!(
                    "others can get at {} (mode {mode:04o}): type `chmod -R {right} {}`",
                    path.display(),
                    directory.display()
                )));
            }
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct Checked {
    site: PathBuf,
    keys_opened: usize,
    taken_out: BTreeMap<String, u64>,
    root_signed_by: String,
}

fn check(args: &Check) -> Result<()> {
    let site = Site::open(&args.site)?;
    let trust = Trust::open(&site.trust_dir())?;
    check_modes(site.directory())?;
    let (owner, recorded) = (trust.owner()?.to_string(), &site.facts().secure_boot.owner);
    if !owner.eq_ignore_ascii_case(recorded) {
        bail!(Refused(format!(
            "owner.guid holds {owner} and site.json records {recorded}: restore the right file"
        )));
    }
    let passphrase = args.passphrase.obtain("Passphrase of the site's keys: ")?;
    let mut opened = 0;
    let taken_out = site.taken_out()?;
    let roles = (1..=site.root_keys()).map(Role::Root).chain(Role::SINGLE);
    for role in roles.filter(|role| !taken_out.contains_key(&role.to_string())) {
        site.signer(role, &passphrase)?;
        opened += 1;
    }
    for (variable, signer) in [
        (Variable::Pk, Variable::Pk),
        (Variable::Kek, Variable::Pk),
        (Variable::Db, Variable::Kek),
    ] {
        site.secure_boot_key(variable, &passphrase)?;
        opened += 1;
        let update = trust.update(variable)?;
        verify_update(variable, &update, &site.certificate(signer)?)
            .with_context(|| format!("checking {}.auth", variable.name()))?;
    }
    // Signing something proves that the OpenPGP key opens; the signature is thrown away.
    site.release_key(&passphrase)?.sign_detached(&b""[..])?;
    let root = trust.root()?;
    let signature = signing::digest::read_bounded(&trust.directory().join("root.json.asc"), 1 << 20)
        .context("reading the root's OpenPGP signature")?;
    let signers = verify_detached(&trust.release_keyring(), &root[..], &signature, clock::now())
        .context("checking the root's OpenPGP signature")?;
    let Some(signer) = signers
        .first()
        .filter(|signer| signer.fingerprint == site.facts().release_openpgp)
    else {
        bail!("release.asc holds another key than site.json records: restore the right file");
    };
    let checked = Checked {
        site: args.site.clone(),
        keys_opened: opened + 1,
        taken_out,
        root_signed_by: signer.fingerprint.clone(),
    };
    if args.json {
        return Ok(output::json(&checked)?);
    }
    output::line(&format!(
        "{}: {} keys open, the trust directory belongs to them",
        args.site.display(),
        checked.keys_opened
    ))?;
    for (role, version) in &checked.taken_out {
        output::line(&format!(
            "  {role}: taken out by root {version} and not looked at; destroy every copy that is left"
        ))?;
    }
    Ok(())
}
