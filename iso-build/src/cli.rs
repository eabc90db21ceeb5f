// SPDX-License-Identifier: GPL-3.0-or-later
//! The command line of `bastide-iso`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use signing::output;
use signing::release::Version;

use crate::build;

/// Builds the host image and the bootable medium from a snapshot, without a network.
#[derive(Debug, Parser)]
#[command(name = "bastide-iso", version, max_term_width = 80)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the parts of a release from a snapshot.
    #[command(after_long_help = "Examples:
  Build version 1.0.0 of the channel stable from the snapshot `base`:
    sudo bastide-iso build --store store --snapshot base --version 1.0.0 \\
      --trust site/trust --source . --out build-1.0.0

  Say what would be made anew, and make nothing:
    bastide-iso build --dry-run --store store --snapshot base \\
      --version 1.0.0 --trust site/trust --source . --out build-1.0.0")]
    Build(BuildArgs),
}

#[derive(Debug, Args)]
struct BuildArgs {
    /// The store with the snapshot (bastide-repo mirror)
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// The snapshot's name
    #[arg(long, value_name = "NAME")]
    snapshot: String,
    /// The release's version, such as 1.0.0
    #[arg(long)]
    version: Version,
    /// The release's channel
    #[arg(long, default_value = "stable")]
    channel: String,
    /// The trust directory that is baked into the image
    #[arg(long, value_name = "DIR")]
    trust: PathBuf,
    /// The source of Bastide's programs and policy
    #[arg(long, value_name = "DIR", default_value = ".")]
    source: PathBuf,
    /// Where the parts are put
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where results are kept for the next build
    #[arg(long, value_name = "DIR", default_value = "out/iso-work")]
    work: PathBuf,
    /// The Rust toolchain, where not the one that rustup finds
    #[arg(long, value_name = "DIR")]
    toolchain: Option<PathBuf>,
    /// Cargo's home directory with the fetched crates [default: CARGO_HOME,
    /// else ~/.cargo]
    #[arg(long, value_name = "DIR")]
    cargo_home: Option<PathBuf>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command line.
///
/// # Errors
/// What the command's function returns.
pub fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Build(args) => run_build(args),
    }
}

fn run_build(args: BuildArgs) -> Result<()> {
    let options = build::Options {
        store: args.store,
        snapshot: args.snapshot,
        version: args.version,
        channel: args.channel,
        trust: args.trust,
        source: args.source,
        out: args.out,
        work: args.work,
        toolchain: args.toolchain,
        cargo_home: args.cargo_home,
        quiet: args.json,
    };
    if args.dry_run {
        let plan = build::plan(&options)?;
        if args.json {
            return Ok(output::json(&plan)?);
        }
        output::line(&format!(
            "snapshot {}: {} packages in the image, {} in the builder root; {}",
            plan.snapshot, plan.host_packages, plan.builder_packages, plan.compiler
        ))?;
        for step in &plan.steps {
            output::line(&format!(
                "  {:<24} {}",
                step.step,
                if step.at_hand { "at hand" } else { "to be made" }
            ))?;
        }
        return Ok(());
    }
    let report = build::build(&options)?;
    if args.json {
        return Ok(output::json(&report)?);
    }
    let release = &report.release;
    output::line(&format!(
        "{} {} from snapshot {}",
        release.channel, release.version, release.snapshot
    ))?;
    output::line(&format!("root hash {}", release.root_hash))?;
    for part in &release.parts {
        output::line(&format!(
            "  {:<24} {:>12}  {}",
            part.part.file(),
            part.size,
            part.sha256
        ))?;
    }
    output::line(&format!("in {}", report.build.display()))?;
    Ok(())
}
