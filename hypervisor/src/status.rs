// SPDX-License-Identifier: GPL-3.0-or-later
//! What the host is and how it is.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use signing::digest::Sha256;
use signing::release::Version;
use signing::{anchor, output};
use sysinfo::System;

use crate::bootentries::{Entries, Firmware};
use crate::gpt::Table;
use crate::health::{self, Health, Verdict};
use crate::layout::{ImageRelease, Slot};
use crate::machine::Machine;
use crate::probe::{self, Answer, SecureBoot, Xen};
use crate::slots::{Held, Slots, State};
use crate::timekeeping::TimeStatus;

/// One slot as the record and the partition table show it.
#[derive(Debug, Serialize)]
pub struct SlotStatus {
    /// What the record says.
    #[serde(flatten)]
    pub held: Held,
    /// Whether it is the running one.
    pub running: bool,
    /// Whether the partitions' GUIDs are those of the recorded root hash.
    pub partitions_match: Option<bool>,
}

/// What runs now.
#[derive(Debug, Serialize)]
pub struct Running {
    /// The slot.
    pub slot: Option<Slot>,
    /// What the record says that the slot is good for.
    pub state: Option<State>,
    /// The release's version, as the verified image says it.
    pub version: Option<Version>,
    /// The release's channel.
    pub channel: Option<String>,
    /// The release's snapshot.
    pub snapshot: Option<String>,
    /// The root hash on the kernel's command line.
    pub root_hash: Option<Sha256>,
}

/// The slots.
#[derive(Debug, Serialize)]
pub struct SlotsStatus {
    /// Slot A.
    pub a: SlotStatus,
    /// Slot B.
    pub b: SlotStatus,
}

/// The installer's record.
#[derive(Debug, Serialize)]
pub struct InstallRecord {
    /// Whether it is there.
    pub present: bool,
    /// Whether its signature is there. Judging it is the audit's work.
    pub signed: bool,
}

/// All of it.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The host's name.
    pub hostname: Option<String>,
    /// The fingerprint of the trust directory, to be compared by telephone.
    pub anchor: Option<String>,
    /// What runs now.
    pub running: Running,
    /// What the slots hold; absent where there is no record.
    pub slots: Option<SlotsStatus>,
    /// Xen's version.
    pub xen: Option<String>,
    /// What else Xen says of itself.
    pub hypervisor: Xen,
    /// The running domains.
    pub domains: Vec<String>,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// Secure Boot.
    pub secure_boot: SecureBoot,
    /// The kernel's lockdown mode.
    pub lockdown: Option<String>,
    /// The firmware's boot entries.
    pub boot: Option<Entries>,
    /// The time that is reckoned with, and the waivers that were used; absent where there is no datastore.
    pub time: Option<TimeStatus>,
    /// Health.
    pub health: Health,
    /// The installer's record.
    pub install_record: InstallRecord,
    /// Seconds since the start.
    pub uptime_seconds: Option<u64>,
    /// Memory of this domain in bytes.
    pub memory_bytes: Option<u64>,
    /// Memory of this domain in use, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// What could not be read, and why.
    pub could_not_read: Vec<String>,
}

/// Looks at everything. What cannot be read is named, and is no reason to hold the rest back.
#[must_use]
pub fn collect(machine: &Machine) -> Status {
    let mut problems = Vec::new();
    let mut note = |error: anyhow::Error| problems.push(output::chain(&error));
    let root_hash = machine.running_root_hash().map_err(&mut note).ok();
    let release = machine.image_release().map_err(&mut note).ok();
    let table = machine
        .boot_disk()
        .and_then(|disk| Table::read(&disk))
        .map_err(&mut note)
        .ok();
    let slot = match (&table, &root_hash) {
        (Some(table), Some(hash)) => table.slot_holding(hash).map_err(&mut note).ok(),
        _ => None,
    };
    let slots = Slots::load(&machine.slots_file()).map_err(&mut note).ok();
    let anchor = anchor::fingerprint(&machine.trust)
        .with_context(|| format!("cannot read the trust directory {}", machine.trust.display()))
        .map_err(&mut note)
        .ok();
    let boot = Firmware::new(&machine.efibootmgr).read().map_err(&mut note).ok();
    let time = TimeStatus::read(machine).map_err(&mut note).ok();
    let mut said = |answer| match answer {
        Answer::Said(text) => text,
        Answer::Failed(why) | Answer::Missing(why) => {
            problems.push(why);
            String::new()
        }
    };
    let xen = Xen::parse(&said(probe::ask("xl", &["info"], 20)));
    let domains = probe::domains(&said(probe::ask("xl", &["list"], 20)));
    // Two questions to a program that is not there have one answer.
    problems.dedup();
    let memory = memory();
    let (version, channel, snapshot) = release.map_or(
        (None, None, None),
        |ImageRelease {
             version,
             channel,
             snapshot,
             ..
         }| { (Some(version), Some(channel), Some(snapshot)) },
    );
    Status {
        hostname: System::host_name().ok(),
        anchor,
        running: Running {
            slot,
            state: slot.zip(slots.as_ref()).map(|(slot, slots)| slots.get(slot).state),
            version,
            channel,
            snapshot,
            root_hash,
        },
        slots: slots.map(|Slots { a, b }| SlotsStatus {
            a: slot_status(a, Slot::A, slot, table.as_ref()),
            b: slot_status(b, Slot::B, slot, table.as_ref()),
        }),
        xen: xen.version.clone(),
        hypervisor: xen,
        domains,
        kernel: System::kernel_version().ok(),
        secure_boot: SecureBoot::read(&machine.efivars),
        lockdown: fs::read_to_string(Path::new("/sys/kernel/security/lockdown"))
            .ok()
            .and_then(|text| probe::lockdown(&text)),
        boot,
        time,
        health: health::examine(machine),
        install_record: InstallRecord {
            present: machine.state.join("install-record.json").exists(),
            signed: machine.state.join("install-record.json.sig").exists(),
        },
        uptime_seconds: System::uptime().ok(),
        memory_bytes: memory.map(|(total, _)| total),
        memory_used_bytes: memory.map(|(_, used)| used),
        could_not_read: problems,
    }
}

/// Total and used memory of this domain in bytes.
fn memory() -> Option<(u64, u64)> {
    let mut system = System::new().ok()?;
    system.refresh_memory();
    Some((system.total_memory(), system.used_memory()))
}

fn slot_status(held: Held, slot: Slot, running: Option<Slot>, table: Option<&Table>) -> SlotStatus {
    let partitions = table.and_then(|table| table.slot(slot).ok());
    let partitions_match = partitions
        .zip(held.root_hash)
        .map(|(partitions, hash)| partitions.hold(&hash));
    SlotStatus {
        held,
        running: running == Some(slot),
        partitions_match,
    }
}

impl Status {
    /// Whether anything was read that only a Bastide host has. Without it this is some other machine, or the user may
    /// read nothing.
    #[must_use]
    pub fn tells_anything(&self) -> bool {
        let running = &self.running;
        running.root_hash.is_some()
            || running.version.is_some()
            || running.slot.is_some()
            || self.slots.is_some()
            || self.xen.is_some()
    }

    /// The status for a person.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut row = |name: &str, value: String| push_row(&mut out, name, &value);
        row(
            "host",
            format!(
                "{}, up {}",
                known(self.hostname.as_ref()),
                self.uptime_seconds.map_or_else(|| "unknown".into(), uptime)
            ),
        );
        let release = &self.running;
        row(
            "running",
            format!(
                "slot {}, {} ({}), snapshot {}",
                known(release.slot.as_ref()),
                known(release.version.as_ref()),
                known(release.channel.as_ref()),
                known(release.snapshot.as_ref())
            ),
        );
        row("root hash", known(release.root_hash.as_ref()));
        row("trust", format!("{}:", anchor::COMPARE));
        row("", known(self.anchor.as_ref()));
        if let Some(slots) = &self.slots {
            for (name, slot) in [("slot a", &slots.a), ("slot b", &slots.b)] {
                row(name, slot.text());
            }
        }
        row(
            "xen",
            format!(
                "{}, domains: {}",
                known(self.xen.as_ref()),
                if self.domains.is_empty() {
                    "unknown".into()
                } else {
                    self.domains.join(" ")
                }
            ),
        );
        row(
            "kernel",
            format!(
                "{}, lockdown {}",
                known(self.kernel.as_ref()),
                known(self.lockdown.as_ref())
            ),
        );
        let flag = |flag: Option<bool>| flag.map_or("unknown", |on| if on { "on" } else { "off" });
        row(
            "secure boot",
            format!(
                "{}, setup mode {}",
                flag(self.secure_boot.enforced),
                flag(self.secure_boot.setup_mode)
            ),
        );
        if let (Some(used), Some(total)) = (self.memory_used_bytes, self.memory_bytes) {
            row("memory", format!("{} of {} MiB used", used >> 20, total >> 20));
        }
        row(
            "record",
            match (self.install_record.present, self.install_record.signed) {
                (true, true) => "install record and signature present".into(),
                (true, false) => "install record present, its signature is missing".into(),
                (false, _) => "no install record".to_string(),
            },
        );
        for (place, line) in self.time.iter().flat_map(TimeStatus::lines).enumerate() {
            row(if place == 0 { "time" } else { "" }, line);
        }
        row(
            "health",
            if self.health.healthy {
                "healthy".into()
            } else {
                "NOT healthy".to_string()
            },
        );
        for check in &self.health.checks {
            let mark = match check.verdict {
                Verdict::Pass => "pass",
                Verdict::Fail => "FAIL",
                Verdict::CouldNotCheck => "could not check",
            };
            row("", format!("{}: {mark}: {}", check.name, check.detail));
        }
        for problem in &self.could_not_read {
            row("unread", problem.clone());
        }
        out.truncate(out.trim_end().len());
        out
    }
}

/// Where the values of the status begin.
const COLUMN: usize = 13;

fn push_row(out: &mut String, name: &str, value: &str) {
    let first = format!("{name:<width$} ", width = COLUMN - 1);
    out.push_str(&output::fold(&first, COLUMN, value));
    out.push('\n');
}

impl SlotStatus {
    fn text(&self) -> String {
        let mut text = match self.held.version {
            Some(version) => format!("{version}, {}", self.held.state),
            None => self.held.state.to_string(),
        };
        if let Some(reason) = &self.held.reason {
            text += &format!(" ({reason})");
        }
        if self.partitions_match == Some(false) {
            text += ", partitions do not match the record";
        }
        if self.running {
            text += ", running";
        }
        text
    }
}

fn known(value: Option<&impl ToString>) -> String {
    value.map_or_else(|| "unknown".into(), ToString::to_string)
}

fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min"),
        (0, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_no_host_gives_a_status_with_its_gaps_named() {
        let directory = tempfile::tempdir().unwrap();
        let machine = Machine {
            state: directory.path().into(),
            state_mount: directory.path().into(),
            release: directory.path().join("release.json"),
            command_line: directory.path().join("cmdline"),
            efivars: directory.path().into(),
            trust: directory.path().into(),
            ..Machine::default()
        };
        let status = collect(&machine);
        assert_eq!(status.anchor, None);
        assert!(status.could_not_read.iter().any(|why| why.contains("trust directory")));
        assert!(!status.health.healthy);
        assert!(!status.could_not_read.is_empty());
        assert!(status.text().contains("no install record"));
        assert!(serde_json::to_value(&status).unwrap()["running"]["slot"].is_null());
        for line in status.text().lines() {
            assert!(line.len() <= 80 || line.split_whitespace().count() <= 2, "{line}");
            assert_eq!(line, line.trim_end());
        }
        // One fact of a host's own is enough, and those of any machine are not.
        assert!(!status.tells_anything());
        fs::write(&machine.command_line, format!("bastide.roothash={}", Sha256::of(b""))).unwrap();
        assert!(collect(&machine).tells_anything());
        fs::write(directory.path().join("root.json"), "{}").unwrap();
        let status = collect(&machine);
        assert_eq!(status.anchor, anchor::fingerprint(directory.path()).ok());
        assert!(status.text().contains(&status.anchor.unwrap()));
    }

    #[test]
    fn a_row_is_broken_between_words() {
        let mut out = String::new();
        push_row(&mut out, "root hash", &"a".repeat(64));
        push_row(&mut out, "", &"word ".repeat(20));
        push_row(&mut out, "unread", &format!("cannot read {}", "p".repeat(90)));
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), 5, "{out}");
        assert_eq!(lines[0], format!("root hash    {}", "a".repeat(64)));
        assert!(
            lines[1].len() <= 80 && lines[2].starts_with("             word"),
            "{out}"
        );
        assert_eq!(lines[4].trim_start(), "p".repeat(90));
    }

    #[test]
    fn says_how_long() {
        assert_eq!(uptime(59), "0 min");
        assert_eq!(uptime(3700), "1 h 1 min");
        assert_eq!(uptime(90_000), "1 d 1 h");
    }
}
