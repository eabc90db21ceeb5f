// SPDX-License-Identifier: GPL-3.0-or-later
//! `mirror` and `verify-snapshot`: left of the first signature.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use offline_repo::apt::Upstream;
use offline_repo::mirror::{self, Event, Mode, Options};
use offline_repo::spec::{self, Spec};
use offline_repo::store::Store;
use offline_repo::tarindex::TarIndex;
use offline_repo::upstream::{self, Directory, Policy, Proof};
use offline_repo::words::human;
use serde_json::json;
use signing::digest;
use signing::output::{self, Exit};

use crate::progress::Screen;

#[derive(Args)]
#[command(after_long_help = "Examples:
  bastide-repo mirror offline-repo/specs/base.toml --store store
  bastide-repo mirror offline-repo/specs/patched.toml --store store --dry-run")]
pub struct Mirror {
    /// The specification, a TOML file
    spec: PathBuf,
    /// The store's directory; made where there is none
    #[arg(long)]
    store: PathBuf,
    /// Name the snapshot so, and not as the specification does
    #[arg(long)]
    name: Option<String>,
    /// Fetch from URL/debian and URL/debian-security, and not from the mirrors
    /// of the machine's own apt sources
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Resolve and verify, but fetch no package and write no snapshot
    #[arg(long)]
    dry_run: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

impl Mirror {
    pub fn run(&self) -> Result<Exit> {
        let mut spec = Spec::read(&self.spec)?;
        if let Some(name) = &self.name {
            ensure!(spec::is_name(name), "--name {name:?} is not a plain name");
            spec.name.clone_from(name);
        }
        let store = Store::create(&self.store)?;
        let options = Options {
            upstream: self.upstream.clone().map_or(Upstream::Machine, Upstream::Url),
            mode: if self.dry_run { Mode::DryRun } else { Mode::Write },
        };
        let screen = Screen::new(!self.json);
        let result = mirror::mirror(&spec, &store, &options, &mut |event| match event {
            Event::Lists => screen.say("asking the mirror for its lists".into()),
            Event::Verified { suite, .. } => screen.say(format!("{suite}: signature verified")),
            Event::Resolved { role, packages } => {
                screen.say(format!("{}: {}", role.name(), output::count(packages, "package")))
            }
            Event::Fetched { done, total } => screen.bytes("fetching packages", done, total),
        });
        screen.end();
        let summary = result.with_context(|| format!("cannot mirror {}", self.spec.display()))?;
        if self.json {
            output::json(&summary)?;
            return Ok(Exit::Done);
        }
        let state = match (summary.changed, self.dry_run) {
            (false, _) => "unchanged",
            (true, false) => "written",
            (true, true) => "would be written",
        };
        output::line(&format!(
            "snapshot {} {state}: {}, {}; {} {}",
            summary.snapshot,
            output::count(summary.packages, "package"),
            human(summary.bytes),
            if self.dry_run { "to fetch:" } else { "fetched:" },
            human(summary.fetched_bytes),
        ))?;
        for (name, (old, new)) in &summary.upgraded {
            output::line(&format!("  {name} {old} -> {new}"))?;
        }
        Ok(Exit::Done)
    }
}

#[derive(Args)]
#[command(after_long_help = "Examples:
  bastide-repo verify-snapshot base --store store
  bastide-repo verify-snapshot --archive build/1.0.0/upstream.tar --json")]
pub struct VerifySnapshot {
    /// The snapshot's name
    #[arg(required_unless_present = "archive", requires = "store")]
    name: Option<String>,
    /// The store's directory
    #[arg(long)]
    store: Option<PathBuf>,
    /// Repeat the proof from a release's upstream.tar, which holds no packages:
    /// it shows which packages are upstream's
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "store"])]
    archive: Option<PathBuf>,
    /// Trust the keyring and the keys of this specification, and not those that
    /// were compiled in for Debian 13
    #[arg(long)]
    spec: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl VerifySnapshot {
    pub fn run(&self) -> Result<Exit> {
        let (policy, _keyring) = match &self.spec {
            Some(spec) => (Policy::of(&Spec::read(spec)?), None),
            None => {
                let (policy, file) = Policy::debian_trixie()?;
                (policy, Some(file))
            }
        };
        let proof = match (&self.archive, &self.name, &self.store) {
            (Some(archive), _, _) => {
                let open = || format!("cannot use {}", archive.display());
                let file = digest::open_regular(archive).with_context(open)?;
                let mut index = TarIndex::open(file).with_context(open)?;
                upstream::verify(&policy, &mut index).with_context(|| format!("{} is no proof", archive.display()))?
            }
            (None, Some(name), Some(store)) => stored(&policy, name, &Store::open(store)?)?,
            _ => bail!("name a snapshot and its store, or --archive"),
        };
        let total: u64 = proof.snapshot.packages.iter().map(|package| package.size).sum();
        if self.json {
            output::json(&json!({
                "snapshot": proof.snapshot.name,
                "verified": true,
                "packages_read": self.archive.is_none(),
                "packages": proof.snapshot.packages.len(),
                "bytes": total,
                "suites": proof.suites,
            }))?;
            return Ok(Exit::Done);
        }
        for suite in &proof.suites {
            output::line(&format!(
                "{} of {}: {} packages, signed by {}",
                suite.suite,
                suite.date.format("%Y-%m-%d"),
                suite.packages,
                suite.signers.join(", ")
            ))?;
        }
        output::line(&format!(
            "snapshot {}: all {} packages, {}, are {}",
            proof.snapshot.name,
            proof.snapshot.packages.len(),
            human(total),
            if self.archive.is_some() {
                "listed by upstream as in the manifest"
            } else {
                "upstream's"
            }
        ))?;
        Ok(Exit::Done)
    }
}

/// Repeats the proof of a stored snapshot and reads every package.
fn stored(policy: &Policy, name: &str, store: &Store) -> Result<Proof> {
    store.snapshot(name)?;
    let directory = store.snapshot_directory(name)?;
    let proof = upstream::verify(policy, &mut Directory(&directory))
        .with_context(|| format!("the snapshot {name} is not proved"))?;
    let total: u64 = proof.snapshot.packages.iter().map(|package| package.size).sum();
    let screen = Screen::new(false);
    let mut done = 0;
    for package in &proof.snapshot.packages {
        store
            .check(&package.sha256, package.size)
            .with_context(|| format!("{} {} is not as upstream signed it", package.name, package.version))?;
        done += package.size;
        screen.bytes("reading packages", done, total);
    }
    screen.end();
    Ok(proof)
}
