// SPDX-License-Identifier: GPL-3.0-or-later
//! `approve`: the site's signature beside the vendor's.

use std::path::PathBuf;

use anyhow::{Context, Result};
use chrono::Duration;
use clap::Args;
use offline_repo::approve::{self, Options, Outcome, Summary};
use offline_repo::publish::Mode;
use offline_repo::repository::Repository;
use offline_repo::words::{freshness, human};
use signing::clock;
use signing::keys::Passphrase;
use signing::output::{self, Exit};
use signing::release::Version;
use signing::site::{Site, Trust};

use super::release::tell_officers;
use crate::progress::Screen;

#[derive(Args)]
#[command(
    override_usage = "bastide-repo approve [VERSION] --repo DIR --trust DIR --site DIR",
    after_long_help = "The vendor's metadata must be fresh, and every part of the release is read and
verified. A host that demands both roots installs what vendor and site name
alike, and nothing else. Ends with 4 when files of the release are not here.

Examples:
  bastide-repo approve 1.0.0 --repo gateway --trust vendor-trust --site office \\
      --passphrase-file passphrase --dry-run
  bastide-repo approve 1.0.0 --repo gateway --trust vendor-trust --site office \\
      --passphrase-file passphrase
  bastide-repo approve --repo gateway --trust vendor-trust --site office \\
      --passphrase-file passphrase --expires-days 90"
)]
pub struct Approve {
    /// The release; without it the site's signatures are renewed, and nothing
    /// new is approved
    version: Option<Version>,
    /// The gateway's repository
    #[arg(long)]
    repo: PathBuf,
    /// The vendor's trust directory
    #[arg(long, value_name = "DIR")]
    trust: PathBuf,
    /// The site whose officers approve
    #[arg(long)]
    site: PathBuf,
    /// Read the passphrase of the keys from this file, and not from the terminal
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Let the site's signatures expire after so many days (otherwise 365)
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    expires_days: Option<u32>,
    /// Verify all of it and say what would be approved, but sign nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

impl Approve {
    pub fn run(&self) -> Result<Exit> {
        let now = clock::now();
        let repository = Repository::open(&self.repo)?;
        let (vendor, site) = (Trust::open(&self.trust)?, Site::open(&self.site)?);
        let passphrase = match self.dry_run {
            // No key is opened.
            true => Passphrase::new(b"unused".to_vec())?,
            false => Passphrase::obtain(self.passphrase_file.as_deref(), "Passphrase of the site's keys: ")?,
        };
        let options = Options {
            vendor: &vendor,
            site: &site,
            passphrase: &passphrase,
            version: self.version,
            expires: self.expires_days.map(|days| now + Duration::days(days.into())),
            now,
            mode: if self.dry_run { Mode::DryRun } else { Mode::Write },
        };
        let screen = Screen::new(!self.json);
        let result = approve::approve(&repository, &options, &mut |done, total| {
            screen.bytes("verifying", done, total);
        });
        screen.end();
        let outcome = result.with_context(|| format!("nothing is approved in {}", self.repo.display()))?;
        if self.json {
            output::json(&outcome)?;
        }
        match outcome {
            Outcome::NotWhole { version, missing } => {
                if !self.json {
                    output::line(&format!(
                        "could not check release {version}: {} not here ({}); import its bundle",
                        output::count(missing.len(), "file"),
                        missing.join(", ")
                    ))?;
                }
                Ok(Exit::CouldNotCheck)
            }
            Outcome::Approved(summary) => {
                if !self.json {
                    self.tell(&summary, freshness(summary.expires, now).as_str())?;
                }
                Ok(Exit::Done)
            }
        }
    }

    fn tell(&self, summary: &Summary, fresh: &str) -> Result<()> {
        let list = |versions: &[Version]| versions.iter().map(Version::to_string).collect::<Vec<_>>().join(", ");
        if let Some(seal) = &summary.release {
            output::line(&format!(
                "release {} {}, {}, root hash {}",
                seal.version,
                seal.channel,
                human(seal.bytes),
                seal.root_hash
            ))?;
            for seen in &seal.vendor {
                output::line(&format!("  vendor's {} {}: {}", seen.role, seen.version, seen.sha256))?;
            }
        }
        if !summary.withdrawn.is_empty() {
            output::line(&format!(
                "approved no longer, for the vendor does not name it so any more: {}",
                list(&summary.withdrawn)
            ))?;
        }
        output::line(&match (&summary.release, self.dry_run) {
            (Some(seal), true) => format!("verified; would be approved as of {}; nothing was signed", seal.at),
            (Some(seal), false) => format!("approved as of {}; the site's signatures are {fresh}", seal.at),
            (None, true) => format!("the signatures over {} would be renewed", list(&summary.approved)),
            (None, false) => format!("renewed the signatures over {}: {fresh}", list(&summary.approved)),
        })?;
        if !self.dry_run {
            tell_officers(&self.repo.join("site"), summary.timestamp, summary.certificates)?;
        }
        Ok(())
    }
}
