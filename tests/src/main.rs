// SPDX-License-Identifier: GPL-3.0-or-later
//! `journey`: the stories as a program, for the demonstration and for the tests.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{Parser, Subcommand};
use journey::ledger::Ledger;
use journey::story::{audit, build, host, install, recover, reproduce};
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

#[derive(Subcommand, Clone, Copy, PartialEq, Eq)]
enum Story {
    /// The main job: mirror, keys, build, medium, install, boot, update, refusals, recovery, audit
    Demo,
    /// The demonstration and every other story: reproducibility, CD, altered medium, power cut during installation
    Test,
    /// Times and sizes as ratios beside a peer; needs what the demonstration made
    Bench,
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
    let told = tell(&shop, &ledger, arguments.story);
    let (table, passed) = ledger.table();
    println!("\n{table}\nartifacts: {}", shop.out.display());
    Ok(passed && told.is_ok())
}

fn tell(shop: &Workshop, ledger: &Ledger, story: Story) -> Result<()> {
    build::mirror(shop, ledger)?;
    build::sites(shop, ledger)?;
    build::release(shop, ledger, build::BASE)?;
    build::medium(shop, ledger)?;
    // Two lanes for two cores: virtual machines in one, builds and the installer's other stories in the other.
    lanes(
        || install::from_usb(shop, ledger).and_then(|()| host::first(shop, ledger)),
        || build::release(shop, ledger, build::PATCHED).and_then(|()| build::release(shop, ledger, build::BROKEN)),
    )?;
    lanes(
        || host::life(shop, ledger).and_then(|()| recover::by_itself(shop, ledger)),
        || {
            let mut told = vec![audit::artifacts(shop, ledger)];
            if story == Story::Test {
                told.push(reproduce::elsewhere(shop, ledger));
                told.push(install::from_cd(shop, ledger));
                told.push(install::from_altered_medium(shop, ledger));
                told.push(install::cut_off(shop, ledger));
            }
            told.into_iter().collect()
        },
    )
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
