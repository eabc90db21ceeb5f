// SPDX-License-Identifier: GPL-3.0-or-later
//! `publish`, `export` and `import`: signed releases on their way over the gap.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use chrono::{DateTime, Duration, NaiveDate, Utc};
use clap::Args;
use offline_repo::export::{self, Roots, Selection};
use offline_repo::import;
use offline_repo::publish;
use offline_repo::repository::{Begun, Repository};
use offline_repo::words::{freshness, human};
use signing::keys::Passphrase;
use signing::output::{self, Exit, Refused};
use signing::receipt::{Holder, Receipt, Signed};
use signing::release::Version;
use signing::site::{Site, Trust};
use signing::tuf::{Waiver, beside};
use signing::{anchor, clock};
use tempfile::TempDir;

use super::pinned_root;
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

#[derive(Args)]
#[command(
    after_long_help = "Without --since and --version the newest release is carried. From a gateway whose
officers approve, only what they approved is carried, with their signatures.

Examples:
  bastide-repo export --repo repository --out stick/1.0.0.bundle
  bastide-repo export --repo repository --out stick/update.bundle --since 0.9.0
  bastide-repo export --repo repository --out stick/update.bundle \\
      --since rack4.receipt.json"
)]
pub struct Export {
    /// The repository's directory
    #[arg(long)]
    repo: PathBuf,
    /// The bundle to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Carry every release that is newer than this one, or that the giver
    /// of this receipt lacks
    #[arg(long, value_name = "VERSION|RECEIPT", conflicts_with = "version", value_parser = since)]
    since: Option<Since>,
    /// Carry this release; may be given more than once
    #[arg(long, value_name = "VERSION")]
    version: Vec<Version>,
    /// Verify from the pinned root of this trust directory first, and not only
    /// that the repository agrees with itself
    #[arg(long, value_name = "DIR")]
    trust: Option<PathBuf>,
    /// At a gateway whose officers approve, verify the approval from the pinned root
    /// of the site's trust directory
    #[arg(long, value_name = "DIR")]
    site_trust: Option<PathBuf>,
    /// zstd's level: higher is smaller and slower
    #[arg(long, default_value_t = export::LEVEL, value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// What a receiver is known to hold.
#[derive(Clone)]
enum Since {
    Release(Version),
    Receipt(PathBuf),
}

fn since(text: &str) -> Result<Since, String> {
    match text.parse() {
        Ok(version) => Ok(Since::Release(version)),
        Err(_) if Path::new(text).is_file() => Ok(Since::Receipt(text.into())),
        Err(error) => Err(format!("{error}, and no receipt of that name is there")),
    }
}

/// What somebody lacks who gives this receipt. Whoever forges one gets a bundle that fits nobody; nothing is trusted by it.
fn lacking(receipt: &Receipt) -> Selection {
    match &receipt.holder {
        Holder::Host(host) => Selection::Since(host.version),
        Holder::Gateway { releases } => Selection::Lacking(releases.iter().map(|release| release.version).collect()),
    }
}

impl Export {
    pub fn run(&self) -> Result<Exit> {
        let repository = Repository::open(&self.repo)?;
        let site = match (self.site_trust.as_deref(), repository.is_approved()) {
            (None, false) => None,
            (Some(site), false) => bail!(Refused(format!(
                "the repository carries no approval of the site {}: see `bastide-repo approve`",
                site.display()
            ))),
            (site, true) => Some(pinned_root(site, || repository.own_site_root())?),
        };
        let roots = Roots {
            vendor: pinned_root(self.trust.as_deref(), || repository.own_root())?,
            site,
        };
        let selection = match (&self.since, self.version.is_empty()) {
            (Some(Since::Release(base)), _) => Selection::Since(*base),
            (Some(Since::Receipt(path)), _) => lacking(&Signed::load(path)?.receipt),
            (None, false) => Selection::Only(self.version.clone()),
            (None, true) => Selection::Newest,
        };
        if self.out.is_dir() {
            bail!("--out {} is a directory: name the bundle's file", self.out.display());
        }
        let screen = Screen::new(!self.json);
        let result = export::export(
            &repository,
            &roots,
            &selection,
            self.level,
            &self.out,
            &mut |done, total| {
                screen.bytes("compressing", done, total);
            },
        );
        screen.end();
        let summary = result?;
        if let Some(expires) = summary.expires.filter(|expires| *expires < clock::now()) {
            warn(&format!(
                "the metadata has expired at {expires}: renew it with `bastide-repo publish`"
            ));
        }
        if self.json {
            output::json(&summary)?;
            return Ok(Exit::Done);
        }
        let versions: Vec<_> = summary.releases.iter().map(Version::to_string).collect();
        output::line(&format!(
            "{}: release {}, {} ({} unpacked)",
            self.out.display(),
            versions.join(", "),
            human(summary.bundle_bytes),
            human(summary.bytes)
        ))?;
        Ok(Exit::Done)
    }
}

#[derive(Args)]
#[command(after_long_help = "Examples:
  bastide-repo import stick/1.0.0.bundle --repo gateway --trust site/trust \\
      --dry-run
  bastide-repo import stick/1.0.0.bundle --repo gateway --trust site/trust")]
pub struct Import {
    /// The bundle
    bundle: PathBuf,
    /// The gateway's repository; made where there is none
    #[arg(long)]
    repo: PathBuf,
    /// The trust directory of whoever published it
    #[arg(long, value_name = "DIR")]
    trust: PathBuf,
    /// The trust directory of the site that must have approved it
    #[arg(long, value_name = "DIR")]
    site_trust: Option<PathBuf>,
    /// Take stale metadata that this waiver of the site's custodians names
    #[arg(long, value_name = "FILE")]
    waiver: Option<PathBuf>,
    /// Verify all of it, but take nothing in
    #[arg(long)]
    dry_run: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

impl Import {
    pub fn run(&self) -> Result<Exit> {
        let believed = import::Believed {
            vendor: Trust::open(&self.trust)?,
            site: self.site_trust.as_deref().map(Trust::open).transpose()?,
        };
        let (repository, place) = repository(&self.repo, self.dry_run)?;
        let mode = if self.dry_run {
            import::Mode::DryRun
        } else {
            import::Mode::Write
        };
        let screen = Screen::new(false);
        let result = import::import(
            &self.bundle,
            &repository,
            &believed,
            clock::read(),
            self.waiver.as_deref().map(Waiver::load).transpose()?,
            mode,
            &mut |done, total| {
                screen.bytes("verifying", done, total);
            },
        );
        screen.end();
        let summary = result.with_context(|| format!("{} is not imported", self.bundle.display()))?;
        place.keep();
        if let Some(complaint) = &summary.clock {
            warn(complaint);
        }
        if !summary.waived.is_empty() {
            warn(&format!(
                "stale, and taken by the site's waiver: {}",
                summary.waived.join(", ")
            ));
        }
        if self.json {
            output::json(&summary)?;
            return Ok(Exit::Done);
        }
        let list = |versions: &[Version]| versions.iter().map(Version::to_string).collect::<Vec<_>>().join(", ");
        let state = match (self.dry_run, summary.new.is_empty()) {
            (true, _) => "verified; nothing was taken in".to_owned(),
            (false, true) => "verified; it was here before".to_owned(),
            (false, false) => format!("imported; new here: {}", list(&summary.new)),
        };
        output::line(&format!(
            "{}: release {}, {}, {state}",
            self.bundle.display(),
            list(&summary.releases),
            human(summary.bytes)
        ))?;
        for (whose, anchor) in [("vendor", &summary.anchor), ("site", &summary.site_anchor)] {
            if let Some(anchor) = anchor {
                output::line(&format!(
                    "first import: the gateway follows the {whose}'s pinned root from now on"
                ))?;
                output::line(&format!("  {}: {anchor}", anchor::COMPARE))?;
            }
        }
        Ok(Exit::Done)
    }
}

/// Where a command works.
enum Place {
    /// In the repository, which may be new.
    Real(Begun),
    /// In an empty one elsewhere.
    Rehearsal(#[allow(dead_code)] TempDir),
}

impl Place {
    fn keep(self) {
        if let Self::Real(begun) = self {
            begun.keep();
        }
    }
}

/// The repository, made where there is none, and gone again when the command fails. A dry run makes nothing: its empty one
/// lies elsewhere until it is dropped.
fn repository(place: &Path, dry_run: bool) -> Result<(Repository, Place)> {
    if dry_run && !place.join("metadata").is_dir() {
        let rehearsal = tempfile::tempdir().context("cannot make a temporary directory")?;
        return Ok((Repository::create(rehearsal.path())?, Place::Rehearsal(rehearsal)));
    }
    let (repository, begun) = Repository::begin(place)?;
    Ok((repository, Place::Real(begun)))
}

fn warn(text: &str) {
    // Nobody is left to tell when standard error is closed.
    drop(writeln!(io::stderr(), "bastide-repo: warning: {text}"));
}
