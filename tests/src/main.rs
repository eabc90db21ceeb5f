// SPDX-License-Identifier: GPL-3.0-or-later
//! `journey`: the stories as a program, for the demonstration and for the tests.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{Parser, Subcommand, ValueEnum};
use journey::ledger::Ledger;
use journey::story::{audit, build, host, install, recover, refuse, reproduce};
use journey::workshop::Workshop;

/// Tells Bastide's journey: from upstream's packages to a patched Xen host, in virtual machines
#[derive(Parser)]
#[command(after_long_help = "Examples:\n  journey demo\n  journey test --out out")]
struct Arguments {
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
    /// The main job: mirror, keys, three releases, medium, install, boot, audit of the artifacts
    Demo,
    /// Single stories, on what earlier runs made
    Tell {
        /// Which
        #[arg(required = true)]
        chapters: Vec<Chapter>,
    },
    /// Times and sizes as ratios beside a peer; needs what the demonstration made
    Bench,
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
    /// The audit of ISO, repository and bundle
    Audit,
    /// An installation from CD onto old RAID and LVM
    Cd,
    /// An altered medium
    Altered,
    /// A power cut during the installation
    Cut,
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
            Self::Audit => audit::artifacts(shop, ledger),
            Self::Cd => install::from_cd(shop, ledger),
            Self::Altered => install::from_altered_medium(shop, ledger),
            Self::Cut => install::cut_off(shop, ledger),
            Self::Reproduce => reproduce::elsewhere(shop, ledger),
        }
    }
}

/// Tells stories one after the other, each to its end.
fn all(chapters: &[Chapter], shop: &Workshop, ledger: &Ledger) -> Result<()> {
    let told: Vec<_> = chapters.iter().map(|chapter| chapter.tell(shop, ledger)).collect();
    told.into_iter().collect()
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => signing::output::report("journey", &error),
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let shop = Workshop::open(&arguments.source, &arguments.out)?;
    if arguments.story == Story::Bench {
        journey::bench::run(&shop)?;
        return Ok(true);
    }
    let ledger = Ledger::open(&shop.out)?;
    // What failed stands in the table; a story that builds on it is not told.
    let told = match &arguments.story {
        Story::Tell { chapters } => all(chapters, &shop, &ledger),
        _ => tell(&shop, &ledger),
    };
    let (table, passed) = ledger.table();
    println!("\n{table}\nartifacts: {}", shop.out.display());
    Ok(passed && told.is_ok())
}

fn tell(shop: &Workshop, ledger: &Ledger) -> Result<()> {
    build::mirror(shop, ledger)?;
    build::sites(shop, ledger)?;
    build::release(shop, ledger, build::BASE)?;
    build::medium(shop, ledger)?;
    // Two lanes for two cores: virtual machines in one, builds and the installer's other stories in the other.
    lanes(
        || install::from_usb(shop, ledger).and_then(|()| host::first(shop, ledger)),
        || build::release(shop, ledger, build::PATCHED).and_then(|()| build::release(shop, ledger, build::BROKEN)),
    )?;
    all(&[Chapter::Audit], shop, ledger)
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
