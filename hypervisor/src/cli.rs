// SPDX-License-Identifier: GPL-3.0-or-later
//! The command line of `bastide-host`.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use serde::Serialize;
use signing::output::{self, Exit};
use signing::tuf::Waiver;

use crate::confirm::{self, Guarded};
use crate::events::{Event, Phase};
use crate::guest::{self, Guest, Harmless, Kind, Places};
use crate::health::{self, Config, Health};
use crate::layout::GUEST_DIRECTORY;
use crate::machine::Machine;
use crate::receipt;
use crate::status;
use crate::timekeeping::TimeStatus;
use crate::update::server::Address;
use crate::update::{self, Depth, Order, Origin, Outcome, Step};

/// Looks after one host: its slots, updates, health and guests.
#[derive(Debug, Parser)]
#[command(name = "bastide-host", version, max_term_width = 80, after_long_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  bastide-host status
  bastide-host update /mnt/release-1.1.0.bundle --dry-run
  bastide-host update --device /dev/sdb --reboot
  bastide-host time
  bastide-host receipt --out rack4.receipt.json
  bastide-host rollback --reboot
  bastide-host guest run tiny

Exit status: 0 done, 1 failed, 2 wrong command line, 3 refused by verification
or policy, 4 could not check, 141 the reader of the output went away.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows slots, versions, Secure Boot, Xen and health.
    ///
    /// What cannot be read is named; the command itself has then still done its
    /// work. Only where nothing of a Bastide host can be read at all does it end
    /// with 4.
    #[command(after_long_help = "Examples:\n  bastide-host status\n  bastide-host status --json")]
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Installs the newest release of a bundle into the idle slot, on trial.
    ///
    /// Everything is verified before anything is written: the metadata against the
    /// trusted root, the release against the running one, the boot image against
    /// the site's Secure Boot certificate. The next start tries the release once;
    /// it is kept only if the host becomes healthy.
    #[command(after_long_help = "Examples:\n  bastide-host update release.bundle\n  \
        bastide-host update release.bundle --dry-run --json\n  bastide-host update --device /dev/sdb1 --reboot\n  \
        bastide-host update --from https://10.0.0.5:8443 --cacert gateway.pem\n  \
        bastide-host update release.bundle --waiver waiver.json")]
    Update {
        /// The bundle. Without it a stick labelled BASTIDE-BDL is looked for.
        #[arg(conflicts_with = "device")]
        bundle: Option<PathBuf>,
        /// Fetch from the site's server, https://HOST:PORT, that `bastide-repo
        /// serve` runs.
        #[arg(long, value_name = "URL", conflicts_with_all = ["bundle", "device"])]
        from: Option<Address>,
        /// The server's certificate or its authority's, in PEM, and not
        /// /etc/bastide/server.pem.
        #[arg(long, value_name = "FILE", requires = "from")]
        cacert: Option<PathBuf>,
        /// Take the one bundle on the file system of this device.
        #[arg(long, value_name = "DEVICE")]
        device: Option<PathBuf>,
        /// Take stale metadata that this waiver of the site's custodians names.
        #[arg(long, value_name = "FILE")]
        waiver: Option<PathBuf>,
        /// Verify everything and write nothing.
        #[arg(long)]
        dry_run: bool,
        /// Print the steps as JSON lines, and the outcome as the last one.
        #[arg(long)]
        json: bool,
        /// Restart into the release when it is installed.
        #[arg(long, conflicts_with = "dry_run")]
        reboot: bool,
    },
    /// Shows what time the host reckons with, and why.
    ///
    /// A clock that is behind what signed metadata and the host's own running
    /// time show is not believed. Waivers that were used are listed.
    #[command(after_long_help = "Examples:\n  bastide-host time\n  bastide-host time --json")]
    Time {
        /// Record how far the time has come. Run by bastide-time.service.
        #[arg(long)]
        record: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Writes a receipt: what the host runs and holds, and which metadata it saw.
    ///
    /// It is signed with the host's own key, whose fingerprint the installer
    /// showed, and is carried back to the site: `bastide-repo receive` takes it.
    #[command(
        after_long_help = "Examples:\n  bastide-host receipt --out /run/stick/rack4.receipt.json\n  \
        bastide-host receipt --out rack4.receipt.json --json"
    )]
    Receipt {
        /// Where it goes; an existing file is not overwritten.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Keeps the running release if the host is healthy.
    #[command(after_long_help = "Examples:\n  bastide-host confirm\n  bastide-host confirm --wait 120 --json")]
    Confirm {
        /// Wait so many seconds for the host to become healthy.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        wait: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Judges a release on trial at the start of the host: keeps it, or restarts
    /// into the old one. Run by bastide-health.service.
    #[command(after_long_help = "Examples:\n  bastide-host health-guard\n  bastide-host health-guard --deadline 600")]
    HealthGuard {
        /// Seconds to become healthy, instead of /etc/bastide/health.toml's
        /// deadline_seconds (300).
        #[arg(long, value_name = "SECONDS")]
        deadline: Option<u64>,
    },
    /// Chooses the other confirmed release for all coming starts.
    #[command(
        after_long_help = "Examples:\n  bastide-host rollback --dry-run\n  bastide-host rollback\n  \
        bastide-host rollback --reboot"
    )]
    Rollback {
        /// Say what would start, and change nothing.
        #[arg(long, conflicts_with = "reboot")]
        dry_run: bool,
        /// Restart into it.
        #[arg(long)]
        reboot: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Runs small guests made of the image's own kernel.
    #[command(
        subcommand,
        after_long_help = "Examples:\n  bastide-host guest run tiny\n  bastide-host guest list"
    )]
    Guest(GuestCommand),
}

#[derive(Debug, Subcommand)]
enum GuestCommand {
    /// Lists the running domains.
    #[command(after_long_help = "Examples:\n  bastide-host guest list --json")]
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Starts a guest.
    #[command(after_long_help = "Examples:\n  bastide-host guest run tiny\n  \
        bastide-host guest run tiny --memory 256 --append \"quiet\"")]
    Run {
        /// Its name.
        #[arg(value_parser = |name: &str| guest::checked_name(name).map_err(|error| error.to_string()))]
        name: String,
        /// How it is virtualised.
        #[arg(long = "type", value_enum, default_value_t = Kind::Pv)]
        kind: Kind,
        /// Memory in MiB.
        #[arg(long, default_value_t = 192, value_parser = clap::value_parser!(u32).range(32..))]
        memory: u32,
        /// Virtual processors.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=128))]
        cpus: u32,
        /// Its kernel, instead of the image's own.
        #[arg(long)]
        kernel: Option<PathBuf>,
        /// Its initrd, instead of the image's guest.
        #[arg(long)]
        initrd: Option<PathBuf>,
        /// More kernel arguments.
        #[arg(long, default_value = "", value_name = "ARGUMENTS")]
        append: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Stops a guest.
    #[command(after_long_help = "Examples:\n  bastide-host guest stop tiny")]
    Stop {
        /// Its name.
        #[arg(value_parser = |name: &str| guest::checked_name(name).map_err(|error| error.to_string()))]
        name: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows the end of a guest's console.
    ///
    /// On a terminal, what could move its cursor is shown as ?; a file or a pipe
    /// gets what the guest wrote.
    #[command(after_long_help = "Examples:\n  bastide-host guest log tiny\n  \
        bastide-host guest log tiny > tiny.log")]
    Log {
        /// Its name.
        #[arg(value_parser = |name: &str| guest::checked_name(name).map_err(|error| error.to_string()))]
        name: String,
    },
}

/// Runs a command on this machine.
///
/// # Errors
/// What the command's library function says.
pub fn run(args: Args) -> Result<Exit> {
    let machine = Machine::default();
    match args.command {
        Command::Status { json } => show_status(&machine, json),
        Command::Update {
            bundle,
            from,
            cacert,
            device,
            waiver,
            dry_run,
            json,
            reboot,
        } => {
            let origin = match (bundle, from, device) {
                (Some(file), _, _) => Origin::File(file),
                (None, Some(address), _) => Origin::Server {
                    address,
                    certificate: cacert.unwrap_or_else(|| machine.server_certificate.clone()),
                },
                (None, None, Some(device)) => Origin::Device(device),
                (None, None, None) => Origin::Search,
            };
            let depth = if dry_run { Depth::VerifyOnly } else { Depth::Install };
            let waiver = waiver.as_deref().map(Waiver::load).transpose()?;
            let outcome = run_update(&machine, &origin, Order { depth, waiver }, json)?;
            if reboot && matches!(outcome, Outcome::OnTrial { .. }) {
                confirm::restart()?;
            }
            Ok(Exit::Done)
        }
        Command::Time { record, json } => {
            let time = if record {
                TimeStatus::record(&machine)?
            } else {
                TimeStatus::read(&machine)?
            };
            print(json, &time, &time.lines().join("\n"))
        }
        Command::Receipt { out, json } => {
            let given = receipt::give(&machine, &out)?;
            print(json, &given, &given.text())
        }
        Command::Confirm { wait, json } => {
            let confirmed = confirm::confirm(&machine, Duration::from_secs(wait), || look(&machine))?;
            let was = if confirmed.was_on_trial {
                "is kept"
            } else {
                "was confirmed already"
            };
            print(
                json,
                &confirmed,
                &format!("slot {} {was}: the host is healthy", confirmed.slot),
            )
        }
        Command::HealthGuard { deadline } => guard(&machine, deadline),
        Command::Rollback { dry_run, reboot, json } => {
            let (chosen, when) = if dry_run {
                (confirm::rehearse_rollback(&machine)?, "would start")
            } else {
                (confirm::rollback(&machine)?, "starts")
            };
            let version = chosen
                .held
                .version
                .map_or_else(|| "its release".into(), |version| version.to_string());
            print(
                json,
                &chosen,
                &format!("slot {} ({version}) {when} from now on", chosen.slot),
            )?;
            if reboot {
                confirm::restart()?;
            }
            Ok(Exit::Done)
        }
        Command::Guest(command) => run_guest(command),
    }
}

fn print(json: bool, value: &impl Serialize, text: &str) -> Result<Exit> {
    if json {
        output::json(value)?
    } else {
        output::line(text)?
    }
    Ok(Exit::Done)
}

/// The exit code that health deserves: what could not be checked is not what failed.
fn exit_of(health: &Health) -> Exit {
    let any = |verdict| health.checks.iter().any(|check| check.verdict == verdict);
    if any(health::Verdict::Fail) {
        Exit::Failed
    } else if any(health::Verdict::CouldNotCheck) {
        Exit::CouldNotCheck
    } else {
        Exit::Done
    }
}

fn show_status(machine: &Machine, json: bool) -> Result<Exit> {
    let status = status::collect(machine);
    print(json, &status, &status.text())?;
    if status.tells_anything() {
        return Ok(Exit::Done);
    }
    let _ = writeln!(
        io::stderr(),
        "bastide-host: could not check: nothing of a Bastide host could be read. Run it on an installed host, as root"
    );
    Ok(Exit::CouldNotCheck)
}

fn run_update(machine: &Machine, origin: &Origin, order: Order, json: bool) -> Result<Outcome> {
    if let Origin::File(path) = origin {
        may_be_bundle(path)?;
    }
    let (offer, _stick) = update::open(machine, origin)?;
    // A screen that is gone must not stop an update half-way, so nothing that it says is waited for.
    let terminal = io::stderr().is_terminal();
    let mut show = |event: Event<Step>| {
        if json {
            let _ = serde_json::to_string(&event).map(|line| output::line(&line));
        } else if terminal && event.state == Phase::Progress {
            let _ = write!(io::stderr(), "\r\x1b[K{event}");
        } else if matches!(event.state, Phase::Done | Phase::Warning) {
            let _ = writeln!(io::stderr(), "{}{event}", if terminal { "\r\x1b[K" } else { "" });
        }
        Ok(())
    };
    let outcome = update::update(machine, offer, order, &mut show)?;
    if json {
        let _ = output::line(&serde_json::to_string(&outcome)?);
    } else {
        let _ = output::line(&match &outcome {
            Outcome::UpToDate { version } => format!("{version} runs and is the newest: nothing to do"),
            Outcome::Verified { version, slot, .. } => format!("{version} is good and would go into slot {slot}"),
            Outcome::OnTrial { version, slot, .. } => {
                format!("{version} is in slot {slot} and starts next, once: restart the host to try it")
            }
        });
    }
    Ok(outcome)
}

/// A directory or a pipe is not read as a bundle, which is read from places of its own choice: the one would fail later
/// with other words, the other wait for ever. A device may hold one.
fn may_be_bundle(path: &Path) -> Result<()> {
    // What cannot be seen is told by who opens it.
    let Ok(metadata) = fs::metadata(path) else {
        return Ok(());
    };
    if metadata.is_file() || metadata.file_type().is_block_device() {
        return Ok(());
    }
    let kind = if metadata.is_dir() { "a directory" } else { "no file" };
    bail!(
        "cannot use the bundle {}: it is {kind}: name the bundle itself",
        path.display()
    )
}

fn look(machine: &Machine) -> Health {
    let health = health::examine(machine);
    if !health.healthy {
        let _ = writeln!(io::stderr(), "not healthy yet: {}", health.reasons());
    }
    health
}

fn guard(machine: &Machine, deadline: Option<u64>) -> Result<Exit> {
    let (config, complaint) = Config::load(&machine.health_config);
    if let Some(complaint) = complaint {
        let _ = writeln!(io::stderr(), "{complaint}");
    }
    let deadline = Duration::from_secs(deadline.unwrap_or(config.deadline_seconds));
    let guarded = confirm::guard(machine, deadline, || look(machine))?;
    let _ = output::line(&serde_json::to_string(&guarded)?);
    match guarded {
        Guarded::Kept { .. } => Ok(Exit::Done),
        Guarded::Looked { health, .. } => Ok(exit_of(&health)),
        Guarded::GoBack { slot, reason } => {
            let _ = writeln!(
                io::stderr(),
                "slot {slot} is not kept, restarting into the other one: {reason}"
            );
            confirm::restart()?;
            Ok(Exit::Failed)
        }
    }
}

fn run_guest(command: GuestCommand) -> Result<Exit> {
    let places = Places::default();
    match command {
        GuestCommand::List { json } => {
            let domains = guest::list()?;
            let rows: Vec<String> = domains
                .iter()
                .map(|d| {
                    format!(
                        "{:<24} {:>4} {:>6} MiB {:>3} cpus {}",
                        d.name, d.id, d.memory_mib, d.cpus, d.state
                    )
                })
                .collect();
            print(json, &domains, &rows.join("\n"))
        }
        GuestCommand::Run {
            name,
            kind,
            memory,
            cpus,
            kernel,
            initrd,
            append,
            json,
        } => {
            let guest = Guest {
                name,
                kind,
                memory,
                cpus,
                kernel: kernel.map_or_else(guest::default_kernel, Ok)?,
                initrd: initrd.unwrap_or_else(|| PathBuf::from(GUEST_DIRECTORY).join("initrd.img")),
                arguments: append,
            };
            let domain = guest.run(&places)?;
            print(json, &domain, &format!("{} runs as domain {}", domain.name, domain.id))
        }
        GuestCommand::Stop { name, json } => {
            guest::stop(&name, &places)?;
            print(
                json,
                &serde_json::json!({ "stopped": name }),
                &format!("{name} is stopped"),
            )
        }
        GuestCommand::Log { name } => {
            if io::stdout().is_terminal() {
                guest::log(&name, &places, &mut Harmless(io::stdout()))?;
            } else {
                guest::log(&name, &places, &mut io::stdout())?;
            }
            Ok(Exit::Done)
        }
    }
}
