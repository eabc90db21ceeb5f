// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-sign ceremony plan`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use chrono::TimeDelta;
use clap::Args;
use signing::ceremony::{CustodianFile, Plan, Reason, Removal, RoleName, ThresholdChange};
use signing::{clock, durable};

use super::{RootArgs, show, usage};
use crate::commands::free;

/// Longer than a century is a mistake.
const MAX_DAYS: i64 = 36_500;

#[derive(Args)]
#[command(after_long_help = "\
Needs no key. Nothing is changed by it: the request goes to the custodians.
KEY is a custodian's name, or the first 8 or more digits of a key.

Examples:
  bastide-sign ceremony plan --create --days 1825 --threshold root=2 \\
    --add anna.public.json --add ben.public.json --add cleo.public.json \\
    --role-key targets=targets.public.json \\
    --role-key snapshot=snapshot.public.json \\
    --role-key timestamp=timestamp.public.json --out first.json
  bastide-sign ceremony plan --root 1.root.json --days 1825 \\
    --out renewal.json
  bastide-sign ceremony plan --root 1.root.json --lost Ben \\
    --add dora.public.json --out lost.json
  bastide-sign ceremony plan --root 1.root.json --compromised Ben@1 \\
    --add dora.public.json --out stolen.json
  bastide-sign ceremony plan --root 1.root.json \\
    --role-key timestamp=new.public.json --out rotation.json
  bastide-sign ceremony plan --root 1.root.json --threshold root=3 \\
    --out threshold.json --json
  bastide-sign ceremony plan --root 1.root.json --end --out end.json")]
pub struct PlanArgs {
    #[command(flatten)]
    root: RootArgs,
    /// Plan the first root of a site
    #[arg(long, conflicts_with = "root", required_unless_present = "root")]
    create: bool,
    /// Public file of a new custodian
    #[arg(long, value_name = "FILE")]
    add: Vec<PathBuf>,
    /// Key of a custodian who leaves
    #[arg(long, value_name = "KEY")]
    left: Vec<String>,
    /// Key that is lost
    #[arg(long, value_name = "KEY")]
    lost: Vec<String>,
    /// Key that somebody else may have, and the last version of what it
    /// signed that is to be trusted (0: none)
    #[arg(long, value_name = "KEY@VERSION", value_parser = compromised)]
    compromised: Vec<(String, u64)>,
    /// All keys of a role from now on; once for each key
    #[arg(long, value_name = "ROLE=FILE", value_parser = role_key)]
    role_key: Vec<(RoleName, PathBuf)>,
    /// How many keys of a role must sign
    #[arg(long, value_name = "ROLE=N", value_parser = threshold)]
    threshold: Vec<ThresholdChange>,
    /// How many OpenPGP certificates of the trust directory must sign each
    /// timestamp, and each root after this one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    openpgp_threshold: Option<u64>,
    /// Days until the new root expires; without it the old date stays
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(i64).range(1..=MAX_DAYS))]
    days: Option<i64>,
    /// End the repository: nobody can publish in it again
    #[arg(long)]
    end: bool,
    /// Where the request goes; an existing file is not overwritten
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Print no QR code
    #[arg(long)]
    no_qr: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &PlanArgs) -> Result<()> {
    let root_threshold = args.threshold.iter().any(|change| change.role == RoleName::Root);
    if args.create && (args.days.is_none() || !root_threshold) {
        return usage("a first root needs --days DAYS and --threshold root=N");
    }
    free(&args.out, ", and custodians may be signing it: name another --out")?;
    let old = args.root.read()?;
    let now = clock::now();
    let removal = |why: Reason| move |key: &String| Removal { key: key.clone(), why };
    let mut plan = Plan {
        remove: args.left.iter().map(removal(Reason::Left)).collect(),
        thresholds: args.threshold.clone(),
        openpgp_threshold: args.openpgp_threshold,
        expires: args.days.map(|days| now + TimeDelta::days(days)),
        end: args.end,
        ..Plan::default()
    };
    plan.remove.extend(args.lost.iter().map(removal(Reason::Lost)));
    for (key, last_trusted_version) in &args.compromised {
        plan.remove.push(Removal {
            key: key.clone(),
            why: Reason::Compromised {
                last_trusted_version: *last_trusted_version,
            },
        });
    }
    for path in &args.add {
        plan.add.push(CustodianFile::read(path)?);
    }
    for (role, path) in &args.role_key {
        let files = plan.roles.entry(*role).or_default();
        files.push(CustodianFile::read(path)?);
    }
    let request = plan.request(old.as_ref(), now)?;
    durable::write(&args.out, request.to_text()?.as_bytes())
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    show(&request, &args.out, old.as_ref(), None, args.json, !args.no_qr)
}

fn compromised(text: &str) -> Result<(String, u64), String> {
    let wanted = || "KEY@VERSION, such as Ben@3".to_owned();
    let (key, version) = text.rsplit_once('@').ok_or_else(wanted)?;
    Ok((key.to_owned(), version.parse().map_err(|_| wanted())?))
}

fn role_key(text: &str) -> Result<(RoleName, PathBuf), String> {
    let (role, path) = text
        .split_once('=')
        .ok_or("ROLE=FILE, such as timestamp=new.public.json")?;
    match role.parse()? {
        RoleName::Root => Err("custodians of root are added with --add".to_owned()),
        role => Ok((role, path.into())),
    }
}

fn threshold(text: &str) -> Result<ThresholdChange, String> {
    let wanted = || "ROLE=N, such as root=2".to_owned();
    let (role, count) = text.split_once('=').ok_or_else(wanted)?;
    Ok(ThresholdChange {
        role: role.parse()?,
        count: count.parse().map_err(|_| wanted())?,
    })
}
