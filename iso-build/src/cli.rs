// SPDX-License-Identifier: GPL-3.0-or-later
//! The command line of `bastide-iso`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use signing::keys::Passphrase;
use signing::output;
use signing::release::{Part, Version};
use signing::site::Site;

use crate::progress::Progress;
use crate::{assemble, build, inspect, sign};

/// Builds the host image and the bootable medium from a snapshot, without a network.
#[derive(Debug, Parser)]
#[command(
    name = "bastide-iso",
    version,
    max_term_width = 80,
    after_long_help = "Exit status: 0 done, 1 failed, 2 wrong command line, 3 refused (a build that is
not the published one, a private key where everybody can read it).

Examples:
  sudo bastide-iso build --store store --snapshot base --version 1.0.0 \\
      --trust site/trust --source . --out build-1.0.0
  bastide-iso sign --build build-1.0.0 --site site \\
      --passphrase-file passphrase
  sudo bastide-iso assemble --build build-1.0.0 --repo repository \\
      --site site --passphrase-file passphrase --out bastide-1.0.0.iso
  bastide-iso inspect bastide-1.0.0.iso"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the parts of a release from a snapshot.
    #[command(
        override_usage = "bastide-iso build [OPTIONS] --store <DIR> --snapshot <NAME> \\
           --version <VERSION> --trust <DIR> --out <DIR>",
        after_long_help = "Examples:
  Build version 1.0.0 of the channel stable from the snapshot `base`:
    sudo bastide-iso build --store store --snapshot base --version 1.0.0 \\
      --trust site/trust --source . --out build-1.0.0

  Say what would be made anew, and make nothing:
    bastide-iso build --dry-run --store store --snapshot base \\
      --version 1.0.0 --trust site/trust --source . --out build-1.0.0"
    )]
    Build(BuildArgs),
    /// Sign the boot images of a build with a site's Secure Boot key.
    #[command(after_long_help = "Examples:
  bastide-iso sign --build build-1.0.0 --site site \\
      --passphrase-file passphrase")]
    Sign(SignArgs),
    /// Make the bootable ISO of a published build.
    #[command(after_long_help = "Examples:
  sudo bastide-iso assemble --build build-1.0.0 --repo repository \\
      --site site --passphrase-file passphrase --out bastide-1.0.0.iso")]
    Assemble(AssembleArgs),
    /// Say what is on an ISO, unverified (bastide-audit verifies).
    #[command(after_long_help = "Examples:
  bastide-iso inspect bastide-1.0.0.iso --json")]
    Inspect(InspectArgs),
}

#[derive(Debug, Args)]
struct SignArgs {
    /// The build's directory
    #[arg(long, value_name = "DIR")]
    build: PathBuf,
    /// The site whose db key signs
    #[arg(long, value_name = "DIR")]
    site: PathBuf,
    /// Read the passphrase from this file, and not from the terminal
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Print the build's facts as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct AssembleArgs {
    /// The signed build's directory
    #[arg(long, value_name = "DIR")]
    build: PathBuf,
    /// The repository that the build was published to
    #[arg(long, value_name = "DIR")]
    repo: PathBuf,
    /// The ISO to make
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The working directory of the build, with its builder root
    #[arg(long, value_name = "DIR", default_value = "out/iso-work")]
    work: PathBuf,
    /// Take metadata that has expired: every installer refuses such a medium,
    /// and a test may want to see it
    #[arg(long)]
    allow_expired: bool,
    /// The site whose OpenPGP key signs the ISO, as FILE.asc beside it
    #[arg(long, value_name = "DIR")]
    site: Option<PathBuf>,
    /// Read the passphrase from this file, and not from the terminal
    #[arg(long, value_name = "FILE", requires = "site")]
    passphrase_file: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// The ISO
    iso: PathBuf,
    /// Print the contents as JSON
    #[arg(long)]
    json: bool,
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
    /// Lay the files of this directory over the image, owned by root
    #[arg(long, value_name = "DIR")]
    overlay: Option<PathBuf>,
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
        Command::Sign(args) => run_sign(&args),
        Command::Assemble(args) => run_assemble(args),
        Command::Inspect(args) => run_inspect(&args),
    }
}

fn passphrase(file: Option<&Path>, site: &Site) -> Result<Passphrase> {
    let prompt = format!("Passphrase of the site {}: ", site.facts().name);
    Ok(Passphrase::obtain(file, &prompt)?)
}

fn run_sign(args: &SignArgs) -> Result<()> {
    let site = Site::open(&args.site)?;
    let passphrase = passphrase(args.passphrase_file.as_deref(), &site)?;
    let release = sign::sign(&args.build, &site, &passphrase, &mut Progress::new(args.json))?;
    if args.json {
        return Ok(output::json(&release)?);
    }
    for part in release
        .parts
        .iter()
        .filter(|part| matches!(part.part, Part::Xen | Part::Installer))
    {
        output::line(&format!(
            "signed {:<14} {:>12} bytes\n  sha256 {}",
            part.part.file(),
            part.size,
            part.sha256
        ))?;
    }
    Ok(())
}

fn run_assemble(args: AssembleArgs) -> Result<()> {
    let key = match &args.site {
        Some(directory) => {
            let site = Site::open(directory)?;
            let passphrase = passphrase(args.passphrase_file.as_deref(), &site)?;
            Some((site, passphrase))
        }
        None => None,
    };
    let options = assemble::Options {
        build: args.build,
        repository: args.repo,
        work: args.work,
        out: args.out,
        allow_expired: args.allow_expired,
        quiet: args.json,
    };
    let report = assemble::assemble(&options, key.as_ref().map(|(site, passphrase)| (site, passphrase)))?;
    if args.json {
        return Ok(output::json(&report)?);
    }
    output::line(&format!(
        "{}\n  {} bytes\n  sha256 {}",
        report.iso.display(),
        report.size,
        report.sha256
    ))?;
    match &report.signature {
        Some(place) => output::line(&format!("signed: {}", place.display()))?,
        None => output::line("not signed: give --site to sign it")?,
    }
    Ok(())
}

fn run_inspect(args: &InspectArgs) -> Result<()> {
    let contents = inspect::inspect(&args.iso)?;
    if args.json {
        return Ok(output::json(&contents)?);
    }
    output::line(&format!(
        "{}  {} bytes  label {}",
        contents.iso.display(),
        contents.length,
        contents.label
    ))?;
    let signature = contents.signature.as_ref().map(|place| place.display().to_string());
    output::line(&match signature {
        Some(place) => format!("OpenPGP signature: {place} (not verified here)"),
        None => "OpenPGP signature: none beside it".to_owned(),
    })?;
    for part in &contents.parts {
        let held = if part.present { "" } else { "  (not on the medium)" };
        output::line(&format!("  {:<32} {:>12}{held}", part.target, part.custom.size))?;
    }
    if let Some(part) = contents.parts.last() {
        output::line(&format!(
            "release {} {}\n  root hash {}",
            part.custom.channel, part.custom.version, part.custom.root_hash
        ))?;
    }
    for (place, files) in [
        ("metadata", &contents.metadata),
        ("EFI system partition", &contents.system_partition),
    ] {
        output::line(&format!("{place}:"))?;
        for file in files {
            output::line(&format!("  {:<32} {:>12}", file.path, file.length))?;
        }
    }
    Ok(())
}

fn run_build(args: BuildArgs) -> Result<()> {
    let options = build::Options {
        store: args.store,
        snapshot: args.snapshot,
        version: args.version,
        channel: args.channel,
        trust: args.trust,
        overlay: args.overlay,
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
            "snapshot {}: {} in the image, {} in the builder root\n{}",
            plan.snapshot,
            output::count(plan.host_packages, "package"),
            plan.builder_packages,
            plan.compiler
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
            "  {:<24} {:>12} bytes\n    {}",
            part.part.file(),
            part.size,
            part.sha256
        ))?;
    }
    output::line(&format!("in {}", report.build.display()))?;
    output::line(&format!(
        "next: bastide-iso sign --build {} --site SITE",
        report.build.display()
    ))?;
    Ok(())
}
