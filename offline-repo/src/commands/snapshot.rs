// SPDX-License-Identifier: GPL-3.0-or-later
//! `snapshot`: what a store's snapshots hold, how two differ, and the proof of one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use offline_repo::diff::{self, Diff};
use offline_repo::snapshot::Snapshot;
use offline_repo::spec::{Role, Spec};
use offline_repo::store::Store;
use offline_repo::tarindex::TarIndex;
use offline_repo::upstream::{self, Directory, Policy, Proof};
use offline_repo::words::human;
use serde_json::{Value, json};
use signing::digest;
use signing::output::{self, Exit};
use tempfile::NamedTempFile;

use crate::progress::Screen;

#[derive(Args)]
#[command(
    arg_required_else_help = true,
    after_long_help = "Examples:
  bastide-repo snapshot list --store store
  bastide-repo snapshot diff base patched --store store"
)]
pub struct Group {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Say which snapshots a store holds
    List(List),
    /// Say what a snapshot holds, package by package
    Show(Show),
    /// Say how two snapshots differ, and which security fixes that brings
    Diff(Difference),
    /// Repeat the proof that a snapshot's packages are upstream's
    Verify(Verify),
}

impl Group {
    pub fn run(&self) -> Result<Exit> {
        match &self.command {
            Command::List(args) => args.run(),
            Command::Show(args) => args.run(),
            Command::Diff(args) => args.run(),
            Command::Verify(args) => args.run(),
        }
    }
}

#[derive(Args)]
#[command(after_long_help = "Examples:
  bastide-repo snapshot list --store store
  bastide-repo snapshot list --store store --json")]
struct List {
    /// The store's directory
    #[arg(long)]
    store: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

impl List {
    fn run(&self) -> Result<Exit> {
        let store = Store::open(&self.store)?;
        let names = store.snapshots()?.into_iter();
        let all: Vec<_> = names.map(|name| store.snapshot(&name)).collect::<Result<_>>()?;
        if self.json {
            let list: Vec<_> = all.iter().map(|snapshot| facts(&store, snapshot)).collect();
            output::json(&json!({ "snapshots": list }))?;
            return Ok(Exit::Done);
        }
        for snapshot in &all {
            output::line(&headline(&store, snapshot))?;
        }
        Ok(Exit::Done)
    }
}

#[derive(Args)]
#[command(after_long_help = "Examples:
  bastide-repo snapshot show base --store store
  bastide-repo snapshot show base --store store --json")]
struct Show {
    /// The snapshot's name
    name: String,
    /// The store's directory
    #[arg(long)]
    store: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

impl Show {
    fn run(&self) -> Result<Exit> {
        let store = Store::open(&self.store)?;
        let snapshot = store.snapshot(&self.name)?;
        if self.json {
            let mut value = facts(&store, &snapshot);
            value["packages"] = serde_json::to_value(&snapshot.packages)?;
            output::json(&value)?;
            return Ok(Exit::Done);
        }
        output::line(&headline(&store, &snapshot))?;
        for origin in &snapshot.created_from {
            let date = origin.date.format("%Y-%m-%d %H:%M UTC");
            output::line(&format!(
                "{} of {date}, signed by {}",
                origin.suite,
                origin.signers.join(", ")
            ))?;
        }
        for package in &snapshot.packages {
            let roles: Vec<_> = package.roles.iter().map(|role| role.name()).collect();
            let lacks = !store.has(&package.sha256, package.size);
            output::line(&format!(
                "  {} {} {} {} for {}{}",
                package.name,
                package.version,
                package.architecture,
                human(package.size),
                roles.join(", "),
                if lacks { "; missing from the pool" } else { "" }
            ))?;
        }
        Ok(Exit::Done)
    }
}

/// The packages that a snapshot names and the pool lacks.
fn lacking(store: &Store, snapshot: &Snapshot) -> usize {
    let packages = snapshot.packages.iter();
    packages
        .filter(|package| !store.has(&package.sha256, package.size))
        .count()
}

fn bytes(snapshot: &Snapshot) -> u64 {
    snapshot.packages.iter().map(|package| package.size).sum()
}

fn facts(store: &Store, snapshot: &Snapshot) -> Value {
    let suites = snapshot.created_from.iter().map(|origin| {
        json!({
            "suite": origin.suite,
            "date": origin.date,
            "signers": origin.signers,
        })
    });
    json!({
        "name": snapshot.name,
        "architecture": snapshot.architecture,
        "packages": snapshot.packages.len(),
        "lacking": lacking(store, snapshot),
        "bytes": bytes(snapshot),
        "suites": suites.collect::<Vec<_>>(),
    })
}

fn headline(store: &Store, snapshot: &Snapshot) -> String {
    let suites: Vec<String> = snapshot
        .created_from
        .iter()
        .map(|origin| format!("{} of {}", origin.suite, origin.date.format("%Y-%m-%d")))
        .collect();
    let roles: Vec<String> = Role::ALL
        .iter()
        .map(|role| format!("{} {}", role.name(), snapshot.of(*role).count()))
        .collect();
    format!(
        "{} {} ({}), {}, from {}{}",
        snapshot.name,
        output::count(snapshot.packages.len(), "package"),
        roles.join(", "),
        human(bytes(snapshot)),
        suites.join(", "),
        match lacking(store, snapshot) {
            0 => String::new(),
            lacking => format!("; {lacking} are missing from the pool"),
        }
    )
}

#[derive(Args)]
#[command(
    after_long_help = "The security fixes are those that the Debian changelogs in the packages name
between the two versions: the maintainer's word. One changelog is read for each
source package.

Exit status: 0 done, 1 failed, 2 wrong command line, 4 not all fixes could be
told, and it is said of which packages and why.

Examples:
  bastide-repo snapshot diff base patched --store store
  bastide-repo snapshot diff base patched --store store --json"
)]
struct Difference {
    /// The older snapshot's name
    from: String,
    /// The newer snapshot's name
    to: String,
    /// The store's directory
    #[arg(long)]
    store: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

impl Difference {
    fn run(&self) -> Result<Exit> {
        let store = Store::open(&self.store)?;
        let screen = Screen::new(false);
        let diff = diff::diff(&store, &self.from, &self.to, &mut |source| {
            screen.say(format!("reading the changelog of {source}"));
        });
        screen.end();
        let diff = diff?;
        if self.json {
            let mut value = serde_json::to_value(&diff)?;
            value["fixes"] = json!(diff.fixes());
            value["complete"] = json!(diff.complete());
            output::json(&value)?;
        } else {
            print(&diff)?;
        }
        Ok(if diff.complete() {
            Exit::Done
        } else {
            Exit::CouldNotCheck
        })
    }
}

fn print(diff: &Diff) -> Result<()> {
    for (word, singles) in [("added", &diff.added), ("removed", &diff.removed)] {
        for single in singles {
            output::line(&format!("{word}: {} {}", single.name, single.version))?;
        }
    }
    for changed in &diff.changed {
        let note = if changed.from == changed.to {
            ", another content under the same version"
        } else {
            ""
        };
        output::line(&format!(
            "changed: {} {} -> {}{note}",
            changed.name, changed.from, changed.to
        ))?;
    }
    for moved in &diff.moved {
        let names = |roles: &std::collections::BTreeSet<Role>| {
            let names: Vec<_> = roles.iter().map(|role| role.name()).collect();
            names.join(", ")
        };
        output::line(&format!(
            "moved: {} for {} -> for {}",
            moved.name,
            names(&moved.from),
            names(&moved.to)
        ))?;
    }
    for source in &diff.sources {
        let head = format!("source {} {} -> {}", source.source, source.from, source.to);
        for (word, fixes) in [("fixes", &source.fixes), ("loses fixes of", &source.lost)] {
            if !fixes.is_empty() {
                let fixes: Vec<_> = fixes.iter().map(String::as_str).collect();
                let line = format!("{head} {word} {}", fixes.join(" "));
                output::line(&output::fold("", 2, &line))?;
            }
        }
        if source.security && source.fixes.is_empty() && source.lost.is_empty() {
            output::line(&output::fold(
                "",
                2,
                &format!("{head}: a security upload that names no CVE"),
            ))?;
        }
        if let Some(why) = &source.incomplete {
            output::line(&output::fold("", 2, &format!("{head}: not all fixes are known: {why}")))?;
        }
    }
    let summary = format!(
        "{} -> {}: {} added, {} changed, {} removed; {} named{}",
        diff.from,
        diff.to,
        diff.added.len(),
        diff.changed.len(),
        diff.removed.len(),
        match diff.fixes().len() {
            1 => "1 security fix".to_owned(),
            number => format!("{number} security fixes"),
        },
        if diff.complete() { "" } else { ", and there may be more" }
    );
    output::line(&output::fold("", 2, &summary))?;
    Ok(())
}

#[derive(Args)]
#[command(after_long_help = "Examples:
  bastide-repo snapshot verify base --store store
  bastide-repo snapshot verify --archive build/1.0.0/upstream.tar --json")]
struct Verify {
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

impl Verify {
    fn run(&self) -> Result<Exit> {
        let (policy, _keyring) = policy(self.spec.as_deref())?;
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

/// The keys of a specification, or those that were compiled in for Debian 13, with the file that they lie in.
pub fn policy(spec: Option<&Path>) -> Result<(Policy, Option<NamedTempFile>)> {
    match spec {
        Some(spec) => Ok((Policy::of(&Spec::read(spec)?), None)),
        None => Policy::debian_trixie().map(|(policy, file)| (policy, Some(file))),
    }
}
