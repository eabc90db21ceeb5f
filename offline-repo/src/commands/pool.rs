// SPDX-License-Identifier: GPL-3.0-or-later
//! `verify`: the care of a store's pool.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use offline_repo::store::Store;
use offline_repo::verify::{self, Finding, Report};
use offline_repo::words::human;
use serde_json::json;
use signing::output::{self, Exit};

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
    let report = verify::verify(store, resume, &mut |step| {
        let read = output::count(step.objects as usize, "object");
        screen.say(format!(
            "{:3} % of the pool: {read}, {}",
            step.percent,
            human(step.bytes)
        ));
    });
    screen.end();
    report
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
        output::line("way out: delete the damaged ones, and `bastide-repo mirror` fetches what lacks")?;
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
