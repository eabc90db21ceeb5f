// SPDX-License-Identifier: GPL-3.0-or-later
//! The installer at the rack: from a USB stick, from an optical drive, and when it is cut off or lied to.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use signing::digest::Sha256;
use signing::durable;
use signing::process::Cmd;

use crate::ledger::Ledger;
use crate::stick;
use crate::tamper;
use crate::vm::{Machine, Medium, Plugged};
use crate::workshop::Workshop;

/// How long an installation may take before it counts as stuck, under emulation beside another machine.
const PATIENCE: Duration = Duration::from_secs(900);

/// The machine on which the first release was installed.
#[must_use]
pub fn installed(shop: &Workshop) -> Machine {
    Machine {
        directory: shop.at("vm/installed"),
        memory: 4096,
        accelerator: shop.accelerator,
    }
}

/// Installs from a USB stick without a keyboard, on a bare machine in setup mode.
///
/// # Errors
/// When the step fails.
pub fn from_usb(shop: &Workshop, ledger: &Ledger) -> Result<()> {
    let machine = installed(shop);
    let inputs = shop.story()?.file(&shop.iso())?;
    ledger.step(
        "install-usb",
        "install from USB, unattended",
        inputs,
        &[&machine.disk()],
        || {
            let machine = Machine::bare(&shop.at("vm/installed"), 10, shop.accelerator)?;
            let console = install(&machine, &shop.iso(), Medium::Usb, &shop.answer("answer", false)?)?;
            steps_done(
                &console,
                &["verify-medium", "write-root", "read-back", "enrol-keys", "boot-files"],
            )?;
            Ok("medium verified, slot A written and read back, keys enrolled".into())
        },
    )
}

/// The machine that demands the officers' approval beside the vendor's signature.
#[must_use]
pub fn of_two_sovereigns(shop: &Workshop) -> Machine {
    Machine {
        directory: shop.at("vm/cd"),
        ..installed(shop)
    }
}

/// Installs from an optical drive onto a disk that carries somebody's RAID and LVM, with an answer that names the officers'
/// site.
///
/// # Errors
/// When the step fails.
pub fn from_cd(shop: &Workshop, ledger: &Ledger) -> Result<()> {
    let trust = shop.office().join("trust");
    let inputs = shop.story()?.file(&shop.iso())?.file(&trust.join("root.json"))?;
    let product = of_two_sovereigns(shop);
    ledger.step(
        "install-cd",
        "install from CD, onto a disk with old RAID and LVM",
        inputs,
        &[&product.disk()],
        || {
            let machine = Machine::bare(&shop.at("vm/cd"), 10, shop.accelerator)?;
            tamper::stale_signatures(&machine.disk(), &shop.at("vm/cd/stale.raw"))?;
            let (root, _) = Sha256::of_file(&trust.join("root.json"))?;
            let answer = shop.answer("answer-wipe", true)?;
            let mut text = fs::read_to_string(&answer)?;
            text += &format!("\n[trust]\nsite_root = \"{root}\"\n");
            durable::write(&answer, text.as_bytes())?;
            let site: Vec<_> = ["root.json", "root.json.asc", "release.asc"]
                .iter()
                .map(|name| (format!("site/{name}"), trust.join(name)))
                .collect();
            let mut files = vec![("bastide-answer.toml", answer.as_path())];
            files.extend(site.iter().map(|(name, place)| (name.as_str(), place.as_path())));
            let console = install_with(&machine, &shop.iso(), Medium::Cd, &files)?;
            ensure!(
                console.contains(&root.to_string()),
                "the installer did not show whom the host will believe"
            );
            steps_done(&console, &["verify-medium", "boot-files"])?;
            for signature in ["linux_raid_member", "LVM2_member"] {
                ensure!(
                    console.contains(signature),
                    "the old {signature} signature was not named"
                );
            }
            Ok("old signatures named and wiped, installed, the officers' root pinned".into())
        },
    )
}

/// A medium whose metadata were altered must not reach a disk.
///
/// # Errors
/// When the step fails.
pub fn from_altered_medium(shop: &Workshop, ledger: &Ledger) -> Result<()> {
    let inputs = shop.story()?.file(&shop.iso())?;
    ledger.step("install-altered", "refuse an altered medium", inputs, &[], || {
        let machine = Machine::bare(&shop.at("vm/altered"), 10, shop.accelerator)?;
        let iso = shop.at("vm/altered/altered.iso");
        tamper::altered_iso(&shop.iso(), &iso)?;
        let before = allocated(&machine)?;
        let console = install(&machine, &iso, Medium::Usb, &shop.answer("answer", false)?)?;
        let reason = console
            .lines()
            .find(|line| line.contains("\"failed\"") && line.contains("verify-medium"))
            .context("the installer did not refuse the altered medium")?;
        ensure!(
            allocated(&machine)? == before,
            "the disk was written although the medium was refused"
        );
        let reason = reason.to_owned();
        fs::remove_file(&iso)?;
        Ok(format!("disk untouched: {}", detail(&reason)))
    })
}

/// An installation whose power is cut leaves a disk that does not boot.
///
/// # Errors
/// When the step fails.
pub fn cut_off(shop: &Workshop, ledger: &Ledger) -> Result<()> {
    let inputs = shop.story()?.file(&shop.iso())?;
    ledger.step(
        "install-cut",
        "cut the power during an installation",
        inputs,
        &[],
        || {
            let machine = Machine::bare(&shop.at("vm/cut"), 10, shop.accelerator)?;
            let answers = shop.at("vm/cut/answers.img");
            stick::make(
                &answers,
                "BASTIDE-ANS",
                &[("bastide-answer.toml", &shop.answer("answer", false)?)],
            )?;
            let plugged = Plugged {
                medium: Some((&shop.iso(), Medium::Usb)),
                sticks: vec![&answers],
                ..Plugged::default()
            };
            let mut running = machine.power_on("install", &plugged)?;
            running.wait_for("\"step\":\"write-root\",\"state\":\"progress\"", PATIENCE)?;
            running.cut_power()?;
            let mut running = machine.power_on("boot", &Plugged::default())?;
            let verdict = running.wait_for_nothing_to_boot(Duration::from_secs(120));
            let console = running.console()?;
            ensure!(!console.contains("Xen version"), "a half-written disk booted");
            verdict?;
            running.cut_power()?;
            fs::remove_file(machine.disk())?;
            Ok("the firmware found nothing to boot".into())
        },
    )
}

fn install(machine: &Machine, iso: &Path, medium: Medium, answer: &Path) -> Result<String> {
    install_with(machine, iso, medium, &[("bastide-answer.toml", answer)])
}

/// With a stick that holds these files.
fn install_with(machine: &Machine, iso: &Path, medium: Medium, files: &[(&str, &Path)]) -> Result<String> {
    let answers = machine.directory.join("answers.img");
    stick::make(&answers, "BASTIDE-ANS", files)?;
    let plugged = Plugged {
        medium: Some((iso, medium)),
        sticks: vec![&answers],
        ..Plugged::default()
    };
    let mut running = machine.power_on("install", &plugged)?;
    running.wait_for_power_off(PATIENCE)?;
    running.console()
}

fn steps_done(console: &str, steps: &[&str]) -> Result<()> {
    for step in steps {
        let done = format!("\"step\":\"{step}\",\"state\":\"done\"");
        ensure!(console.contains(&done), "the installer did not report {step} as done");
    }
    Ok(())
}

fn detail(line: &str) -> String {
    let from = line.find('{').unwrap_or(0);
    serde_json::from_str::<serde_json::Value>(line[from..].trim())
        .ok()
        .and_then(|event| Some(event["detail"].as_str()?.to_owned()))
        .unwrap_or_else(|| line.to_owned())
}

/// Which clusters of the disk hold data: a bare disk has none, and one that was written has some.
fn allocated(machine: &Machine) -> Result<Vec<u8>> {
    Ok(Cmd::new("qemu-img")
        .args(["map", "--output=json"])
        .arg(machine.disk())
        .output()?)
}
