// SPDX-License-Identifier: GPL-3.0-or-later
//! `export`, `import` and `quarantine`: bundles on their way over the gap.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use offline_repo::export::{self, Entry, Order, Phase, Roots, Selection, Volumes, plan};
use offline_repo::import;
use offline_repo::quarantine::Quarantine;
use offline_repo::repository::Repository;
use offline_repo::words::human;
use signing::keys::Passphrase;
use signing::output::{self, Exit, Refused};
use signing::receipt::{Holder, Receipt, Signed};
use signing::release::Version;
use signing::site::{Site, Trust};
use signing::tuf::Waiver;
use signing::{anchor, clock, durable};

use super::pinned_root;
use super::release::{repository, warn};
use crate::progress::Screen;

#[derive(Args)]
#[command(
    after_long_help = "Without --since and --version the newest release is carried. From a gateway whose
officers approve, only what they approved is carried, with their signatures.

With --since only what the parts differ in is carried, as deltas to the release
that the receiver holds; it fits nobody else. Where that release is not here any
more, everything is carried whole, and a line says so.

What was cut off goes on when the same command is typed again. Everything is
read back from the medium, past the page cache; REPO/exports keeps what was
written to which device.

Examples:
  bastide-repo export --repo repository --out stick/1.0.0.bundle
  bastide-repo export --repo repository --out stick/update.bundle --since 0.9.0
  bastide-repo export --repo repository --out stick/update.bundle \\
      --since rack4.receipt.json
  bastide-repo export --repo repository --out discs/1.0.0.bundle \\
      --volume-size 4400M --site site --passphrase-file passphrase
  bastide-repo export --repo repository --out discs/1.0.0.bundle \\
      --volume-size 4400M --site site --passphrase-file passphrase --volume 1"
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
    /// With --since: carry everything whole, for a receiver whose release is not
    /// certain
    #[arg(long, requires = "since")]
    whole: bool,
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
    /// Cut the bundle into volumes of at most this size (K, M and G are powers of
    /// 1024): NAME.001, NAME.002 and so on, each signed and good by itself
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "site")]
    volume_size: Option<u64>,
    /// Write this volume only; may be given more than once
    #[arg(long, value_name = "N", requires = "volume_size")]
    volume: Vec<u32>,
    /// Refuse to write volumes of another set than this, named by its digest's first
    /// digits: those that came already would be of no use with them
    #[arg(long, value_name = "SET", requires = "volume_size", value_parser = digits)]
    set: Option<String>,
    /// Sign the volumes with the OpenPGP release key of this site, whose trust
    /// directory the receiver has
    #[arg(long, value_name = "DIR", requires = "volume_size")]
    site: Option<PathBuf>,
    /// Read the passphrase of that key from this file, and not from the terminal
    #[arg(long, value_name = "FILE", requires = "site")]
    passphrase_file: Option<PathBuf>,
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
fn lacking(receipt: &Receipt) -> (Selection, Option<Version>) {
    match &receipt.holder {
        Holder::Host(host) => (Selection::Since(host.version), Some(host.version)),
        Holder::Gateway(gateway) => {
            let held: Vec<Version> = gateway.releases.iter().map(|release| release.version).collect();
            let newest = held.iter().max().copied();
            (Selection::Lacking(held), newest)
        }
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
        let (selection, base) = match (&self.since, self.version.is_empty()) {
            (Some(Since::Release(base)), _) => (Selection::Since(*base), Some(*base)),
            (Some(Since::Receipt(path)), _) => lacking(&Signed::load(path)?.receipt),
            (None, false) => (Selection::Only(self.version.clone()), None),
            (None, true) => (Selection::Newest, None),
        };
        if self.out.is_dir() {
            bail!("--out {} is a directory: name the bundle's file", self.out.display());
        }
        let passphrase = match &self.site {
            None => None,
            Some(_) => {
                let file = self.passphrase_file.as_deref();
                Some(Passphrase::obtain(file, "Passphrase of the site's release key: ")?)
            }
        };
        let sign = |list: &[u8]| {
            let (Some(site), Some(passphrase)) = (&self.site, &passphrase) else {
                bail!("a volume is signed by a site: name it with --site");
            };
            Site::open(site)?.release_key(passphrase)?.sign_detached(list)
        };
        let order = Order {
            selection,
            base: base.filter(|_| !self.whole),
            level: self.level,
            out: &self.out,
            volumes: self.volume_size.map(|size| Volumes {
                size,
                only: self.volume.clone(),
                set: self.set.clone(),
                sign: &sign,
            }),
        };
        let screen = Screen::new(!self.json);
        let result = export::export(&repository, &roots, &order, &mut |phase, done, total| {
            let what = match phase {
                Phase::Compressing => "compressing",
                Phase::Writing => "writing",
                Phase::ReadingBack => "reading back",
            };
            screen.bytes(what, done, total);
        });
        screen.end();
        let summary = result?;
        if let Some(expires) = summary.expires.filter(|expires| *expires < clock::now()) {
            warn(&format!(
                "the metadata has expired at {expires}: renew it with `bastide-repo publish`"
            ));
        }
        if let Some(why) = &summary.no_base {
            warn(&format!("{why}: everything is carried whole"));
        }
        if self.json {
            output::json(&summary)?;
            return Ok(Exit::Done);
        }
        let versions: Vec<_> = summary.releases.iter().map(Version::to_string).collect();
        let versions = versions.join(", ");
        let size = format!("{} ({} unpacked)", human(summary.bundle_bytes), human(summary.bytes));
        if self.volume_size.is_none() {
            output::line(&format!("{}: release {versions}, {size}", self.out.display()))?;
        } else {
            for (number, entry) in &summary.files {
                let what = format!("volume {number} of {}", summary.of);
                output::line(&format!("{}: {what}, {}", entry.file.display(), human(entry.size)))?;
            }
            output::line(&format!(
                "set {:.16}: release {versions}, {size}",
                summary.set.to_string()
            ))?;
        }
        if let Some(base) = &summary.base {
            output::line(&format!("for a receiver that holds release {base}"))?;
        }
        for device in devices(&summary.files) {
            output::line(&format!("read back from {device}"))?;
        }
        Ok(Exit::Done)
    }
}

/// The devices on which the files lie, each once.
fn devices(files: &BTreeMap<u32, Entry>) -> BTreeSet<String> {
    let name = |entry: &Entry| match &entry.read_back.device {
        None => "no device: it lies in memory or on a network".to_owned(),
        Some(device) => {
            let known = [device.model.as_ref(), device.serial.as_ref()];
            let known: Vec<&str> = known.into_iter().flatten().map(String::as_str).collect();
            format!(
                "{} ({})",
                device.name,
                [&known[..], &[&human(device.size)]].concat().join(", ")
            )
        }
    };
    files.values().map(name).collect()
}

/// The first digits of a digest: enough to tell one from others.
fn digits(text: &str) -> Result<String> {
    match (8..=64).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)) {
        true => Ok(text.to_owned()),
        false => bail!("not 8 to 64 digits of a set, as `bastide-repo receipts` prints them"),
    }
}

/// A size in bytes, with K, M or G behind it for powers of 1024.
fn size(text: &str) -> Result<u64> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, 'K')) => (&text[..at], 10),
        Some((at, 'M')) => (&text[..at], 20),
        Some((at, 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let size = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift));
    match size.filter(|size| (plan::SMALLEST..=1 << 50).contains(size)) {
        Some(size) => Ok(size),
        None => bail!("not a size as in 4400M, of {}M at least", plan::SMALLEST >> 20),
    }
}

#[derive(Args)]
#[command(
    after_long_help = "Volumes are taken in any order, as many at a time as are there. What is good of
them waits in REPO/quarantine until all have come, invisible; a refused bundle
leaves its reason there.

Examples:
  bastide-repo import stick/1.0.0.bundle --repo gateway --trust site/trust \\
      --dry-run
  bastide-repo import stick/1.0.0.bundle --repo gateway --trust site/trust
  bastide-repo import discs/1.0.0.bundle.001 --repo gateway --trust site/trust
  bastide-repo import discs --repo gateway --trust site/trust"
)]
pub struct Import {
    /// The bundle, or volumes of one, or a directory of them
    #[arg(required = true)]
    bundle: Vec<PathBuf>,
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
        let summary = result.with_context(|| format!("{} is not imported", shown(&self.bundle)))?;
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
        for bad in &summary.bad {
            let which = bad
                .number
                .map(|number| format!(" (volume {number})"))
                .unwrap_or_default();
            warn(&format!(
                "{}{which} has to be carried again: {}",
                bad.file.display(),
                bad.why
            ));
        }
        let waits = !summary.missing.is_empty();
        let exit = match waits && !summary.bad.is_empty() {
            true => Exit::Refused,
            false => Exit::Done,
        };
        if self.json {
            output::json(&summary)?;
            return Ok(exit);
        }
        let list = |versions: &[Version]| versions.iter().map(Version::to_string).collect::<Vec<_>>().join(", ");
        let state = match (self.dry_run, summary.new.is_empty()) {
            _ if waits => {
                let missing: Vec<String> = summary.missing.iter().map(u32::to_string).collect();
                let kept = if self.dry_run {
                    "verified"
                } else {
                    "verified, and waits in quarantine"
                };
                let which = format!("set {:.16}", summary.set.to_string());
                format!("{kept} for volume {} of {which}", missing.join(", "))
            }
            (true, _) => "verified; nothing was taken in".to_owned(),
            (false, true) => "verified; it was here before".to_owned(),
            (false, false) => format!("imported; new here: {}", list(&summary.new)),
        };
        output::line(&format!(
            "{}: release {}, {}, {state}",
            shown(&self.bundle),
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
        Ok(exit)
    }
}

fn shown(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    shown.join(", ")
}

#[derive(Args)]
#[command(
    after_long_help = "A bundle that was taken in is not here any more. --drop gives up one that waits or
was refused, and everything that was kept of it; its name's first digits do.

Examples:
  bastide-repo quarantine --repo gateway
  bastide-repo quarantine --repo gateway --json"
)]
pub struct Held {
    /// The gateway's repository
    #[arg(long)]
    repo: PathBuf,
    /// Give this set up
    #[arg(long, value_name = "SET")]
    drop: Option<String>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

impl Held {
    pub fn run(&self) -> Result<Exit> {
        let quarantine = Quarantine::of(&self.repo);
        if !self.repo.is_dir() {
            bail!("there is no repository {}", self.repo.display());
        }
        if let Some(begin) = &self.drop {
            let _lock = durable::Lock::take(&self.repo)
                .with_context(|| format!("cannot write to the repository {}", self.repo.display()))?;
            let all = quarantine.list()?;
            let named: Vec<_> = all
                .iter()
                .filter(|held| held.set.to_string().starts_with(begin))
                .collect();
            let [held] = named[..] else {
                bail!(
                    "{} bundles in quarantine begin with {begin}: name one of them",
                    named.len()
                );
            };
            quarantine.release(held.set)?;
        }
        let all = quarantine.list()?;
        if self.json {
            output::json(&serde_json::json!({ "quarantine": all }))?;
            return Ok(Exit::Done);
        }
        if all.is_empty() {
            output::line("nothing is in quarantine")?;
        }
        for held in &all {
            let versions: Vec<String> = held.releases.iter().map(Version::to_string).collect();
            let numbers = |numbers: &BTreeSet<u32>| numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            let state = match held.received.is_empty() {
                true => String::new(),
                false => format!(", has volume {}", numbers(&held.received)),
            };
            let waits = match held.missing.is_empty() {
                true => String::new(),
                false => format!(", waits for {}", numbers(&held.missing)),
            };
            let set = held.set.to_string();
            output::line(&format!("{set:.16}: release {}{state}{waits}", versions.join(", ")))?;
            if let Some(refusal) = &held.refused {
                let volumes: BTreeSet<u32> = refusal.volumes.keys().copied().collect();
                let which = match volumes.is_empty() {
                    true => String::new(),
                    false => format!("volume {} ", numbers(&volumes)),
                };
                output::line(&format!(
                    "  {which}refused {}: {}",
                    refusal.at.format("%Y-%m-%d %H:%M UTC"),
                    refusal.reason
                ))?;
            }
        }
        Ok(Exit::Done)
    }
}
