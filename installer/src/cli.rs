// SPDX-License-Identifier: GPL-3.0-or-later
//! The commands.

use std::env;
use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::{Args, Parser, Subcommand};
use hypervisor::layout;
use signing::digest::Sha256;
use signing::output::{self, Refused, Usage};
use signing::site::TRUST_DIRECTORY;

use crate::answer::{self, Answer, AnswerError, Loaded};
use crate::inventory::{Inventory, Scan, human_size};
use crate::medium::{self, Medium};
use crate::run::{self, Setup};
use crate::steps::{JsonLines, Reporter, Step, Text};
use crate::tui::{self, Left};
use crate::{record, service, volume};

/// Lay a verified release down on a bare machine's disk.
///
/// Nothing is written before the medium is verified and the plan is without a doubt; a run that fails or is cut off
/// leaves a disk that does not boot.
#[derive(Parser)]
#[command(name = "bastide-install", version, max_term_width = 80)]
#[command(after_long_help = "\
Examples:
  Check an answer file before it goes to the rack:
    bastide-install validate bastide-answer.toml
  See what the machine is made of:
    bastide-install inventory
  See what would be done, to which disk:
    bastide-install plan --answer bastide-answer.toml
  Install:
    bastide-install run --answer bastide-answer.toml --yes

Exit status: 0 done, 1 failed, 2 wrong command line, 3 refused by verification,
policy or plan, 141 the reader of the output went away.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show what would be done to which disk, and do nothing
    #[command(after_long_help = "\
Examples:
  In the live system, where the medium is mounted already:
    bastide-install plan --answer bastide-answer.toml
  As JSON, for the one disk that is meant:
    bastide-install plan --answer a.toml --device /dev/sda --json
  Elsewhere, for a disk that goes into another machine, from an ISO:
    mount -o ro bastide.iso /mnt/medium
    mount -o ro /mnt/medium/bastide/targets.squashfs /mnt/targets
    bastide-install plan --answer a.toml --device /dev/sdb \\
      --other-machine --medium /mnt/medium --targets /mnt/targets \\
      --trust site/trust")]
    Plan {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        answer: AnswerFile,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Verify the medium, write the disk, make it boot
    #[command(after_long_help = "\
Examples:
  bastide-install run --answer bastide-answer.toml --yes
  Write a disk that goes into another machine (see plan --help for the mounts):
    bastide-install run --answer a.toml --yes --device /dev/sdb \\
      --other-machine --medium /mnt/medium --targets /mnt/targets \\
      --trust site/trust")]
    Run {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        answer: AnswerFile,
        /// Write the disk. Without it the plan is shown, nothing is done, and
        /// the exit status is 2
        #[arg(long)]
        yes: bool,
        /// Print the events as JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Verify every signature and every byte of the medium
    #[command(after_long_help = "\
Examples:
  bastide-install verify-medium
  bastide-install verify-medium --medium /mnt --targets /mnt-targets \\
    --trust ./trust --json")]
    VerifyMedium {
        #[command(flatten)]
        place: Place,
        /// Print JSON, with every file, role and key
        #[arg(long)]
        json: bool,
    },
    /// List disks and what is on them, memory, network cards, firmware
    #[command(after_long_help = "\
Examples:
  bastide-install inventory
  bastide-install inventory --json")]
    Inventory {
        #[command(flatten)]
        place: Place,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check an answer file
    #[command(after_long_help = "\
Examples:
  bastide-install validate bastide-answer.toml
  bastide-install validate --json bastide-answer.toml")]
    Validate {
        /// The answer file
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON schema of an answer file
    #[command(after_long_help = "\
Examples:
  bastide-install schema > answer.schema.json")]
    Schema,
    /// Ask on the screen and install
    #[command(after_long_help = "\
Examples:
  bastide-install tui")]
    Tui {
        #[command(flatten)]
        place: Place,
    },
    /// Verify the signed record of an installation
    #[command(after_long_help = "\
Examples:
  bastide-install verify-record
  bastide-install verify-record host1-install-record.json")]
    VerifyRecord {
        /// The record; its signature lies beside it with .sig appended
        #[arg(default_value = layout::INSTALL_RECORD)]
        record: PathBuf,
        /// Demand this fingerprint of the host's key, as the installer showed it
        #[arg(long, value_name = "SHA256")]
        key: Option<Sha256>,
        /// Print the record as JSON once it is verified
        #[arg(long)]
        json: bool,
    },
    /// What the live system starts: an answer from a stick, or the screen
    #[command(after_long_help = "\
Examples:
  bastide-install service")]
    Service {
        #[command(flatten)]
        place: Place,
    },
}

/// Where things are, for machines that are not the live system.
#[derive(Args)]
struct Place {
    /// Where the medium is mounted: an ISO, or the stick it was written to
    #[arg(long, value_name = "DIR", default_value = layout::MEDIUM_MOUNT)]
    medium: PathBuf,
    /// Where the medium's bastide/targets.squashfs is mounted
    #[arg(long, value_name = "DIR", default_value = layout::TARGETS_MOUNT)]
    targets: PathBuf,
    /// The site's public trust directory
    #[arg(long, value_name = "DIR", default_value = TRUST_DIRECTORY)]
    trust: PathBuf,
    /// What the running image says of itself
    #[arg(long, value_name = "FILE", default_value = layout::RELEASE_FILE, hide = true)]
    release: PathBuf,
    /// Look at this device only; may be given several times. A loop device
    /// counts as a disk only if it is named here
    #[arg(long, value_name = "DEV")]
    device: Vec<PathBuf>,
    /// The disk is for another machine: this one's firmware and network cards
    /// are not looked at and not changed
    #[arg(long)]
    other_machine: bool,
    /// A directory in memory for files before they are on the disk
    #[arg(long, value_name = "DIR", default_value = "/run/bastide/install")]
    work: PathBuf,
}

impl Place {
    fn setup(self) -> Setup {
        // As the kernel's list of mounts names them: the disk under the medium is found by that.
        let whole = |path: PathBuf| path.canonicalize().unwrap_or(path);
        let (mount, targets) = (whole(self.medium), whole(self.targets));
        Setup {
            scan: Scan {
                only: self.device,
                medium: vec![mount.clone(), targets.clone()],
            },
            medium: Medium {
                mount,
                targets,
                trust: self.trust,
                release: self.release,
            },
            work: self.work,
            other_machine: self.other_machine,
            ..Setup::default()
        }
    }
}

#[derive(Args)]
struct AnswerFile {
    /// The answer file. Without it, it is looked for on the medium and on a
    /// stick labelled BASTIDE-ANS
    #[arg(long, value_name = "FILE")]
    answer: Option<PathBuf>,
}

impl AnswerFile {
    fn load(self, setup: &mut Setup) -> Result<Loaded> {
        if let Some(path) = self.answer {
            return load(&path);
        }
        let found = volume::find_answer(&setup.inventory()?)?.ok_or_else(|| {
            anyhow!("there is no answer on any medium: give --answer FILE, or use `bastide-install tui`")
        })?;
        setup.answer_volume = Some(found.volume);
        Ok(found.loaded)
    }
}

/// The command line that writes the disk, to be typed into a shell.
fn with_yes(arguments: impl Iterator<Item = String>) -> String {
    let words = ["bastide-install".to_owned()]
        .into_iter()
        .chain(arguments.map(|word| output::shell_word(&word)));
    words.chain(["--yes".to_owned()]).collect::<Vec<_>>().join(" ")
}

/// An answer that does not hold is a refusal, one that cannot be read a failure.
fn load(path: &std::path::Path) -> Result<Loaded> {
    Answer::load(path).map_err(|error| match error {
        AnswerError::Read { .. } => anyhow::Error::new(error),
        _ => anyhow::Error::new(Refused(format!("{}: {error}", path.display()))),
    })
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// Whatever the command fails with.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Plan { place, answer, json } => {
                let mut setup = place.setup();
                let loaded = answer.load(&mut setup)?;
                let plan = setup.plan(&loaded)?;
                if json {
                    output::json(&plan)?;
                } else {
                    plan.lines().iter().try_for_each(|line| output::line(line))?;
                }
                Ok(())
            }
            Command::Run {
                place,
                answer,
                yes,
                json,
            } => {
                let mut setup = place.setup();
                let loaded = answer.load(&mut setup)?;
                install(&setup, &loaded, yes, json)
            }
            Command::VerifyMedium { place, json } => verify_medium(&place.setup(), json),
            Command::Inventory { place, json } => {
                let inventory = place.setup().inventory()?;
                if json {
                    output::json(&inventory)?;
                } else {
                    lines(&inventory).iter().try_for_each(|line| output::line(line))?;
                }
                Ok(())
            }
            Command::Validate { file, json } => {
                let loaded = load(&file)?;
                if json {
                    output::json(&serde_json::json!({"valid": true, "sha256": loaded.sha256}))?;
                } else {
                    output::line(&format!("{}: valid, sha256 {}", file.display(), loaded.sha256))?;
                }
                Ok(())
            }
            Command::Schema => Ok(output::line(answer::schema()?.trim_end())?),
            Command::Tui { place } => match tui::run(&place.setup(), Reporter::default())? {
                Left::Installed => Ok(()),
                Left::Unchanged => Err(anyhow!("nothing was done")),
                Left::Failed(error) => Err(error),
            },
            Command::VerifyRecord { record, key, json } => verify_record(&record, key, json),
            Command::Service { place } => service::service(place.setup()),
        }
    }
}

fn install(setup: &Setup, loaded: &Loaded, yes: bool, json: bool) -> Result<()> {
    if !yes {
        let plan = setup.plan(loaded)?;
        // Who reads JSON asks for the plan by itself.
        if !json {
            plan.lines().iter().try_for_each(|line| output::line(line))?;
        }
        let words = with_yes(env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()));
        return Err(anyhow::Error::new(Usage(format!(
            "nothing was done. This plan is carried out by:\n  {words}"
        ))));
    }
    let mut reporter = Reporter::default();
    if json {
        reporter.add(JsonLines(io::stdout()));
    } else {
        reporter.add(Text::new(io::stdout()));
    }
    let outcome = run::install(setup, loaded, &mut reporter)?;
    if loaded.answer.installer.record_to.is_some()
        && let Some(volume) = &setup.answer_volume
    {
        service::copy_record(&outcome, volume, setup)?;
    }
    if !json {
        output::line(&format!("host key {}", outcome.record.fingerprint))?;
    }
    Ok(())
}

fn verify_medium(setup: &Setup, json: bool) -> Result<()> {
    let mut reporter = Reporter::default();
    if !json {
        reporter.add(Text::new(io::stderr()));
    }
    let verified = reporter.step(Step::VerifyMedium, |running| setup.medium.verify(None, running))?;
    medium::print(&verified, json)?;
    Ok(())
}

fn verify_record(path: &std::path::Path, key: Option<Sha256>, json: bool) -> Result<()> {
    let mut signature = path.as_os_str().to_owned();
    signature.push(".sig");
    let (record, fingerprint) = record::verify(path, signature.as_ref(), key).context("the record is not verified")?;
    if json {
        output::json(&record)?;
        return Ok(());
    }
    output::line(&format!(
        "{} is whole, signed by host key {fingerprint}",
        path.display()
    ))?;
    output::line(&format!(
        "{} installed release {} on {}",
        record.time.format("%Y-%m-%d %H:%M UTC"),
        record.plan.release.version,
        record.plan.disk.title()
    ))?;
    output::line(&format!("answer sha256 {}", record.answer_sha256))?;
    Ok(())
}

fn lines(inventory: &Inventory) -> Vec<String> {
    let firmware = &inventory.firmware;
    let told = |value: Option<bool>| match value {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    let mut lines = vec![
        format!("Machine   {}", inventory.product_words()),
        format!(
            "Memory    {}, {} processors",
            human_size(inventory.memory),
            inventory.processors
        ),
    ];
    if inventory.other_machine {
        lines.push("Firmware  not looked at: another machine".into());
        lines.push("Network   not looked at: another machine".into());
    } else if firmware.uefi {
        lines.push(format!(
            "Firmware  UEFI, Secure Boot enforced: {}, setup mode: {}",
            told(firmware.secure_boot),
            told(firmware.setup_mode)
        ));
    } else {
        lines.push("Firmware  not UEFI, or started as BIOS: cannot be installed on".into());
    }
    for card in &inventory.cards {
        lines.push(format!(
            "Network   {} {} {}, link: {}",
            card.name,
            card.mac,
            card.driver.as_deref().unwrap_or("unknown driver"),
            told(card.carrier)
        ));
    }
    for disk in &inventory.disks {
        lines.push(format!("Disk      {}", disk.title()));
        if disk.medium {
            lines.push("  a medium of this installation, never written".into());
        } else if !disk.holds_data() {
            lines.push("  empty".into());
        }
        lines.extend(disk.contents().into_iter().map(|line| format!("  {line}")));
        lines.extend(disk.mounted.iter().map(|point| format!("  mounted at {point}")));
        lines.extend(disk.holders.iter().map(|name| format!("  used by {name}")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_to_type_survive_a_shell() {
        let words = ["run", "--answer", "my rack's.toml", ""].map(str::to_owned);
        assert_eq!(
            with_yes(words.into_iter()),
            r"bastide-install run --answer 'my rack'\''s.toml' '' --yes"
        );
    }
}
