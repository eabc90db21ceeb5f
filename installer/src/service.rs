// SPDX-License-Identifier: GPL-3.0-or-later
//! The live system's only service: finds the answer and installs without a keyboard, or asks on the screen.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use signing::process::Cmd;

use crate::answer::{RecordTo, Then};
use crate::run::{self, Outcome, Setup};
use crate::steps::{JsonLines, Reporter, Step, Text};
use crate::tui::{self, Left};
use crate::volume::{self, Found, Volume};

/// How often an answer is looked for, and how long to wait in between.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);

/// The serial lines among the kernel's consoles: each gets the events as JSON lines.
fn serial_consoles() -> Vec<File> {
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    active
        .split_ascii_whitespace()
        .filter(|name| !is_screen(name))
        .filter_map(|name| OpenOptions::new().write(true).open(Path::new("/dev").join(name)).ok())
        .collect()
}

/// `tty0`, `tty1` ... are the screen; `ttyS0`, `hvc0` are lines.
fn is_screen(name: &str) -> bool {
    name.strip_prefix("tty")
        .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A reporter that writes to every serial console.
#[must_use]
pub fn reporter() -> Reporter {
    let mut reporter = Reporter::default();
    for console in serial_consoles() {
        reporter.add(JsonLines(console));
    }
    reporter
}

/// Runs the service to its end.
///
/// # Errors
/// When the installation fails. The machine then stays as it is, so that the reason can be read, unless the answer asks
/// to switch it off at the end: a machine that nobody looks at tells its reason on the serial console.
pub fn service(mut setup: Setup) -> Result<()> {
    // Disks and sticks that are still coming up.
    drop(Cmd::new("udevadm").args(["settle", "--timeout=60"]).run());
    let mut reporter = reporter();
    let found = match wait_for_answer(&setup) {
        Ok(found) => found,
        Err(error) => {
            reporter.add(Text::new(io::stdout()));
            // Told as the step that needs it, so that both consoles and a watching program see the reason.
            return reporter.step(Step::Plan, |_| Err(error));
        }
    };
    let Some(Found { loaded, volume }) = found else {
        // A machine that was left on the first screens has nothing else to do.
        return tui::run(&setup, reporter).and_then(|left| match left {
            Left::Installed => finish(Then::Reboot),
            Left::Unchanged | Left::Failed(_) => finish(Then::Poweroff),
        });
    };
    let wanted = loaded.answer.installer.clone();
    if wanted.shell {
        open_shell();
    }
    reporter.add(Text::new(io::stdout()));
    setup.answer_volume = Some(volume.clone());
    match run::install(&setup, &loaded, &mut reporter) {
        Ok(outcome) => {
            if wanted.record_to == Some(RecordTo::Medium) {
                copy_record(&outcome, &volume, &setup)?;
            }
            finish(wanted.finish)
        }
        Err(error) => {
            if wanted.finish == Then::Poweroff {
                finish(Then::Poweroff)?;
            }
            Err(error)
        }
    }
}

/// Looks for an answer, for some seconds: a stick behind a hub or a BMC appears late.
fn wait_for_answer(setup: &Setup) -> Result<Option<Found>> {
    for _ in 0..LOOKS {
        let found = volume::find_answer(&setup.inventory()?)?;
        if found.is_some() {
            return Ok(found);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(None)
}

/// Copies the signed record to the medium that the answer was on.
///
/// # Errors
/// When the medium cannot be written. The host is installed all the same.
pub fn copy_record(outcome: &Outcome, volume: &Volume, setup: &Setup) -> Result<()> {
    let name = format!("{}-install-record.json", outcome.plan.hostname);
    let work = setup.work.parent().unwrap_or(&setup.work);
    volume
        .write(&name, &outcome.record.bytes, work)
        .and_then(|()| volume.write(&format!("{name}.sig"), &outcome.record.signature, work))
        .context("the host is installed, but its record was not copied")
}

fn finish(then: Then) -> Result<()> {
    let verb = match then {
        Then::Reboot => "reboot",
        Then::Poweroff => "poweroff",
        Then::Wait => return Ok(()),
    };
    Cmd::new("systemctl")
        .args(["--no-block", verb])
        .run()
        .with_context(|| format!("the host is installed, but the machine does not {verb} by itself"))
}

/// A root shell on the ninth console, because the answer asks for it. Its failure stops nothing.
fn open_shell() {
    let properties = [
        "StandardInput=tty",
        "StandardOutput=tty",
        "StandardError=tty",
        "TTYPath=/dev/tty9",
    ];
    drop(
        Cmd::new("systemd-run")
            .args(["--unit=bastide-shell", "--quiet"])
            .args(properties.map(|property| format!("--property={property}")))
            .arg("/bin/bash")
            .run(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_screens_from_serial_lines() {
        assert!(is_screen("tty0") && is_screen("tty12"));
        assert!(!is_screen("ttyS0") && !is_screen("hvc0") && !is_screen("ttyAMA0"));
    }
}
