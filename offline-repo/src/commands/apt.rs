// SPDX-License-Identifier: GPL-3.0-or-later
//! `apt`: packages for guests that run plain apt.

use std::path::PathBuf;

use anyhow::{Context, Result};
use chrono::Duration;
use clap::{Args, Subcommand};
use offline_repo::archive::{self, Mode, Options};
use offline_repo::repository::Repository;
use offline_repo::store::Store;
use offline_repo::words::{freshness, human};
use signing::clock;
use signing::keys::Passphrase;
use signing::output::{self, Exit};
use signing::site::Site;

use super::snapshot::policy;
use crate::progress::Screen;

#[derive(Args)]
#[command(
    arg_required_else_help = true,
    after_long_help = "Examples:
  bastide-repo apt publish base --store store --repo repository \\
      --site site --passphrase-file passphrase"
)]
pub struct Group {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sign a snapshot's packages as a suite for apt, or renew the signature
    Publish(Publish),
}

impl Group {
    pub fn run(&self) -> Result<Exit> {
        match &self.command {
            Command::Publish(args) => args.run(),
        }
    }
}

#[derive(Args)]
#[command(
    override_usage = "bastide-repo apt publish NAME --store DIR --repo DIR --site DIR",
    after_long_help = "Repeats upstream's proof of the snapshot, reads each package that is new here,
and signs lists of them with the site's OpenPGP release key, on either side of
the gap: a store may come over it on a stick. `serve` gives them under /apt/,
with the site's certificate. A guest has that as a file, its fingerprint
compared, and this line in its sources:

  deb [signed-by=/etc/apt/keyrings/site.asc] https://GATEWAY:8443/apt SUITE main

The same suite again, of another snapshot or the same one, replaces it.

Examples:
  bastide-repo apt publish base --store store --repo repository \\
      --site site --passphrase-file passphrase --dry-run
  bastide-repo apt publish base --store store --repo repository \\
      --site site --passphrase-file passphrase --suite guests"
)]
struct Publish {
    /// The snapshot
    name: String,
    /// The store that has it
    #[arg(long)]
    store: PathBuf,
    /// The repository that is served
    #[arg(long)]
    repo: PathBuf,
    /// The site whose release key signs
    #[arg(long)]
    site: PathBuf,
    /// Read the passphrase of the key from this file, and not from the terminal
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// The name by which guests ask for it, and not the snapshot's
    #[arg(long, value_name = "NAME")]
    suite: Option<String>,
    /// Let apt refuse it after so many days
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    expires_days: u32,
    /// Trust the keyring and the keys of this specification, and not those that
    /// were compiled in for Debian 13
    #[arg(long)]
    spec: Option<PathBuf>,
    /// Repeat the proof and read the packages, but sign and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

impl Publish {
    fn run(&self) -> Result<Exit> {
        let now = clock::now();
        let (site, store) = (Site::open(&self.site)?, Store::open(&self.store)?);
        let repository = Repository::open(&self.repo)?;
        let (policy, _keyring) = policy(self.spec.as_deref())?;
        let passphrase = match self.dry_run {
            // No key is opened.
            true => Passphrase::new(b"unused".to_vec())?,
            false => Passphrase::obtain(self.passphrase_file.as_deref(), "Passphrase of the site's keys: ")?,
        };
        let options = Options {
            site: &site,
            passphrase: &passphrase,
            policy: &policy,
            suite: self.suite.as_deref().unwrap_or(&self.name),
            expires: now + Duration::days(self.expires_days.into()),
            now,
            mode: if self.dry_run { Mode::DryRun } else { Mode::Write },
        };
        let screen = Screen::new(!self.json);
        let result = archive::publish(&repository, &store, &self.name, &options, &mut |done, total| {
            screen.bytes("reading packages", done, total)
        });
        screen.end();
        let summary = result.with_context(|| {
            format!(
                "cannot publish for apt in {}",
                self.repo.join(archive::ARCHIVE).display()
            )
        })?;
        if self.json {
            output::json(&summary)?;
            return Ok(Exit::Done);
        }
        output::line(&format!(
            "suite {} {}: {}, {} of them new, {}; {}",
            summary.suite,
            if self.dry_run {
                "would be published"
            } else {
                "published"
            },
            output::count(summary.packages, "package"),
            summary.new_packages,
            human(summary.bytes),
            freshness(summary.expires, now)
        ))?;
        output::line(&format!("key {}", summary.fingerprint))?;
        Ok(Exit::Done)
    }
}
