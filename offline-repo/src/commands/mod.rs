// SPDX-License-Identifier: GPL-3.0-or-later
//! The command line: its words, and what is printed. All work is done by the library.

mod approve;
mod apt;
mod carry;
mod list;
mod low;
mod pool;
mod receipts;
mod release;
#[cfg(feature = "serve")]
mod serve;
mod snapshot;

use std::path::Path;

use anyhow::Result;
use clap::{Parser, Subcommand};
use signing::output::Exit;

/// Snapshots of upstream packages, signed releases, and bundles that carry
/// them over the air gap.
#[derive(Parser)]
#[command(
    name = "bastide-repo",
    version,
    max_term_width = 80,
    arg_required_else_help = true,
    after_long_help = "Exit status: 0 done, 1 failed, 2 wrong command line, 3 refused,
4 could not check.

Examples:
  bastide-repo mirror offline-repo/specs/base.toml --store store
  bastide-repo snapshot verify base --store store
  bastide-repo verify --store store
  bastide-repo repair --store store --from stick/store
  bastide-repo prune --store store --keep-last 3
  bastide-repo publish --repo repository --site site \\
      --passphrase-file passphrase --release build/1.0.0
  bastide-repo export --repo repository --out stick/1.0.0.bundle
  bastide-repo import stick/1.0.0.bundle --repo gateway --trust site/trust
  bastide-repo approve 1.0.0 --repo gateway --trust vendor-trust \\
      --site office --passphrase-file passphrase
  bastide-repo receive rack4.receipt.json --repo gateway
  bastide-repo list gateway --trust site/trust"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetch and verify the packages of a specification, as a snapshot
    Mirror(low::Mirror),
    /// Look at a store's snapshots: list, show, diff, verify
    Snapshot(snapshot::Group),
    /// Read every object of a store's pool, and name what is damaged or missing
    Verify(pool::Verify),
    /// Take what is damaged or missing from another store's pool
    Repair(pool::Repair),
    /// Remove snapshots, and the objects that no other one needs
    Prune(pool::Prune),
    /// Sign a build as a release of a TUF repository, or renew the signatures
    Publish(release::Publish),
    /// Write releases into one file for the way over the gap
    Export(carry::Export),
    /// Verify a bundle and take it into a gateway's repository
    Import(carry::Import),
    /// Say what waits in quarantine or was refused, and why
    Quarantine(carry::Held),
    /// Put the site's signature beside the vendor's, for hosts that demand both
    Approve(approve::Approve),
    /// Know a host or a gateway by the key of its first receipt
    Enrol(receipts::Enrol),
    /// Take receipts that came back over the gap
    Receive(receipts::Receive),
    /// Say who acknowledged what, and when
    Receipts(receipts::Receipts),
    /// Give a receipt of what this gateway holds
    Receipt(receipts::Give),
    /// Give packages to guests that run plain apt: publish
    Apt(apt::Group),
    /// Give a repository to a network behind the gap, over HTTP
    #[cfg(feature = "serve")]
    Serve(serve::Serve),
    /// Say what is in a repository or a bundle
    List(list::List),
}

/// Does what the command line says.
pub fn run(cli: &Cli) -> Result<Exit> {
    match &cli.command {
        Command::Mirror(args) => args.run(),
        Command::Snapshot(args) => args.run(),
        Command::Verify(args) => args.run(),
        Command::Repair(args) => args.run(),
        Command::Prune(args) => args.run(),
        Command::Publish(args) => args.run(),
        Command::Export(args) => args.run(),
        Command::Import(args) => args.run(),
        Command::Quarantine(args) => args.run(),
        Command::Approve(args) => args.run(),
        Command::Enrol(args) => args.run(),
        Command::Receive(args) => args.run(),
        Command::Receipts(args) => args.run(),
        Command::Receipt(args) => args.run(),
        Command::Apt(args) => args.run(),
        #[cfg(feature = "serve")]
        Command::Serve(args) => args.run(),
        Command::List(args) => args.run(),
    }
}

/// The pinned root of a trust directory, or the repository's own where none is given.
fn pinned_root(trust: Option<&Path>, own: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    match trust {
        Some(directory) => signing::site::Trust::open(directory)?.root(),
        None => own(),
    }
}
