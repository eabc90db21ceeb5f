// SPDX-License-Identifier: GPL-3.0-or-later
//! `mirror`: left of the first signature.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use offline_repo::apt::Upstream;
use offline_repo::mirror::{self, Event, Mode, Options};
use offline_repo::spec::{self, Spec};
use offline_repo::store::Store;
use offline_repo::words::human;
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
