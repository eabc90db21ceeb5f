// SPDX-License-Identifier: GPL-3.0-or-later
//! `verify`, `repair` and `prune`: the care of a store's pool.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use offline_repo::acknowledged::{self, Acknowledged};
use offline_repo::prune::{self, Plan, Policy};
use offline_repo::repair;
use offline_repo::repository::Repository;
use offline_repo::store::Store;
use offline_repo::verify::{self, Finding, Report, Step};
use offline_repo::words::human;
use serde_json::json;
use signing::clock;
use signing::output::{self, Exit};

use super::pinned_root;
use crate::progress::Screen;

#[derive(Args)]
#[command(
    after_long_help = "Every object is read and hashed on all cores. A run that was stopped, by
whatever, goes on with --resume from where it was a second before.

Exit status: 0 all is whole, 1 failed, 2 wrong command line, 3 something is
damaged or missing, 4 something could not be read and nothing is damaged.

Examples:
  bastide-repo verify --store store
  bastide-repo verify --store store --resume --json"
)]
pub struct Verify {
    /// The store's directory
    #[arg(long)]
    store: PathBuf,
    /// Go on from where an unfinished run was; from the start if there is none
    #[arg(long)]
    resume: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub fn run(&self) -> Result<Exit> {
        let store = Store::open(&self.store)?;
        let report = read_all(&store, self.resume)?;
        if self.json {
            let mut value = serde_json::to_value(&report)?;
            value["whole"] = json!(report.exit() == Exit::Done);
            output::json(&value)?;
        } else {
            print(&report)?;
        }
        Ok(report.exit())
    }
}

/// Verifies with progress on a terminal.
fn read_all(store: &Store, resume: bool) -> Result<Report> {
    let screen = Screen::new(false);
    let report = verify::verify(store, resume, &mut |step| screen.say(told_step(step)));
    screen.end();
    report
}

fn told_step(step: Step) -> String {
    let read = output::count(step.objects as usize, "object");
    format!("{:3} % of the pool: {read}, {}", step.percent, human(step.bytes))
}

fn print(report: &Report) -> Result<()> {
    for (word, findings) in [("damaged", &report.damaged), ("missing", &report.missing)] {
        for finding in findings {
            output::line(&told(word, finding))?;
        }
    }
    for unread in &report.unread {
        output::line(&format!("could not read {}: {}", unread.path.display(), unread.why))?;
    }
    for stranger in &report.strangers {
        output::line(&format!("no object of the pool: {}", stranger.display()))?;
    }
    if let Some(why) = &report.not_kept {
        output::line(&format!("the progress could not be kept: {why}"))?;
    }
    let earlier = match report.objects_earlier {
        0 => String::new(),
        number => format!(
            " and {number} by the run that began on {}",
            report.began.format("%Y-%m-%d %H:%M UTC")
        ),
    };
    let (damaged, missing) = (report.damaged.len(), report.missing.len());
    output::line(&format!(
        "{} read, {}{earlier}: {damaged} damaged, {missing} missing, {} could not be read",
        output::count(report.objects as usize, "object"),
        human(report.bytes),
        report.unread.len()
    ))?;
    if damaged + missing > 0 {
        output::line("way out: `bastide-repo repair --from STORE` takes them from another store; or delete the")?;
        output::line("damaged ones, and `bastide-repo mirror` fetches what lacks")?;
    }
    Ok(())
}

fn told(word: &str, finding: &Finding) -> String {
    let needed = if finding.needed_by.is_empty() {
        "no snapshot needs it".to_owned()
    } else {
        format!("needed by {}", finding.needed_by.join(", "))
    };
    format!("{word}: {}: {}; {needed}", finding.path.display(), finding.why)
}

#[derive(Args)]
#[command(
    after_long_help = "The store is verified first. An object of the other store is held against its
digest before it takes its place.

Exit status: 0 all is whole now, 1 failed, 2 wrong command line, 3 something is
still damaged or missing, and named, 4 something could not be read.

Examples:
  bastide-repo repair --store store --from stick/store
  bastide-repo repair --store store --from stick/store --json"
)]
pub struct Repair {
    /// The store to be repaired
    #[arg(long)]
    store: PathBuf,
    /// The store from which whole objects are taken
    #[arg(long, value_name = "STORE")]
    from: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Repair {
    pub fn run(&self) -> Result<Exit> {
        let (store, from) = (Store::open(&self.store)?, Store::open(&self.from)?);
        let screen = Screen::new(false);
        let report = repair::repair(&store, &from, &mut |step| screen.say(told_step(step)));
        screen.end();
        let report = report?;
        if self.json {
            let mut value = serde_json::to_value(&report)?;
            value["whole"] = json!(report.exit() == Exit::Done);
            output::json(&value)?;
            return Ok(report.exit());
        }
        for (word, findings) in [("repaired", &report.repaired), ("not repaired", &report.unrepaired)] {
            for finding in findings {
                output::line(&told(word, finding))?;
            }
        }
        for file in &report.relinked {
            output::line(&format!("put right: {}", file.display()))?;
        }
        for unread in &report.unread {
            output::line(&format!("could not read {}: {}", unread.path.display(), unread.why))?;
        }
        output::line(&format!(
            "{} read: {} repaired, {} not repaired, {} could not be read",
            output::count(report.objects as usize, "object"),
            report.repaired.len(),
            report.unrepaired.len(),
            report.unread.len()
        ))?;
        Ok(report.exit())
    }
}

#[derive(Args)]
#[command(
    after_long_help = "A group of snapshots has the same name but for a date or number at the end, the
same suites and the same architecture; the newest is the one with the newest
lists of upstream. A snapshot stays if any option keeps it. What a mirror
run that was stopped has fetched for no snapshot yet goes too.

With --acknowledged a release is needed as long as somebody who is enrolled
acknowledges it or has not gone past it; the last word of whoever fell silent
counts as ever. Alone it leaves snapshots that no release was published from.

Nobody else may have the store open. Nothing is removed when a manifest cannot
be read, or what is no snapshot lies among them. A run that was cut off loses
nothing that is to be kept; run it again.

Examples:
  bastide-repo prune --store store --keep-last 3 --keep base --dry-run
  bastide-repo prune --store store --keep-last 3 --keep base
  bastide-repo prune --store store --keep base --keep patched --json
  bastide-repo prune --store store --acknowledged repository --within 30 \\
      --dry-run"
)]
pub struct Prune {
    /// The store's directory
    #[arg(long)]
    store: PathBuf,
    /// Keep the newest N snapshots of each group
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), required_unless_present_any = ["keep", "acknowledged"])]
    keep_last: Option<u32>,
    /// Keep this snapshot; may be repeated
    #[arg(long, value_name = "NAME")]
    keep: Vec<String>,
    /// Keep the snapshots of the releases of this repository that somebody enrolled in
    /// it still acknowledges, or has not come to yet
    #[arg(long, value_name = "REPO")]
    acknowledged: Option<PathBuf>,
    /// Verify that repository from the pinned root of this trust directory
    #[arg(long, value_name = "DIR", requires = "acknowledged")]
    trust: Option<PathBuf>,
    /// Name whoever gave no receipt for so many days
    #[arg(long, value_name = "DAYS", default_value_t = 90, requires = "acknowledged")]
    within: u32,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

impl Prune {
    pub fn run(&self) -> Result<Exit> {
        let policy = Policy {
            names: self.keep.iter().cloned().collect(),
            last: self.keep_last.unwrap_or(0) as usize,
            acknowledged: self.acknowledged().context("nothing was removed")?,
        };
        let plan = if self.dry_run {
            prune::plan(&Store::open(&self.store)?, &policy)?
        } else {
            let alone = Store::open_alone(&self.store)?;
            let screen = Screen::new(false);
            let pruned = prune::prune(&alone, &policy, &mut |step| {
                screen.say(format!("removing objects: {} of {}", step.done, step.total));
            });
            screen.end();
            pruned?
        };
        if self.json {
            let mut value = serde_json::to_value(&plan)?;
            value["dry_run"] = json!(self.dry_run);
            output::json(&value)?;
        } else {
            tell(&plan, self.dry_run)?;
        }
        Ok(Exit::Done)
    }
}

impl Prune {
    fn acknowledged(&self) -> Result<Option<Acknowledged>> {
        let Some(place) = &self.acknowledged else {
            return Ok(None);
        };
        let repository = Repository::open(place)?;
        let root = pinned_root(self.trust.as_deref(), || repository.own_root())?;
        let since = acknowledged::since(clock::now(), self.within);
        Ok(Some(acknowledged::judge(&repository, &root, since)?))
    }
}

fn tell(plan: &Plan, dry_run: bool) -> Result<()> {
    if let Some(acknowledged) = &plan.acknowledged {
        tell_releases(acknowledged)?;
    }
    for kept in &plan.kept {
        let newest = kept
            .newest_of
            .iter()
            .map(|group| format!("among the newest of {group}"));
        let mut why: Vec<String> = newest.chain(kept.because.iter().cloned()).collect();
        if why.is_empty() {
            why.push("named".to_owned());
        }
        output::line(&format!("kept: {}, {}", kept.name, why.join("; ")))?;
    }
    let word = if dry_run { "would be removed" } else { "removed" };
    for name in &plan.removed {
        output::line(&format!("{word}: {name}"))?;
    }
    for stranger in &plan.strangers {
        output::line(&format!("no object of the pool, left alone: {}", stranger.display()))?;
    }
    output::line(&format!(
        "{word}: {}, {}, {}; {} kept",
        output::count(plan.removed.len(), "snapshot"),
        output::count(plan.objects_removed, "object"),
        human(plan.bytes_removed),
        output::count(plan.objects_kept as usize, "object"),
    ))?;
    Ok(())
}

/// What receipts say of each release, and who says nothing.
fn tell_releases(acknowledged: &Acknowledged) -> Result<()> {
    for (version, fate) in &acknowledged.releases {
        let why = match fate.because.is_empty() {
            true => "nobody needs it: all have gone past it".to_owned(),
            false => fate.because.join("; "),
        };
        output::line(&format!("release {version}: {why}"))?;
    }
    for silent in &acknowledged.silent {
        let last = silent
            .last
            .map_or("never".to_owned(), |last| last.format("%Y-%m-%d").to_string());
        output::line(&format!(
            "{} has given no receipt lately, the last one {last}: what it acknowledged then is kept",
            silent.name
        ))?;
    }
    for (version, names) in &acknowledged.unnamed {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        output::line(&format!(
            "release {version} of {} is none of the repository",
            names.join(", ")
        ))?;
    }
    Ok(())
}
