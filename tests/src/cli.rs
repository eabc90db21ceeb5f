// SPDX-License-Identifier: GPL-3.0-or-later
//! The command line of `journey`, and the order in which the stories are told.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::{Parser, Subcommand, ValueEnum};

use crate::bench::{self, Subject};
use crate::ledger::Ledger;
use crate::story::{audit, build, clock, host, install, recover, refuse, reproduce, served, sovereigns};
use crate::workshop::Workshop;

const EXAMPLES: &str = "\
Examples:
  journey demo
  journey demo --out /var/tmp/journey
  journey tell guest
  journey tell update recover --out out
  journey bench
  journey bench boot update
  journey bench pool

Exit codes: 0 all passed, 1 a story failed or could not be told, 2 wrong command
line. A machine's serial console is kept in OUT/vm/STORY/.";

/// Tells Bastide's journey: from upstream's packages to a patched Xen host, in virtual machines
#[derive(Parser)]
#[command(name = "journey", version, max_term_width = 80, after_long_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    story: Story,
    /// The workspace's root
    #[arg(long, default_value = ".", global = true)]
    source: PathBuf,
    /// Where everything is made; finished steps found there are reused
    #[arg(long, default_value = "out", global = true)]
    out: PathBuf,
}

#[derive(Subcommand, Clone, PartialEq, Eq)]
enum Story {
    /// The main job, whole: every story, in the order in which they stand on each other
    Demo,
    /// Single stories, on what earlier runs made
    Tell {
        /// Which
        #[arg(required = true)]
        chapters: Vec<Chapter>,
    },
    /// Times and sizes as ratios beside a peer; all but pool and tuf need what the demonstration made
    Bench {
        /// Which; all where none is named
        subjects: Vec<Subject>,
    },
}

/// The stories that stand on an installed host or on its medium.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Chapter {
    /// The installed host
    Host,
    /// A guest on it, and the host's audit
    Guest,
    /// Forged bundles and a foreign boot image
    Refusals,
    /// A power cut, the update to the patched Xen, a rollback refused
    Update,
    /// A release that is never healthy
    Recover,
    /// The update from a gateway's server, two machines on one bridge
    Served,
    /// The audit of ISO, repository and bundle
    Audit,
    /// An installation from CD onto old RAID and LVM
    Cd,
    /// A host that demands two sovereigns, after the installation from CD
    Sovereigns,
    /// An altered medium
    Altered,
    /// A power cut during the installation
    Cut,
    /// A clock that is wrong by years, both ways; after the refusals
    Clock,
    /// The same bits elsewhere
    Reproduce,
}

impl Chapter {
    fn tell(self, shop: &Workshop, ledger: &Ledger) -> Result<()> {
        match self {
            Self::Host => host::first(shop, ledger),
            Self::Guest => host::guest(shop, ledger),
            Self::Refusals => refuse::before_update(shop, ledger),
            Self::Update => host::patch(shop, ledger),
            Self::Recover => recover::by_itself(shop, ledger),
            Self::Served => served::update_from(shop, ledger),
            Self::Audit => audit::artifacts(shop, ledger),
            Self::Cd => install::from_cd(shop, ledger),
            Self::Sovereigns => sovereigns::demand_both(shop, ledger),
            Self::Altered => install::from_altered_medium(shop, ledger),
            Self::Cut => install::cut_off(shop, ledger),
            Self::Clock => clock::wrong_both_ways(shop, ledger),
            Self::Reproduce => reproduce::elsewhere(shop, ledger),
        }
    }
}

/// Does what the command line says; whether everything passed.
///
/// # Errors
/// When the workshop cannot be opened or a benchmark does not work. What fails in a story stands in the table.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let shop = Workshop::open(&arguments.source, &arguments.out)?;
    if let Story::Bench { subjects } = &arguments.story {
        bench::run(&shop, subjects)?;
        return Ok(true);
    }
    let ledger = Ledger::open(&shop.out)?;
    // What failed stands in the table; a story that builds on it is not told.
    let told = match &arguments.story {
        Story::Tell { chapters } => all(chapters, &shop, &ledger),
        _ => tell(&shop, &ledger),
    };
    let (table, passed) = ledger.table();
    ledger.save(&shop.at("journey.json"))?;
    println!(
        "\n{table}\nartifacts: {} (this table: journey.json)",
        shop.out.display()
    );
    // What no step could be begun for is not in the table.
    told?;
    Ok(passed)
}

/// The whole journey, on two lanes for two cores.
fn tell(shop: &Workshop, ledger: &Ledger) -> Result<()> {
    use Chapter::{
        Altered, Audit, Cd, Clock, Cut, Guest, Host, Recover, Refusals, Reproduce, Served, Sovereigns, Update,
    };
    build::mirror(shop, ledger)?;
    build::sites(shop, ledger)?;
    build::release(shop, ledger, build::BASE)?;
    build::medium(shop, ledger)?;
    lanes(
        || {
            install::from_usb(shop, ledger)?;
            all(&[Host, Guest, Altered, Cut], shop, ledger)
        },
        || {
            build::release(shop, ledger, build::PATCHED)?;
            build::release(shop, ledger, build::BROKEN)
        },
    )?;
    lanes(
        || {
            Update.tell(shop, ledger)?;
            all(&[Recover, Refusals, Clock], shop, ledger)
        },
        || all(&[Reproduce, Audit, Cd, Sovereigns, Served], shop, ledger),
    )
}

/// Tells stories one after the other, each to its end.
fn all(chapters: &[Chapter], shop: &Workshop, ledger: &Ledger) -> Result<()> {
    let told: Vec<_> = chapters.iter().map(|chapter| chapter.tell(shop, ledger)).collect();
    told.into_iter().collect()
}

/// Tells two chains of stories at once, both to their ends.
fn lanes(one: impl FnOnce() -> Result<()>, other: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    std::thread::scope(|scope| {
        let other = scope.spawn(other);
        let one = one();
        let other = other.join().map_err(|_| anyhow!("a story panicked"))?;
        one.and(other)
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_examples_of_the_help_are_command_lines() {
        let lines: Vec<_> = EXAMPLES.lines().filter(|line| line.starts_with("  journey ")).collect();
        assert!(lines.len() > 3);
        for line in lines {
            Arguments::try_parse_from(line.split_whitespace()).unwrap();
        }
        let help = Arguments::command().render_long_help().to_string();
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }
}
