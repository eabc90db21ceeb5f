// SPDX-License-Identifier: GPL-3.0-or-later
//! `publish`: a build becomes a signed release.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use chrono::{DateTime, Duration, NaiveDate, Utc};
use clap::Args;
use offline_repo::publish;
use offline_repo::repository::{Begun, Repository};
use offline_repo::words::{freshness, human};
use signing::clock;
use signing::keys::Passphrase;
use signing::output::{self, Exit, Refused};
use signing::site::Site;
use signing::tuf::beside;
use tempfile::TempDir;

use crate::progress::Screen;

#[derive(Args)]
#[command(after_long_help = "Examples:
  bastide-repo publish --repo repository --site site \\
      --passphrase-file passphrase --release build/1.0.0
  bastide-repo publish --repo repository --site site \\
      --passphrase-file passphrase --expires-days 180")]
pub struct Publish {
    /// The repository's directory; made where there is none
    #[arg(long)]
    repo: PathBuf,
    /// The site whose keys sign
    #[arg(long)]
    site: PathBuf,
    /// The build's directory; without it the signatures are renewed
    #[arg(long, value_name = "BUILD_DIR")]
    release: Option<PathBuf>,
    /// Read the passphrase of the keys from this file, and not from the terminal
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Let the signatures expire after so many days (otherwise 365)
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    expires_days: Option<u32>,
    /// Let the signatures expire at this date (2027-01-31 or with a time in UTC,
    /// 2027-01-31T12:00:00Z)
    #[arg(long, value_name = "DATE", value_parser = date, conflicts_with = "expires_days")]
    expires: Option<DateTime<Utc>>,
    /// Sign even if that date is past: every client refuses what is made so, and
    /// a test may want to see it
    #[arg(long, requires = "expires")]
    allow_expired: bool,
    /// Check the build and the repository, but sign and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

fn date(text: &str) -> Result<DateTime<Utc>> {
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .ok()
        .and_then(|day| day.and_hms_opt(0, 0, 0));
    let exact = || DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc());
    let time = day.map(|time| time.and_utc()).or_else(exact);
    time.ok_or_else(|| anyhow!("not a date as in 2027-01-31 or 2027-01-31T12:00:00Z"))
}

impl Publish {
    pub fn run(&self) -> Result<Exit> {
        let now = clock::now();
        let site = Site::open(&self.site)?;
        let expires = self
            .expires
            .or(self.expires_days.map(|days| now + Duration::days(days.into())));
        if let Some(expires) = expires.filter(|expires| *expires <= now) {
            let what = format!("what is signed now would have expired at {expires} already");
            if !self.allow_expired {
                bail!(Refused(format!(
                    "{what}, and every client would refuse it: name a later date"
                )));
            }
            warn(&format!("{what}: every client will refuse it"));
        }
        let passphrase = match self.dry_run {
            // No key is opened.
            true => Passphrase::new(b"unused".to_vec())?,
            false => Passphrase::obtain(self.passphrase_file.as_deref(), "Passphrase of the site's keys: ")?,
        };
        let (repository, place) = repository(&self.repo, self.dry_run)?;
        let options = publish::Options {
            site: &site,
            passphrase: &passphrase,
            build: self.release.as_deref(),
            expires,
            now,
            mode: if self.dry_run {
                publish::Mode::DryRun
            } else {
                publish::Mode::Write
            },
        };
        let screen = Screen::new(!self.json);
        let result = publish::publish(&repository, &options, &mut |done, total| {
            screen.bytes(if self.dry_run { "reading parts" } else { "copying" }, done, total)
        });
        screen.end();
        let summary = result.with_context(|| format!("cannot publish in {}", self.repo.display()))?;
        place.keep();
        if self.json {
            output::json(&summary)?;
            return Ok(Exit::Done);
        }
        let what = match summary.version {
            Some(version) => format!("release {version}"),
            None => "renewed signatures".to_owned(),
        };
        let state = match (summary.changed, self.dry_run) {
            (false, _) => "already published",
            (true, false) => "published",
            (true, true) => "would be published",
        };
        output::line(&format!(
            "{what} {state}: {}, timestamp {}, {}",
            human(summary.bytes),
            summary.timestamp,
            freshness(summary.expires, now)
        ))?;
        if summary.changed && !self.dry_run {
            tell_officers(&self.repo, summary.timestamp, summary.certificates)?;
        }
        Ok(Exit::Done)
    }
}

/// Who else has to sign a timestamp before anybody takes it.
pub fn tell_officers(repository: &Path, timestamp: u64, certificates: u64) -> Result<()> {
    if certificates < 2 {
        return Ok(());
    }
    let metadata = repository.join("metadata");
    output::line(&format!(
        "\n{certificates} OpenPGP certificates must sign it, and only the release key's did: nobody takes it before each\n\
         further officer has typed, with a key of his own:\n  \
         bastide-sign openpgp --key KEY --add {} \\\n    --out {}",
        metadata.join("timestamp.json").display(),
        metadata.join(beside::timestamp(timestamp)).display()
    ))?;
    Ok(())
}

/// Where a command works.
pub enum Place {
    /// In the repository, which may be new.
    Real(Begun),
    /// In an empty one elsewhere.
    Rehearsal(#[allow(dead_code)] TempDir),
}

impl Place {
    pub fn keep(self) {
        if let Self::Real(begun) = self {
            begun.keep();
        }
    }
}

/// The repository, made where there is none, and gone again when the command fails. A dry run makes nothing: its empty one
/// lies elsewhere until it is dropped.
pub fn repository(place: &Path, dry_run: bool) -> Result<(Repository, Place)> {
    if dry_run && !place.join("metadata").is_dir() {
        let rehearsal = tempfile::tempdir().context("cannot make a temporary directory")?;
        return Ok((Repository::create(rehearsal.path())?, Place::Rehearsal(rehearsal)));
    }
    let (repository, begun) = Repository::begin(place)?;
    Ok((repository, Place::Real(begun)))
}

pub fn warn(text: &str) {
    // Nobody is left to tell when standard error is closed.
    drop(writeln!(io::stderr(), "bastide-repo: warning: {text}"));
}
