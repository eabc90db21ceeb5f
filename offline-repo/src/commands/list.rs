// SPDX-License-Identifier: GPL-3.0-or-later
//! `list`: what is in a repository or a bundle.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use offline_repo::bundle::BundleSource;
use offline_repo::repository::{self, LARGEST_ROOT, Reading, Repository};
use offline_repo::words::{freshness, human};
use serde_json::json;
use signing::clock;
use signing::output::{self, Exit};
use signing::tuf::{Limits, Source};

use super::pinned_root;

#[derive(Args)]
#[command(
    after_long_help = "Without --trust it is only said what a repository or bundle claims. With it the
metadata are verified; contents are read by `export`, `import` and the audit.

Examples:
  bastide-repo list repository --trust site/trust
  bastide-repo list stick/1.0.0.bundle --trust site/trust --json"
)]
pub struct List {
    /// A repository or a bundle
    path: PathBuf,
    /// Verify from the pinned root of this trust directory
    #[arg(long, value_name = "DIR")]
    trust: Option<PathBuf>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

impl List {
    pub fn run(&self) -> Result<Exit> {
        if self.path.join("pool").is_dir() {
            let place = self.path.display();
            bail!("{place} is a store: `bastide-repo snapshot list --store {place}` says what is in it");
        }
        let trust = self.trust.as_deref();
        let kind = fs::metadata(&self.path).with_context(|| format!("cannot look at {}", self.path.display()))?;
        let reading = if kind.is_dir() {
            let repository = Repository::open(&self.path)?;
            let root = pinned_root(trust, || repository.own_root())?;
            repository.read(&root)?
        } else {
            let mut bundle = BundleSource::open(&self.path)?;
            let own = || {
                bundle
                    .metadata("1.root.json", LARGEST_ROOT)?
                    .context("it carries no root")
            };
            let root = pinned_root(trust, own)?;
            let carried = bundle.target_paths();
            repository::read(&mut bundle, &root, Limits::default(), &|path| carried.contains(path))
                .with_context(|| format!("cannot use the bundle {}", self.path.display()))?
        };
        self.releases(&reading)
    }

    fn releases(&self, reading: &Reading) -> Result<Exit> {
        let expires = reading.expires();
        let now = clock::now();
        if self.json {
            output::json(&json!({
                "metadata_verified": self.trust.is_some(),
                "contents_read": false,
                "expired": expires.as_ref().is_some_and(|(_, expires)| *expires <= now),
                "timestamp": reading.role("timestamp").map(|(version, _)| version),
                "expires": expires.map(|(role, expires)| json!({"role": role, "at": expires})),
                "releases": reading.releases,
            }))?;
            return Ok(Exit::Done);
        }
        for release in &reading.releases {
            output::line(&format!(
                "{} {} root {:.16} {}{}",
                release.version,
                release.channel,
                release.root_hash.to_string(),
                human(release.size()),
                if release.complete() {
                    ""
                } else {
                    " (described only: its files are not here)"
                }
            ))?;
        }
        if let Some((role, expires)) = expires {
            output::line(&format!(
                "{}; {} ({role})",
                if self.trust.is_some() {
                    "metadata verified, contents not read"
                } else {
                    "nothing verified (no --trust)"
                },
                freshness(expires, now)
            ))?;
        }
        Ok(Exit::Done)
    }
}
